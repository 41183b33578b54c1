"""Which process runs a job: enough to tell later, on the same machine, whether it is still alive."""

from __future__ import annotations

import json
import os
import platform
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from aurefine.atomic import TEMPORARY, remove, write_bytes
from aurefine.regular_files import text_of

FILE = ".aurefine_process"
_LOADED = time.time()


@dataclass(frozen=True)
class ProcessRecord:
    """A process by machine, number and start: numbers are used again, starts are not (`start` is "" where the system does not tell).

    `namespace` is the one in which that is its number (Linux): a container has its own; "" where it is not known.
    """

    host: str
    boot: str
    pid: int
    start: str
    namespace: str = ""

    def __post_init__(self) -> None:
        """TypeError for a record, read from a file, that holds something else."""
        texts = (self.host, self.boot, self.start, self.namespace)
        if not (isinstance(self.pid, int) and 0 < self.pid < 1 << 31 and all(isinstance(text, str) for text in texts)):
            raise TypeError(f"no record of a process: {self.host!r}, {self.boot!r}, {self.pid!r}, {self.start!r}")

    @staticmethod
    def of(pid: int) -> ProcessRecord:
        """The record of a process of this machine."""
        return ProcessRecord(platform.node(), _boot(), pid, _start(pid), _namespace())

    @staticmethod
    def own() -> ProcessRecord:
        """The record of this process."""
        return ProcessRecord.of(os.getpid())

    @staticmethod
    def parse(text: str) -> ProcessRecord | None:
        """The record in the last line of `text`; None where there is none."""
        lines = text.strip().splitlines()
        try:
            return ProcessRecord(**json.loads(lines[-1])) if lines else None
        except (ValueError, TypeError, RecursionError):
            return None

    @staticmethod
    def load(directory: str | Path) -> ProcessRecord | None:
        """The record that `save` left in a job's directory."""
        try:
            return ProcessRecord.parse(text_of(Path(directory) / FILE, "replace"))
        except OSError:
            return None

    def text(self) -> str:
        """One line that `parse` reads."""
        return json.dumps(asdict(self)) + "\n"

    def save(self, directory: str | Path) -> None:
        """Leave the record in a job's directory."""
        write_bytes(Path(directory) / FILE, self.text().encode())

    def alive(self) -> bool | None:
        """Whether the process runs; None where that cannot be told from here (another machine, or another container of this one)."""
        if self.host != platform.node():
            return None
        if self.boot != _boot():
            return False
        if self.namespace and self.namespace != _namespace():
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True  # somebody else's process of that number
        return _start(self.pid) == self.start and not _is_zombie(self.pid)


def remove_abandoned(folder: Path, names: re.Pattern[str]) -> None:
    """Remove what processes of this machine that are gone had begun to write (atomic.py) of files of these names."""
    for path in folder.glob(".*.tmp"):
        match = TEMPORARY.fullmatch(path.name)
        if match and names.fullmatch(match[1]) and ProcessRecord.of(int(match[2])).alive() is False:
            remove(path)


def began() -> float:
    """When this process began, in seconds since 1970; where the system does not tell, when it loaded this."""
    start = _start(os.getpid())
    if not start:
        return _LOADED
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - int(start) / os.sysconf("SC_CLK_TCK"))


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _stat(pid: int) -> list[str]:
    """State and what follows it in /proc/PID/stat; empty where there is no such file."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _start(pid: int) -> str:
    fields = _stat(pid)
    return fields[19] if len(fields) > 19 else ""


def _is_zombie(pid: int) -> bool:
    return _stat(pid)[:1] == ["Z"]
