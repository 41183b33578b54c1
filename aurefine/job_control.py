"""The files by which RELION's pipeliner and GUI follow a job: how it ended, and the request to stop it (ALGORITHM.md 6.9)."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from aurefine.atomic import write_bytes
from aurefine.errors import InputError
from aurefine.process_record import ProcessRecord, began, remove_abandoned

SUCCESS, FAILURE, ABORTED = "RELION_JOB_EXIT_SUCCESS", "RELION_JOB_EXIT_FAILURE", "RELION_JOB_EXIT_ABORTED"
ABORT_NOW = "RELION_JOB_ABORT_NOW"


class JobAborted(InputError):
    """The user asked for the job to stop (the GUI wrote RELION_JOB_ABORT_NOW)."""


class JobTerminated(KeyboardInterrupt):
    """SIGTERM came, which batch systems send before they kill: the job stops as it does for Ctrl-C."""


@dataclass(frozen=True)
class Stopping:
    """Somebody wants the process to end: since when (time.monotonic), the error that was raised in the main thread, the exit code."""

    since: float
    error: BaseException
    code: int


_pending: list[BaseException] = []  # to be raised in the main thread
_stopping: list[Stopping] = []
_heeding: list[int] = []  # signals that are handled here
_arrived: list[int] = []  # signals that have come and are not known to be heeded
_pipe: list[int] = []  # its reading end tells of signals as they come, whatever the main thread does
_WAKING = signal.SIGURG  # means nothing here, but whoever waits in the main thread looks for signals when one comes


def stopping() -> Stopping | None:
    """Whether the process has been asked to end, inside of `stopped_by_signals`."""
    return _stopping[0] if _stopping else None


def interrupt_main(error: BaseException) -> bool:
    """Raise an error in the main thread, from another one, as a signal does; False where signals are not handled here."""
    if signal.SIGTERM not in _heeding:
        return False
    if not _stopping:
        _pending.append(error)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    return True


def wake_main() -> None:
    """Called by another thread every now and then: a signal that came in the moment before the main thread began to wait for threads that take long
    would be heeded only when these are done."""
    with suppress(BlockingIOError):
        for end in _pipe:
            _arrived.extend(os.read(end, 64))
    if stopping() or not set(_arrived).intersection(_heeding):
        _arrived.clear()
    else:
        signal.pthread_kill(threading.main_thread().ident or 0, _WAKING)


def _stop(number: int, frame: object) -> None:
    if _pending:
        _stopping.append(Stopping(time.monotonic(), _pending.pop(), 2))
    elif _stopping:
        os._exit(128 + number)  # asked again
    else:
        _stopping.append(Stopping(time.monotonic(), JobTerminated() if number == signal.SIGTERM else KeyboardInterrupt(), 128 + number))
    raise _stopping[0].error


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Inside, SIGTERM raises JobTerminated in the main thread; a second one, or a second Ctrl-C, ends the process at once.

    All files are whole or absent at any moment, so that nothing is lost by that. Does nothing outside of the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heeded = [number for number in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(number) != signal.SIG_IGN]  # nohup and shells ignore some
    before = {number: signal.signal(number, _stop) for number in heeded}
    before[_WAKING] = signal.signal(_WAKING, lambda number, frame: None)
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    told = signal.set_wakeup_fd(ends[1], warn_on_full_buffer=False)
    _heeding.extend(heeded)
    _pipe.append(ends[0])
    try:
        yield
    finally:
        for known in (_heeding, _pipe, _pending, _stopping, _arrived):
            known.clear()
        signal.set_wakeup_fd(told)
        for end in ends:
            os.close(end)
        for number, handler in before.items():
            signal.signal(number, handler)


class JobControl:
    """Polls for the request to stop; without a job directory it never comes."""

    def __init__(self, directory: str = "", advice: str = "") -> None:
        self._directory = Path(directory) if directory else None
        self._failure: BaseException | None = None
        self._advice = advice or "go on with --continue and the last _optimiser.star."

    def fail(self, error: BaseException) -> None:
        """Have the next `check` raise this error."""
        self._failure = error

    @property
    def in_project(self) -> bool:
        """Whether the job has a directory, where its success is told: by then its files must be on the disk."""
        return self._directory is not None

    def check(self) -> None:
        """Raise JobAborted when the job is to stop; cheap enough for every batch."""
        if self._failure is not None:
            raise self._failure
        if self._directory is not None and _taken(self._directory / ABORT_NOW):
            raise JobAborted(f"the job was stopped: {ABORT_NOW} appeared in {self._directory}. What is finished is kept: {self._advice}")


def _taken(path: Path) -> bool:
    """Whether the file was there; it is removed, so that one of several threads that look finds it."""
    if not os.path.exists(path):  # also where the folder cannot be looked at just now
        return False
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError:  # a folder that cannot be written to any more: the request stands
        return True
    return True


def leave_failure(directory: str | Path, aborted: bool = False) -> None:
    """Say in the job's directory that it has failed or was stopped; also for those who end the process inside the block of `job_control`."""
    with suppress(InputError):  # the disk may be full: what went wrong first says more, and whoever ends the process must come to it
        write_bytes(Path(directory) / (ABORTED if aborted else FAILURE), b"")


@contextmanager
def job_control(directory: str = "", advice: str = "") -> Iterator[JobControl]:
    """Remove what an earlier run left in the job's directory, and leave RELION_JOB_EXIT_... there when the block ends.

    A request to stop that this run has been given already, as it was being started, stands. An empty `directory` (no --pipeline_control) writes
    nothing. `advice` says how a stopped job goes on. Errors pass through. Raises InputError for a directory that is none or may not be written.
    """
    if not directory:
        yield JobControl()
        return
    folder = Path(directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (SUCCESS, FAILURE, ABORTED, *([ABORT_NOW] if _is_of_an_earlier_run(folder) else [])):
            (folder / name).unlink(missing_ok=True)
        remove_abandoned(folder, re.compile(f"{SUCCESS}|{FAILURE}|{ABORTED}"))
    except OSError as error:
        raise InputError(
            f"--pipeline_control {directory}: {error.strerror}; a folder that may be written to was expected, for files that say how the job ended"
        ) from error
    try:
        yield JobControl(directory, advice)
    except BaseException as error:
        leave_failure(folder, isinstance(error, JobAborted | KeyboardInterrupt))
        raise
    finally:
        with suppress(OSError):  # a request that came too late
            (folder / ABORT_NOW).unlink(missing_ok=True)
    write_bytes(folder / SUCCESS, b"")


def _is_of_an_earlier_run(folder: Path) -> bool:
    """Whether the request to stop in a job's directory, if there is one, was not meant for this run."""
    if ProcessRecord.load(folder) in (ProcessRecord.own(), ProcessRecord.of(os.getppid())):
        return False  # `aurefine run` removed what was there when it said that the job runs
    try:
        return (folder / ABORT_NOW).stat().st_mtime < began()
    except FileNotFoundError:
        return False
