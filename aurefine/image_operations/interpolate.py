"""The compiled loop behind `symmetrise`: all operators at each row of the map."""

from __future__ import annotations

import numba
import numpy as np

_SNAP = 1e-6  # coordinates this near to a voxel lie on it: rotations by 90 degrees must not lose the outermost planes to rounding


@numba.njit(cache=True, error_model="numpy")
def _add_row(volume, start, step, row):
    """Add the linearly interpolated values at start + x step (z, y, x) to a row; nothing outside the box."""
    depth, height, width = volume.shape
    for x in range(len(row)):
        pz, py, px = start[0] + x * step[0], start[1] + x * step[1], start[2] + x * step[2]
        if pz < -_SNAP or py < -_SNAP or px < -_SNAP or pz > depth - 1 + _SNAP or py > height - 1 + _SNAP or px > width - 1 + _SNAP:
            continue
        z, y, i = int(pz + _SNAP), int(py + _SNAP), int(px + _SNAP)
        fz, fy, fx = np.float32(max(0.0, pz - z)), np.float32(max(0.0, py - y)), np.float32(max(0.0, px - i))
        up, down, right = min(z + 1, depth - 1), min(y + 1, height - 1), min(i + 1, width - 1)
        a = volume[z, y, i] + (volume[z, y, right] - volume[z, y, i]) * fx
        b = volume[z, down, i] + (volume[z, down, right] - volume[z, down, i]) * fx
        c = volume[up, y, i] + (volume[up, y, right] - volume[up, y, i]) * fx
        d = volume[up, down, i] + (volume[up, down, right] - volume[up, down, i]) * fx
        low, high = a + (b - a) * fy, c + (d - c) * fy
        row[x] += low + (high - low) * fz


@numba.njit(cache=True, parallel=True, error_model="numpy")
def sum_rotated(volume: np.ndarray, operators: np.ndarray) -> np.ndarray:
    """float32 [z, y, x]: sum over the operators [k, 3, 3] (z, y, x) of the map [z, y, x] turned about its centre voxel n // 2."""
    depth, height, width = volume.shape
    centre = np.array([depth // 2, height // 2, width // 2], dtype=np.float64)
    result = np.zeros(volume.shape, dtype=np.float32)
    for z in numba.prange(depth):
        for y in range(height):
            for k in range(operators.shape[0]):
                start = np.empty(3)
                for axis in range(3):
                    row = operators[k, axis]
                    start[axis] = centre[axis] + row[0] * (z - centre[0]) + row[1] * (y - centre[1]) - row[2] * centre[2]
                _add_row(volume, start, operators[k, :, 2], result[z, y])
    return result
