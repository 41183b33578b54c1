"""`aurefine check` prints what an expert would warn of, lists images that cannot be used, and refines nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from postprocess_maps import write_halves

from aurefine import mask, molecule, mrc, simulate, star
from aurefine.cli.main import main
from aurefine.imaging import Camera, Imaging
from aurefine.refine.rejection import REASON

BOX, PIXEL_SIZE, COUNT = 32, 8.0, 60
LINE = ["check", "--i", "particles.star", "--particle_diameter", "200"]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("check")
    imaging = Imaging(particles=COUNT, cameras=(Camera(PIXEL_SIZE, BOX),), particles_per_micrograph=30)
    simulate.simulate(molecule.generate("C4", seed=1), folder, imaging)
    mrc.write_map(folder / "mask.mrc", mask.soft_edge(BOX, 3, 13, 3).copy(), PIXEL_SIZE)
    return folder


def test_a_good_set_gives_nothing_to_warn_of_and_writes_nothing(project, capsys):
    before = {path.name for path in project.iterdir()}
    assert main([*LINE, "--ref", "reference.mrc", "--sym", "C4", "--mask", "mask.mrc"]) == 0
    assert "Nothing to warn of." in capsys.readouterr().out
    assert {path.name for path in project.iterdir()} == before


def test_bad_images_are_listed_and_a_wrong_symmetry_and_grey_scale_are_told(project, capsys):
    path = "Particles/micrograph_0002.mrcs"
    images = mrc.Stack(path).read(np.arange(30))
    images[3], images[4] = np.nan, images[8]
    mrc.write_stack(path, images, PIXEL_SIZE)
    volume, _ = mrc.read_map("reference.mrc")
    mrc.write_map("strong.mrc", 40 * volume, PIXEL_SIZE)
    line = [*LINE, "--ref", "strong.mrc", "--sym", "T", "--o", "found/bad"]
    assert main(line) == 0
    out = capsys.readouterr().out
    assert " Warnings: 4\n" in out and "1 of 60 particles would be set aside: pixels that are not finite" in out and "T symmetry" in out
    assert "--firstiter_cc" in out and "row 34 (000004@Particles/micrograph_0002.mrcs); listed in found/bad_rejected.star" in out
    assert star.read_table("found/bad_rejected.star", "particles")[REASON].tolist() == ["not_finite", "duplicate_pixels_of_row_35"]
    assert main(line) == 2 and "--overwrite" in capsys.readouterr().err
    assert main([*line, "--overwrite", "--firstiter_cc", "--skip_images"]) == 0
    out = capsys.readouterr().out
    assert " Warnings: 1\n" in out and "T symmetry" in out


def test_half_maps_are_checked_alone(tmp_path, capsys):
    write_halves(tmp_path, noise=1.0)
    assert main(["check", "--half1", str(tmp_path / "run_half1_class001_unfil.mrc"), "--mask", str(tmp_path / "mask.mrc")]) == 0
    assert "Nothing to warn of." in capsys.readouterr().out
    shutil.copy(tmp_path / "run_half1_class001_unfil.mrc", tmp_path / "same.mrc")
    with open(tmp_path / "same.mrc", "r+b") as handle:  # one voxel differs: the same map twice is refused
        handle.seek(-4, 2)
        handle.write(np.float32(9).tobytes())
    assert main(["check", "--half1", str(tmp_path / "run_half1_class001_unfil.mrc"), "--half2", str(tmp_path / "same.mrc")]) == 0
    assert "next to Nyquist" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["check", "--sym", "C2"], "nothing to check"),
        (["check", "--i", "none.star"], "--i none.star: there is no such file"),
        (["check", "--half1", "reference.mrc", "--ref", "reference.mrc"], "give them with --i"),
        ([*LINE, "--ref", "reference.mrc", "--mask", "truth.mrc"], "mask values run from"),
        ([*LINE, "--sym", "Q7", "--skip_images"], "Q7"),
    ],
)
def test_a_mistake_is_one_message(project, capsys, line, message):
    assert main(line) == 2
    errors = capsys.readouterr().err
    assert message in errors and "Traceback" not in errors
