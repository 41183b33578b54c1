"""How freed memory is treated on glibc: kept between batches, given back between phases. Elsewhere the C library's own rules hold."""

from __future__ import annotations

import ctypes
import ctypes.util
from functools import lru_cache

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # parameters of mallopt
LARGEST_KEPT = 32 << 20  # bytes, as much as glibc allows: larger blocks (volumes) come from the system and go back to it, batches stay below
_HUGE_PAGE, _MADV_HUGEPAGE = 2 << 20, 14
_HEAP = 2 << 30  # bytes of address space (not memory) prepared for large pages
_announced = [0]  # the largest block so far


@lru_cache(maxsize=1)
def _glibc() -> ctypes.CDLL | None:
    name = ctypes.util.find_library("c")
    library = ctypes.CDLL(name) if name else None
    if library is None or not hasattr(library, "malloc_trim"):
        return None
    library.malloc.restype = ctypes.c_void_p
    library.malloc.argtypes = [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return library


def keep_freed() -> None:
    """Keep freed blocks: batches of the same size come again and again, and fresh pages cost more than the arithmetic on them."""
    library = _glibc()
    if library is not None:
        library.mallopt(_MMAP_THRESHOLD, LARGEST_KEPT)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        _ask_for_large_pages(library)


def give_back() -> None:
    """Return what is free to the system: the next phase wants blocks of other sizes, and holes of the last one would add to its peak."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)
        _ask_for_large_pages(library)


def _ask_for_large_pages(library: ctypes.CDLL) -> None:
    """Let the heap grow into pages of 2 MB: first touches and scattered reads are then cheaper. Nothing is used by this but addresses."""
    start = library.malloc(_HEAP)
    if start:  # where address space is limited, do without
        first = -(-start // _HUGE_PAGE) * _HUGE_PAGE
        library.madvise(first, start + _HEAP - first, _MADV_HUGEPAGE)
        library.free(start)


def make_room(size: int, always: bool = False) -> None:
    """Give back what is free if `size` (bytes) is more than was ever announced here: larger blocks do not fit into the holes of smaller ones.

    `always` does it in any case.
    """
    if always or size > _announced[0]:
        _announced[0] = max(size, _announced[0])
        give_back()
