"""Numba kernels for the CPU: trilinear slices with 128-bit loads, pixel tile outside, rotations inside, shifts vectorised."""

from __future__ import annotations

import numba
import numpy as np
import torch
from numba import njit, prange

from aurefine.fourier import PixelList
from aurefine.kernels import Accumulator, Samples, Sums, Volume
from aurefine.kernels._vector import add_pair, interpolate

_TILE = 128  # pixels whose coordinates, slices and shifted images stay in the first-level cache
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
        fx, fy, fz, sign = np.empty((4, _TILE), np.float32)
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


@njit(fastmath=True, cache=True, inline="always")
def _multiply(re, im, xr, xi, count, width, row):
    """row[t] += sum_q re[q] xr[q, t] + im[q] xi[q, t]; four pixels at a time so that the sums stay in registers longer."""
    for q in range(0, count, 4):
        r0, r1, r2, r3 = re[q], re[q + 1], re[q + 2], re[q + 3]
        i0, i1, i2, i3 = im[q], im[q + 1], im[q + 2], im[q + 3]
        for t in range(width):
            row[t] += (
                r0 * xr[q, t] + i0 * xi[q, t] + r1 * xr[q + 1, t] + i1 * xi[q + 1, t]
                + r2 * xr[q + 2, t] + i2 * xi[q + 2, t] + r3 * xr[q + 3, t] + i3 * xi[q + 3, t]
            )  # fmt: skip


@njit(parallel=True, fastmath=True, cache=True)
def _score(
    volume, half, limit, slices, pair_ptr, pair_slice, image, power, shift_ptr, shift_row, table_x, table_y, x, y, kx, ky, out, out_ptr, correlation, threads,
):  # fmt: skip
    particles, pixels = image.shape
    for thread in prange(threads):
        index = np.empty(_TILE, np.int32)
        fx, fy, fz, sign = np.empty((4, _TILE), np.float32)
        re, im = np.zeros((2, _TILE), np.float32)
        for i in range(thread, particles, threads):
            rows = shift_row[shift_ptr[i] : shift_ptr[i + 1]]
            first, n = pair_ptr[i], pair_ptr[i + 1] - pair_ptr[i]
            width = (len(rows) + 7) // 8 * 8
            sums = np.zeros((n, width), np.float32)
            half_power = np.zeros(n, np.float32)
            xr, xi = np.zeros((2, _TILE, width), np.float32)
            ex_re, ex_im = np.empty((2, table_x.shape[1], width), np.float32)
            ey_re, ey_im = np.empty((2, table_y.shape[1], width), np.float32)
            _compact(table_x, rows, ex_re, ex_im)
            _compact(table_y, rows, ey_re, ey_im)
            for begin in range(0, pixels, _TILE):
                count = min(_TILE, pixels - begin)
                _shifted_tile(image, i, begin, count, kx, ky, ky[0], width, ex_re, ex_im, ey_re, ey_im, xr, xi)
                re[:] = 0
                im[:] = 0
                for r in range(n):
                    _locate(slices, pair_slice[first + r], x, y, begin, count, limit, half, index, fx, fy, fz, sign)
                    _gather(volume, half, count, index, fx, fy, fz, sign, re, im)
                    total = np.float32(0)
                    for q in range(count):
                        total += power[i, begin + q] * (re[q] * re[q] + im[q] * im[q])
                    half_power[r] += np.float32(0.5) * total
                    _multiply(re, im, xr, xi, count, width, sums[r])
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


@njit(fastmath=True, cache=True)
def _phase(begin, end, shift, weight, table_x, table_y, rows, re, im):
    """re + i im [pixels] = sum over the run's samples of w exp(-i k.d), built from separable factors row by row."""
    re[:] = 0
    im[:] = 0
    for k in range(begin, end):
        w, t = weight[k], shift[k]
        for j in range(len(rows) - 1):
            x0, start, stop = rows[j, 1], rows[j, 2], rows[j + 1, 2]
            fr, fi = w * table_y[t, j].real, w * table_y[t, j].imag
            for p in range(start, stop):
                e = table_x[t, p - start + x0]
                re[p] += fr * e.real - fi * e.imag
                im[p] += fr * e.imag + fi * e.real


@njit(fastmath=True, cache=True)
def _insert(out, half, limit, slices, r, x, y, re, im, weight):
    """Add one slice to an accumulator copy (flat float32, 4 values a voxel) with trilinear weights; pixels without weight are skipped."""
    stride_y = np.int64(4 * (half + 1))
    stride_z = stride_y * (2 * half + 1)
    a0, a1, b0, b1, c0, c1 = slices[r, 0, 0], slices[r, 0, 1], slices[r, 1, 0], slices[r, 1, 1], slices[r, 2, 0], slices[r, 2, 1]
    for p in range(len(x)):
        u, v = x[p], y[p]
        px, py, pz = a0 * u + a1 * v, b0 * u + b1 * v, c0 * u + c1 * v
        if weight[p] <= 0 or px * px + py * py + pz * pz > limit:
            continue
        friedel = np.float32(1.0) if px >= 0 else np.float32(-1.0)
        px, py, pz = px * friedel, py * friedel, pz * friedel
        lx, ly, lz = np.floor(px), np.floor(py), np.floor(pz)
        fx, fy, fz = px - lx, py - ly, pz - lz
        i = (np.int64(lz) + half) * stride_z + (np.int64(ly) + half) * stride_y + np.int64(lx) * 4
        gx, one = np.float32(1.0) - fx, np.float32(1.0)
        imaginary = im[p] * friedel
        for corner in range(4):
            w = (fy if corner & 1 else one - fy) * (fz if corner & 2 else one - fz)
            offset = i + (stride_y if corner & 1 else 0) + (stride_z if corner & 2 else 0)
            add_pair(out, offset, re[p], imaginary, weight[p], w * gx, w * fx)


@njit(parallel=True, fastmath=True, cache=True)
def _accumulate(
    volume, out, half, limit, slices, slice_ptr, run_particle, run_ptr, shift, weight, table_x, table_y, unmasked, masked, model,
    inverse_sigma2, strong, x, y, rows, bounds, premultiplied, pixel_cross, pixel_power, per_particle,
):  # fmt: skip
    pixels = len(x)
    for thread in prange(len(bounds) - 1):
        index = np.empty(pixels, np.int32)
        fx, fy, fz, sign = np.empty((4, pixels), np.float32)
        ar, ai, sr, si, sw, pr, pi = np.empty((7, pixels), np.float32)
        cross_sum, power_sum = pixel_cross[thread], pixel_power[thread]
        for r in range(bounds[thread], bounds[thread + 1]):
            if slice_ptr[r] == slice_ptr[r + 1]:
                continue
            _locate(slices, r, x, y, 0, pixels, limit, half, index, fx, fy, fz, sign)
            _gather(volume, half, pixels, index, fx, fy, fz, sign, ar, ai)
            sr[:] = 0
            si[:] = 0
            sw[:] = 0
            for run in range(slice_ptr[r], slice_ptr[r + 1]):
                i = run_particle[run]
                _phase(run_ptr[run], run_ptr[run + 1], shift, weight, table_x, table_y, rows, pr, pi)
                total = np.float32(0)
                for k in range(run_ptr[run], run_ptr[run + 1]):
                    total += weight[k]
                cross_all = power_all = cross_strong = power_strong = np.float32(0)
                for p in range(pixels):
                    a, b = unmasked[i, p].real, unmasked[i, p].imag
                    m = model[i, p]
                    gain = inverse_sigma2[p] * (np.float32(1.0) if premultiplied else m)
                    sr[p] += gain * (a * pr[p] - b * pi[p])
                    si[p] += gain * (a * pi[p] + b * pr[p])
                    sw[p] += total * gain * m
                    c, d = masked[i, p].real, masked[i, p].imag
                    cross = m * (ar[p] * (c * pr[p] - d * pi[p]) + ai[p] * (c * pi[p] + d * pr[p]))
                    power = total * m * m * (ar[p] * ar[p] + ai[p] * ai[p])
                    cross_sum[p] += cross
                    power_sum[p] += power
                    cross_all += cross
                    power_all += power
                    cross_strong += strong[p] * cross
                    power_strong += strong[p] * power
                per_particle[thread, 0, i] += cross_all
                per_particle[thread, 1, i] += power_all
                per_particle[thread, 2, i] += cross_strong
                per_particle[thread, 3, i] += power_strong
            _insert(out[thread], half, limit, slices, r, x, y, sr, si, sw)


def accumulate(
    volume: Volume, accumulator: Accumulator, slices: np.ndarray, samples: Samples, shifts: np.ndarray, unmasked: torch.Tensor,
    masked: torch.Tensor, model: torch.Tensor, inverse_sigma2: np.ndarray, strong: np.ndarray, pixels: PixelList, premultiplied: bool,
) -> Sums:  # fmt: skip
    """See `kernels.accumulate`; each thread takes a contiguous share of the slices and its own accumulator copy."""
    threads = len(accumulator.data)
    x, y = _circle(pixels)
    work = np.cumsum(np.diff(samples.slice_ptr) + 2.0 * (np.diff(samples.slice_ptr) > 0))
    bounds = np.concatenate([[0], np.searchsorted(work, work[-1] * np.arange(1, threads) / threads), [len(slices)]]).astype(np.int64)
    pixel_sums = np.zeros((2, threads, len(pixels)), np.float64)
    per_particle = np.zeros((threads, 4, len(masked)), np.float64)
    _accumulate(
        _flat(volume.data), accumulator.data.numpy().reshape(threads, -1), volume.half, _limit(volume), slices, samples.slice_ptr,
        samples.run_particle, samples.run_ptr, samples.shift, samples.weight, *_phase_tables(shifts, pixels), unmasked.numpy(), masked.numpy(), model.numpy(),
        inverse_sigma2, strong.astype(np.float32), x, y, pixels.rows, bounds, premultiplied,
        pixel_sums[0], pixel_sums[1], per_particle,
    )  # fmt: skip
    cross, power, strong_cross, strong_power = per_particle.sum(0)
    return Sums(pixel_sums[0].sum(0), pixel_sums[1].sum(0), cross, power, strong_cross, strong_power)
