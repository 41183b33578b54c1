"""Maps and images moved, turned, mirrored, resized and averaged over their symmetry, with linear interpolation (ALGORITHM.md 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aurefine import maps
from aurefine.errors import InputError
from aurefine.image_operations.filters import padded_to_square
from aurefine.threads import threads_in_use

_SNAP = 1e-6  # fractions of a pixel nearer than this to a whole number are whole


def flip(values: np.ndarray, axis: int) -> np.ndarray:
    """Mirrored along one axis (0, 1, 2 of the array): the first pixel becomes the last."""
    return np.ascontiguousarray(np.flip(values, axis))


def invert_hand(values: np.ndarray) -> np.ndarray:
    """Mirrored in x about the centre pixel n // 2, so that the origin of symmetry stays; the plane at the edge wraps around."""
    return np.roll(values[:, :, ::-1], 1 if values.shape[2] % 2 == 0 else 0, axis=2)


def shift(values: np.ndarray, offset: Sequence[float]) -> np.ndarray:
    """Move the content by `offset` pixels along each axis of a map, a stack (0 along its first axis) or an image [y, x]; float32.

    Interpolated linearly. What comes from outside is zero, as are pixels whose neighbours lie partly outside.
    """
    if values.ndim == 2:
        return shift(values[None], (0.0, *offset))[0]
    depth, height, width = (_Mix.of(distance, length) for distance, length in zip(offset, values.shape))
    result = np.zeros(values.shape, dtype=np.float32)
    for z in range(depth.first, depth.last):  # plane by plane: each stays in the processor's cache
        plane = values[z - depth.whole]
        if depth.fraction:
            plane = plane * np.float32(1 - depth.fraction) + values[z - depth.whole - 1] * np.float32(depth.fraction)
        result[z] = width.apply(height.apply(plane, 0), 1)
    return result


@dataclass(frozen=True)
class _Mix:
    """A shift along one axis: pixels first .. last - 1 are mixed of the ones `whole` and `whole` + 1 before them."""

    whole: int
    fraction: float
    first: int
    last: int

    @classmethod
    def of(cls, distance: float, length: int) -> _Mix:
        whole = int(np.floor(distance))
        fraction = float(distance - whole)
        if min(fraction, 1 - fraction) < _SNAP:
            whole, fraction = round(distance), 0.0
        first, last = max(0, whole + (fraction > 0)), min(length, length + whole)
        return cls(whole, fraction, min(first, length), max(last, 0))

    def apply(self, plane: np.ndarray, axis: int) -> np.ndarray:
        """A plane [y, x] moved along one of its axes."""
        if self.whole == 0 and self.fraction == 0:
            return plane
        result = np.zeros(plane.shape, dtype=np.float32)
        if self.first >= self.last:
            return result
        source, target = (plane, result) if axis == 0 else (plane.T, result.T)
        near = source[self.first - self.whole : self.last - self.whole]
        if not self.fraction:
            target[self.first : self.last] = near
            return result
        np.multiply(near, np.float32(1 - self.fraction), out=target[self.first : self.last])
        target[self.first : self.last] += np.float32(self.fraction) * source[self.first - self.whole - 1 : self.last - self.whole - 1]
        return result


def centre_of_mass(values: np.ndarray) -> np.ndarray:
    """Centre of the positive density of a map [z, y, x] or an image [y, x], in pixels from the centre n // 2 along each axis; float64.

    NaN where no pixel is positive.
    """
    positive = np.maximum(values, 0)
    axes = range(values.ndim)
    profiles = [positive.sum(axis=tuple(other for other in axes if other != axis), dtype=np.float64) for axis in axes]
    total = profiles[0].sum()
    if total <= 0:
        return np.full(values.ndim, np.nan)
    return np.array([profile @ (np.arange(len(profile)) - len(profile) // 2) / total for profile in profiles])


def rescale(values: np.ndarray, pixel_size: float, new_pixel_size: float, images: bool = False) -> tuple[np.ndarray, float]:
    """Resample to the even box nearest to the new pixel size (Angstrom); returns the map or images, and their true pixel size.

    Images that are not square are padded with zeros to a square and cut again to even sides. ValueError for a volume that is not a cube,
    InputError where fewer than two pixels would be left.
    """
    height, width = values.shape[1:]
    side = max(height, width)
    new = maps.even_box(side * pixel_size / new_pixel_size)
    if maps.even_box(min(height, width) * new / side) < 2:
        raise InputError(f"pixels of {new_pixel_size:g} A leave nothing of {min(height, width)} pixels of {pixel_size:g} A; "
                         f"give --rescale_angpix below {min(height, width) * pixel_size / 2:g}")  # fmt: skip
    if images and height != width:
        resampled = maps.fourier_rescale(padded_to_square(values, 0.0), new, images=True, single=True, odd=True)
        new_height, new_width = (new if length == side else maps.even_box(length * new / side) for length in (height, width))
        resampled = _cut(resampled, new_height, new_width)
    else:
        resampled = maps.fourier_rescale(values, new, images=images, single=True, odd=True)
    return resampled, pixel_size * side / new


def _cut(images: np.ndarray, height: int, width: int) -> np.ndarray:
    top, left = images.shape[1] // 2 - height // 2, images.shape[2] // 2 - width // 2
    return np.ascontiguousarray(images[:, top : top + height, left : left + width])


def window(values: np.ndarray, new_box: int, images: bool = False) -> np.ndarray:
    """Cut, or pad with zeros, all sides (of images: both) to `new_box` pixels about the centre n // 2."""
    return maps.window(values, new_box, images, any_shape=True)


def symmetrise(volume: np.ndarray, symmetry: str) -> np.ndarray:
    """Average of a map [z, y, x] over the operators of a point group in RELION's setting; float32.

    Density is interpolated linearly and is zero outside the box; where an operator only exchanges and mirrors axes, nothing is interpolated.
    InputError for an unknown group.
    """
    from aurefine.symmetry import point_group

    operators = point_group(symmetry).operators[:, ::-1, ::-1]  # from x, y, z to z, y, x
    total = np.zeros(volume.shape, dtype=np.float32)
    interpolated = []
    for operator in operators:
        if not _add_turned(total, volume, operator):
            interpolated.append(operator)
    if interpolated:
        total += _sum_interpolated(volume, np.ascontiguousarray(interpolated))
    total /= np.float32(len(operators))
    return total


def _add_turned(total: np.ndarray, volume: np.ndarray, operator: np.ndarray) -> bool:
    """Add a map turned by an operator that only exchanges and mirrors axes; False, and nothing done, for any other."""
    signs = np.round(operator)
    order = [int(axis) for axis in np.abs(signs).argmax(axis=1)]  # axis `order[i]` of the result runs along axis i of the map
    if np.abs(operator - signs).max() > _SNAP or sorted(order) != [0, 1, 2]:
        return False
    source = [slice(None)] * 3
    target = [slice(None)] * 3
    for axis, along in enumerate(order):
        length, new = volume.shape[axis], volume.shape[along]
        if length != new:
            return False
        if signs[axis, along] < 0:  # voxel i comes from 2 (n // 2) - i, which for voxel 0 of an even box lies outside
            even = 1 - length % 2
            source[axis] = slice(None, 0 if even else None, -1)
            target[along] = slice(even, None)
    total[tuple(target)] += volume[tuple(source)].transpose([order.index(axis) for axis in range(3)])
    return True


def _sum_interpolated(volume: np.ndarray, operators: np.ndarray) -> np.ndarray:
    import numba

    from aurefine.image_operations.interpolate import sum_rotated

    numba.set_num_threads(min(threads_in_use(), numba.config.NUMBA_NUM_THREADS))
    return sum_rotated(np.ascontiguousarray(volume, np.float32), operators)
