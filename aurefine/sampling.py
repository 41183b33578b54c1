"""Grids of orientations and translations: coarse grid, its finer children, random perturbation, and local searches.

A coarse orientation has the index `direction * n_psi + psi`. All rotations are built in bulk: one matrix for each direction, then the
in-plane turn of its first two rows. Sources: ALGORITHM.md 4.1, 4.2, 4.4-4.6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numba import njit, prange
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree

from aurefine import euler, healpix
from aurefine.errors import InputError
from aurefine.local_search import LocalCandidates, local_candidates
from aurefine.symmetry import PointGroup, point_group

__all__ = [
    "Directions",
    "LocalCandidates",
    "angular_step",
    "coarse_rotations",
    "directions",
    "fine_rotations",
    "local_candidates",
    "oversample_translations",
    "perturb_translations",
    "psi_angles",
    "rotations",
    "translations",
]

_FEW_DIRECTIONS = 4000  # only below this many are near-duplicate symmetry mates removed, as in RELION


@dataclass(frozen=True, eq=False)
class Directions:
    """Viewing directions of a grid: `pixel [d]` (HEALPix NESTED index at `order`) and `angles [d, 2]` (rot, tilt in degrees)."""

    order: int
    pixel: np.ndarray
    angles: np.ndarray

    def __len__(self) -> int:
        return len(self.pixel)


def angular_step(order: int, oversampling: int = 0) -> float:
    """Step (degrees) between neighbouring directions and psi angles: 60 at order 0, halved at every order."""
    return 360.0 / (6 * 2 ** (order + oversampling))


def psi_angles(order: int, step: float = 0.0) -> np.ndarray:
    """In-plane angles `[n_psi]` (degrees) of the coarse grid, from 0 upwards; `step` replaces that of the order if it is positive.

    Their number is even: with each angle the grid has the opposite one, whose slice is the complex conjugate.
    """
    count = 2 * math.ceil(180.0 / (step if step > 0 else angular_step(order)) - 1e-9)
    return np.arange(count) * (360.0 / count)


def directions(order: int, group: PointGroup | str = "C1", limit_tilt: float = -91.0) -> Directions:
    """The directions at a HEALPix order inside the group's asymmetric unit, in NESTED order (ALGORITHM.md 4.1, 4.4).

    `limit_tilt` in (0, 90) keeps side views, tilt at least that far from the poles; in (-90, 0) top views, at most |limit_tilt|
    from them; anything else keeps all. Raises InputError when the limit leaves no direction, ValueError for a bad order.
    """
    return _directions(order, point_group(group) if isinstance(group, str) else group, float(limit_tilt))


@lru_cache(maxsize=32)
def _directions(order: int, group: PointGroup, limit_tilt: float) -> Directions:
    angles = healpix.centres(order)
    pixel = np.flatnonzero(group.in_unit(angles[:, 0], angles[:, 1]))
    if abs(limit_tilt) < 90:
        pixel = pixel[_within_tilt_limit(angles[pixel, 1], limit_tilt)]
    if not len(pixel):
        raise InputError(f"--limit_tilt {limit_tilt:g} leaves no viewing direction at HEALPix order {order}: give a wider limit.")
    if group.order > 1 and len(pixel) < _FEW_DIRECTIONS:
        pixel = pixel[_distinct(euler.view_direction(*angles[pixel].T), group, 0.5 * healpix.max_pixel_radius(order))]
    result = Directions(order, pixel, angles[pixel])
    result.pixel.flags.writeable = result.angles.flags.writeable = False  # shared through the cache
    return result


def _within_tilt_limit(tilt: np.ndarray, limit: float) -> np.ndarray:
    from_pole = np.minimum(tilt, 180 - tilt)
    return from_pole >= limit if limit > 0 else from_pole <= -limit


def _distinct(vectors: np.ndarray, group: PointGroup, radius_deg: float) -> np.ndarray:
    """Mask of the directions that are not within `radius_deg` of a symmetry mate of an earlier kept one."""
    chord = 2 * math.sin(math.radians(radius_deg) / 2)
    tree = cKDTree(vectors)
    clashes = [tree.query_ball_point(vectors @ operator, chord) for operator in group.operators[1:]]
    keep = np.ones(len(vectors), dtype=bool)
    for i in range(len(vectors)):
        if keep[i]:
            keep[[j for near in clashes for j in near[i] if j > i]] = False
    return keep


def rotations(angles: ArrayLike, psi: ArrayLike, perturbation_deg: float = 0.0) -> np.ndarray:
    """Matrices `[d, p, 3, 3]` (float64) of every direction `angles [d, 2]` at every `psi [p]` (degrees), perturbed.

    The perturbation multiplies from the right by the rotation of Euler angles (delta, delta, delta) (ALGORITHM.md 4.6).
    """
    base = _base_rotations(np.asarray(angles, dtype=np.float64), perturbation_deg)
    return _turn_in_plane(base[:, None], np.asarray(psi, dtype=np.float64)[None, :])


def _base_rotations(angles: np.ndarray, perturbation_deg: float) -> np.ndarray:
    """Matrices `[..., 3, 3]` at psi = 0 of directions `[..., 2]`, perturbed: psi turns them afterwards."""
    base = euler.to_matrix(np.concatenate([angles, np.zeros(angles.shape[:-1] + (1,))], axis=-1))
    return base @ euler.to_matrix([perturbation_deg] * 3) if perturbation_deg else base


def _turn_in_plane(base: np.ndarray, psi: np.ndarray) -> np.ndarray:
    """R_z(psi) times `base`, broadcast over the leading axes."""
    cos, sin = np.cos(np.deg2rad(psi))[..., None], np.sin(np.deg2rad(psi))[..., None]
    out = np.empty(np.broadcast_shapes(base.shape[:-2], psi.shape) + (3, 3))
    out[..., 0, :] = cos * base[..., 0, :] + sin * base[..., 1, :]
    out[..., 1, :] = cos * base[..., 1, :] - sin * base[..., 0, :]
    out[..., 2, :] = base[..., 2, :]
    return out


def coarse_rotations(grid: Directions, psi: ArrayLike, perturbation_deg: float = 0.0) -> np.ndarray:
    """Matrices `[n_dir * n_psi, 3, 3]` (float64) of the whole coarse grid, index = direction * n_psi + psi.

    `perturbation_deg` is the instance (rlnSamplingPerturbInstance) times the coarse angular step.
    """
    return rotations(grid.angles, psi, perturbation_deg).reshape(-1, 3, 3)


def fine_rotations(
    order: int, grid: Directions, coarse_index: ArrayLike, perturbation_deg: float = 0.0, oversampling: int = 1, psi_step: float = 0.0
) -> np.ndarray:
    """Matrices `[k, 8**oversampling, 3, 3]` (float64) of the children of the coarse orientations `coarse_index [k]`.

    Children run over the pixel's children (outer) and psi (inner); with oversampling 0 the coarse orientation is its own child.
    """
    psi = psi_angles(order, psi_step)
    step, n_sub = 360.0 / len(psi), 2**oversampling
    direction, turn = np.divmod(np.asarray(coarse_index, dtype=np.int64), len(psi))
    used = np.flatnonzero(np.bincount(direction, minlength=len(grid)))
    place = np.empty(len(grid), np.int64)
    place[used] = np.arange(len(used))
    angles = healpix.centres(order + oversampling, healpix.children(grid.pixel[used], oversampling)) if oversampling else grid.angles[used][:, None]
    offsets = (np.arange(n_sub) + 0.5) * step / n_sub - step / 2
    out = np.empty((len(direction), 4**oversampling, n_sub, 3, 3))
    perturbed = euler.to_matrix([perturbation_deg] * 3)
    _fill_children(np.deg2rad(angles), place[direction], np.deg2rad(psi)[turn], np.deg2rad(offsets), perturbed, out)
    return out.reshape(len(direction), -1, 3, 3)


@njit(nogil=True, parallel=True, cache=True)
def _fill_children(angles, direction, psi, offsets, perturbed, out):
    """out[i, c, s]: R_z(psi[i] + offsets[s]) R_y(tilt) R_z(rot) perturbed, for child c of direction[i]; angles in radians."""
    for i in prange(len(direction)):
        for c in range(angles.shape[1]):
            rot, tilt = angles[direction[i], c]
            sr, cr, st, ct = math.sin(rot), math.cos(rot), math.sin(tilt), math.cos(tilt)
            for column in range(3):
                p, q, r = perturbed[0, column], perturbed[1, column], perturbed[2, column]
                x, y, z = ct * cr * p + ct * sr * q - st * r, cr * q - sr * p, st * cr * p + st * sr * q + ct * r
                for s in range(len(offsets)):
                    cos, sin = math.cos(psi[i] + offsets[s]), math.sin(psi[i] + offsets[s])
                    out[i, c, s, 0, column] = cos * x + sin * y
                    out[i, c, s, 1, column] = cos * y - sin * x
                    out[i, c, s, 2, column] = z


def translations(search_range: float, step: float) -> np.ndarray:
    """Translations `[t, 2]` (x, y in Angstrom) of a square grid inside the circle of radius `search_range`, x outermost.

    Raises InputError for a step that is not positive.
    """
    if not step > 0:
        raise InputError(f"The step of the offset search is {step:g}: it must be larger than 0 (--offset_step).")
    reach = math.ceil(search_range / step)
    axis = np.arange(-reach, reach + 1)
    x, y = (part.ravel() for part in np.meshgrid(axis, axis, indexing="ij"))
    inside = (x**2 + y**2) * step**2 < search_range**2 + 0.001
    return np.stack([x[inside], y[inside]], axis=-1) * float(step)


def oversample_translations(coarse: ArrayLike, step: float, oversampling: int = 1) -> np.ndarray:
    """The children `[k, 4**oversampling, 2]` (Angstrom) of coarse translations `[k, 2]`, x outermost."""
    n_sub = 2**oversampling
    axis = (np.arange(n_sub) + 0.5) * step / n_sub - step / 2
    offsets = np.stack([part.ravel() for part in np.meshgrid(axis, axis, indexing="ij")], axis=-1)
    return np.asarray(coarse, dtype=np.float64)[:, None, :] + offsets


def perturb_translations(shifts: ArrayLike, perturbation: float, step: float) -> np.ndarray:
    """Translations shifted on both axes by the perturbation instance times the coarse step (Angstrom; ALGORITHM.md 4.6)."""
    return np.asarray(shifts, dtype=np.float64) + perturbation * step
