"""HEALPix pixel centres in NESTED order: an even grid of directions whose pixels split into four children each.

The pixel's place on its base face is turned into the flat HEALPix projection and from there onto the sphere, as in
Calabretta & Roukema (2007), MNRAS 381, 865; the pixelisation is that of Gorski et al. (2005), ApJ 622, 759.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

MAX_ORDER = 12

_QUARTER = np.pi / 4
_FACE = np.arange(12)
_FACE_X = np.where(_FACE // 4 == 1, (_FACE % 4) * 2, (_FACE % 4) * 2 + 1) * _QUARTER  # centre of each base face in the plane
_FACE_Y = (1 - _FACE // 4) * _QUARTER


def pixel_count(order: int) -> int:
    """Number of pixels on the sphere, 12 * 4^order. Raises ValueError outside orders 0..12."""
    if not 0 <= order <= MAX_ORDER:
        raise ValueError(f"HEALPix order {order} is outside 0..{MAX_ORDER}")
    return 12 * 4**order


def centres(order: int, pixel: ArrayLike | None = None) -> np.ndarray:
    """Pixel centres `[..., 2]` as (rot, tilt) in degrees, rot in (-180, 180].

    `pixel` are NESTED indices at this order (all of them when None). Raises ValueError for an order or pixel that does not exist.
    """
    count = pixel_count(order)
    index = np.arange(count) if pixel is None else np.asarray(pixel, dtype=np.int64)
    if index.size and (index.min() < 0 or index.max() >= count):
        raise ValueError(f"HEALPix pixel indices at order {order} run from 0 to {count - 1}")
    nside = 2**order
    face = index >> (2 * order)
    ix, iy = _even_bits(index, order), _even_bits(index >> 1, order)
    y = _FACE_Y[face] + (ix + iy + 1 - nside) * (_QUARTER / nside)
    longitude, colatitude = _to_sphere((ix - iy) * (_QUARTER / nside), y, _FACE_X[face])
    rot = np.rad2deg(longitude)
    return np.stack([np.where(rot > 180 + 1e-9, rot - 360, rot), np.rad2deg(colatitude)], axis=-1)


def children(pixel: ArrayLike, oversampling: int) -> np.ndarray:
    """NESTED indices `[..., 4^oversampling]`, at `order + oversampling`, of the pixels inside each given pixel."""
    count = 4**oversampling
    return np.asarray(pixel, dtype=np.int64)[..., None] * count + np.arange(count)


def max_pixel_radius(order: int) -> float:
    """Largest angle (degrees) between a pixel's centre and one of its corners.

    It occurs where the polar cap begins: centre at z = 2/3, a quarter of a base face's width from the corner below the pole.
    """
    nside = 2**order
    centre = _unit_vector(2 / 3, _QUARTER / nside)
    corner = _unit_vector(1 - (1 - 1 / nside) ** 2 / 3, 0.0)
    return float(np.rad2deg(np.arccos(np.clip(centre @ corner, -1, 1))))


def _even_bits(index: np.ndarray, order: int) -> np.ndarray:
    """The number made of every second bit of the lowest `2 * order` bits."""
    result = np.zeros_like(index)
    for bit in range(order):
        result |= ((index >> (2 * bit)) & 1) << bit
    return result


def _to_sphere(dx: np.ndarray, y: np.ndarray, centre_x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Longitude (0..2 pi) and colatitude (radians) of points of the flat projection, `dx` right of their base face's centre."""
    height = np.abs(y)
    polar = height > _QUARTER * (1 + 1e-12)
    sigma = np.where(polar, 2 - height / _QUARTER, 1.0)  # width of the facet at this height: it narrows to 0 at the pole
    belt = np.arccos(np.clip(y / _QUARTER * (2 / 3), -1, 1))
    cap = 2 * np.arcsin(sigma / np.sqrt(6.0))  # z = 1 - sigma^2 / 3, without the cancellation next to the pole
    colatitude = np.where(polar, np.where(y > 0, cap, np.pi - cap), belt)
    return np.mod(centre_x + dx / sigma, 2 * np.pi), colatitude


def _unit_vector(z: float, longitude: float) -> np.ndarray:
    radius = np.sqrt(1 - z * z)
    return np.array([radius * np.cos(longitude), radius * np.sin(longitude), z])
