"""Half maps and mask of a post-processing job, read and checked before anything is computed (ALGORITHM.md 9.2)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from aurefine import mrc
from aurefine.errors import InputError
from aurefine.postprocessing.options import PostprocessOptions
from aurefine.threads import at_once

_TOLERANCE = 1e-5  # of mask values: rounding, not a mistake
_PIXEL_TOLERANCE = 0.005  # relative difference of pixel sizes that is more than rounding
_WHITE_SHARE = 0.476  # share of a soft mask's white voxels that cisTEM and RELION take for protein
_DALTON_PER_CUBIC_ANGSTROM = 0.81


@dataclass(frozen=True)
class HalfMaps:
    """Two independent maps [n, n, n] of one box and their pixel size (Angstrom)."""

    one: np.ndarray
    two: np.ndarray
    names: tuple[str, str]
    pixel_size: float
    header_pixel_size: float

    @property
    def box(self) -> int:
        """Side of the box in pixels."""
        return len(self.one)


@dataclass(frozen=True)
class Mask:
    """A solvent mask [n, n, n] with values from 0 to 1."""

    values: np.ndarray
    name: str

    def fraction(self) -> float:
        """Factor by which the box exceeds the protein inside the mask, for the particle FSC of Sindelar and Grigorieff (2012)."""
        return _WHITE_SHARE * self.values.size / max(self._white(), 1)

    def molecular_weight(self, pixel_size: float) -> float:
        """Mass in Dalton of a protein that fills the mask."""
        return _DALTON_PER_CUBIC_ANGSTROM * self._white() * pixel_size**3

    def _white(self) -> int:
        return int(np.count_nonzero(self.values > 0.5))


def fraction_of_weight(box: int, pixel_size: float, molecular_weight: float) -> float:
    """The factor of `Mask.fraction` for a particle of this molecular weight (kDa)."""
    return _WHITE_SHARE * _DALTON_PER_CUBIC_ANGSTROM * (box * pixel_size) ** 3 / (1000 * molecular_weight)


def read_half_maps(options: PostprocessOptions) -> HalfMaps:
    """Both half maps; InputError for a missing file, unequal boxes or pixel sizes, a box that is not a cube, an empty map, or one map twice."""
    names = (options.half1, options.second_half)
    if not Path(names[1]).exists() and Path(names[0]).exists():
        raise InputError(f"{names[1]}: the other half map of {names[0]} is not there; name it with --i2, or copy it beside the first one")
    (one, first), (two, second) = at_once(*(partial(_read_cube, name) for name in names))
    if one.shape != two.shape:
        raise InputError(f"{names[1]}: its box is {len(two)} pixels wide, but {len(one)} were expected, as in {names[0]}; both must be of one run")
    header = _agreed_pixel_size(names, first, second, options)
    if np.array_equal(one, two):
        raise InputError(f"{names[0]} and {names[1]} hold the same map: the FSC of a map with itself says nothing; give the two independent halves")
    return HalfMaps(one, two, names, options.pixel_size if options.pixel_size > 0 else header, header)


def _read_cube(name: str) -> tuple[np.ndarray, mrc.Header]:
    values, _ = mrc.read_map(name)
    if len(set(values.shape)) != 1:
        z, y, x = values.shape
        raise InputError(f"{name}: the map is {x} x {y} x {z} voxels, but a cube was expected; pad or crop it to one")
    if float(np.ptp(values)) == 0:
        raise InputError(f"{name}: all voxels are {values.flat[0]:g}; give a map that holds something")
    return values, mrc.read_header(name)


def _agreed_pixel_size(names: tuple[str, str], first: mrc.Header, second: mrc.Header, options: PostprocessOptions) -> float:
    """Angstrom per pixel of both headers; where --angpix is given headers do not matter."""
    if options.pixel_size > 0:
        return first.pixel_size
    if not first.states_pixel_size:
        raise InputError(f"{names[0]}: the header gives no pixel size; give it with --angpix")
    if abs(second.pixel_size / first.pixel_size - 1) > _PIXEL_TOLERANCE:
        raise InputError(f"{names[1]}: the pixel size is {second.pixel_size:g} A, but {first.pixel_size:g} A in {names[0]}; "
                         "if one of the headers is wrong, give the right one with --angpix")  # fmt: skip
    return first.pixel_size


def read_mask(options: PostprocessOptions, halves: HalfMaps) -> Mask | None:
    """The solvent mask, or None; InputError for another box or pixel size than the maps', values outside 0 to 1, or an empty mask."""
    if not options.mask:
        return None
    values, pixel_size = mrc.read_map(options.mask)
    if values.shape != halves.one.shape:
        z, y, x = values.shape
        raise InputError(f"--mask {options.mask}: it is {x} x {y} x {z} voxels, but the maps' box of {halves.box} was expected; "
                         "rescale it, or make one from this run's map")  # fmt: skip
    low, high = float(values.min()), float(values.max())
    if low < -_TOLERANCE or high > 1 + _TOLERANCE:
        raise InputError(f"--mask {options.mask}: its values go from {low:g} to {high:g}, but 0 (solvent) to 1 (protein) was expected; "
                         "is this a mask? Make one with `aurefine mask_create`")  # fmt: skip
    if high <= 0.5:
        raise InputError(f"--mask {options.mask}: no voxel is above 0.5 (the largest is {high:g}): the mask holds no protein")
    stated = mrc.read_header(options.mask).states_pixel_size
    if options.pixel_size <= 0 and stated and abs(pixel_size / halves.pixel_size - 1) > _PIXEL_TOLERANCE:
        raise InputError(f"--mask {options.mask}: its pixel size is {pixel_size:g} A, but the maps' is {halves.pixel_size:g} A; make the mask anew, "
                         "or give the right pixel size of all with --angpix")  # fmt: skip
    return Mask(np.clip(values, 0, 1, out=values), options.mask)
