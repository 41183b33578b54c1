"""When memory runs short: what says so, and work on particles that is done again in smaller parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from aurefine.errors import InputError
from aurefine.refine import memory, resume

CHUNK_PIXELS = 1_500_000  # Fourier pixels of prepared images held at a time (24 bytes each)
DENSE_SCORES = 8_000_000  # scores of the coarse pass held at a time (4 bytes each)
PAIRS = 4_000_000  # significant pairs of the coarse pass held at a time (48 bytes each while they are joined)
FINE_SCORES = 8_000_000  # scores of the fine pass held at a time (8 bytes each)
IMAGE_PIXELS = 1_000_000  # of whole images that are transformed at a time (some 60 bytes each): few enough for the cache
_FEWEST = 64  # images a chunk, while there is room
MOST_HALVED = 6

_SAYS_SHORT = (
    "not enough memory", "out of memory", "can't allocate memory", "cannot allocate memory", "unable to allocate", "alloc_failed",
    "could not create a primitive", "can't start new thread",  # oneDNN's matrix product; a thread's stack
)  # fmt: skip


@dataclass(eq=False)
class Batches:
    """How much of the E-step's work each half-set holds at a time; `halved` times smaller where memory is short.

    Both half-sets share one. `room` is how many times as large batches may be on their device. `in_turn`: the half-sets are maximised one after
    the other; `sums_in_turn`: their sums are made so, too; `stored`: those that are finished are in a file in `folder`. `copies`: as many threads at
    the most sum at a time, as each has its own sums (0: all do). `warn` is told when memory is short.
    """

    halved: int = 0
    in_turn: bool = False
    sums_in_turn: bool = False
    stored: bool = False
    folder: str = ""
    copies: int = 0
    warn: Callable[[str], None] = print

    def chunk(self, pixels: int, room: int = 1) -> int:
        """Images that are prepared at a time, of so many Fourier pixels each."""
        return max(1, _FEWEST >> self.halved, self._size(CHUNK_PIXELS, room) // pixels)

    def dense(self, room: int = 1) -> int:
        """Scores of the coarse pass."""
        return self._size(DENSE_SCORES, room)

    def pairs(self, room: int = 1) -> int:
        """Significant pairs of the coarse pass."""
        return self._size(PAIRS, room)

    def fine(self, room: int = 1) -> int:
        """Scores of the fine pass."""
        return self._size(FINE_SCORES, room)

    def images(self, box: int, room: int = 1) -> int:
        """Whole images that are transformed at a time."""
        return max(1, self._size(IMAGE_PIXELS, room) // box**2)

    def _size(self, whole: int, room: int) -> int:
        return room * whole >> self.halved

    def halve(self) -> None:
        """Half as much at a time from now on."""
        self.halved = min(self.halved + 1, MOST_HALVED)
        self.warn("memory is short: less is done at a time from now on, which takes longer")


    def of_halves(self, crew_map: Callable[..., list[Any]], work: Callable[..., Any], *arguments: Iterable[Any]) -> list[Any]:
        """crew_map(work, *arguments), one half-set after the other where memory is short: `work` leaves its arguments as they are."""
        if not self.in_turn:
            try:
                return crew_map(work, *arguments)
            except (MemoryError, RuntimeError) as error:
                if not is_shortage(error):
                    raise
            self.in_turn = True
            self.warn("memory is short: the half-sets are maximised one after the other from now on")
            recover()
        return crew_map(work, *arguments, apart=False)


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that memory is short, on the CPU or a GPU."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _SAYS_SHORT)


def recover() -> None:
    """Give back what the failed attempt has left."""
    memory.give_back()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@dataclass(eq=False)
class Attempt:
    """How far work on a list of particles has come: `done` of them are summed, in their order; `summing` while some are half summed."""

    done: int = 0
    summing: bool = False


def in_parts(work: Callable[[np.ndarray, Attempt], None], rows: np.ndarray, batches: Batches) -> None:
    """work(rows, attempt), and where memory is too short for it, what is left of the rows in two parts, with smaller batches.

    The error is raised where that cannot help: with one row, or in the midst of summing, which cannot be undone.
    """
    waiting = [rows]
    while waiting:
        part, attempt = waiting.pop(0), Attempt()
        short = False
        try:
            work(part, attempt)
        except (MemoryError, RuntimeError) as error:
            left = len(part) - attempt.done
            short = is_shortage(error) and not attempt.summing and (left > 1 or batches.halved < MOST_HALVED)
            if not short:
                raise
        if short:  # not before the error, which holds on to everything, is gone
            batches.halve()
            recover()
            rest = part[attempt.done :]
            middle = (len(rest) + 1) // 2
            waiting[:0] = [some for some in (rest[:middle], rest[middle:]) if len(some)]


@contextmanager
def explained(root: str) -> Iterator[None]:
    """Memory that is too short in spite of all is the user's to know, in one message (InputError)."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_shortage(error):
            raise
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"memory is too short for this run ({detail}). Take a machine with more, end other programs, or use --pad 1 or particles of a smaller "
            f"box. {resume.advice(root)}"
        ) from error
