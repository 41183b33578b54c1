"""From map to projector and back: padding, pruned transforms, gridding correction (ALGORITHM.md 3.1, 3.9).

Only the sphere in use is ever held: transforms are pruned, one axis at a time and a few planes at a time, so that a padded cube is never built whole.
Every transform runs along lines that lie whole in memory: turning a block of planes round in the cache is cheaper than a transform across them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numba import njit, prange

from aurefine.kernels import Volume
from aurefine.refine import radial

_BLOCK = 16  # planes turned round at a time: two cache lines of complex numbers
_TILE = 8  # complex numbers of a cache line: what is turned round goes tile by tile, as strides are often powers of two


def padded_size(box: int, padding: float) -> int:
    """Even size of the padded box."""
    size = int(padding * box + 0.5)
    return size + size % 2


def _turns(count: int, first: int, origin: float, padded: int) -> np.ndarray:
    """complex64 exp(2 pi i k origin / padded) of the frequencies k = first, first + 1, ..."""
    return np.exp(2j * np.pi * np.arange(first, first + count) * origin / padded).astype(np.complex64)


def _blocks(count: int) -> list[tuple[int, int]]:
    return [(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK)]


@njit(nogil=True, parallel=True, cache=True, fastmath=True)
def _lines(planes, along, across, period, out):
    """out[a, c, b % period] += planes[a, b, c] * along[a] * across[b]: lines along the middle axis; out is zero before."""
    for a in prange(planes.shape[0]):
        for start in range(0, planes.shape[1], _TILE):
            end = min(start + _TILE, planes.shape[1])
            for c in range(planes.shape[2]):
                for b in range(start, end):
                    out[a, c, b % period] += planes[a, b, c] * (along[a] * across[b])


@njit(nogil=True, parallel=True, cache=True)
def _last_first(lines, start, out):
    """out[b, c, start + a] = lines[a, b, c], as much of each line as out has."""
    for b in prange(out.shape[0]):
        for low in range(0, lines.shape[0], _TILE):
            high = min(low + _TILE, lines.shape[0])
            for c in range(out.shape[1]):
                for a in range(low, high):
                    out[b, c, start + a] = lines[a, b, c]


def projector(volume: np.ndarray, r_max: int, padding: float, left_out: int = 0) -> Volume:
    """Padded transform of a map [box^3] up to r_max shells, scaled so that a slice equals a projection's transform (ALGORITHM.md 3.1).

    Everything up to shell `left_out` is zero if that is positive (--strict_lowres_exp).
    """
    box = volume.shape[0]
    padded = padded_size(box, padding)
    padding = padded / box
    h = int(padding * r_max + 0.5) + 1
    below, above = min(h, padded // 2 - 1), min(h, padded // 2)  # frequencies that exist: -below .. above
    correction = radial.gridding_correction(box, padded)
    # a phase before a transform moves its output: frequency -below becomes the first
    start = _turns(box, 0, below, padded)
    scaled = start * np.float32(padding**3 * box / padded**3)
    columns = np.empty((above + 1, below + above + 1, box), np.complex64)  # [x, y, z], frequencies along x and y
    for first, last in _blocks(box):
        corrected = torch.from_numpy(radial.divided(volume[first:last], first, correction))
        planes = torch.fft.rfft(corrected, n=padded, dim=2).numpy()[:, :, : above + 1]
        lines = np.zeros((last - first, above + 1, padded), np.complex64)
        _lines(planes, start[first:last], scaled, padded, lines)
        _last_first(torch.fft.fft(torch.from_numpy(lines), dim=2).numpy(), first, columns)
    out = np.empty((2 * h + 1, 2 * h + 1, h + 1), np.complex64)
    centre = _turns(2 * h + 1, -h, box // 2, padded)  # of the map, which is index box / 2, not 0
    inner = int(padding * left_out + 0.5) if left_out > 0 else -1
    lines = np.zeros((_BLOCK, columns.shape[1], padded), np.complex64)
    for first, last in _blocks(h + 1):
        there = max(min(last, above + 1) - first, 0)
        lines[:there, :, :box] = columns[first : first + there]
        transformed = torch.fft.fft(torch.from_numpy(lines[:there]), dim=2).numpy() if there else lines[:0]
        _cut_sphere(transformed, first, h - below, below + above + 1, centre, int(padding * r_max + 0.5), inner, out[:, :, first:last])
    return Volume(torch.from_numpy(out), r_max, padding)


@njit(nogil=True, parallel=True, cache=True, fastmath=True)
def _cut_sphere(lines, left, first, count, centre, radius, inner, out):
    """out[z, y, x] = lines[x, y - first, z - first] times the phases of the centre, within a sphere, and outside the radius `inner` if >= 0.

    x is counted from `left`; frequencies first .. first + count - 1 exist along z and y; what no line is given for is zero.
    """
    size, width = out.shape[0], out.shape[2]
    h = (size - 1) // 2
    for iy in prange(size):
        line_there = 0 <= iy - first < count
        for start in range(0, size, _TILE):
            end = min(start + _TILE, size)
            for ix in range(width):
                phase = centre[iy] * centre[h + left + ix]
                across = (iy - h) ** 2 + (left + ix) ** 2
                there = line_there and ix < len(lines) and across <= radius * radius
                for iz in range(start, end):
                    square = across + (iz - h) ** 2
                    if there and 0 <= iz - first < count and square <= radius * radius and (inner < 0 or square > inner * inner):
                        out[iz, iy, ix] = lines[ix, iy - first, iz - first] * (phase * centre[iz])
                    else:
                        out[iz, iy, ix] = 0


def inverse(planes: Callable[[int, int, int], np.ndarray], h: int, box: int, padding: float) -> np.ndarray:
    """float32 map [box^3] of a centred half transform; undoes the scaling of `projector`.

    planes(first, last, columns) gives complex64 [last - first, 2h+1, columns]: of the planes y = first .. last - 1 (counted from -h) all z and the
    first x, so that the transform need not be held as a whole.
    """
    padded = padded_size(box, padding)
    columns = min(h, padded // 2) + 1
    turns = _turns(2 * h + 1, -h, -(box // 2), padded)  # the centre of the map is to be index box / 2
    scaled = turns * np.float32(1 / (padding**3 * box))
    first_turn = _turns(box, 0, -h, padded)  # the first frequency was -h, not 0
    rows = np.empty((2 * h + 1, columns, box), np.complex64)  # [y, x, z]: places along z
    for first, last in _blocks(2 * h + 1):
        lines = np.zeros((last - first, columns, padded), np.complex64)
        _lines(planes(first, last, columns), turns[first:last], scaled, padded, lines)
        rows[first:last] = torch.fft.ifft(torch.from_numpy(lines), dim=2, norm="forward")[:, :, :box].numpy()
    out = np.empty((box, box, box), np.float32)
    for first, last in _blocks(box):
        lines = np.zeros((last - first, columns, padded), np.complex64)
        _crossed(rows, first, first_turn, turns[h : h + columns], padded, lines)
        places = torch.fft.ifft(torch.from_numpy(lines), dim=2, norm="forward").numpy()
        halves = np.empty((last - first, box, columns), np.complex64)
        _back(places, first_turn, halves)
        out[first:last] = torch.fft.irfft(torch.from_numpy(halves), n=padded, dim=2, norm="forward")[:, :, :box].numpy()
    return out


@njit(nogil=True, parallel=True, cache=True, fastmath=True)
def _crossed(rows, first, along, across, period, out):
    """out[a, x, y % period] += rows[y, x, first + a] * along[first + a] * across[x]; frequencies that are the same in the padded box meet."""
    for x in prange(rows.shape[1]):
        for start in range(0, rows.shape[0], _TILE):
            end = min(start + _TILE, rows.shape[0])
            for a in range(out.shape[0]):
                factor = along[first + a] * across[x]
                for y in range(start, end):
                    out[a, x, y % period] += rows[y, x, first + a] * factor


@njit(nogil=True, parallel=True, cache=True, fastmath=True)
def _back(lines, along, out):
    """out[a, y, x] = lines[a, x, y] * along[y]."""
    for a in prange(out.shape[0]):
        for start in range(0, out.shape[2], _TILE):
            end = min(start + _TILE, out.shape[2])
            for y in range(out.shape[1]):
                for x in range(start, end):
                    out[a, y, x] = lines[a, x, y] * along[y]
