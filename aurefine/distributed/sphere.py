"""Half a cube of Fourier space without what is empty: only the sphere in use."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numba import njit, prange

from aurefine.refine import devices
from aurefine.refine.transforms_torch import planes, squares

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
    """Packs cubes float32 [2h+1, 2h+1, h+1, values] into lists [voxels, values] and back, both on the same device; `radius` in voxels."""

    def __init__(self, h: int, radius: int) -> None:
        self._h, self._radius = h, radius + _AROUND
        self._start = _rows(h, self._radius)

    @property
    def voxels(self) -> int:
        """Number of voxels in use."""
        return int(self._start[-1])

    def pack(self, cube: torch.Tensor, out: torch.Tensor) -> None:
        """The sphere of a cube into `out`: as many values of each voxel as it has columns."""
        if devices.compiled(cube.device):
            _gather(cube.numpy(), self._start, out.numpy())
            return
        for some, inside, there in self._stretches(cube.device):
            out[there] = cube[some][inside][:, : out.shape[1]]

    def unpack(self, packed: torch.Tensor, cube: torch.Tensor) -> None:
        """Put the values into the sphere of a cube."""
        if devices.compiled(cube.device):
            _scatter(packed.numpy(), self._start, cube.numpy())
            return
        for some, inside, there in self._stretches(cube.device):
            cube[some][..., : packed.shape[1]][inside] = packed[there]

    def _stretches(self, device: torch.device) -> Iterator[tuple[slice, torch.Tensor, slice]]:
        """Some planes of a cube at a time, which of their voxels are inside (bool), and the part of the list that these are."""
        size = 2 * self._h + 1
        for some in planes(size, self._h + 1):
            part = slice(int(self._start[some.start * size]), int(self._start[some.stop * size]))
            yield some, squares(self._h, some, device) <= self._radius**2, part
