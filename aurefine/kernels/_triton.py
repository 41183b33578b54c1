"""Triton programs behind `kernels.cuda`: device code only, no torch; written for CUDA GPUs, also run by Triton's interpreter in the tests.

Complex arrays arrive as int64 pointers: one 8-byte load fetches both parts of a value. Pixels beyond the image's circle carry the frequency
1e9, so that the test against the volume's sphere drops them.
"""

from __future__ import annotations

import triton
import triton.language as tl

# What differs from one image size, batch or volume to the next: a program compiled anew where it can be divided by 16 would gain nothing.
_SIZES = ["pixels", "half", "target_half", "particles"]
_ROWS = ["images", "power", "unmasked", "masked", "model", "values", "weights"]  # parts of arrays, from any row on


@triton.jit
def _complex(pointer, offset, mask):
    """Real and imaginary part of complex64 values; 0 where masked."""
    value = tl.load(pointer + offset, mask=mask, other=0)
    return value.to(tl.int32).to(tl.float32, bitcast=True), (value >> 32).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def _locate(a0, a1, b0, b1, c0, c1, u, v, half, limit):
    """Voxel index below each point (a, b, c) . (u, v), its fractions, and the Friedel sign (0 outside the sphere)."""
    px = a0 * u + a1 * v
    py = b0 * u + b1 * v
    pz = c0 * u + c1 * v
    sign = tl.where(px * px + py * py + pz * pz <= limit, tl.where(px >= 0, 1.0, -1.0), 0.0)
    px *= sign
    py *= sign
    pz *= sign
    lx, ly, lz = tl.floor(px), tl.floor(py), tl.floor(pz)
    row = (lz.to(tl.int32) + half) * (2 * half + 1) + ly.to(tl.int32) + half
    index = row.to(tl.int64) * (half + 1) + lx.to(tl.int32)  # beyond 2^31 voxels from boxes of 813 pixels, padded twice, on
    return index, px - lx, py - ly, pz - lz, sign


@triton.jit
def _corner(fx, fy, fz, half, corner: tl.constexpr):
    """Weight and index offset of one of the 8 voxels around a point."""
    wx = fx if corner & 1 else 1 - fx
    wy = fy if corner & 2 else 1 - fy
    wz = fz if corner & 4 else 1 - fz
    offset = 0
    if corner & 1:
        offset += 1
    if corner & 2:
        offset += half + 1
    if corner & 4:
        offset += (half + 1) * (2 * half + 1)
    return wx * wy * wz, offset


@triton.jit
def _slice(volume, a0, a1, b0, b1, c0, c1, u, v, half, limit):
    """Real and imaginary part of the volume at the points of a slice, trilinear; 0 outside the sphere."""
    index, fx, fy, fz, sign = _locate(a0, a1, b0, b1, c0, c1, u, v, half, limit)
    re = tl.zeros(index.shape, tl.float32)
    im = tl.zeros(index.shape, tl.float32)
    for corner in tl.static_range(8):
        weight, offset = _corner(fx, fy, fz, half, corner)
        x, y = _complex(volume, index + offset, sign != 0)
        re += weight * x
        im += weight * y
    return re, im * sign


@triton.jit
def _scatter(target, a0, a1, b0, b1, c0, c1, u, v, re, im, weight, half, limit):
    """Add pixels (re, im, weight) to the 8 voxels around each point; pixels without weight are skipped.

    The four channels of a voxel lie side by side in the tile too, so that sm_90 sends them as one 128-bit reduction.
    """
    index, fx, fy, fz, sign = _locate(a0, a1, b0, b1, c0, c1, u, v, half, limit)
    keep = (sign != 0) & (weight > 0)
    channel = tl.arange(0, 4)[None, :]
    tail = tl.where(channel == 2, weight[:, None], 0.0)
    value = tl.where(channel == 0, re[:, None], tl.where(channel == 1, (im * sign)[:, None], tail))
    for corner in tl.static_range(8):
        share, offset = _corner(fx, fy, fz, half, corner)
        place = (index + offset) * 4
        tl.atomic_add(target + place[:, None] + channel, value * share[:, None], mask=keep[:, None] & (channel < 4), sem="relaxed")


@triton.jit(do_not_specialize=_SIZES, do_not_specialize_on_alignment=_ROWS)
def project(volume, slices, x, y, out, pixels, half, limit, plane_stride, pixel_stride, BLOCK: tl.constexpr):
    """One program: one block of pixels of one slice; neighbours in time are the same block of the next slices."""
    r = tl.program_id(0).to(tl.int64)
    p = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    live = p < pixels
    u, v = tl.load(x + p, mask=live, other=1e9), tl.load(y + p, mask=live, other=0.0)
    s = slices + 6 * r
    a0, a1, b0, b1, c0, c1 = tl.load(s), tl.load(s + 1), tl.load(s + 2), tl.load(s + 3), tl.load(s + 4), tl.load(s + 5)
    re, im = _slice(volume, a0, a1, b0, b1, c0, c1, u, v, half, limit)
    place = out + r * 2 * pixels + p * pixel_stride
    tl.store(place, re, mask=live)
    tl.store(place + plane_stride, im, mask=live)


@triton.jit(do_not_specialize=_SIZES, do_not_specialize_on_alignment=_ROWS)
def score(
    volume, slices, pair_slice, shift_row, phases, images, power, x, y, tiles, out, pixels, half, limit,
    CORRELATION: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: scores of up to ROWS slices x COLUMNS shifts of one particle, summed over all its pixels block by block.

    A row of `tiles` (int64 [7]): particle, first pair, pairs, first entry of shift_row, shifts, where in out, row length there.
    """
    tile = tiles + 7 * tl.program_id(0).to(tl.int64)
    particle, first_pair, pairs, first_shift, shifts = tl.load(tile), tl.load(tile + 1), tl.load(tile + 2), tl.load(tile + 3), tl.load(tile + 4)
    row, column = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    s = slices + 6 * tl.load(pair_slice + first_pair + row, mask=row < pairs, other=0).to(tl.int64)[:, None]
    a0, a1, b0, b1, c0, c1 = tl.load(s), tl.load(s + 1), tl.load(s + 2), tl.load(s + 3), tl.load(s + 4), tl.load(s + 5)
    shift = tl.load(shift_row + first_shift + column, mask=column < shifts, other=0).to(tl.int64)
    cross = tl.zeros([ROWS, COLUMNS], tl.float32)
    norm = tl.zeros([ROWS], tl.float32)
    for begin in range(0, pixels, BLOCK):
        p = begin + tl.arange(0, BLOCK)
        live = p < pixels
        u, v = tl.load(x + p, mask=live, other=1e9)[None, :], tl.load(y + p, mask=live, other=0.0)[None, :]
        re, im = _slice(volume, a0, a1, b0, b1, c0, c1, u, v, half, limit)
        value_re, value_im = _complex(images, particle * pixels + p, live)
        er, ei = _complex(phases, shift[None, :] * pixels + p[:, None], live[:, None])
        shifted_re = value_re[:, None] * er - value_im[:, None] * ei
        shifted_im = value_re[:, None] * ei + value_im[:, None] * er
        cross = tl.dot(re, shifted_re, cross, input_precision=PRECISION)
        cross = tl.dot(im, shifted_im, cross, input_precision=PRECISION)
        norm += tl.sum(tl.load(power + particle * pixels + p, mask=live, other=0.0)[None, :] * (re * re + im * im), 1)
    result = cross / tl.sqrt(norm + 1e-30)[:, None] if CORRELATION else cross - 0.5 * norm[:, None]
    place = tl.load(tile + 5) + row[:, None] * tl.load(tile + 6) + column[None, :]
    tl.store(out + place, result, mask=(row < pairs)[:, None] & (column < shifts)[None, :])


@triton.jit(do_not_specialize=_SIZES, do_not_specialize_on_alignment=_ROWS)
def score_children(
    volume, slices, pair_particle, pair_shift, phases, images, power, x, y, tiles, out, pixels, rotations, shifts, half, limit,
    CORRELATION: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: COLUMNS (pair, child shift) columns of one coarse rotation against ROWS of its children, summed over all pixels.

    A row of `tiles` (int64 [4]): coarse rotation, first pair, pairs, first child rotation.
    """
    tile = tiles + 4 * tl.program_id(0).to(tl.int64)
    rotation, first, pairs, child = tl.load(tile), tl.load(tile + 1), tl.load(tile + 2), tl.load(tile + 3)
    row, column = child + tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    s = slices + 6 * (rotation * rotations + tl.minimum(row, rotations - 1))[None, :]
    a0, a1, b0, b1, c0, c1 = tl.load(s), tl.load(s + 1), tl.load(s + 2), tl.load(s + 3), tl.load(s + 4), tl.load(s + 5)
    used = column < pairs * shifts
    pair = first + column // shifts
    particle = tl.load(pair_particle + pair, mask=used, other=0).to(tl.int64) * pixels
    shift = (tl.load(pair_shift + pair, mask=used, other=0).to(tl.int64) * shifts + column % shifts) * pixels
    cross = tl.zeros([COLUMNS, ROWS], tl.float32)
    norm = tl.zeros([COLUMNS, ROWS], tl.float32)
    for begin in range(0, pixels, BLOCK):
        p = begin + tl.arange(0, BLOCK)
        live = p < pixels
        u, v = tl.load(x + p, mask=live, other=1e9)[:, None], tl.load(y + p, mask=live, other=0.0)[:, None]
        re, im = _slice(volume, a0, a1, b0, b1, c0, c1, u, v, half, limit)
        every = used[:, None] & live[None, :]
        value_re, value_im = _complex(images, particle[:, None] + p[None, :], every)
        er, ei = _complex(phases, shift[:, None] + p[None, :], every)
        cross = tl.dot(value_re * er - value_im * ei, re, cross, input_precision=PRECISION)
        cross = tl.dot(value_re * ei + value_im * er, im, cross, input_precision=PRECISION)
        weight = tl.load(power + particle[:, None] + p[None, :], mask=every, other=0.0)
        norm = tl.dot(weight, re * re + im * im, norm, input_precision=PRECISION)
    result = cross / tl.sqrt(norm + 1e-30) if CORRELATION else cross - 0.5 * norm
    place = (pair * rotations)[:, None] * shifts + row[None, :] * shifts + (column % shifts)[:, None]
    tl.store(out + place, result, mask=used[:, None] & (row < rotations)[None, :])


@triton.jit(do_not_specialize=_SIZES, do_not_specialize_on_alignment=_ROWS)
def insert(target, slices, values, weights, x, y, pixels, half, limit, BLOCK: tl.constexpr):
    """One program: one block of pixels of one slice, added to the accumulator."""
    r = tl.program_id(0).to(tl.int64)
    p = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    live = p < pixels
    u, v = tl.load(x + p, mask=live, other=1e9), tl.load(y + p, mask=live, other=0.0)
    s = slices + 6 * r
    a0, a1, b0, b1, c0, c1 = tl.load(s), tl.load(s + 1), tl.load(s + 2), tl.load(s + 3), tl.load(s + 4), tl.load(s + 5)
    re, im = _complex(values, r * pixels + p, live)
    weight = tl.load(weights + r * pixels + p, mask=live, other=0.0)
    _scatter(target, a0, a1, b0, b1, c0, c1, u, v, re, im, weight, half, limit)


@triton.jit
def _phase(phases, shift, weight, begin, end, p, live, pixels, BLOCK: tl.constexpr):
    """Sum over the samples begin..end of w exp(-i k.d), and the sum of w."""
    re = tl.zeros([BLOCK], tl.float32)
    im = tl.zeros([BLOCK], tl.float32)
    total = tl.zeros([1], tl.float32)
    for k in range(begin, end):
        w = tl.load(weight + k)
        er, ei = _complex(phases, tl.load(shift + k).to(tl.int64) * pixels + p, live)
        re += w * er
        im += w * ei
        total += w
    return re, im, total


@triton.jit(do_not_specialize=_SIZES, do_not_specialize_on_alignment=_ROWS)
def accumulate(
    volume, target, slices, bounds, slice_ptr, run_particle, run_ptr, shift, weight, phases, unmasked, masked, model, inverse, strong, x, y,
    pixel_sums, particle_sums, pixels, particles, half, limit, target_half, target_limit, PREMULTIPLIED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: one block of pixels of a contiguous share of the slices, whose per-pixel statistics it keeps in float64 registers.

    pixel_sums float64 [shares, 2, pixels]; particle_sums float64 [4, particles], added to atomically.
    """
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    share = tl.program_id(1)
    live = p < pixels
    u, v = tl.load(x + p, mask=live, other=1e9), tl.load(y + p, mask=live, other=0.0)
    sigma, flag = tl.load(inverse + p, mask=live, other=0.0), tl.load(strong + p, mask=live, other=0.0)
    cross_sum = tl.zeros([BLOCK], tl.float64)
    power_sum = tl.zeros([BLOCK], tl.float64)
    for r in range(tl.load(bounds + share), tl.load(bounds + share + 1)):
        first, last = tl.load(slice_ptr + r), tl.load(slice_ptr + r + 1)
        if last > first:
            s = slices + 6 * r
            a0, a1, b0, b1, c0, c1 = tl.load(s), tl.load(s + 1), tl.load(s + 2), tl.load(s + 3), tl.load(s + 4), tl.load(s + 5)
            ar, ai = _slice(volume, a0, a1, b0, b1, c0, c1, u, v, half, limit)
            square = ar * ar + ai * ai
            sr = tl.zeros([BLOCK], tl.float32)
            si = tl.zeros([BLOCK], tl.float32)
            sw = tl.zeros([BLOCK], tl.float32)
            for run in range(first, last):
                i = tl.load(run_particle + run).to(tl.int64)
                here = i * pixels + p
                fr, fi, total = _phase(phases, shift, weight, tl.load(run_ptr + run), tl.load(run_ptr + run + 1), p, live, pixels, BLOCK)
                m = tl.load(model + here, mask=live, other=0.0)
                gain = sigma if PREMULTIPLIED else sigma * m
                re, im = _complex(unmasked, here, live)
                sr += gain * (re * fr - im * fi)
                si += gain * (re * fi + im * fr)
                sw += total * gain * m
                re, im = _complex(masked, here, live)
                cross = m * (ar * (re * fr - im * fi) + ai * (re * fi + im * fr))
                power = total * m * m * square
                cross_sum += cross.to(tl.float64)
                power_sum += power.to(tl.float64)
                tl.atomic_add(particle_sums + i, tl.sum(cross, 0).to(tl.float64), sem="relaxed")
                tl.atomic_add(particle_sums + particles + i, tl.sum(power, 0).to(tl.float64), sem="relaxed")
                tl.atomic_add(particle_sums + 2 * particles + i, tl.sum(cross * flag, 0).to(tl.float64), sem="relaxed")
                tl.atomic_add(particle_sums + 3 * particles + i, tl.sum(power * flag, 0).to(tl.float64), sem="relaxed")
            _scatter(target, a0, a1, b0, b1, c0, c1, u, v, sr, si, sw, target_half, target_limit)
    place = pixel_sums + share.to(tl.int64) * 2 * pixels + p
    tl.store(place, cross_sum, mask=live)
    tl.store(place + pixels, power_sum, mask=live)
