"""How far a particle may turn or move before its likelihood notices: the accuracy of the assignments (ALGORITHM.md 5.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from aurefine import euler, kernels
from aurefine.fourier import pixel_list
from aurefine.kernels import Volume
from aurefine.particles import ParticleSet
from aurefine.refine import devices
from aurefine.refine.images import contrast
from aurefine.refine.options import RefineOptions
from aurefine.refine.plan import Plan, slice_matrices
from aurefine.refine.state import Model, Poses

_NOTICED = 4.60517  # -ln 0.01
_PARTICLES = 100
_TURN_STEPS = ((0.2, 0.05), (1, 0.1), (2, 0.2), (5, 0.5), (10, 1), (20, 2), (30, 5))  # up to this error, in steps of
_SHIFT_STEPS = ((1, 0.1), (2, 0.2), (5, 0.5), (10, 1))


@dataclass(frozen=True, eq=False)
class Accuracy:
    """rotation in degrees, translation in Angstrom, and the share of each shell in the rotational signal [shells]."""

    rotation: float
    translation: float
    orientability: np.ndarray


def _ladder(steps) -> np.ndarray:
    """Errors that are tried; the last one lies beyond the limit."""
    limit, values, error = steps[-1][0], [], 0.0
    while error <= limit:
        error += next((step for below, step in steps if error < below - 1e-9), steps[-1][1])
        values.append(error)
    return np.array(values)


def estimate(
    plan: Plan,
    model: Model,
    volume: Volume,
    particles: ParticleSet,
    poses: Poses,
    members: np.ndarray,
    options: RefineOptions,
    side_by_side: Callable[..., Iterable[Any]] = map,
) -> Accuracy:
    """Mean error of rotation and translation at which the expected log-likelihood drops by -ln 0.01, over the first 100 of `members`.

    `side_by_side` maps a function over two lists of particles.
    """

    def errors(chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        turns, shifts, spectrum = [np.empty(0)], [np.empty(0)], np.zeros(model.box // 2 + 1)
        for group in np.unique(particles.optics_index[chosen]):
            mine = chosen[particles.optics_index[chosen] == group]
            signal = _Signal(plan, model, volume, particles, poses, mine, int(group), options)
            turn, by_shell = signal.turn_errors(_ladder(_TURN_STEPS))
            turns.append(turn)
            spectrum += by_shell
            shifts.append(signal.shift_errors(_ladder(_SHIFT_STEPS)) * particles.optics[group].pixel_size)
        return np.concatenate(turns), np.concatenate(shifts), spectrum

    chosen = members[:_PARTICLES]
    turns, shifts, spectra = zip(*side_by_side(errors, (chosen[: len(chosen) // 2], chosen[len(chosen) // 2 :])), strict=True)
    spectrum = np.sum(spectra, 0)
    total = spectrum.sum()
    return Accuracy(float(np.concatenate(turns).mean()), float(np.concatenate(shifts).mean()), spectrum / total if total > 0 else spectrum)


class _Signal:
    """Signal-to-noise of particles' projections (of one optics group) against slightly wrong ones."""

    def __init__(self, plan: Plan, model: Model, volume: Volume, particles: ParticleSet, poses: Poses, rows: np.ndarray, group: int, options) -> None:
        optics = particles.optics[group]
        self.volume, self.geometry, self.angles = volume, plan.geometry[group], poses.angles[rows]
        current, _, aligned = plan.image_sizes[group]
        self.pixels = pixel_list(current if options.accuracy_current_size else aligned, optics.box, optics.pixel_size)
        self.model_shells = model.box // 2 + 1
        self.shells = self.geometry.model_shell(self.pixels.shell, model.box // 2)
        sigma2 = model.sigma2_noise[group][self.shells]
        self.device = volume.data.device
        self.compiled = devices.compiled(self.device)  # then arrays are NumPy's, whose sine is faster; on a GPU they are tensors there
        weight = self._native(np.where((self.pixels.shell > 0) & (sigma2 > 0), 0.5 / np.maximum(sigma2, 1e-30), 0))
        self.weight: Any = weight
        if options.ctf_correction and not optics.ctf_corrected:
            values = contrast(particles, rows, optics, self.pixels, options, self.device)
            self.weight = weight * (values**4 if optics.premultiplied else values**2)
        # one draw a particle decides its axis: the same in every iteration
        self.random = np.random.default_rng(abs(options.random_seed)).random(particles.count)[rows]
        self.own = self._project(self.angles)

    def _native(self, values: np.ndarray) -> Any:
        """float32, where signals are computed."""
        single = values.astype(np.float32)
        return single if self.compiled else torch.from_numpy(single).to(self.device)

    def _host(self, values: Any) -> np.ndarray:
        return values if self.compiled else values.cpu().numpy()

    def _project(self, angles: np.ndarray) -> Any:
        found = kernels.project(self.volume, slice_matrices(euler.to_matrix(angles), self.volume, self.geometry), self.pixels)
        return found.numpy() if self.compiled else found

    def turn_errors(self, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(error in degrees that each particle notices, signal per shell there): one Euler angle, chosen at random, is turned."""
        axis = np.minimum((self.random * 3).astype(int), 2)

        def signal(step: np.ndarray) -> Any:
            turned = self.angles.copy()
            turned[np.arange(len(axis)), axis] += errors[step]
            difference = self._project(turned) - self.own
            return self.weight * (difference.real**2 + difference.imag**2)

        step = _first_noticed(lambda k: self._host(signal(k).sum(1)), len(axis), len(errors))
        return errors[step], np.bincount(self.shells, self._host(signal(step).sum(0)), self.model_shells)

    def shift_errors(self, errors: np.ndarray) -> np.ndarray:
        """Error in pixels of the group that each particle notices: a shift along x or y, chosen at random."""
        frequency = self._native(np.where((self.random < 0.5)[:, None], self.pixels.x, self.pixels.y) * (np.pi / self.geometry.box))
        power = self.weight * (self.own.real**2 + self.own.imag**2)
        sine: Callable[[Any], Any] = np.sin if self.compiled else torch.sin

        def signal(step: np.ndarray) -> np.ndarray:
            return self._host((4 * sine(self._native(errors[step, None]) * frequency) ** 2 * power).sum(1))

        return errors[_first_noticed(signal, len(frequency), len(errors))]


def _first_noticed(signal, particles: int, steps: int) -> np.ndarray:
    """Lowest step of the ladder whose signal is noticed, by bisection (signals grow with the error); the last one where none is."""
    low, high = np.zeros(particles, int), np.full(particles, steps - 1)
    while (low < high).any():
        middle = (low + high) // 2
        noticed = signal(middle) > _NOTICED
        low, high = np.where(noticed, low, np.minimum(middle + 1, high)), np.where(noticed, middle, high)
    return low
