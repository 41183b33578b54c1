"""Efficiency of the orientation distribution, E_od: how even the resolution is that the views alone allow.

Source: Naydenova & Russo (2017), Nat. Commun. 8, 629: E_od = 1 - 2 sigma / mean of the resolution R over all directions, R being where the point
spread function of the views falls to 1/e. A view adds a slice of thickness 1/D to Fourier space, damped by a B-factor: in real space a rod along
the view with a Gaussian cross section, so that PSF(r n) = < exp(-r^2 (1 - (n v)^2)) sinc(r (n v) / D) > over the views v, in units of the rod's
width. This form needs no grid in three dimensions and has closed solutions to test against.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit, prange

from aurefine.validation.sphere import Cells, cells

_UNIFORM = 1.308235  # R of uniform views in rods' widths: Dawson(R) / R = 1/e


@dataclass(frozen=True, eq=False)
class Efficiency:
    """E_od, and the resolution [c] over the cells of `grid` relative to that of uniform views (larger is worse)."""

    grid: Cells
    relative: np.ndarray
    value: float


def measure(views: np.ndarray, diameter_over_resolution: float = 30.0) -> Efficiency:
    """E_od of viewing directions [n, 3]; the particle's diameter over the resolution only matters where no view looks across."""
    grid = cells(5.0)
    gathered, weight = _gather(views)
    # The resolution of uniform views is 1.31 widths, so that D is that often as many widths.
    radius = _solve(grid.directions, gathered, weight, _UNIFORM * max(diameter_over_resolution, 3.0))
    mean = float(grid.area @ radius)
    spread = math.sqrt(max(0.0, float(grid.area @ (radius - mean) ** 2)))
    return Efficiency(grid, radius / _UNIFORM, max(0.0, 1 - 2 * spread / mean))


def _gather(views: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One view [k, 3] for all that lie in a cell of two degrees, at their mean (a cell's centre may be a degree off), and their shares [k]."""
    fine = cells()
    index = fine.index(views)
    same_side = np.sign(np.einsum("ni,ni->n", views, fine.directions[index]))
    count = np.bincount(index, minlength=len(fine))
    sums = np.stack([np.bincount(index, same_side * views[:, axis], len(fine)) for axis in range(3)], axis=1)[count > 0]
    return sums / np.linalg.norm(sums, axis=1, keepdims=True), count[count > 0] / len(views)


@njit(parallel=True, cache=True)
def _solve(directions, views, weight, diameter):
    """Where the PSF along each direction first falls below 1/e: bracketed by steps, then halved."""
    out = np.empty(len(directions))
    for i in prange(len(directions)):
        square = np.empty(len(views))
        along = np.empty(len(views))
        for j in range(len(views)):
            along[j] = abs(directions[i, 0] * views[j, 0] + directions[i, 1] * views[j, 1] + directions[i, 2] * views[j, 2])
            square[j] = max(0.0, 1 - along[j] * along[j])
        low, high = 0.0, 0.5
        while high < 2 * diameter and _spread(high, square, along, weight, diameter) > math.exp(-1.0):
            low, high = high, high * 1.2
        for _ in range(40):
            middle = 0.5 * (low + high)
            if _spread(middle, square, along, weight, diameter) > math.exp(-1.0):
                low = middle
            else:
                high = middle
        out[i] = 0.5 * (low + high)
    return out


@njit(inline="always")
def _spread(r, square, along, weight, diameter):
    total = 0.0
    for j in range(len(weight)):
        x = math.pi * r * along[j] / diameter
        total += weight[j] * math.exp(-r * r * square[j]) * (math.sin(x) / x if x > 1e-9 else 1.0)
    return total
