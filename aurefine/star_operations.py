"""What is done to the columns of a STAR table: change, add, remove, centre, compare, count (the chores of `relion_star_handler`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aurefine import euler, optics
from aurefine.errors import InputError
from aurefine.star_document import Document, known_label
from aurefine.star_labels import LABEL_TYPES

_ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")


def converted(label: str, values: np.ndarray) -> np.ndarray:
    """Values as the type that RELION gives the label; InputError for text where numbers belong. Fractions of whole numbers are cut off."""
    kind = LABEL_TYPES.get(label, str)
    if kind is str:
        return np.array([str(value) for value in values.tolist()], dtype=object)
    try:
        numbers = np.array([float(value) for value in values.tolist()]) if values.dtype.kind in "OUS" else values.astype(np.float64)
    except ValueError as error:
        raise InputError(f"{label} holds numbers, but '{values[0]}' was given") from error
    if kind is float:
        return numbers
    if not np.isfinite(numbers).all() or np.abs(numbers).max(initial=0) > 2**62:
        raise InputError(f"{label} holds whole numbers; the result would not be one")
    return np.trunc(numbers).astype(np.int64)


def operate(document: Document, labels: Sequence[str], set_to: str | None, multiply_by: float, add_to: float) -> Document:
    """Set columns to a value, or multiply and then add; whole numbers are cut off toward zero, as RELION does."""
    changed = {}
    for given in labels:
        label = document.label(given)
        column = document.rows[label]
        if set_to is not None:
            changed[label] = constant(label, set_to, len(column))
        elif column.dtype.kind in "ifb":
            changed[label] = converted(label, column * multiply_by + add_to)
        else:
            raise InputError(f"{document.path}: {label} is text: it can be set (--set_to), not multiplied or added to")
    return document.with_rows(document.rows.with_columns(changed))


def constant(label: str, value: str, count: int) -> np.ndarray:
    """A column of one value, given as text."""
    one = converted(label, np.array([value], dtype=object))
    return np.full(count, one[0], dtype=one.dtype)


def add_column(document: Document, given: str, value: str | None, source: str | None) -> Document:
    """A new column (or another content for an old one): a value in every row, or a copy of another column."""
    label = known_label(given)
    if (value is None) == (source is None):
        raise InputError(f"--add_column {label}: give either --add_column_value or --copy_column_from")
    if value is not None:
        column = constant(label, value, document.rows.count)
    else:
        assert source is not None
        column = converted(label, document.column(source))
    return document.with_rows(document.rows.with_columns({label: column}))


def centre(document: Document, point: Sequence[float], pixel_size: float | None = None) -> Document:
    """Shift the origins so that a point of the reference (pixels from its centre) becomes the particles' centre: origin -= A point.

    The pixel size (Angstrom) is that of each row's optics group unless given. Raises InputError for missing angles or origins.
    """
    angles = np.stack([document.column(label, numeric=True) for label in _ANGLES], axis=1)
    size = pixel_sizes(document, pixel_size)
    moved = euler.to_matrix(angles)[:, :2] @ np.asarray(point, dtype=np.float64) * size[:, None]
    changed = {f"rlnOrigin{axis}Angst": document.column(f"rlnOrigin{axis}Angst") - moved[:, place] for place, axis in enumerate("XY")}
    return document.with_rows(document.rows.with_columns(changed))


def pixel_sizes(document: Document, given: float | None) -> np.ndarray:
    """Image pixel size of each row in Angstrom."""
    if given:
        return np.full(document.rows.count, given)
    if document.optics is None:
        raise InputError(f"{document.path}: it has no optics groups that tell the pixel size; give it with --angpix")
    sizes = optics.pixel_sizes(document.optics, document.path)
    numbers = document.optics["rlnOpticsGroup"]
    wanted = document.column("rlnOpticsGroup")
    unknown = np.flatnonzero(~np.isin(wanted, numbers))
    if len(unknown):
        raise InputError(f"{document.path}, row {unknown[0] + 1}: rlnOpticsGroup is {wanted[unknown[0]]}, which data_optics lacks")
    order = np.argsort(numbers)
    return sizes[order[np.searchsorted(numbers[order], wanted)]]


def compare(first: Document, second: Document, labels: Sequence[str], distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows of each file that the other has too, as masks: equal text, or numbers (one to three columns) within `distance`, included."""
    text = LABEL_TYPES.get(first.label(labels[0]), str) is str
    if text:
        one, other = (np.array(document.column(labels[0]).tolist(), dtype=object) for document in (first, second))
        known, sought = set(other.tolist()), set(one.tolist())
        return np.array([word in known for word in one], dtype=bool), np.array([word in sought for word in other], dtype=bool)
    points = [np.stack([document.column(label, numeric=True).astype(float) for label in labels], axis=1) for document in (first, second)]
    for document, values in zip((first, second), points, strict=True):
        if not np.isfinite(values).all():
            raise InputError(f"{document.path}: {', '.join(labels)} hold values that are not finite; they cannot be compared")
    return _within(points[0], points[1], distance), _within(points[1], points[0], distance)


def _within(points: np.ndarray, others: np.ndarray, distance: float) -> np.ndarray:
    if not len(others):
        return np.zeros(len(points), dtype=bool)
    from scipy.spatial import cKDTree  # takes as long to load as all the rest

    return cKDTree(others).query(points)[0] <= distance


@dataclass(frozen=True)
class Histogram:
    """Counts in bins [b], their edges [b + 1], and what lies below the first and from the last edge on."""

    edges: np.ndarray
    counts: np.ndarray
    below: int
    above: int


def histogram(values: np.ndarray, bins: int = -1, smallest: float = -np.inf, largest: float = np.inf) -> Histogram:
    """A column's histogram; `bins` <= 0 takes the rule of Freedman and Diaconis (1981), limits default to the values' own."""
    finite = values[np.isfinite(values)].astype(np.float64)
    if not len(finite):
        raise InputError("no finite value to make a histogram of")
    low = smallest if np.isfinite(smallest) else float(finite.min())
    high = largest if np.isfinite(largest) else float(finite.max())
    if high < low:
        raise InputError(f"--hist_min {low:g} lies above --hist_max {high:g}")
    if bins <= 0:
        bins = _bins(finite, high - low)
    edges = np.linspace(low, high, bins + 1) if high > low else np.array([low, low + 1])
    place = np.searchsorted(edges, finite, side="right") - 1  # each bin holds its lower edge
    counts = np.bincount(place[(place >= 0) & (place < len(edges) - 1)], minlength=len(edges) - 1)
    return Histogram(edges, counts, int((place < 0).sum()), int((place >= len(edges) - 1).sum()))


def _bins(values: np.ndarray, span: float) -> int:
    quarter, three_quarters = np.percentile(values, (25, 75))
    width = 2 * (three_quarters - quarter) / len(values) ** (1 / 3)
    return int(np.clip(np.ceil(span / width), 1, 1000)) if width > 0 else 10
