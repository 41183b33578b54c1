"""Filters by spatial frequency: low-pass, high-pass, B-factor, Laplacian of Gaussian, and low-pass along one axis (ALGORITHM.md 8)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from aurefine import fft, fourier
from aurefine.image_operations.image_filters import DOUBLE_ABOVE, filter_images
from aurefine.threads import threads_in_use

# Gain of a filter at radii in units of the first Fourier shell, float64 in and out.
Gain = Callable[[np.ndarray], np.ndarray]


def shell_of(box: int, pixel_size: float, resolution: float) -> int:
    """The Fourier shell nearest to a resolution in Angstrom, halves upwards."""
    return int(np.floor(box * pixel_size / resolution + 0.5))


def bandpass_gain(box: int, pixel_size: float, lowpass: float | None = None, highpass: float | None = None, edge_width: int = 2) -> Gain:
    """Gain of a low-pass and a high-pass filter at resolutions in Angstrom (None: not applied).

    Each is a raised cosine, 0.5 at the shell nearest to the resolution, over `edge_width // 2` shells to either side (RELION's integer
    half width; with 0 the edge is sharp), which does not begin below 0.
    """

    def gain(radius: np.ndarray) -> np.ndarray:
        result = np.ones_like(radius)
        if lowpass is not None:
            result *= fourier.falling(radius, *fourier.edge(shell_of(box, pixel_size, lowpass), edge_width))
        if highpass is not None:
            result *= 1 - fourier.falling(radius, *fourier.edge(shell_of(box, pixel_size, highpass), edge_width))
        return result

    return gain


def bfactor_gain(box: int, pixel_size: float, bfactor: float) -> Gain:
    """exp(-B s^2 / 4) up to Nyquist and 0 beyond; B in Angstrom^2, negative to sharpen."""

    def gain(radius: np.ndarray) -> np.ndarray:
        frequency2 = (np.minimum(radius, box / 2) / (box * pixel_size)) ** 2
        return np.where(radius <= box / 2, np.exp(-bfactor / 4 * frequency2), 0.0)

    return gain


def laplacian_of_gaussian_gain(box: int, pixel_size: float, diameter: float) -> Gain:
    """y exp(-y/2) with y = (2 d s)^2: the response is strongest to blobs of diameter d (Angstrom)."""

    def gain(radius: np.ndarray) -> np.ndarray:
        y = (2 * diameter * radius / (box * pixel_size)) ** 2
        return y * np.exp(-y / 2)

    return gain


def filter_radial(values: np.ndarray, gain: Gain, images: bool = False) -> np.ndarray:
    """Multiply the Fourier transform of a map, or of each image, by a gain that depends on the radius alone; float32.

    The radius counts shells of the x axis; other lengths are scaled to it. An image that is not square is padded to a square with its own
    average, so that opposite rims do not mix across the short side.
    """
    height, width = values.shape[1:]
    if images and height != width:
        return _unpadded(filter_radial(padded_to_square(values), gain, True), height, width)
    if images:
        return filter_images(values, gain)
    single = _largest(gain, values.shape) < DOUBLE_ABOVE
    transform = fft.rfftn(values.astype(np.float32 if single else np.float64, copy=False), workers=threads_in_use())
    _multiply(transform, gain, values.shape)
    return fft.irfftn(transform, values.shape, workers=threads_in_use()).astype(np.float32, copy=False)


def filter_directional(values: np.ndarray, gain: Gain, axis: int) -> np.ndarray:
    """As `filter_radial`, but the gain depends on the frequency along one axis of `values` only; float32."""
    weight = gain(_scaled_frequencies(values.shape[axis], values.shape[-1], half=True))
    shape = [1] * values.ndim
    shape[axis] = len(weight)
    transform = fft.rfftn(values.astype(np.float32, copy=False), axes=(axis,), workers=threads_in_use())
    transform *= weight.astype(np.float32).reshape(shape)
    return fft.irfftn(transform, (values.shape[axis],), axes=(axis,), workers=threads_in_use()).astype(np.float32, copy=False)


def padded_to_square(images: np.ndarray, value: float | None = None) -> np.ndarray:
    """Images [n, y, x] in the middle of squares of their longer side; the rest is `value`, or each image's average."""
    count, height, width = images.shape
    side = max(height, width)
    fill = images.mean(axis=(1, 2), dtype=np.float64)[:, None, None] if value is None else value
    result = np.empty((count, side, side), dtype=np.float32)
    result[:] = fill
    top, left = side // 2 - height // 2, side // 2 - width // 2
    result[:, top : top + height, left : left + width] = images
    return result


def _unpadded(images: np.ndarray, height: int, width: int) -> np.ndarray:
    top, left = images.shape[1] // 2 - height // 2, images.shape[2] // 2 - width // 2
    return np.ascontiguousarray(images[:, top : top + height, left : left + width])


def _scaled_frequencies(length: int, box: int, half: bool = False) -> np.ndarray:
    """Frequencies of an axis, without sign, in shells of an axis of length `box`."""
    index = np.arange(length // 2 + 1 if half else length)
    return np.minimum(index, length - index) * (box / length)


def _largest(gain: Gain, shape: tuple[int, ...]) -> float:
    return float(np.abs(gain(np.linspace(0, np.sqrt(len(shape)) * shape[-1] / 2, 1000))).max())


def _multiply(transform: np.ndarray, gain: Gain, shape: tuple[int, ...]) -> None:
    """Multiply a half-complex transform by the gain, plane by plane; in a cube the squared radius is whole: a table serves all voxels."""
    box = shape[-1]
    x = _scaled_frequencies(box, box, half=True)
    in_plane = _scaled_frequencies(shape[-2], box)[:, None] ** 2 + x**2
    z = _scaled_frequencies(shape[0], box) ** 2
    if len(set(shape)) > 1:
        for plane, square in zip(transform, z):
            plane *= gain(np.sqrt(in_plane + square)).astype(plane.real.dtype)
        return
    table = gain(np.sqrt(np.arange(int(in_plane.max() + z.max()) + 1))).astype(transform.real.dtype)
    index = in_plane.astype(np.int64)
    for plane, square in zip(transform, z.astype(np.int64)):
        plane *= table[index + square]
