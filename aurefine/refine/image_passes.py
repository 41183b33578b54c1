"""The passes over images and their transforms that the E-step makes on a CPU: one for what `images.py` says in several tensor operations."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit, prange


@njit(nogil=True, parallel=True, cache=True, fastmath=True)
def _centre(images, factor, shift, out):
    box = images.shape[1]
    for i in prange(len(images)):
        dx, dy = shift[i]
        first, last = max(dx, 0), min(box + dx, box)
        for y in range(box):
            row, source = out[i, y], y - dy
            if 0 <= source < box and first < last:
                row[:first] = 0
                for x in range(first, last):
                    row[x] = images[i, source, x - dx] * factor[i]
                row[last:] = 0
            else:
                row[:] = 0


def centred(images: torch.Tensor, factor: np.ndarray, shift: np.ndarray) -> torch.Tensor:
    """`images.recentre` of float32 images [n, y, x] times their factors float32 [n]; shift int64 [n, 2] whole pixels (x, y)."""
    out = torch.empty_like(images)
    _centre(images.numpy(), factor, shift, out.numpy())
    return out


@njit(nogil=True, parallel=True, cache=True, fastmath=True)
def _mask(images, inside, out):
    total = np.float32(inside.size) - inside.sum()
    for i in prange(len(images)):
        image, mean = images[i], np.float32(0)
        for y in range(len(image)):
            row, weight, part = image[y], inside[y], np.float32(0)
            for x in range(len(row)):
                part += row[x] * (1 - weight[x])
            mean += part
        mean /= max(total, np.float32(1e-6))
        for y in range(len(image)):
            row, weight, target = image[y], inside[y], out[i, y]
            for x in range(len(row)):
                target[x] = mean + (row[x] - mean) * weight[x]


def masked(images: torch.Tensor, inside: np.ndarray) -> torch.Tensor:
    """`images.mask_background` of float32 images [n, y, x], with the weight float32 [y, x] of what is kept."""
    out = torch.empty_like(images)
    _mask(images.numpy(), inside, out.numpy())
    return out


@njit(nogil=True, parallel=True, cache=True)
def _pick(transform, flat, factor, out):
    for i in prange(len(transform)):
        for q in range(len(flat)):
            out[i, q] = transform[i, flat[q]] * factor[q]


def picked(transform: torch.Tensor, flat: np.ndarray, factor: np.ndarray, out: torch.Tensor) -> None:
    """out[i, q] = transform[i, flat[q]] * factor[q]; complex64 [n, y, x / 2 + 1] into [n, pixels], factor float32 or complex64."""
    _pick(transform.flatten(1).numpy(), flat, factor, out.numpy())


@njit(nogil=True, parallel=True, cache=True)
def _shell_power(transform, place, shell, out):
    for i in prange(len(transform)):
        total = np.zeros(out.shape[1])
        for k in range(len(place)):
            value = transform[i, place[k]]
            total[shell[k]] += value.real * value.real + value.imag * value.imag
        out[i] = total


def shell_power(transform: torch.Tensor, place: np.ndarray, shell: np.ndarray, shells: int) -> np.ndarray:
    """float32 [n, shells]: |F|^2 of the elements `place` of each flattened transform, summed by their shell."""
    out = np.empty((len(transform), shells), np.float32)
    _shell_power(transform.flatten(1).numpy(), place, shell, out)
    return out


@njit(nogil=True, parallel=True, cache=True, fastmath=True)
def _squares(values, out):
    for i in prange(len(values)):
        for q in range(values.shape[1]):
            out[i, q] = values[i, q].real * values[i, q].real + values[i, q].imag * values[i, q].imag


def squares(values: torch.Tensor) -> torch.Tensor:
    """float32 |F|^2 of complex64 [n, pixels]; torch's own absolute value takes care of overflows and a root first."""
    out = torch.empty(values.shape, dtype=torch.float32)
    _squares(values.numpy(), out.numpy())
    return out


@njit(nogil=True, parallel=True, cache=True, fastmath=True)
def _weighted(values, model, weight, rows, images, power):
    for i in prange(len(values)):
        for k in range(len(rows)):
            q = rows[k]
            factor = model[i, q] * weight[q]
            images[i, k] = values[i, q] * factor
            power[i, k] = model[i, q] * factor


def weighted(values: torch.Tensor, model: torch.Tensor, weight: torch.Tensor, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """`images.weighted` in one pass."""
    images = torch.empty((len(values), len(rows)), dtype=torch.complex64)
    power = torch.empty((len(values), len(rows)), dtype=torch.float32)
    _weighted(values.numpy(), model.numpy(), weight.numpy(), rows, images.numpy(), power.numpy())
    return images, power
