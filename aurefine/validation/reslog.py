"""ResLog: resolution of half maps reconstructed from growing random subsets of the particles, at the poses that the refinement found.

Sources: Rosenthal & Henderson (2003), J. Mol. Biol. 333, 721 (N grows as exp(B / 2 d^2)); Stagg et al. (2014), J. Struct. Biol. 185, 418.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from aurefine import fsc
from aurefine.errors import InputError
from aurefine.job_control import JobControl
from aurefine.particles import ParticleSet
from aurefine.validation.inputs import Given, refined_particles
from aurefine.validation.options import ValidateOptions
from aurefine.validation.result import Measure, Validation

STAGG = "Rosenthal & Henderson 2003; Stagg et al. 2014"
COARSEST = 15.0  # Angstrom: below this, and up to where the FSC still crosses, Wilson statistics make the line straight
_AT_NYQUIST = 0.985  # of Nyquist's frequency: beyond, resolution is no longer limited by the particles
_FEWEST = 25  # particles of a half
_LARGE = 10_000  # particles of a half whose reconstructions take long
_DRAWS = 2  # subsets of one size whose curves are averaged


@dataclass(frozen=True, eq=False)
class ResLog:
    """By size: `particles [k]` of both halves, `resolution [k]` (Angstrom, FSC 0.143), `nyquist` (Angstrom)."""

    particles: np.ndarray
    resolution: np.ndarray
    nyquist: float


@dataclass(frozen=True, eq=False)
class Line:
    """1/d^2 = intercept + slope ln N through the points of `used [k]`; the standard error of the slope (NaN of two points)."""

    slope: float
    intercept: float
    error: float
    used: np.ndarray

    @property
    def bfactor(self) -> float:
        """B of N ~ exp(B / 2 d^2), Angstrom^2."""
        return 2 / self.slope

    @property
    def bfactor_error(self) -> float:
        """Standard error of B."""
        return 2 * self.error / self.slope**2

    def resolution(self, particles: np.ndarray | float) -> np.ndarray:
        """Resolution in Angstrom of so many particles on the line; infinite where it has none."""
        squared = self.intercept + self.slope * np.log(particles)
        return np.where(squared > 0, 1 / np.sqrt(np.maximum(squared, 1e-12)), np.inf)


def sizes(half: int) -> list[int]:
    """Particles of a half, growing to all of them: each time twice as many, of small sets 1.4 times."""
    ratio = 2 if half > _LARGE else math.sqrt(2)
    count = int(math.log(half / _FEWEST) / math.log(ratio)) + 1
    return [round(half / ratio**step) for step in reversed(range(count))]


def measure(
    halves: tuple[np.ndarray, np.ndarray], make: Callable[[np.ndarray], np.ndarray], mask: np.ndarray, pixel_size: float, seed: int = 0,
    check: Callable[[], None] = lambda: None,
) -> ResLog:
    """ResLog of the rows of both half-sets; `make(rows)` reconstructs a map [n, n, n]. Subsets are drawn at random, those of one size disjoint."""
    rng = np.random.default_rng(seed)
    shuffled = [rng.permutation(rows) for rows in halves]
    box, numbers, found = len(mask), [], []
    for size in sizes(min(map(len, halves))):
        curves = []
        for draw in range(min(_DRAWS, min(map(len, halves)) // size)):
            one, two = (make(np.sort(rows[draw * size : (draw + 1) * size])) * mask for rows in shuffled)
            curves.append(fsc.of_maps(one, two))
            check()
        numbers.append(2 * size)
        found.append(fsc.resolution_at(np.mean(curves, axis=0), 0.143, box, pixel_size))
    return ResLog(np.array(numbers), np.array(found), 2 * pixel_size)


def fit(curve: ResLog, coarsest: float = COARSEST) -> Line | None:
    """Least squares through the points finer than `coarsest` and short of Nyquist; None where there are fewer than three, or no gain at all."""
    used = (curve.resolution <= coarsest) & (curve.resolution > curve.nyquist / _AT_NYQUIST)
    if used.sum() < 3:
        return None
    x, y = np.log(curve.particles[used]), curve.resolution[used] ** -2.0
    slope, intercept = np.polyfit(x, y, 1)
    if slope <= 0:
        return None
    residual = float(((y - intercept - slope * x) ** 2).sum())
    error = math.sqrt(residual / (len(x) - 2) / float(((x - x.mean()) ** 2).sum()))
    return Line(float(slope), float(intercept), error, used)


def add(found: Validation, given: Given, options: ValidateOptions, control: JobControl) -> None:
    """The row and the curve of ResLog, or why there are none."""

    def missing(reason: str) -> None:
        found.missing("ResLog, B-factor", "reslog_bfactor", reason, STAGG)

    if options.skip_reslog:
        return missing("left out (--skip_reslog)")
    if given.halves is None or given.mask is None:
        return missing(f"{given.files.name}: there are no unfiltered half maps")
    try:
        particles = refined_particles(given)
    except InputError as error:  # maps and angles can be validated where the images have been left behind
        return missing(str(error))
    first = particles.optics[0]
    if first.box != given.halves.box:
        return missing(f"the images are {first.box} pixels wide, the half maps {given.halves.box}")
    halves = tuple(np.flatnonzero(particles.random_subset == number) for number in (1, 2))
    if min(map(len, halves)) < 4 * _FEWEST:
        return missing(f"{given.files.data}: 100 particles of each half (rlnRandomSubset) were expected, {min(map(len, halves))} are there")
    finest = found.value("fsc_masked") or 0.0
    curve = measure((halves[0], halves[1]), _maker(particles, given, 0.85 * finest), given.mask, given.halves.pixel_size,
                    options.random_seed, control.check)  # fmt: skip
    _keep(found, curve, fit(curve))
    return None


def _maker(particles: ParticleSet, given: Given, finest: float) -> Callable[[np.ndarray], np.ndarray]:
    """Reconstructs rows up to a resolution that no subset will reach."""
    return lambda rows: reconstruct(particles, rows, given.symmetry, given.files.ctf, finest)


def reconstruct(particles: ParticleSet, rows: np.ndarray, symmetry: str, ctf: bool = True, finest: float = 0.0) -> np.ndarray:
    """A map for ResLog, with the refinement's own kernels.

    Voxels are Wiener-filtered as they should be where the FSC is 0.143, which is where resolution is read off. Without, the few that a small
    subset hardly samples carry most of a shell's noise: resolution falls faster than with the number of particles.
    """
    from aurefine import reconstruction

    return reconstruction.from_poses(particles, rows, symmetry, use_ctf=ctf, resolution=finest, gridding=0, expected_fsc=0.143)


def _keep(found: Validation, curve: ResLog, line: Line | None) -> None:
    table = {"particles": curve.particles, "resolution": curve.resolution, "fitted": np.zeros(len(curve.particles))}
    found.curves["reslog"] = table
    reach = f"{curve.particles[0]} particles {curve.resolution[0]:.1f} A, {curve.particles[-1]} particles {curve.resolution[-1]:.2f} A"
    if line is None:
        found.missing("ResLog, B-factor", "reslog_bfactor", f"{reach}; no line was fitted: fewer than three sizes between {COARSEST:g} A and Nyquist "
                      f"({curve.nyquist:.2f} A), or no gain with size", STAGG)  # fmt: skip
        return
    table |= {"fitted": line.used.astype(float), "line": line.resolution(curve.particles)}
    twice = float(line.resolution(2 * curve.particles[-1]))
    ahead = f"twice the particles would give {twice:.2f} A" if twice > curve.nyquist else "twice the particles would reach Nyquist"
    words = f"+- {line.bfactor_error:.0f}; {reach}; on the line {ahead} (fixed poses: few particles look better than they are)"
    found.add(Measure("reslog_bfactor", "ResLog, B-factor", line.bfactor, "A^2", "info", words, STAGG))
