"""Screening a global search: all orientations at half the frequencies first, and those near the best one go on to the lists of the coarse pass.

The rule is that of `kernels.Screening`. (An eighth of the orientations, one grid order coarser, would be cheaper still to screen, but loses too
much between its points: 5 to 14 % of the poses then changed on the real set, here 0.2 to 0.4 %.)
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit, prange

from aurefine.kernels.cpu_score import floor_of
from aurefine.refine import select

FREQUENCIES = 0.5  # share of the coarse pass's frequencies
MARGIN = 20.0  # log-likelihood
SHARE = 0.4
_SPARSE = 16  # a table of all values is not worth its memory when fewer than one in so many occurs


def every_second(shifts: np.ndarray, step: float) -> np.ndarray:
    """Rows of the shifts that a screening compares: every second one along both axes.

    At half the frequencies a shift twice as far from the next grid point costs what the coarse pass accepts at all of them.

    Args: shifts float [t, 2] of a square grid of that `step`, (0, 0) among them.
    """
    return np.flatnonzero((np.rint(shifts / step).astype(int) % 2 == 0).all(1))


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


def best_over_shifts(
    products: torch.Tensor, half_power: np.ndarray, log_rotation: np.ndarray, log_offset: np.ndarray, half: int
) -> np.ndarray:
    """float32 [b, r]: each rotation's score at its best shift; arguments as for `select.dense_scores`, products float32 or bfloat16."""
    best = np.empty((len(half_power), len(log_rotation)), np.float32)
    if products.dtype == torch.bfloat16:
        _best_of_rounded(products.view(torch.uint16).numpy(), half_power, log_rotation, log_offset, half, best)
    else:
        _best_over_shifts(products.numpy(), half_power, log_rotation, log_offset, half, best)
    return best


@njit(cache=True, fastmath=True, inline="always")
def _finish_best(plus, minus, half_power, log_rotation, half, best):
    for first in range(0, len(half_power), half):
        for k in range(half):
            place = 2 * first + k
            best[place] = plus[first + k] + (log_rotation[place] - half_power[first + k])
            best[place + half] = minus[first + k] + (log_rotation[place + half] - half_power[first + k])


@njit(nogil=True, parallel=True, cache=True, fastmath=True)
def _best_over_shifts(products, half_power, log_rotation, log_offset, half, best):
    particles, shifts = log_offset.shape
    rotations = half_power.shape[1]
    for i in prange(particles):
        plus, minus = np.full(rotations, -1e38, np.float32), np.full(rotations, -1e38, np.float32)
        for t in range(shifts):
            same, crossed, offset = products[0, i * shifts + t], products[1, i * shifts + t], log_offset[i, t]
            for r in range(rotations):
                plus[r] = max(plus[r], same[r] + crossed[r] + offset)
                minus[r] = max(minus[r], same[r] - crossed[r] + offset)
        _finish_best(plus, minus, half_power[i], log_rotation, half, best[i])


@njit(nogil=True, parallel=True, cache=True, fastmath=True)
def _best_of_rounded(products, half_power, log_rotation, log_offset, half, best):
    """The same for bfloat16 numbers, given as uint16: they are the upper halves of float32 numbers."""
    particles, shifts = log_offset.shape
    rotations = half_power.shape[1]
    for i in prange(particles):
        plus, minus = np.full(rotations, -1e38, np.float32), np.full(rotations, -1e38, np.float32)
        bits = np.empty((2, rotations), np.uint32)
        same, crossed = bits.view(np.float32)
        for t in range(shifts):
            for part in range(2):
                for r in range(rotations):
                    bits[part, r] = np.uint32(products[part, i * shifts + t, r]) << np.uint32(16)
            offset = log_offset[i, t]
            for r in range(rotations):
                plus[r] = max(plus[r], same[r] + crossed[r] + offset)
                minus[r] = max(minus[r], same[r] - crossed[r] + offset)
        _finish_best(plus, minus, half_power[i], log_rotation, half, best[i])


@njit(nogil=True, parallel=True, cache=True)
def _floors(values, ptr, margin, share, floor, count):
    for i in prange(len(ptr) - 1):
        floor[i] = floor_of(values[ptr[i] : ptr[i + 1]], margin, share)
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
