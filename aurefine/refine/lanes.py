"""A lane for each half-set: until they are compared they have nothing to do with each other, so each has threads of its own.

Much of a step is not arithmetic but bookkeeping in one thread (sorting, decisions, small sums); with two lanes it is done for both halves at once.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import numba
import numpy as np
import torch

if TYPE_CHECKING:
    from aurefine.refine.backprojection import BackProjection
    from aurefine.refine.crew import HalfWork
    from aurefine.refine.half_sums import HalfSums
    from aurefine.refine.image_cache import Storage
    from aurefine.refine.state import Poses

Result = TypeVar("Result")


class _Stopped(Exception):
    """The other lane has failed, or the user wants to stop."""


@lru_cache(maxsize=1)
def _numba_serves_two_threads() -> bool:
    """Whether Numba has a threading layer that several threads may enter at once (its own last resort, "workqueue", ends the process then)."""
    for layer in ("tbbpool", "omppool"):
        try:
            importlib.import_module(f"numba.np.ufunc.{layer}")
        except ImportError:
            continue
        return numba.config.THREADING_LAYER != "workqueue"
    return False


class Lanes:
    """The crew of one process: runs work on both half-sets side by side, in half of the `threads` each; one after the other where that cannot be."""

    leads = writes = True
    rank = 0
    sharing = 1
    halves = 2

    @property
    def storage(self) -> Storage:
        """This process keeps the images."""
        from aurefine.refine.image_cache import Private

        return Private()

    def __init__(self, threads: int) -> None:
        self.count = 2 if threads > 1 and _numba_serves_two_threads() else 1
        self.threads_each = threads // self.count
        self._stop = threading.Event()
        self._busy = threading.Lock()
        self._pool = ThreadPoolExecutor(self.count, "half", self._enter) if self.count > 1 else None

    def _enter(self) -> None:
        """Both libraries keep the number of threads by calling thread."""
        numba.set_num_threads(self.threads_each)
        torch.set_num_threads(self.threads_each)

    def map(self, work: Callable[..., Result], *arguments: Iterable[Any], apart: bool = True) -> list[Result]:
        """[work(a, b, ...) of each half's arguments]; an error of one, or Ctrl-C, stops the other where it calls `check`.

        One after the other, in this thread, where they are not to be `apart` (both on one GPU, or memory is short).
        """
        if self._pool is None or not apart:
            return [work(*each) for each in zip(*arguments, strict=True)]
        with self._busy:
            running = [self._pool.submit(work, *each) for each in zip(*arguments, strict=True)]
            try:
                wait(running, return_when=FIRST_EXCEPTION)
            finally:
                self._stop.set()  # says nothing to those that are done
                wait(running)
                self._stop.clear()
        errors = [error for error in (each.exception() for each in running) if error is not None]
        for error in sorted(errors, key=lambda error: isinstance(error, _Stopped)):
            raise error
        return [each.result() for each in running]

    side_by_side = map

    def everywhere(self, values: Sequence[Result]) -> list[Result]:
        """The values themselves: there is one process."""
        return list(values)

    def together(self, work: Callable[..., Result], values: Sequence[Any]) -> Result:
        """work(value of half-set 1, value of half-set 2)."""
        return work(*values)

    def added(self, halves: Sequence[BackProjection]) -> BackProjection:
        """The second half added to the first."""
        first, second = halves
        first.data += second.data.to(first.data.device)
        first.weight += second.weight.to(first.data.device)
        return first

    def once(self, work: Callable[[], Result]) -> Result:
        """work()."""
        return work()

    def largest_piece(self, count: int) -> int:
        """All of them."""
        return count

    def share_out(self, work: HalfWork, members: Sequence[np.ndarray], updates: Poses, apart: bool, large: bool) -> tuple[HalfSums, HalfSums]:
        """The E-step: each half-set in one piece."""
        first, second = self.map(work, range(2), [[mine] for mine in members], apart=apart)
        return first, second

    def finished(self, count: int) -> int:
        """The same count: nobody else does any."""
        return count

    def heard(self, reasons: Sequence[str]) -> list[str]:
        """Nothing: there is nobody else."""
        return []

    def is_first(self, name: str) -> bool:
        """There is nobody else."""
        return True

    def check(self) -> None:
        """Called by the work, batch by batch: leaves it when the other half has failed."""
        if self._stop.is_set():
            raise _Stopped


@lru_cache(maxsize=4)
def lanes_of(threads: int) -> Lanes:
    """The lanes of so many threads: kept, as threads that are started anew would build their teams anew."""
    return Lanes(threads)
