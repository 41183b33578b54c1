"""Half a cube of Fourier space without what is empty: only the sphere in use."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

_AROUND = 2  # voxels: interpolation reaches beyond the radius of the sphere


@njit(nogil=True, cache=True)
def _rows(h, radius):
    """int64 [(2h+1)^2 + 1]: where each row (z, y) starts in the packed list; a row holds x = 0 to the sphere's edge."""
    size = 2 * h + 1
    start, total = np.zeros(size * size + 1, np.int64), 0
    for iz in range(size):
        for iy in range(size):
            left = radius * radius - (iz - h) ** 2 - (iy - h) ** 2
            if left >= 0:
                total += min(h, int(np.sqrt(left))) + 1
            start[iz * size + iy + 1] = total
    return start


@njit(nogil=True, parallel=True, cache=True)
def _gather(cube, start, out):
    size = cube.shape[0]
    for row in prange(len(start) - 1):
        iz, iy = np.int64(row) // size, np.int64(row) % size
        for k in range(start[row], start[row + 1]):
            for part in range(out.shape[1]):
                out[k, part] = cube[iz, iy, k - start[row], part]


@njit(nogil=True, parallel=True, cache=True)
def _scatter(packed, start, cube):
    size = cube.shape[0]
    for row in prange(len(start) - 1):
        iz, iy = np.int64(row) // size, np.int64(row) % size
        for k in range(start[row], start[row + 1]):
            for part in range(packed.shape[1]):
                cube[iz, iy, k - start[row], part] = packed[k, part]


class Sphere:
    """Packs cubes float32 [2h+1, 2h+1, h+1, values] into lists [voxels, values] and back; `radius` in voxels."""

    def __init__(self, h: int, radius: int) -> None:
        self._start = _rows(h, radius + _AROUND)

    @property
    def voxels(self) -> int:
        """Number of voxels in use."""
        return int(self._start[-1])

    def pack(self, cube: np.ndarray, out: np.ndarray) -> None:
        """The sphere of a cube into `out`: as many values of each voxel as it has columns."""
        _gather(cube, self._start, out)

    def unpack(self, packed: np.ndarray, cube: np.ndarray) -> None:
        """Put the values into the sphere of a cube."""
        _scatter(packed, self._start, cube)
