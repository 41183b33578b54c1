"""A whole refinement of a small simulated set: it converges near the truth, and leaves RELION's files, lines and exit files."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import aurefine
from aurefine import compare, job_control, molecule, mrc, particles, simulate, star
from aurefine.cli.main import main
from aurefine.imaging import Camera, Imaging
from aurefine.jobs.options import parse
from aurefine.jobs.refine3d import OPTIONS, build
from aurefine.refine import writer

BOX, PIXEL_SIZE, COUNT, SYMMETRY = 32, 7.08, 150, "D2"
COMMAND = (
    "refine --o job/run --auto_refine --split_random_halves --i particles.star --ref reference.mrc --firstiter_cc --ini_high 50 "
    "--dont_combine_weights_via_disc --pool 3 --pad 2 --auto_ignore_angles --auto_resol_angles --ctf --particle_diameter {diameter:.0f} "
    "--flatten_solvent --zero_mask --oversampling 1 --healpix_order 2 --auto_local_healpix_order 4 --offset_range 5 --offset_step 2 --sym D2 "
    "--low_resol_join_halves 40 --norm --scale --random_seed 1 --pipeline_control job/"
)


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, command line, printed lines, and what was simulated."""

    folder: Path
    command: list[str]
    code: int
    lines: list[str]
    made: simulate.SimulatedSet

    @property
    def last_iteration(self) -> int:
        """Number of the last iteration that has half maps."""
        return max(int(path.name[6:9]) for path in (self.folder / "job").glob("run_it*_optimiser.star"))


def execute(command: list[str], folder: Path) -> tuple[int, list[str]]:
    """Exit code and printed lines of a command line run in a folder."""
    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        code = main(command)
    return code, printed.getvalue().splitlines()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One refinement to convergence, which the tests below look at."""
    folder = tmp_path_factory.mktemp("small")
    imaging = Imaging(particles=COUNT, cameras=(Camera(PIXEL_SIZE, BOX),), snr=0.25, reference_resolution=50, seed=1)
    made = simulate.simulate(molecule.generate(SYMMETRY, seed=1), folder, imaging)
    command = COMMAND.format(diameter=made.particle_diameter).split()
    return Run(folder, command, *execute(command, folder), made)


def test_the_run_converges_near_the_true_poses(run: Run) -> None:
    assert run.code == 0
    errors = compare.pose_errors(run.folder / "job/run_data.star", run.made.truth, SYMMETRY)
    assert errors["angle_median"] < 6 and errors["angle_p90"] < 15  # a voxel at the particle's rim is 4 degrees
    assert errors["shift_median"] < 0.4 * PIXEL_SIZE
    assert errors["frame_angle"] < 3


def test_the_resolution_is_not_better_than_the_truth_allows(run: Run) -> None:
    claimed = star.read(run.folder / "job/run_model.star")["model_general"].value("rlnCurrentResolution")
    found = mrc.read_map(run.folder / "job/run_class001.mrc")[0]
    true = compare.map_fsc(found, mrc.read_map(run.made.truth_map)[0], PIXEL_SIZE).summary()
    assert 2 * PIXEL_SIZE <= claimed < 30
    assert claimed > 0.95 * true["fsc_half_angstrom"]
    assert true["mean_fsc"] > true["mirror_mean_fsc"] + 0.1


def test_every_file_of_every_iteration_is_there(run: Run) -> None:
    expected = {"run_data.star", "run_optimiser.star", "run_sampling.star", "run_model.star", "run_class001.mrc", "run_class001_angdist.bild"}
    expected |= {"run_half1_class001_unfil.mrc", "run_half2_class001_unfil.mrc", job_control.SUCCESS, "status.json", "run_warnings.txt"}
    per_half = ("model.star", "class001.mrc", "class001_angdist.bild")
    for iteration in range(run.last_iteration + 1):
        base = f"run_it{iteration:03d}"
        expected |= {f"{base}_{name}.star" for name in ("data", "optimiser", "sampling")}
        expected |= {f"{base}_half{half}_{name}" for half in (1, 2) for name in per_half}
    assert {path.name for path in (run.folder / "job").iterdir()} == expected
    (warning,) = (run.folder / "job/run_warnings.txt").read_text().splitlines()
    assert "the pixels limit the resolution" in warning


def test_the_final_files_belong_together(run: Run) -> None:
    with contextlib.chdir(run.folder):
        written = star.read("job/run_data.star")["particles"]
        assert written.count == COUNT and set(written["rlnRandomSubset"].tolist()) == {1, 2}
        assert written["rlnImageName"].tolist() == particles.load("particles.star").table["rlnImageName"].tolist()
        for name in ("run_class001", "run_half1_class001_unfil", "run_half2_class001_unfil"):
            volume, pixel_size = mrc.read_map(f"job/{name}.mrc")
            assert volume.shape == (BOX,) * 3 and pixel_size == pytest.approx(PIXEL_SIZE)
        assert particles.load("job/run_data.star").count == COUNT


AUTO = " Auto-refine: "
NUMBER = r"[-+.\deinf]+"
STATUS = ["Iteration= #", "Resolution= # (no gain for # iter) ", "Changes in angles= # degrees; and in offsets= # Angstroms (no gain for # iter) "]
CONVERGED = ["Refinement has converged, entering last iteration where two halves will be combined...",
             "The last iteration will use data to Nyquist frequency, which may take more CPU and RAM."]  # fmt: skip
ACCURACY = ["Estimated accuracy angles= # degrees; offsets= # Angstroms"]
STEPS = ["Angular step= # degrees; local searches= ?", "Offset search range= # Angstroms; offset step= # Angstroms"]
END = ["Refinement has converged, stopping now... ", "+ Final reconstruction from all particles is saved as: job/run_class001.mrc",
       "+ Final model parameters are stored in: job/run_model.star", "+ Final data parameters are stored in: job/run_data.star",
       "+ Final resolution (without masking) is: #",
       "+ But you may want to run relion_postprocess to mask the unfil.mrc maps and calculate a higher resolution FSC"]  # fmt: skip


def auto_lines(lines: list[str]) -> list[str]:
    """The lines that `grep Auto` finds, numbers as # and without the warnings of a poor accuracy."""
    found = [line.removeprefix(AUTO) for line in lines if "Auto" in line and "WARNING" not in line]
    numbers = re.compile(rf"(?<== ){NUMBER}|(?<=for ){NUMBER}(?= iter)|(?<=is: ){NUMBER}")
    return [numbers.sub("#", re.sub("(true|false)$", "?", line)) for line in found]


def test_the_auto_refine_lines_come_in_relions_order(run: Run) -> None:
    expected = [*STATUS]
    for _ in range(2, run.last_iteration + 1):
        expected += STATUS + ACCURACY + STEPS
    expected += STATUS + CONVERGED + ACCURACY + STEPS + END
    assert auto_lines(run.lines) == expected


def test_a_run_goes_on_from_an_earlier_iteration_to_a_like_answer(run: Run) -> None:
    at = run.last_iteration - 2
    code, lines = execute(["refine", "--continue", f"job/run_it{at:03d}_optimiser.star", "--o", "job/again", *run.command[-2:],
                           "--auto_ignore_angles", "--auto_resol_angles"], run.folder)  # fmt: skip
    try:
        assert code == 0 and auto_lines(lines)[-len(END) :] == [line.replace("job/run", "job/again") for line in END]
        before, after = (star.read(run.folder / f"job/{name}_model.star")["model_general"].value("rlnCurrentResolution") for name in ("run", "again"))
        assert after == pytest.approx(before, rel=0.25)
        errors = compare.pose_errors(run.folder / "job/again_data.star", run.made.truth, SYMMETRY)
        assert errors["angle_median"] < 6
        subsets = [star.read(run.folder / f"job/{name}_data.star")["particles"]["rlnRandomSubset"] for name in ("run", "again")]
        assert np.array_equal(*subsets)
    finally:
        for path in (run.folder / "job").glob("again*"):
            path.unlink()


def test_from_python_a_result_holds_maps_fsc_poses_and_history(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.folder)
    options = replace(build(parse("", "", OPTIONS, run.command[1:])[0]), output="", max_iterations=2, verbosity=0, pipeline_control="")
    result = aurefine.refine("particles.star", "reference.mrc", options)
    assert [entry["iteration"] for entry in result.history] == [1, 2]
    assert result.map.shape == (BOX,) * 3 and result.fsc.shape == (BOX // 2 + 1,) and result.poses.angles.shape == (COUNT, 3)
    assert np.isfinite(result.map).all() and result.fsc[0] == pytest.approx(1, abs=0.01)
    model = star.read("job/run_it002_half1_model.star")
    assert result.resolution == pytest.approx(model["model_general"].value("rlnCurrentResolution"), rel=1e-4)  # the same seed, the same run
    assert np.allclose(result.fsc, model["model_class_1"]["rlnGoldStandardFsc"], atol=0.01)
    assert not Path("_it000_data.star").exists()


def test_a_job_that_is_told_to_stop_says_so_and_can_go_on(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(run.folder)
    real = writer.write_iteration

    def write_and_ask_to_stop(root: str, iteration: int, *further) -> str:
        if iteration == 1:
            Path("stopped", job_control.ABORT_NOW).touch()
        return real(root, iteration, *further)

    monkeypatch.setattr(writer, "write_iteration", write_and_ask_to_stop)
    command = [word.replace("job/", "stopped/") for word in run.command]
    assert main(command) == 2
    assert "the job was stopped" in capsys.readouterr().err
    left = set(os.listdir("stopped"))
    assert job_control.ABORTED in left and job_control.SUCCESS not in left and job_control.ABORT_NOW not in left
    assert "run_it001_optimiser.star" in left and not any("it002" in name for name in left)


@pytest.fixture(autouse=True)
def no_leftovers(run: Run) -> Iterator[None]:
    """The run's folder is looked at by every test: none may leave files that look like the run's own."""
    before = set(os.listdir(run.folder / "job"))
    yield
    assert set(os.listdir(run.folder / "job")) == before
