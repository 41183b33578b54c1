"""Numba kernels for the CPU: projection, and the dispatcher's names for scores (cpu_score.py, cpu_children.py) and sums (cpu_sum.py).

Pixels are worked on tile by tile, with all slices that lie near each other inside a tile's loop: they meet the same voxels in the cache.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from numba import njit, prange

from aurefine.fourier import PixelList
from aurefine.kernels import Volume
from aurefine.kernels.cpu_children import score_children
from aurefine.kernels.cpu_score import score
from aurefine.kernels.cpu_sum import accumulate
from aurefine.kernels.cpu_tiles import TILE, Frequencies, flat, limit, project_tile, scratch

__all__ = ["accumulate", "project", "project_planes", "score", "score_children"]


@njit(nogil=True, parallel=True, fastmath=True, cache=True)
def _project(volume, half, radius, slices, x, y, pixels, out, threads):
    n = len(out)
    for thread in prange(threads):
        index, located, work = scratch(2, TILE)
        for begin in range(0, pixels, TILE):
            count = min(TILE, pixels - begin)
            for r in range(n * thread // threads, n * (thread + 1) // threads):
                project_tile(volume, half, radius, slices, r, x, y, begin, count, index, located, work, 0)
                out[r, 0, begin : begin + count] = work[:count]
                out[r, 1, begin : begin + count] = work[TILE : TILE + count]


def project_planes(volume: Volume, slices: np.ndarray, pixels: PixelList) -> torch.Tensor:
    """Slices as float32 [n, 2, pixels] (real plane, imaginary plane), the operand of the global search's matrix product."""
    places = Frequencies.padded(pixels)
    out = np.empty((len(slices), 2, len(pixels)), np.float32)
    _project(flat(volume.data), volume.half, limit(volume), slices.reshape(-1), places.x, places.y, len(pixels), out, numba.get_num_threads())
    return torch.from_numpy(out)


def project(volume: Volume, slices: np.ndarray, pixels: PixelList) -> torch.Tensor:
    """See `kernels.project`."""
    planes = project_planes(volume, slices, pixels)
    return torch.complex(planes[:, 0], planes[:, 1])
