"""Extraction and re-extraction by RELION 3.1 (`relion_preprocess`) and by us, from the same micrographs."""

from __future__ import annotations

import shutil
import subprocess

import extraction_project as project
import numpy as np
import pytest

from aurefine import mrc, star
from aurefine.extraction import ExtractOptions, extract

pytestmark = pytest.mark.skipif(not shutil.which("relion_preprocess"), reason="relion_preprocess is not on the PATH")
PICKED = ["--coord_dir", "AutoPick/job004/", "--coord_suffix", "_pick.star"]
TOLERANCE = 1e-4  # standard deviations


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    project.make_project(folder)
    return folder


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)


def relion(output, *arguments):
    command = ["relion_preprocess", "--i", "ctf.star", "--part_dir", f"{output}/", "--part_star", f"{output}/particles.star", "--extract", *arguments]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def assert_same(theirs, ours, extra=("rlnCtfDataAreCtfPremultiplied",)):
    """Equal stacks, headers and tables; `extra` columns are ours alone (RELION 4 and 5 write them)."""
    mine, yours = star.read(f"{ours}/particles.star"), star.read(f"{theirs}/particles.star")
    for block in ("optics", "particles"):
        assert [label for label in mine[block].columns if label not in extra] == [label for label in yours[block].columns if label not in extra]
        for label in yours[block].columns:
            values, expected = mine[block][label], yours[block][label]
            if expected.dtype == object:
                expected = [text.replace(f"{theirs}/", f"{ours}/") for text in expected]
                assert values.tolist() == expected, label
            else:
                np.testing.assert_allclose(values, expected, atol=1e-4, err_msg=label)
    stacks = sorted({text.split("@")[1] for text in mine["particles"]["rlnImageName"]})
    for path in stacks:
        own, other = mrc.Stack(path), mrc.Stack(path.replace(f"{ours}/", f"{theirs}/"))
        assert (own.count, own.width, own.height) == (other.count, other.width, other.height)
        assert own.pixel_size == pytest.approx(other.pixel_size, rel=1e-6)
        images, expected = own.read(range(own.count)), other.read(range(other.count))
        assert np.abs(images - expected).max() < TOLERANCE * expected.std()


EXTRACTIONS = {
    "as the GUI asks": (["--scale", "48", "--norm", "--bg_radius", "18", "--invert_contrast"],
                        {"rescale": 48, "normalise": True, "background_radius": 18, "invert_contrast": True}),
    "windows as they are": ([], {}),
    "without a ramp": (["--norm", "--bg_radius", "25", "--no_ramp"], {"normalise": True, "background_radius": 25, "ramp": False}),
    "another window": (["--window", "80", "--norm", "--bg_radius", "30"], {"window": 80, "normalise": True, "background_radius": 30}),
    "an odd scale": (["--scale", "47"], {"rescale": 47}),
    "shifted": (["--extract_bias_x", "3", "--extract_bias_y", "-4"], {"bias_x": 3, "bias_y": -4}),
    "multiplied by the CTF": (["--premultiply_ctf"], {"premultiply_ctf": True}),
    "multiplied in a larger box": (["--premultiply_ctf", "--premultiply_extract_size", "96", "--scale", "40"],
                                   {"premultiply_ctf": True, "premultiply_box": 96, "rescale": 40}),
    "intact first peak": (["--premultiply_ctf", "--ctf_intact_first_peak"], {"premultiply_ctf": True, "ctf_intact_first_peak": True}),
    "phases flipped": (["--phase_flip", "--norm", "--bg_radius", "24"], {"phase_flip": True, "normalise": True, "background_radius": 24}),
}  # fmt: skip


@pytest.mark.parametrize("case", EXTRACTIONS)
def test_picked_particles_are_relions(case, request):
    arguments, options = EXTRACTIONS[case]
    output = f"case{list(EXTRACTIONS).index(case)}"
    relion(f"R_{output}", *PICKED, "--extract_size", "64", *arguments)
    extract(ExtractOptions(micrographs="ctf.star", coordinate_list="autopick.star", output_folder=f"A_{output}", box=64, **options))
    assert_same(f"R_{output}", f"A_{output}")


REEXTRACTIONS = {
    "other box": (["--extract_size", "48"], {"box": 48}),
    "rescaled": (["--extract_size", "64", "--scale", "48"], {"box": 64, "rescale": 48}),
    "recentred on the refined offsets": (["--extract_size", "64", "--recenter"], {"box": 64, "recenter": True}),
    "recentred on a point": (["--extract_size", "64", "--recenter", "--recenter_x", "5", "--recenter_y", "-3", "--recenter_z", "7.5"],
                             {"box": 64, "recenter": True, "recenter_x": 5, "recenter_y": -3, "recenter_z": 7.5}),
    "recentred in the reference's pixels": (
        ["--extract_size", "64", "--scale", "60", "--recenter", "--recenter_x", "5", "--ref_angpix", "2"],
        {"box": 64, "rescale": 60, "recenter": True, "recenter_x": 5, "reference_pixel_size": 2.0}),
    "offsets reset": (["--extract_size", "64", "--reset_offsets"], {"box": 64, "reset_offsets": True}),
    "CTF of the micrographs": (["--extract_size", "64", "--keep_ctfs_micrographs"], {"box": 64, "keep_micrograph_ctfs": True}),
    "multiplied by their own CTF": (["--extract_size", "64", "--premultiply_ctf"], {"box": 64, "premultiply_ctf": True}),
}  # fmt: skip


@pytest.fixture(scope="module")
def refined(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        extract(ExtractOptions(micrographs="ctf.star", coordinate_list="autopick.star", output_folder="first", box=64, rescale=48))
        project.write_refined(folder, "first/particles.star", "run_data.star", project.PIXEL_SIZE * 64 / 48)
    return "run_data.star"


@pytest.mark.parametrize("case", REEXTRACTIONS)
def test_refined_particles_are_extracted_again_as_relion_does(case, refined):
    arguments, options = REEXTRACTIONS[case]
    output = f"again{list(REEXTRACTIONS).index(case)}"
    relion(f"R_{output}", "--reextract_data_star", refined, *arguments)
    extract(ExtractOptions(micrographs="ctf.star", refined_particles=refined, output_folder=f"A_{output}", **options))
    assert_same(f"R_{output}", f"A_{output}")


def test_float16_stacks_are_relions_images_rounded():
    relion("R_half", *PICKED, "--extract_size", "64", "--norm", "--bg_radius", "24")
    extract(ExtractOptions(micrographs="ctf.star", coordinate_list="autopick.star", output_folder="A_half", box=64, normalise=True,
                           background_radius=24, float16=True))  # fmt: skip
    for number in range(3):
        ours, theirs = (mrc.Stack(f"{side}_half/Movies/mic{number}.mrcs").read(range(6)) for side in "AR")
        gap = np.abs(ours - theirs.astype(np.float16).astype(np.float32))
        assert (gap > 1e-4).mean() < 1e-3  # a value between two float16 numbers may fall to either side
        assert gap.max() <= 2**-9


def test_tiff_micrographs_are_read_as_relion_reads_them(folder):
    import tifffile

    image = project.micrograph(7)
    names = []
    for kind, values in {"f4": image, "u1": image * 4, "i2": image * 100 - 900, "u2": image * 100 + 40000}.items():
        names.append(f"Tiff/{kind}.tif")
        (folder / "Tiff").mkdir(exist_ok=True)
        tifffile.imwrite(folder / names[-1], values.astype(kind))
        project.write_picks(folder / f"Tiff/{kind}_pick.star", project.PICKS)
    table = star.Table("micrographs", {"rlnMicrographName": project.texts(*names), "rlnOpticsGroup": np.ones(4, int)})
    star.write("tiff.star", [project.optics(), table], version=30001)
    command = ["relion_preprocess", "--i", "tiff.star", "--coord_dir", "./", "--coord_suffix", "_pick.star", "--extract", "--extract_size", "64"]
    subprocess.run([*command, "--part_dir", "R_tiff/", "--part_star", "R_tiff/particles.star"], check=True, capture_output=True, timeout=60)
    extract(ExtractOptions(micrographs="tiff.star", coordinate_suffix="_pick.star", output_folder="A_tiff", box=64))
    assert_same("R_tiff", "A_tiff")


@pytest.mark.parametrize("ending, text", [(".box", "100 50 32 32 0\n200 60 32 32 0\n"), (".txt", "x y\n100 50\n200.4 60.9\n")])
def test_lists_of_coordinates_are_read_as_relion_reads_them(folder, ending, text):
    (folder / "MotionCorr/job002/Movies" / f"mic0{ending}").write_text(text)
    (folder / "Lists/Movies").mkdir(parents=True, exist_ok=True)
    (folder / f"Lists/Movies/mic0{ending}").write_text(text)
    output = ending[1:]
    relion(f"R_{output}", "--coord_dir", "Lists/", "--coord_suffix", ending, "--extract_size", "64")
    extract(ExtractOptions(micrographs="ctf.star", coordinate_folder="Lists/", coordinate_suffix=ending, output_folder=f"A_{output}", box=64))
    assert_same(f"R_{output}", f"A_{output}")
