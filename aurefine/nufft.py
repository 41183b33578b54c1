"""Exact Fourier samples of point sets and of maps, for simulation and comparison only.

This is deliberately another method than the refinement's trilinear projector, so that the one can be judged by the other: points are
spread with the "exponential of semicircle" kernel on a twice finer grid and its transform is divided out (Barnett, Magland and af
Klinteberg, SIAM J. Sci. Comput. 41, C479, 2019). With eight taps a coefficient is good to about 1e-6 of the largest one.

Half-complex layout, frequencies in cycles per box: `x = 0..n/2`, `y, z` in FFT order. The Nyquist planes are zero.
The origin of space is the voxel n/2, as everywhere in RELION.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numba import njit, prange
from scipy import fft

TAPS = 8
BETA = 2.3 * TAPS
OVERSAMPLING = 2


@njit(inline="always")
def _weights(position: float, taps: np.ndarray) -> int:
    """Fill the kernel's weights around a grid position; returns the first grid index."""
    first = int(math.ceil(position - TAPS / 2))
    for k in range(TAPS):
        u = (first + k - position) / (TAPS / 2)
        square = 1.0 - u * u
        taps[k] = math.exp(BETA * (math.sqrt(square) - 1.0)) if square > 0.0 else 0.0
    return first


@njit(parallel=True, cache=True)
def _spread_2d(points, weights, rotations, scale, grid):
    size = grid.shape[1]
    for image in prange(rotations.shape[0]):
        wx, wy = np.empty(TAPS), np.empty(TAPS)
        a = rotations[image]
        for i in range(points.shape[0]):
            px, py, pz = points[i]
            x = (a[0, 0] * px + a[0, 1] * py + a[0, 2] * pz) * scale + size // 2
            y = (a[1, 0] * px + a[1, 1] * py + a[1, 2] * pz) * scale + size // 2
            x0, y0 = _weights(x, wx), _weights(y, wy)
            for j in range(TAPS):
                row = (y0 + j) % size
                value = weights[i] * wy[j]
                for k in range(TAPS):
                    grid[image, row, (x0 + k) % size] += value * wx[k]


@njit(cache=True)
def _spread_3d(points, weights, scale, grid):
    size = grid.shape[0]
    wx, wy, wz = np.empty(TAPS), np.empty(TAPS), np.empty(TAPS)
    for i in range(points.shape[0]):
        x0 = _weights(points[i, 0] * scale + size // 2, wx)
        y0 = _weights(points[i, 1] * scale + size // 2, wy)
        z0 = _weights(points[i, 2] * scale + size // 2, wz)
        for m in range(TAPS):
            for j in range(TAPS):
                value = weights[i] * wz[m] * wy[j]
                for k in range(TAPS):
                    grid[(z0 + m) % size, (y0 + j) % size, (x0 + k) % size] += value * wx[k]


@njit(parallel=True, cache=True)
def _interpolate_3d(transform, frequencies, out):
    """`transform`: full complex grid, zero frequency at its centre; `frequencies` [n, 3] (x, y, z) in grid units."""
    size = transform.shape[0]
    for i in prange(frequencies.shape[0]):
        wx, wy, wz = np.empty(TAPS), np.empty(TAPS), np.empty(TAPS)
        x0 = _weights(frequencies[i, 0] + size // 2, wx)
        y0 = _weights(frequencies[i, 1] + size // 2, wy)
        z0 = _weights(frequencies[i, 2] + size // 2, wz)
        total = 0.0j
        for m in range(TAPS):
            for j in range(TAPS):
                line = 0.0j
                for k in range(TAPS):
                    line += wx[k] * transform[(z0 + m) % size, (y0 + j) % size, (x0 + k) % size]
                total += wz[m] * wy[j] * line
        out[i] = total


@lru_cache(maxsize=16)
def _kernel_transform(n: int) -> np.ndarray:
    """Fourier transform of the kernel at the frequencies -n/2..n/2 of the fine grid (its inverse corrects the spreading)."""
    nodes, weights = np.polynomial.legendre.leggauss(200)
    kernel = np.exp(BETA * (np.sqrt(1 - nodes**2) - 1)) * weights * TAPS / 2
    frequency = np.arange(-(n // 2), n // 2 + 1) / (OVERSAMPLING * n)
    return np.cos(2 * np.pi * frequency[:, None] * nodes * TAPS / 2) @ kernel


def frequency_grid(n: int, dimensions: int) -> tuple[np.ndarray, ...]:
    """Integer frequencies (x, y[, z]) of a half-complex transform, broadcastable to its shape."""
    x, full = np.arange(n // 2 + 1.0), np.fft.fftfreq(n, 1 / n)
    return (x[None, :], full[:, None]) if dimensions == 2 else (x[None, None, :], full[None, :, None], full[:, None, None])


def _centre_and_correct(transform: np.ndarray, n: int, dimensions: int) -> np.ndarray:
    """Cut a fine-grid transform to box n, divide by the kernel, move the origin from the corner to the centre; zero at Nyquist."""
    keep = np.r_[0 : n // 2, OVERSAMPLING * n - n // 2 : OVERSAMPLING * n]
    transform = transform[..., keep, : n // 2 + 1]
    if dimensions == 3:
        transform = transform[keep]
    kernel = _kernel_transform(n)
    full, half = kernel[(np.fft.fftfreq(n, 1 / n) + n // 2).astype(int)], kernel[n // 2 :]
    sign = (-1.0) ** (np.arange(n) % 2)
    along, across = ((values).astype(transform.real.dtype) for values in (sign / full, sign[0] * (-1.0) ** np.arange(n // 2 + 1) / half))
    transform *= along[:, None]  # in place: the copy that was cut out is this function's own
    transform *= across
    if dimensions == 3:
        transform *= along[:, None, None]
    transform[..., n // 2], transform[..., n // 2, :] = 0, 0
    if dimensions == 3:
        transform[n // 2] = 0
    return transform


def transform_of_projections(points: np.ndarray, weights: np.ndarray, rotations: np.ndarray, box: int, pixel_size: float) -> np.ndarray:
    """Fourier transforms of projected points: [k, box, box/2 + 1] complex128, relative to the image's centre.

    `points` [n, 3] Angstrom about the origin, `rotations` [k, 3, 3] from volume to image coordinates (ALGORITHM.md 1.2).
    """
    grid = np.zeros((len(rotations), OVERSAMPLING * box, OVERSAMPLING * box))
    _spread_2d(np.asarray(points, float), np.asarray(weights, float), np.asarray(rotations, float), OVERSAMPLING / pixel_size, grid)
    return _centre_and_correct(fft.rfft2(grid), box, 2)


def transform_of_points(points: np.ndarray, weights: np.ndarray, box: int, pixel_size: float, single: bool = False) -> np.ndarray:
    """Fourier transform of points in space: [box, box, box/2 + 1] complex128, relative to the box's centre.

    `single` computes in single precision, in half the memory: complex64.
    """
    grid = np.zeros((OVERSAMPLING * box,) * 3, np.float32 if single else np.float64)
    _spread_3d(np.asarray(points, float), np.asarray(weights, float), OVERSAMPLING / pixel_size, grid)
    return _centre_and_correct(fft.rfftn(grid), box, 3)


class MapSampler:
    """Samples the Fourier transform of a map at any frequency, as if every voxel were a point."""

    def __init__(self, volume: np.ndarray) -> None:
        """`volume` [n, n, n] with n even."""
        n = self.box = volume.shape[0]
        size = OVERSAMPLING * n
        # The kernel acts in Fourier space now, so its transform is divided out of the padded map in real space.
        correct = 1 / _kernel_transform(n)[:n]
        padded = np.zeros((size,) * 3, np.complex128)
        inner = slice(size // 2 - n // 2, size // 2 + n // 2)
        padded[inner, inner, inner] = volume * correct[:, None, None] * correct[:, None] * correct
        self._transform = fft.fftshift(fft.fftn(fft.ifftshift(padded), overwrite_x=True))

    def __call__(self, frequencies: np.ndarray) -> np.ndarray:
        """Complex values [n] at `frequencies` [n, 3] (x, y, z) in cycles per box, relative to the box's centre."""
        out = np.empty(len(frequencies), np.complex128)
        _interpolate_3d(self._transform, np.ascontiguousarray(frequencies, float) * OVERSAMPLING, out)
        return out

    def projections(self, rotations: np.ndarray, box: int | None = None, scale: float = 1.0) -> np.ndarray:
        """Transforms [k, box, box/2 + 1] of the map's projections along `rotations` [k, 3, 3].

        `scale`: width of the map's box over the width of the image's box (Angstrom both), when pixel size or box differ.
        """
        box = box or self.box
        x, y = (np.broadcast_to(f, (box, box // 2 + 1)) for f in frequency_grid(box, 2))
        inside = (np.abs(x) < box // 2) & (np.abs(y) < box // 2) & (x * x + y * y < (self.box / 2 / scale) ** 2)
        out = np.zeros((len(rotations), box, box // 2 + 1), np.complex128)
        plane = np.stack([x[inside], y[inside]], axis=1) * scale
        for image, rotation in zip(out, np.asarray(rotations, float)):
            image[inside] = self(plane @ rotation[:2])
        return out

    def resampled(self, rotation: np.ndarray, shift: np.ndarray, box: int | None = None, scale: float = 1.0) -> np.ndarray:
        """Half-complex transform of the map turned by `rotation` [3, 3], then moved by `shift` [3] (x, y, z; voxels of the new box).

        `box` and `scale` as in `projections`. Frequencies outside the sphere of either Nyquist limit are zero.
        """
        box = box or self.box
        x, y, z = (np.broadcast_to(f, (box, box, box // 2 + 1)) for f in frequency_grid(box, 3))
        inside = x * x + y * y + z * z < min(box / 2, self.box / 2 / scale) ** 2
        points = np.stack([x[inside], y[inside], z[inside]], axis=1)
        out = np.zeros(inside.shape, np.complex128)
        out[inside] = self(points @ rotation * scale) * np.exp(-2j * np.pi / box * (points @ np.asarray(shift, float)))
        return out


def to_image(transform: np.ndarray) -> np.ndarray:
    """Real images [..., n, n] of half-complex transforms that are relative to the centre."""
    n = transform.shape[-2]
    sign = (-1.0) ** (np.arange(n) % 2)[:, None] * (-1.0) ** np.arange(n // 2 + 1)
    return fft.irfft2(transform * sign, s=(n, n))


def to_map(transform: np.ndarray) -> np.ndarray:
    """Real map [n, n, n] of a half-complex transform that is relative to the centre."""
    return fft.fftshift(fft.irfftn(transform, s=(transform.shape[0],) * 3))
