"""One map fitted into another as a rigid body: every rotation and shift at low resolution, the best ones refined.

Correlations are those of Fourier coefficients whose shells have equal power, so that neither map's B-factor or filter matters. The shift is
found for each rotation by one inverse transform, as in a rotation-translation search (Navaza 1987, Acta Cryst. A43, 645).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy import fft
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from aurefine import maps, nufft, sampling

_COARSE_ORDER = 2  # 15 degrees between the rotations of the search
_COARSE_SHELL = 9  # of the box: at 15 degrees a coefficient is at most some two voxels from its place
_FINEST_SHELL = 64  # beyond, a fit gains nothing that is seen
_PADDING, _MARGIN = 2, 2  # times; shells
_AT_A_TIME = 64  # rotations
_KEPT, _APART = 12, 20.0  # best rotations that are refined, degrees between them
_SAMPLES = 4000  # coefficients that a refinement looks at


@dataclass(frozen=True)
class Fit:
    """`p_target = rotation @ p_moving + shift` about the centres of both boxes; shift (x, y, z) in Angstrom.

    `score` is the mean correlation of Fourier coefficients over the shells that were used, from -1 to 1.
    """

    rotation: np.ndarray
    shift: np.ndarray
    score: float

    @property
    def angle(self) -> float:
        """Angle of the rotation, degrees."""
        return float(np.degrees(Rotation.from_matrix(self.rotation).magnitude()))


def search(target: np.ndarray, moving: np.ndarray, pixel_size: float, resolution: float, group: str = "C1",
           check: Callable[[], None] = lambda: None) -> Fit:  # fmt: skip
    """The best fit of `moving` into `target` (maps [n, n, n], n even, of one pixel size), refined to `resolution` (Angstrom).

    `group` is the point group of the target: rotations that it makes alike are tried once. `check` is called between steps.
    """
    last = _last_shell(len(target), pixel_size, resolution)
    small = working_box(len(target), pixel_size, resolution)
    pixel_size *= len(target) / small
    target, moving = _cropped(target, small), _cropped(moving, small)
    first = min(_COARSE_SHELL, last)
    starts = _coarse(target, moving, first, group, check)
    near = _Closeness(target, moving, first)
    fits = []
    for rotation, shift in starts:
        fits.append(near.refined(rotation, shift, 8.0))
        check()
    best = sorted(fits, key=lambda fit: -fit[2])[:3]
    shells = sorted({min(last, round(first * factor)) for factor in (1.0, 1.6, 2.5, 4.0)} | {last})
    for shell in shells[1:]:
        finer = _Closeness(target, moving, shell)
        best = sorted((finer.refined(rotation, shift, 60.0 / shell) for rotation, shift, _ in best), key=lambda fit: -fit[2])[:2]
        check()
    rotation, shift, score = best[0]
    return Fit(rotation, shift * pixel_size, score)


def score(target: np.ndarray, moving: np.ndarray, pixel_size: float, resolution: float) -> float:
    """The `Fit.score` of two maps as they lie."""
    last, small = _last_shell(len(target), pixel_size, resolution), working_box(len(target), pixel_size, resolution)
    return _Closeness(_cropped(target, small), _cropped(moving, small), last).score(np.eye(3), np.zeros(3))


def working_box(box: int, pixel_size: float, resolution: float) -> int:
    """Voxels a side that a fit up to a resolution (Angstrom) needs of a box: maps that are cropped to it in Fourier space give the same fit."""
    return min(box, 2 * (_last_shell(box, pixel_size, resolution) + _MARGIN))


def _cropped(volume: np.ndarray, small: int) -> np.ndarray:
    return volume if len(volume) == small else maps.fourier_rescale(volume, small, single=True)


def _last_shell(box: int, pixel_size: float, resolution: float) -> int:
    return int(np.clip(round(box * pixel_size / resolution), 4, min(box // 2 - _MARGIN, _FINEST_SHELL)))


def _coarse(target: np.ndarray, moving: np.ndarray, last: int, group: str, check: Callable[[], None]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rotations [3, 3] and shifts [3] (voxels) of the best correlations over all rotations, far from each other."""
    samples = _transform(moving, last)
    box, small = len(target), 2 * (last + _MARGIN)
    sign = (-1.0) ** np.indices((small, small, small // 2 + 1)).sum(axis=0)
    x, y, z = (np.broadcast_to(f, (small, small, small // 2 + 1)) for f in nufft.frequency_grid(small, 3))
    radius = np.sqrt(x * x + y * y + z * z)
    inside = (radius <= last) & (radius >= 0.5)
    points, shell = np.stack([x[inside], y[inside], z[inside]], axis=1), np.round(radius[inside]).astype(int)
    values = fft.rfftn(maps.fourier_rescale(target, small)) * sign
    fixed = _even(values[inside][None], shell)[0].conj() / np.bincount(shell)[shell]  # each shell counts the same
    grid = sampling.directions(_COARSE_ORDER, group)
    rotations = np.swapaxes(sampling.coarse_rotations(grid, sampling.psi_angles(_COARSE_ORDER)), 1, 2)
    peaks, places = np.empty(len(rotations)), np.empty((len(rotations), 3))
    for start in range(0, len(rotations), _AT_A_TIME):
        part = rotations[start : start + _AT_A_TIME]
        turned = _sample(samples, (points @ part).reshape(-1, 3)).reshape(len(part), -1)
        product = np.zeros((len(part), small, small, small // 2 + 1), np.complex64)
        product[:, inside] = _even(turned, shell) * fixed
        surface = fft.irfftn(product.conj(), (small,) * 3, axes=(1, 2, 3)).reshape(len(part), -1)
        peaks[start : start + len(part)] = surface.max(axis=1)
        place = np.stack(np.unravel_index(surface.argmax(axis=1), (small,) * 3), axis=1)[:, ::-1].astype(float)
        places[start : start + len(part)] = np.where(place > small // 2, place - small, place) * box / small
        check()
    chosen: list[int] = []
    for index in np.argsort(-peaks):
        turns = np.einsum("kij,ij->k", rotations[chosen], rotations[index]) if chosen else np.zeros(0)
        if (np.degrees(np.arccos(np.clip((turns - 1) / 2, -1, 1))) > _APART).all():
            chosen.append(int(index))
        if len(chosen) == _KEPT:
            break
    return [(rotations[index], places[index]) for index in chosen]


def _even(values: np.ndarray, shell: np.ndarray) -> np.ndarray:
    """Coefficients [k, n] divided by the root mean square of their shell."""
    count = np.maximum(np.bincount(shell), 1)
    power = np.stack([np.bincount(shell, np.abs(row) ** 2) / count for row in values])
    return values / np.sqrt(np.maximum(power, 1e-30))[:, shell]


def _transform(volume: np.ndarray, last: int) -> np.ndarray:
    """Transform of a map up to a shell on a finer grid, complex64, zero frequency in the middle: for `_sample`."""
    small = min(len(volume), 2 * (last + _MARGIN))
    axis = (np.arange(small) - small // 2) / (_PADDING * small)
    correct = 1 / np.sinc(axis) ** 2  # of linear interpolation
    values = maps.fourier_rescale(volume, small) * correct[:, None, None] * correct[:, None] * correct
    padded = np.zeros((_PADDING * small,) * 3, np.complex64)
    inner = slice((_PADDING - 1) * small // 2, (_PADDING + 1) * small // 2)
    padded[inner, inner, inner] = values
    return fft.fftshift(fft.fftn(fft.ifftshift(padded), overwrite_x=True))


@njit(cache=True)  # a few thousand points at a time: threads would wait for each other
def _sample(transform, points):
    """Linear interpolation at `points` [n, 3] (x, y, z) in cycles per box."""
    middle = transform.shape[0] // 2
    out = np.empty(len(points), np.complex64)
    for i in range(len(points)):
        x, y, z = points[i, 0] * _PADDING + middle, points[i, 1] * _PADDING + middle, points[i, 2] * _PADDING + middle
        x0, y0, z0 = int(x), int(y), int(z)
        fx, fy, fz = x - x0, y - y0, z - z0
        total = 0j
        for dz in range(2):
            for dy in range(2):
                row = transform[z0 + dz, y0 + dy]
                weight = (fz if dz else 1 - fz) * (fy if dy else 1 - fy)
                total += weight * ((1 - fx) * row[x0] + fx * row[x0 + 1])
        out[i] = total
    return out


class _Closeness:
    """Mean correlation of random coefficients up to a shell, as a function of a motion."""

    def __init__(self, target: np.ndarray, moving: np.ndarray, last: int) -> None:
        rng = np.random.default_rng(0)
        direction = rng.normal(size=(_SAMPLES, 3))
        length = rng.uniform(1, last, (_SAMPLES, 1))  # each shell the same number
        self.points = direction / np.linalg.norm(direction, axis=1, keepdims=True) * length
        self.shell, self.box, self.moving = length[:, 0].astype(int), len(target), _transform(moving, last)
        self.fixed = _even(_sample(_transform(target, last), self.points)[None], self.shell)[0].conj()

    def score(self, rotation: np.ndarray, shift: np.ndarray) -> float:
        """Mean correlation after turning by `rotation` and moving by `shift` voxels."""
        moved = _even(_sample(self.moving, self.points @ rotation)[None], self.shell)[0] * np.exp(-2j * np.pi / self.box * (self.points @ shift))
        return float((moved * self.fixed).real.mean())

    def refined(self, rotation: np.ndarray, shift: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray, float]:
        """The best motion near this one (steps of so many degrees first) and its score."""

        def placed(motion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return Rotation.from_rotvec(np.radians(motion[:3])).as_matrix() @ rotation, shift + motion[3:]

        step = np.array([degrees] * 3 + [0.03 * self.box / 4] * 3)
        start = np.vstack([np.zeros(6), np.diag(step)])
        best = minimize(lambda motion: -self.score(*placed(motion)), np.zeros(6), method="Nelder-Mead",
                        options={"initial_simplex": start, "xatol": 0.02, "fatol": 1e-5, "maxfev": 500})  # fmt: skip
        return (*placed(best.x), -float(best.fun))
