"""Bookkeeping of the fine pass: coarse pairs ordered by rotation, and the significant children as samples ready to be summed.

Everything runs in Numba over ragged arrays, in the order in which kernels want their input: rotation by rotation, and within a rotation
particle by particle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit, prange

from aurefine.kernels import Samples
from aurefine.refine.screen import distinct
from aurefine.refine.select import Significant

_SHARED = 2  # pairs a rotation from which on the grid's order serves the cache better


@dataclass(frozen=True, eq=False)
class PairOrder:
    """Coarse pairs of a batch in order of rotation: `order` int64 [pairs] (position in particle order), the distinct `rotation`s int64 [u],
    ptr int64 [u + 1] into the ordered pairs, and per ordered pair its particle (int32 row) and shift (int32)."""

    order: np.ndarray
    rotation: np.ndarray
    ptr: np.ndarray
    particle: np.ndarray
    shift: np.ndarray


def by_rotation(particle_ptr: np.ndarray, rotation: np.ndarray, shift: np.ndarray) -> PairOrder:
    """Order pairs, given particle by particle, by rotation and then by particle.

    Rotations come in the grid's order; but where few particles share one, in the order in which particles need them: a particle's own
    rotations are near each other, so that their slices pass through the same voxels.
    """
    used, dense = distinct(rotation)
    if len(rotation) < _SHARED * len(used):
        used, dense = _in_order_of_need(used, dense)
    first = np.zeros(len(used) + 1, np.int64)
    order, particle = np.empty(len(rotation), np.int64), np.empty(len(rotation), np.int32)
    _count_sort(particle_ptr, dense, first, order, particle)
    return PairOrder(order, used, first, particle, shift[order].astype(np.int32))


@njit(nogil=True, cache=True)
def _in_order_of_need(used, dense):
    """Distinct values and the place of each entry among them, renumbered by where they occur first."""
    number, order, count = np.full(len(used), -1, np.int32), np.empty_like(used), 0
    for k in range(len(dense)):
        if number[dense[k]] < 0:
            number[dense[k]] = count
            order[count] = used[dense[k]]
            count += 1
        dense[k] = number[dense[k]]
    return order, dense


@njit(nogil=True, cache=True)
def _count_sort(particle_ptr, rotation, first, order, particle):
    """Stable sort by rotation; `first` becomes where each rotation's pairs begin."""
    for r in rotation:
        first[r + 1] += 1
    for r in range(1, len(first)):
        first[r] += first[r - 1]
    place = first[:-1].copy()
    for i in range(len(particle_ptr) - 1):
        for pair in range(particle_ptr[i], particle_ptr[i + 1]):
            r = rotation[pair]
            order[place[r]], particle[place[r]] = pair, i
            place[r] += 1


@njit(nogil=True, parallel=True, cache=True)
def add_pair_prior(values, log_prior):
    """In place, values[pair, :, :] += log_prior[pair]."""
    for pair in prange(len(values)):
        for k in range(values.shape[1]):
            for j in range(values.shape[2]):
                values[pair, k, j] += log_prior[pair]


@njit(nogil=True, parallel=True, cache=True)
def to_particle_order(values, order, out):
    """out[order[pair]] = values[pair]: back from rotation order to particle order."""
    for pair in prange(len(values)):
        out[order[pair]] = values[pair]


@njit(nogil=True, cache=True)
def _count(values, order, ptr, particle, threshold, u, k):
    """(runs, samples) of child rotation k of distinct rotation u."""
    runs, samples, last = 0, 0, -1
    for pair in range(ptr[u], ptr[u + 1]):
        for j in range(values.shape[2]):
            if values[order[pair], k, j] >= threshold[particle[pair]]:
                samples += 1
                if particle[pair] != last:
                    runs += 1
                    last = particle[pair]
    return runs, samples


@njit(nogil=True, parallel=True, cache=True)
def _count_all(values, order, ptr, particle, threshold, runs, samples):
    children = values.shape[1]
    for u in prange(len(ptr) - 1):
        for k in range(children):
            runs[u * children + k], samples[u * children + k] = _count(values, order, ptr, particle, threshold, u, k)


@njit(nogil=True, parallel=True, cache=True)
def _fill(values, order, ptr, particle, shift, threshold, log_sum, slice_ptr, sample_ptr, run_particle, run_ptr, out_shift, out_weight):
    children, shifts = values.shape[1], values.shape[2]
    for u in prange(len(ptr) - 1):
        for k in range(children):
            run, sample, last = slice_ptr[u * children + k], sample_ptr[u * children + k], -1
            for pair in range(ptr[u], ptr[u + 1]):
                i = particle[pair]
                for j in range(shifts):
                    if values[order[pair], k, j] >= threshold[i]:
                        if i != last:
                            run_particle[run], run_ptr[run] = i, sample
                            run += 1
                            last = i
                        out_shift[sample] = shift[pair] * shifts + j
                        out_weight[sample] = np.exp(values[order[pair], k, j] - log_sum[i])
                        sample += 1


def samples_of(values: np.ndarray, pairs: PairOrder, chosen: Significant) -> Samples:
    """Significant children of all pairs as samples sorted by slice (distinct rotation times children) and particle.

    Args: values float32 [pairs, rotation children, shift children] log weights in particle order; chosen: thresholds and sums by particle.
    """
    slices = (len(pairs.ptr) - 1) * values.shape[1]
    runs, counts = np.zeros(slices, np.int64), np.zeros(slices, np.int64)
    _count_all(values, pairs.order, pairs.ptr, pairs.particle, chosen.threshold, runs, counts)
    slice_ptr = np.concatenate([[0], np.cumsum(runs)]).astype(np.int64)
    sample_ptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    run_particle, run_ptr = np.empty(slice_ptr[-1], np.int32), np.empty(slice_ptr[-1] + 1, np.int64)
    run_ptr[-1] = sample_ptr[-1]
    shift, weight = np.empty(sample_ptr[-1], np.int32), np.empty(sample_ptr[-1], np.float32)
    _fill(
        values, pairs.order, pairs.ptr, pairs.particle, pairs.shift, chosen.threshold, chosen.log_sum, slice_ptr, sample_ptr, run_particle, run_ptr,
        shift, weight,
    )  # fmt: skip
    return Samples(slice_ptr, run_particle, run_ptr, shift, weight)


@njit(nogil=True, cache=True)
def _totals(slice_ptr, run_particle, run_ptr, shift, weight, centre, table, particle, slices):
    """Sums of weights by particle and by slice, and of weight times squared offset |centre + table[shift]|^2."""
    square = 0.0
    for s in range(len(slice_ptr) - 1):
        for run in range(slice_ptr[s], slice_ptr[s + 1]):
            i = run_particle[run]
            for k in range(run_ptr[run], run_ptr[run + 1]):
                dx, dy = centre[i, 0] + table[shift[k], 0], centre[i, 1] + table[shift[k], 1]
                square += weight[k] * (dx * dx + dy * dy)
                particle[i] += weight[k]
                slices[s] += weight[k]
    return square


def by_direction(pairs: PairOrder, weight: np.ndarray, n_psi: int, directions: int) -> np.ndarray:
    """float64 [directions]: the weights of slices (the children of each distinct rotation side by side), summed by their coarse direction."""
    return np.bincount(np.repeat(pairs.rotation // n_psi, len(weight) // max(len(pairs.rotation), 1)), weight, directions)


def totals(samples: Samples, centre: np.ndarray, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """(weight by particle [n], weight by slice [s], sum of weight times squared offset).

    Args: centre float64 [n, 2] offset of each image, shifts float64 [t, 2] the samples' shifts, in one unit.
    """
    particle, slices = np.zeros(len(centre)), np.zeros(len(samples.slice_ptr) - 1)
    square = _totals(samples.slice_ptr, samples.run_particle, samples.run_ptr, samples.shift, samples.weight, centre, shifts, particle, slices)
    return particle, slices, square
