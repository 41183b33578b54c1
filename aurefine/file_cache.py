"""What was read of a file is kept until the file changes, so that a page that looks every few seconds costs nothing."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

Value = TypeVar("Value")
Key = tuple[str, int, int]


def stamp(path: Path) -> tuple[int, int]:
    """Changes whenever the file is written: time of the last change (ns) and size; zeros where there is none."""
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)


class FileCache(Generic[Value]):
    """The last `size` results of `read(path)`."""

    def __init__(self, read: Callable[[Path], Value], size: int) -> None:
        self._read = read
        self._size = size
        self._kept: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: Path) -> Value:
        """The result for the file as it is now."""
        key = (str(path), *stamp(path))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        value = self._read(path)
        with self._lock:
            self._kept[key] = value
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)
        return value
