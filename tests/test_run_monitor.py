"""`status.json` is true however a run ends; the request to stop is heeded in any phase; a run that hangs is ended and says where."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

import pytest

import aurefine
from aurefine import molecule, simulate
from aurefine.errors import InputError
from aurefine.imaging import Camera, Imaging
from aurefine.job_control import JobAborted, JobControl
from aurefine.process_record import ProcessRecord
from aurefine.refine import run_monitor, run_status
from aurefine.refine.options import RefineOptions
from aurefine.refine.run_monitor import RunMonitor
from aurefine.refine.run_status import read_status, write_status

# A refinement in a process of its own, one of whose functions never returns.
HANGING = """
import signal, sys, time
from dataclasses import replace
from aurefine.cli.main import main
from aurefine.refine import lanes, loop, run_monitor

real = loop._maximisation

def maximisation(state, plan, sums, data, options, console):
    data.monitor.options = replace(options, watchdog_minutes=options.watchdog_minutes / 3000)  # only here, however slow the machine is
    return real(state, plan, sums, data, options, console)

def sleeping(*given):
    print("hanging", flush=True)
    if {unheard}:  # another thread takes the signal, and the main one goes on waiting, as when it comes just before that begins to wait
        signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGTERM}})
    lanes.lanes_of(2).map(lambda half: time.sleep(1000), (1, 2)) if {in_lanes} else time.sleep(1000)

run_monitor._GRACE = 1.0
loop._maximisation, loop.maximise = maximisation, sleeping
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    simulate.simulate(molecule.generate("D2", seed=1), folder, Imaging(particles=40, cameras=(Camera(8.0, 32),)))
    return folder


def start_hanging(project: Path, root: str, *more: str, in_lanes: bool = False, unheard: bool = False) -> subprocess.Popen:
    line = ["refine", "--i", "particles.star", "--ref", "reference.mrc", "--o", f"{root}/run", "--sym", "D2", "--ini_high", "50", "--ctf",
            "--zero_mask", "--particle_diameter", "200", "--healpix_order", "1", "--random_seed", "1", "--j", "2",
            "--pipeline_control", f"{root}/", *more]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(Path(aurefine.__file__).parents[1])}
    command = [sys.executable, "-c", HANGING.format(in_lanes=in_lanes, unheard=unheard), *line]
    return subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def until_hanging(run: subprocess.Popen) -> None:
    assert run.stdout is not None and any("hanging" in line for line in run.stdout)


def test_a_run_that_makes_no_progress_is_ended_and_says_where_it_hangs(project):
    run = start_hanging(project, "hangs", "--watchdog", "100")
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 1
    assert "no progress for 0.0333333 minutes (--watchdog) in this phase: maximisation of iteration 1" in errors
    assert "Iteration 0 is kept (hangs/run_it000_optimiser.star)" in errors and "in sleeping" in errors
    status = read_status(project / "hangs")
    assert status.verdict() == "failed" and status.phase == "maximisation" and "no progress" in status.message
    assert (project / "hangs" / "RELION_JOB_EXIT_FAILURE").exists()


@pytest.mark.parametrize("in_lanes", [False, True])  # in the main thread, which a signal wakes, and in others, which nothing does
def test_the_request_to_stop_is_heeded_in_any_phase(project, in_lanes):
    root = f"aborted{in_lanes}"
    run = start_hanging(project, root, in_lanes=in_lanes)
    until_hanging(run)
    (project / root / "RELION_JOB_ABORT_NOW").touch()
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 2 and "the job was stopped by RELION_JOB_ABORT_NOW. Iteration 0 is kept" in errors and "Traceback" not in errors
    assert read_status(project / root).verdict() == "aborted" and (project / root / "RELION_JOB_EXIT_ABORTED").exists()


@pytest.mark.parametrize("unheard", [False, True])
def test_sigterm_ends_a_run_whose_threads_do_not_look(project, unheard):
    root = f"terminated{unheard}"
    run = start_hanging(project, root, "--watchdog", "100000", in_lanes=True, unheard=unheard)
    until_hanging(run)
    run.terminate()
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 143 and f"Iteration 0 is kept ({root}/run_it000_optimiser.star)" in errors
    assert read_status(project / root).verdict() == "interrupted" and (project / root / "RELION_JOB_EXIT_ABORTED").exists()


def test_a_killed_run_is_recognised(project):
    run = start_hanging(project, "killed")
    until_hanging(run)
    status = read_status(project / "killed")
    assert status.verdict() == "running" and status.phase == "maximisation" and status.iteration == 1 and status.memory_mb > 0
    assert status.process.pid == run.pid
    run.send_signal(signal.SIGSTOP)
    assert read_status(project / "killed").verdict(time.time() + 60) == "silent"
    run.kill()
    run.wait()
    assert read_status(project / "killed").verdict() == "died"


def monitor_in(folder: Path, **changed) -> RunMonitor:
    monitor = RunMonitor(RefineOptions(output=str(folder / "run"), **changed), JobControl())
    monitor.open()
    return monitor


@pytest.mark.parametrize(
    ("error", "state"),
    [(None, "finished"), (JobAborted("stop"), "aborted"), (KeyboardInterrupt(), "interrupted"), (InputError("no mask"), "failed"),
     (ValueError(), "failed")],
)
def test_the_state_says_how_the_run_ended(tmp_path, error, state):
    with pytest.raises(type(error)) if error else nullcontext(), monitor_in(tmp_path):
        assert read_status(tmp_path).verdict() == "running"
        if error:
            raise error
    assert read_status(tmp_path / "status.json").verdict() == state


def test_the_rate_counts_what_this_run_has_done(tmp_path):
    monitor = monitor_in(tmp_path)
    monitor.phase("expectation", 4, particles=100)
    monitor._phase_began -= 10
    monitor.advance(60, skipped=True)
    monitor.advance(20)
    status = monitor.status("running")
    assert (status.particles_done, status.particles, status.iteration) == (80, 100, 4)
    assert status.rate == pytest.approx(2, rel=0.05) and status.seconds_left == pytest.approx(10, rel=0.05)


def test_time_for_which_the_process_was_stopped_is_no_hang(tmp_path, monkeypatch):
    ended = []
    monitor = monitor_in(tmp_path, watchdog_minutes=1.0)
    monkeypatch.setattr(monitor, "_end_hanging_run", lambda: ended.append(1))
    ticks = iter([0.0, 1.0, 2.0, 5000.0, 5001.0])  # stopped after two seconds
    monkeypatch.setattr(run_monitor.time, "monotonic", lambda: next(ticks))
    waits = iter([False, False, False, False, True])
    monkeypatch.setattr(monitor._ended, "wait", lambda seconds: next(waits))
    monitor._look_until_end()
    assert ended == [] and monitor._idle == pytest.approx(6.0)


def test_a_folder_that_vanishes_ends_the_run(tmp_path, monkeypatch):
    folder = tmp_path / "job"
    folder.mkdir()
    monitor = monitor_in(folder)
    monitor._look_for_folder(time.monotonic())
    (folder / "status.json").unlink()
    folder.rmdir()
    monitor._look_for_folder(time.monotonic() + 30)
    monitor.control.check()  # a lapse
    monitor._look_for_folder(time.monotonic() + 90)
    with pytest.raises(InputError, match="the output folder has vanished"):
        monitor.control.check()


def test_a_hanging_run_is_ended_also_where_its_exit_file_cannot_be_written(tmp_path, monkeypatch, capsys):
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    monitor = RunMonitor(RefineOptions(output=str(tmp_path / "run"), pipeline_control=str(tmp_path / "gone"), watchdog_minutes=1.0))
    monitor._end_hanging_run()
    assert codes == [1] and "no progress for 1 minutes" in capsys.readouterr().err


class DeadDisk:
    """A file system that does not answer until `answers` is set."""

    def __init__(self, monkeypatch) -> None:
        self.answers, self.asked = threading.Event(), threading.Event()
        for function in ("write_status", "write_last_status"):
            monkeypatch.setattr(run_status, function, self.waiting(getattr(run_status, function)))
        for length in ("_PATIENCE", "_ANSWER", "_LOOK"):
            monkeypatch.setattr(run_monitor, length, 0.01)

    def waiting(self, real):
        def wait(*given):
            self.asked.set()
            self.answers.wait(60)
            return real(*given)

        return wait


class DeadControl(JobControl):
    """A folder of exit files on such a file system."""

    def __init__(self, disk: DeadDisk) -> None:
        super().__init__()
        self.check = disk.waiting(lambda: None)


def in_thread(work) -> None:
    """A test whose promise is broken would never end."""
    done = []
    thread = threading.Thread(target=lambda: done.append(work()), daemon=True)
    thread.start()
    thread.join(30)
    assert done


def test_a_status_that_cannot_be_written_for_ever_does_not_hold_the_run_up(tmp_path, monkeypatch):
    disk = DeadDisk(monkeypatch)
    monitor = RunMonitor(RefineOptions(output=str(tmp_path / "run")), JobControl())

    def run() -> None:
        with monitor:
            monitor.open()
            disk.asked.wait(30)
            monitor.phase("expectation", 1, 100)
            monitor.advance(40)

    in_thread(run)
    assert not (tmp_path / "status.json").exists()
    disk.answers.set()
    monitor._files.join(30)
    status = read_status(tmp_path)  # the last word is the end, however late the others come
    assert (status.state, status.phase, status.particles_done) == ("finished", "done", 40)


def test_a_hanging_run_is_ended_also_where_no_file_can_be_looked_at_or_written(tmp_path, monkeypatch):
    disk = DeadDisk(monkeypatch)
    told: SimpleQueue[str] = SimpleQueue()
    left = threading.Event()
    monkeypatch.setattr(os, "_exit", lambda code: left.set())
    monkeypatch.setattr(run_monitor, "_tell", lambda message, stacks: told.put(message))
    monkeypatch.setattr(run_monitor.resume, "advice", disk.waiting(lambda root: ""))
    monkeypatch.setattr(run_monitor.job_control, "leave_failure", disk.waiting(lambda *given: None))
    options = RefineOptions(output=str(tmp_path / "run"), pipeline_control=str(tmp_path), watchdog_minutes=0.0005)
    monitor = RunMonitor(options, DeadControl(disk))

    def run() -> None:
        with monitor:
            monitor.open()
            assert left.wait(25)

    in_thread(run)
    assert told.get(timeout=30).startswith("no progress for 0.0005 minutes")
    disk.answers.set()
    monitor._files.join(30)


def test_the_process_that_started_others_corrects_what_they_could_not_know(tmp_path):
    gone = ProcessRecord(**{**vars(ProcessRecord.own()), "start": "an earlier process"})
    for told, state in (("interrupted", "failed"), ("running", "failed"), ("finished", "finished")):
        write_status(tmp_path / "status.json", replace(monitor_in(tmp_path).status(told), process=gone))
        run_status.correct_last_status(tmp_path, "failed", "rank 1 was killed")
        assert read_status(tmp_path).verdict() == state
    alive = replace(monitor_in(tmp_path).status("running"), process=ProcessRecord.own())
    write_status(tmp_path / "status.json", alive)
    run_status.correct_last_status(tmp_path, "failed", "")
    assert read_status(tmp_path).verdict() == "running"
    run_status.correct_last_status(tmp_path / "elsewhere", "failed", "")
    assert not (tmp_path / "elsewhere").exists()


def test_a_status_is_read_back_and_a_broken_one_is_told(tmp_path):
    status = replace(monitor_in(tmp_path).status("finished"), process=ProcessRecord("elsewhere", "", 1, ""))
    write_status(tmp_path / "status.json", status)
    assert read_status(tmp_path) == status
    assert replace(status, state="running").verdict(status.heartbeat + 10) == "running"
    assert replace(status, state="running").verdict(status.heartbeat + 100) == "silent"
    for text in ("", "{}", "[]", json.dumps({"process": 3})):
        (tmp_path / "status.json").write_text(text)
        with pytest.raises(InputError, match="no status of a run"):
            read_status(tmp_path)
    with pytest.raises(InputError, match="No such file"):
        read_status(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("name", "value"),
    [("heartbeat", "abc"), ("heartbeat", None), ("heartbeat", 10**400), ("seconds_left", "x"), ("seconds_left", float("nan")), ("rate", True),
     ("phase", ["a"]), ("iteration", 1.5), ("message", 3), ("process", {"host": "", "boot": "", "pid": "1", "start": ""})],
)  # fmt: skip
def test_a_status_whose_values_are_of_another_kind_is_one_message(tmp_path, name, value):
    write_status(tmp_path / "status.json", monitor_in(tmp_path).status("running"))
    values = json.loads((tmp_path / "status.json").read_text())
    (tmp_path / "status.json").write_text(json.dumps(values | {name: value}))
    with pytest.raises(InputError, match="no status of a run"):
        read_status(tmp_path)
