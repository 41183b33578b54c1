"""Scores on the CPU of the children of significant pairs: the fine pass."""

from __future__ import annotations

import numba
import numpy as np
from numba import njit, prange

from aurefine.kernels import shift_phases
from aurefine.kernels._vector import children_dot, interleave8, shift_tile, weighted_sum8
from aurefine.kernels.cpu_tiles import TILE, Frequencies, flat, limit, padded, planes, project_tile, scratch, share

_GROUP_ROTATIONS, _GROUP_PAIRS = 8, 256  # what is worked on together, tile by tile


@njit(fastmath=True, cache=True, inline="always")
def _project_children(volume, half, radius, slices, u, n_rot, x, y, begin, count, index, located, work, tile_re, tile_im, tile_square):
    """The projections of coarse rotation u's children, pixel by pixel with the children side by side, and their squares."""
    if n_rot == 8:
        for k in range(8):
            project_tile(volume, half, radius, slices, u * 8 + k, x, y, begin, count, index, located, work, 2 * k * TILE)
        interleave8(work, TILE, count, tile_re, tile_im, tile_square)
        return
    for k in range(n_rot):
        project_tile(volume, half, radius, slices, u * n_rot + k, x, y, begin, count, index, located, work, 0)
        for q in range(count):
            re, im = work[q], work[TILE + q]
            tile_re[q * n_rot + k], tile_im[q * n_rot + k], tile_square[q * n_rot + k] = re, im, re * re + im * im


@njit(fastmath=True, cache=True, inline="always")
def _block_dot(re, im, n_rot, xr, xi, count, n_shift, out, place):
    """Sums over one pixel tile for all rotations and shifts of a pair; [shift, rotation] order. Registers where there are 8 by 4 of them."""
    if n_rot == 8 and n_shift == 4:
        children_dot(re, im, xr, xi, TILE, count, out, place)
    elif n_rot == 8 and n_shift == 1:
        weighted_sum8(re, xr, 0, count, out, place)
        weighted_sum8(im, xi, 0, count, out, place)
    else:
        for j in range(n_shift):
            for k in range(n_rot):
                total = np.float32(0)
                for q in range(count):
                    total += re[q * n_rot + k] * xr[j * TILE + q] + im[q * n_rot + k] * xi[j * TILE + q]
                out[place + j * n_rot + k] += total


@njit(fastmath=True, cache=True, inline="always")
def _weighted_squares(square, n_rot, power, start, count, out, place):
    if n_rot == 8:
        weighted_sum8(square, power, start, count, out, place)
    else:
        for q in range(count):
            for k in range(n_rot):
                out[place + k] += power[start + q] * square[q * n_rot + k]


@njit(nogil=True, parallel=True, fastmath=True, cache=True)
def _score_children(
    volume, half, radius, slices, n_rot, rotation_ptr, pair_particle, pair_shift, images, power, table_re, table_im, n_shift, x, y, group_ptr, bounds,
    correlation, out,
):  # fmt: skip
    width = len(x)
    for thread in prange(len(bounds) - 1):
        index, located, work = scratch(16, TILE)
        tile_re, tile_im, tile_square = np.empty(TILE * n_rot, np.float32), np.empty(TILE * n_rot, np.float32), np.empty(TILE * n_rot, np.float32)
        xr, xi = np.empty(TILE * n_shift, np.float32), np.empty(TILE * n_shift, np.float32)
        for group in range(bounds[thread], bounds[thread + 1]):
            rotations = range(group_ptr[group], group_ptr[group + 1])
            first, last = rotation_ptr[group_ptr[group]], rotation_ptr[group_ptr[group + 1]]
            sums = np.zeros((last - first) * n_rot * n_shift, np.float32)
            squares = np.zeros((last - first) * n_rot, np.float32)
            for begin in range(0, width, TILE):
                count = min(TILE, width - begin)
                for u in rotations:
                    _project_children(volume, half, radius, slices, u, n_rot, x, y, begin, count, index, located, work, tile_re, tile_im, tile_square)
                    for pair in range(rotation_ptr[u], rotation_ptr[u + 1]):
                        i, place = np.int64(pair_particle[pair]), pair - first
                        if pair == rotation_ptr[u] or i != pair_particle[pair - 1]:  # a particle's pairs lie together: one power for all of them
                            _weighted_squares(tile_square, n_rot, power, i * width + begin, count, squares, place * n_rot)
                        plane, row = 2 * i * width + begin, np.int64(pair_shift[pair]) * n_shift * width + begin
                        for j in range(n_shift):
                            shift_tile(images, plane, plane + width, table_re, table_im, row + j * width, count, xr, xi, j * TILE)
                        _block_dot(tile_re, tile_im, n_rot, xr, xi, count, n_shift, sums, place * n_rot * n_shift)
            for u in rotations:
                owner = rotation_ptr[u] - first
                for pair in range(rotation_ptr[u], rotation_ptr[u + 1]):
                    place = pair - first
                    if pair > rotation_ptr[u] and pair_particle[pair] != pair_particle[pair - 1]:
                        owner = place
                    for k in range(n_rot):
                        norm = squares[owner * n_rot + k]
                        for j in range(n_shift):
                            value = sums[(place * n_shift + j) * n_rot + k]
                            if correlation:
                                out[pair, k, j] = value / np.sqrt(norm + np.float32(1e-30))
                            else:
                                out[pair, k, j] = value - np.float32(0.5) * norm


def score_children(
    volume, slices, n_rot, rotation_ptr, pair_particle, pair_shift, images, power, shifts, n_shift, pixels, correlation=False
) -> np.ndarray:
    """See `kernels.score_children`."""
    places = Frequencies.padded(pixels)
    width = len(places.x)
    phases = shift_phases(shifts, pixels)
    out = np.empty((len(pair_particle), n_rot, n_shift), np.float32)
    group_ptr = _groups(rotation_ptr, _GROUP_ROTATIONS, _GROUP_PAIRS)
    work = np.add.reduceat(np.diff(rotation_ptr) + 8.0, group_ptr[:-1]) if len(group_ptr) > 1 else np.zeros(0)
    _score_children(
        flat(volume.data), volume.half, limit(volume), slices.reshape(-1), n_rot, rotation_ptr, pair_particle, pair_shift, planes(images, width),
        padded(power.numpy(), width), padded(phases.real.numpy(), width), padded(phases.imag.numpy(), width), n_shift, places.x, places.y, group_ptr,
        share(work, 4 * numba.get_num_threads()), correlation, out,
    )  # fmt: skip
    return out


@njit(nogil=True, cache=True)
def _groups(rotation_ptr, most_rotations, most_pairs):
    """Borders of groups of consecutive rotations that are worked on together."""
    borders = [0]
    for u in range(1, len(rotation_ptr)):
        full = u - borders[-1] == most_rotations or (u < len(rotation_ptr) - 1 and rotation_ptr[u + 1] - rotation_ptr[borders[-1]] > most_pairs)
        if full or u == len(rotation_ptr) - 1:
            borders.append(u)
    return np.array(borders)
