"""A STAR file as its user sees it: one main table of particles or micrographs, its optics groups, and whatever else there is."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from aurefine import cryosparc, optics
from aurefine.errors import InputError
from aurefine.star import Table
from aurefine.star_labels import LABEL_TYPES

_MAIN_TABLES = ("particles", "micrographs", "movies", "images", "coordinate_files", "")
_OLD_OPTICS = ("rlnMagnification", "rlnDetectorPixelSize")


@dataclass(frozen=True)
class Document:
    """All tables of a STAR file; `main` names the one that is worked on."""

    path: str
    tables: dict[str, Table]
    main: str

    @property
    def rows(self) -> Table:
        """The main table."""
        return self.tables[self.main]

    @property
    def optics(self) -> Table | None:
        """The optics groups, where the file has them."""
        return self.tables.get("optics")

    def with_rows(self, rows: Table) -> Document:
        """A copy with another main table."""
        return replace(self, tables={**self.tables, self.main: rows})

    def select(self, rows: np.ndarray) -> Document:
        """A copy with some rows (mask or index array) of the main table."""
        return self.with_rows(self.rows.select(rows))

    def column(self, label: str, numeric: bool = False) -> np.ndarray:
        """A column of the main table; InputError naming the nearest labels when it is not there, or not of numbers."""
        values = self.rows[self.label(label)]
        if not numeric or values.dtype.kind in "ifb":
            return values
        try:  # labels of other programs are read as text
            return np.array([float(value) for value in values.tolist()])
        except ValueError as error:
            raise InputError(f"{self.path}: {plain(label)} is text, but numbers are needed here; choose a column of numbers") from error

    def label(self, label: str) -> str:
        """The label without underscore, checked to be in the main table."""
        name = plain(label)
        if name in self.rows:
            return name
        elsewhere = [table for table, content in self.tables.items() if name in content]
        if elsewhere:
            hint = f"data_{elsewhere[0]} has it: name that table with --i_tablename"
        else:
            near = difflib.get_close_matches(name, list(self.rows.columns), n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(self.rows.columns)}"
        raise InputError(f"{self.path}: data_{self.main} has no column {name}; {hint}")


def plain(label: str) -> str:
    """A label as the tables hold it: without the leading underscore."""
    return label.removeprefix("_")


def known_label(label: str) -> str:
    """A label for a new column; InputError for a misspelt RELION label (others are free text)."""
    name = plain(label)
    if name.startswith("rln") and name not in LABEL_TYPES:
        near = difflib.get_close_matches(name, list(LABEL_TYPES), n=3, cutoff=0.6)
        raise InputError(f"{name} is no label of RELION" + (f"; did you mean {' or '.join(near)}?" if near else ""))
    if not name or len(name.split()) != 1:
        raise InputError(f"'{label}' is no label: one word without blanks was expected")
    return name


def named_file(name: str, beside: str | Path) -> str:
    """A file that a STAR file names: relative to the current folder, or else beside that STAR file under the same last name.

    Raises InputError when it is in neither place.
    """
    folder = Path(beside).parent
    for candidate in (Path(name), folder / Path(name).name):
        if candidate.is_file():
            return str(candidate)
    raise InputError(f"{beside} names {name}, which is neither there (seen from {Path.cwd()}) nor in {folder}: put that file back.")


def load(path: str | Path, table: str = "", convert: bool = True) -> Document:
    """Read a STAR file, or a .cs file of cryoSPARC; `table` names the main table, else it is found.

    With `convert`, optics groups are numbered in their order and RELION 3.0's columns become an optics table, as RELION 3.1 does on reading.
    Raises InputError when the main table cannot be told or is not there.
    """
    tables = cryosparc.read_either(path)[0]
    main = main_table(str(path), tables, plain_table(table))
    document = Document(str(path), tables, main)
    return _converted(document) if convert and main != "optics" else document


def plain_table(name: str) -> str:
    """A table's name without `data_`."""
    return name.removeprefix("data_")


def main_table(path: str, tables: dict[str, Table], wanted: str) -> str:
    """The table that is `wanted`, else the main one; InputError where it cannot be told or is not there."""
    if wanted:
        if wanted not in tables:
            raise InputError(f"{path}: there is no block data_{wanted}; it has {', '.join(f'data_{name}' for name in tables)}")
        return wanted
    loops = [name for name, content in tables.items() if not content.is_list and name != "optics"]
    found = [name for name in _MAIN_TABLES if name in loops] or (loops if len(loops) == 1 else [])
    if not found and len(tables) == 1:
        found = list(tables)
    if not found:
        raise InputError(f"{path}: which table is meant? Name it with --i_tablename: {', '.join(f'data_{name}' for name in tables)}")
    return found[0]


def _converted(document: Document) -> Document:
    rows = document.rows
    if document.optics is None:
        if not all(label in rows for label in _OLD_OPTICS) or rows.is_list:
            return document
        groups, particles = optics.from_old_columns(rows, document.path, None)
        name = "micrographs" if "rlnImageName" not in rows and "rlnMicrographName" in rows else "particles"
        return Document(document.path, {"optics": groups, name: Table(name, particles.columns)}, name)
    optics.check_numbers(document.optics, document.path)
    numbers = document.optics["rlnOpticsGroup"]
    if "rlnOpticsGroup" not in rows or np.array_equal(numbers, np.arange(1, len(numbers) + 1)):
        return document
    return _renumbered(document, numbers)


def _renumbered(document: Document, numbers: np.ndarray) -> Document:
    groups = document.optics
    assert groups is not None
    wanted = document.rows["rlnOpticsGroup"]
    unknown = ~np.isin(wanted, numbers)
    if unknown.any():
        row = int(np.flatnonzero(unknown)[0])
        raise InputError(f"{document.path}, row {row + 1}: rlnOpticsGroup is {wanted[row]}; data_optics has only {sorted(numbers.tolist())}")
    order = np.argsort(numbers)
    new = order[np.searchsorted(numbers[order], wanted)] + 1
    tables = {**document.tables, "optics": groups.with_columns({"rlnOpticsGroup": np.arange(1, len(numbers) + 1)})}
    return replace(document, tables=tables).with_rows(document.rows.with_columns({"rlnOpticsGroup": new}))
