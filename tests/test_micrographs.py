from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aurefine import compare, ctf, euler, micrographs, molecule, mrc, nufft, star, truth
from aurefine.cli.main import main
from aurefine.errors import InputError
from aurefine.imaging import Camera, Imaging
from aurefine.micrographs import Field, simulate_micrographs
from aurefine.optics import OpticsGroup
from aurefine.particles import CtfTable

IMAGING = Imaging(particles=10, cameras=(Camera(3.0, 48),), particles_per_micrograph=5, snr=0.5, defocus=(5000.0, 9000.0), offset=5.0, seed=3)
FIELD = Field((400, 360), spacing=1.3)
TINY = molecule.Shape(120, 2, (45, 40, 35))


@pytest.fixture(scope="module")
def tiny() -> molecule.Molecule:
    return molecule.generate("C1", seed=2, shape=TINY)


@pytest.fixture(scope="module")
def project(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    simulate_micrographs(tiny, folder, replace(IMAGING, snr=1e4, grey_scale_spread=0.0), replace(FIELD, unevenness=0.0))
    return folder


def _true_places(table: star.Table, pixel_size: float) -> np.ndarray:
    return np.stack([table[f"rlnCoordinate{axis}"] - table[f"rlnOrigin{axis}Angst"] / pixel_size for axis in "XY"], axis=1)


def test_particles_are_dark_and_where_the_truth_says_to_a_fraction_of_a_pixel(tiny, project):
    """Each window, seen from the true place, is minus CTF x MTF x projection of the true map."""
    table, (volume, pixel_size) = star.read_table(project / "truth.star", "particles"), mrc.read_map(project / "truth.mrc")
    sampler = nufft.MapSampler(volume)
    x, y = (f.ravel() for f in np.meshgrid(np.arange(1, 13), np.arange(-12, 13)))
    optics = OpticsGroup("", 1, IMAGING.voltage, IMAGING.spherical_aberration, IMAGING.amplitude_contrast, pixel_size, 48)
    zero, one = np.zeros(table.count), np.ones(table.count)
    contrast = ctf.evaluate(CtfTable(*(table[f"rlnDefocus{k}"] for k in ("U", "V", "Angle")), zero, one, zero),
                            np.arange(table.count), optics, x / 144, y / 144) * micrographs.mtf(np.hypot(x, y) / 48)
    for i in range(table.count):
        image = mrc.Stack(project / table["rlnMicrographName"][i]).read([0])[0]
        px, py = int(table["rlnCoordinateX"][i]), int(table["rlnCoordinateY"][i])
        window = np.fft.fft2(np.fft.ifftshift(image[py - 24 : py + 24, px - 24 : px + 24]))[y, x]
        window = window * np.exp(-2j * np.pi * (x * table["rlnOriginXAngst"][i] + y * table["rlnOriginYAngst"][i]) / 144)
        rotation = euler.to_matrix(np.array([table[f"rlnAngle{k}"][i] for k in ("Rot", "Tilt", "Psi")]))
        expected = -contrast[i] * sampler(np.stack([x, y], axis=1) @ rotation[:2])
        assert np.vdot(expected, window).real / np.linalg.norm(expected) / np.linalg.norm(window) > 0.97


def test_files_are_those_of_a_project(project):
    ctf_tables, picks = star.read(project / "micrographs_ctf.star"), star.read_table(project / "autopick.star", "coordinate_files")
    assert ctf_tables["optics"]["rlnMicrographPixelSize"][0] == 3.0
    assert list(ctf_tables["micrographs"]["rlnMicrographName"]) == list(picks["rlnMicrographName"])
    table = star.read_table(project / "truth.star", "particles")
    for name, path in zip(picks["rlnMicrographName"], picks["rlnMicrographCoordinates"]):
        assert mrc.Stack(project / name).pixel_size == 3.0
        assert path == f"AutoPick/{name[:-4]}_autopick.star"
        places = star.read(project / path)[""]
        assert np.array_equal(places["rlnCoordinateX"], table["rlnCoordinateX"][table["rlnMicrographName"] == name])
        assert np.array_equal(places["rlnCoordinateY"] % 1, np.zeros(5))
    assert star.read_table(project / "mtf.star", "mtf")["rlnMtfValue"][0] == 1


def test_particles_keep_apart_and_away_from_the_edges(tiny, project):
    table = star.read_table(project / "truth.star", "particles")
    assert 1 < np.abs(table["rlnOriginXAngst"]).mean() < 10
    for name in np.unique(table["rlnMicrographName"].astype(str)):
        places = _true_places(table.select(table["rlnMicrographName"] == name), 3.0)
        distance = np.linalg.norm(places[:, None] - places, axis=2)[np.triu_indices(5, 1)]
        assert distance.min() >= 1.3 * tiny.diameter / 3 and places.min() > 24 and (places < np.array(FIELD.size) - 24).all()


def test_the_same_seed_makes_the_same_micrographs(tiny, tmp_path):
    one = replace(IMAGING, particles=5)
    made = [simulate_micrographs(tiny, tmp_path / name, replace(one, seed=seed), FIELD) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    images = [mrc.Stack(one.micrographs.parent / "Micrographs/micrograph_0001.mrc").read([0]) for one in made]
    assert np.array_equal(images[0], images[1]) and not np.array_equal(images[0], images[2])
    assert made[0].truth.read_bytes() == made[1].truth.read_bytes()
    assert abs(images[0].mean() - 20) < 1 and abs(images[0].std() - 4.5) < 0.6


def test_an_exposure_is_the_same_at_any_pixel_size():
    """Noise per area at each frequency over the signal stays: variance per pixel of the white part goes with the pixel's area."""
    coarse = Imaging(cameras=(Camera(4.0, 64),), snr=0.2)
    fine = coarse.recorded_with(Camera(1.0, 256))
    for imaging in (coarse, fine):
        assert 0 < imaging.coloured_share < 1
    ratio = [i.coloured_share / (1 - i.coloured_share) / i.mean_falling(i.cameras[0].pixel_size) for i in (coarse, fine)]
    assert np.isclose(*ratio) and np.isclose(fine.snr / (1 - fine.coloured_share), coarse.snr / (1 - coarse.coloured_share) / 16)
    assert fine.recorded_with(Camera(4.0, 64)).snr == pytest.approx(0.2)


def test_extracted_particles_find_their_true_poses_by_place(project, tmp_path):
    table = star.read_table(project / "truth.star", "particles")
    moved = {"rlnCoordinateX": table["rlnCoordinateX"] + 2.7, "rlnCoordinateY": table["rlnCoordinateY"] - 1.0}  # a fraction is cut off
    names = np.array([f"{i + 1}@x.mrcs" for i in range(table.count)], object)
    extracted = table.without(["rlnAngleRot", "rlnClassNumber"]).with_columns({**moved, "rlnImageName": names})
    order = np.random.default_rng(1).permutation(table.count)
    found = truth.at_places(extracted.select(order), project / "truth.star", "particles.star")
    assert np.allclose(found["rlnAngleRot"], table["rlnAngleRot"][order])
    assert np.allclose(found["rlnOriginXAngst"], table["rlnOriginXAngst"][order] + 6, atol=1e-4)
    assert np.allclose(found["rlnOriginYAngst"], table["rlnOriginYAngst"][order] - 3, atol=1e-4)
    star.write(tmp_path / "particles.star", [star.read_table(project / "truth.star", "optics"), extracted])
    assert truth.write_true_poses(tmp_path / "particles.star", project / "truth.star", tmp_path / "true.star") == table.count
    errors = compare.pose_errors(tmp_path / "true.star", project / "truth.star")
    assert errors["angle_median"] < 0.01 and errors["shift_median"] < 1e-3


def test_false_picks_have_no_true_pose(tiny, tmp_path):
    simulate_micrographs(tiny, tmp_path, replace(IMAGING, pure_noise=3), FIELD)
    table = star.read_table(tmp_path / "truth.star", "particles")
    assert (table["rlnClassNumber"] == 2).sum() == 3
    named = table.with_columns({"rlnImageName": np.array([f"{i + 1}@x.mrcs" for i in range(10)], object)})
    assert truth.at_places(named, tmp_path / "truth.star", "x").count == 7
    merits = np.concatenate([star.read(path)[""]["rlnAutopickFigureOfMerit"] for path in sorted(tmp_path.glob("AutoPick/Micrographs/*.star"))])
    assert np.array_equal(merits < 0.5, table["rlnClassNumber"] == 2)
    elsewhere = named.with_columns({"rlnMicrographName": np.array(["other.mrc"] * 10, object)})
    with pytest.raises(InputError, match="same micrographs"):
        truth.at_places(elsewhere, tmp_path / "truth.star", "x")


@pytest.mark.parametrize(("imaging", "field", "says"), [
    ({"particles": 400, "particles_per_micrograph": 400}, {}, "fewer particles"), ({"blank": 1}, {}, "noise ones"),
    ({}, {"size": (40, 400)}, "no room"), ({"cameras": (Camera(1.0, 48),)}, {}, "does not fit"),
])  # fmt: skip
def test_impossible_micrographs_are_refused_in_words(tiny, tmp_path, imaging, field, says):
    with pytest.raises(InputError, match=says):
        simulate_micrographs(tiny, tmp_path, replace(IMAGING, **imaging), replace(FIELD, **field))


def test_the_command_writes_micrographs(tmp_path, capsys):
    command = ["simulate", "--micrographs", "--o", str(tmp_path / "p"), "--n", "3", "--per_micrograph", "3", "--sym", "C4"]
    command += ["--angpix", "4", "--box", "64"]
    assert main([*command, "--micrograph_size", "300", "--map_box", "48"]) == 0
    printed = capsys.readouterr().out
    assert "--coord_list autopick.star --extract_size 64" in printed and "--sym C4" in printed
    volume, pixel_size = mrc.read_map(tmp_path / "p" / "truth.mrc")
    assert volume.shape == (48,) * 3 and pixel_size == pytest.approx(64 * 4 / 48)
    assert main([*command, "--micrograph_size", "300"]) == 2 and "already" in capsys.readouterr().err
    assert main([*command, "--micrograph_size", "wide", "--overwrite"]) == 2
