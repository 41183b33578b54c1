"""Sharpening of the summed map: MTF, FSC weighting, B-factor by Guinier's plot, low-pass (ALGORITHM.md 9.2; Rosenthal and Henderson 2003)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from aurefine import fourier
from aurefine.mtf import Mtf
from aurefine.postprocessing.options import PostprocessOptions
from aurefine.threads import in_parts

_NOTHING = -99.0  # what RELION writes for the logarithm of an empty shell
_VANISHED = 1e-4  # FSC from which on nothing is kept


@dataclass
class Guinier:
    """Logarithms of the mean amplitude by shell after each step, and the fitted line (slope in square Angstrom)."""

    resolution_squared: np.ndarray  # 1/Angstrom^2
    steps: dict[str, np.ndarray] = field(default_factory=dict)
    fitted: bool = False
    slope: float = 0.0
    intercept: float = 0.0
    correlation: float = 0.0  # squared, as RELION reports it


class Spectrum:
    """The transform of a map of `box` voxels, changed in place step by step, plane by plane (whole volumes would not stay in cache)."""

    def __init__(self, transform: np.ndarray, pixel_size: float) -> None:
        self.values = transform
        self.box = len(transform)
        self.pixel_size = pixel_size
        self.shell = fourier.shell_index_3d(self.box)

    @property
    def n_shells(self) -> int:
        """Shells 0 to Nyquist."""
        return self.box // 2 + 1

    def _multiply(self, gain: Callable[[np.ndarray], np.ndarray]) -> None:
        """Multiply each plane of the transform by the gain (float32) at the radius (float32, in pixels of frequency) of its elements."""

        def work(part: slice) -> None:
            for plane, squared in zip(self.values[part], fourier.radius_squared_planes(self.box, part), strict=True):
                plane *= gain(np.sqrt(squared, dtype=np.float32))

        in_parts(work, self.box)

    def log_amplitudes(self) -> np.ndarray:
        """Natural logarithm of the mean amplitude by shell."""

        def sum_up(part: slice) -> np.ndarray:
            sums = np.zeros((2, self.n_shells + 1))
            for plane, shell in zip(self.values[part], self.shell[part], strict=True):
                index = np.minimum(shell.ravel(), self.n_shells)
                sums += np.bincount(index, np.abs(plane).ravel(), self.n_shells + 1), np.bincount(index, minlength=self.n_shells + 1)
            return sums

        total, count = sum(in_parts(sum_up, self.box), np.zeros((2, self.n_shells + 1)))[:, :-1]
        mean = total / np.maximum(count, 1)
        return np.log(mean, out=np.full(self.n_shells, _NOTHING), where=mean > 0)

    def weight_shells(self, weights: np.ndarray) -> None:
        """Multiply each shell by its weight; corners beyond Nyquist's shell become zero."""
        padded = np.append(weights, 0).astype(np.float32)

        def work(part: slice) -> None:
            for plane, shell in zip(self.values[part], self.shell[part], strict=True):
                plane *= padded[np.minimum(shell, self.n_shells)]

        in_parts(work, self.box)

    def divide_by_mtf(self, mtf: Mtf, detector_pixel_size: float) -> None:
        """Divide by the detector's MTF up to Nyquist of the map; frequencies from the last row but one on take the last value, as in RELION."""

        def gain(radius: np.ndarray) -> np.ndarray:
            frequency = radius / np.float32(self.box)
            at_detector = frequency * (detector_pixel_size / self.pixel_size)
            value = mtf.at(at_detector)
            value[frequency >= 0.5] = 1.0
            return (1 / value).astype(np.float32)

        self._multiply(gain)

    def apply_bfactor(self, bfactor: float) -> None:
        """Multiply by exp(-B/4 s^2); what lies beyond Nyquist's sphere becomes zero."""
        scale = np.float32(-bfactor / 4 / (self.box * self.pixel_size) ** 2)

        def gain(radius: np.ndarray) -> np.ndarray:
            factor = np.exp(scale * radius**2)
            factor[radius > self.box / 2] = 0
            return factor

        self._multiply(gain)

    def low_pass(self, resolution: float, width: int) -> None:
        """A raised cosine of `width` shells about the shell nearest to `resolution` (Angstrom)."""
        edge = fourier.edge(float(fourier.round_half_away(self.box * self.pixel_size / resolution)), width)
        self._multiply(lambda radius: fourier.falling(radius, *edge))


def fsc_weights(curve: np.ndarray) -> np.ndarray:
    """sqrt(2 FSC / (1 + FSC)) by shell, zero from the first shell on where the FSC has vanished."""
    gone = np.flatnonzero(curve < _VANISHED)
    weights = np.sqrt(np.maximum(2 * curve / (1 + np.maximum(curve, -0.5)), 0))
    if len(gone):
        weights[gone[0] :] = 0
    return weights


def sharpen(spectrum: Spectrum, curve: np.ndarray, resolution: float, mtf: Mtf | None, options: PostprocessOptions) -> tuple[Guinier, float]:
    """Take a map's spectrum through all steps asked for; returns the Guinier plot and the B-factor that was applied (square Angstrom)."""
    guinier = Guinier((np.arange(spectrum.n_shells) / (spectrum.box * spectrum.pixel_size)) ** 2)
    guinier.steps["Original"] = spectrum.log_amplitudes()
    if mtf is not None:
        detector = options.mtf_pixel_size if options.mtf_pixel_size > 0 else spectrum.pixel_size
        spectrum.divide_by_mtf(mtf, detector)
        guinier.steps["MTFCorrected"] = spectrum.log_amplitudes()
    if not options.skip_fsc_weighting:
        spectrum.weight_shells(fsc_weights(curve))
        guinier.steps["Weighted"] = spectrum.log_amplitudes()
    bfactor = options.adhoc_bfactor
    if options.auto_bfactor:
        fit(guinier, options)
        bfactor = 4 * guinier.slope
    if bfactor != 0:
        spectrum.apply_bfactor(bfactor)
    if bfactor != 0 or options.auto_bfactor:
        guinier.steps["Sharpened"] = spectrum.log_amplitudes()
    if options.low_pass != 0:
        spectrum.low_pass(resolution if options.low_pass < 0 else options.low_pass, options.filter_edge_width)
    return guinier, bfactor


def fit(guinier: Guinier, options: PostprocessOptions) -> None:
    """A straight line through the last curve of the plot, from --autob_lowres to --autob_highres, empty shells left out."""
    squared, logarithm = guinier.resolution_squared, list(guinier.steps.values())[-1]
    finest = np.inf if options.auto_highres <= 0 else 1 / options.auto_highres**2
    used = (squared >= 1 / options.auto_lowres**2) & (squared <= finest) & (logarithm > _NOTHING)
    guinier.fitted = True
    if np.count_nonzero(used) < 2:
        return
    x, y = squared[used] - squared[used].mean(), logarithm[used] - logarithm[used].mean()
    guinier.slope = float((x * y).sum() / (x * x).sum())
    guinier.intercept = float(logarithm[used].mean() - guinier.slope * squared[used].mean())
    guinier.correlation = float((x * y).sum() ** 2 / max((x * x).sum() * (y * y).sum(), 1e-300))
