"""The crew of many processes: each runs the loop, works on pieces of both half-sets, and hears from the first what is decided once.

Half-set 1 is maximised by rank 0, half-set 2 by rank 1. In the E-step a rank starts with one half-set (even ranks with the first, odd ones with
the second) and goes over to the other when nothing is left of its own: pieces are handed out by a counter in the common store and shrink towards
the end, so that all are done at about the same time, whatever they are held up by. Where volumes are large and as many ranks of a machine begin
with the first half-set as with the second, none goes over: its sums would double what a process needs.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from aurefine.distributed import exchange, messages
from aurefine.distributed.messages import guarded
from aurefine.distributed.shared_images import Machine, SharedImages
from aurefine.refine.backprojection import BackProjection
from aurefine.refine.crew import HalfWork
from aurefine.refine.half_sums import HalfSums
from aurefine.refine.image_cache import Private, Storage
from aurefine.refine.lanes import Lanes
from aurefine.refine.state import Poses

Result = TypeVar("Result")

_SHARE, _LEAST = 0.5, 0.02  # of what is left for each rank goes into its next piece; but no less than this part of a rank's work
_SHARE_ALONE, _LEAST_ALONE = 0.7, 0.06  # the same where one rank works on a half-set: pieces cost, and only its tail is there to be helped with
_FEWEST = 200  # particles of a piece: what is scored together shares projections
_WORTH = 3.0  # going over to the other half-set must save so many times what its start costs


class Ranks:
    """One of `dist.get_world_size()` processes; `store` counts for all, `threads` are this one's.

    `wire` is the device between which large sums travel, wherever they are used: a GPU where all processes have one of their own, else the host.
    `storage` keeps the images, of this process or of all on its machine, which are `sharing`.
    """

    def __init__(
        self, store: dist.Store, threads: int, wire: torch.device | None = None, storage: Storage | None = None, sharing: int = 1
    ) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.leads, self.writes = self.rank == 0, self.rank == 1
        self.storage = storage or Private()
        machine = storage.machine if isinstance(storage, SharedImages) else Machine(0, 1, list(range(self.size)))
        self._machine, self._beside = machine.number, len(machine.ranks)  # pieces are shared out among the processes of a machine
        self._machines = machine.count
        self._store, self._lanes = store, Lanes(threads)
        balanced = 2 * sum(rank % 2 for rank in machine.ranks) == self._beside
        self.halves = 1 if balanced and self._lanes.count == 1 else 2
        self._wire = wire or torch.device("cpu")
        self._pair = guarded(dist.new_group, [0, 1])  # those who maximise a half-set
        self.sharing = sharing
        self._step, self._told = 0, 0
        self._mine: list[np.ndarray] = []  # particles done in this step

    @property
    def count(self) -> int:
        """Half-sets that are worked on side by side."""
        return self._lanes.count

    @property
    def threads_each(self) -> int:
        """Threads of a lane: both half-sets are worked on side by side where there is more than one thread."""
        return self._lanes.threads_each

    # ------------------------------------------------------------------ one half-set, both, or all
    def map(self, work: Callable[..., Result], *arguments: Iterable[Any], apart: bool = True) -> list[Result]:
        """The half-set that is this rank's, one at the most; None for the others."""
        every = zip(*arguments, strict=True)
        return [work(*each) if half == self.rank else None for half, each in enumerate(every)]  # type: ignore[misc]

    def side_by_side(self, work: Callable[..., Result], *arguments: Iterable[Any]) -> list[Result]:
        """In this process's own threads."""
        return self._lanes.map(work, *arguments)

    def everywhere(self, values: Sequence[Result]) -> list[Result]:
        """Both half-sets' values, from where they were made to everybody."""
        return [messages.broadcast(value, half) for half, value in enumerate(values)]

    def together(self, work: Callable[..., Result], values: Sequence[Any]) -> Result:
        """Rank 1 sends its value to rank 0, which works on both."""
        if self.rank == 1:
            messages.send(values[1], 0)
        return self.once(lambda: work(values[0], messages.receive(1)))

    def added(self, halves: Sequence[BackProjection]) -> BackProjection:
        """Rank 1's sums are added to those of rank 0, the sphere in use."""
        if self.rank < 2:
            exchange.add_halves(halves[self.rank], self._wire, self._pair)
        return halves[0]

    def once(self, work: Callable[[], Result]) -> Result:
        """Rank 0 works, all get the result."""
        return messages.broadcast(work() if self.leads else None, 0)

    # ------------------------------------------------------------------ the E-step
    def largest_piece(self, count: int) -> int:
        """The largest of those that this machine's processes share out."""
        return int(np.diff(self._bounds(-(-count // self._machines))).max(initial=0))

    def share_out(self, work: HalfWork, members: Sequence[np.ndarray], updates: Poses, apart: bool, large: bool) -> tuple[HalfSums, HalfSums]:
        """Work on pieces of both half-sets until none is left; then add up all sums and spread all poses."""
        self._step, self._told, self._mine = self._step + 1, 0, []
        sums: list[HalfSums | None] = [None, None]
        if apart and self._lanes.count > 1:
            sums = list(self._lanes.map(lambda half: work(half, self._pieces(half, members[half])), range(2)))
        else:
            self._one_after_the_other(work, members, sums, may_go_over=not large or self.halves == 2)
        whole = exchange.add_up(sums, self._wire)
        exchange.spread(np.concatenate([*self._mine, np.zeros(0, np.int64)]), updates)
        return whole

    def finished(self, count: int) -> int:
        """Counts for all; only the first process shows it."""
        total = guarded(self._store.add, f"done/{self._step}", count)
        new, self._told = total - self._told, total
        return new

    def heard(self, reasons: Sequence[str]) -> list[str]:
        """For the first process: the warnings of the others, with their ranks; those of its own are known."""
        every: list[Any] = [None] * self.size
        guarded(dist.gather_object, list(reasons), every if self.leads else None)
        if not self.leads:
            return []
        found: dict[str, list[str]] = {}
        for rank in range(1, self.size):
            for reason in every[rank]:
                found.setdefault(reason, []).append(str(rank))
        return [f"rank {', '.join(ranks)}: {reason}" for reason, ranks in found.items() if reason not in every[0]]

    def is_first(self, name: str) -> bool:
        """Asks the common store."""
        return bool(guarded(self._store.add, f"first/{name}", 1) == 1)

    def check(self) -> None:
        """Leaves the work when the other half-set's lane has failed (other processes end this one: watch.py)."""
        self._lanes.check()

    def _one_after_the_other(self, work: HalfWork, members: Sequence[np.ndarray], sums: list[HalfSums | None], may_go_over: bool) -> None:
        """Our own half-set, then the other one where helping there is worth its start."""
        own, other = self.rank % 2, 1 - self.rank % 2
        pieces = self._pieces(own, members[own])
        first = next(pieces, None)
        begun, done = time.monotonic(), 0
        started = begun

        def timed() -> Iterator[np.ndarray]:
            nonlocal started, done
            started = time.monotonic()
            for piece in itertools.chain([] if first is None else [first], pieces):
                done += len(piece)
                yield piece

        if first is not None or self.rank < 2:  # those who maximise a half-set need its sums in any case
            sums[own] = work(own, timed())
        seconds = (time.monotonic() - started) / max(done, 1)
        if not may_go_over or self._left(other, len(members[other])) * seconds / (1 + self._beside / 2) < _WORTH * (started - begun):
            return
        pieces = self._pieces(other, members[other])
        first, done = next(pieces, None), 0
        if first is not None:
            sums[other] = work(other, timed())

    def _bounds(self, count: int) -> np.ndarray:
        return piece_bounds(count, self._beside if self._lanes.count > 1 else (self._beside + 1) // 2)

    def _pieces(self, half: int, members: np.ndarray) -> Iterator[np.ndarray]:
        """The pieces of a half-set that this rank takes."""
        bounds = self._bounds(len(members))
        while True:
            number = guarded(self._store.add, self._key(half), 1) - 1
            if number >= len(bounds) - 1:
                return
            piece = members[bounds[number] : bounds[number + 1]]
            self._mine.append(piece)
            yield piece

    def _left(self, half: int, count: int) -> int:
        """Particles of a half-set that nobody has taken yet."""
        bounds = self._bounds(count)
        return count - int(bounds[min(guarded(self._store.add, self._key(half), 0), len(bounds) - 1)])

    def _key(self, half: int) -> str:
        return f"piece/{self._step}/{self._machine}/{half}"


def piece_bounds(count: int, workers: int) -> np.ndarray:
    """int64 [pieces + 1]: where the pieces of `count` particles begin. Each is a part of what is left for one of `workers`, but not too small."""
    share, part = (_SHARE, _LEAST) if workers > 1 else (_SHARE_ALONE, _LEAST_ALONE)
    least = max(_FEWEST, int(part * count / workers))
    bounds = [0]
    while bounds[-1] < count:
        left = count - bounds[-1]
        size = max(least, int(share * left / workers))
        bounds.append(bounds[-1] + size if left - size >= least else count)
    return np.array(bounds, np.int64)
