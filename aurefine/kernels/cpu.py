"""Numba kernels for the CPU: trilinear slices with 128-bit loads, pixel tile outside, rotations inside, shifts vectorised."""

from __future__ import annotations

import numba
import numpy as np
import torch
from numba import njit, prange

from aurefine.fourier import PixelList
from aurefine.kernels import Accumulator, Samples, Sums, Volume, shift_phases
from aurefine.kernels._vector import (
    CROSS,
    PHASE_IM,
    PHASE_RE,
    POWER,
    PROJECTION_IM,
    PROJECTION_RE,
    SLICE_IM,
    SLICE_RE,
    SLICE_WEIGHT,
    accumulate_tile,
    add_pair,
    add_phases,
    children_dot,
    interpolate,
    pair_dot16,
    pair_dot32,
    weighted_sum8,
)

_TILE = 128  # pixels whose coordinates, slices and shifted images stay in the first-level cache
_SUM_TILE = 512  # the same for the sums, which have more to do between tiles
_SIBLINGS = 8  # consecutive slices lie near each other in the volume: one tile of all of them after the other meets the same voxels
_OUTSIDE = np.float32(1e9)  # frequency given to pixels beyond the image's circle: the sphere test then drops them
_TOLERANCE = np.float32(1.00001)  # float32 rounding of points lying exactly on the sphere


def _flat(volume: torch.Tensor) -> np.ndarray:
    return torch.view_as_real(volume).numpy().reshape(-1)


def _circle(pixels: PixelList) -> tuple[np.ndarray, np.ndarray]:
    x = np.where(pixels.inside, pixels.x, _OUTSIDE).astype(np.float32)
    return x, pixels.y.astype(np.float32)


def _limit(volume: Volume | Accumulator) -> np.float32:
    return np.float32(int(volume.r_max * volume.padding) ** 2) * _TOLERANCE


@njit(fastmath=True, cache=True, inline="always")
def _locate(s, r, x, y, begin, count, limit, half, index, fx, fy, fz, sign):
    """Fill voxel offsets, fractions and the Friedel sign (0 outside the sphere) of `count` pixels of slice r; vectorises."""
    stride_y = np.int32(2 * (half + 1))
    stride_z = stride_y * np.int32(2 * half + 1)
    centre = np.int32(half) * (stride_y + stride_z)
    a0, a1, b0, b1, c0, c1 = s[r, 0, 0], s[r, 0, 1], s[r, 1, 0], s[r, 1, 1], s[r, 2, 0], s[r, 2, 1]
    for q in range(count):
        u, v = x[begin + q], y[begin + q]
        px, py, pz = a0 * u + a1 * v, b0 * u + b1 * v, c0 * u + c1 * v
        inside = px * px + py * py + pz * pz <= limit
        friedel = np.float32(1.0) if px >= 0 else np.float32(-1.0)
        friedel = friedel if inside else np.float32(0.0)
        px *= friedel
        py *= friedel
        pz *= friedel
        lx, ly, lz = np.floor(px), np.floor(py), np.floor(pz)
        index[q] = np.int32(lz) * stride_z + np.int32(ly) * stride_y + np.int32(lx) * np.int32(2) + centre
        fx[q], fy[q], fz[q] = px - lx, py - ly, pz - lz
        sign[q] = friedel


@njit(fastmath=True, cache=True, inline="always")
def _gather(volume, half, count, index, fx, fy, fz, sign, re, im):
    """Interpolate `count` located pixels into re and im."""
    stride_y = np.int64(2 * (half + 1))
    stride_z = stride_y * (2 * half + 1)
    for q in range(count):
        i = np.int64(index[q])
        a, b = interpolate(volume, i, i + stride_y, i + stride_z, i + stride_y + stride_z, fx[q], fy[q], fz[q])
        keep = np.float32(1.0) if sign[q] != 0 else np.float32(0.0)
        re[q] = a * keep
        im[q] = b * sign[q]


@njit(parallel=True, fastmath=True, cache=True)
def _project(volume, half, limit, slices, x, y, out, threads):
    n, pixels = len(slices), len(x)
    for thread in prange(threads):
        index = np.empty(_TILE, np.int32)
        work = np.empty((4, _TILE), np.float32)
        fx, fy, fz, sign = work[0], work[1], work[2], work[3]
        for begin in range(0, pixels, _TILE):
            count = min(_TILE, pixels - begin)
            for r in range(n * thread // threads, n * (thread + 1) // threads):
                _locate(slices, r, x, y, begin, count, limit, half, index, fx, fy, fz, sign)
                _gather(volume, half, count, index, fx, fy, fz, sign, out[r, 0, begin:], out[r, 1, begin:])


def project(volume: Volume, slices: np.ndarray, pixels: PixelList) -> torch.Tensor:
    """See `kernels.project`."""
    x, y = _circle(pixels)
    out = np.empty((len(slices), 2, len(pixels)), np.float32)
    _project(_flat(volume.data), volume.half, _limit(volume), slices, x, y, out, numba.get_num_threads())
    return torch.complex(torch.from_numpy(out[:, 0]), torch.from_numpy(out[:, 1]))


def project_planes(volume: Volume, slices: np.ndarray, pixels: PixelList) -> torch.Tensor:
    """Slices as float32 [n, 2, pixels] (real plane, imaginary plane), the operand of the global search's matrix product."""
    x, y = _circle(pixels)
    out = np.empty((len(slices), 2, len(pixels)), np.float32)
    _project(_flat(volume.data), volume.half, _limit(volume), slices, x, y, out, numba.get_num_threads())
    return torch.from_numpy(out)


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
def _shifted_tile(image, i, begin, count, x, y, lowest, width, xr_phase, xi_phase, yr_phase, yi_phase, xr, xi):
    """xr, xi [tile, shifts]: image pixels times exp(-i k.d) for every shift of this particle."""
    for q in range(count):
        a, b = image[i, begin + q].real, image[i, begin + q].imag
        column, row = x[begin + q], y[begin + q] - lowest
        for t in range(width):
            er, ei, fr, fi = xr_phase[column, t], xi_phase[column, t], yr_phase[row, t], yi_phase[row, t]
            c, s = er * fr - ei * fi, er * fi + ei * fr
            xr[q, t] = a * c - b * s
            xi[q, t] = a * s + b * c


@njit(parallel=True, fastmath=True, cache=True)
def _score(
    volume, half, limit, slices, pair_ptr, pair_slice, image, power, shift_ptr, shift_row, table_x, table_y, x, y, kx, ky, out, out_ptr,
    correlation, threads,
):  # fmt: skip
    particles, pixels = image.shape
    for thread in prange(threads):
        index = np.empty(_TILE, np.int32)
        located = np.empty((4, _TILE), np.float32)
        fx, fy, fz, sign = located[0], located[1], located[2], located[3]
        work = np.zeros((4, _TILE), np.float32)  # real and imaginary parts of two rotations' projections
        flat_work = work.reshape(-1)
        for i in range(thread, particles, threads):
            rows = shift_row[shift_ptr[i] : shift_ptr[i + 1]]
            first, n = pair_ptr[i], pair_ptr[i + 1] - pair_ptr[i]
            width = (len(rows) + 15) // 16 * 16
            sums = np.zeros((n + n % 2, width), np.float32)
            half_power = np.zeros(n, np.float32)
            xr, xi = np.zeros((_TILE, width), np.float32), np.zeros((_TILE, width), np.float32)
            flat_sums, flat_xr, flat_xi = sums.reshape(-1), xr.reshape(-1), xi.reshape(-1)
            ex_re, ex_im = np.empty((table_x.shape[1], width), np.float32), np.empty((table_x.shape[1], width), np.float32)
            ey_re, ey_im = np.empty((table_y.shape[1], width), np.float32), np.empty((table_y.shape[1], width), np.float32)
            _compact(table_x, rows, ex_re, ex_im)
            _compact(table_y, rows, ey_re, ey_im)
            for begin in range(0, pixels, _TILE):
                count = min(_TILE, pixels - begin)
                _shifted_tile(image, i, begin, count, kx, ky, ky[0], width, ex_re, ex_im, ey_re, ey_im, xr, xi)
                for r in range(0, n, 2):
                    for k in range(min(2, n - r)):
                        re, im = work[2 * k], work[2 * k + 1]
                        _locate(slices, pair_slice[first + r + k], x, y, begin, count, limit, half, index, fx, fy, fz, sign)
                        _gather(volume, half, count, index, fx, fy, fz, sign, re, im)
                        total = np.float32(0)
                        for q in range(count):
                            total += power[i, begin + q] * (re[q] * re[q] + im[q] * im[q])
                        half_power[r + k] += np.float32(0.5) * total
                    for column in range(0, width - 16, 32):
                        pair_dot32(flat_work, _TILE, flat_xr, flat_xi, width, column, count, flat_sums, r * width + column)
                    if width % 32:
                        pair_dot16(flat_work, _TILE, flat_xr, flat_xi, width, width - 16, count, flat_sums, r * width + width - 16)
            tiny = np.float32(1e-30)
            block = out[out_ptr[i] : out_ptr[i + 1]].reshape(n, len(rows))
            for r in range(n):
                for t in range(len(rows)):
                    block[r, t] = sums[r, t] / np.sqrt(2 * half_power[r] + tiny) if correlation else sums[r, t] - half_power[r]


def score(
    volume, slices, pair_ptr, pair_slice, images, power, shift_ptr, shift_row, shifts, pixels, correlation=False
) -> tuple[np.ndarray, np.ndarray]:
    """See `kernels.score`."""
    x, y = _circle(pixels)
    block_ptr = np.zeros(len(pair_ptr), np.int64)
    np.cumsum(np.diff(pair_ptr) * np.diff(shift_ptr), out=block_ptr[1:])
    out = np.empty(block_ptr[-1], np.float32)
    _score(
        _flat(volume.data), volume.half, _limit(volume), slices, pair_ptr, pair_slice, images.numpy(), power.numpy(),
        shift_ptr, shift_row, *_phase_tables(shifts, pixels), x, y, pixels.x, pixels.y, out, block_ptr, correlation, numba.get_num_threads(),
    )  # fmt: skip
    return out, block_ptr


@njit(parallel=True, fastmath=True, cache=True)
def _shifted_quads(image, particle, first_shift, table_re, table_im, quad, out_re, out_im):
    """out[k, q, j]: image of particle[k] moved by shift first_shift[k] + j, for the `quad` shifts j that belong together."""
    for k in prange(len(particle)):
        i = particle[k]
        for q in range(image.shape[1]):
            a, b = image[i, q].real, image[i, q].imag
            for j in range(quad):
                c, d = table_re[first_shift[k] + j, q], table_im[first_shift[k] + j, q]
                out_re[k, q, j] = a * c - b * d
                out_im[k, q, j] = a * d + b * c


@njit(fastmath=True, cache=True, inline="always")
def _block_dot(re, im, n_rot, xr, xi, start, count, n_shift, out, place):
    """Sums over one pixel tile for all rotations and shifts of a pair; [shift, rotation] order. Registers where there are 8 by 4 of them."""
    if n_rot == 8 and n_shift == 4:
        children_dot(re, im, 0, xr, xi, start, count, out, place)
    elif n_rot == 8 and n_shift == 1:
        weighted_sum8(re, xr, start, count, out, place)
        weighted_sum8(im, xi, start, count, out, place)
    else:
        for j in range(n_shift):
            for k in range(n_rot):
                total = np.float32(0)
                for q in range(count):
                    total += re[q * n_rot + k] * xr[start + q * n_shift + j] + im[q * n_rot + k] * xi[start + q * n_shift + j]
                out[place + j * n_rot + k] += total


@njit(parallel=True, fastmath=True, cache=True)
def _score_children(
    volume, half, limit, slices, n_rot, rotation_ptr, pair_particle, pair_quad, power, quads_re, quads_im, n_shift, x, y, bounds, correlation, out,
):  # fmt: skip
    pixels = len(x)
    for thread in prange(len(bounds) - 1):
        index = np.empty(_TILE, np.int32)
        work = np.empty((6, _TILE), np.float32)
        fx, fy, fz, sign, re, im = work[0], work[1], work[2], work[3], work[4], work[5]
        tile_re, tile_im, tile_square = np.empty(_TILE * n_rot, np.float32), np.empty(_TILE * n_rot, np.float32), np.empty(_TILE * n_rot, np.float32)
        for u in range(bounds[thread], bounds[thread + 1]):
            first, last = rotation_ptr[u], rotation_ptr[u + 1]
            sums = np.zeros((last - first) * n_rot * n_shift, np.float32)
            squares = np.zeros((last - first) * n_rot, np.float32)
            for begin in range(0, pixels, _TILE):
                count = min(_TILE, pixels - begin)
                for k in range(n_rot):
                    _locate(slices, u * n_rot + k, x, y, begin, count, limit, half, index, fx, fy, fz, sign)
                    _gather(volume, half, count, index, fx, fy, fz, sign, re, im)
                    for q in range(count):
                        tile_re[q * n_rot + k], tile_im[q * n_rot + k] = re[q], im[q]
                        tile_square[q * n_rot + k] = re[q] * re[q] + im[q] * im[q]
                for pair in range(first, last):
                    i, place = pair_particle[pair], pair - first
                    if pair == first or i != pair_particle[pair - 1]:  # a particle's pairs lie together: one power for all of them
                        if n_rot == 8:
                            weighted_sum8(tile_square, power, i * pixels + begin, count, squares, place * n_rot)
                        else:
                            for q in range(count):
                                for k in range(n_rot):
                                    squares[place * n_rot + k] += power[i * pixels + begin + q] * tile_square[q * n_rot + k]
                    start = (pair_quad[pair] * pixels + begin) * n_shift
                    _block_dot(tile_re, tile_im, n_rot, quads_re, quads_im, start, count, n_shift, sums, place * n_rot * n_shift)
            owner = 0
            for place in range(last - first):
                if place > 0 and pair_particle[first + place] != pair_particle[first + place - 1]:
                    owner = place
                for k in range(n_rot):
                    norm = squares[owner * n_rot + k]
                    for j in range(n_shift):
                        value = sums[(place * n_shift + j) * n_rot + k]
                        if correlation:
                            out[first + place, k, j] = value / np.sqrt(norm + np.float32(1e-30))
                        else:
                            out[first + place, k, j] = value - np.float32(0.5) * norm


def score_children(
    volume, slices, n_rot, rotation_ptr, pair_particle, pair_shift, images, power, shifts, n_shift, pixels, correlation=False
) -> np.ndarray:
    """See `kernels.score_children`."""
    x, y = _circle(pixels)
    phases = shift_phases(shifts, pixels)
    coarse = len(shifts) // n_shift
    used, pair_quad = np.unique(pair_particle.astype(np.int64) * coarse + pair_shift, return_inverse=True)
    quads = np.empty((2, len(used), len(pixels), n_shift), np.float32)
    _shifted_quads(
        images.numpy(), used // coarse, used % coarse * n_shift, phases.real.contiguous().numpy(), phases.imag.contiguous().numpy(), n_shift,
        quads[0], quads[1],
    )  # fmt: skip
    out = np.empty((len(pair_particle), n_rot, n_shift), np.float32)
    threads = numba.get_num_threads()
    bounds = _share(np.diff(rotation_ptr) + 8.0 * (np.diff(rotation_ptr) > 0), threads * 4)
    _score_children(
        _flat(volume.data), volume.half, _limit(volume), slices, n_rot, rotation_ptr, pair_particle, pair_quad, power.numpy().reshape(-1),
        quads[0].reshape(-1), quads[1].reshape(-1), n_shift, x, y, bounds, correlation, out,
    )  # fmt: skip
    return out


def _share(work: np.ndarray, parts: int) -> np.ndarray:
    """int64 [parts + 1]: borders that divide consecutive items into parts of nearly equal work."""
    total = np.cumsum(work)
    inner = np.searchsorted(total, total[-1] * np.arange(1, parts) / parts) if len(total) else np.zeros(parts - 1)
    return np.concatenate([[0], inner, [len(work)]]).astype(np.int64)


@njit(fastmath=True, cache=True)
def _insert(out, half, count, index, fx, fy, fz, sign, re, im, weight):
    """Add located pixels of a slice to an accumulator copy (flat float32, 4 values a voxel) with trilinear weights.

    Neighbouring pixels share voxels; taking every sixteenth pixel in turn keeps an update from waiting for the one just before it.
    """
    stride_y = np.int64(4 * (half + 1))
    stride_z = stride_y * (2 * half + 1)
    one = np.float32(1.0)
    for lane in range(16):
        for p in range(lane, count, 16):
            if weight[p] <= 0 or sign[p] == 0:
                continue
            i = 2 * np.int64(index[p])
            gx, gy, gz = one - fx[p], one - fy[p], one - fz[p]
            imaginary = im[p] * sign[p]
            for corner in range(4):
                w = (fy[p] if corner & 1 else gy) * (fz[p] if corner & 2 else gz)
                offset = i + (stride_y if corner & 1 else 0) + (stride_z if corner & 2 else 0)
                add_pair(out, offset, re[p], imaginary, weight[p], w * gx, w * fx[p])


@njit(parallel=True, fastmath=True, cache=True)
def _accumulate(
    volume, out, half, limit, slices, slice_ptr, run_particle, run_ptr, shift, weight, table_re, table_im, unmasked, masked, model,
    inverse_sigma2, strong, x, y, width, bounds, premultiplied, pixel_cross, pixel_power, per_particle,
):  # fmt: skip
    pixels = len(x)
    for thread in prange(len(bounds) - 1):
        index = np.empty(_SUM_TILE, np.int32)
        located = np.empty((4, _SUM_TILE), np.float32)
        fx, fy, fz, sign = located[0], located[1], located[2], located[3]
        work, sums = np.zeros((9, _SUM_TILE), np.float32), np.empty(4, np.float32)
        flat = work.reshape(-1)
        for group in range(bounds[thread], bounds[thread + 1]):
            first, last = group * _SIBLINGS, min((group + 1) * _SIBLINGS, len(slice_ptr) - 1)
            if slice_ptr[first] == slice_ptr[last]:
                continue
            for begin in range(0, pixels, _SUM_TILE):
                count = min(_SUM_TILE, pixels - begin)
                blocks = (count + 15) // 16
                for r in range(first, last):
                    if slice_ptr[r] == slice_ptr[r + 1]:
                        continue
                    work[:] = 0
                    _locate(slices, r, x, y, begin, count, limit, half, index, fx, fy, fz, sign)
                    _gather(volume, half, count, index, fx, fy, fz, sign, work[PROJECTION_RE], work[PROJECTION_IM])
                    for run in range(slice_ptr[r], slice_ptr[r + 1]):
                        i = np.int64(run_particle[run])
                        work[PHASE_RE:] = 0
                        sums[:] = 0
                        total = np.float32(0)
                        for k in range(run_ptr[run], run_ptr[run + 1]):
                            total += weight[k]
                            start = np.int64(shift[k]) * width + begin
                            add_phases(table_re, table_im, start, weight[k], blocks, flat, PHASE_RE * _SUM_TILE, PHASE_IM * _SUM_TILE)
                        plane = 2 * i * width + begin
                        accumulate_tile(
                            unmasked, masked, model, plane, plane + width, i * width + begin, inverse_sigma2, strong, begin, total, blocks, flat,
                            _SUM_TILE, sums, premultiplied,
                        )  # fmt: skip
                        for n in range(4):
                            per_particle[thread, i, n] += sums[n]
                    for p in range(count):
                        pixel_cross[thread, begin + p] += work[CROSS, p]
                        pixel_power[thread, begin + p] += work[POWER, p]
                    _insert(out[thread], half, count, index, fx, fy, fz, sign, work[SLICE_RE], work[SLICE_IM], work[SLICE_WEIGHT])


def _padded(values: np.ndarray, width: int) -> np.ndarray:
    """Flat float32 copy of [..., pixels] with rows zero-padded to `width`, so that vector loops need no remainder."""
    out = np.zeros((*values.shape[:-1], width), np.float32)
    out[..., : values.shape[-1]] = values
    return out.reshape(-1)


def _padded_planes(values: torch.Tensor, width: int) -> np.ndarray:
    """Complex [n, pixels] as flat float32 [n, 2, width], real plane and imaginary plane."""
    out = torch.zeros((len(values), 2, width))
    out[:, 0, : values.shape[1]] = values.real
    out[:, 1, : values.shape[1]] = values.imag
    return out.numpy().reshape(-1)


def accumulate(
    volume: Volume, accumulator: Accumulator, slices: np.ndarray, samples: Samples, shifts: np.ndarray, unmasked: torch.Tensor,
    masked: torch.Tensor, model: torch.Tensor, inverse_sigma2: np.ndarray, strong: np.ndarray, pixels: PixelList, premultiplied: bool,
) -> Sums:  # fmt: skip
    """See `kernels.accumulate`; each thread takes a contiguous share of the slices and its own accumulator copy."""
    threads = len(accumulator.data)
    x, y = _circle(pixels)
    work = np.diff(samples.slice_ptr) + 8.0 * (np.diff(samples.slice_ptr) > 0)
    bounds = _share(np.add.reduceat(work, np.arange(0, len(work), _SIBLINGS)) if len(work) else work, threads)
    phases = shift_phases(shifts, pixels)
    width = (len(pixels) + 15) // 16 * 16
    pixel_sums = np.zeros((2, threads, len(pixels)), np.float64)
    per_particle = np.zeros((threads, len(masked), 4), np.float64)
    _accumulate(
        _flat(volume.data), accumulator.data.numpy().reshape(threads, -1), volume.half, _limit(volume), slices, samples.slice_ptr,
        samples.run_particle, samples.run_ptr, samples.shift, samples.weight, _padded(phases.real.numpy(), width),
        _padded(phases.imag.numpy(), width), _padded_planes(unmasked, width), _padded_planes(masked, width), _padded(model.numpy(), width),
        _padded(inverse_sigma2, width), _padded(strong, width), x, y, width, bounds, premultiplied, pixel_sums[0], pixel_sums[1], per_particle,
    )  # fmt: skip
    cross, power, strong_cross, strong_power = per_particle.sum(0).T
    return Sums(pixel_sums[0].sum(0), pixel_sums[1].sum(0), cross, power, strong_cross, strong_power)
