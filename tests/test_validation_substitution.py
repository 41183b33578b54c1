"""The noise-substitution test: images lose their phases alone, and what half maps share beyond is what the refinement made of noise."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from aurefine import euler, fourier, fsc, mask, mrc, nufft, particles, reconstruction, star
from aurefine.cli import main as cli
from aurefine.imaging import Camera, Imaging
from aurefine.simulate import MapSource, simulate
from aurefine.validation import substitution
from aurefine.validation.substitution import SubstitutedImages

BOX, PIXEL_SIZE = 24, 6.0


def shells(box=BOX):
    return np.hypot(np.arange(box // 2 + 1)[None, :], fourier.frequencies(box)[:, None])


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Particles of a ball of random density, written into a folder with their truth."""
    folder = tmp_path_factory.mktemp("set")
    ball = mask.soft_edge(BOX, 3, 6.5, 2.0)
    white = np.random.default_rng(0).standard_normal((BOX,) * 3) * ball
    imaging = Imaging(particles=300, cameras=(Camera(PIXEL_SIZE, BOX),), snr=1.0, b_factor=50.0, reference_resolution=30.0, offset=1.0, seed=1)
    simulate(MapSource(white, PIXEL_SIZE, 100.0), folder, imaging)
    return folder


def test_only_phases_beyond_the_shell_change():
    image = np.random.default_rng(1).normal(size=(BOX, BOX)).astype(np.float32)
    changed = substitution.random_phases(image, 6.0, np.random.default_rng(2))
    before, after = np.fft.rfft2(image), np.fft.rfft2(changed)
    inside, beyond = shells() < 6, shells() >= 6
    assert np.allclose(before[inside], after[inside], atol=1e-3)
    # Coefficients that are their own mates are real: of them only the sign is random.
    free = beyond & (np.arange(BOX // 2 + 1) % (BOX // 2) != 0)[None, :]
    assert np.allclose(np.abs(before[free]), np.abs(after[free]), rtol=1e-3, atol=1e-3)
    turned = after[free] / before[free]
    assert abs((turned / np.abs(turned)).mean()) < 0.15


def test_an_image_has_the_same_random_phases_whenever_it_is_read(simulated, monkeypatch):
    monkeypatch.chdir(simulated)
    given = particles.load("particles.star")
    source = SubstitutedImages.of(given.images, 20.0, np.full(given.count, PIXEL_SIZE), 0)
    every = source.read(np.arange(given.count))
    assert np.array_equal(source.read(np.array([17, 3])), every[[17, 3]])
    assert np.array_equal(source.select(np.arange(given.count) % 2 == 1).read(np.array([4])), every[[9]])
    assert not np.allclose(every, given.images.read(np.arange(given.count)), atol=0.1)
    other = SubstitutedImages.of(given.images, 20.0, np.full(given.count, PIXEL_SIZE), 1)
    assert not np.array_equal(other.read(np.array([0])), every[:1])


def test_the_formula_and_where_it_begins():
    found, noise = np.array([1, 1, 0.9, 0.8, 0.6, 0.5, 0.2]), np.array([1, 1, 0.9, 0.5, 0.2, 0.1, -0.3])
    true = substitution.true_fsc(found, noise, 2)
    assert true == pytest.approx([1, 1, 0.9, 0.8, 0.5, 0.4 / 0.9, 0.2])
    curve = np.concatenate([np.ones(10), np.linspace(0.9, 0, 20)])
    assert substitution.from_shell(curve, 26.0, 200.0, 0.0) == 13  # where it falls below 0.8
    assert substitution.from_shell(np.ones(30), 29.0, 200.0, 0.0) == 21  # never: well before the end
    assert substitution.from_shell(curve, 26.0, 200.0, 20.0) == 10  # as asked


def aligned_noise(folder, reference, substituted):
    """Half maps of pure noise at the views where each image looks most like the reference, which both halves share."""
    rng, count = np.random.default_rng(3), 300
    images = rng.normal(size=(count, BOX, BOX)).astype(np.float32)
    mrc.write_stack(folder / "noise.mrcs", images, PIXEL_SIZE)
    rotations = Rotation.random(400, random_state=4).as_matrix()
    references = nufft.to_image(nufft.MapSampler(reference).projections(rotations)).reshape(len(rotations), -1)
    references /= np.linalg.norm(references, axis=1, keepdims=True)
    columns = {"rlnImageName": np.array([f"{i + 1:06d}@noise.mrcs" for i in range(count)], object), "rlnOpticsGroup": np.ones(count, int)}
    optics = {"rlnOpticsGroup": np.array([1]), "rlnOpticsGroupName": np.array(["one"], object), "rlnVoltage": np.array([300.0]),
              "rlnSphericalAberration": np.array([2.7]), "rlnAmplitudeContrast": np.array([0.1]), "rlnImagePixelSize": np.array([PIXEL_SIZE]),
              "rlnImageSize": np.array([BOX]), "rlnImageDimensionality": np.array([2])}  # fmt: skip
    star.write(folder / "noise.star", [star.Table("optics", optics), star.Table("particles", columns)])
    given = particles.load(folder / "noise.star", need_ctf=False)
    source = SubstitutedImages.of(given.images, 30.0, np.full(count, PIXEL_SIZE), 0) if substituted else given.images
    best = (source.read(np.arange(count)).reshape(count, -1) @ references.T).argmax(axis=1)
    posed = particles.replace(given, images=source, angles=euler.from_matrix(rotations[best]))
    return [reconstruction.from_poses(posed, np.arange(half, count, 2), use_ctf=False, expected_fsc=0.143) for half in (0, 1)]


def test_noise_aligned_to_one_reference_is_found_out(tmp_path):
    ball = mask.soft_edge(BOX, 3, 6.5, 2.0)
    reference = np.random.default_rng(5).standard_normal((BOX,) * 3) * ball
    found, noise = (fsc.of_maps(*(half * ball for half in aligned_noise(tmp_path, reference, which))) for which in (False, True))
    shell = round(BOX * PIXEL_SIZE / 30.0)
    between = slice(shell + 2, BOX // 2)
    assert found[between].mean() > 0.25 and noise[between].mean() > 0.25  # as if it were signal
    assert abs(substitution.true_fsc(found, noise, shell)[between].mean()) < 0.15


@pytest.mark.parametrize("start", [(), ("--substitute_from_start",)])
def test_a_true_refinement_makes_nothing_of_noise(refined, tmp_path, start):
    with contextlib.chdir(refined):
        words = ["validate", "--i", "job", "--o", str(tmp_path), "--skip_reslog", "--noise_substitution", "--substitute_from", "24", *start]
        assert cli.main(words) == 0
    data = json.loads((tmp_path / "validation.json").read_text())
    found = next(each for each in data["measures"] if each["key"] == "noise_substitution")
    curves = data["curves"]["noise_substitution"]
    assert found["verdict"] == "good" and found["value"] == pytest.approx(2 * PIXEL_SIZE, abs=4)
    assert curves["substituted"][4] > 0.8  # where images keep their phases, the molecule is found again
    assert abs(np.mean(curves["substituted"][8:])) < 0.1 and np.mean(curves["found"][8:]) > 0.3


@pytest.fixture(scope="module")
def refined(simulated):
    """The simulated particles refined to the end."""
    with contextlib.chdir(simulated):
        words = (
            "refine --i particles.star --o job/run --ref reference.mrc --ini_high 30 --ctf --particle_diameter 110 --zero_mask --healpix_order 1 "
            "--auto_local_healpix_order 2 --offset_range 2 --offset_step 1 --random_seed 1 --auto_ignore_angles --auto_resol_angles --norm --verb 0"
        ).split()
        (simulated / "job").mkdir()
        assert cli.main(words) == 0
    return simulated


def test_what_is_missing_is_said(refined, tmp_path, capsys):
    with contextlib.chdir(refined):
        (tmp_path / "maps").mkdir()
        for half in (1, 2):
            name = f"run_half{half}_class001_unfil.mrc"
            (tmp_path / "maps" / name).write_bytes((refined / "job" / name).read_bytes())
        assert cli.main(["validate", "--i", str(tmp_path / "maps"), "--o", str(tmp_path / "a"), "--noise_substitution", "--skip_reslog"]) == 0
    found = {each["key"]: each for each in json.loads((tmp_path / "a" / "validation.json").read_text())["measures"]}
    assert found["noise_substitution"]["value"] is None and "3D auto-refine job" in found["noise_substitution"]["text"]
    capsys.readouterr()
    assert cli.main(["validate", "--i", str(refined / "job"), "--o", str(tmp_path / "b"), "--substitute_from", "9"]) == 2
    assert "--noise_substitution" in capsys.readouterr().err
