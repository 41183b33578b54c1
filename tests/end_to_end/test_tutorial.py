"""`examples/tutorial.sh --small`: from micrographs to a sharpened map in a RELION project, as good as the true poses allow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from aurefine import mrc, star, truth
from aurefine.cli.main import main

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "tutorial.sh"
JOBS = ["Extract/job001/", "Refine3D/job002/", "Extract/job003/", "Refine3D/job004/", "MaskCreate/job005/", "PostProcess/job006/"]


def _run(folder: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ["bash", str(SCRIPT), "--small", "--folder", str(folder), "--j", "2"]
    return subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("tutorial") / "project"
    done = _run(folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder, done.stdout


def test_the_map_is_as_good_as_the_true_poses_allow(tutorial):
    numbers = json.loads((tutorial[0] / "numbers.json").read_text())
    found = numbers["attainable"]
    assert found["refined"] < 1.05 * found["true"] and found["refined_masked"] < 1.05 * found["true_masked"]
    assert found["refined_masked"] < found["refined"]
    assert numbers["poses"]["angle_median"] < 1.5 and numbers["poses"]["shift_median"] < 1
    assert numbers["map"]["mean_fsc"] > numbers["map"]["mirror_mean_fsc"] and numbers["map"]["fsc_half_angstrom"] < 9


def test_every_job_is_a_job_of_the_project(tutorial):
    folder, printed = tutorial
    processes = star.read_table(folder / "default_pipeline.star", "pipeline_processes")
    assert list(processes["rlnPipeLineProcessName"]) == JOBS
    assert set(processes["rlnPipeLineProcessStatusLabel"]) == {"Succeeded"}
    for job in JOBS:
        assert {"job.star", "note.txt", "run.out", "run.err", "RELION_JOB_EXIT_SUCCESS"} <= {path.name for path in (folder / job).iterdir()}
    assert "Auto-refine: + Final resolution (without masking) is:" in printed and "+ FINAL RESOLUTION:" in printed


def test_extracting_again_centres_the_particles(tutorial):
    """First the picking error is all there; then the refined centre is, to a pixel of the micrograph."""
    distance = []
    for job in ("Extract/job001", "Extract/job003"):
        table = truth.at_places(star.read_table(tutorial[0] / job / "particles.star", "particles"), tutorial[0] / "truth.star", job)
        distance.append(np.hypot(table["rlnOriginXAngst"], table["rlnOriginYAngst"]))
        assert table.count == 210
    assert np.median(distance[0]) > 3 and np.median(distance[1]) < 1.77 and distance[1].mean() < 0.5 * distance[0].mean()
    kept = star.read_table(tutorial[0] / "Extract/job003/particles.star", "particles")
    assert max(np.abs(kept["rlnOriginXAngst"]).max(), np.abs(kept["rlnOriginYAngst"]).max()) <= 0.5 * 1.77 + 1e-4


def test_the_reference_has_the_new_box_and_pixel_size(tutorial):
    volume, pixel_size = mrc.read_map(tutorial[0] / "Refine3D/job002/run_class001_box96.mrc")
    assert volume.shape == (96, 96, 96) and pixel_size == pytest.approx(3.31875, abs=1e-4)


def test_nothing_is_overwritten(tutorial):
    done = _run(tutorial[0])
    assert done.returncode == 2 and "there already" in done.stderr


def test_a_mask_of_another_box_is_refused(tutorial, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tutorial[0])
    mrc.write_map(tmp_path / "mask.mrc", np.ones((48, 48, 48), np.float32), 6.6)
    refined = ["--i", "Refine3D/job004/run_data.star", "--half_map", "Refine3D/job004/run_half1_class001_unfil.mrc", "--truth", "truth.star"]
    assert main(["compare", *refined, "--sym", "D2", "--mask", str(tmp_path / "mask.mrc")]) == 2
    assert "48 voxels wide" in capsys.readouterr().err


def test_the_picture_can_be_drawn(tutorial):
    subprocess.run([sys.executable, str(SCRIPT.with_name("tutorial_picture.py")), str(tutorial[0])], check=True)
    assert (tutorial[0] / "tutorial.png").stat().st_size > 50_000
