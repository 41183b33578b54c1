"""How freed memory is treated on glibc: kept between batches, given back between phases. Elsewhere the C library's own rules hold."""

from __future__ import annotations

import ctypes
import ctypes.util
from functools import lru_cache

_MMAP_THRESHOLD, _TRIM_THRESHOLD, _ARENA_MAX = -3, -1, -8  # parameters of mallopt
_LARGEST_KEPT = 32 << 20  # bytes, as much as glibc allows: larger blocks (volumes) come from the system and go back to it, batches stay below
_announced = [0]  # the largest block so far


@lru_cache(maxsize=1)
def _glibc() -> ctypes.CDLL | None:
    name = ctypes.util.find_library("c")
    library = ctypes.CDLL(name) if name else None
    return library if library is not None and hasattr(library, "malloc_trim") else None


def keep_freed() -> None:
    """Keep freed blocks: batches of the same size come again and again, and fresh pages cost more than the arithmetic on them."""
    library = _glibc()
    if library is not None:
        library.mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        library.mallopt(_ARENA_MAX, 1)  # one heap for all threads: what one has freed serves the other


def give_back() -> None:
    """Return what is free to the system: the next phase wants blocks of other sizes, and holes of the last one would add to its peak."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def make_room(size: int, always: bool = False) -> None:
    """Give back what is free if `size` (bytes) is more than was ever announced here: larger blocks do not fit into the holes of smaller ones.

    `always` does it in any case.
    """
    if always or size > _announced[0]:
        _announced[0] = max(size, _announced[0])
        give_back()
