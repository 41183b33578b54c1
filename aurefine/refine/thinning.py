"""Fewer slices to sum and insert: of those that hold little of a particle's weight, a few stand for all.

What a slice costs does not depend on its weight, and most slices of a particle together hold a few per cent of it. Measured (real and simulated
sets, 64 and 128 px, weak data among them): half to a fifth of the time, and no change of poses, resolution or FSC against the truth.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from aurefine.kernels import Samples


@njit(nogil=True, cache=True)
def _thin(slice_ptr, run_particle, run_ptr, weight, share, tail, pointer, kept, factor):
    """Runs to keep and what their weights are multiplied by, slice by slice; returns their number. `pointer` is each particle's start."""
    count, start = 0, 0
    for s in range(len(slice_ptr) - 1):
        first = start
        for run in range(first, slice_ptr[s + 1]):
            i = run_particle[run]
            mass = 0.0
            for k in range(run_ptr[run], run_ptr[run + 1]):
                mass += weight[k]
            scale = 1.0
            if mass < share:
                step = tail[i] / np.ceil(tail[i] / share)
                before = np.floor(pointer[i])
                pointer[i] += mass / step
                scale = (np.floor(pointer[i]) - before) * step / mass
            if scale > 0:
                kept[count], factor[count] = run, scale
                count += 1
        start = slice_ptr[s + 1]
        slice_ptr[s + 1] = count
    return count


@njit(nogil=True, cache=True)
def _tails(run_particle, run_ptr, weight, share, tail):
    for run in range(len(run_particle)):
        mass = 0.0
        for k in range(run_ptr[run], run_ptr[run + 1]):
            mass += weight[k]
        if mass < share:
            tail[run_particle[run]] += mass


@njit(nogil=True, cache=True)
def _copy_runs(run_ptr, shift, weight, kept, factor, new_ptr, new_shift, new_weight):
    place = 0
    for n in range(len(kept)):
        new_ptr[n] = place
        for k in range(run_ptr[kept[n]], run_ptr[kept[n] + 1]):
            new_shift[place], new_weight[place] = shift[k], weight[k] * factor[n]
            place += 1
    new_ptr[len(kept)] = place


def lots(particles: np.ndarray, iteration: int) -> np.ndarray:
    """A number in 0..1 for each particle (by index) in an iteration, always the same, spread evenly over particles and over iterations."""
    return (particles * 0.6180339887498949 + iteration * 0.7548776662466927) % 1.0


def thinned(samples: Samples, lots: np.ndarray, share: float) -> Samples:
    """Samples of which some stand for many: a particle's slices of less than `share` of its weight are drawn in proportion to it.

    Systematic resampling (Douc & Cappe 2005): each stays with its own weight on average and all of them together with theirs exactly, in
    1 / `share` slices at the most. What a slice costs does not depend on its weight.

    Args: lots float64 [particles] in 0..1, each particle's random number.
    """
    tail = np.zeros(len(lots))
    _tails(samples.run_particle, samples.run_ptr, samples.weight, share, tail)
    slice_ptr, runs = samples.slice_ptr.copy(), len(samples.run_particle)
    kept, factor = np.empty(runs, np.int64), np.empty(runs, np.float32)
    count = _thin(slice_ptr, samples.run_particle, samples.run_ptr, samples.weight, share, tail, lots.astype(np.float64), kept, factor)
    kept = kept[:count]
    total = int((samples.run_ptr[kept + 1] - samples.run_ptr[kept]).sum())
    run_ptr, shift, weight = np.empty(count + 1, np.int64), np.empty(total, np.int32), np.empty(total, np.float32)
    _copy_runs(samples.run_ptr, samples.shift, samples.weight, kept, factor, run_ptr, shift, weight)
    return Samples(slice_ptr, samples.run_particle[kept], run_ptr, shift, weight)
