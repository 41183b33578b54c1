"""Files that are either whole or absent: written under a temporary name, flushed to disk (see `without_waiting_for_the_disk`), then renamed."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import BinaryIO

from aurefine.errors import InputError

_REASONS = {
    errno.ENOSPC: "no space is left on the disk: free some space, or choose another output folder",
    errno.EDQUOT: "the disk quota is used up: free some space, or choose another output folder",
    errno.EFBIG: "the file would be larger than is allowed here: raise the limit (ulimit -f), or choose another output folder",
    errno.EACCES: "permission denied: choose a folder you may write to",
    errno.EROFS: "the file system is read-only: choose a folder you may write to",
    errno.ENOENT: "the folder does not exist: create it first",
}

TEMPORARY = re.compile(r"\.(.+)\.(\d{1,9})\.tmp")  # (name of the file, number of the process that writes it)

_waits_for_disk: ContextVar[bool] = ContextVar("waits_for_disk", default=True)


@contextmanager
def without_waiting_for_the_disk(wanted: bool = True) -> Iterator[None]:
    """Inside, files are still whole or absent for every reader, but a power cut in the next half minute may lose them.

    For files that a short command makes again: waiting until a map of 256 pixels is on the disk takes as long as filtering it.
    """
    token = _waits_for_disk.set(not wanted)
    try:
        yield
    finally:
        _waits_for_disk.reset(token)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open `path` for binary writing so that readers see the old file or the complete new one, never a part.

    Raises InputError, naming the file and the reason, when the disk is full, the folder is missing or may not be written; never OSError.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as handle:
            yield handle
            handle.flush()
            if _waits_for_disk.get():
                os.fsync(handle.fileno())
        os.replace(temporary, target)
        if _waits_for_disk.get():
            _flush_folder(target.parent)
    except OSError as error:
        raise InputError(f"cannot write {target}: {_reason(error)}") from error
    finally:
        with suppress(OSError):  # where there is no folder any more, or none that may be written to; what went wrong first is told
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a whole file atomically; errors as for `atomic_file`."""
    with atomic_file(path) as handle:
        handle.write(data)


def remove(path: str | Path) -> None:
    """Remove a file, if it is there. Raises InputError, naming it and the reason, where it cannot be removed."""
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot remove {path}: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    return _REASONS.get(error.errno or 0, error.strerror or str(error))


def _flush_folder(folder: Path) -> None:
    """Make the rename itself durable; a rename that only lives in the page cache is lost by a power cut."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot flush folders
            raise
    finally:
        os.close(descriptor)
