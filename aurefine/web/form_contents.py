"""What is wrong with the contents of the files that a form names: columns, sizes and pixel sizes that contradict, halves that are missing."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from aurefine import mrc
from aurefine.errors import InputError
from aurefine.jobs.form import YES
from aurefine.postprocessing.options import PostprocessOptions
from aurefine.regular_files import regular
from aurefine.symmetry import point_group

_HEAD_BYTES = 1 << 18  # of a STAR file: all labels and the optics groups lie there


@dataclass(frozen=True)
class Problem:
    """`level` is error (the job would not run), warning, or note; `key` is the row, "" for the form as a whole."""

    key: str
    level: str
    text: str


@dataclass(frozen=True)
class StarHead:
    """Labels and the first pixel size and box of a particle STAR file."""

    labels: frozenset[str]
    pixel_size: float | None
    box: int | None


def particles(values: Mapping[str, str], heads: Mapping[str, StarHead]) -> Iterator[Problem]:
    """Of a refinement: particles without images or CTFs, a mask diameter larger than the box."""
    head = heads.get("fn_img")
    if head is None:
        return
    if "rlnImageName" not in head.labels:
        yield Problem("fn_img", "error", "This STAR file has no particles (no column _rlnImageName).")
        return
    if asked(values, "do_ctf_correction", "Yes") and not {"rlnDefocusU", "rlnDefocusV"} <= head.labels:
        yield Problem("fn_img", "error", "It has no CTF columns (_rlnDefocusU, _rlnDefocusV): set CTF-correction to No, or give particles with CTFs.")
    elif head.pixel_size and head.box:
        yield Problem("fn_img", "note", f"{head.box} px boxes at {head.pixel_size:g} Å/px, with CTF columns.")
    diameter = _number(values.get("particle_diameter"))
    if diameter and head.pixel_size and head.box and diameter > head.box * head.pixel_size:
        yield Problem("particle_diameter", "warning", f"It is larger than the box ({head.box * head.pixel_size:.0f} Å).")


def maps(values: Mapping[str, str], heads: Mapping[str, StarHead], found: Mapping[str, mrc.Header]) -> Iterator[Problem]:
    """Sizes of the reference against the particles, of a mask against its map."""
    head, reference = heads.get("fn_img"), found.get("fn_ref")
    if head and reference and head.pixel_size and head.box:
        same = abs(reference.pixel_size / head.pixel_size - 1) < 0.001
        if not same or reference.columns != head.box:
            yield Problem("fn_ref", "warning", f"The reference has {_size(reference)}, the particles {head.box} px at "
                          f"{head.pixel_size:g} Å: it will be resampled to theirs.")  # fmt: skip
        else:
            yield Problem("fn_ref", "note", f"{_size(reference)}, as the particles.")
    base, mask = reference or found.get("fn_in") or found.get("fn_half"), found.get("fn_mask")
    if base and mask and (base.columns != mask.columns or abs(base.pixel_size / mask.pixel_size - 1) > 0.001):
        yield Problem("fn_mask", "warning", f"The mask has {_size(mask)}, the map {_size(base)}.")


def half_maps(job: str, paths: Mapping[str, Path]) -> Iterator[Problem]:
    """Of a post-processing or validation: a map that is none of two halves, or whose other half is missing."""
    key = {"PostProcess": "fn_in", "Validation": "fn_half"}.get(job, "")
    path = paths.get(key)
    if path is None:
        return
    try:
        other = Path(PostprocessOptions(half1=str(path)).second_half)
    except InputError:
        yield Problem(key, "error", "This is no half map: expected one with half1 or half2 in its name, such as run_half1_class001_unfil.mrc.")
        return
    if not other.is_file():
        yield Problem(key, "error", f"The other half, {other.name}, is not beside it.")


def selection(values: Mapping[str, str], heads: Mapping[str, StarHead]) -> Iterator[Problem]:
    """Of a selection: a column that the file does not have."""
    head, label = heads.get("fn_data") or heads.get("fn_mic"), values.get("select_label", "").lstrip("_")
    if head and asked(values, "do_select_values", "No") and label not in head.labels:
        yield Problem("select_label", "error", f"The file has no column _{label}.")


def symmetry(key: str, name: str) -> Iterator[Problem]:
    """A point group that there is not."""
    try:
        point_group(name)
    except InputError as error:
        yield Problem(key, "error", str(error))


def asked(values: Mapping[str, str], key: str, default: str) -> bool:
    """Whether a Yes-or-No row says yes."""
    return values.get(key, default).lower() in YES


def _size(header: mrc.Header) -> str:
    return f"{header.columns} px at {header.pixel_size:g} Å"


def star_head(path: Path) -> StarHead:
    """Labels of all blocks, and pixel size and box of the first optics group, from the beginning of the file. InputError for no STAR file."""
    try:
        with open(path, "rb", opener=regular) as file:
            text = file.read(_HEAD_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if not re.search(r"^data_", text, re.MULTILINE):
        raise InputError(f"{path}: this is not a STAR file (no data_ block)")
    labels = frozenset(re.findall(r"^_(\w+)", text, re.MULTILINE))
    optics = re.search(r"^data_optics\s+(.*?)(?=^data_|\Z)", text, re.MULTILINE | re.DOTALL)
    first = _first_row(optics.group(1)) if optics else {}
    size, box = (_length(first.get(label)) for label in ("rlnImagePixelSize", "rlnImageSize"))
    return StarHead(labels, size, int(box) if box else None)


def _first_row(block: str) -> dict[str, str]:
    names = re.findall(r"^_(\w+)", block, re.MULTILINE)
    rows = [line.split() for line in block.splitlines() if line.strip() and not line.lstrip().startswith(("_", "#", "loop_"))]
    return dict(zip(names, rows[0], strict=False)) if rows else {}


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _length(text: str | None) -> float | None:
    """A positive number; None for another, as inf, which the job itself refuses by its row."""
    number = _number(text)
    return number if number is not None and 0 < number < math.inf else None
