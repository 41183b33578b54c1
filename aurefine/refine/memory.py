"""Freed memory given back to the system between phases, on glibc (`large_arrays.keep_freed` keeps it between batches)."""

from __future__ import annotations

import os

from aurefine.large_arrays import glibc

_CHUNKS = 4  # from one giving back to the next
_PRODUCTS_KEPT = "32"  # compiled matrix products: an iteration has a handful of sizes that come again and again
_announced = [0]  # the largest block so far


def keep_few_products() -> None:
    """Before the first matrix product: oneDNN compiles code for each new size, and would keep that of 1,024, some 2 MB of address space each."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", _PRODUCTS_KEPT)


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


class Tidying:
    """Gives back what is free after every few of a half-set's chunks of particles, each of which calls `chunk_done`.

    Blocks that live as long as a chunk lie between those of a batch, whose sizes differ each time: the heap would grow by some 25 MB a chunk
    though no more of it is in use, 500 MB in an iteration of 100,000 particles. Taking pages anew costs no processor time that could be measured.
    """

    def __init__(self) -> None:
        self._chunks = 0

    def chunk_done(self) -> None:
        """One more chunk has been worked on."""
        self._chunks += 1
        if self._chunks % _CHUNKS == 0:
            give_back()
