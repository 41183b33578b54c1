"""The compiled loop behind `symmetrise`: one pass over the map, all operators at each voxel."""

from __future__ import annotations

import numba
import numpy as np

_SNAP = 1e-6  # coordinates this near to a voxel lie on it: rotations by 90 degrees must not lose the outermost planes to rounding


@numba.njit(cache=True, inline="always")
def _at(volume, z, y, x):
    """Trilinear value at voxel coordinates (float); 0 outside."""
    depth, height, width = volume.shape
    if z < -_SNAP or y < -_SNAP or x < -_SNAP or z > depth - 1 + _SNAP or y > height - 1 + _SNAP or x > width - 1 + _SNAP:
        return 0.0
    z0, y0, x0 = int(z + _SNAP), int(y + _SNAP), int(x + _SNAP)
    z1, y1, x1 = min(z0 + 1, depth - 1), min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    fz, fy, fx = max(0.0, z - z0), max(0.0, y - y0), max(0.0, x - x0)
    low = (volume[z0, y0, x0] * (1 - fx) + volume[z0, y0, x1] * fx) * (1 - fy) + (volume[z0, y1, x0] * (1 - fx) + volume[z0, y1, x1] * fx) * fy
    high = (volume[z1, y0, x0] * (1 - fx) + volume[z1, y0, x1] * fx) * (1 - fy) + (volume[z1, y1, x0] * (1 - fx) + volume[z1, y1, x1] * fx) * fy
    return low * (1 - fz) + high * fz


@numba.njit(cache=True, parallel=True)
def average_rotated(volume: np.ndarray, operators: np.ndarray) -> np.ndarray:
    """float32 [z, y, x]: average over the operators [k, 3, 3] (x, y, z) of the map [z, y, x] turned about its centre voxel n // 2."""
    depth, height, width = volume.shape
    cz, cy, cx = depth // 2, height // 2, width // 2
    result = np.empty(volume.shape, dtype=np.float32)
    for z in numba.prange(depth):
        for y in range(height):
            for x in range(width):
                total = 0.0
                for k in range(operators.shape[0]):
                    r = operators[k]
                    px, py, pz = float(x - cx), float(y - cy), float(z - cz)
                    total += _at(
                        volume,
                        r[2, 0] * px + r[2, 1] * py + r[2, 2] * pz + cz,
                        r[1, 0] * px + r[1, 1] * py + r[1, 2] * pz + cy,
                        r[0, 0] * px + r[0, 1] * py + r[0, 2] * pz + cx,
                    )
                result[z, y, x] = total / operators.shape[0]
    return result
