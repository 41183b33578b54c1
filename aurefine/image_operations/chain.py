"""All operations that one command asks for, in RELION's order (ALGORITHM.md 8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from aurefine import maps
from aurefine.errors import InputError
from aurefine.image_operations import filters, geometry, spectra
from aurefine.image_operations.image_filters import filter_images

_TINY = 1e-10  # a divisor smaller than this gives 0
_AXIS = {"X": 2, "Y": 1, "Z": 0}


@dataclass(frozen=True)
class Operations:
    """What to do to each map or image; the defaults do nothing. Lengths in Angstrom, shifts and boxes in pixels.

    Operands (`multiply` ...) are one map [z, y, x] or one image [1, y, x] of the input's size.
    """

    multiply_constant: float = 1.0
    divide_constant: float = 1.0
    add_constant: float = 0.0
    subtract_constant: float = 0.0
    multiply: np.ndarray | None = None
    divide: np.ndarray | None = None
    add: np.ndarray | None = None
    subtract: np.ndarray | None = None
    optimise_scale: bool = False
    optimise_mask: np.ndarray | None = None
    adjust_power: np.ndarray | None = None
    fourier_filter: np.ndarray | None = None
    bfactor: float = 0.0
    laplacian_diameter: float | None = None
    lowpass: float | None = None
    highpass: float | None = None
    directional: str = ""  # X, Y or Z: the low-pass filter acts along this axis only
    edge_width: int = 2
    flips: tuple[str, ...] = ()  # any of X, Y, Z, hand, XY, mXY
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)  # x, y, z
    shift_to_centre_of_mass: bool = False
    rescale_pixel_size: float | None = None
    new_box: int | None = None
    symmetry: str = ""
    randomise_from: float | None = None
    seed: int = 0
    threshold_above: float | None = None
    threshold_below: float | None = None


def apply(values: np.ndarray, pixel_size: float, operations: Operations, images: bool = False) -> tuple[np.ndarray, float]:
    """The map [z, y, x] or images [n, y, x] after all operations, float32, and their pixel size in Angstrom.

    Raises InputError where an operation does not fit the input: a volume that is no cube rescaled, a centre of mass without positive density.
    """
    result = _arithmetic(values.astype(np.float32, copy=False), operations)
    result = _spectral(result, operations, images)
    fused = _cropped_while_filtered(result, pixel_size, operations) if images else None
    if fused is not None:
        result, pixel_size = fused
        operations = replace(operations, bfactor=0.0, laplacian_diameter=None, lowpass=None, highpass=None, rescale_pixel_size=None)
    result = _filtered(result, pixel_size, operations, images)
    for name in operations.flips:
        result = _FLIPS[name](result)
    result = _shifted(result, operations, images)
    if operations.rescale_pixel_size is not None:
        if not images and len(set(result.shape)) > 1:
            raise InputError(f"a map of {_size(result)} voxels cannot be rescaled: a cube was expected; make it one with --new_box first")
        result, pixel_size = geometry.rescale(result, pixel_size, operations.rescale_pixel_size, images)
    if operations.new_box is not None:
        result = geometry.window(result, operations.new_box, images)
    if operations.symmetry:
        result = geometry.symmetrise(result, operations.symmetry)
    if operations.randomise_from is not None:
        shell = filters.shell_of(result.shape[-1], pixel_size, operations.randomise_from)
        rng = np.random.default_rng(operations.seed)
        result = _each(result, images, lambda image: spectra.randomise_phases(image, shell, rng))
    if operations.threshold_above is not None or operations.threshold_below is not None:
        result = np.clip(result, operations.threshold_below, operations.threshold_above)
    return result, pixel_size


_FLIPS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "X": lambda values: geometry.flip(values, 2),
    "Y": lambda values: geometry.flip(values, 1),
    "Z": lambda values: geometry.flip(values, 0),
    "hand": geometry.invert_hand,
    "XY": lambda values: np.ascontiguousarray(values.transpose(0, 2, 1)),
    "mXY": lambda values: np.ascontiguousarray(values[:, ::-1, ::-1].transpose(0, 2, 1)),
}


def scale_to_subtract(values: np.ndarray, other: np.ndarray, mask: np.ndarray | None = None) -> float:
    """The factor of `other` that leaves the smallest sum of squares of `values - factor * other` inside `mask`."""
    weight = 1.0 if mask is None else mask
    norm = float((weight * other.astype(np.float64) ** 2).sum())
    return float((weight * values.astype(np.float64) * other).sum()) / norm if norm > 0 else 0.0


def _arithmetic(values: np.ndarray, operations: Operations) -> np.ndarray:
    result = values
    if operations.multiply_constant != 1:
        result = result * np.float32(operations.multiply_constant)
    if operations.divide_constant != 1:
        result = (result / np.float64(operations.divide_constant)).astype(np.float32)
    if operations.add_constant != operations.subtract_constant:
        result = result + np.float32(operations.add_constant - operations.subtract_constant)
    if operations.multiply is not None:
        result = result * operations.multiply
    if operations.divide is not None:
        small = np.abs(operations.divide) < _TINY
        result = np.where(small, np.float32(0), result / np.where(small, np.float32(1), operations.divide))
    if operations.add is not None:
        result = result + operations.add
    if operations.subtract is not None:
        result = _subtracted(result, operations)
    return result


def _subtracted(values: np.ndarray, operations: Operations) -> np.ndarray:
    other = operations.subtract
    assert other is not None
    if not operations.optimise_scale:
        return values - other
    if other.shape == values.shape:
        return values - np.float32(scale_to_subtract(values, other, operations.optimise_mask)) * other
    factors = [scale_to_subtract(image, other[0], operations.optimise_mask) for image in values]
    return values - np.array(factors, np.float32)[:, None, None] * other


def _spectral(values: np.ndarray, operations: Operations, images: bool) -> np.ndarray:
    result = values
    if operations.adjust_power is not None:
        target = operations.adjust_power[0] if images else operations.adjust_power
        result = _each(result, images, lambda image: spectra.adjust_power(image, target))
    if operations.fourier_filter is not None:
        weight = operations.fourier_filter[0] if images else operations.fourier_filter
        result = _each(result, images, lambda image: spectra.fourier_filter(image, weight))
    return result


def _filtered(values: np.ndarray, pixel_size: float, operations: Operations, images: bool) -> np.ndarray:
    """B-factor, Laplacian, low- and high-pass filter: one way to Fourier space and back for all of them."""
    radial = _radial_gain(max(values.shape[1:]) if images else values.shape[-1], pixel_size, operations)
    result = values if radial is None else filters.filter_radial(values, radial, images)
    if operations.directional and operations.lowpass is not None:
        gain = filters.bandpass_gain(result.shape[-1], pixel_size, operations.lowpass, None, operations.edge_width)
        result = filters.filter_directional(result, gain, _AXIS[operations.directional])
    return result


def _cropped_while_filtered(images: np.ndarray, pixel_size: float, operations: Operations) -> tuple[np.ndarray, float] | None:
    """Square images filtered and made smaller in one way to Fourier space and back, where nothing comes in between; None for other operations."""
    moved = operations.flips or operations.directional or any(operations.shift) or operations.shift_to_centre_of_mass
    box = images.shape[2]
    gain = _radial_gain(box, pixel_size, operations)
    if gain is None or moved or operations.rescale_pixel_size is None or images.shape[1] != box:
        return None
    new = maps.even_box(box * pixel_size / operations.rescale_pixel_size)
    return (filter_images(images, gain, new), pixel_size * box / new) if 2 <= new < box else None


def _radial_gain(box: int, pixel_size: float, operations: Operations) -> filters.Gain | None:
    """The gain of all radial filters together; None without one."""
    lowpass = None if operations.directional else operations.lowpass
    return _gain(box, pixel_size, operations.bfactor, operations.laplacian_diameter, lowpass, operations.highpass, operations.edge_width)


@lru_cache(maxsize=8)  # one and the same gain for all batches of a stack: what it is at each frequency is computed once
def _gain(box: int, pixel_size: float, bfactor: float, laplacian_diameter: float | None, lowpass: float | None, highpass: float | None,
          edge_width: int) -> filters.Gain | None:  # fmt: skip
    gains: list[filters.Gain] = []
    if bfactor:
        gains.append(filters.bfactor_gain(box, pixel_size, bfactor))
    if laplacian_diameter is not None:
        gains.append(filters.laplacian_of_gaussian_gain(box, pixel_size, laplacian_diameter))
    if lowpass is not None or highpass is not None:
        gains.append(filters.bandpass_gain(box, pixel_size, lowpass, highpass, edge_width))
    return (lambda radius: np.prod([gain(radius) for gain in gains], axis=0)) if gains else None


def _shifted(values: np.ndarray, operations: Operations, images: bool) -> np.ndarray:
    if operations.shift_to_centre_of_mass:
        return _each(values, images, _centred)
    x, y, z = operations.shift
    return geometry.shift(values, (0.0 if images else z, y, x)) if any(operations.shift) else values


def _centred(values: np.ndarray) -> np.ndarray:
    centre = geometry.centre_of_mass(values)
    if not np.isfinite(centre).all():
        raise InputError("--shift_com: no pixel is above zero, so there is no centre of mass; add a constant first (--add_constant)")
    return geometry.shift(values, (-centre).tolist())


def _each(values: np.ndarray, images: bool, operation: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The operation on the map, or on one image after the other."""
    return np.stack([operation(image) for image in values]) if images else operation(values)


def _size(values: np.ndarray) -> str:
    return " x ".join(str(length) for length in values.shape[::-1])
