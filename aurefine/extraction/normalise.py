"""Normalisation of particle images by their background: dust, ramp, mean and standard deviation (ALGORITHM.md 7.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

_FLAT = 1e-10  # a background that varies less is not divided by its deviation


@dataclass(frozen=True, eq=False)
class Background:
    """The pixels of a box that lie beyond a circle, and the normal equations of a plane through them."""

    box: int
    inner_start: np.ndarray  # [box] of each row: the pixels start .. stop-1 are inside the circle
    inner_stop: np.ndarray
    count: int
    inverse: np.ndarray  # [3, 3] inverse normal matrix of the plane a x + b y + c; without a ramp only c is fitted
    mask: np.ndarray  # bool [box, box]


def background(box: int, radius: int, ramp: bool = True) -> Background:
    """The background of a box of `box` pixels outside a circle of `radius` pixels around its centre box/2.

    ValueError when the circle leaves too few pixels for a plane.
    """
    axis = np.arange(box) - box // 2
    half = np.sqrt(np.maximum(radius**2 - axis.astype(np.float64) ** 2, 0.0))
    reach = np.where(np.abs(axis) <= radius, np.floor(half), -1).astype(np.int64)
    start = np.clip(box // 2 - reach, 0, box)
    stop = np.where(reach < 0, start, np.clip(box // 2 + reach + 1, 0, box))
    columns = np.arange(box)
    mask = (columns[None, :] < start[:, None]) | (columns[None, :] >= stop[:, None])
    y, x = np.nonzero(mask)
    if len(x) < 3:
        raise ValueError(f"a circle of radius {radius} leaves {len(x)} background pixels in a box of {box}")
    design = np.stack([x - box // 2, y - box // 2, np.ones(len(x))], axis=1).astype(np.float64)
    normal = design.T @ design
    inverse = np.linalg.inv(normal) if ramp else np.diag([0.0, 0.0, 1 / len(x)])
    return Background(box, start, stop, len(x), inverse, mask)


def remove_dust(images: np.ndarray, where: Background, white: float, black: float, random: np.random.Generator) -> None:
    """Replace pixels beyond mean + white or mean - black standard deviations by noise like the background's; in place, images [n, box, box].

    A limit that is not positive is off.
    """
    for image in images:
        values = image[where.mask]
        mean, deviation = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
        dust = np.zeros(image.shape, dtype=bool)
        if white > 0:
            dust |= image > mean + white * deviation
        if black > 0:
            dust |= image < mean - black * deviation
        image[dust] = random.normal(mean, deviation, int(dust.sum()))


def normalise(images: np.ndarray, where: Background, sign: float = 1.0) -> int:
    """Subtract the background's plane (or mean) and divide by its standard deviation; in place, images [n, box, box] float32.

    `sign` -1 also inverts the contrast. Returns the number of images whose background is flat, which are only subtracted.
    """
    return _normalise(images, where.inner_start, where.inner_stop, where.count, where.inverse, sign)


@njit(cache=True, nogil=True, fastmath=True)
def _row_sums(row, start, stop, centre):
    total, moment = 0.0, 0.0
    for x in range(start):
        total += row[x]
        moment += row[x] * (x - centre)
    for x in range(stop, len(row)):
        total += row[x]
        moment += row[x] * (x - centre)
    return total, moment


@njit(cache=True, nogil=True, fastmath=True)
def _row_squares(row, start, stop, slope, level):
    """Squared distance from the plane over a row's background."""
    squares = 0.0
    for x in range(start):
        rest = row[x] - (level + slope * x)
        squares += rest * rest
    for x in range(stop, len(row)):
        rest = row[x] - (level + slope * x)
        squares += rest * rest
    return squares


@njit(cache=True, nogil=True, fastmath=True)
def _normalise(images, start, stop, count, inverse, sign):
    flat = 0
    box = images.shape[1]
    centre = box // 2
    for i in range(images.shape[0]):
        total, along_x, along_y = 0.0, 0.0, 0.0
        for y in range(box):
            row_total, row_moment = _row_sums(images[i, y], start[y], stop[y], centre)
            total += row_total
            along_x += row_moment
            along_y += row_total * (y - centre)
        a = inverse[0, 0] * along_x + inverse[0, 1] * along_y + inverse[0, 2] * total
        b = inverse[1, 0] * along_x + inverse[1, 1] * along_y + inverse[1, 2] * total
        c = inverse[2, 0] * along_x + inverse[2, 1] * along_y + inverse[2, 2] * total
        squares = 0.0
        for y in range(box):
            squares += _row_squares(images[i, y], start[y], stop[y], a, c + b * (y - centre) - a * centre)
        deviation = np.sqrt(squares / count)
        factor = sign
        if deviation > _FLAT:
            factor = sign / deviation
        else:
            flat += 1
        for y in range(box):
            level = c + b * (y - centre) - a * centre
            for x in range(box):
                images[i, y, x] = (images[i, y, x] - (level + a * x)) * factor
    return flat
