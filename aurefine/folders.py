"""Folders for output, made where they are missing."""

from __future__ import annotations

import errno
from pathlib import Path

from aurefine.errors import InputError


def make(folder: str | Path, flag: str = "--o") -> Path:
    """Make a folder and those above it, where they are missing; InputError, naming the `flag` to choose another with, where that cannot be."""
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "a part of this name is a file" if error.errno in (errno.ENOTDIR, errno.EEXIST) else error.strerror
        raise InputError(f"{target}: the output folder cannot be made ({reason}); choose another one with {flag}") from error
    return target
