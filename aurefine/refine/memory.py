"""Freed memory given back to the system between phases, on glibc (`large_arrays.keep_freed` keeps it between batches)."""

from __future__ import annotations

from aurefine.large_arrays import glibc

_announced = [0]  # the largest block so far


def give_back() -> None:
    """Return what is free to the system: the next phase wants blocks of other sizes, and holes of the last one would add to its peak."""
    library = glibc()
    if library is not None:
        library.malloc_trim(0)


def make_room(size: int, always: bool = False) -> None:
    """Give back what is free if `size` (bytes) is more than was ever announced here: larger blocks do not fit into the holes of smaller ones.

    `always` does it in any case.
    """
    if always or size > _announced[0]:
        _announced[0] = max(size, _announced[0])
        give_back()
