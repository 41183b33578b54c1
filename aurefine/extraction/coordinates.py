"""Coordinates of picked particles: found for each micrograph, and read (STAR, EMAN .box, plain lists)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from aurefine import star
from aurefine.errors import InputError
from aurefine.extraction.micrographs import Micrograph, MicrographSet
from aurefine.extraction.options import ExtractOptions
from aurefine.particles import without_job_prefix
from aurefine.regular_files import text_of

_LARGEST = 1 << 28  # bytes of a list of coordinates: millions of them
X, Y, FOM = "rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit"


def find(options: ExtractOptions, micrographs: MicrographSet) -> tuple[dict[str, str], list[str]]:
    """Coordinate file of each micrograph (name -> path) that has one, and warnings about those that have none.

    Raises InputError when no micrograph has one, or the list names micrographs that are not there.
    """
    wanted = _from_list(options.coordinate_list, micrographs) if options.coordinate_list else _by_name(options, micrographs)
    found = {name: path for name, path in wanted.items() if Path(path).is_file()}
    missing = [micrograph.name for micrograph in micrographs.micrographs if micrograph.name not in found]
    if not found:
        example = next(iter(wanted.values()), "")
        looked = f"looked for names such as {example} from the folder {os.getcwd()}" if example else "the list names none of these micrographs"
        raise InputError(f"{micrographs.path}: no micrograph has a file of coordinates; {looked}")
    if not missing:
        return found, []
    others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
    return found, [f"{missing[0]}{others} of {len(micrographs.micrographs)} micrographs: no file of coordinates, so no particles"]


def _from_list(path: str, micrographs: MicrographSet) -> dict[str, str]:
    """The table `coordinate_files` that picking jobs of RELION 4 and 5 write."""
    tables = star.read(path)
    needed = ("rlnMicrographName", "rlnMicrographCoordinates")
    table = next((table for table in tables.values() if all(label in table for label in needed)), None)
    if table is None:
        raise InputError(f"{path}: no table with {' and '.join(needed)}; give the autopick.star or manualpick.star of a picking job")
    listed = dict(zip(table[needed[0]].tolist(), table[needed[1]].tolist(), strict=True))
    short = {without_job_prefix(name): file for name, file in listed.items()}
    names = [micrograph.name for micrograph in micrographs.micrographs]
    files = ((name, listed.get(name) or short.get(without_job_prefix(name))) for name in names)
    return {name: file for name, file in files if file}


def _by_name(options: ExtractOptions, micrographs: MicrographSet) -> dict[str, str]:
    """Folder and suffix: beside the micrograph (ASINPUT), or in a picking job's folder under the name without its own job's folder."""

    def place(name: str) -> str:
        if options.coordinate_folder in ("", "ASINPUT"):
            return str(Path(name).with_suffix("")) + options.coordinate_suffix
        return str(Path(options.coordinate_folder) / Path(without_job_prefix(name).lstrip("/")).with_suffix("")) + options.coordinate_suffix

    return {micrograph.name: place(micrograph.name) for micrograph in micrographs.micrographs}


def source(options: ExtractOptions, files: dict[str, str]) -> Callable[[Micrograph], star.Table | None]:
    """A function that reads a micrograph's picks, after the figure-of-merit threshold and the bias; None where there are none."""

    def picks(micrograph: Micrograph) -> star.Table | None:
        if micrograph.name not in files:
            return None
        table = read(files[micrograph.name])
        if options.minimum_fom is not None:
            table = _above_threshold(table, files[micrograph.name], options.minimum_fom)
        if options.bias_x or options.bias_y:
            table = table.with_columns({X: table[X] + options.bias_x, Y: table[Y] + options.bias_y})
        return table if table.count else None

    return picks


def read(path: str) -> star.Table:
    """Coordinates of one micrograph as a table with rlnCoordinateX and rlnCoordinateY (pixels, float64) and what else the file holds.

    Raises InputError, naming the row, for a file without coordinates or with values that are no numbers.
    """
    ending = Path(path).suffix.lower()
    table = _read_star(path) if ending == ".star" else _read_list(path, eman=ending == ".box")
    for label in (X, Y):
        bad = np.flatnonzero(~np.isfinite(table[label].astype(np.float64)))
        if len(bad):
            raise InputError(f"{path}, row {bad[0] + 1}: {label} is {table[label][bad[0]]}; expected a number of pixels")
    return table


def _read_star(path: str) -> star.Table:
    tables = star.read(path)
    table = next((table for table in tables.values() if X in table and Y in table), None)
    if table is not None:
        return star.Table("images", table.columns)
    if all(table.count == 0 for table in tables.values()):  # a micrograph on which nothing was picked
        return star.Table("images", {X: np.zeros(0), Y: np.zeros(0)})
    raise InputError(f"{path}: no table with {X} and {Y}; give a file of coordinates")


def _read_list(path: str, eman: bool) -> star.Table:
    """Whole pixels in the first two columns; EMAN's boxes are stated by a corner and their sizes."""
    try:
        if os.path.getsize(path) > _LARGEST:
            raise InputError(f"{path}: too large for a list of coordinates; is it an image?")
        lines = text_of(path, "replace").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    rows: list[tuple[float, float]] = []
    for number, line in enumerate(lines, start=1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#") or (number == 1 and not _is_number(words[0])):
            continue
        needed = 4 if eman else 2
        if len(words) < needed or not all(map(_is_number, words[:needed])):
            raise InputError(f"{path}, line {number}: '{line.strip()[:60]}'; expected {'x y width height' if eman else 'x y'} in pixels")
        values = [float(int(float(word))) for word in words[:needed]]  # RELION reads whole numbers here
        rows.append((values[0] + values[2] // 2, values[1] + values[3] // 2) if eman else (values[0], values[1]))
    coordinates = np.array(rows, dtype=np.float64).reshape(-1, 2)
    return star.Table("images", {X: coordinates[:, 0], Y: coordinates[:, 1]})


def _is_number(word: str) -> bool:
    try:
        return bool(np.isfinite(float(word)))
    except ValueError:
        return False


def _above_threshold(table: star.Table, path: str, smallest: float) -> star.Table:
    if FOM not in table:
        raise InputError(f"{path}: there is no {FOM}, which --minimum_pick_fom compares; leave that option out")
    return table.select(table[FOM] >= smallest)
