"""Memory as the system gives it: large arrays of zeros on pages of 2 MB, cleared when they are first touched; blocks kept for the next batch."""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import resource
import tempfile
from functools import lru_cache

import numpy as np

_LEAST = 4 << 20  # bytes; below, pages of 2 MB would waste more than they save
_MMAP_THRESHOLD, _TRIM_THRESHOLD, _ARENA_MAX = -3, -1, -8  # parameters of mallopt
_LARGEST_KEPT = 32 << 20  # bytes, as much as glibc allows: larger blocks (volumes) come from the system and go back to it, batches stay below
_LARGEST_KEPT_BOUNDED = 1 << 20  # bytes, where address space is short


def zeros(shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    """Like np.zeros; numpy itself asks for large pages for arrays that are not cleared only."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < _LEAST or not hasattr(mmap, "MADV_HUGEPAGE"):
        return np.zeros(shape, dtype)
    try:
        block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"no room for an array of {size >> 20} MB") from error
    block.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(block, dtype).reshape(shape)


def zeros_on(folder: str, shape: tuple[int, ...]) -> np.ndarray:
    """float32 zeros in a file in `folder` that has no name and ends with the array; in memory where the folder is "".

    The system keeps of it in memory what there is room for. Raises MemoryError where the disk has no room.
    """
    if not folder:
        return zeros(shape)
    size = 4 * math.prod(shape)
    try:
        with tempfile.TemporaryFile(prefix="aurefine_", dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)  # else a disk that is full would end the process when the array is written to
            block = mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise MemoryError(f"no room for sums of {size >> 20} MB in {folder}: {error.strerror}") from error
    return np.frombuffer(block, np.float32).reshape(shape)


@lru_cache(maxsize=1)
def glibc() -> ctypes.CDLL | None:
    """The C library of this process, where it is glibc."""
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") else None


def keep_freed() -> None:
    """Keep freed blocks: batches of the same size come again and again, and fresh pages cost more than the arithmetic on them.

    Where `ulimit -v` bounds the address space only small blocks are kept: holes between large ones count for it, even without pages in them.
    """
    library = glibc()
    if library is not None:
        bounded = resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
        library.mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT_BOUNDED if bounded else _LARGEST_KEPT)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        library.mallopt(_ARENA_MAX, 1)  # one heap for all threads: what one has freed serves the other
