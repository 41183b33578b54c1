"""Directional FSC: within cones about every direction, what follows from them (cFAR), and the 3D FSC with its sphericity.

Sources: Tan et al. (2017), Nat. Methods 14, 793; Aiyer et al. (2021), Methods Mol. Biol. 2215, 161; Baldwin & Lyumkis (2021), Prog. Biophys.
Mol. Biol. 160, 53; cFAR as cryoSPARC's Orientation Diagnostics has it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit, prange
from scipy.spatial import ConvexHull

from aurefine import fourier, fsc
from aurefine.validation.sphere import Cells, cell_of, cells

FEWEST = 10  # voxels of half a cone's shell below which its correlation is not told from the whole shell's
_AT_A_TIME = 512  # directions


@dataclass(frozen=True, eq=False)
class ConicalFsc:
    """FSC within a cone about each direction of `grid`: `curves [c, n/2 + 1]`; `whole [n/2 + 1]` is that of all directions."""

    grid: Cells
    half_angle: float  # degrees
    curves: np.ndarray
    whole: np.ndarray

    def crossings(self, threshold: float) -> np.ndarray:
        """Shell (a fraction) at which each direction's curve first falls below `threshold` [c]; the last shell where none does."""
        below = self.curves[:, 1:] < threshold
        first = np.where(below.any(axis=1), below.argmax(axis=1) + 1, 0)
        rows = np.arange(len(first))
        above, under = self.curves[rows, first - 1], self.curves[rows, first]
        inner = first - 1 + np.clip((above - threshold) / np.maximum(above - under, 1e-12), 0, 1)
        return np.where(first > 0, inner, self.curves.shape[1] - 1)

    def areas(self, threshold: float = 0.143) -> np.ndarray:
        """Area under each curve, in shells, from zero frequency to where the FSC of all directions falls below the threshold [c].

        One end for all directions: a single weak shell in a narrow cone does not cut the rest of its curve off.
        """
        below = fsc.first_below(self.whole, threshold)
        last = max(1, len(self.whole) - 1 if below < 0 else below - 1)
        kept = self.curves[:, : last + 1]
        return np.maximum(0.5 * (kept[:, 1:] + kept[:, :-1]).sum(axis=1), 0.0)

    def area_ratio(self, threshold: float = 0.143) -> float:
        """cFAR: the smallest area over the largest."""
        areas = self.areas(threshold)
        return float(areas.min() / max(areas.max(), 1e-12))

    def bounds(self) -> dict[str, np.ndarray]:
        """Smallest, mean, largest curve and standard deviation over the sphere, each [n/2 + 1]."""
        mean = self.grid.area @ self.curves
        spread = np.sqrt(np.maximum(self.grid.area @ (self.curves - mean) ** 2, 0))
        return {"minimum": self.curves.min(axis=0), "mean": mean, "maximum": self.curves.max(axis=0), "deviation": spread}

    def sphericity(self, threshold: float = 0.5) -> float:
        """Wadell's sphericity pi^(1/3) (6 V)^(2/3) / A of the surface on which the 3D FSC falls below `threshold`; 1 is a sphere.

        The surface is averaged over half a cone's width first: cones can tell no finer detail, and ripples of noise would add area.
        """
        ends, directions = self.crossings(threshold), self.grid.directions
        smooth = np.empty(len(ends))
        limit = math.cos(math.radians(0.5 * self.half_angle))
        for start in range(0, len(ends), _AT_A_TIME):
            part = slice(start, start + _AT_A_TIME)
            near = (np.abs(directions[part] @ directions.T) >= limit) * self.grid.area
            smooth[part] = near @ ends / near.sum(axis=1)
        return sphericity(directions * smooth[:, None])

    def volume(self) -> np.ndarray:
        """The 3D FSC, float32 [n, n, n]: at each frequency the FSC of the cone about its direction; the origin at n/2, beyond the last shell 0."""
        n = 2 * (self.curves.shape[1] - 1)
        out = np.zeros((n, n, n), np.float32)
        _fill(out, self.curves.astype(np.float32), self.grid.step, self.grid.start, self.grid.count)
        return out


def measure(one: np.ndarray, two: np.ndarray, half_angle: float = 20.0, step: float = 2.0) -> ConicalFsc:
    """Conical FSC of two maps [n, n, n] (n even); voxels enter a cone by the cell of `step` degrees in which they lie.

    Each cone is double, as Friedel mates are alike. Shells where half a cone holds fewer than ten voxels take the whole shell's FSC.
    """
    n, grid = len(one), cells(step)
    sums = np.zeros((4, n // 2 + 1, len(grid)))
    _bin(fourier.transform_map(one), fourier.transform_map(two), grid.step, grid.start, grid.count, sums)
    whole = fsc.of_sums(sums.sum(axis=2))
    whole[0] = 1.0
    flat, limit = sums.reshape(-1, len(grid)), math.cos(math.radians(half_angle))
    curves = np.empty((len(grid), n // 2 + 1))
    for start in range(0, len(grid), _AT_A_TIME):
        part = slice(start, start + _AT_A_TIME)
        inside = (np.abs(grid.directions @ grid.directions[part].T) >= limit).astype(np.float64)
        cone = (flat @ inside).reshape(4, n // 2 + 1, -1)
        curves[part] = np.where(cone[3] < FEWEST, whole[:, None], fsc.of_sums(cone)).T
    return ConicalFsc(grid, half_angle, curves, whole)


def sphericity(points: np.ndarray) -> float:
    """Wadell's sphericity of the closed surface through `points` [c, 3] and their opposites, star-shaped about the origin (any lengths)."""
    both = np.concatenate([points, -points])
    length = np.maximum(np.linalg.norm(both, axis=1, keepdims=True), 1e-9)
    corners = both[ConvexHull(both / length).simplices]  # neighbours on the sphere are neighbours on the surface
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = 0.5 * np.linalg.norm(normal, axis=1).sum()
    volume = np.abs(np.einsum("ij,ij->i", corners[:, 0], normal)).sum() / 6
    return float(np.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / max(area, 1e-30))


@njit(cache=True)
def _bin(one, two, step, start, count, sums):
    """Add every voxel's cross term, powers and number to its shell and cell; the x = 0 plane, which holds both mates, counts half."""
    n, half = one.shape[0], one.shape[2]
    for iz in range(n):
        z = iz if iz <= n // 2 else iz - n
        for iy in range(n):
            y = iy if iy <= n // 2 else iy - n
            for x in range(half):
                shell = int(math.sqrt(x * x + y * y + z * z) + 0.5)
                if shell == 0 or shell >= sums.shape[1]:
                    continue
                a, b = one[iz, iy, x], two[iz, iy, x]
                weight = 0.5 if x == 0 or x == n // 2 else 1.0
                cell = cell_of(float(x), float(y), float(z), step, start, count)
                sums[0, shell, cell] += weight * (a.real * b.real + a.imag * b.imag)
                sums[1, shell, cell] += weight * (a.real * a.real + a.imag * a.imag)
                sums[2, shell, cell] += weight * (b.real * b.real + b.imag * b.imag)
                sums[3, shell, cell] += weight


@njit(parallel=True, cache=True)
def _fill(out, curves, step, start, count):
    n = out.shape[0]
    h = n // 2
    for iz in prange(n):
        for iy in range(n):
            for ix in range(n):
                x, y, z = ix - h, iy - h, iz - h
                shell = int(math.sqrt(x * x + y * y + z * z) + 0.5)
                if shell == 0:
                    out[iz, iy, ix] = 1.0
                elif shell < curves.shape[1]:
                    out[iz, iy, ix] = curves[cell_of(float(x), float(y), float(z), step, start, count), shell]


def resolutions(conical: ConicalFsc, threshold: float, box: int, pixel_size: float) -> tuple[float, float, float]:
    """Resolution in Angstrom at a threshold: of the best direction, the one that 95 % of all directions reach, and of the worst."""
    ends = np.maximum(conical.crossings(threshold), 1e-6)
    order = np.argsort(ends)
    most = ends[order[np.searchsorted(np.cumsum(conical.grid.area[order]), 0.05)]]
    return float(box * pixel_size / ends.max()), float(box * pixel_size / most), float(box * pixel_size / ends.min())
