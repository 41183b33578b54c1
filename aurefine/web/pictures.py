"""Pictures of maps and particles: sections of half maps and their difference, thumbnails, the sphere of directions, and a map for the 3D view."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from aurefine import mrc
from aurefine.errors import InputError
from aurefine.file_cache import FileCache, stamp
from aurefine.reporting.history import map_path

AXES = {"z": 0, "y": 1, "x": 2}
MAX_SIDE_3D = 160  # voxels a side that the page's 3D view gets


def _read_map(path: Path) -> tuple[np.ndarray, float]:
    return mrc.read_map(path)


_MAPS: FileCache[tuple[np.ndarray, float]] = FileCache(_read_map, 3)


def png(grey: np.ndarray) -> bytes:
    """A grey picture [rows, columns] of bytes."""
    from PIL import Image  # matplotlib needs it, so it is there

    out = io.BytesIO()
    Image.fromarray(grey).save(out, format="PNG")
    return out.getvalue()


def section(root: Path, iteration: int, kind: str, axis: str, position: float) -> bytes:
    """A section of a map as PNG, `position` from 0 to 1 along the axis; halves and their difference on the same grey scale.

    Raises InputError where the map is not there.
    """
    first, _ = _MAPS.get(map_path(root, iteration, "half1" if kind == "difference" else kind))
    image = _plane(first, axis, position)
    if kind == "difference":
        second, _ = _MAPS.get(map_path(root, iteration, "half2"))
        if second.shape != first.shape:
            raise InputError(f"{root.name}: the half maps have different boxes")
        other = _plane(second, axis, position)
        low, high = _range(_plane(first, axis, 0.5))
        half = (high - low) / 2
        return png(_bytes(image - other, -half, half))
    low, high = _range(_plane(first, axis, 0.5))
    return png(_bytes(image, low, high))


def _plane(volume: np.ndarray, axis: str, position: float) -> np.ndarray:
    """Rows from below to above, as a microscopist's picture."""
    number = AXES[axis]
    index = min(max(round(position * (volume.shape[number] - 1)), 0), volume.shape[number] - 1)
    return np.take(volume, index, axis=number)[::-1]


def _range(image: np.ndarray) -> tuple[float, float]:
    low, high = (float(value) for value in np.percentile(image, [0.5, 99.7]))
    return low, max(high, low + 1e-12)


def _bytes(image: np.ndarray, low: float, high: float) -> np.ndarray:
    return (np.clip((image - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def volume(path: Path, side: int) -> bytes:
    """A map for the 3D view, as an MRC file; cubic maps larger than `side` voxels are Fourier-cropped to that."""
    from aurefine.maps import even_box, fourier_rescale

    values, pixel_size = _MAPS.get(path)
    box, side = values.shape[0], even_box(min(side, MAX_SIDE_3D))
    cubic = len(set(values.shape)) == 1 and box % 2 == 0
    if cubic and box > side:
        values, pixel_size = fourier_rescale(values, side, single=True), pixel_size * box / side
    elif not cubic and values.size > MAX_SIDE_3D**3:
        raise InputError(f"{path.name}: of {' x '.join(map(str, values.shape))} voxels; the 3D view takes maps larger than {MAX_SIDE_3D} cubed "
                         "only where they are cubes with an even side")  # fmt: skip
    return mrc.map_bytes(values, pixel_size)


def thumbnail(path: Path, number: int, side: int = 72) -> bytes:
    """Image `number` (from 1) of a stack as PNG, Fourier-cropped to about `side` pixels, which also takes noise away.

    Raises InputError for an image that the stack does not have.
    """
    from aurefine.maps import fourier_rescale

    stack = mrc.Stack(path)
    if not 1 <= number <= stack.count:  # it may be beyond any array's numbers
        raise InputError(f"{path.name}: it has images 1 to {stack.count}, but another was asked for")
    image = stack.read(number - 1)
    if image.shape[1] == image.shape[2] and image.shape[1] % 2 == 0 and image.shape[1] > side:
        image = fourier_rescale(image, side, images=True, single=True)
    values = np.nan_to_num(image[0])
    middle, deviation = float(values.mean()), float(values.std()) or 1.0
    return png(_bytes(values[::-1], middle - 3 * deviation, middle + 3 * deviation))


_DIRECTIONS: dict[tuple[Any, ...], bytes] = {}


def directions(particles: Path, symmetry: str, kind: str) -> bytes:
    """The density of viewing directions over the sphere (equal-area), as PNG, PDF or CSV; kept until the particle file changes."""
    key = (str(particles), *stamp(particles), symmetry, kind)
    if key not in _DIRECTIONS:
        _DIRECTIONS.clear()
        _DIRECTIONS[key] = _draw_directions(particles, symmetry, kind)
    return _DIRECTIONS[key]


def _draw_directions(particles: Path, symmetry: str, kind: str) -> bytes:
    from aurefine.reporting.documents import directions_csv, draw_directions
    from aurefine.web.particle_table import PARTICLES, angles_of

    angles = angles_of(PARTICLES.get(particles))
    return directions_csv(angles) if kind == "csv" else draw_directions(angles, symmetry, kind)
