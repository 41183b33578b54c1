"""Sums on the CPU: weighted images into one slice per orientation, each slice inserted once, and what is left of the images."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit, prange

from aurefine.fourier import PixelList
from aurefine.kernels import Accumulator, Samples, Sums, Volume, shift_phases
from aurefine.kernels._vector import CROSS, POWER, SUM_ROWS, accumulate_tile, add_phases, fetch, insert, locate
from aurefine.kernels.cpu_tiles import Frequencies, flat, limit, padded, planes, project_tile, scratch, share

_SUM_TILE = 512  # pixels worked on together: the sums have more to do between tiles than the scores
_TOGETHER = 32  # consecutive slices lie near each other in the volume: one tile of all of them after the other meets the same voxels
_STEP = 16  # pixels between one update of the accumulator and the next


@njit(nogil=True, parallel=True, fastmath=True, cache=True)
def _accumulate(
    volume, half, radius, out, out_half, out_radius, slices, used, slice_ptr, run_particle, run_ptr, shift, weight, table_re, table_im, unmasked,
    masked, model, inverse_sigma2, strong, x, y, bounds, premultiplied, pixel_cross, pixel_power, per_particle,
):  # fmt: skip
    width = len(x)
    for thread in prange(len(bounds) - 1):
        index, located, work = scratch(SUM_ROWS, _SUM_TILE)
        rows, sums = work.reshape(SUM_ROWS, _SUM_TILE), np.empty(4, np.float32)
        for first in range(bounds[thread], bounds[thread + 1], _TOGETHER):
            for begin in range(0, width, _SUM_TILE):
                count = min(_SUM_TILE, width - begin)
                for s in range(first, min(first + _TOGETHER, bounds[thread + 1])):
                    r = used[s]
                    rows[2:] = 0
                    project_tile(volume, half, radius, slices, r, x, y, begin, count, index, located, work, 0)
                    if out_half != half:  # the reference may end before the map does
                        locate(slices, r, x, y, begin, count, out_radius, out_half, index, located, _SUM_TILE)
                    fetch(out[thread], out_half, count, index)
                    for run in range(slice_ptr[r], slice_ptr[r + 1]):
                        i = np.int64(run_particle[run])
                        sums[:] = 0
                        total = np.float32(0)
                        for k in range(run_ptr[run], run_ptr[run + 1]):
                            total += weight[k]
                            start = np.int64(shift[k]) * width + begin
                            add_phases(table_re, table_im, start, weight[k], count, work, _SUM_TILE, k == run_ptr[run])
                        plane = 2 * i * width + begin
                        accumulate_tile(
                            unmasked, masked, model, plane, plane + width, i * width + begin, inverse_sigma2, strong, begin, total, count, work,
                            _SUM_TILE, sums, premultiplied,
                        )  # fmt: skip
                        for n in range(4):
                            per_particle[thread, i, n] += sums[n]
                    for p in range(count):
                        pixel_cross[thread, begin + p] += rows[CROSS, p]
                        pixel_power[thread, begin + p] += rows[POWER, p]
                    for lane in range(min(_STEP, count)):
                        insert(out[thread], out_half, lane, count, _STEP, index, located, _SUM_TILE, work)


def accumulate(
    volume: Volume, accumulator: Accumulator, slices: np.ndarray, samples: Samples, shifts: np.ndarray, unmasked: torch.Tensor,
    masked: torch.Tensor, model: torch.Tensor, inverse_sigma2: np.ndarray, strong: np.ndarray, pixels: PixelList, premultiplied: bool,
) -> Sums:  # fmt: skip
    """See `kernels.accumulate`; each thread takes a contiguous share of the slices and its own accumulator copy."""
    threads, count = len(accumulator.data), len(pixels)
    places = Frequencies.padded(pixels)
    width = len(places.x)
    runs = np.diff(samples.slice_ptr)
    used = np.flatnonzero(runs)
    phases = shift_phases(shifts, pixels)
    pixel_sums = np.zeros((2, threads, width), np.float64)
    per_particle = np.zeros((threads, len(masked), 4), np.float64)
    _accumulate(
        flat(volume.data), volume.half, limit(volume), accumulator.data.numpy().reshape(threads, -1), accumulator.half, limit(accumulator),
        slices.reshape(-1), used, samples.slice_ptr, samples.run_particle, samples.run_ptr, samples.shift, samples.weight,
        padded(phases.real.numpy(), width), padded(phases.imag.numpy(), width),
        planes(unmasked, width), planes(masked, width), padded(model.numpy(), width), padded(inverse_sigma2, width), padded(strong, width),
        places.x, places.y, share(runs[used] + 8.0, threads), premultiplied, pixel_sums[0], pixel_sums[1], per_particle,
    )  # fmt: skip
    cross, power, strong_cross, strong_power = per_particle.sum(0).T
    by_pixel = pixel_sums.sum(1)[:, :count]
    return Sums(by_pixel[0], by_pixel[1], cross, power, strong_cross, strong_power)
