"""A grid of nearly equal cells over half the sphere of directions (a direction and its opposite are the same in Fourier space).

The pole of the grid is the x axis, along which half-complex transforms are halved. All directions are unit vectors (x, y, z).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numba import njit


@dataclass(frozen=True, eq=False)
class Cells:
    """Rings of cells: `start [r + 1]` of each ring, `count [r]` its cells, `directions [c, 3]` of centres, `area [c]` (they sum to 1)."""

    step: float  # radians
    start: np.ndarray
    count: np.ndarray
    directions: np.ndarray
    area: np.ndarray

    def __len__(self) -> int:
        return len(self.directions)

    def index(self, vectors: np.ndarray) -> np.ndarray:
        """Cell of each vector [n, 3] of any length; int64 [n]."""
        return _cells_of(np.ascontiguousarray(vectors, np.float64), self.step, self.start, self.count)


@lru_cache(maxsize=4)
def cells(step: float = 2.0) -> Cells:
    """The grid whose cells are about `step` degrees wide."""
    rings = round(90 / step)
    width = math.pi / 2 / rings
    tilt = (np.arange(rings) + 0.5) * width
    count = np.maximum(3, np.round(2 * np.pi * np.sin(tilt) / width)).astype(np.int64)
    start = np.concatenate([[0], np.cumsum(count)])
    ring = np.repeat(np.arange(rings), count)
    turn = (np.arange(start[-1]) - start[ring] + 0.5) * 2 * np.pi / count[ring] - np.pi
    sine = np.sin(tilt[ring])
    directions = np.stack([np.cos(tilt[ring]), sine * np.cos(turn), sine * np.sin(turn)], axis=1)
    area = (np.cos(ring * width) - np.cos((ring + 1) * width)) / count[ring]
    return Cells(width, start, count, directions, area)


@njit(inline="always")
def cell_of(x, y, z, step, start, count):
    """Cell of the direction (x, y, z), which is not zero; the opposite direction has the same one."""
    if x < 0 or (x == 0 and (y < 0 or (y == 0 and z < 0))):
        x, y, z = 0.0 - x, 0.0 - y, 0.0 - z  # not -z: of zero that would be minus zero, half a turn away
    ring = min(int(math.atan2(math.sqrt(y * y + z * z), x) / step), len(count) - 1)
    place = int((math.atan2(z, y) + math.pi) / (2 * math.pi) * count[ring])
    return start[ring] + min(place, count[ring] - 1)


@njit(cache=True)
def _cells_of(vectors, step, start, count):
    out = np.empty(len(vectors), np.int64)
    for i in range(len(vectors)):
        out[i] = cell_of(vectors[i, 0], vectors[i, 1], vectors[i, 2], step, start, count)
    return out
