"""How far a particle may turn or move before its likelihood notices: the accuracy of the assignments (ALGORITHM.md 5.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aurefine import ctf, euler, kernels
from aurefine.fourier import pixel_list
from aurefine.kernels import Volume
from aurefine.particles import ParticleSet
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
    """Errors tried one after the other; the last one lies beyond the limit."""
    limit, values, error = steps[-1][0], [], 0.0
    while error <= limit:
        error += next((step for below, step in steps if error < below - 1e-9), steps[-1][1])
        values.append(error)
    return np.array(values)


def estimate(
    plan: Plan, model: Model, volume: Volume, particles: ParticleSet, poses: Poses, members: np.ndarray, options: RefineOptions
) -> Accuracy:
    """Mean error of rotation and translation at which the expected log-likelihood drops by -ln 0.01, over the first 100 of `members`."""
    chosen = members[:_PARTICLES]
    turns, shifts = _ladder(_TURN_STEPS), _ladder(_SHIFT_STEPS)
    turn_total, shift_total, spectrum = 0.0, 0.0, np.zeros(model.box // 2 + 1)
    for group in np.unique(particles.optics_index[chosen]):
        mine = chosen[particles.optics_index[chosen] == group]
        for particle in mine:
            signal = _Signal(plan, model, volume, particles, poses, int(particle), int(group), options)
            found, by_shell = signal.turn_error(turns)
            turn_total += found
            spectrum += by_shell
            shift_total += signal.shift_error(shifts) * particles.optics[group].pixel_size
    total = spectrum.sum()
    return Accuracy(turn_total / len(chosen), shift_total / len(chosen), spectrum / total if total > 0 else spectrum)


class _Signal:
    """Signal-to-noise of one particle's projection against a slightly wrong one."""

    def __init__(self, plan: Plan, model: Model, volume: Volume, particles: ParticleSet, poses: Poses, particle: int, group: int, options) -> None:
        optics = particles.optics[group]
        self.volume, self.geometry, self.angles = volume, plan.geometry[group], poses.angles[particle]
        current, _, aligned = plan.image_sizes[group]
        self.pixels = pixel_list(current if options.accuracy_current_size else aligned, optics.box, optics.pixel_size)
        self.model_shells = model.box // 2 + 1
        self.shells = self.geometry.model_shell(self.pixels.shell, model.box // 2)
        sigma2 = model.sigma2_noise[group][self.shells]
        self.weight = np.where((self.pixels.shell > 0) & (sigma2 > 0), 0.5 / np.maximum(sigma2, 1e-30), 0)
        if options.ctf_correction:
            values = ctf.evaluate(
                particles.defocus, np.array([particle]), optics, self.pixels.frequency_x, self.pixels.frequency_y,
                intact_first_peak=options.ctf_intact_first_peak, phase_flipped=options.ctf_phase_flipped, only_flip_phases=options.only_flip_phases,
            )[0]  # fmt: skip
            self.weight = self.weight * (values**4 if optics.premultiplied else values**2)
        self.random = np.random.default_rng(abs(options.random_seed) + particle).random()
        self.own = self._project(self.angles[None])[0]

    def _project(self, angles: np.ndarray) -> np.ndarray:
        return kernels.project(self.volume, slice_matrices(euler.to_matrix(angles), self.volume, self.geometry), self.pixels).cpu().numpy()

    def turn_error(self, errors: np.ndarray) -> tuple[float, np.ndarray]:
        """(error in degrees that is noticed, signal per shell there): one Euler angle, chosen at random, is turned."""
        turned = np.repeat(self.angles[None], len(errors), 0)
        turned[:, min(int(self.random * 3), 2)] += errors
        signal = self.weight * np.abs(self._project(turned) - self.own) ** 2
        k = _first_above(signal.sum(1))
        return float(errors[k]), np.bincount(self.shells, signal[k], self.model_shells)

    def shift_error(self, errors: np.ndarray) -> float:
        """Error in pixels of the group that is noticed: a shift along x or y, chosen at random."""
        frequency = (self.pixels.x if self.random < 0.5 else self.pixels.y) / self.geometry.box
        power = self.weight * np.abs(self.own) ** 2
        signal = (4 * np.sin(np.pi * errors[:, None] * frequency) ** 2) @ power
        return float(errors[_first_above(signal)])


def _first_above(signal: np.ndarray) -> int:
    above = np.flatnonzero(signal > _NOTICED)
    return int(above[0]) if len(above) else len(signal) - 1
