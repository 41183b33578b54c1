"""Iterative density compensation: weights that make the sampled Fourier density even (ALGORITHM.md 3.9, --dont_skip_gridding).

The estimate W starts at 1 and is divided, again and again, by the density that W leaves: (W weight) convolved with a blob (Pipe and Menon
1999). The blob is a Kaiser-Bessel function (Lewitt 1990); the convolution is a product with its transform in real space. Where part of the
blob lies outside the sphere, the density is compared with that of an evenly filled sphere: else its rim would be amplified tenfold.
"""

from __future__ import annotations

import numpy as np
import torch

_RADIUS = 3.8  # of the blob, padded voxels
_ALPHA = 15.0  # shape of the blob
_SMALLEST = 1e-6  # density below which nothing is divided further


def blob_transform(frequency: np.ndarray) -> np.ndarray:
    """Transform of the 3D Kaiser-Bessel blob of order 0 at a distance from the origin (cycles a voxel), 1 at the origin."""
    phase = 2 * np.pi * _RADIUS * np.asarray(frequency, np.float64)
    square = _ALPHA**2 - phase**2
    sigma = np.sqrt(np.maximum(np.abs(square), 1e-6))
    inside = (np.cosh(np.where(square > 0, sigma, 0)) - np.sinh(np.where(square > 0, sigma, 0)) / sigma) / sigma**2
    outside = (np.sin(sigma) / sigma - np.cos(sigma)) / sigma**2
    return np.where(square > 0, inside, outside) * _ALPHA**2 / (np.cosh(_ALPHA) - np.sinh(_ALPHA) / _ALPHA)


def density_compensation(weight: torch.Tensor, radius: int, padded: int, iterations: int) -> torch.Tensor:
    """float32 [2h+1, 2h+1, h+1]: what to multiply the data with instead of dividing it by `weight`, 0 where there is none.

    Args: weight float32 [2h+1, 2h+1, h+1], a centred half-space that is symmetric on its x = 0 plane; radius: of the sphere in use, voxels;
        padded: size of the padded box.
    """
    size, h = weight.shape[0], weight.shape[2] - 1
    axis = torch.arange(-h, h + 1, dtype=torch.float32, device=weight.device) ** 2
    square = axis[:, None, None] + axis[None, :, None] + axis[None, None, h:]
    sphere = square <= radius * radius
    used = sphere & (weight > 0)
    if not used.any():
        return torch.zeros_like(weight)
    mean = float(weight[used].double().mean())
    density = torch.where(used, weight / mean, torch.zeros_like(weight))
    blob = _blob_on_grid(size, padded).to(weight.device)
    even = _convolved(sphere.float(), blob)
    compensation = used.float()
    for _ in range(iterations):
        left = (_convolved(compensation * density, blob) / even).clamp(min=_SMALLEST)
        compensation = torch.where(used, compensation / left, compensation)
    return compensation / mean


def _convolved(density: torch.Tensor, blob: torch.Tensor) -> torch.Tensor:
    """float32 [2h+1, 2h+1, h+1], positive: a centred half-space convolved with the blob."""
    half = torch.fft.ifftshift(density, dim=(0, 1)).to(torch.complex64)
    half = torch.fft.rfftn(torch.fft.irfftn(half, s=tuple(blob.shape)).mul_(blob))
    return torch.fft.fftshift(half.real, dim=(0, 1)).abs().clamp(min=_SMALLEST)


def _blob_on_grid(size: int, padded: int) -> torch.Tensor:
    """float32 [size^3]: the blob's transform at every real-space index, whose unit is RELION's: the padded box, not this smaller one."""
    axis = np.fft.fftfreq(size, 1 / size)
    table = blob_transform(np.arange(int(size * 2) + 2) / (2 * padded))  # every half voxel: smooth enough to interpolate
    square = axis**2
    radius = np.sqrt(square[:, None, None] + square[None, :, None] + square[None, None, :])
    return torch.from_numpy(np.interp(radius, np.arange(len(table)) / 2, table).astype(np.float32))
