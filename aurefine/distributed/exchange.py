"""Sums and poses between processes: of volumes only the sphere in use travels, everything small goes to all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from aurefine.distributed import messages
from aurefine.distributed.messages import guarded
from aurefine.distributed.sphere import Sphere
from aurefine.kernels import Accumulator
from aurefine.refine.backprojection import BackProjection
from aurefine.refine.half_sums import HalfSums
from aurefine.refine.state import Poses

_SUMS = 3  # values of a voxel: real, imaginary, weight


def add_up(sums: Sequence[HalfSums | None], wire: torch.device) -> tuple[HalfSums, HalfSums]:
    """The small sums of both half-sets everywhere, each accumulator at the rank that maximises its half-set, on the device that it was summed on.

    `sums` are this rank's, None for a half-set that it has not worked on; on the device `wire` they travel.
    """
    rank, size = dist.get_rank(), dist.get_world_size()
    like = messages.broadcast(_outline(sums[0]) if rank == 0 else None, 0)
    small = torch.zeros((2, len(_flat(like))), dtype=torch.float64)
    touched = torch.zeros((size, 2), dtype=torch.int64)
    for half, each in enumerate(sums):
        if each is not None:
            small[half] = torch.from_numpy(_flat(each))
            touched[rank, half] = 1
    guarded(dist.all_reduce, small)
    guarded(dist.all_reduce, touched)
    whole = [_filled(like if each is None else each, small[half].numpy()) for half, each in enumerate(sums)]
    for half, each in enumerate(whole):
        if touched[:, half].sum() > 1:  # somebody else than the one who needs it has worked on it, too
            _reduce(each.accumulator, half, wire)
        if half != rank:
            each.accumulator.data = torch.empty(0)
    return whole[0], whole[1]


def add_halves(half: BackProjection, wire: torch.device, pair: dist.ProcessGroup) -> None:
    """Called by the `pair` of ranks 0 and 1 with the sums of their half-sets: those of rank 1 are added to those of rank 0, the sphere in use."""
    sphere = Sphere(half.h, half.radius)
    packed = torch.empty((sphere.voxels, _SUMS), device=half.data.device)
    sphere.pack(torch.view_as_real(half.data), packed[:, :2])
    sphere.pack(half.weight[..., None], packed[:, 2:])
    packed = packed.to(wire)
    guarded(dist.reduce, packed, 0, dist.ReduceOp.SUM, pair)
    if dist.get_rank() == 0:
        packed = packed.to(half.data.device)
        sphere.unpack(packed[:, :2], torch.view_as_real(half.data))
        sphere.unpack(packed[:, 2:], half.weight[..., None])


def spread(rows: np.ndarray, updates: Poses) -> None:
    """Every rank's new poses, here those of `rows`, into the arrays of all."""
    own = dist.get_rank()
    names = [field.name for field in fields(Poses)]
    mine = np.column_stack([rows, *(getattr(updates, name)[rows] for name in names)]).astype(np.float64)
    counts = torch.zeros(dist.get_world_size(), dtype=torch.int64)
    counts[own] = len(rows)
    guarded(dist.all_reduce, counts)
    padded = torch.zeros((int(counts.max()), mine.shape[1]), dtype=torch.float64)
    padded[: len(rows)] = torch.from_numpy(mine)
    every = [torch.empty_like(padded) for _ in counts]
    guarded(dist.all_gather, every, padded)
    for rank, theirs in enumerate(every):
        if rank != own:
            _put(updates, names, theirs[: counts[rank]].numpy())


def _reduce(accumulator: Accumulator, target: int, wire: torch.device) -> None:
    """The sum of all ranks' accumulators into that of rank `target`, which has worked on it: the sphere in use only."""
    radius = int(accumulator.r_max * accumulator.padding + 0.5)
    sphere = Sphere(radius + 1, radius)
    data = accumulator.data
    packed = torch.zeros((sphere.voxels, _SUMS), device=data.device if data.numel() else wire)
    if data.numel():  # this rank has worked on it
        sphere.pack(data[0], packed)
    packed = packed.to(wire)
    guarded(dist.reduce, packed, target)
    if dist.get_rank() == target:
        sphere.unpack(packed.to(data.device), data[0])


def _put(updates: Poses, names: Sequence[str], table: np.ndarray) -> None:
    """Rows of `spread` into the arrays of `updates`."""
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
