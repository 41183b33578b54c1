"""--resume goes on with the newest run of its output root only: not with an older one, nor beside one that is at work."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from refinement_states import small_options, small_state
from test_resume import Stopped, arguments, gone

from aurefine import molecule, simulate
from aurefine.cli.main import main
from aurefine.distributed import launch
from aurefine.imaging import Camera, Imaging
from aurefine.job_control import job_control
from aurefine.process_record import ProcessRecord
from aurefine.refine import lanes, loop, partial, resume, run_status, start
from aurefine.refine.run_monitor import RunMonitor
from aurefine.refine.run_status import RunStatus, read_status, write_status


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a run of three iterations in out/run that is finished, or so its files say."""
    folder = tmp_path_factory.mktemp("project")
    simulate.simulate(molecule.generate("D2", seed=1), folder, Imaging(particles=60, cameras=(Camera(8.0, 32),), snr=0.5))
    here = Path.cwd()
    os.chdir(folder)
    try:
        assert main(arguments()) == 0
    finally:
        os.chdir(here)
    (folder / "out" / "run_optimiser.star").write_bytes((folder / "out" / "run_it003_optimiser.star").read_bytes())
    return folder


@pytest.fixture
def living() -> Iterator[ProcessRecord]:
    """A process that is alive."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield ProcessRecord.of(process.pid)
        process.kill()


def a_status(process: ProcessRecord, **changed) -> RunStatus:
    status = RunMonitor(replace(small_options(), output="out/run")).status(run_status.RUNNING)
    return replace(status, process=process, **changed)


def optimisers() -> list[str]:
    return sorted(path.name for path in Path("out").glob("run_*optimiser.star"))


def test_a_run_that_ends_before_it_has_written_is_not_taken_for_the_one_before_it(project, monkeypatch, capsys):
    before = optimisers()

    def stopping(*given):
        raise Stopped

    monkeypatch.setattr(start, "ImageCache", stopping)
    with pytest.raises(Stopped):
        main(arguments("out/run", "--random_seed", "7"))
    monkeypatch.undo()
    monkeypatch.chdir(project)
    assert optimisers() == before and len(before) == 5  # nothing is lost yet
    assert resume.advice("out/run") == "No iteration is finished: start again."
    assert main(arguments("out/run", "--random_seed", "7", "--auto_iter_max", "1", "--resume")) == 0
    assert "Nothing is there to resume under out/run: the run starts" in capsys.readouterr().out
    assert optimisers() == ["run_it000_optimiser.star", "run_it001_optimiser.star"]
    assert resume.advice("out/run").startswith("Iteration 1 is kept")


@pytest.mark.parametrize(
    ("room", "name", "said"), [(start, "ImageCache", "No iteration is finished: start again"), (loop.particles_room, "load", "Nothing was written")]
)
def test_a_new_run_that_is_stopped_does_not_say_that_the_one_before_it_is_its_own(project, monkeypatch, capsys, room, name, said):
    monkeypatch.setattr(room, name, lambda *given, **named: os.kill(os.getpid(), signal.SIGTERM))
    assert main(arguments()) == 143
    assert f"interrupted. {said}" in capsys.readouterr().err and len(optimisers()) == 5


def test_a_new_run_whose_images_are_bad_leaves_the_one_before_it(project, capsys):
    stack = next(Path("Particles").glob("*.mrcs"))
    pixels = np.fromfile(stack, np.uint8)
    pixels[1024:] = 0
    pixels.tofile(stack)
    assert main(arguments()) == 2
    assert "images cannot be used" in capsys.readouterr().err and len(optimisers()) == 5


def test_the_warnings_of_the_first_start_are_there_after_going_on(project, monkeypatch, capsys):
    stack = next(Path("Particles").glob("*.mrcs"))
    pixels = np.fromfile(stack, np.uint8)
    pixels[1024 : 1024 + 4 * 32 * 32] = 0  # its first image
    pixels.tofile(stack)

    def stopping(*given):
        raise Stopped

    monkeypatch.setattr(loop, "maximise", stopping)
    with pytest.raises(Stopped):
        main(arguments())
    first = Path("out/run_warnings.txt").read_text().splitlines()
    (reason,) = [line for line in first if line.startswith("1 of 60 particles set aside: ")]
    assert f"WARNING: {reason}" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.chdir(project)
    assert main(arguments("out/run", "--resume")) == 0
    told = capsys.readouterr()
    assert reason in Path("out/run_warnings.txt").read_text().splitlines() and reason in told.out and reason in told.err


def test_iterations_that_were_written_after_the_status_are_the_runs_own(project):
    """The status is not flushed to the disk: after a power cut it may be older than the files of iterations."""
    write_status("out/status.json", a_status(gone(), nothing_written=True))
    assert resume.kept("out/run").optimisers == ()
    now = time.time() + 10
    for name in ("run_it000_optimiser.star", "run_it001_optimiser.star"):
        os.utime(Path("out") / name, (now, now))
    found = resume.kept("out/run")
    assert [Path(name).name for name in found.optimisers] == ["run_it000_optimiser.star", "run_it001_optimiser.star"] and not found.final


def test_a_finished_run_that_was_killed_after_its_last_file_is_told_to_be_finished(project):
    write_status("out/status.json", a_status(gone()))
    assert main(arguments("out/run", "--resume")) == 0
    assert read_status("out").verdict() == "finished"


@pytest.mark.parametrize("flags", [["--resume"], [], ["--processes", "2"]])
def test_beside_a_run_at_work_none_is_started(project, living, capfd, flags):
    write_status("out/status.json", a_status(living))
    mine = Path(f"out/.run_it004_data.star.{living.pid}.tmp")
    mine.touch()
    assert main(arguments("out/run", *flags, "--auto_iter_max", "4")) == 2
    assert f"A run with this output root is at work (out/status.json: process {living.pid}" in capfd.readouterr().err
    assert read_status("out").verdict() == "running"  # the other one's
    assert mine.exists() and not Path("out/run_it004_optimiser.star").exists()


def test_beside_a_run_at_work_one_of_another_root_is_started(project, living):
    write_status("out/status.json", a_status(living))
    assert main(arguments("out/other", "--auto_iter_max", "1")) == 0


@pytest.mark.parametrize("beats", [True, False])
def test_the_heart_of_a_run_on_another_machine_is_listened_to(tmp_path, monkeypatch, beats):
    root, elsewhere, said = str(tmp_path / "run"), ProcessRecord("elsewhere", "", 1, ""), []
    status = a_status(elsewhere, interval=1e-2)
    write_status(tmp_path / "status.json", status)

    def listen(seconds: float) -> None:
        write_status(tmp_path / "status.json", replace(status, heartbeat=status.heartbeat + (1e-3 if beats else 0)))
        if not beats:
            monkeypatch.setattr(run_status.time, "time", lambda: status.heartbeat + 1)

    monkeypatch.setattr(run_status.time, "time", lambda: status.heartbeat)
    monkeypatch.setattr(resume.time, "sleep", listen)
    if beats:
        with pytest.raises(resume.InputError, match="is at work .*process 1 of elsewhere"):
            resume.refuse_living(root, said.append)
    else:
        resume.refuse_living(root, said.append)
    assert len(said) == 1 and "waiting for its next heartbeat" in said[0]


def test_only_what_dead_processes_were_writing_of_this_root_is_removed(tmp_path, living):
    dead, alive = gone().pid, living.pid
    names = ("run_it003_half1_class001.mrc", "run_it003_half2_rank1_checkpoint.npz", "run_data.star", "status.json")
    others = ("run_b_it003_data.star", "run_ct2_it003_data.star", "run_ct2_data.star", "notes_run_data.star")
    for name in (*names, *others):
        for number in (dead, alive):
            (tmp_path / f".{name}.{number}.tmp").touch()
    resume.remove_unfinished(str(tmp_path / "run"))
    kept = {f".{name}.{alive}.tmp" for name in names} | {f".{name}.{number}.tmp" for name in others for number in (dead, alive)}
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_an_exit_file_that_a_killed_job_was_writing_is_removed(tmp_path, living):
    for number in (gone().pid, living.pid):
        (tmp_path / f".RELION_JOB_EXIT_SUCCESS.{number}.tmp").touch()
    with job_control(str(tmp_path)):
        assert [path.name for path in tmp_path.iterdir()] == [f".RELION_JOB_EXIT_SUCCESS.{living.pid}.tmp"]


def test_processes_that_are_stopped_before_the_first_can_say_so_are_told_of_by_their_starter(project, monkeypatch):
    def stopped(*given):
        write_status("out/status.json", a_status(gone()))
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "launch", stopped)
    assert main(arguments("out/run", "--processes", "2")) == 130
    assert read_status("out").verdict() == "interrupted" and read_status("out").message == "stopped by a signal"


def test_a_status_of_an_earlier_version_is_understood(tmp_path):
    values = {name: value for name, value in asdict(a_status(gone())).items() if name != "nothing_written"}
    (tmp_path / "status.json").write_text(run_status.json.dumps(values))
    assert read_status(tmp_path).nothing_written is False


def test_all_processes_go_on_from_the_numbers_that_one_has_read(tmp_path):
    options, state = replace(small_options(), output=str(tmp_path / "run")), small_state()

    class Lagging(lanes.Lanes):
        """A process that does not see the file yet; `once` gives it what the first has read."""

        def once(self, work):
            return read

    keeper = partial.Keeper(options, crew=lanes.lanes_of(1))
    keeper.keep_state(state)
    read = keeper._read_exact(state)
    (checkpoint,) = tmp_path.glob("*_checkpoint.npz")
    checkpoint.unlink()
    rounded = replace(state, poses=replace(state.poses, norm=np.round(state.poses.norm, 6)))
    found = partial.Keeper(options, crew=Lagging(1)).exact(rounded)
    np.testing.assert_array_equal(found.poses.norm, state.poses.norm)
    np.testing.assert_array_equal(found.halves[1].map, state.halves[1].map)
