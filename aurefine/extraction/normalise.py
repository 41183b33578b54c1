"""Normalisation of particle images by their background: dust, ramp, mean and standard deviation (ALGORITHM.md 7.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_FLAT = 1e-10  # a background that varies less is not divided by its deviation


@dataclass(frozen=True, eq=False)
class Background:
    """The pixels of a box that lie beyond a circle, and the normal equations of a plane through them."""

    box: int
    count: int
    inverse: np.ndarray  # [3, 3] inverse normal matrix of the plane a x + b y + c; without a ramp only c is fitted
    mask: np.ndarray  # bool [box, box]


def background(box: int, radius: int, ramp: bool = True) -> Background:
    """The background of a box of `box` pixels outside a circle of `radius` pixels around its centre box/2.

    ValueError when the circle leaves too few pixels for a plane.
    """
    axis = np.arange(box) - box // 2
    mask = axis[:, None] ** 2 + axis[None, :] ** 2 > radius**2
    y, x = np.nonzero(mask)
    if len(x) < 3:
        raise ValueError(f"a circle of radius {radius} leaves {len(x)} background pixels in a box of {box}")
    design = np.stack([x - box // 2, y - box // 2, np.ones(len(x))], axis=1).astype(np.float64)
    normal = design.T @ design
    inverse = np.linalg.inv(normal) if ramp else np.diag([0.0, 0.0, 1 / len(x)])
    return Background(box, len(x), inverse, mask)


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
    flat = 0
    axis = np.arange(where.box) - float(where.box // 2)
    outside, ones = where.mask.astype(np.float32), np.ones(where.box, dtype=np.float32)
    background, plane = np.empty_like(outside), np.empty_like(outside)
    for image in images:
        image -= _level(image)  # so that single precision holds what is left
        np.multiply(image, outside, out=background)
        of_columns, of_rows = (ones @ background).astype(np.float64), (background @ ones).astype(np.float64)
        a, b, c = where.inverse @ (of_columns @ axis, of_rows @ axis, of_rows.sum())
        np.add.outer((b * axis + c).astype(np.float32), (a * axis).astype(np.float32), out=plane)
        image -= plane
        np.multiply(image, outside, out=background)
        deviation = np.sqrt(np.einsum("yx,yx->y", background, background).sum(dtype=np.float64) / where.count)
        if deviation > _FLAT:
            image *= np.float32(sign / deviation)
        else:
            image *= np.float32(sign)
            flat += 1
    return flat


def _level(image: np.ndarray) -> np.float32:
    """A grey value of the background, whichever: the middle one of five, lest it be dust."""
    right, below, middle = image.shape[1] - 1, image.shape[0] - 1, image.shape[1] // 2
    level: np.float32 = sorted((image[0, 0], image[0, middle], image[0, right], image[below, 0], image[below, right]))[2]
    return level
