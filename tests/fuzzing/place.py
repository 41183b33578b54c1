"""Where hostile files are read: a job's folder in memory, watched for whatever a reader may not do."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from aurefine import mrc

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PATHS = {"os.rename": 2, "os.remove": 1, "os.mkdir": 1, "os.rmdir": 1, "os.symlink": 2, "os.link": 2, "os.truncate": 1, "os.chmod": 1,
          "shutil.move": 2, "shutil.rmtree": 1}  # fmt: skip
_FORBIDDEN = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.kill", "subprocess.Popen", "socket.connect",
              "ctypes.dlopen")  # fmt: skip


class Workplace:
    """A folder in which the targets find the stack that the seeds name; nothing else may appear in it or beside it."""

    def __init__(self, folder: str | Path) -> None:
        self.root = Path(folder).resolve() / "project" / "job"
        self.root.mkdir(parents=True, exist_ok=True)
        mrc.write_stack(self.root / "stack.mrcs", np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32), 1.5)
        mrc.write_map(self.root / "map.mrc", np.random.default_rng(1).normal(size=(4, 4, 4)).astype(np.float32), 1.5)
        outside = self.root.parents[1] / "outside"
        outside.mkdir(exist_ok=True)
        if not (self.root / "link").is_symlink():
            (self.root / "link").symlink_to(outside)

    def put(self, name: str, data: bytes) -> str:
        """Write the file to be read; its path."""
        path = self.root / name
        path.write_bytes(data)
        return str(path)


def strays(place: Workplace) -> set[str]:
    """Files outside the job's folder, which no reader may make."""
    top = place.root.parents[1]
    return {str(path.relative_to(top)) for path in top.rglob("*") if path.is_file() and place.root not in path.parents}


def temporary() -> tempfile.TemporaryDirectory[str]:
    """A folder in memory where there is one: a million small files are written."""
    return tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)


class Watch:
    """Notes what Python does that no reader may: write outside `root`, unpickle, start programs, open connections."""

    def __init__(self) -> None:
        self.root = ""
        self.seen: list[str] = []

    def event(self, name: str, arguments: tuple[Any, ...]) -> None:
        if not self.root:
            return
        if name == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _WRITES and not isinstance(path, int):
                self._check(name, path)
        elif name in _PATHS:
            for path in arguments[: _PATHS[name]]:
                if name != "os.symlink" or path is arguments[1]:
                    self._check(name, path)
        elif name in _FORBIDDEN:
            self.seen.append(f"{name} {arguments}"[:200])

    def _check(self, name: str, path: Any) -> None:
        folder, file = os.path.split(os.path.abspath(os.fsdecode(path)))
        whole = os.path.join(os.path.realpath(folder), file)
        if not whole.startswith(self.root + os.sep):
            self.seen.append(f"{name} {whole}")


_WATCH = Watch()
_HOOKED: list[bool] = []


@contextmanager
def watched(place: Workplace) -> Iterator[list[str]]:
    """Inside, the list holds what was done outside the job's folder or must never be done; empty while all is well."""
    if not _HOOKED:
        sys.addaudithook(_WATCH.event)  # it stays as long as the process
        _HOOKED.append(True)
    _WATCH.seen = []
    kept, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # Python's own writing, of modules that are loaded on demand
    _WATCH.root = str(place.root)
    try:
        yield _WATCH.seen
    finally:
        _WATCH.root, sys.dont_write_bytecode = "", kept
