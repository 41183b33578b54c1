"""`aurefine image_handler` and `aurefine mask_create` against RELION's programs on the same files: values, box and pixel size."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from aurefine import mrc, star
from aurefine.cli.main import main

pytestmark = pytest.mark.skipif(shutil.which("relion_image_handler") is None, reason="RELION is not installed (no relion_image_handler)")

MAPS = (
    "--multiply_constant 2.5", "--divide_constant 3", "--add_constant 0.3", "--subtract_constant 0.3", "--multiply other.mrc",
    "--divide other.mrc", "--add other.mrc", "--subtract other.mrc", "--subtract other.mrc --optimise_scale_subtract",
    "--threshold_above 0.4 --threshold_below -0.1", "--adjust_power other.mrc", "--bfactor 80", "--bfactor -80", "--lowpass 8",
    "--lowpass 9 --filter_edge_width 5", "--highpass 300", "--lowpass 300", "--lowpass 30 --filter_edge_width 14",
    "--highpass 20", "--highpass 20 --lowpass 8", "--lowpass 8 --angpix 2.5",
    "--bfactor 40 --lowpass 7 --LoG 15",
    "--LoG 20", "--lowpass 8 --directional X", "--lowpass 8 --directional Y", "--lowpass 8 --directional Z", "--rescale_angpix 2.6",
    "--rescale_angpix 1.2", "--rescale_angpix 2.6 --angpix 1.4", "--rescale_angpix 2.6 --force_header_angpix 2.5", "--force_header_angpix 3",
    "--new_box 20", "--new_box 41", "--rescale_angpix 2.6 --new_box 40", "--shift_x 3", "--shift_x 2.3 --shift_y -1.2 --shift_z 0.5", "--shift_com",
    "--flipX", "--flipY", "--flipZ", "--invert_hand", "--sym C3", "--sym D2", "--sym T", "--sym O", "--sym I", "--sym I1", "--sym I3", "--sym I4",
    "--flipZ --shift_x 2.5 --rescale_angpix 2.6 --threshold_below 0.1",
    "--add_constant 0.2 --bfactor 30 --lowpass 7 --shift_y 2.5 --rescale_angpix 2 --new_box 24 --sym C4 --threshold_above 0.5",
)  # fmt: skip
STACKS = (
    "--multiply_constant 2", "--add one.mrc", "--divide one.mrc", "--adjust_power one.mrc", "--fourier_filter one.mrc", "--bfactor 80",
    "--lowpass 10", "--highpass 25 --lowpass 9", "--LoG 25", "--rescale_angpix 3", "--rescale_angpix 1.5", "--new_box 21", "--shift_com",
    "--shift_x 3 --shift_y -1.4", "--flipX", "--flipXY", "--flipmXY", "--invert_hand", "--lowpass 10 --rescale_angpix 3 --new_box 16",
)  # fmt: skip
MASKS = (
    "--ini_threshold 0.3", "--ini_threshold 0.3 --extend_inimask 3 --width_soft_edge 3",
    "--ini_threshold 0.3 --extend_inimask -1 --width_soft_edge 4",
    "--ini_threshold 0.1 --lowpass 15 --extend_inimask 2 --width_soft_edge 5 --invert",
    "--ini_threshold 0.3 --width_soft_edge 3 --lowpass 12 --angpix 2",
    "--ini_threshold 0.3 --and other.mrc --width_soft_edge 3", "--ini_threshold 0.3 --or other.mrc", "--ini_threshold 0.3 --and_not other.mrc",
    "--ini_threshold 0.3 --or_not other.mrc", "--ini_threshold 0.2 --extend_inimask 2 --width_soft_edge 3 --helix --z_percentage 0.4",
    "--denovo --box_size 28 --inner_radius 3 --outer_radius 9 --center_x 2 --center_y -1 --width_soft_edge 3 --angpix 2",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(1)
    volume = 0.05 * rng.standard_normal((28, 28, 28))
    volume[8:17, 9:19, 7:18] += rng.random((9, 10, 11)) + 0.3
    mrc.write_map(place / "map.mrc", volume, 1.7)
    mrc.write_map(place / "other.mrc", np.roll(volume, 3, axis=2) + 0.01, 1.7)
    images = rng.random((5, 32, 32)) - 0.2
    mrc.write_stack(place / "stack.mrcs", images, 2.1)
    mrc.write_map(place / "one.mrc", images[2:3] + 0.5, 2.1)
    mrc.write_map(place / "micrograph.mrc", rng.random((1, 40, 60)) - 0.2, 2.1)
    return place


def relion(program: str, arguments: list[str]) -> str:
    done = subprocess.run([f"relion_{program}", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def values(path: Path) -> tuple[np.ndarray, mrc.Header]:
    stack = mrc.Stack(path)
    return stack.read(np.arange(stack.count)), stack.header


def compare(place: Path, monkeypatch, name: str, flags: str, program: str = "image_handler", limit: float = 1e-5) -> None:
    monkeypatch.chdir(place)
    ending = Path(name).suffix or ".mrc"
    given = ["--i", name] if name else []
    relion(program, [*given, "--o", f"relion{ending}", *flags.split()])
    assert main([program, *given, "--o", f"ours{ending}", "--overwrite", *flags.split()]) == 0
    (theirs, header), (ours, own) = values(Path(f"relion{ending}")), values(Path(f"ours{ending}"))
    assert ours.shape == theirs.shape
    assert own.pixel_size == pytest.approx(header.pixel_size, abs=1e-5) or not header.states_pixel_size  # RELION loses it in --flipXY
    assert np.abs(ours - theirs).max() <= limit * np.ptp(theirs)


@pytest.mark.parametrize("flags", MAPS)
def test_maps_are_relions(folder, monkeypatch, flags):
    compare(folder, monkeypatch, "map.mrc", flags)


@pytest.mark.parametrize("flags", STACKS)
def test_stacks_are_relions(folder, monkeypatch, flags):
    compare(folder, monkeypatch, "stack.mrcs", flags)


@pytest.mark.parametrize("flags", ["--rescale_angpix 4", "--rescale_angpix 1.5", "--new_box 20", "--shift_x 2.5", "--flipX", "--add_constant 1"])
def test_images_that_are_not_square_are_relions(folder, monkeypatch, flags):
    compare(folder, monkeypatch, "micrograph.mrc", flags)


@pytest.mark.parametrize("flags", MASKS)
def test_masks_are_relions(folder, monkeypatch, flags):
    compare(folder, monkeypatch, "" if "--denovo" in flags else "map.mrc", flags, "mask_create", 1e-4)


@pytest.mark.parametrize("name", ["maps/emd_5625.map", "betagal_10204/reference_64px_3.54A.mrc", "relion5_betagal_run/run_class001.mrc"])
@pytest.mark.parametrize("flags", ["--lowpass 15 --bfactor 100", "--rescale_angpix 5.1 --new_box 60", "--sym D2 --shift_com", "--invert_hand"])
def test_real_maps_are_relions(shared_data, tmp_path, monkeypatch, name, flags):
    shutil.copy(shared_data / name, tmp_path / "map.mrc")  # RELION 3.1 does not read .map
    compare(tmp_path, monkeypatch, "map.mrc", flags)


@pytest.mark.parametrize("name", ["betagal_10204/reference_64px_3.54A.mrc", "relion5_betagal_run/run_class001.mrc"])
def test_masks_of_real_maps_are_relions(shared_data, tmp_path, monkeypatch, name):
    shutil.copy(shared_data / name, tmp_path / "map.mrc")
    flags = "--lowpass 15 --ini_threshold 0.03 --extend_inimask 3 --width_soft_edge 3 --j 2"
    compare(tmp_path, monkeypatch, "map.mrc", flags, "mask_create", 1e-4)


@pytest.mark.parametrize("name", ["map.mrc", "stack.mrcs"])
@pytest.mark.parametrize("flag", ["--stats", "--com", "--power", "--fsc"])
def test_what_is_printed_are_relions_numbers(folder, monkeypatch, capsys, name, flag):
    monkeypatch.chdir(folder)
    flags = [flag, {"map.mrc": "other.mrc", "stack.mrcs": "one.mrc"}[name]] if flag == "--fsc" else [flag]
    theirs = relion("image_handler", ["--i", name, *flags])
    assert main(["image_handler", "--i", name, *flags]) == 0
    ours = capsys.readouterr().out
    number = re.compile(r"(?<![\w@])-?\d+\.?\d*(?:e[-+]\d+)?")
    a, b = ([float(text) for line in lines.splitlines() if not line.startswith((" The pixel", "#", " Note")) for text in number.findall(line)]
            for lines in (theirs, ours))  # fmt: skip
    assert len(a) == len(b) > 0 and np.allclose(a, b, rtol=2e-4, atol=2e-5)


def test_an_average_is_relions(folder, monkeypatch):
    monkeypatch.chdir(folder)
    relion("image_handler", ["--i", "stack.mrcs", "--o", "relion.mrc", "--average"])
    assert main("image_handler --i stack.mrcs --o ours.mrc --average --overwrite".split()) == 0
    assert np.allclose(values(Path("ours.mrc"))[0], values(Path("relion.mrc"))[0], atol=1e-6)


def test_relion_reads_the_list_of_the_new_images(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    rows = [(f"{number:06d}@stack.mrcs", 1) for number in (1, 2, 3, 4, 5)]
    optics = star.Table.from_rows("optics", ["rlnOpticsGroupName", "rlnOpticsGroup", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast",
                                             "rlnImagePixelSize", "rlnImageSize", "rlnImageDimensionality"],
                                  [("one", 1, 300.0, 2.7, 0.1, 2.1, 32, 2)])  # fmt: skip
    star.write("list.star", [optics, star.Table.from_rows("particles", ["rlnImageName", "rlnOpticsGroup"], rows)])
    assert main("image_handler --i list.star --o small --rescale_angpix 3 --new_box 20".split()) == 0
    capsys.readouterr()
    assert "20 x 20 x 1 x 1" in relion("image_handler", ["--i", "list_small.star", "--stats"])
    relion("image_handler", ["--i", "stack.mrcs", "--o", "relion.mrcs", "--rescale_angpix", "3", "--new_box", "20"])
    assert np.allclose(values(Path("stack_small.mrcs"))[0], values(Path("relion.mrcs"))[0], atol=1e-5)
    group = star.read_table("list_small.star", "optics")
    assert group["rlnImageSize"].tolist() == [20] and group["rlnImagePixelSize"][0] == pytest.approx(2.1 * 32 / 22, rel=1e-5)
