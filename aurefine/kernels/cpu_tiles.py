"""What the CPU kernels share: pixel lists padded to whole vectors, scratch memory, the projection of one tile."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numba import njit

from aurefine.fourier import PixelList
from aurefine.kernels import Accumulator, Volume
from aurefine.kernels._vector import LANES, LOCATED_ROWS, gather, locate

TILE = 128  # pixels whose coordinates, slices and shifted images stay in the first-level cache
_OUTSIDE = np.float32(1e9)  # frequency given to pixels beyond the image's circle: the sphere test then drops them
_TOLERANCE = np.float32(1.00001)  # float32 rounding of points lying exactly on the sphere


class Frequencies(NamedTuple):
    """float32 x and y of the pixels of a list."""

    x: np.ndarray
    y: np.ndarray

    @classmethod
    def of(cls, pixels: PixelList, order: np.ndarray, used: np.ndarray) -> Frequencies:
        """Those of a list in another order, where `used`; all else, and what lies beyond the image's circle, is outside every sphere."""
        x = np.where((pixels.inside[order]) & used, pixels.x[order], _OUTSIDE)
        return cls(x.astype(np.float32), pixels.y[order].astype(np.float32))

    @classmethod
    def padded(cls, pixels: PixelList) -> Frequencies:
        """Those of a list as it is, padded to whole vectors."""
        place = np.arange(-(-len(pixels) // LANES) * LANES)
        used = place < len(pixels)
        return cls.of(pixels, np.where(used, place, 0), used)


def flat(volume: torch.Tensor) -> np.ndarray:
    """A complex volume as float32 numbers."""
    return torch.view_as_real(volume).numpy().reshape(-1)


def limit(volume: Volume | Accumulator) -> np.float32:
    """Squared radius of the sphere in voxels."""
    return np.float32(int(volume.r_max * volume.padding) ** 2) * _TOLERANCE


def padded(values: np.ndarray, width: int) -> np.ndarray:
    """Flat float32 copy of [..., pixels] with rows zero-padded to `width`, so that vector loops need no remainder."""
    out = np.zeros((*values.shape[:-1], width), np.float32)
    out[..., : values.shape[-1]] = values
    return out.reshape(-1)


def planes(values: torch.Tensor, width: int) -> np.ndarray:
    """Complex [n, pixels] as flat float32 [n, 2, width], real plane and imaginary plane."""
    out = torch.zeros((len(values), 2, width))
    out[:, 0, : values.shape[1]] = values.real
    out[:, 1, : values.shape[1]] = values.imag
    return out.numpy().reshape(-1)


@njit(nogil=True, cache=True)
def scratch(rows, tile):
    """(index int32 [tile], located float32 [LOCATED_ROWS * tile], work float32 [rows * tile] of zeros) of one thread."""
    return np.zeros(tile, np.int32), np.empty(LOCATED_ROWS * tile, np.float32), np.zeros(rows * tile, np.float32)


@njit(fastmath=True, cache=True, inline="always")
def project_tile(volume, half, radius, slices, row, x, y, begin, count, index, located, work, place):
    """Project `count` pixels from `begin` on of slice `row` into two rows of `work` (as long as `index`) from `place` on."""
    tile = len(index)
    locate(slices, row, x, y, begin, count, radius, half, index, located, tile)
    gather(volume, half, count, index, located, tile, work, place, place + tile)


def share(work: np.ndarray, parts: int) -> np.ndarray:
    """int64 [parts + 1]: borders that divide consecutive items into parts of nearly equal work."""
    total = np.cumsum(work)
    inner = np.searchsorted(total, total[-1] * np.arange(1, parts) / parts) if len(total) else np.zeros(parts - 1)
    return np.concatenate([[0], inner, [len(work)]]).astype(np.int64)
