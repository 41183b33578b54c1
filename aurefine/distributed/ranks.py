"""The crew of many processes: each runs the loop, works on pieces of both half-sets, and hears from the first what is decided once.

Half-set 1 is maximised by rank 0, half-set 2 by rank 1. In the E-step a rank starts with one half-set (even ranks with the first, odd ones with
the second) and goes over to the other when nothing is left of its own: pieces are handed out by a counter in the common store and shrink towards
the end, so that all are done at about the same time, whatever they are held up by.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from aurefine.distributed import messages
from aurefine.distributed.messages import guarded
from aurefine.distributed.shared_images import Machine, SharedImages
from aurefine.distributed.sphere import Sphere
from aurefine.kernels import Accumulator
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
_SUMS = 3  # values of a voxel: real, imaginary, weight
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
        self._store, self._lanes = store, Lanes(threads)
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
            half = halves[self.rank]
            sphere = Sphere(half.h, half.radius)
            packed = torch.empty((sphere.voxels, _SUMS), device=half.data.device)
            sphere.pack(torch.view_as_real(half.data), packed[:, :2])
            sphere.pack(half.weight[..., None], packed[:, 2:])
            packed = packed.to(self._wire)
            guarded(dist.reduce, packed, 0, dist.ReduceOp.SUM, self._pair)
            if self.leads:
                packed = packed.to(half.data.device)
                sphere.unpack(packed[:, :2], torch.view_as_real(half.data))
                sphere.unpack(packed[:, 2:], half.weight[..., None])
        return halves[0]

    def once(self, work: Callable[[], Result]) -> Result:
        """Rank 0 works, all get the result."""
        return messages.broadcast(work() if self.leads else None, 0)

    # ------------------------------------------------------------------ the E-step
    def share_out(self, work: HalfWork, members: Sequence[np.ndarray], updates: Poses, apart: bool) -> tuple[HalfSums, HalfSums]:
        """Work on pieces of both half-sets until none is left; then add up all sums and spread all poses."""
        self._step, self._told, self._mine = self._step + 1, 0, []
        sums: list[HalfSums | None] = [None, None]
        if apart and self._lanes.count > 1:
            sums = list(self._lanes.map(lambda half: work(half, self._pieces(half, members[half])), range(2)))
        else:
            self._one_after_the_other(work, members, sums)
        whole = self._add_up(sums)
        self._spread(updates)
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

    def _one_after_the_other(self, work: HalfWork, members: Sequence[np.ndarray], sums: list[HalfSums | None]) -> None:
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
        if self._left(other, len(members[other])) * seconds / (1 + self._beside / 2) < _WORTH * (started - begun):
            return
        pieces = self._pieces(other, members[other])
        first, done = next(pieces, None), 0
        if first is not None:
            sums[other] = work(other, timed())

    def _bounds(self, count: int) -> np.ndarray:
        return piece_bounds(count, self._beside if self._lanes.count > 1 else max(1, self._beside // 2))

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

    # ------------------------------------------------------------------ sums and poses
    def _add_up(self, sums: Sequence[HalfSums | None]) -> tuple[HalfSums, HalfSums]:
        """The small sums everywhere, each accumulator at the rank that maximises its half-set, on the device that it was summed on."""
        like = self.once(lambda: _outline(sums[0]))
        small = torch.zeros((2, len(_flat(like))), dtype=torch.float64)
        touched = torch.zeros((self.size, 2), dtype=torch.int64)
        for half, each in enumerate(sums):
            if each is not None:
                small[half] = torch.from_numpy(_flat(each))
                touched[self.rank, half] = 1
        guarded(dist.all_reduce, small)
        guarded(dist.all_reduce, touched)
        whole = [_filled(like if each is None else each, small[half].numpy()) for half, each in enumerate(sums)]
        for half, each in enumerate(whole):
            if touched[:, half].sum() > 1:  # somebody else than the one who needs it has worked on it, too
                self._reduce(each.accumulator, half)
            if half != self.rank:
                each.accumulator.data = torch.empty(0)
        return whole[0], whole[1]

    def _reduce(self, accumulator: Accumulator, target: int) -> None:
        """The sum of all ranks' accumulators into that of rank `target`, which has worked on it: the sphere in use only."""
        radius = int(accumulator.r_max * accumulator.padding + 0.5)
        sphere = Sphere(radius + 1, radius)
        data = accumulator.data
        packed = torch.zeros((sphere.voxels, _SUMS), device=data.device if data.numel() else self._wire)
        if data.numel():  # this rank has worked on it
            sphere.pack(data[0], packed)
        packed = packed.to(self._wire)
        guarded(dist.reduce, packed, target)
        if self.rank == target:
            sphere.unpack(packed.to(data.device), data[0])

    def _spread(self, updates: Poses) -> None:
        """Every rank's new poses into the arrays of all."""
        names = [field.name for field in fields(Poses)]
        rows = np.concatenate([*self._mine, np.zeros(0, np.int64)])
        mine = np.column_stack([rows, *(getattr(updates, name)[rows] for name in names)]).astype(np.float64)
        counts = torch.zeros(self.size, dtype=torch.int64)
        counts[self.rank] = len(rows)
        guarded(dist.all_reduce, counts)
        padded = torch.zeros((int(counts.max()), mine.shape[1]), dtype=torch.float64)
        padded[: len(rows)] = torch.from_numpy(mine)
        every = [torch.empty_like(padded) for _ in range(self.size)]
        guarded(dist.all_gather, every, padded)
        for rank, theirs in enumerate(every):
            if rank != self.rank:
                _put(updates, names, theirs[: counts[rank]].numpy())


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


def _put(updates: Poses, names: Sequence[str], table: np.ndarray) -> None:
    """Rows of `_spread` into the arrays of `updates`."""
    rows, column = table[:, 0].astype(np.int64), 1
    for name in names:
        target = getattr(updates, name)
        width = target.shape[1] if target.ndim == 2 else 1
        values = table[:, column : column + width]
        target[rows] = values if target.ndim == 2 else values[:, 0]
        column += width


def _outline(sums: HalfSums | None) -> HalfSums:
    """The sums without the accumulator's values: what another rank needs to know their shapes."""
    assert sums is not None  # rank 0 always works on half-set 1
    return replace(sums, accumulator=replace(sums.accumulator, data=torch.empty(0)))


def _flat(sums: HalfSums) -> np.ndarray:
    """All but the accumulator, as one float64 vector."""
    return np.concatenate([np.ravel(value).astype(np.float64) for value in sums.small().values()])


def _filled(like: HalfSums, values: np.ndarray) -> HalfSums:
    """The sums of `_flat`; the accumulator is that of `like`."""
    given: dict[str, Any] = {"accumulator": Accumulator(like.accumulator.data, like.accumulator.r_max, like.accumulator.padding)}
    start = 0
    for name, value in like.small().items():
        shape = np.shape(value)
        size = int(np.prod(shape))
        part = values[start : start + size].reshape(shape)
        given[name] = part if shape else float(part)
        start += size
    return HalfSums(**given)
