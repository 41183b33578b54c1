"""Run a job as a process of its own whose output goes to `run.out` and `run.err`, and show there what is added to them.

The job writes its files itself: it lives on when the terminal that watches it is lost or killed.
"""

from __future__ import annotations

import codecs
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from aurefine.job_control import ABORT_NOW
from aurefine.process_record import ProcessRecord
from aurefine.project.job_directory import ERR, OUT

_POLL_SECONDS = 0.1
_GRACE_SECONDS = 60.0  # for a job that was asked to stop
_PATIENCE_SECONDS = 120.0  # for a job to take note of RELION_JOB_ABORT_NOW, between two of the moments at which it looks


@dataclass(frozen=True)
class Result:
    """Exit code (128 + signal where one ended the job), and whether the user stopped it."""

    code: int
    stopped: bool


class _Stopped(Exception):
    """SIGTERM came, or the job takes no note of the request to stop."""


def run(command: Sequence[str], root: Path, folder: Path) -> Result:
    """Run `aurefine <command>` in `root` until it ends, showing what it prints; Ctrl-C and SIGTERM are passed on to it as a Ctrl-C.

    So is RELION_JOB_ABORT_NOW in its `folder`, if the job itself leaves it there. However the job ends early, no process that it
    started outlives it.
    """
    shown = [_Tail(folder / OUT, sys.stdout), _Tail(folder / ERR, sys.stderr)]
    stopped = False
    with open(folder / OUT, "ab") as out, open(folder / ERR, "ab") as err, _terminations_raise() as late:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        with late:
            job = subprocess.Popen(
                [sys.executable, "-m", "aurefine", *command], cwd=root, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment,
                start_new_session=True,  # a Ctrl-C comes once, from here; and what it starts can be ended with it
            )  # fmt: skip
        try:
            late.arrive()
            ProcessRecord.of(job.pid).save(folder)
            _show_until_end(job, shown, folder / ABORT_NOW)
        except (KeyboardInterrupt, _Stopped):
            stopped = True
            _stop(job, shown)
        except BaseException:
            _kill(job)  # nobody would know of it any more
            raise
    code = job.returncode
    if code:
        _kill(job)
    return Result(128 - code if code < 0 else code, stopped)


def _kill(job: subprocess.Popen[bytes]) -> None:
    """End the job, if it runs, and whatever it has started and left."""
    with suppress(ProcessLookupError, PermissionError):  # nothing is left; on a Mac, only what is about to end
        os.killpg(job.pid, signal.SIGKILL)
    job.wait()


def _show_until_end(job: subprocess.Popen[bytes], shown: Sequence[_Tail], request: Path) -> None:
    """Until the job has ended; _Stopped when the request to stop stays where it is, for a job takes it away when it sees it."""
    patience = _PATIENCE_SECONDS
    while job.poll() is None:
        for tail in shown:
            tail.show()
        time.sleep(_POLL_SECONDS)
        patience = patience - _POLL_SECONDS if request.exists() else _PATIENCE_SECONDS
        if patience < 0:
            request.unlink(missing_ok=True)
            raise _Stopped
    for tail in shown:
        tail.show()


def _stop(job: subprocess.Popen[bytes], shown: Sequence[_Tail]) -> None:
    """Ask the job to stop, give it time to write its files, end it otherwise or when asked again."""
    print("\n Stopping the job (again to end it at once) ...", flush=True)
    with suppress(KeyboardInterrupt, _Stopped):
        job.send_signal(signal.SIGINT)
        end = time.monotonic() + _GRACE_SECONDS
        while job.poll() is None and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
    _kill(job)
    for tail in shown:
        tail.show()


class _Late:
    """Keeps a request to stop that comes while a job is being started, until the job is known here: it would run on, known to nobody."""

    def __init__(self) -> None:
        self.waiting = False
        self._asked: BaseException | None = None

    def __enter__(self) -> None:
        self.waiting = True

    def __exit__(self, *error: object) -> None:
        self.waiting = False

    def ask(self, request: BaseException) -> None:
        """Raise `request`, now or later."""
        if not self.waiting:
            raise request
        self._asked = request

    def arrive(self) -> None:
        """Raise what was asked for meanwhile."""
        if self._asked is not None:
            raise self._asked


@contextmanager
def _terminations_raise() -> Iterator[_Late]:
    """SIGTERM, which batch systems send, ends the wait as Ctrl-C does."""
    late, before = _Late(), {}

    def stop(number: int, frame: FrameType | None) -> None:
        late.ask(_Stopped() if number == signal.SIGTERM else KeyboardInterrupt())

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, stop)
    except ValueError:  # not in the main thread: the caller looks after signals
        yield late
        return
    try:
        yield late
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Tail:
    """Shows what is added to a file from now on."""

    def __init__(self, path: Path, stream: TextIO) -> None:
        self._path, self._stream = path, stream
        self._position = path.stat().st_size
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def show(self) -> None:
        with open(self._path, "rb") as file:
            file.seek(self._position)
            added = file.read()
        if added:
            self._position += len(added)
            self._stream.write(self._decoder.decode(added))
            self._stream.flush()


@contextmanager
def closed_output_ignored() -> Iterator[None]:
    """A terminal or pipe that is closed (`aurefine run ... | head`) is no reason to stop, at no point between a job's start and its end."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Patient(sys.stdout), _Patient(sys.stderr)  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout, sys.stderr = before


class _Patient:
    """A stream that goes quiet when nobody reads it any more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._unless_closed(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._unless_closed(self._stream.flush)

    def _unless_closed(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())  # what is still buffered goes there too
