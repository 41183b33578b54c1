"""What optics groups say of their images: other boxes, other detectors, a CTF that is corrected, and other images for the last maps."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from aurefine import fsc, mrc, mtf, particles, star
from aurefine.cli.main import main
from aurefine.errors import InputError
from aurefine.fourier import pixel_list
from aurefine.optics import OpticsGroup
from aurefine.refine import images
from aurefine.refine.image_cache import ImageCache
from aurefine.refine.options import RefineOptions
from aurefine.refine.plan import Plan, geometry_of

FLAGS = (
    "refine --i particles.star --ref reference.mrc --particle_diameter 200 --ctf --ini_high 40 --sym D2 --healpix_order 1 --offset_range 2 "
    "--auto_local_healpix_order 3 --offset_step 2 --flatten_solvent --norm --scale --random_seed 1 --low_resol_join_halves 40 --zero_mask "
    "--auto_refine --split_random_halves --verb 0 --j 1"
).split()


def group(box, pixel_size=2.0, **others):
    return OpticsGroup("a", others.pop("number", 1), 300.0, 2.7, 0.1, pixel_size, box, **others)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("groups") / "set"
    assert main(["simulate", "--o", str(folder), "--n", "100", "--box", "36", "--angpix", "6", "--snr", "2", "--sym", "D2"]) == 0
    return folder


@pytest.mark.parametrize("box, pixel_size", [(40, 2.0), (72, 2.0), (54, 2.0), (30, 2.0), (40, 1.5)])
def test_white_noise_of_any_box_has_one_level_in_all_model_shells(box, pixel_size):
    geometry, shells = geometry_of(group(box, pixel_size), 40, 2.0), 21
    listed = pixel_list(box, box, pixel_size)
    sums = np.bincount(geometry.model_shell(listed.shell, shells), np.full(len(listed), 3.0), shells + 1)[:shells]
    count = geometry.pixels_per_model_shell(shells)
    inside = count > 0
    assert inside[: int(20 / max(geometry.scale, 1))].any()
    level = sums[inside] / count[inside]
    np.testing.assert_allclose(level, 3.0 * geometry.scale**2, rtol=1e-12)  # no shell stands out, though some hold one image shell and others two
    np.testing.assert_allclose(geometry.image_power(np.full(shells, level[0])), 3.0, rtol=1e-12)


def test_a_wider_box_is_filled_with_its_own_noise(simulated, tmp_path):
    geometry = geometry_of(group(72), 40, 2.0)
    spectrum = 1e-4 / (1 + np.arange(21.0))
    filled = images.fill_with_noise(torch.zeros((300, 72, 72)), 0, 1e-6, geometry.image_power(spectrum), np.arange(300))
    power = (torch.fft.rfft2(filled, norm="forward").abs() ** 2).mean(0).numpy()
    ring = [power[s, 0] for s in range(1, 30)]
    expected = [2 * spectrum[round(s / 1.8 + 1e-9)] / 1.8**2 for s in range(1, 30)]
    np.testing.assert_allclose(ring, expected, rtol=0.35)


def test_half_sets_of_wider_boxes_do_not_drown_in_the_noise_around_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", "--o", ".", "--n", "80", "--box", "28,52", "--angpix", "8,8", "--snr", "1", "--sym", "D2"]) == 0
    flags = [flag for flag in FLAGS if flag != "--zero_mask"]
    assert main([*flags, "--firstiter_cc", "--o", "run", "--auto_iter_max", "5"]) == 0
    norms = [star.read(f"run_it{k:03d}_half1_model.star")["model_general"].value("rlnNormCorrectionAverage") for k in range(1, 6)]
    assert max(norms[1:]) < 1.1 * norms[0]  # it grew by a quarter to a third in each iteration


def test_images_without_a_ctf_are_compared_without_one(simulated, monkeypatch):
    monkeypatch.chdir(simulated)
    tables = star.read("particles.star")
    optics = tables["optics"].with_columns({"rlnCtfDataAreCtfCorrected": np.ones(1, int)})
    bare = {name: column for name, column in tables["particles"].columns.items() if not name.startswith("rlnDefocus")}
    star.write("corrected.star", [optics, star.Table("particles", bare)])
    found = particles.load("corrected.star", need_ctf=True)  # nobody needs their defocus
    rows, options = np.arange(3), RefineOptions(particle_diameter=200.0, ctf_correction=True, zero_mask=True)
    geometry = (geometry_of(found.optics[0], 36, 6.0),)
    plan = Plan(2, None, 36, ((36, 36, 36),), geometry)
    scale, listed = np.full(3, 0.5), pixel_list(36, 36, 6.0)
    arguments = ImageCache(found), found, 0, rows, found.offsets[rows], np.ones(3), scale, np.ones(19), listed, options, plan
    prepared = images.prepare(*arguments)
    assert (prepared.model == 0.5).all()


def test_maps_of_the_last_iteration_are_those_of_the_images_named_for_them(simulated, tmp_path, monkeypatch):
    monkeypatch.chdir(simulated)
    table = star.read("particles.star")
    names = table["particles"]["rlnImageName"]
    for stack in sorted({name.split("@")[1] for name in names}):
        values, pixel_size = mrc.read_map(stack)
        mrc.write_stack(tmp_path / stack.rsplit("/")[-1], -values, pixel_size)
    other = np.array([f"{name.split('@')[0]}@{tmp_path / name.rsplit('/')[-1]}" for name in names], object)
    star.write("negated.star", [table["optics"], table["particles"].with_columns({"rlnReconstructImageName": other})])
    flags = [*FLAGS, "--o", "run"]
    flags[flags.index("particles.star")] = "negated.star"
    assert main(flags) == 0
    joined, half = (mrc.read_map(name)[0] for name in ("run_class001.mrc", "run_half1_class001_unfil.mrc"))
    truth = mrc.read_map("truth.mrc")[0]
    smooth = ndimage.gaussian_filter(truth, 1)
    assert np.corrcoef(half.ravel(), smooth.ravel())[0, 1] < -0.5 and np.corrcoef(joined.ravel(), smooth.ravel())[0, 1] < -0.5


def test_maps_are_made_with_the_ctf_when_the_first_reference_still_has_it(simulated, tmp_path, monkeypatch):
    monkeypatch.chdir(simulated)
    assert main([*FLAGS, "--healpix_order", "2", "--ctf_uncorrected_ref", "--auto_iter_max", "1", "--o", str(tmp_path / "run")]) == 0
    half, truth = mrc.read_map(tmp_path / "run_it001_half1_class001.mrc")[0], mrc.read_map("truth.mrc")[0]
    curve = fsc.of_maps(half, truth)
    assert curve[9:15].mean() > 0.03, curve  # negative where the CTF is left in


def _mtf(path, last):
    path.write_text(f"data_\n\nloop_\n_rlnResolutionInversePixel\n_rlnMtfValue\n0 1\n0.25 {(1 + last) / 2}\n0.5 {last}\n0.6 {last}\n")
    return str(path)


def test_images_of_different_detectors_get_their_average_mtf(tmp_path):
    sharp, dull = _mtf(tmp_path / "a.star", 0.8), _mtf(tmp_path / "b.star", 0.4)
    groups = [group(40, mtf_file=sharp, original_pixel_size=1.0), group(40, mtf_file=dull, original_pixel_size=1.0, number=2)]
    frequency = np.array([0.0, 0.2, 0.4])
    factors = [mtf.to_common(groups, k)(frequency) for k in (0, 1)]
    own = [1 - 0.4 * frequency, 1 - 1.2 * frequency]
    for factor, each in zip(factors, own, strict=True):
        np.testing.assert_allclose(factor * each, np.mean(own, axis=0), rtol=1e-12)
    assert mtf.to_common(groups[:1] * 2, 0) is None  # all have one: post-processing's business
    assert mtf.to_common([groups[0], group(40)], 0) is None and "names" not in mtf.warnings(groups)
    assert "has no rlnMtfFileName" in mtf.warnings([groups[0], group(40, number=2)])[0]
    with pytest.raises(InputError, match="optics group 2, rlnMtfFileName .*none.star"):
        mtf.warnings([groups[0], group(40, mtf_file=str(tmp_path / "none.star"), number=2)])


def test_transforms_carry_the_factor_of_their_detector(simulated, tmp_path, monkeypatch):
    monkeypatch.chdir(simulated)
    tables = star.read("particles.star")
    named = np.array([_mtf(tmp_path / "a.star", 0.8), _mtf(tmp_path / "b.star", 0.4)], object)
    twice = {name: np.repeat(column, 2) for name, column in tables["optics"].columns.items()}
    optics = star.Table("optics", {**twice, "rlnOpticsGroup": np.array([1, 2]), "rlnMtfFileName": named})
    halves = np.where(np.arange(100) < 50, 1, 2)
    star.write("detectors.star", [optics, tables["particles"].with_columns({"rlnOpticsGroup": halves})])
    found, plain = particles.load("detectors.star"), particles.load("particles.star")
    options, listed, rows = RefineOptions(particle_diameter=200.0, zero_mask=True), pixel_list(20, 36, 6.0), np.arange(3)
    prepared = []
    for each in (found, plain):
        geometry = tuple(geometry_of(optics, 36, 6.0) for optics in each.optics)
        plan = Plan(2, None, 36, ((20, 20, 20),) * len(geometry), geometry)
        arguments = ImageCache(each), each, 0, rows, each.offsets[rows], np.ones(3), np.ones(3), np.ones(19), listed, options, plan
        prepared.append(images.prepare(*arguments))
    gain = mtf.to_common(found.optics, 0)
    at_pixels = torch.from_numpy(gain(np.hypot(listed.frequency_x, listed.frequency_y)).astype(np.float32))
    for name in ("unmasked", "masked"):
        torch.testing.assert_close(getattr(prepared[0], name), getattr(prepared[1], name) * at_pixels, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(prepared[0].outer, prepared[1].outer * gain(np.arange(19) / (36 * 6.0)) ** 2, rtol=1e-5)


@pytest.mark.parametrize("flags, words", [
    (("--strict_highres_exp", "10000"), "--strict_highres_exp 10000: images of 216 A hold nothing as coarse"),
    (("--lowpass_mask", "truth.mrc"), "--lowpass_mask needs the resolution"),
])  # fmt: skip
def test_resolutions_that_leave_nothing_are_one_message(simulated, monkeypatch, tmp_path, capsys, flags, words):
    monkeypatch.chdir(simulated)
    assert main([*FLAGS, *flags, "--auto_iter_max", "1", "--o", str(tmp_path / "run")]) == 2
    assert words in capsys.readouterr().err


def test_a_reference_without_any_detail_is_refined(simulated, monkeypatch, tmp_path):
    monkeypatch.chdir(simulated)
    flags = list(FLAGS)
    flags[flags.index("--ini_high") + 1] = "2000"  # beyond the box: the first resolution is none at all
    assert main([*flags, "--auto_iter_max", "1", "--o", str(tmp_path / "run")]) == 0
