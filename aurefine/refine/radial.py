"""Maps times functions of the radius, from a table by squared radius in voxels: no second map is made to hold the function."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit, prange

from aurefine import mask


@lru_cache(maxsize=4)
def gridding_correction(box: int, padded: int) -> np.ndarray:
    """float32 [3 (box/2)^2 + 1] by squared radius: sinc^2, the transform of trilinear interpolation; read-only."""
    correction = np.sinc(mask.radii(box, 3) / padded).astype(np.float32) ** 2
    correction.setflags(write=False)
    return correction


@njit(nogil=True, parallel=True, cache=True)
def divided(planes, start, table):
    """float32: planes start .. of a map [box^3] over the table's values."""
    out = np.empty(planes.shape, np.float32)
    centre = planes.shape[1] // 2
    for z in prange(planes.shape[0]):
        for y in range(planes.shape[1]):
            across = (start + z - centre) ** 2 + (y - centre) ** 2
            for x in range(planes.shape[2]):
                out[z, y, x] = planes[z, y, x] / table[across + (x - centre) ** 2]
    return out


@njit(nogil=True, parallel=True, cache=True)
def multiplied(volume, table):
    """float32 [box^3]: a map times the table's values."""
    out = np.empty(volume.shape, np.float32)
    centre = volume.shape[0] // 2
    for z in prange(volume.shape[0]):
        for y in range(volume.shape[1]):
            across = (z - centre) ** 2 + (y - centre) ** 2
            for x in range(volume.shape[2]):
                out[z, y, x] = volume[z, y, x] * table[across + (x - centre) ** 2]
    return out


@njit(nogil=True, parallel=True, cache=True)
def _outside(volume, inside):
    """float64 [2]: the sum of 1 - inside, and of the map times that."""
    sums = np.zeros((volume.shape[0], 2))
    centre = volume.shape[0] // 2
    for z in prange(volume.shape[0]):
        for y in range(volume.shape[1]):
            across = (z - centre) ** 2 + (y - centre) ** 2
            for x in range(volume.shape[2]):
                outside = np.float32(1) - inside[across + (x - centre) ** 2]
                sums[z, 0] += outside
                sums[z, 1] += outside * volume[z, y, x]
    return sums.sum(0)


@njit(nogil=True, parallel=True, cache=True)
def _blended(volume, inside, average, correction):
    centre = volume.shape[0] // 2
    for z in prange(volume.shape[0]):
        for y in range(volume.shape[1]):
            across = (z - centre) ** 2 + (y - centre) ** 2
            for x in range(volume.shape[2]):
                square = across + (x - centre) ** 2
                weight = inside[square]
                volume[z, y, x] = (volume[z, y, x] * weight + average * (np.float32(1) - weight)) / correction[square]


def finish(volume: np.ndarray, correction: np.ndarray) -> None:
    """In place: what lies outside of the box's inscribed sphere becomes the average there, with a soft edge; then all is divided by `correction`."""
    box = volume.shape[0]
    inside = mask.soft_edge_by_square(box, 3, box / 2, 3)
    weight, total = _outside(volume, inside)
    _blended(volume, inside, np.float32(total / weight if weight > 0 else 0), correction)
