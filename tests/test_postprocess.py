"""Post-processing finds the resolution and the B-factor that the maps have, writes RELION's files, and refuses what makes no sense."""

from __future__ import annotations

import ctypes
import ctypes.util
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from postprocess_maps import BFACTOR, BOX, PIXEL_SIZE, protein, random_map, write_halves

from aurefine import fourier, fsc, mask, mrc, star
from aurefine.cli.main import main
from aurefine.errors import InputError
from aurefine.mtf import Mtf
from aurefine.postprocessing import curves
from aurefine.postprocessing.local_resolution import local_resolution
from aurefine.postprocessing.options import PostprocessOptions
from aurefine.postprocessing.random_phases import CRandom, randomise
from aurefine.postprocessing.run import postprocess
from aurefine.postprocessing.sharpen import Spectrum, fsc_weights


@pytest.fixture
def options(tmp_path: Path) -> PostprocessOptions:
    first = write_halves(tmp_path)
    return PostprocessOptions(half1=str(first), output=str(tmp_path / "post" / "postprocess"), verbosity=0)


def with_mask(options: PostprocessOptions, **changes) -> PostprocessOptions:
    return replace(options, mask=str(Path(options.half1).parent / "mask.mrc"), **changes)


def test_random_numbers_are_those_of_the_c_library():
    name = ctypes.util.find_library("c")
    if name is None or "libc.so.6" not in name:
        pytest.skip("the GNU C library is not here")
    libc = ctypes.CDLL(name)
    for seed in (0, 1, 5, 123456789):
        libc.srand(seed)
        wanted = [libc.rand() / 2147483647 for _ in range(5000)]
        ours = CRandom(seed)
        assert np.array_equal(np.concatenate([ours.uniform(1), ours.uniform(40), ours.uniform(4959)]), wanted)


def test_randomised_phases_keep_amplitudes_and_leave_low_frequencies_alone():
    values = random_map(3)
    transform = fourier.transform_map(values)
    changed = fourier.transform_map(randomise([transform.copy()], 10, CRandom(0))[0])
    near = fourier.radius_squared_3d(BOX) < 100
    assert np.allclose(changed[near], transform[near], atol=1e-6)
    inner = (slice(None), slice(None), slice(1, BOX // 2))  # elsewhere a real map cannot keep every amplitude
    assert np.allclose(np.abs(changed[inner]), np.abs(transform[inner]), atol=1e-6)
    assert abs(fsc.of_maps(values, randomise([transform], 10, CRandom(0))[0])[15:].mean()) < 0.05


def test_the_correction_removes_what_the_mask_adds(tmp_path):
    low = fourier.low_pass(protein(), PIXEL_SIZE, 12)  # nothing but noise beyond 12 A
    for number in (1, 2):
        mrc.write_map(tmp_path / f"half{number}.mrc", low + 0.2 * random_map(20 + number), PIXEL_SIZE)
    tight = (mask.radius_grid(BOX, 3) < 9).astype(np.float32)  # a hard edge correlates the noise of both halves
    mrc.write_map(tmp_path / "mask.mrc", tight, PIXEL_SIZE)
    result = postprocess(PostprocessOptions(half1=str(tmp_path / "half1.mrc"), mask=str(tmp_path / "mask.mrc"), force_mask=True,
                                            output=str(tmp_path / "p"), verbosity=0))  # fmt: skip
    beyond = slice(14, None)
    assert result.curves.masked is not None and np.abs(result.curves.corrected[beyond]).max() < 0.2
    assert result.resolution > 6


def test_a_known_bfactor_comes_out_of_the_guinier_plot(tmp_path):
    for half in (1, 2):
        mrc.write_map(tmp_path / f"half{half}.mrc", random_map(1, BFACTOR) + 0.002 * random_map(40 + half), PIXEL_SIZE)
    result = postprocess(PostprocessOptions(half1=str(tmp_path / "half1.mrc"), output=str(tmp_path / "p"), auto_bfactor=True, verbosity=0))
    assert result.bfactor == pytest.approx(-BFACTOR, rel=0.02)
    used = result.guinier.resolution_squared > 0.01
    assert np.ptp(result.guinier.steps["Sharpened"][used][:-1]) < 0.1, "a sharpened map has flat amplitudes"


def test_division_by_the_mtf_restores_the_map():
    values = random_map(5)
    mtf = Mtf(np.linspace(0, 0.5, 101), np.linspace(1, 0.4, 101), "mtf.star")
    radius = np.sqrt(fourier.radius_squared_3d(BOX)) / BOX
    damped = fourier.transform_map(values) * np.interp(radius / 2, mtf.frequency, mtf.value)
    spectrum = Spectrum(damped.astype(np.complex64), PIXEL_SIZE)
    spectrum.divide_by_mtf(mtf, PIXEL_SIZE / 2)  # the detector's pixels were half as wide
    inside = radius < 0.5
    assert np.allclose(spectrum.values[inside], fourier.transform_map(values)[inside], atol=1e-6)


def test_weights_end_where_the_fsc_has_vanished():
    assert fsc_weights(np.array([1.0, 0.5, 1 / 3, -0.1, 0.9])) == pytest.approx([1, np.sqrt(2 / 3), np.sqrt(0.5), 0, 0])


def test_all_files_of_relions_job_are_written(options):
    assert main(["postprocess", "--i", options.half1, "--mask", with_mask(options).mask, "--o", options.output, "--auto_bfac", "--molweight", "50",
                 "--half_maps", "--pipeline_control", str(Path(options.output).parent) + "/"]) == 0  # fmt: skip
    folder = Path(options.output).parent
    names = {path.name for path in folder.iterdir()}
    assert names == {"postprocess.mrc", "postprocess_masked.mrc", "postprocess.star", "postprocess_fsc.xml", "postprocess_fsc.png",
                     "postprocess_guinier.png", "logfile.pdf", "postprocess_half1.mrc", "postprocess_half2.mrc", "postprocess_half1_masked.mrc",
                     "postprocess_half2_masked.mrc", "RELION_JOB_EXIT_SUCCESS"}  # fmt: skip
    assert (folder / "logfile.pdf").read_bytes().startswith(b"%PDF") and (folder / "logfile.pdf").read_bytes().count(b"/Type /Page ") == 2
    tables = star.read(folder / "postprocess.star")
    assert list(tables) == ["general", "fsc", "guinier"]
    assert tables["general"].value("rlnFinalResolution") == pytest.approx(tables["fsc"]["rlnAngstromResolution"][-1], rel=0.5)
    assert tables["fsc"].count == tables["guinier"].count == BOX // 2 + 1
    points = ElementTree.parse(folder / "postprocess_fsc.xml").getroot().findall("coordinate")
    assert [float(point.findtext("y")) for point in points] == pytest.approx(tables["fsc"]["rlnFourierShellCorrelationCorrected"], abs=1e-5)
    masked, pixel_size = mrc.read_map(folder / "postprocess_masked.mrc")
    assert pixel_size == PIXEL_SIZE and masked[0, 0, 0] == 0


def test_the_mean_of_the_halves_is_what_is_sharpened(options):
    result = postprocess(replace(options, skip_fsc_weighting=True))
    one, two = (mrc.read_map(name)[0] for name in (options.half1, options.second_half))
    assert np.allclose(result.map, (one + two) / 2, atol=1e-5)


def test_a_mask_that_makes_the_resolution_worse_is_left_aside_unless_forced(options, capfd):
    folder = Path(options.half1).parent
    solvent = 1 - mask.soft_edge(BOX, 3, 0.3 * BOX, 4)
    mrc.write_map(folder / "solvent.mrc", solvent, PIXEL_SIZE)
    one = postprocess(replace(options, mask=str(folder / "solvent.mrc")))
    assert "the unmasked FSC extends beyond" in capfd.readouterr().err
    forced = postprocess(replace(options, mask=str(folder / "solvent.mrc"), force_mask=True, overwrite=True))
    assert np.array_equal(one.curves.corrected, one.curves.unmasked) and forced.resolution > one.resolution


def test_an_fsc_that_never_drops_is_said_so(tmp_path, capfd):
    first = write_halves(tmp_path, noise=0.005)
    result = postprocess(PostprocessOptions(half1=str(first), output=str(tmp_path / "p"), verbosity=0))
    assert result.resolution == pytest.approx(2 * PIXEL_SIZE)
    assert "never drops below 0.143" in capfd.readouterr().err


def _other(folder: Path, name: str, values: np.ndarray, pixel_size: float = PIXEL_SIZE) -> str:
    mrc.write_map(folder / name, values, pixel_size)
    return str(folder / name)


def _star(folder: Path, text: str) -> str:
    (folder / "mtf.star").write_text(text)
    return str(folder / "mtf.star")


HEAD = "data_mtf\n\nloop_\n_rlnResolutionInversePixel #1\n_rlnMtfValue #2\n"
BAD = {
    "no name with half": (lambda f, o: {"half1": _other(f, "map.mrc", protein())}, "neither half1 nor half2"),
    "no second half": (lambda f, o: {"half1": _other(f, "lone_half1.mrc", protein())}, "lone_half2.mrc: the other half map"),
    "nothing given": (lambda f, o: {"half1": ""}, "--i is missing"),
    "no such file": (lambda f, o: {"half1": str(f / "gone_half1.mrc")}, "there is no such file"),
    "another box": (lambda f, o: {"half2": _other(f, "small.mrc", np.ones((8, 8, 8)) * np.arange(8))}, "8 pixels wide, but 48"),
    "another pixel size": (lambda f, o: {"half2": _other(f, "other.mrc", protein(), 2.5)}, "2.5 A, but 2 A"),
    "the same map twice": (lambda f, o: {"half2": o.half1}, "the same map"),
    "no cube": (lambda f, o: {"half1": _other(f, "flat_half1.mrc", np.random.rand(4, 8, 8)), "half2": o.half1}, "8 x 8 x 4"),
    "a constant map": (lambda f, o: {"half1": _other(f, "empty_half1.mrc", np.zeros((48,) * 3)), "half2": o.half1}, "all voxels are 0"),
    "mask out of range": (lambda f, o: {"mask": _other(f, "m.mrc", 2 * mask.soft_edge(48, 3, 9, 3))}, "0 to 2, but 0 (solvent) to 1"),
    "mask of another box": (lambda f, o: {"mask": _other(f, "m.mrc", mask.soft_edge(40, 3, 9, 3))}, "40 x 40 x 40 voxels"),
    "mask of another pixel size": (lambda f, o: {"mask": _other(f, "m.mrc", mask.soft_edge(48, 3, 9, 3), 3.0)}, "pixel size is 3 A"),
    "an empty mask": (lambda f, o: {"mask": _other(f, "m.mrc", 0.3 * mask.soft_edge(48, 3, 9, 3))}, "no voxel is above 0.5"),
    "an FSC above 0.8": (lambda f, o: {"mask": str(f / "mask.mrc"), "randomise_at_fsc": -2.0}, "never drops below -2"),
    "both B-factors": (lambda f, o: {"auto_bfactor": True, "adhoc_bfactor": -50.0}, "exclude each other"),
    "a fit range upside down": (lambda f, o: {"auto_bfactor": True, "auto_lowres": 5.0, "auto_highres": 8.0}, "--autob_lowres 5"),
    "MTF without its column": (lambda f, o: {"mtf": _star(f, HEAD.replace("rlnMtfValue", "rlnFoo") + "0 1\n0.5 0.5\n")}, "no column rlnMtfValue"),
    "MTF of zero": (lambda f, o: {"mtf": _star(f, HEAD + "0 1\n0.2 0\n0.5 0.5\n")}, "row 2: rlnMtfValue is 0"),
    "MTF out of order": (lambda f, o: {"mtf": _star(f, HEAD + "0.5 1\n0 0.5\n")}, "increase from 0 to 0.5"),
    "MTF missing": (lambda f, o: {"mtf": str(f / "no.star")}, "no.star: there is no such file"),
    "a box too small for spheres": (lambda f, o: {"local_resolution": True, "local_mask_radius": 60.0}, "choose smaller ones"),
    "local resolution with a fit": (lambda f, o: {"local_resolution": True, "auto_bfactor": True}, "--locres takes no --auto_bfac"),
}


@pytest.mark.parametrize("case", BAD, ids=list(BAD))
def test_bad_input_is_one_clear_message_and_leaves_no_file(case, options):
    folder = Path(options.half1).parent
    change, message = BAD[case]
    wrong = replace(options, **change(folder, options))
    with pytest.raises(InputError) as caught:
        (local_resolution if wrong.local_resolution else postprocess)(wrong)
    assert message in str(caught.value)
    assert not any(path.exists() for path in wrong.outputs())


def test_existing_output_is_not_overwritten_silently(options):
    Path(options.output).parent.mkdir()
    Path(f"{options.output}.star").write_text("mine")
    with pytest.raises(InputError, match="--overwrite"):
        postprocess(options)
    assert Path(f"{options.output}.star").read_text() == "mine"


def test_local_correlations_in_a_window_equal_those_of_the_whole_box():
    from aurefine.postprocessing.local_windows import columns_of, correlations

    whole = np.zeros((2, BOX, BOX, BOX), np.float32)
    whole[:, 5:18, 20:30, 8:23] = np.random.default_rng(2).standard_normal((2, 13, 10, 15))
    whole[1] += whole[0]
    curve = correlations(whole[:, 5:18, 20:30, 8:23], columns_of(BOX))[0]
    assert curve == pytest.approx(fsc.of_maps(*whole), abs=1e-5)


def test_a_filtered_window_equals_the_whole_map_filtered():
    from aurefine.postprocessing.local_windows import columns_of, filtered_window, gather

    columns = columns_of(BOX)
    transform = fourier.transform_map(random_map(4))
    weights = np.linspace(1, 0.2, BOX // 2 + 1)
    spectrum = Spectrum(transform.copy(), PIXEL_SIZE)
    spectrum.weight_shells(weights)
    spectrum.low_pass(BOX * PIXEL_SIZE / 15, 2)
    window = (slice(3, 17), slice(0, 9), slice(40, 48))
    wanted = fourier.inverse_map(spectrum.values, BOX)[window]
    assert np.allclose(filtered_window(gather(transform, columns), columns, weights, (14.0, 16.0), window), wanted, atol=1e-6)


def test_local_resolution_is_worse_where_the_map_is_worse(tmp_path):
    """The left half of a box holds signal to Nyquist, the right half only to 12 A."""
    signal = random_map(7, 60)
    coarse = fourier.low_pass(signal, PIXEL_SIZE, 12)
    signal[:, :, BOX // 2 :] = coarse[:, :, BOX // 2 :]
    for half in (1, 2):
        mrc.write_map(tmp_path / f"half{half}.mrc", signal + 0.1 * random_map(30 + half), PIXEL_SIZE)
    mrc.write_map(tmp_path / "mask.mrc", mask.soft_edge(BOX, 3, 18, 3), PIXEL_SIZE)
    given = PostprocessOptions(half1=str(tmp_path / "half1.mrc"), mask=str(tmp_path / "mask.mrc"), output=str(tmp_path / "run"), verbosity=0,
                               local_resolution=True, local_sampling=12.0, threads=2)  # fmt: skip
    result = local_resolution(given)
    middle = slice(BOX // 2 - 6, BOX // 2 + 6)
    left, right = result.resolution[middle, middle, 8:14], result.resolution[middle, middle, 34:40]
    assert left.mean() < 6 < 7 < right.mean() and result.resolution[0, 0, 0] == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert {"run_locres.mrc", "run_locres_filtered.mrc", "run_locres_fscs.star", "run_histogram.png", "histogram.pdf"} <= names
    assert len(star.read(tmp_path / "run_locres_fscs.star")) == result.points


def test_the_shell_before_the_crossing_is_the_resolution():
    assert curves.last_shell(np.array([1, 0.9, 0.5, 0.2, 0.1, 0.3])) == 3
    assert curves.last_shell(np.array([1, 0.9, 0.5])) == 2
