"""A density threshold between solvent and particle, found from the map alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_VOXELS = 1 << 22  # as many as the statistics need
_BINS = 1024
_SHARE = 0.3  # of the way from solvent to particle: 97 % of a simulated particle's density or more lies within, loose rather than tight
_SPREADS = 4.0  # solvent reaches no farther
_HIGHEST = 0.5  # half way at most: beyond it a mask cuts into the particle


@dataclass(frozen=True)
class Threshold:
    """Densities of the solvent (median), of its noise (standard deviation) and of the particle (average), and the threshold between them."""

    value: float
    solvent: float
    noise: float
    particle: float

    @property
    def separation(self) -> float:
        """How many times its noise the particle stands above the solvent."""
        return (self.particle - self.solvent) / max(self.noise, 1e-30)

    @property
    def is_clear(self) -> bool:
        """Whether particle and solvent are two things: half way lies beyond the solvent's noise."""
        return self.separation * _HIGHEST >= _SPREADS


def find_threshold(volume: np.ndarray) -> Threshold:
    """The threshold for a binary mask of a low-pass filtered map [z, y, x] whose particle is brighter than the solvent.

    Voxels are split in two classes of least variance (Otsu 1979). The solvent's density is the median of the lower class and its noise the
    spread of what lies below that median (particle density cannot add to it); the particle's is the average of the upper class. The
    threshold lies 30 % of the way up, but at least four times the noise above the solvent, and never beyond half way.
    ValueError for a map that is constant.
    """
    step = max(1, round((volume.size / _VOXELS) ** (1 / 3)))
    values = np.ascontiguousarray(volume[::step, ::step, ::step]).ravel()
    if not np.ptp(values) > 0:
        raise ValueError("the map is constant")
    split = _otsu(values)
    lower, upper = values[values < split], values[values >= split]
    solvent = float(np.median(lower))
    below = lower[lower <= solvent].astype(np.float64) - solvent
    noise, particle = float(np.sqrt(np.mean(below**2))), float(upper.mean(dtype=np.float64))
    contrast = particle - solvent
    value = solvent + min(max(_SHARE * contrast, _SPREADS * noise), _HIGHEST * contrast)
    return Threshold(value, solvent, noise, particle)


def _otsu(values: np.ndarray) -> float:
    """The value that splits a histogram in two classes whose averages differ most, weighted by their sizes."""
    count, edges = np.histogram(values, _BINS)
    centres = (edges[1:] + edges[:-1]) / 2
    lower, sums = np.cumsum(count)[:-1], np.cumsum(count * centres)[:-1]
    upper, rest = len(values) - lower, (count * centres).sum() - sums
    between = lower * upper * (sums / np.maximum(lower, 1) - rest / np.maximum(upper, 1)) ** 2
    return float(edges[int(np.argmax(between)) + 1])
