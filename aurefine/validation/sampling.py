"""How evenly the particles' views sample Fourier space: the sampling compensation factor.

Sources: Baldwin & Lyumkis (2020), Prog. Biophys. Mol. Biol. 150, 160 (SCF: the harmonic mean of the sampling over a shell, over its mean);
Baldwin & Lyumkis (2021), Prog. Biophys. Mol. Biol. 160, 53 (SCF*: the same with what is left empty).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit, prange

from aurefine import euler, symmetry
from aurefine.validation.sphere import Cells, cells

SIDE_VIEWS = 8 / np.pi**2  # 0.81, SCF of views evenly spread about one axis
MOST_VIEWS = 50_000


@dataclass(frozen=True, eq=False)
class Sampling:
    """Views that see each direction of Fourier space: `counts [c]` over the cells of `grid`."""

    grid: Cells
    counts: np.ndarray
    radius: int  # shell, whose slices are one voxel thick
    scf: float  # SCF*
    empty: float  # share of the shell that no view sees


def views_of(angles: np.ndarray, group: str, most: int = MOST_VIEWS) -> np.ndarray:
    """Viewing directions [k, 3] of particles with `angles` [n, 2 or 3] (rot, tilt in degrees) and of their symmetry mates.

    Of more than `most` an even selection is taken.
    """
    operators = symmetry.point_group(group).operators
    wanted = max(1, most // len(operators))
    rows = np.arange(len(angles)) if len(angles) <= wanted else np.linspace(0, len(angles) - 1, wanted).astype(int)
    views = euler.view_direction(angles[rows, 0], angles[rows, 1])
    return np.einsum("ni,kij->knj", views, operators).reshape(-1, 3)


def measure(views: np.ndarray, radius: int = 50) -> Sampling:
    """SCF* of viewing directions [n, 3] on the shell of that radius, whose slices are one voxel thick: |k . v| < 1 / (2 radius).

    With m the mean count over the shell, P the share of it that is seen and Q the rest, 1 / SCF* = <m / count>_seen + m Q / (2 P): where
    nothing is empty this is the harmonic mean of the sampling over its mean. Few views are judged on a lower shell, on which the mean
    count is 20, so that chance does not make gaps.
    """
    grid = cells()
    used = int(np.clip(len(views) / 40, 5, radius))
    counts = _count(grid.directions, np.ascontiguousarray(views, np.float64), 0.5 / used)
    mean, seen = float(grid.area @ counts), counts > 0
    if not seen.any():
        return Sampling(grid, counts, used, 0.0, 1.0)
    share = float(grid.area[seen].sum())
    reciprocal = mean * float(grid.area[seen] @ (1 / counts[seen])) / share
    return Sampling(grid, counts, used, 1 / (reciprocal + mean * (1 - share) / (2 * share)), 1 - share)


@njit(parallel=True, cache=True)
def _count(directions, views, half_width):
    counts = np.zeros(len(directions))
    for i in prange(len(directions)):
        x, y, z = directions[i]
        seen = 0
        for j in range(len(views)):
            if abs(x * views[j, 0] + y * views[j, 1] + z * views[j, 2]) < half_width:
                seen += 1
        counts[i] = seen
    return counts
