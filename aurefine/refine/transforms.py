"""From map to projector and back: padding, pruned transforms, gridding correction (ALGORITHM.md 3.1, 3.9).

Only the sphere in use is ever held: transforms are pruned, one axis at a time, so that a padded cube is never built whole.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numba import njit, prange

from aurefine import mask
from aurefine.kernels import Volume


def padded_size(box: int, padding: float) -> int:
    """Even size of the padded box."""
    size = int(padding * box + 0.5)
    return size + size % 2


@lru_cache(maxsize=1)
def gridding_correction(box: int, padded: int) -> np.ndarray:
    """float32 [box, box, box]: sinc^2 of the radius, the transform of trilinear interpolation; read-only."""
    correction = np.sinc(mask.radius_grid(box, 3) / padded).astype(np.float32) ** 2
    correction.setflags(write=False)
    return correction


def _turns(count: int, first: int, origin: float, padded: int) -> np.ndarray:
    """complex64 exp(2 pi i k origin / padded) of the frequencies k = first, first + 1, ..."""
    return np.exp(2j * np.pi * np.arange(first, first + count) * origin / padded).astype(np.complex64)


@njit(nogil=True, parallel=True, cache=True, fastmath=True)
def _turn(data, along_z, along_y, along_x):
    """In place, complex data [z, y, x] times a factor of each axis."""
    for iz in prange(data.shape[0]):
        for iy in range(data.shape[1]):
            across = along_z[iz] * along_y[iy]
            for ix in range(data.shape[2]):
                data[iz, iy, ix] *= across * along_x[ix]


def projector(volume: np.ndarray, r_max: int, padding: float, left_out: int = 0) -> Volume:
    """Padded transform of a map [box^3] up to r_max shells, scaled so that a slice equals a projection's transform (ALGORITHM.md 3.1).

    Everything up to shell `left_out` is zero if that is positive (--strict_lowres_exp).
    """
    box = volume.shape[0]
    padded = padded_size(box, padding)
    padding = padded / box
    h = int(padding * r_max + 0.5) + 1
    below, above = min(h, padded // 2 - 1), min(h, padded // 2)  # frequencies that exist: -below .. above
    data = torch.fft.rfft(torch.from_numpy(np.divide(volume, gridding_correction(box, padded), dtype=np.float32)), n=padded, dim=2)
    data = data[:, :, : above + 1].contiguous()
    # a phase before a transform moves its output: frequency -below becomes the first
    start = _turns(box, 0, below, padded)
    _turn(data.numpy(), start, start, np.full(above + 1, padding**3 * box / padded**3, np.complex64))
    for dim in (1, 0):
        data = torch.fft.fft(data, n=padded, dim=dim).narrow(dim, 0, below + above + 1)
    out = np.empty((2 * h + 1, 2 * h + 1, h + 1), np.complex64)
    centre = _turns(2 * h + 1, -h, box // 2, padded)  # of the map, which is index box / 2, not 0
    _cut_sphere(data.numpy(), h - below, centre, int(padding * r_max + 0.5), int(padding * left_out + 0.5) if left_out > 0 else -1, out)
    return Volume(torch.from_numpy(out), r_max, padding)


@njit(nogil=True, parallel=True, cache=True, fastmath=True)
def _cut_sphere(data, first, centre, radius, left_out, out):
    """out[z, y, x] = data[z - first, y - first, x] times the phases of the centre, within a sphere, and outside the radius `left_out` if >= 0."""
    size, width = out.shape[0], out.shape[2]
    h = width - 1
    for iz in prange(size):
        for iy in range(size):
            across = (iz - h) ** 2 + (iy - h) ** 2
            phase = centre[iz] * centre[iy]
            inside = 0 <= iz - first < data.shape[0] and 0 <= iy - first < data.shape[1]
            for ix in range(width):
                square = across + ix * ix
                if inside and ix < data.shape[2] and square <= radius * radius and (left_out < 0 or square > left_out * left_out):
                    out[iz, iy, ix] = data[iz - first, iy - first, ix] * (phase * centre[h + ix])
                else:
                    out[iz, iy, ix] = 0


def inverse(data: torch.Tensor, box: int, padding: float) -> np.ndarray:
    """float32 map [box^3] of a centred half transform complex64 [2h+1, 2h+1, h+1]; undoes the scaling of `projector`. `data` is overwritten."""
    padded, h = padded_size(box, padding), data.shape[2] - 1
    columns = min(h, padded // 2) + 1
    data = data[:, :, :columns]
    data = data if data.is_contiguous() else data.contiguous()
    turns = _turns(2 * h + 1, -h, -(box // 2), padded)  # the centre of the map is to be index box / 2
    _turn(data.numpy(), turns, turns, turns[h : h + columns] * np.float32(1 / (padding**3 * box)))
    for dim in (0, 1):
        surplus = 2 * h + 1 - padded
        if surplus > 0:  # frequencies that are the same in the padded box
            data.narrow(dim, 0, surplus).add_(data.narrow(dim, padded, surplus))
            data = data.narrow(dim, 0, padded)
        data = torch.fft.ifft(data, n=padded, dim=dim, norm="forward").narrow(dim, 0, box)
    first = _turns(box, 0, -h, padded)  # the first frequency was -h, not 0
    data = data.contiguous()
    _turn(data.numpy(), first, first, np.ones(columns, np.complex64))
    return torch.fft.irfft(data, n=padded, dim=2, norm="forward").narrow(2, 0, box).contiguous().numpy()
