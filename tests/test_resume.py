"""A run that is stopped at any moment goes on with --resume, and ends where it would have ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from aurefine import molecule, mrc, simulate
from aurefine.cli.main import main
from aurefine.fsc import of_maps
from aurefine.imaging import Camera, Imaging
from aurefine.job_control import stopped_by_signals
from aurefine.process_record import ProcessRecord
from aurefine.refine import expectation, loop, partial, resume, shortage

BOX, PIXEL_SIZE, COUNT = 32, 8.0, 300


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    simulate.simulate(molecule.generate("D2", seed=1), folder, Imaging(particles=COUNT, cameras=(Camera(PIXEL_SIZE, BOX),), snr=0.5))
    return folder


@pytest.fixture(scope="module")
def undisturbed(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output root of a run of three iterations."""
    folder = tmp_path_factory.mktemp("undisturbed")
    here = Path.cwd()
    os.chdir(simulated)
    try:
        assert main(arguments(folder / "run")) == 0
    finally:
        os.chdir(here)
    return folder / "run"


def arguments(root: str | Path = "out/run", *more: str) -> list[str]:
    return ["refine", "--i", "particles.star", "--ref", "reference.mrc", "--o", str(root), "--sym", "D2", "--ini_high", "50", "--ctf", "--zero_mask",
            "--particle_diameter", "200", "--norm", "--scale", "--firstiter_cc", "--auto_iter_max", "3", "--healpix_order", "1", "--offset", "5",
            "--random_seed", "1", "--j", "2", *more]  # fmt: skip


class Stopped(Exception):
    """Stands for a kill."""


def stop_after(calls: int, real):
    """A function that fails at that call."""
    seen: list[int] = []
    turn = threading.Lock()

    def wrapped(*given, **named):
        with turn:
            seen.append(1)
            if len(seen) >= calls:
                raise Stopped
        return real(*given, **named)

    return wrapped


def gone() -> ProcessRecord:
    """A process that has ended."""
    with subprocess.Popen(["true"]) as process:
        record = ProcessRecord.of(process.pid)
    return record


def assert_same_map(root: str | Path, other: Path, half: int = 1) -> None:
    one, two = (mrc.read_map(f"{name}_it003_half{half}_class001.mrc")[0] for name in (root, other))
    assert of_maps(one, two)[: BOX // 4].min() > 0.999


def test_a_run_goes_on_from_its_newest_complete_iteration(project, undisturbed, monkeypatch, capsys):
    monkeypatch.setattr(loop, "maximise", stop_after(3, loop.maximise))
    with pytest.raises(Stopped):
        main(arguments())
    monkeypatch.undo()
    monkeypatch.chdir(project)
    (project / "out" / f".run_it003_half1_class001.mrc.{gone().pid}.tmp").write_bytes(b"half a map")
    assert "Iteration 2 is kept (out/run_it002_optimiser.star)" in resume.advice("out/run")
    before = (project / "out" / "run_it002_data.star").stat().st_mtime_ns
    assert main(arguments("out/run", "--resume")) == 0
    assert "Resuming after run_it002_optimiser.star" in capsys.readouterr().out
    assert before == (project / "out" / "run_it002_data.star").stat().st_mtime_ns and not list(Path("out").glob(".*"))
    assert_same_map("out/run", undisturbed)
    assert_same_map("out/run", undisturbed, half=2)
    assert main(arguments("out/run", "--resume", "--pipeline_control", "out/")) == 0
    assert "--auto_iter_max 3: so many iterations are done" in capsys.readouterr().out and Path("out/RELION_JOB_EXIT_SUCCESS").exists()


def test_a_run_goes_on_within_an_iteration(project, undisturbed, monkeypatch):
    real = expectation._GroupPass.chunk
    done: list[int] = []

    def counting(self, indices, *others):
        done.append(len(indices))
        return real(self, indices, *others)

    monkeypatch.setattr(shortage, "CHUNK_PIXELS", 1)  # 64 particles at a time
    monkeypatch.setattr(expectation._GroupPass, "chunk", stop_after(9, real))  # three chunks a half: in the second iteration
    with pytest.raises(Stopped):
        main(arguments("out/run", "--checkpoint", "1e-9"))
    assert {path.name for path in Path("out").glob("*_plan_checkpoint.npz")} == {"run_it002_plan_checkpoint.npz"}
    monkeypatch.setattr(expectation._GroupPass, "chunk", counting)
    assert main(arguments("out/run", "--checkpoint", "1e-9", "--resume")) == 0
    assert sum(done) < 2 * COUNT and len(done) < 12  # of iteration 2 a part only
    assert [path.name for path in Path("out").glob("*_checkpoint.npz")] == ["run_it003_state_checkpoint.npz"]
    assert_same_map("out/run", undisturbed)
    assert_same_map("out/run", undisturbed, half=2)


def test_a_resumed_run_has_all_digits_where_nothing_was_changed(project, monkeypatch):
    seen: list[loop.State] = []

    def stopping(state, *others):
        seen.append(state)
        if state.progress.iteration == 2:
            raise Stopped
        return real(state, *others)

    real = loop.plan_iteration
    for line in (arguments(), arguments("out/run", "--resume"), arguments("out/run", "--resume", "--tau2_fudge", "2")):
        monkeypatch.setattr(loop, "plan_iteration", stopping)
        with pytest.raises(Stopped):
            main(line)
    run, exact, other = (state for state in seen if state.progress.iteration == 2)
    for field in fields(run.halves[0]):
        np.testing.assert_array_equal(getattr(run.halves[1], field.name), getattr(exact.halves[1], field.name))
    assert run.progress == exact.progress and run.sampling == exact.sampling
    np.testing.assert_array_equal(run.poses.norm, exact.poses.norm)
    assert not np.array_equal(run.poses.norm, other.poses.norm)  # from STAR files: rounded
    np.testing.assert_allclose(run.poses.norm, other.poses.norm, atol=1e-6)


def test_a_checkpoint_of_another_run_or_in_pieces_is_not_used(project, monkeypatch, capsys):
    monkeypatch.setattr(shortage, "CHUNK_PIXELS", 1)
    real = expectation._GroupPass.chunk
    monkeypatch.setattr(expectation._GroupPass, "chunk", stop_after(6, real))
    with pytest.raises(Stopped):
        main(arguments("out/run", "--checkpoint", "1e-9"))
    monkeypatch.setattr(expectation._GroupPass, "chunk", real)
    (plan,) = Path("out").glob("*_plan_checkpoint.npz")
    with np.load(plan) as stored:
        content = dict(stored)
    content["head"] = np.array(json.dumps({**json.loads(str(content["head"])), "options": "others"}))
    np.savez(plan, **content)
    assert main(arguments("out/run", "--resume", "--auto_iter_max", "1")) == 0
    assert "this checkpoint is of a run with other options" in capsys.readouterr().err
    assert [path.name for path in Path("out").glob("*_checkpoint.npz")] == ["run_it001_state_checkpoint.npz"]


def test_without_anything_to_resume_the_run_starts_and_a_finished_one_is_left_alone(project, capsys):
    line = arguments("out/run", "--resume", "--auto_iter_max", "1")
    assert main(line) == 0
    assert "Nothing is there to resume under out/run: the run starts" in capsys.readouterr().out
    shutil.copyfile("out/run_it001_optimiser.star", "out/run_optimiser.star")
    assert main(line) == 0
    assert "This run is finished (out/run_optimiser.star)" in capsys.readouterr().out
    assert main([*line, "--sym", "C1"]) == 2
    assert "out/run_optimiser.star is of a run with other settings: symmetry was D2 and is C1 now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("first", "then", "said"),
    [
        ([], ["--sym", "C1"], "symmetry was D2 and is C1 now"),
        ([], ["--ctf_phase_flipped", "--auto_iter_max", "2"], "ctf_phase_flipped was False and is True now"),
        (["--ctf_phase_flipped"], [], "ctf_phase_flipped was True and is False now"),
        ([], ["--tau", "particles.star"], "initial_tau2_spectrum was not set and is particles.star now"),
    ],
)
def test_another_command_line_is_refused(project, capsys, first, then, said):
    assert main(arguments("out/run", "--auto_iter_max", "1", *first)) == 0
    assert main(arguments("out/run", "--resume", *then)) == 2
    assert said in capsys.readouterr().err


def test_what_is_off_because_it_was_not_given_again_is_told(project, capsys):
    assert main(arguments("out/run", "--auto_iter_max", "1", "--auto_ignore_angles")) == 0
    assert main(arguments("out/run", "--resume", "--auto_iter_max", "1")) == 0
    assert "Note: the run that is continued had --auto_ignore_angles; as in RELION it is off now" in capsys.readouterr().out


def test_iterations_of_an_earlier_run_are_told_from_those_of_the_newest(tmp_path):
    for number, time in ((0, 100), (1, 110), (2, 90), (3, 95)):
        path = tmp_path / f"run_it{number:03d}_optimiser.star"
        path.write_text("")
        os.utime(path, (time, time))
    (tmp_path / "run_optimiser.star").write_text("")
    os.utime(tmp_path / "run_optimiser.star", (99, 99))
    found = resume.kept(str(tmp_path / "run"))
    assert [Path(name).name for name in found.optimisers] == ["run_it000_optimiser.star", "run_it001_optimiser.star"]
    assert [Path(name).name for name in found.foreign] == ["run_it002_optimiser.star", "run_it003_optimiser.star"] and found.final == ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_the_run_and_says_what_is_kept(project, monkeypatch, capsys, number, code):
    real = loop._expectation

    def interrupted(state, plan, *others, **named):
        if plan.iteration == 2:
            os.kill(os.getpid(), number)
        return real(state, plan, *others, **named)

    monkeypatch.setattr(loop, "_expectation", interrupted)
    monkeypatch.setattr(signal, "SIG_IGN", None)  # a shell's background job, such as a test run, ignores Ctrl-C
    assert main(arguments("out/run", "--pipeline_control", "out/")) == code
    told = capsys.readouterr().err
    assert "Iteration 1 is kept (out/run_it001_optimiser.star)" in told and "--resume" in told and "Traceback" not in told
    assert Path("out/RELION_JOB_EXIT_ABORTED").exists()


def test_signals_are_handled_as_before_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    with stopped_by_signals():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_disk_that_is_full_costs_the_checkpoint_and_not_the_run(project, monkeypatch, capsys):
    def full(*given):
        raise partial.InputError("no space is left on the disk")

    monkeypatch.setattr(partial, "_save", full)
    monkeypatch.setattr(shortage, "CHUNK_PIXELS", 1)
    assert main(arguments("out/run", "--checkpoint", "1e-9", "--auto_iter_max", "1")) == 0
    assert "no checkpoint within this iteration: no space is left" in capsys.readouterr().err
