"""The lock that keeps two programs from writing a project's pipeline at once: RELION's own, `.relion_lock/` (ALGORITHM.md 6.9)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aurefine.errors import InputError
from aurefine.process_record import ProcessRecord
from aurefine.regular_files import text_of

DIRECTORY = ".relion_lock"
FILE = "lock_default_pipeline.star"
WAIT_SECONDS = 120.0  # as long as RELION waits
_POLL_SECONDS = 0.1


@contextmanager
def project_lock(root: str | Path, purpose: str, wait_seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Hold the project's lock; waits for another program to give it back, and breaks the lock of an aurefine that has died.

    Raises InputError when the lock stays held (naming what it says and how to remove it), or may not be made.
    """
    folder = Path(root) / DIRECTORY
    _acquire(folder, wait_seconds)
    try:
        (folder / FILE).write_text(f"{purpose}\n{ProcessRecord.own().text()}")
        yield
    finally:
        _release(folder)


def _acquire(folder: Path, wait_seconds: float) -> None:
    end = time.monotonic() + wait_seconds
    warned = False
    while not _make(folder):
        if _holder_died(folder):
            _break(folder)
            continue
        if time.monotonic() > end:
            raise InputError(_message(folder, wait_seconds))
        if not warned:
            print(f" Waiting for {folder}, by which another program (RELION's GUI, perhaps) holds this project ...", flush=True)
            warned = True
        time.sleep(_POLL_SECONDS)


def _make(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return False
    except OSError as error:
        raise InputError(f"{folder}: this project cannot be locked ({error.strerror}); you need permission to write in it") from error
    return True


def _holder_died(folder: Path) -> bool:
    """Whether an aurefine of this machine, which is no more, left the lock behind."""
    try:
        record = ProcessRecord.parse(text_of(folder / FILE, "replace"))
    except OSError:
        return False
    return record is not None and record.alive() is False


def _break(folder: Path) -> None:
    """Move the lock aside first: of two programs that find it stale only one succeeds."""
    aside = folder.with_name(f"{DIRECTORY}.stale.{os.getpid()}")
    try:
        folder.rename(aside)
        if _holder_died(aside):
            _release(aside)
        else:  # another program broke the stale lock and made its own between the two looks
            aside.rename(folder)
    except OSError:
        return


def _release(folder: Path) -> None:
    (folder / FILE).unlink(missing_ok=True)
    try:
        folder.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{folder}: the project's lock cannot be removed ({error.strerror}); remove it by hand") from error


def _message(folder: Path, waited: float) -> str:
    try:
        held = text_of(folder / FILE, "replace").strip().splitlines()
        age = f"{(time.time() - (folder / FILE).stat().st_mtime) / 60:.0f} minutes old"
        holder = f" It is {age} and says: {held[0]!r}." if held else f" It is {age}."
    except OSError:
        holder = ""
    return (
        f"{folder}: another program has held this project for {waited:.0f} seconds.{holder} "
        f"Wait for it; or, if no RELION or aurefine works in this project any more, remove the lock: rm -r {folder}"
    )
