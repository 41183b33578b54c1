"""Ragged arrays of log weights: maximum, sum, and the smallest set that holds a fraction of the probability (ALGORITHM.md 4.8).

Block i of a flat array is values[ptr[i] : ptr[i + 1]]. Nothing here loops over particles in Python.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit, prange


@dataclass(frozen=True, eq=False)
class Significant:
    """Per block: the largest log weight and where it is, ln of the summed weights, and the log weight from which samples count."""

    maximum: np.ndarray  # float32 [n]
    argmax: np.ndarray  # int64 [n], index within the block
    log_sum: np.ndarray  # float64 [n]
    threshold: np.ndarray  # float32 [n]
    count: np.ndarray  # int64 [n] samples at or above the threshold


_BINS = 512


@njit(nogil=True, cache=True)
def _threshold(logs, weights, span, fraction, largest):
    """Log weight (relative to the top) at which the descending cumulative sum first exceeds fraction of the total, and the total.

    A histogram over log weight finds the bin in which that happens; only that bin is sorted. `largest` caps the number of samples.
    """
    mass, members = np.zeros(_BINS), np.zeros(_BINS, np.int64)
    for k in range(len(logs)):
        place = min(int(-logs[k] / span * _BINS), _BINS - 1)
        mass[place] += weights[k]
        members[place] += 1
    total = mass.sum()
    running, kept, crossing = 0.0, 0, 0
    while crossing < _BINS - 1 and running + mass[crossing] <= fraction * total and (largest <= 0 or kept + members[crossing] < largest):
        running += mass[crossing]
        kept += members[crossing]
        crossing += 1
    inside = np.empty(members[crossing], np.float32)
    n = 0
    for k in range(len(logs)):
        if min(int(-logs[k] / span * _BINS), _BINS - 1) == crossing:
            inside[n] = logs[k]
            n += 1
    inside = np.sort(inside)
    for k in range(n - 1, -1, -1):
        running += math.exp(inside[k])
        kept += 1
        if running > fraction * total or (largest > 0 and kept == largest):
            return inside[k], total
    return (inside[0] if n else np.float32(0)), total


@njit(nogil=True, parallel=True, cache=True)
def _significant(values, ptr, fraction, largest, maximum, argmax, log_sum, threshold, count):
    for i in prange(len(ptr) - 1):
        block = values[ptr[i] : ptr[i + 1]]
        top = np.float32(-1e38)
        for k in range(len(block)):
            top = max(top, block[k])
        where = 0
        while block[where] != top:
            where += 1
        # what lies below adds less than 1e-5 of the sum even if every sample sat at the floor
        span = np.float32(math.log(len(block)) + 12.0)
        near = 0
        for k in range(len(block)):
            near += block[k] > top - span
        logs, weights = np.empty(near, np.float32), np.empty(near, np.float32)
        near = 0
        for k in range(len(block)):
            if block[k] > top - span:
                logs[near] = block[k] - top
                weights[near] = math.exp(logs[near])
                near += 1
        limit, total = _threshold(logs, weights, span, fraction, largest)
        threshold[i] = top + limit - np.float32(1e-6) * abs(top)
        above = 0
        for k in range(len(block)):
            above += block[k] >= threshold[i]
        maximum[i], argmax[i], log_sum[i], count[i] = top, where, top + math.log(total), above


def significant(values: np.ndarray, ptr: np.ndarray, fraction: float, largest: int = -1) -> Significant:
    """Find each block's significant samples: the smallest set whose weights exceed `fraction` of the block's sum.

    Args: values float32 flat log weights; ptr int64 [n + 1], no block empty; largest caps the number of samples (-1: no cap).
    """
    n = len(ptr) - 1
    out = Significant(np.empty(n, np.float32), np.empty(n, np.int64), np.empty(n), np.empty(n, np.float32), np.empty(n, np.int64))
    _significant(values, ptr, fraction, largest, out.maximum, out.argmax, out.log_sum, out.threshold, out.count)
    return out


@njit(nogil=True, parallel=True, cache=True)
def _indices(values, ptr, threshold, out_ptr, out):
    for i in prange(len(ptr) - 1):
        place = out_ptr[i]
        for k in range(ptr[i], ptr[i + 1]):
            if values[k] >= threshold[i]:
                out[place] = k - ptr[i]
                place += 1


def indices(values: np.ndarray, ptr: np.ndarray, chosen: Significant) -> tuple[np.ndarray, np.ndarray]:
    """(index within its block int64 [total], ptr int64 [n + 1]) of every significant sample, in block order."""
    return at_least(values, ptr, chosen.threshold, chosen.count)


def pairs(
    values: np.ndarray, ptr: np.ndarray, chosen: Significant, split: Callable, log_rotation: np.ndarray | None, log_offset: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(ptr int64 [n + 1], rotation int64, shift int64, log prior float32, log weight float32) of every significant sample, in block order.

    Args: split: an index within a block as (rotation, shift); log_rotation float32 by rotation, or None; log_offset float32 [n, shifts].
    """
    index, pair_ptr = indices(values, ptr, chosen)
    rotation, shift = split(index)
    particle = np.repeat(np.arange(len(ptr) - 1), np.diff(pair_ptr))
    prior = log_offset[particle, shift] + (0 if log_rotation is None else log_rotation[rotation])
    return pair_ptr, rotation, shift, prior.astype(np.float32), values[ptr[particle] + index]


def spread(per_block: np.ndarray, count: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Each block's number, once for each of its `count` entries; `like` is an array with one number an entry."""
    return np.repeat(per_block, count)


def picked(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Some entries, for the host."""
    return array[rows]


def at_least(values: np.ndarray, ptr: np.ndarray, threshold: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`indices` of what reaches the block's threshold float32 [n]; count int64 [n] is how many do."""
    out_ptr = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    out = np.empty(out_ptr[-1], np.int64)
    _indices(values, ptr, threshold, out_ptr, out)
    return out, out_ptr


@njit(nogil=True, parallel=True, cache=True, fastmath=True)
def _dense_scores(products, half_power, log_rotation, log_offset, half, correlation, out):
    particles, shifts = log_offset.shape
    for i in prange(particles):
        for first in range(0, half_power.shape[1], half):  # a direction's in-plane angles below 180 degrees
            for t in range(shifts):
                row, place = i * shifts + t, 2 * first
                for k in range(half):
                    same, crossed, norm = products[0, row, first + k], products[1, row, first + k], half_power[i, first + k]
                    if correlation:
                        scale = 1 / np.sqrt(2 * norm + np.float32(1e-30))
                        out[i, t, place + k], out[i, t, place + half + k] = scale * (same + crossed), scale * (same - crossed)
                    else:
                        rest = log_offset[i, t] - norm
                        out[i, t, place + k] = same + crossed + (log_rotation[place + k] + rest)
                        out[i, t, place + half + k] = same - crossed + (log_rotation[place + half + k] + rest)


def dense_scores(
    products: np.ndarray, half_power: np.ndarray, log_rotation: np.ndarray, log_offset: np.ndarray, half: int, correlation: bool = False
) -> np.ndarray:
    """float32 [b, t, r] log weights of the whole grid, from its products with slices at in-plane angles below 180 degrees.

    The slice at the opposite angle is the complex conjugate, so the sum of the products of real and of imaginary parts is one score, and their
    difference the other.
    Args: products float32 [2, b * t, r / 2], real and imaginary parts; half_power [b, r / 2] half the weighted power of the slices; log_rotation
        [r], log_offset [b, t] priors; half: in-plane angles below 180 degrees; correlation: divide by the root of the power instead.
    """
    out = np.empty((*log_offset.shape, len(log_rotation)), np.float32)
    _dense_scores(products, half_power, log_rotation, log_offset, half, correlation, out)
    return out


@njit(nogil=True, parallel=True, cache=True)
def add_block_priors(values, ptr, pair_ptr, log_pair, log_offset):
    """In place, add log_pair[pair] + log_offset[i, t] to block i of shape [pairs of i, shifts] (all float32)."""
    shifts = log_offset.shape[1]
    for i in prange(len(ptr) - 1):
        for r in range(pair_ptr[i + 1] - pair_ptr[i]):
            start = ptr[i] + r * shifts
            for t in range(shifts):
                values[start + t] += log_pair[pair_ptr[i] + r] + log_offset[i, t]


@njit(nogil=True, parallel=True, cache=True)
def _best(values, ptr, maximum, argmax, count):
    for i in prange(len(ptr) - 1):
        best = 0
        block = values[ptr[i] : ptr[i + 1]]
        for k in range(len(block)):
            if block[k] > block[best]:
                best = k
        same = 0
        for k in range(len(block)):
            same += block[k] == block[best]
        maximum[i], argmax[i], count[i] = block[best], best, same


def best_only(values: np.ndarray, ptr: np.ndarray) -> Significant:
    """The winner of each block (and its exact ties), for scores that are correlations and not log weights (ALGORITHM.md 2.6)."""
    n = len(ptr) - 1
    maximum, argmax, count = np.empty(n, np.float32), np.empty(n, np.int64), np.empty(n, np.int64)
    _best(values, ptr, maximum, argmax, count)
    return Significant(maximum, argmax, maximum.astype(np.float64), maximum, count)  # the log sum makes every winner weigh 1
