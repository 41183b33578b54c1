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

_ROUNDED = 0.005  # of the largest products: what rounding to bfloat16 takes off a score at most (0.0039 on the benchmarks' sets)
FREQUENCIES = 0.5  # share of the coarse pass's frequencies
MARGIN = 20.0  # log-likelihood
SHARE = 0.4
_LOOKED_AT = 64  # scores at a time: mostly none of them is in doubt
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
) -> tuple[np.ndarray, np.ndarray]:
    """(float32 [b, r]: each rotation's score at its best shift, float32 [b]: by how much these err); arguments as for `select.dense_scores`, products
    float32 or bfloat16."""
    best, error = np.empty((len(half_power), len(log_rotation)), np.float32), np.zeros(len(half_power), np.float32)
    if products.dtype == torch.bfloat16:
        _best_of_rounded(products.view(torch.uint16).numpy(), half_power, log_rotation, log_offset, half, best, error)
    else:
        _best_over_shifts(products.numpy(), half_power, log_rotation, log_offset, half, best)
    return best, _ROUNDED * error


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
def _best_of_rounded(products, half_power, log_rotation, log_offset, half, best, largest):
    """The same for bfloat16 numbers, given as uint16: they are the upper halves of float32 numbers. largest [b]: the largest products' sum."""
    particles, shifts = log_offset.shape
    rotations = half_power.shape[1]
    for i in prange(particles):
        plus, minus = np.full(rotations, -1e38, np.float32), np.full(rotations, -1e38, np.float32)
        bits = np.empty((2, rotations), np.uint32)
        same, crossed = bits.view(np.float32)
        most = np.zeros(2, np.uint32)
        for t in range(shifts):
            for part in range(2):
                size = np.uint32(0)
                for r in range(rotations):
                    number = np.uint32(products[part, i * shifts + t, r]) << np.uint32(16)
                    bits[part, r] = number
                    size = max(size, number & np.uint32(0x7FFFFFFF))  # without sign: the larger number has the larger bits
                most[part] = max(most[part], size)
            offset = log_offset[i, t]
            for r in range(rotations):
                plus[r] = max(plus[r], same[r] + crossed[r] + offset)
                minus[r] = max(minus[r], same[r] - crossed[r] + offset)
        sizes = most.view(np.float32)
        largest[i] = sizes[0] + sizes[1]
        _finish_best(plus, minus, half_power[i], log_rotation, half, best[i])


@njit(nogil=True, cache=True, fastmath=True)
def _number_inside(values, least, most):
    found = np.int32(0)
    for r in range(len(values)):
        found += np.int32((values[r] >= least) & (values[r] <= most))
    return found


@njit(nogil=True, parallel=True, cache=True, fastmath=True)
def _windows(best, error, of_floor, low, high, count):
    for i in prange(len(best)):
        mine, top = best[i], np.float32(-1e38)
        if of_floor:
            floor = floor_of(mine, np.float32(MARGIN), np.float32(SHARE))
            low[i], high[i] = floor - error[i], floor + error[i]
        else:
            for r in range(len(mine)):
                top = max(top, mine[r])
            low[i], high[i] = top - 2 * error[i], top
        count[i] = _number_inside(mine, low[i], high[i])


@njit(nogil=True, parallel=True, cache=True)
def _inside(best, low, high, ptr, out):
    for i in prange(len(best)):
        mine, place = best[i], ptr[i]
        for first in range(0, len(mine), _LOOKED_AT):
            some = mine[first : first + _LOOKED_AT]
            if not _number_inside(some, low[i], high[i]):
                continue
            for r in range(len(some)):
                if low[i] <= some[r] <= high[i]:
                    out[place] = first + r
                    place += 1


def doubtful(best: np.ndarray, error: np.ndarray, of_floor: bool) -> tuple[np.ndarray, np.ndarray]:
    """(ptr int64 [b + 1], rotation int64) of the scores [b, r] that are in doubt where all err by `error` [b]: those that may be the best, or, once
    that is known (`of_floor`), those that may or may not be near enough to it."""
    low, high = np.empty_like(error), np.empty_like(error)
    count, ptr = np.zeros(len(best), np.int64), np.zeros(len(best) + 1, np.int64)
    _windows(best, error, of_floor, low, high, count)
    np.cumsum(count, out=ptr[1:])
    rotation = np.empty(ptr[-1], np.int64)
    _inside(best, low, high, ptr, rotation)
    return ptr, rotation


@njit(nogil=True, parallel=True, cache=True)
def put_best(values, block_ptr, ptr, rotation, log_rotation, log_offset, best):
    """best[i, r] of the listed rotations from their scores at all shifts: values float32, block i of shape [its rotations, shifts]."""
    shifts = log_offset.shape[1]
    for i in prange(len(best)):
        for k in range(ptr[i], ptr[i + 1]):
            start, top = block_ptr[i] + (k - ptr[i]) * shifts, np.float32(-1e38)
            for t in range(shifts):
                top = max(top, values[start + t] + log_offset[i, t])
            best[i, rotation[k]] = top + log_rotation[rotation[k]]


@njit(nogil=True, parallel=True, cache=True, fastmath=True)
def _floors(values, ptr, margin, share, floor, count):
    for i in prange(len(ptr) - 1):
        mine = values[ptr[i] : ptr[i + 1]]
        least, found = floor_of(mine, margin, share), np.int32(0)
        for value in mine:
            found += np.int32(value >= least)
        floor[i], count[i] = least, found


def near_best(values: np.ndarray, ptr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(ptr int64 [n + 1], positions int64 in the flat `values`) of the entries near the best of their particle, particle by particle.

    Args: values float32 flat scores; ptr int64 [n + 1], particle i's entries are values[ptr[i] : ptr[i + 1]].
    """
    floor, count = np.empty(len(ptr) - 1, np.float32), np.zeros(len(ptr) - 1, np.int64)
    _floors(values, ptr, MARGIN, SHARE, floor, count)
    index, out_ptr = select.at_least(values, ptr, floor, count)
    return out_ptr, index + np.repeat(ptr[:-1], count)
