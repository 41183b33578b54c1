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


def _axis_phase(frequency: np.ndarray, box: int, padded: int, factor: float = 1.0) -> torch.Tensor:
    """complex64: moves the origin of a transform from index 0 to the centre box/2 of the unpadded map, times a factor."""
    return torch.from_numpy((factor * np.exp(2j * np.pi * frequency * (box // 2) / padded)).astype(np.complex64))


def _along(dim: int, values: torch.Tensor) -> torch.Tensor:
    """A vector that broadcasts along one of three axes."""
    return values.view([-1 if axis == dim else 1 for axis in range(3)])


def projector(volume: np.ndarray, r_max: int, padding: float, left_out: int = 0) -> Volume:
    """Padded transform of a map [box^3] up to r_max shells, scaled so that a slice equals a projection's transform (ALGORITHM.md 3.1).

    Everything up to shell `left_out` is zero if that is positive (--strict_lowres_exp).
    """
    box = volume.shape[0]
    padded = padded_size(box, padding)
    padding = padded / box
    h = int(padding * r_max + 0.5) + 1
    above, below = min(h, padded // 2), min(h, padded // 2 - 1)  # frequencies that exist
    data = torch.from_numpy(np.divide(volume, gridding_correction(box, padded), dtype=np.float32))
    data = torch.fft.rfft(data, n=padded, dim=2)[:, :, : above + 1]
    data = data * _axis_phase(np.arange(above + 1), box, padded, padding**3 * box / padded**3)
    for dim in (1, 0):
        whole = torch.fft.fft(data, n=padded, dim=dim)
        shape = list(data.shape)
        shape[dim] = 2 * h + 1
        if dim == 0:
            shape = [2 * h + 1, 2 * h + 1, h + 1]  # the volume itself: frequencies that do not exist stay zero
        data = torch.zeros(shape, dtype=torch.complex64)
        inside = data if dim == 1 else data[:, :, : above + 1]
        _along_copy(whole, inside, dim, 0, h, above + 1, box, padded)
        _along_copy(whole, inside, dim, -below, h, below, box, padded)
    _empty_outside(torch.view_as_real(data).numpy(), int(padding * r_max + 0.5), int(padding * left_out + 0.5) if left_out > 0 else -1)
    return Volume(data, r_max, padding)


def _along_copy(source: torch.Tensor, target: torch.Tensor, dim: int, first: int, h: int, count: int, box: int, padded: int) -> None:
    """Copy `count` frequencies from `first` on, with the phase of the map's centre; frequency 0 is at index h of the target."""
    phase = _along(dim, _axis_phase(np.arange(first, first + count), box, padded))
    torch.mul(source.narrow(dim, first % padded, count), phase, out=target.narrow(dim, h + first, count))


@njit(parallel=True, cache=True)
def _empty_outside(data, radius, left_out):
    """Zero, in place, float32 [2h+1, 2h+1, h+1, 2] outside a sphere, and within the radius `left_out` where that is not negative."""
    size, width = data.shape[0], data.shape[2]
    h = width - 1
    for iz in prange(size):
        for iy in range(size):
            across = (iz - h) ** 2 + (iy - h) ** 2
            for ix in range(width):
                square = across + ix * ix
                if square > radius * radius or (left_out >= 0 and square <= left_out * left_out):
                    data[iz, iy, ix, 0] = 0
                    data[iz, iy, ix, 1] = 0


def inverse(data: torch.Tensor, box: int, padding: float) -> np.ndarray:
    """float32 map [box^3] of a centred half transform complex64 [2h+1, 2h+1, h+1]; undoes the scaling of `projector`."""
    padded, h = padded_size(box, padding), data.shape[2] - 1
    reach = min(h, padded // 2)
    for dim in (0, 1):
        shape = list(data.shape)
        shape[dim] = padded
        full = torch.zeros(shape, dtype=torch.complex64)
        full.narrow(dim, 0, reach + 1).copy_(data.narrow(dim, h, reach + 1))
        full.narrow(dim, padded - reach, reach).add_(data.narrow(dim, h - reach, reach))  # both ends meet where reach is half the box
        # the centre of the map is index box / 2 of what comes out: a phase before the transform is a roll after it
        data = torch.fft.ifft(full, dim=dim, norm="forward")
        data = torch.cat([data.narrow(dim, padded - box // 2, box // 2), data.narrow(dim, 0, box - box // 2)], dim)
        del full
    columns = min(h, padded // 2) + 1
    data = data[:, :, :columns] * _axis_phase(-np.arange(columns), box, padded, 1 / (padding**3 * box))
    return torch.fft.irfft(data, n=padded, dim=2, norm="forward").narrow(2, 0, box).contiguous().numpy()
