"""Local searches: which orientations of the coarse grid lie near each particle's last orientation, and their Gaussian prior.

Nearness is measured on the rotation group itself. A grid orientation differs from a pose by the tilt `d` between the two viewing
directions and by the in-plane angle `q` that is left once that tilt is undone (by the shortest way); the prior is
exp(-(d^2 + q^2) / 2 sigma^2) with d, q < 3 sigma. Because the grid only covers an asymmetric unit, each of the pose's symmetry mates
is considered with its own in-plane angle. RELION compares psi itself (ALGORITHM.md 4.7): docs/differences-from-relion.md.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit, prange
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree

from aurefine import euler

if TYPE_CHECKING:
    from aurefine.sampling import Directions
    from aurefine.symmetry import PointGroup

CUT_OFF = 3.0  # widths of the prior beyond which nothing is searched
_PARTICLE_CHUNK = 4096  # bounds the number of (particle, mate, direction) pairs held at a time


class LocalCandidates(NamedTuple):
    """Candidates of particle i are entries ptr[i] to ptr[i+1] of the other arrays, sorted by index."""

    ptr: np.ndarray  # [n + 1] int64
    coarse_index: np.ndarray  # [total] int64, direction * n_psi + psi
    log_prior: np.ndarray  # [total] float32; the exponentials of each particle sum to 1


def local_candidates(
    angles: ArrayLike, grid: Directions, group: PointGroup, order: int, sigma_deg: float, n_psi: int | None = None
) -> LocalCandidates:
    """Grid orientations within 3 sigma of each particle's pose `angles [n, 3]` (degrees) or of one of its symmetry mates.

    `order` is the HEALPix order of grid and psi, `sigma_deg` the width of the prior for tilt and in-plane angle alike, `n_psi` the number of
    in-plane angles where it is not that of the order.
    A particle without any direction (or psi) that near gets the nearest one.
    Raises ValueError if sigma is not positive.
    """
    if not sigma_deg > 0:
        raise ValueError(f"the width of the angular prior must be positive, not {sigma_deg}")
    poses = euler.to_matrix(np.atleast_2d(np.asarray(angles, dtype=np.float64)))
    base = euler.to_matrix(np.concatenate([grid.angles, np.zeros((len(grid.angles), 1))], axis=1))
    tree = cKDTree(base[:, 2])
    n_psi = n_psi or 6 * 2**order
    parts = [
        _chunk(poses[start : start + _PARTICLE_CHUNK], base, tree, group.operators, n_psi, sigma_deg)
        for start in range(0, len(poses), _PARTICLE_CHUNK)
    ]
    counts = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0, dtype=np.int64)
    ptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    index = np.concatenate([part[1] for part in parts]) if parts else np.zeros(0, dtype=np.int64)
    log_prior = np.concatenate([part[2] for part in parts]) if parts else np.zeros(0, dtype=np.float32)
    return LocalCandidates(ptr, index, log_prior)


def _chunk(
    poses: np.ndarray, base: np.ndarray, tree: cKDTree, operators: np.ndarray, n_psi: int, sigma: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts, indices and log priors of some particles' candidates."""
    mates = np.einsum("nij,kjl->nkil", poses, operators).reshape(-1, 3, 3)
    mate, direction, tilt = _near_directions(mates, tree, len(operators), sigma)
    in_plane = _in_plane_angles(base[direction], mates[mate])
    owner = mate // len(operators)
    starts = np.searchsorted(owner, np.arange(len(poses) + 1))
    step = 360.0 / n_psi
    width = 2 * int(CUT_OFF * sigma / step) + 2  # most psi angles one direction can have
    slots = np.concatenate([[0], np.cumsum(np.diff(starts) * min(width, n_psi))]).astype(np.int64)
    index = np.empty(slots[-1], dtype=np.int64)
    log_prior = np.empty(slots[-1], dtype=np.float32)
    counts = np.empty(len(poses), dtype=np.int64)
    _fill(starts, slots, direction, tilt, in_plane, n_psi, sigma, counts, index, log_prior)
    kept = np.arange(slots[-1]) - np.repeat(slots[:-1], np.diff(slots)) < np.repeat(counts, np.diff(slots))
    return counts, index[kept], log_prior[kept]


def _near_directions(mates: np.ndarray, tree: cKDTree, n_mates: int, sigma: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (mate, direction, angle in degrees) nearer than 3 sigma, or the nearest one of a particle, sorted by mate."""
    reach = 2 * math.sin(math.radians(min(CUT_OFF * sigma, 180.0)) / 2)
    views = np.ascontiguousarray(mates[:, 2])
    found = cKDTree(views).sparse_distance_matrix(tree, reach, output_type="ndarray")
    mate, direction, chord = found["i"], found["j"], found["v"]
    lonely = np.flatnonzero(np.bincount(mate // n_mates, minlength=len(mates) // n_mates) == 0)
    if len(lonely):
        distance, nearest = tree.query(views.reshape(-1, n_mates, 3)[lonely])
        best = distance.argmin(axis=1)
        rows = np.arange(len(lonely))
        mate = np.concatenate([mate, lonely * n_mates + best])
        direction = np.concatenate([direction, nearest[rows, best]])
        chord = np.concatenate([chord, distance[rows, best]])
    by_mate = np.argsort(mate, kind="stable")
    angle = np.rad2deg(2 * np.arcsin(np.minimum(chord / 2, 1.0)))
    return mate[by_mate], direction[by_mate].astype(np.int64), angle[by_mate]


def _in_plane_angles(base: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """The psi (degrees) at which the grid's direction `base [m, 3, 3]` differs from `pose [m, 3, 3]` by a pure tilt.

    It is the twist about the view of the rotation base pose^T; opposite views have none, and get 0.
    """
    cos = np.einsum("mj,mj->m", base[:, 0], pose[:, 0]) + np.einsum("mj,mj->m", base[:, 1], pose[:, 1])
    sin = np.einsum("mj,mj->m", base[:, 1], pose[:, 0]) - np.einsum("mj,mj->m", base[:, 0], pose[:, 1])
    return np.rad2deg(np.arctan2(sin, cos))


@njit(nogil=True, cache=True, parallel=True)
def _fill(starts, slots, direction, tilt, in_plane, n_psi, sigma, counts, index, log_prior):
    """Write each particle's candidates into its slots: expand psi, sort, merge what two mates reach, normalise."""
    for particle in prange(len(counts)):
        count = slots[particle]
        for pair in range(starts[particle], starts[particle + 1]):
            count = _expand_psi(direction[pair], tilt[pair], in_plane[pair], n_psi, sigma, index, log_prior, count)
        first = slots[particle]
        kept = _sort_and_merge(index[first:count], log_prior[first:count])
        _normalise(log_prior[first : first + kept])
        counts[particle] = kept


@njit(nogil=True, cache=True)
def _expand_psi(direction, tilt, centre, n_psi, sigma, index, log_prior, count):
    """Append the psi angles within 3 sigma of `centre` (or the nearest one); returns the new count."""
    step = 360.0 / n_psi
    low, high = math.floor((centre - 3.0 * sigma) / step) + 1, math.ceil((centre + 3.0 * sigma) / step) - 1
    if high < low:
        low = high = math.floor(centre / step + 0.5)
    if high - low + 1 >= n_psi:  # the whole circle: start half a turn away, so that each angle is met once and the short way
        low = math.floor(centre / step + 0.5) - n_psi // 2
        high = low + n_psi - 1
    for turn in range(low, high + 1):
        away = turn * step - centre
        index[count] = direction * n_psi + turn % n_psi
        log_prior[count] = -(tilt * tilt + away * away) / (2.0 * sigma * sigma)
        count += 1
    return count


@njit(nogil=True, cache=True)
def _sort_and_merge(index, log_prior):
    """Sort by index in place and keep the larger prior of equal ones; returns how many are left."""
    if len(index) == 0:
        return 0
    by_index = np.argsort(index)
    sorted_index, sorted_prior = index[by_index], log_prior[by_index]
    kept = 0
    for i in range(len(sorted_index)):
        if kept > 0 and index[kept - 1] == sorted_index[i]:
            log_prior[kept - 1] = max(log_prior[kept - 1], sorted_prior[i])
        else:
            index[kept], log_prior[kept] = sorted_index[i], sorted_prior[i]
            kept += 1
    return kept


@njit(nogil=True, cache=True)
def _normalise(log_prior):
    """Subtract the logarithm of the sum of the exponentials, in place."""
    if len(log_prior) == 0:
        return
    top = log_prior.max()
    total = 0.0
    for value in log_prior:
        total += math.exp(value - top)
    for i in range(len(log_prior)):
        log_prior[i] -= top + math.log(total)
