"""What a job on images is given: a map, an image, a stack, or a STAR list of such, as files with the sections that are asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from aurefine import mrc
from aurefine.errors import InputError

if TYPE_CHECKING:
    from aurefine.star import Table  # not needed where no list is read: a small map is done in the time of a few imports

_STACK_SUFFIXES = (".mrcs", ".st", ".stk")
OLD_SCALE = ("rlnMagnification", "rlnDetectorPixelSize")  # of RELION 3.0's lists
_NAMES = ("rlnImageName", "rlnMicrographName", "rlnReferenceImage")
_PIXELS_AT_A_TIME = 1 << 18  # of a batch of images, 1 MiB: stays in the cache, and in memory that is used again


@dataclass(frozen=True)
class ImageFile:
    """One MRC file: a whole map, or some of its images.

    Attributes:
        path: where the file is; name: how the input calls it.
        is_map: one volume [z, y, x], not images.
        sections: 0-based numbers of the images, in order (of a map: all its sections).
        rows: rows of the STAR list that they came from, or empty.
        pixel_size: Angstrom, from the header or, where that does not say, from the optics group; None when neither knows.
    """

    path: str
    name: str
    is_map: bool
    sections: np.ndarray
    rows: np.ndarray
    pixel_size: float | None

    @property
    def labels(self) -> list[str]:
        """A name for each image, as in a STAR file."""
        if self.is_map or (len(self.sections) == 1 and mrc.read_header(self.path).sections == 1):
            return [self.name]
        return [f"{section + 1:06d}@{self.name}" for section in self.sections]

    def batches(self, limit: int = 0) -> Iterator[tuple[np.ndarray, list[str]]]:
        """Images as float32 [k, y, x] with their names, a bounded number at a time (of a map: [z, y, x], all of it)."""
        if self.is_map:
            yield read_volume(self.path), [self.name]
            return
        stack = mrc.Stack(self.path)
        step = limit or max(1, _PIXELS_AT_A_TIME // (stack.height * stack.width))
        labels = self.labels
        for start in range(0, len(self.sections), step):
            yield stack.read(self.sections[start : start + step]), labels[start : start + step]


@dataclass(frozen=True)
class ImageInput:
    """The files of one input; `tables`, `main` and `label` tell of the STAR list that named them."""

    path: str
    files: tuple[ImageFile, ...]
    tables: dict[str, Table] = field(default_factory=dict)
    main: str = ""
    label: str = ""

    @property
    def is_list(self) -> bool:
        """Whether a STAR file named the images."""
        return bool(self.tables)

    @property
    def count(self) -> int:
        """Number of maps and images."""
        return sum(1 if file.is_map else len(file.sections) for file in self.files)


def open_input(path: str) -> ImageInput:
    """A map, image, stack (`.mrcs`, or any file as `name:mrcs`), one image of it (`000002@stack.mrcs`), or STAR list; InputError otherwise."""
    if path.lower().endswith(".star"):
        return _open_list(path)
    number, at, name = path.partition("@")
    if not at:
        name, number = path, ""
    elif not (number.isascii() and number.isdigit() and 0 < int(number[:19]) < 10**18):  # other scripts have digits too
        raise InputError(f"{path}: a number of an image was expected before the @, as in 000001@stack.mrcs")
    file, is_stack = _kind(name)
    header = mrc.read_header(file)
    if number and int(number) > header.sections:
        raise InputError(f"{path}: image {int(number)} was asked for, but the stack holds {header.sections} images")
    sections = np.array([int(number) - 1]) if number else np.arange(header.sections)
    is_map = not is_stack and not number and header.sections > 1
    return ImageInput(path, (ImageFile(file, file, is_map, sections, np.zeros(0, np.int64), _pixel_size(header)),))


def read_volume(path: str) -> np.ndarray:
    """A map as float32 [z, y, x] whatever the file's axis order; values may be NaN."""
    return mrc.read_map(path, finite=False)[0]


def old_pixel_size(table: Table) -> np.ndarray:
    """Pixel size of each row of a list of RELION 3.0 in Angstrom."""
    return 10000.0 * table["rlnDetectorPixelSize"].astype(float) / table["rlnMagnification"].astype(float)  # micrometres to Angstrom


def _kind(name: str) -> tuple[str, bool]:
    """The file, and whether it is a stack: by its ending, or by `:mrcs` and `:mrc` after it."""
    for ending, is_stack in ((":mrcs", True), (":mrc", False), (":map", False)):
        if name.lower().endswith(ending):
            return name[: -len(ending)], is_stack
    return name, name.lower().endswith(_STACK_SUFFIXES)


def _pixel_size(header: mrc.Header) -> float | None:
    return header.pixel_size if header.states_pixel_size else None


def _open_list(path: str) -> ImageInput:
    from aurefine import star

    tables = star.read(path)
    for name, table in tables.items():
        label = next((label for label in _NAMES if label in table), None)
        if label and table.count:
            return ImageInput(path, tuple(_list_files(path, tables, table, label)), tables, name, label)
    raise InputError(f"{path}: no table has a row with {', '.join(_NAMES[:-1])} or {_NAMES[-1]}; is it a list of images?")


def _list_files(path: str, tables: dict[str, Table], table: Table, label: str) -> Iterator[ImageFile]:
    """The files in the order in which the list first names them; a file that it names in several ways is one."""
    from aurefine.image_source import open_images, split_name

    names = table[label]
    source = open_images(names, path, label, np.arange(1, table.count + 1))
    groups = _group_pixel_sizes(tables, table, label)
    known: dict[str, int] = {}
    same = np.array([known.setdefault(os.path.realpath(stack.path), number) for number, stack in enumerate(source.stacks)])
    file_of_row = same[source.stack_index]
    order = np.argsort(file_of_row, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(file_of_row[order])) + 1):
        stack, named = source.stacks[file_of_row[rows[0]]], str(names[rows[0]])
        is_map = stack.count > 1 and not _kind(named)[1] and not any("@" in str(name) for name in names[rows])
        size = _pixel_size(stack.header)
        if size is None and groups is not None:
            size = float(groups[rows[0]])
        sections = np.arange(stack.count) if is_map else source.image_index[rows]
        yield ImageFile(stack.path, split_name(named)[1], is_map, sections, rows, size)


def _group_pixel_sizes(tables: dict[str, Table], table: Table, named: str) -> np.ndarray | None:
    """Pixel size of each row's optics group in Angstrom, where the list has them; of RELION 3.0's lists that of each row."""
    optics = tables.get("optics")
    if optics is None and all(label in table for label in OLD_SCALE):
        with np.errstate(divide="ignore", invalid="ignore"):
            return old_pixel_size(table)
    labels = ("rlnImagePixelSize", "rlnMicrographPixelSize", *(["rlnMicrographOriginalPixelSize"] if named == "rlnMicrographName" else []))
    label = next((label for label in labels if optics is not None and label in optics), None)
    if optics is None or label is None or "rlnOpticsGroup" not in table or "rlnOpticsGroup" not in optics:
        return None
    sizes = dict(zip(optics["rlnOpticsGroup"].tolist(), optics[label].astype(float).tolist()))
    return np.array([sizes.get(group, np.nan) for group in table["rlnOpticsGroup"].tolist()])
