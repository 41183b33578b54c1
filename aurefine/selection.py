"""Which rows of a table to keep: by value, text, class, image statistics or distance; splitting and regrouping (ALGORITHM.md 10.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from aurefine.errors import InputError

if TYPE_CHECKING:
    from aurefine.image_source import ImageSource

_IMAGES_AT_A_TIME = 256
_SQUARES = 1 << 20  # along each axis of a micrograph at most


def in_range(column: np.ndarray, smallest: float, largest: float) -> np.ndarray:
    """Mask of the values from `smallest` to `largest`, both included; nan is never inside."""
    return (column >= smallest) & (column <= largest)


def containing(column: np.ndarray, text: str) -> np.ndarray:
    """Mask of the rows whose text contains `text`; each distinct text is looked at once."""
    known: dict[str, bool] = {}
    for word in column.tolist():
        if word not in known:
            known[word] = text in word
    return np.fromiter(map(known.__getitem__, column.tolist()), bool, len(column))


def class_numbers(text: str) -> list[int]:
    """The classes of a text such as `1,3` or `2-4,7`; InputError for anything else."""
    classes: set[int] = set()
    for part in text.replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(first + last) > 12:
            raise InputError(f"--classes {text}: numbers joined by commas were expected, such as 1,3 or 2-4,7")
        if int(last or first) - int(first) > 100_000 or int(last or first) < int(first):
            raise InputError(f"--classes {text}: {part} is no range of classes; the smaller number goes first")
        classes.update(range(int(first), int(last or first) + 1))
    return sorted(classes)


def image_statistics(images: ImageSource, progress: Callable[[int], None] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Average and standard deviation of each image, arrays [n], float64; images may differ in size.

    `progress` is called with the number of images done. Raises InputError when a stack cannot be read.
    """
    mean, spread = np.empty(images.count), np.empty(images.count)
    shapes = np.array([(stack.height, stack.width) for stack in images.stacks])
    _, kind = np.unique(shapes, axis=0, return_inverse=True)
    kind = kind.reshape(-1)[images.stack_index]
    done = 0
    for value in np.unique(kind):
        rows = np.flatnonzero(kind == value)
        step = max(1, _IMAGES_AT_A_TIME * 256**2 // int(np.prod(shapes[images.stack_index[rows[0]]])))
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            pixels = images.read(part).reshape(len(part), -1)
            mean[part] = pixels.mean(axis=1, dtype=np.float64)
            spread[part] = pixels.std(axis=1, dtype=np.float64)
            done += len(part)
            if progress:
                progress(done)
    return mean, spread


def outliers(mean: np.ndarray, spread: np.ndarray, sigma: float) -> np.ndarray:
    """Mask of images whose average or standard deviation lies more than `sigma` standard deviations from that of the whole set, as RELION."""

    def far(values: np.ndarray) -> np.ndarray:
        finite = values[np.isfinite(values)]
        if not len(finite):
            return np.ones(len(values), dtype=bool)
        return ~(np.abs(values - finite.mean()) <= sigma * finite.std())

    return far(mean) | far(spread)


def duplicates(micrograph: np.ndarray, positions: np.ndarray, distance: float) -> np.ndarray:
    """Mask of rows that lie within `distance` (included) of a later row of the same micrograph, RELION's rule: the last one stays.

    `micrograph` [n] numbers, `positions` [n, 2] in the unit of `distance`. A chain of near rows leaves its last row only.
    """
    if not len(positions):
        return np.zeros(0, dtype=bool)
    half = positions / 2  # whose differences do not overflow
    half = half - half.min(axis=0)
    size = max(distance / 2, float(half.max()) / (_SQUARES - 4)) or 1.0
    square = (half / size).astype(np.int64) + 1  # the margin of 1 parts micrographs and lines
    number = np.unique(micrograph, return_inverse=True)[1].reshape(-1)
    with np.errstate(over="ignore"):
        return _near_later((number * _SQUARES + square[:, 0]) * _SQUARES + square[:, 1], positions, distance)


def _near_later(square: np.ndarray, positions: np.ndarray, distance: float) -> np.ndarray:
    """Mask of rows with a later one within `distance` in the nine squares, no smaller than that, around each."""
    order = np.argsort(square, kind="stable")  # by square, then as they follow in the file
    occupied, first = np.unique(square[order], return_index=True)
    last = np.append(first[1:], len(order))
    keys = np.repeat(np.arange(len(occupied)), last - first) * len(order) + order
    found = np.zeros(len(positions), dtype=bool)
    for step in (0, 1, -1, _SQUARES, -_SQUARES, _SQUARES + 1, _SQUARES - 1, 1 - _SQUARES, -_SQUARES - 1):
        rows = order[~found[order]]  # sorted keys are found quicker
        place = np.searchsorted(occupied, square[rows] + step).clip(max=len(occupied) - 1)
        rows, place = (values[occupied[place] == square[rows] + step] for values in (rows, place))
        other, stop = np.searchsorted(keys, place * len(order) + rows + 1), last[place]
        while len(rows):  # one candidate of each row after the other: most rows have few, or find one at once
            left = other < stop
            rows, other, stop = rows[left], other[left], stop[left]
            near = np.hypot(*(positions[rows] - positions[order[other]]).T) <= distance
            found[rows[near]] = True
            rows, other, stop = rows[~near], other[~near] + 1, stop[~near]
    return found


def split(count: int, parts: int, size: int, order: np.ndarray | None = None) -> list[np.ndarray]:
    """Rows of each part, RELION's rule: `parts` equal parts, or parts of `size` rows, or (both positive) the first `parts` parts of `size`.

    `order` is a permutation of the rows; in file order without it. No part is empty. Raises InputError when neither number is positive.
    """
    if parts <= 0 and size <= 0:
        raise InputError("--split: give --nr_split, --size_split or both")
    if size <= 0:
        size = -(-count // parts)
    if parts <= 0:
        parts = -(-count // size)
    rows = np.arange(count) if order is None else order
    return [rows[start : start + size] for start in range(0, min(count, parts * size), size)]


def regroup(group: np.ndarray, scale: np.ndarray, optics: np.ndarray, wanted: int) -> np.ndarray:
    """Merge grey-scale groups of alike scale until about `wanted` are left; the new group of each row, 1-based [n].

    `group` [n] is 0-based, `scale` [groups] their grey scale, `optics` [n] the optics group: groups of different optics stay apart.
    """
    if not 0 < wanted:
        raise InputError(f"--regroup {wanted}: a positive number of groups was expected")
    pairs, of_row, counts = np.unique(np.column_stack([optics, group]), axis=0, return_inverse=True, return_counts=True)
    new = np.empty(len(pairs), dtype=np.int64)
    first = 1
    for number in np.unique(pairs[:, 0]):
        places = np.flatnonzero(pairs[:, 0] == number)
        places = places[np.argsort(scale[pairs[places, 1]], kind="stable")]
        sizes = counts[places]
        parts = max(1, round(wanted * sizes.sum() / len(group)))
        middle = (np.cumsum(sizes) - sizes / 2) / sizes.sum()  # a group goes where the middle of its rows falls
        new[places] = first + np.unique(np.floor(middle * parts), return_inverse=True)[1].reshape(-1)
        first = int(new[places].max()) + 1
    return new[of_row.reshape(-1)]


def numbered(names: Sequence[str] | np.ndarray) -> np.ndarray:
    """Number of each name, 0-based in order of first appearance."""
    places: dict[str, int] = {}
    return np.fromiter((places.setdefault(name, len(places)) for name in names), np.int64, len(names))
