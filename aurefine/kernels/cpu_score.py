"""Scores on the CPU of listed slices at all shifts, the lists shortened band by band of frequencies."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
from numba import njit, prange

from aurefine.fourier import PixelList
from aurefine.kernels import NEVER
from aurefine.kernels._vector import LANES, ROTATIONS, dot8, dot16, dot24, weighted_power
from aurefine.kernels.cpu_tiles import TILE, Frequencies, flat, limit, project_tile, scratch

EXCLUDED = -1e29  # scores below stand for what a prior forbids


def _phase_tables(shifts: np.ndarray, pixels: PixelList) -> tuple[np.ndarray, np.ndarray]:
    """Separable factors exp(-i x dx), exp(-i y dy) of every shift: complex64 [t, x] and [t, y - lowest y]."""
    dx, dy = shifts[:, :1].astype(np.float64), shifts[:, 1:].astype(np.float64)
    columns = np.arange(pixels.x.max() + 1)
    rows = np.arange(pixels.y.min(), pixels.y.max() + 1)
    return np.exp(-1j * columns * dx).astype(np.complex64), np.exp(-1j * rows * dy).astype(np.complex64)


@njit(fastmath=True, cache=True)
def _compact(table, rows, out_re, out_im):
    """Transpose the listed shifts of a phase table into [frequency, shift], so that loops over shifts are contiguous; the tail is zero."""
    out_re[:] = 0
    out_im[:] = 0
    for t in range(len(rows)):
        for k in range(table.shape[1]):
            out_re[k, t] = table[rows[t], k].real
            out_im[k, t] = table[rows[t], k].imag


@njit(fastmath=True, cache=True, inline="always")
def _shifted_tile(image, i, order, begin, count, x, y, lowest, width, xr_phase, xi_phase, yr_phase, yi_phase, xr, xi):
    """xr, xi [tile, shifts]: image pixels times exp(-i k.d) for every shift of this particle."""
    for q in range(count):
        pixel = order[begin + q]
        a, b = image[i, pixel].real, image[i, pixel].imag
        column, row = x[pixel], y[pixel] - lowest
        for t in range(width):
            er, ei, fr, fi = xr_phase[column, t], xi_phase[column, t], yr_phase[row, t], yi_phase[row, t]
            c, s = er * fr - ei * fi, er * fi + ei * fr
            xr[q, t] = a * c - b * s
            xi[q, t] = a * s + b * c


@njit(fastmath=True, cache=True, inline="always")
def _dot_all(work, xr, xi, width, count, sums, place):
    """Products of ROTATIONS projections with all shifts, added to their rows of `sums`."""
    column = 0
    while width - column >= 3 * LANES:
        dot24(work, TILE, xr, xi, width, column, count, sums, place + column)
        column += 3 * LANES
    if width - column == 2 * LANES:
        dot16(work, TILE, xr, xi, width, column, count, sums, place + column)
    elif width - column == LANES:
        dot8(work, TILE, xr, xi, width, column, count, sums, place + column)


@njit(nogil=True, cache=True)
def _survivors(sums, half_power, alive, log_pair, log_offset, margin, share):
    """Keep, in place and in order, the pairs that are near the best one so far; returns how many."""
    best = np.empty(len(alive), np.float32)
    for k in range(len(alive)):
        top = np.float32(-1e38)
        for t in range(len(log_offset)):
            top = max(top, sums[k, t] + log_offset[t])
        best[k] = top - half_power[k] + log_pair[alive[k]]
    floor = floor_of(best, margin, share)
    kept = 0
    for k in range(len(alive)):
        if best[k] >= floor:
            sums[kept], half_power[kept], alive[kept] = sums[k], half_power[k], alive[k]
            kept += 1
    return kept


@njit(nogil=True, cache=True, fastmath=True)
def floor_of(values, margin, share):
    """The score from which on entries are worth a full comparison: see Screening. Entries below EXCLUDED have no say."""
    top, total, count = np.float32(-1e38), 0.0, 0
    for value in values:
        top = max(top, value)
        if value > EXCLUDED:
            total += value
            count += 1
    lead = share * (top - total / max(count, 1))
    return max(np.float32(top - (lead if lead > margin else margin)), np.float32(EXCLUDED))


@njit(nogil=True, parallel=True, fastmath=True, cache=True)
def _score(
    volume, half, radius, slices, pair_ptr, pair_slice, image, power, shift_ptr, shift_row, table_x, table_y, x, y, kx, ky, order, bands, log_pair,
    log_offset, margin, share, out, out_ptr, correlation, threads,
):  # fmt: skip
    particles = len(image)
    for thread in prange(threads):
        index, located, work = scratch(2 * ROTATIONS, TILE)
        for i in range(thread, particles, threads):
            rows = shift_row[shift_ptr[i] : shift_ptr[i + 1]]
            first, n = pair_ptr[i], pair_ptr[i + 1] - pair_ptr[i]
            width = (len(rows) + LANES - 1) // LANES * LANES
            sums = np.zeros(((n + ROTATIONS - 1) // ROTATIONS * ROTATIONS, width), np.float32)
            half_power, alive = np.zeros(n, np.float32), np.arange(n)
            xr, xi = np.zeros((TILE, width), np.float32), np.zeros((TILE, width), np.float32)
            flat_sums, flat_xr, flat_xi = sums.reshape(-1), xr.reshape(-1), xi.reshape(-1)
            ex_re, ex_im = np.empty((table_x.shape[1], width), np.float32), np.empty((table_x.shape[1], width), np.float32)
            ey_re, ey_im = np.empty((table_y.shape[1], width), np.float32), np.empty((table_y.shape[1], width), np.float32)
            _compact(table_x, rows, ex_re, ex_im)
            _compact(table_y, rows, ey_re, ey_im)
            for band in range(len(bands) - 1):
                for begin in range(bands[band], bands[band + 1], TILE):
                    count = min(TILE, bands[band + 1] - begin)
                    _shifted_tile(image, i, order, begin, count, kx, ky, ky[0], width, ex_re, ex_im, ey_re, ey_im, xr, xi)
                    for r in range(0, n, ROTATIONS):
                        for k in range(min(ROTATIONS, n - r)):
                            place, row = 2 * k * TILE, pair_slice[first + alive[r + k]]
                            project_tile(volume, half, radius, slices, row, x, y, begin, count, index, located, work, place)
                            half_power[r + k] += np.float32(0.5) * weighted_power(work, place, place + TILE, power, i * len(x) + begin, count)
                        _dot_all(work, flat_xr, flat_xi, width, count, flat_sums, r * width)
                if band < len(bands) - 2:
                    n = _survivors(sums, half_power, alive[:n], log_pair[first : pair_ptr[i + 1]], log_offset[i], margin, share)
            tiny = np.float32(1e-30)
            block = out[out_ptr[i] : out_ptr[i + 1]].reshape(len(alive), len(rows))
            block[:] = NEVER
            for r in range(n):
                for t in range(len(rows)):
                    value = sums[r, t]
                    block[alive[r], t] = value / np.sqrt(2 * half_power[r] + tiny) if correlation else value - half_power[r]


def score(
    volume, slices, pair_ptr, pair_slice, images, power, shift_ptr, shift_row, shifts, pixels, correlation=False, screening=None
) -> tuple[np.ndarray, np.ndarray]:
    """See `kernels.score`."""
    block_ptr = np.zeros(len(pair_ptr), np.int64)
    np.cumsum(np.diff(pair_ptr) * np.diff(shift_ptr), out=block_ptr[1:])
    out = np.empty(block_ptr[-1], np.float32)
    bands = _banded(pixels, screening.shells if screening else ())
    if screening:
        rule = screening.log_pair, screening.log_offset, np.float32(screening.margin), np.float32(screening.share)
    else:
        rule = np.zeros(len(pair_slice), np.float32), np.zeros((len(images), 0), np.float32), np.float32(0), np.float32(0)
    _score(
        flat(volume.data), volume.half, limit(volume), slices.reshape(-1), pair_ptr, pair_slice, images.numpy(),
        (power.numpy()[:, bands.order] * bands.used).reshape(-1), shift_ptr, shift_row, *_phase_tables(shifts, pixels), *bands.frequencies,
        pixels.x, pixels.y, bands.order, bands.borders, *rule, out, block_ptr, correlation, numba.get_num_threads(),
    )  # fmt: skip
    return out, block_ptr


class _Banded(NamedTuple):
    """A pixel list in bands of rising frequency, each padded to whole vectors with pixels that lie outside."""

    order: np.ndarray  # int64, place in the list; 0 for padding
    used: np.ndarray  # bool, False for padding
    borders: np.ndarray  # int64 [bands + 1]
    frequencies: Frequencies


@lru_cache(maxsize=32)
def _banded(pixels: PixelList, shells: tuple[int, ...]) -> _Banded:
    """Bands up to each of `shells`, and a last one up to the end."""
    band = np.searchsorted(np.asarray(shells, int), pixels.shell, side="left")
    parts = [part for k in range(len(shells) + 1) if len(part := np.flatnonzero(band == k))]
    parts = [np.pad(part, (0, -len(part) % LANES), constant_values=-1) for part in parts]
    order = np.concatenate(parts)
    used = order >= 0
    borders = np.cumsum([0, *map(len, parts)])
    order = np.maximum(order, 0)
    return _Banded(order, used, borders, Frequencies.of(pixels, order, used))
