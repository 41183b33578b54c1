"""Checks of a particle table against itself, its optics groups and its stacks: each names the file, the row and the field."""

from __future__ import annotations

import numpy as np

from aurefine.errors import InputError
from aurefine.image_source import ImageSource
from aurefine.optics import OpticsGroup
from aurefine.star import Table


class Columns:
    """Columns of the particle table with defaults and checks that name the row."""

    def __init__(self, path: str, table: Table, source_row: np.ndarray) -> None:
        self.path, self.table, self.source_row = path, table, source_row

    def floats(self, label: str, default: float = 0.0) -> np.ndarray:
        """A float64 column; InputError where a value is not finite."""
        if label not in self.table:
            return np.full(self.table.count, default)
        values = self.table[label].astype(np.float64)
        self.refuse(~np.isfinite(values), label, "expected a finite number; remove the row or correct the value")
        return values

    def integers(self, label: str, default: int = 0) -> np.ndarray:
        """An int64 column."""
        return self.table[label].astype(np.int64) if label in self.table else np.full(self.table.count, default)

    def refuse(self, bad: np.ndarray, label: str, expected: str) -> None:
        """InputError naming the first bad row."""
        places = np.flatnonzero(bad)
        if len(places):
            more = f" ({len(places)} rows are like this)" if len(places) > 1 else ""
            raise InputError(f"{self.path}, row {self.source_row[places[0]]}: {label} is {self.table[label][places[0]]}{more}; {expected}")


def check_boxes(groups: tuple[OpticsGroup, ...], optics_index: np.ndarray, images: ImageSource, reader: Columns) -> None:
    """InputError when an image's size is not its optics group's box, or a box is odd."""
    shapes = np.array([(stack.height, stack.width) for stack in images.stacks])[images.stack_index]
    boxes = np.array([group.box for group in groups])[optics_index]
    wrong = np.flatnonzero((shapes != boxes[:, None]).any(axis=1))
    if len(wrong):
        row, (height, width) = wrong[0], shapes[wrong[0]]
        raise InputError(
            f"{reader.path}, row {reader.source_row[row]}: {images.stacks[images.stack_index[row]].path} holds images of {width} x {height} pixels, "
            f"but rlnImageSize of optics group {groups[optics_index[row]].number} is {boxes[row]}; correct data_optics, or extract again"
        )
    odd = next((group for group in groups if group.box % 2), None)
    if odd is not None:
        raise InputError(f"{reader.path}: optics group {odd.number}: the box of {odd.box} pixels is odd; extract again with an even box")


def pixel_size_warnings(groups: tuple[OpticsGroup, ...], optics_index: np.ndarray, images: ImageSource, path: str) -> tuple[str, ...]:
    """Stack headers against the optics table: small differences are a recalibration, large ones a mistake (InputError)."""
    warnings = []
    pairs = np.unique(np.stack([optics_index, images.stack_index], axis=1), axis=0)
    for number in np.unique(pairs[:, 0]).tolist():
        group = groups[number]
        headers = [images.stacks[stack].header for stack in pairs[pairs[:, 0] == number, 1].tolist()]
        stated = [header for header in headers if header.states_pixel_size and abs(header.pixel_size - 1) > 1e-4]  # 1 is many programs' blank
        if not stated:
            continue
        worst = max(stated, key=lambda header: abs(np.log(header.pixel_size / group.pixel_size)))
        ratio = worst.pixel_size / group.pixel_size
        text = f"{path}: optics group {group.number} has {group.pixel_size:g} Angstrom per pixel, but {worst.path} says {worst.pixel_size:g}"
        if abs(np.log(ratio)) > 0.1:
            raise InputError(f"{text}; correct rlnImagePixelSize, or the stack's header (relion_image_handler --force_header_angpix)")
        if abs(ratio - 1) > 0.005:
            warnings.append(f"{text}; the value of the STAR file is used")
    return tuple(warnings)
