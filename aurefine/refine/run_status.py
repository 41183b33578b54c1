"""`status.json` beside a run's files: where it stands, written every few seconds, and what a reader may believe of it."""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from contextlib import suppress
from dataclasses import Field, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from aurefine.atomic import without_waiting_for_the_disk, write_bytes
from aurefine.errors import InputError
from aurefine.process_record import ProcessRecord
from aurefine.regular_files import text_of

NAME = "status.json"
RUNNING, FINISHED, FAILED, ABORTED, INTERRUPTED = "running", "finished", "failed", "aborted", "interrupted"
ABORT_MESSAGE = "stopped by RELION_JOB_ABORT_NOW"
_KINDS: dict[str, tuple[Any, str]] = {
    "str": (str, "a text"), "int": (int, "a number"), "float": ((int, float), "a number"), "bool": (bool, "true or false"),
}  # fmt: skip
_MOST = 1 << 16  # characters: it is written every few seconds, and is short
SIGNAL_MESSAGE = "stopped by a signal"
DIED, SILENT = "died", "silent"  # what `verdict` makes of "running"


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands.

    Attributes: state: running, finished, failed, aborted (by RELION_JOB_ABORT_NOW) or interrupted (by a signal); phase: what it is doing;
    iteration: the one it works on; output: root of its files; particles_done, particles: of the phase, 0 where it does not count any; rate:
    particles a second, 0 where it is not known; seconds_left: until the phase ends, -1 where it is not known; memory_mb, peak_memory_mb: of
    the process; started, heartbeat: seconds since 1970; interval: seconds between two heartbeats; message: why it ended; process: which
    process of which machine it is; nothing_written: what is under its root, if anything, is of an earlier run, which this one has not begun to
    replace.
    """

    state: str
    phase: str
    iteration: int
    output: str
    particles_done: int
    particles: int
    rate: float
    seconds_left: float
    memory_mb: int
    peak_memory_mb: int
    started: float
    heartbeat: float
    interval: float
    message: str
    version: str
    process: ProcessRecord
    nothing_written: bool = False

    def verdict(self, now: float | None = None) -> str:
        """The state as a reader may believe it.

        A run that says "running" has `died` when its process is gone (it was killed, or the machine went down), and is `silent` when its heart
        has not beaten for six intervals: it is stopped, its machine hangs or has gone, or it runs where this cannot be looked up and has died.
        """
        if self.state != RUNNING:
            return self.state
        if self.process.alive() is False:
            return DIED
        age = (time.time() if now is None else now) - self.heartbeat
        return SILENT if age > 6 * self.interval else RUNNING


def write_status(path: str | Path, status: RunStatus) -> None:
    """Replace the file as a whole; it is not flushed to the disk, as it is written again in a few seconds. Raises InputError."""
    with without_waiting_for_the_disk():
        write_bytes(path, _text(status))


def write_last_status(path: str | Path, status: RunStatus) -> None:
    """How the run ended, also where a full disk has no room for another file: into the one that is there, or no file is left that says "running"."""
    try:
        write_status(path, status)
        return
    except InputError:
        file = Path(path)
    try:
        with file.open("r+b") as handle:  # its blocks are there already
            handle.write(_text(status))
            handle.truncate()
    except OSError:
        with suppress(OSError):  # a folder that is gone, or cannot be written to any more
            file.unlink(missing_ok=True)


def correct_last_status(path: str | Path, state: str, message: str, ended: bool = False) -> None:
    """Why a run of several processes ended, by one that knows it: the one that wrote the status was only told to end, or is gone.

    `ended`: that one may still be seen, or be on another machine, but the run has ended.
    """
    try:
        status = read_status(path)
    except InputError:
        return  # it ended before it wrote one
    if status.state in (RUNNING, INTERRUPTED) and (ended or status.process.alive() is False):
        write_last_status(Path(path) / NAME, replace(status, state=state, message=message))


def _text(status: RunStatus) -> bytes:
    return (json.dumps(asdict(status), indent=1) + "\n").encode()


def read_status(path: str | Path) -> RunStatus:
    """The status in a file, or in a job's directory. Raises InputError where there is none that can be read.

    `status.verdict()` says whether a run that claims to be running is.
    """
    file = Path(path) / NAME if Path(path).is_dir() else Path(path)
    try:
        values = json.loads(text_of(file, most=_MOST))
        process = ProcessRecord(**values.pop("process"))
        checked = {field.name: _checked(field, values[field.name]) for field in fields(RunStatus) if field.name in values}
        return RunStatus(**checked, process=process)
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}; the status of a run was expected there") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(f"{file}: this is no status of a run ({error})") from error


def _checked(field: Field[Any], value: object) -> Any:
    """A value of the kind that the field has (`field.type` is its name); ValueError for another, and for a number that is not finite."""
    kind, words = _KINDS[str(field.type)]
    fits = isinstance(value, kind) and isinstance(value, bool) == (kind is bool)
    if not fits or (isinstance(value, int | float) and not math.isfinite(value)):  # OverflowError for whole numbers beyond float64
        raise ValueError(f"{field.name} is {str(value)[:40]!r}, where {words} was expected")
    return value


def memory_in_use() -> tuple[int, int]:
    """(memory, its peak) of this process in bytes, what is resident; the first is 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        found = {name: 1024 * int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines) if name in ("VmRSS", "VmHWM")}
        return found["VmRSS"], found["VmHWM"]
    except (OSError, KeyError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return 0, peak if sys.platform == "darwin" else 1024 * peak
