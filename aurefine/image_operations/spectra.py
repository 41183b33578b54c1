"""Power spectra and correlations by shell, and the operations that work on them (ALGORITHM.md 1.4, 8).

Transforms are divided by the number of pixels; shell s holds the half-complex coefficients whose radius rounds to s.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from aurefine import fft
from aurefine.threads import threads_in_use


def transform(values: np.ndarray) -> np.ndarray:
    """Half-complex transform of one map or image, divided by its number of pixels; complex64."""
    return fft.rfftn(values.astype(np.float32, copy=False), norm="forward", workers=threads_in_use())


def inverse(transformed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Inverse of `transform`, float32."""
    return fft.irfftn(transformed, shape, norm="forward", workers=threads_in_use()).astype(np.float32, copy=False)


def power_spectrum(values: np.ndarray) -> np.ndarray:
    """Mean of |F|^2 in each shell 0 .. n/2 + 1 of a map or image, n its x length; float64."""
    transformed = transform(values)
    total, count = np.zeros(1), np.zeros(1)
    for plane, shell in _planes(transformed, values.shape):
        total = _add(total, np.bincount(shell, np.abs(plane).ravel().astype(np.float64) ** 2))
        count = _add(count, np.bincount(shell))
    return (total / np.maximum(count, 1))[: values.shape[-1] // 2 + 2]


def shell_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Fourier shell (ring) correlation of two maps or images of one shape at shells 0 .. n/2; float64, 0 where a shell is empty of signal."""
    one, other = transform(first), transform(second)
    cross, power, other_power = np.zeros(1), np.zeros(1), np.zeros(1)
    for (plane, shell), (other_plane, _) in zip(_planes(one, first.shape), _planes(other, second.shape)):
        a, b = plane.ravel().astype(np.complex128), other_plane.ravel().astype(np.complex128)
        cross = _add(cross, np.bincount(shell, a.real * b.real + a.imag * b.imag))
        power = _add(power, np.bincount(shell, np.abs(a) ** 2))
        other_power = _add(other_power, np.bincount(shell, np.abs(b) ** 2))
    norm = np.sqrt(power * other_power)
    return np.divide(cross, norm, out=np.zeros_like(cross), where=norm > 0)[: first.shape[-1] // 2 + 1]


def adjust_power(values: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Scale each shell so that its mean amplitude becomes that of `target` (a map or image of the same shape); float32."""
    own, wanted = transform(values), transform(target)
    amplitude, wanted_amplitude = _mean_amplitude(own, values.shape), _mean_amplitude(wanted, target.shape)
    ratio = np.divide(wanted_amplitude, amplitude, out=np.zeros_like(amplitude), where=amplitude > 0).astype(np.float32)
    for plane, shell in _planes(own, values.shape):
        plane *= ratio[shell].reshape(plane.shape)
    return inverse(own, values.shape)


def fourier_filter(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Multiply the transform by an image or map of the same shape whose centre n // 2 is frequency 0; beyond its rim is 0; float32."""
    transformed = transform(values)
    places = [np.arange(length) for length in transformed.shape]
    centre = [length // 2 for length in values.shape]
    frequency = [place if axis == values.ndim - 1 else np.where(place <= length // 2, place, place - length)
                 for axis, (place, length) in enumerate(zip(places, values.shape))]  # fmt: skip
    inside = [wave + middle < length for wave, middle, length in zip(frequency, centre, values.shape)]
    picked = weight[np.ix_(*(np.minimum(wave + middle, length - 1) for wave, middle, length in zip(frequency, centre, values.shape)))]
    for axis, mask in enumerate(inside):
        picked = picked * np.expand_dims(mask, [other for other in range(values.ndim) if other != axis])
    return inverse(transformed * picked.astype(np.float32), values.shape)


def randomise_phases(values: np.ndarray, from_shell: int, rng: np.random.Generator) -> np.ndarray:
    """Give all shells from `from_shell` on the phases of white noise, of a map or an image; amplitudes stay; float32."""
    transformed = transform(values)
    noise = transform(rng.standard_normal(values.shape, dtype=np.float32))
    for (plane, shell), (noise_plane, _) in zip(_planes(transformed, values.shape), _planes(noise, values.shape)):
        beyond = (shell >= from_shell).reshape(plane.shape)
        phase = noise_plane[beyond] / np.maximum(np.abs(noise_plane[beyond]), 1e-30)
        plane[beyond] = np.abs(plane[beyond]) * phase
    return inverse(transformed, values.shape)


def _mean_amplitude(transformed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    total, count = np.zeros(1), np.zeros(1)
    for plane, shell in _planes(transformed, shape):
        total = _add(total, np.bincount(shell, np.abs(plane).ravel().astype(np.float64)))
        count = _add(count, np.bincount(shell))
    return total / np.maximum(count, 1)


def _planes(transformed: np.ndarray, shape: tuple[int, ...]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Planes [y, x] of a half-complex transform, to be changed in place, each with the flat shell numbers of its coefficients (int64)."""
    box = shape[-1]
    rows = [np.minimum(index, length - index) * (box / length) for length in shape[:-1] for index in [np.arange(length)]]
    in_plane = rows[-1][:, None] ** 2 + np.arange(box // 2 + 1.0) ** 2
    depth = rows[0] if len(shape) == 3 else np.zeros(1)
    for plane, z in zip(transformed if len(shape) == 3 else transformed[None], depth):
        yield plane, np.floor(np.sqrt(in_plane + z * z) + 0.5).astype(np.int64).ravel()


def _add(total: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Sum of two arrays of shell sums of different lengths."""
    longer, shorter = (total, more) if len(total) >= len(more) else (more, total)
    result = longer.astype(np.float64)
    result[: len(shorter)] += shorter
    return result
