"""Soft masks: circles for images, spheres for maps, with raised-cosine edges (ALGORITHM.md 1.8, 3.9, 3.10)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


def radius_grid(n: int, dimensions: int) -> np.ndarray:
    """float32: distance in pixels of every pixel or voxel of an n-sized box from the centre n/2."""
    axis = (np.arange(n) - n // 2).astype(np.float32) ** 2
    total = axis
    for _ in range(dimensions - 1):
        total = total[..., None] + axis
    return np.sqrt(total)


def radii(n: int, dimensions: int) -> np.ndarray:
    """float32 [dimensions (n/2)^2 + 1]: the distances of `radius_grid` by their squares."""
    return np.sqrt(np.arange(dimensions * (n // 2) ** 2 + 1), dtype=np.float32)


@lru_cache(maxsize=16)
def soft_edge(n: int, dimensions: int, radius: float, width: float) -> np.ndarray:
    """float32 weight: 1 inside `radius` pixels, raised cosine over `width` pixels, 0 outside."""
    return _soft_edge(radius_grid(n, dimensions), radius, width)


@lru_cache(maxsize=16)
def soft_edge_by_square(n: int, dimensions: int, radius: float, width: float) -> np.ndarray:
    """float32 [dimensions (n/2)^2 + 1]: the weights of `soft_edge` by squared distance from the centre, so that no map of them is needed."""
    return _soft_edge(radii(n, dimensions), radius, width)


def _soft_edge(distance: np.ndarray, radius: float, width: float) -> np.ndarray:
    weight = 0.5 + 0.5 * np.cos(np.pi * np.clip((distance - radius) / max(width, 1e-6), 0, 1))
    weight = weight.astype(np.float32)
    weight.setflags(write=False)
    return weight


def fill_outside(volume: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Blend a map into the average of what lies outside the mask `weight` (1 inside): no edge is left behind."""
    outside = 1 - weight
    total = float(outside.sum())
    average = float((volume * outside).sum()) / total if total > 0 else 0.0
    return (volume * weight + average * outside).astype(np.float32)
