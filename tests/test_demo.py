"""The demo's own parts: what it passes to the refinement, and that a perfect answer is reported as one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from aurefine import demo, molecule, mrc, simulate, star
from aurefine.jobs.options import parse
from aurefine.jobs.refine3d_flags import FLAGS

SETTINGS = demo.Settings(particles=40, box=32, pixel_size=7.08, threads=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> simulate.SimulatedSet:
    """A small simulated set."""
    imaging = simulate.Imaging(particles=SETTINGS.particles, cameras=(simulate.Camera(SETTINGS.pixel_size, SETTINGS.box),))
    return simulate.simulate(molecule.generate("D2", seed=1), tmp_path_factory.mktemp("demo"), imaging)


def write_perfect_run(folder: Path, made: simulate.SimulatedSet, box: int) -> None:
    """The files of a run that found the truth."""
    job = folder / demo.JOB
    job.mkdir(parents=True)
    shutil.copy(made.truth, job / "run_data.star")
    shutil.copy(made.truth_map, job / "run_class001.mrc")
    shells = np.arange(box // 2 + 1)
    tables = {
        "model_general": star.Table("model_general", {"rlnCurrentResolution": np.array([14.16])}, True),
        "model_classes": star.Table("model_classes", {"rlnAccuracyRotations": np.array([1.0])}, False),
        "model_class_1": star.Table("model_class_1", {"rlnSpectralIndex": shells, "rlnGoldStandardFsc": np.exp(-shells / 20)}, False),
    }
    for name in ("run_it000_half1_model.star", "run_model.star"):
        star.write(job / name, tables)
    sampling = {"rlnHealpixOrder": np.array([2]), "rlnSymmetryGroup": np.array(["D2"], object)}
    star.write(job / "run_sampling.star", {"sampling_general": star.Table("sampling_general", sampling, True)})


def test_a_perfect_answer_has_no_error_and_is_drawn(made: simulate.SimulatedSet) -> None:
    folder = made.particles.parent
    write_perfect_run(folder, made, SETTINGS.box)
    demo.compare_and_draw(folder, made, SETTINGS, {"simulate_seconds": 1.0, "refine_seconds": 2.0})
    numbers = json.loads((folder / "numbers.json").read_text())
    assert numbers["angle_median"] < 1e-3 and numbers["shift_median"] < 1e-3
    assert numbers["fsc_half_angstrom"] == pytest.approx(2 * SETTINGS.pixel_size)
    assert numbers["mean_fsc"] > numbers["mirror_mean_fsc"]
    assert (folder / "report.png").stat().st_size > 50_000


def test_the_refinement_understands_the_demos_command_line(made: simulate.SimulatedSet) -> None:
    arguments = demo.refine_arguments(made, made.particles.parent, SETTINGS)
    values, _ = parse("aurefine refine", "", FLAGS, arguments[1:])
    assert values["particles"] == "particles.star" and values["reference"] == "reference.mrc"
    assert (made.particles.parent / values["particles"]).is_file()
    assert mrc.read_map(made.particles.parent / values["reference"])[1] == pytest.approx(SETTINGS.pixel_size)
    assert values["symmetry"] == "D2" and values["initial_lowpass"] == 50
