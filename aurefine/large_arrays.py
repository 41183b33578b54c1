"""Large arrays of zeros on pages of 2 MB, which the system clears when they are first touched: nobody else has to."""

from __future__ import annotations

import math
import mmap

import numpy as np

_LEAST = 4 << 20  # bytes; below, pages of 2 MB would waste more than they save


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
