"""Particles in which the map is hardly to be found: left out of an iteration's sums by what the one before found in them.

What counts is the likelihood that an image holds the map's projection over the likelihood that it holds none, in units of what is expected
of a particle: the strength of the projection in the image, `signal_fit`, is that up to a constant. The likelihood itself cannot tell: it
follows the image's noise, which the norm correction has scaled. The particles are still aligned and scored, and come back when they fit. It
is judged from the poses of the iteration before alone, so that a continued run judges as the first one did.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from aurefine.particles import ParticleSet
from aurefine.refine.state import Poses

LIMIT = 6.0  # robust standard deviations below particles of the same optics group and alike defocus
LEAST = 0.5  # of their median: what holds more of the map than that is no outlier, however alike all others are
MOST = 0.10  # share of the particles: more are not outliers but another kind of image, and none is left out
REASON = f"likelihood_ratio_more_than_{LIMIT:g}_sigma_low"  # in the list of rejected particles
_FEWEST = 50  # particles that can be compared with each other
_MOST_PARTS = 10  # of the range of defocus
_QUARTILE = 0.6745  # of a normal distribution, in standard deviations


def find(poses: Poses, particles: ParticleSet, iteration: int, tell: Callable[[str], None]) -> np.ndarray:
    """Mask [n] of the particles that `iteration` leaves out of its sums, by `poses`, those of the one before; `tell` is told of them.

    None in the first iteration, after one of RELION's, and where they would be more than a tenth.
    """
    if iteration < 2 or not poses.signal_fit.any():
        return np.zeros(particles.count, bool)
    defocus = (particles.defocus.defocus_u + particles.defocus.defocus_v) / 2
    found = are_outliers(poses.signal_fit, defocus, particles.optics_index)
    count = int(found.sum())
    if count > MOST * particles.count:
        tell(f" {count} of {particles.count} particles hold hardly any signal of the map, too many to be outliers: all are used. "
             "Look at them in a 2D or 3D classification.")  # fmt: skip
        return np.zeros(particles.count, bool)
    if count:
        tell(f" Outliers: {count} of {particles.count} particles hold hardly any signal of the map, and are set aside in this iteration")
    return found


def are_outliers(signal_fit: np.ndarray, defocus: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Mask [n] of values far below those of the same optics group `group` [n] and alike `defocus` [n]."""
    median, width = typical(signal_fit, defocus, group)
    return (width > 0) & (signal_fit < median - LIMIT * width) & (signal_fit < LEAST * median)


def typical(values: np.ndarray, defocus: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is usual for each particle: median [n] by optics group and defocus, and width [n] (a standard deviation) by optics group.

    The width is that of the lower half of the distribution, so that a long tail of poor but usable images does not count as
    outliers; 0 where there are too few to compare with.
    """
    median, width = np.zeros(len(values)), np.zeros(len(values))
    for number in np.unique(group):
        rows = np.flatnonzero((group == number) & np.isfinite(values))
        if len(rows) < _FEWEST:
            continue
        rows = rows[np.argsort(defocus[rows], kind="stable")]
        for part in np.array_split(rows, min(_MOST_PARTS, len(rows) // _FEWEST)):
            median[part] = np.median(values[part])
        width[rows] = np.percentile(median[rows] - values[rows], 75) / _QUARTILE
    return median, width


def mark(poses: Poses, outliers: np.ndarray) -> None:
    """Have poses say which particles went into no sum: those without a significant sample."""
    poses.significant[outliers] = 0


def are_marked(poses: Poses) -> np.ndarray:
    """Mask [n] of the particles that went into no sum of the iteration that found these poses."""
    return poses.significant == 0
