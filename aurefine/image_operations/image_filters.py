"""Radial filters of many square images: the gain computed once, and only those frequencies transformed that it lets pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from aurefine import fft, fourier

DOUBLE_ABOVE = 10.0  # a gain beyond this would lift the rounding of single precision into sight


def filter_images(images: np.ndarray, gain: Callable[[np.ndarray], np.ndarray], new_box: int = 0) -> np.ndarray:
    """Images [k, n, n] after a filter whose gain depends on the radius (in shells), float32; with `new_box` (even, below n) also Fourier-cropped.

    The same as a filter of the whole transform followed by `maps.fourier_rescale`, with one way to Fourier space and back for both.
    """
    box = new_box or images.shape[2]
    weights = _weights(gain, images.shape[2], box)
    result = np.empty((len(images), box, box), dtype=np.float32)
    for part in fft.stretches(images):
        result[part] = _filtered(images[part], weights, box)
    return result


def _filtered(images: np.ndarray, weights: np.ndarray, box: int) -> np.ndarray:
    columns = weights.shape[1] // 2
    half = fft.rfftn(images.astype(weights.dtype, copy=False), axes=(2,))
    spectrum = fft.fft(half[:, :, :columns], axis=1, overwrite_x=True)
    if box != images.shape[2]:
        spectrum = spectrum[:, fourier.frequencies(box)]  # negative frequencies index from the end
    parts = spectrum.view(weights.dtype)  # real and imaginary parts side by side: half the work of a product of complex numbers
    parts *= weights
    spectrum = fft.ifft(spectrum, axis=1, norm="forward", overwrite_x=True)
    if columns < box // 2 + 1:
        whole = np.zeros((len(images), box, box // 2 + 1), dtype=spectrum.dtype)
        whole[:, :, :columns] = spectrum
        spectrum = whole
    return fft.irfftn(spectrum, (box,), axes=(2,), norm="forward")


@lru_cache(maxsize=8)
def _weights(gain: Callable[[np.ndarray], np.ndarray], box: int, new_box: int) -> np.ndarray:
    """The gain at each row and each column that passes at all, every column twice, divided by the number of pixels; float32 where that will do."""
    rows = fourier.frequencies(new_box)
    weights = gain(np.sqrt(rows[:, None] ** 2 + np.arange(new_box // 2 + 1.0) ** 2))
    passing = np.flatnonzero(weights.any(axis=0))
    weights = weights[:, : passing[-1] + 1 if len(passing) else 1]
    kind = np.float32 if np.abs(weights).max() < DOUBLE_ABOVE else np.float64
    return np.repeat(weights / box**2, 2, axis=1).astype(kind)
