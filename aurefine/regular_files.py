"""Only regular files are opened to be read: a pipe keeps its reader waiting without end, and a device has no end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def refuse_others(path: str | Path) -> None:
    """OSError for a pipe, a device or a socket, and for what is not there; a folder says itself that it is no file."""
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "a pipe or a device, where a regular file was expected", str(path))


def regular(path: str, flags: int) -> int:
    """The opener that makes `open(path, opener=regular)` raise OSError for what is no regular file."""
    refuse_others(path)  # before it is opened: that alone would wait for who writes into the pipe
    return os.open(path, flags)


def text_of(path: str | Path, errors: str = "strict", most: int = -1) -> str:
    """The text of a regular file, or its first `most` characters; raises OSError, and UnicodeDecodeError where `errors` is strict."""
    with open(path, encoding="utf-8", errors=errors, opener=regular) as file:
        return file.read(most)
