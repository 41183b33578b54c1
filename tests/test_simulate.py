from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from aurefine import ctf, euler, fsc, molecule, mrc, nufft, particles, star, symmetry
from aurefine.cli.main import main
from aurefine.errors import InputError
from aurefine.imaging import Camera, Imaging, draw_truth
from aurefine.simulate import MapSource, simulate

SMALL = Imaging(particles=24, cameras=(Camera(6.0, 32),), particles_per_micrograph=8, seed=3)
TINY = molecule.Shape(120, 2, (45, 40, 35))


@pytest.fixture(scope="module")
def tiny() -> molecule.Molecule:
    return molecule.generate("C1", seed=2, shape=TINY)


def test_projections_are_the_exact_fourier_sums_over_atoms(tiny):
    rotations = Rotation.random(3, random_state=1).as_matrix()
    found = nufft.transform_of_projections(tiny.positions, tiny.weights, rotations, 32, 4.0)
    x, y = nufft.frequency_grid(32, 2)
    for image, rotation in zip(found, rotations):
        place = tiny.positions @ rotation.T / (32 * 4.0)
        exact = np.exp(-2j * np.pi * (x[..., None] * place[:, 0] + y[..., None] * place[:, 1])) @ tiny.weights
        exact[16], exact[:, 16] = 0, 0
        assert np.abs(image - exact).max() < 1e-6 * np.abs(exact).max()


def test_atoms_and_their_map_give_the_same_projections(tiny):
    rotations = Rotation.random(4, random_state=5).as_matrix()
    truth = tiny.density(48, 4.0, b_factor=400.0)
    from_map = MapSource(truth, 4.0).transforms(rotations, 32, 6.0, 0.0)
    from_atoms = tiny.transforms(rotations, 32, 6.0, b_factor=400.0)
    x, y = nufft.frequency_grid(32, 2)
    inside = (x**2 + y**2 < 15**2) & (np.abs(y) < 16)
    assert np.abs(from_map - from_atoms)[:, inside].max() < 2e-3 * np.abs(from_atoms).max()


def test_the_map_is_what_its_projections_along_z_sum_up(tiny):
    truth = tiny.density(32, 6.0, 100.0)
    image = nufft.to_image(tiny.transforms(np.eye(3)[None], 32, 6.0, 100.0))[0]
    assert np.allclose(truth.sum(axis=0), image, atol=1e-4 * image.max())


@pytest.mark.parametrize("name", ["C1", "C4", "D2", "O", "T"])
def test_a_generated_molecule_has_the_symmetry_asked_for_and_no_other(name):
    made = molecule.generate(name, seed=4)
    density = made.density(32, made.diameter / 26, 200.0)
    sampler = nufft.MapSampler(density)
    for operator in symmetry.point_group(name).operators[1:4]:
        turned = nufft.to_map(sampler.resampled(operator, np.zeros(3)))
        assert fsc.of_maps(turned.astype(np.float32), density)[1:14].min() > 0.98
    other = Rotation.from_rotvec([0, 0, np.pi / 5]).as_matrix()
    assert fsc.of_maps(nufft.to_map(sampler.resampled(other, np.zeros(3))).astype(np.float32), density)[6:14].mean() < 0.7
    assert np.array_equal(made.positions, molecule.generate(name, seed=4).positions)


def test_a_generated_molecule_is_as_dense_as_protein():
    made = molecule.generate("D2", seed=1)
    assert 150 < made.diameter < 210
    occupied = len(np.unique(np.floor(made.positions / 6), axis=0)) * 6**3
    residues = len(made.positions) / 2
    assert 80 < occupied / residues < 260  # Angstrom^3 a residue; protein has 133 without its surface


def test_the_same_seed_writes_the_same_particles(tiny, tmp_path):
    for folder in ("one", "two"):
        simulate(tiny, tmp_path / folder, SMALL)
    for name in ("particles.star", "truth.star", "truth.mrc", "Particles/micrograph_0002.mrcs"):
        one, two = ((tmp_path / folder / name).read_bytes() for folder in ("one", "two"))
        dated = slice(224, 304) if ".mrc" in name else slice(0, 0)  # an MRC file's label says when it was written
        assert len(one) == len(two) and one[: dated.start] + one[dated.stop :] == two[: dated.start] + two[dated.stop :]
    other = simulate(tiny, tmp_path / "other", replace(SMALL, seed=9))
    assert other.particles.read_bytes() != (tmp_path / "one" / "particles.star").read_bytes()


def test_particles_have_a_background_of_mean_zero_and_unit_deviation_and_bright_particles(tiny, tmp_path):
    made = simulate(tiny, tmp_path, replace(SMALL, snr=0.5))
    images = mrc.Stack(tmp_path / "Particles/micrograph_0001.mrcs").read(np.arange(8))
    y, x = np.mgrid[-16:16, -16:16]
    outside = np.hypot(x, y) > made.particle_diameter / 12
    assert np.allclose(images[:, outside].mean(axis=1), 0, atol=1e-5) and np.allclose(images[:, outside].std(axis=1), 1, atol=1e-5)
    assert images[:, ~outside].mean() > 0.05


def test_true_poses_recover_the_true_map(tiny, tmp_path):
    """Insert the images at their true poses by direct Fourier sums at some coefficients: they are CTF times the truth."""
    imaging = replace(SMALL, snr=1e4, particles=6, offset=8.0, grey_scale_spread=0.0, b_factor=300.0)
    simulate(tiny, tmp_path, imaging)
    found = particles.load(tmp_path / "truth.star")
    truth, pixel_size = mrc.read_map(tmp_path / "truth.mrc")
    images = np.fft.fft2(np.fft.ifftshift(found.read_images(np.arange(6)), axes=(1, 2)))
    sampler = nufft.MapSampler(truth)
    x, y = (f.ravel() for f in np.meshgrid(np.arange(1, 8), np.arange(-7, 8)))
    width = 32 * pixel_size
    for i, rotation in enumerate(euler.to_matrix(found.angles)):
        contrast = ctf.evaluate(found.defocus, [i], found.optics[0], x / width, y / width)[0]
        centred = images[i, y, x] * np.exp(-2j * np.pi * (x * found.offsets[i, 0] + y * found.offsets[i, 1]) / width)
        expected = contrast * sampler(np.stack([x, y], axis=1) @ rotation[:2])
        correlation = np.vdot(expected, centred).real / np.linalg.norm(expected) / np.linalg.norm(centred)
        assert correlation > 0.99


def test_optics_groups_share_one_exposure(tiny, tmp_path):
    simulate(tiny, tmp_path, replace(SMALL, cameras=(Camera(6.0, 32), Camera(4.0, 48)), snr=1e-4))
    found = particles.load(tmp_path / "particles.star")
    assert [group.box for group in found.optics] == [32, 48] and [group.pixel_size for group in found.optics] == [6.0, 4.0]
    assert "rlnAngleRot" not in found.table
    truth = star.read_table(tmp_path / "truth.star", "particles")
    assert "rlnAngleRot" in truth and len(np.unique(truth["rlnOpticsGroup"])) == 2


def test_outliers_are_what_the_truth_file_says(tiny, tmp_path):
    simulate(tiny, tmp_path, replace(SMALL, pure_noise=2, blank=3, not_a_number=1))
    truth = star.read_table(tmp_path / "truth.star", "particles")
    assert (truth["rlnClassNumber"] == 2).sum() == 6
    images = np.concatenate([mrc.Stack(tmp_path / f"Particles/micrograph_000{i}.mrcs").read(np.arange(8)) for i in (1, 2, 3)])
    assert (np.abs(images).max(axis=(1, 2)) == 0).sum() == 3
    assert np.isnan(images).any(axis=(1, 2)).sum() == 1


def test_preferred_views_crowd_around_one_direction():
    truth = draw_truth(replace(SMALL, particles=2000, preferred=0.8, preferred_view=(30.0, 70.0)))
    towards = euler.view_direction(truth.angles[:, 0], truth.angles[:, 1]) @ euler.view_direction(30.0, 70.0)
    assert (towards > np.cos(np.radians(45))).mean() > 0.7
    even = draw_truth(replace(SMALL, particles=2000))
    assert abs(euler.view_direction(even.angles[:, 0], even.angles[:, 1]).mean(axis=0)).max() < 0.06


def test_an_atomic_model_is_centred_and_keeps_its_axes(tmp_path):
    pytest.importorskip("gemmi")
    line = "ATOM  {:5d}  CA  ALA A{:4d}    {:8.3f}{:8.3f}{:8.3f}  1.00  0.00           {}"
    atoms = [(1, "C", (10, 0, 0)), (2, "N", (20, 0, 0)), (3, "O", (15, 30, 3))]
    (tmp_path / "model.pdb").write_text("\n".join(line.format(i, i, *place, element) for i, element, place in atoms) + "\nEND\n")
    made = molecule.from_model(tmp_path / "model.pdb")
    assert np.allclose(made.positions, [(-5, -10, -1), (5, -10, -1), (0, 20, 2)]) and np.allclose(made.weights, [6, 7, 8])
    (tmp_path / "empty.pdb").write_text("END\n")
    with pytest.raises(InputError, match="empty.pdb"):
        molecule.from_model(tmp_path / "empty.pdb")


@pytest.mark.parametrize(("change", "says"), [
    ({"cameras": (Camera(1.0, 32),)}, "does not fit"), ({"cameras": (Camera(6.0, 33),)}, "even number"),
    ({"snr": 0.0}, "positive"), ({"blank": 99}, "more outliers"), ({"particles": 0}, "at least one"), ({"cameras": (Camera(0.0, 32),)}, "pixel size"),
    ({"seed": -5}, "random seed is -5"), ({"reference_resolution": 0.0}, "resolution"), ({"voltage": 0.0}, "voltage"), ({"offset": -1.0}, "centring"),
    ({"defocus": (2e4, 1e4)}, "20000 Angstrom, is above the largest, 10000"), ({"astigmatism": -1.0}, "astigmatism"), ({"blank": -1}, "blank"),
    ({"grey_scale_spread": -1.0}, "grey scale"), ({"preferred": 1.5}, "from 0 to 1"), ({"particle_diameter": -1.0}, "diameter is -1"),
])  # fmt: skip
def test_impossible_settings_are_refused_in_words(tiny, tmp_path, change, says):
    with pytest.raises(InputError, match=says):
        simulate(tiny, tmp_path, replace(SMALL, **change))


@pytest.mark.parametrize(("words", "says"), [
    (["--angpix", "0"], "pixel size is 0"), (["--micrographs", "--angpix", "0"], "pixel size is 0"),
    (["--molecule_seed", "-1"], "--molecule_seed -1"),
    (["--o", "/proc/none"], "/proc/none: the output folder cannot be made"), (["--o", "file/set"], "a part of this name is a file"),
])  # fmt: skip
def test_a_wrong_command_is_one_message(tmp_path, monkeypatch, capsys, words, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main(["simulate", "--o", "set", "--n", "4", "--box", "32", "--angpix", "8", *words]) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "set" / "particles.star").exists()
