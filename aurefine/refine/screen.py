"""Screening before the coarse pass: orientations compared at half the frequencies, and those near the best one that are worth all of them.

The score at half the frequencies is a likelihood too, so the true orientation falls `MARGIN` below the best with a probability of about
e^-MARGIN. With strong signal it is not noise that decides but what falls between two points of the grid, which grows with the signal:
hence the second rule, `SHARE` of the best one's lead over the average. (An eighth of the orientations, one grid order coarser, would be
cheaper still to screen, but loses too much between its points: 5 to 14 % of the poses then changed on the real set, here 0.1 to 0.5 %.)
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit, prange

from aurefine.refine import select

FREQUENCIES = 0.5  # share of the coarse pass's frequencies
MARGIN = 14.0  # log-likelihood
SHARE = 0.3
_SPARSE = 16  # a table of all values is not worth its memory when fewer than one in so many occurs
_EXCLUDED = np.float32(-1e29)  # scores below stand for what a prior forbids


def distinct(index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(distinct values sorted, position of each entry among them int32), like np.unique; by counting where the range is not far larger."""
    span = int(index.max(initial=0)) + 1
    if span > _SPARSE * len(index):
        used, place = np.unique(index, return_inverse=True)
        return used, place.astype(np.int32)
    seen = np.zeros(span, bool)
    seen[index] = True
    used = np.flatnonzero(seen)
    place = np.empty(span, np.int32)
    place[used] = np.arange(len(used), dtype=np.int32)
    return used, place[index]


def best_over_shifts(cross: torch.Tensor, half_power: np.ndarray, log_rotation: np.ndarray, log_offset: np.ndarray) -> np.ndarray:
    """float32 [b, r]: the largest over t of cross[b, t, r] + log_offset[b, t], with log_rotation[r] - half_power[b, r].

    Args: cross float32 or bfloat16 [b, t, r]; the others float32.
    """
    best = np.empty(half_power.shape, np.float32)
    if cross.dtype == torch.bfloat16:
        _best_of_rounded(cross.view(torch.uint16).numpy(), half_power, log_rotation, log_offset, best)
    else:
        _best_over_shifts(cross.numpy(), half_power, log_rotation, log_offset, best)
    return best


@njit(parallel=True, cache=True, fastmath=True)
def _best_over_shifts(cross, half_power, log_rotation, log_offset, best):
    particles, shifts, rotations = cross.shape
    for i in prange(particles):
        row = best[i]
        row[:] = np.float32(-1e38)
        for t in range(shifts):
            for r in range(rotations):
                row[r] = max(row[r], cross[i, t, r] + log_offset[i, t])
        for r in range(rotations):
            row[r] += log_rotation[r] - half_power[i, r]


@njit(parallel=True, cache=True, fastmath=True)
def _best_of_rounded(cross, half_power, log_rotation, log_offset, best):
    """The same for bfloat16 numbers, given as uint16: they are the upper halves of float32 numbers."""
    particles, shifts, rotations = cross.shape
    for i in prange(particles):
        row, bits = best[i], np.empty(rotations, np.uint32)
        values = bits.view(np.float32)
        row[:] = np.float32(-1e38)
        for t in range(shifts):
            for r in range(rotations):
                bits[r] = np.uint32(cross[i, t, r]) << np.uint32(16)
            for r in range(rotations):
                row[r] = max(row[r], values[r] + log_offset[i, t])
        for r in range(rotations):
            row[r] += log_rotation[r] - half_power[i, r]


@njit(cache=True)
def _floor(values, margin, share):
    """The score from which on orientations are worth a full comparison."""
    top, total, count = np.float32(-1e38), 0.0, 0
    for value in values:
        top = max(top, value)
        if value > _EXCLUDED:
            total += value
            count += 1
    lead = share * (top - total / max(count, 1))
    return max(np.float32(top - (lead if lead > margin else margin)), _EXCLUDED)


@njit(parallel=True, cache=True)
def _floors(values, ptr, margin, share, floor, count):
    for i in prange(len(ptr) - 1):
        floor[i] = _floor(values[ptr[i] : ptr[i + 1]], margin, share)
        for k in range(ptr[i], ptr[i + 1]):
            count[i] += values[k] >= floor[i]


def near_best(values: np.ndarray, ptr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(ptr int64 [n + 1], positions int64 in the flat `values`) of the entries near the best of their particle, particle by particle.

    Args: values float32 flat scores; ptr int64 [n + 1], particle i's entries are values[ptr[i] : ptr[i + 1]].
    """
    floor, count = np.empty(len(ptr) - 1, np.float32), np.zeros(len(ptr) - 1, np.int64)
    _floors(values, ptr, MARGIN, SHARE, floor, count)
    index, out_ptr = select.at_least(values, ptr, floor, count)
    return out_ptr, index + np.repeat(ptr[:-1], count)
