"""Fourier shell correlations: plain, and corrected for the mask by phase randomisation (ALGORITHM.md 3.6, 3.7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from aurefine import fourier
from aurefine.threads import in_parts

Map = Any  # an array, or what computes like one: a tensor on any device


def correlate(first: np.ndarray, second: np.ndarray, shell: np.ndarray, n_shells: int) -> np.ndarray:
    """FSC of two half-complex transforms per shell: Re sum F1 conj(F2) / sqrt(sum |F1|^2 sum |F2|^2); 0 where a shell is empty."""
    a, b, shells = first.ravel(), second.ravel(), shell.ravel()

    def sum_up(stretch: slice) -> np.ndarray:
        sums = np.zeros((3, n_shells + 1))
        for part in fourier.stretches(stretch.stop - stretch.start):  # temporaries of a whole volume would cost more than the sums
            here = slice(stretch.start + part.start, min(stretch.start + part.stop, stretch.stop))
            x, y, index = a[here], b[here], np.minimum(shells[here], n_shells)
            sums[0] += np.bincount(index, x.real * y.real + x.imag * y.imag, n_shells + 1)
            sums[1] += np.bincount(index, x.real**2 + x.imag**2, n_shells + 1)
            sums[2] += np.bincount(index, y.real**2 + y.imag**2, n_shells + 1)
        return sums

    return of_sums(sum(in_parts(sum_up, a.size), np.zeros((3, n_shells + 1))))[:n_shells]


def of_sums(sums: np.ndarray) -> np.ndarray:
    """FSC of sums [3 or more, ...]: cross terms and both powers; 0 where there is no power."""
    norm = np.sqrt(sums[1] * sums[2])
    return np.divide(sums[0], norm, out=np.zeros_like(norm), where=norm > 0)


def of_maps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """FSC of two maps [n, n, n] at shells 0..n/2, with FSC_0 = 1."""
    n = first.shape[0]
    curve = correlate(fourier.transform_map(first), fourier.transform_map(second), fourier.shell_index_3d(n), n // 2 + 1)
    curve[0] = 1.0
    return curve


def first_below(curve: np.ndarray, threshold: float) -> int:
    """First shell > 0 where the curve falls below the threshold, or -1 when it never does."""
    below = np.flatnonzero(curve[1:] < threshold)
    return int(below[0]) + 1 if len(below) else -1


def resolution_at(curve: np.ndarray, threshold: float, box: int, pixel_size: float) -> float:
    """Resolution in Angstrom where the curve first crosses the threshold, interpolated linearly; Nyquist when it never does."""
    s = first_below(curve, threshold)
    if s < 0:
        return 2 * pixel_size
    above, below = curve[s - 1], curve[s]
    shell = s - 1 + (above - threshold) / max(above - below, 1e-12)
    return box * pixel_size / max(shell, 1e-6)


@dataclass(frozen=True)
class MaskedFsc:
    """All curves of a mask-corrected FSC ([n/2+1] each) and the shell from which phases were randomised (-1: never)."""

    unmasked: np.ndarray
    masked: np.ndarray
    randomised: np.ndarray
    corrected: np.ndarray
    randomised_from: int


def randomise_phases(volume: np.ndarray, from_shell: int, rng: np.random.Generator) -> np.ndarray:
    """Replace the phases of all shells >= from_shell by those of white noise (Hermitian by construction), keeping amplitudes."""
    n = volume.shape[0]
    transform = fourier.transform_map(volume)
    noise = fourier.transform_map(rng.standard_normal(volume.shape, dtype=np.float32))
    beyond = fourier.shell_index_3d(n) >= from_shell
    phase = noise[beyond] / np.maximum(np.abs(noise[beyond]), 1e-30)
    transform[beyond] = np.abs(transform[beyond]) * phase
    return fourier.inverse_map(transform, n)


def mask_corrected(first: np.ndarray, second: np.ndarray, mask: np.ndarray, randomise_at: float = 0.8, seed: int = 0) -> MaskedFsc:
    """Solvent-corrected FSC of two half maps: (FSC_masked - FSC_random) / (1 - FSC_random) beyond the randomisation shell (Chen et al. 2013)."""
    rng = np.random.default_rng(seed)
    return corrected(first, second, mask, of_maps, lambda volume, start: randomise_phases(volume, start, rng), randomise_at)


def corrected(
    first: Map, second: Map, mask: Map, correlated: Callable[[Map, Map], np.ndarray], randomise: Callable[[Map, int], Map], randomise_at: float = 0.8
) -> MaskedFsc:
    """`mask_corrected` for maps of any kind, such as those on a GPU: `correlated(map, map)` is an FSC, `randomise(map, from_shell)` a map."""
    unmasked = correlated(first, second)
    start = first_below(unmasked, randomise_at)
    if start < 0:
        return MaskedFsc(unmasked, unmasked, np.zeros_like(unmasked), unmasked, -1)
    masked = correlated(first * mask, second * mask)
    randomised = correlated(randomise(first, start) * mask, randomise(second, start) * mask)
    curve = masked.copy()
    tail = slice(start + 2, None)
    signal = masked[tail] - randomised[tail]
    curve[tail] = np.where(signal < 0, 0.0, signal / np.maximum(1 - randomised[tail], 1e-6))
    return MaskedFsc(unmasked, masked, randomised, curve, start)
