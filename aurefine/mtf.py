"""Modulation transfer functions of detectors: how much of each frequency they record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from aurefine import star
from aurefine.errors import InputError
from aurefine.optics import OpticsGroup

_LABELS = ("rlnResolutionInversePixel", "rlnMtfValue")


@dataclass(frozen=True, eq=False)
class Mtf:
    """Modulation transfer of a detector at frequencies in 1/(its pixel), increasing."""

    frequency: np.ndarray
    value: np.ndarray
    name: str

    def at(self, frequency: np.ndarray) -> np.ndarray:
        """Its values at frequencies in 1/(its pixel), linear between the table's; from the last but one on the last one, as in RELION."""
        value = np.interp(frequency, self.frequency, self.value)
        value[frequency >= self.frequency[-2]] = self.value[-1]
        return value


def read(path: str, place: str = "--mtf") -> Mtf:
    """A detector's MTF from a STAR file; InputError, which begins with `place`, for missing columns, values not above zero, or rows out of order."""
    tables = [table for table in star.read(path).values() if any(label in table for label in _LABELS)] or list(star.read(path).values())
    table = tables[0]
    for label in _LABELS:
        if label not in table:
            expected = " and ".join(_LABELS)
            raise InputError(f"{place} {path}: data_{table.name} has no column {label}; expected are {expected}, as in RELION's MTF files")
    frequency, value = (np.asarray(table[label], dtype=np.float64) for label in _LABELS)
    if len(value) < 2 or not (np.isfinite(frequency).all() and (np.diff(frequency) > 0).all()):
        raise InputError(f"{place} {path}: rlnResolutionInversePixel must have two or more rows and increase from 0 to 0.5")
    if not (value > 0).all():
        row = int(np.flatnonzero(~(value > 0))[0]) + 1
        raise InputError(f"{place} {path}, row {row}: rlnMtfValue is {value[row - 1]:g}, but a value above 0 was expected (it divides)")
    return Mtf(frequency, value, path)


def to_common(groups: Sequence[OpticsGroup], group: int) -> Callable[[np.ndarray], np.ndarray] | None:
    """What gives images of an optics group the average MTF of all groups: frequencies [k] in 1/Angstrom to factors float64 [k].

    None where all groups have one MTF, or one of them names none (ALGORITHM.md 1.7): a common one is left to post-processing.
    """
    files = [each.mtf_file for each in groups]
    if len(set(files)) == 1 or not all(files):
        return None
    detectors = [_of_group(each.mtf_file, each.number) for each in groups]

    def factor(frequency: np.ndarray) -> np.ndarray:
        values = [mtf.at(frequency * (each.original_pixel_size or each.pixel_size)) for mtf, each in zip(detectors, groups, strict=True)]
        return np.mean(values, axis=0) / values[group]

    return factor


def warnings(groups: Sequence[OpticsGroup]) -> list[str]:
    """A warning where some optics groups name an MTF and others do not; InputError where one that is needed cannot be read."""
    without = [each for each in groups if not each.mtf_file]
    if 0 < len(without) < len(groups):
        return [f"optics group {without[0].number} ({without[0].name}) has no rlnMtfFileName, others have: images are not corrected for it"]
    to_common(groups, 0)
    return []


@lru_cache(maxsize=16)
def _of_group(path: str, number: int) -> Mtf:
    if not Path(path).is_file():
        raise InputError(f"optics group {number}, rlnMtfFileName {path}: there is no such file; correct its name, or remove the column")
    return read(path, f"optics group {number}, rlnMtfFileName")
