"""STAR tables as RELION 3.0 to 5 write them: a fast reader, and a writer in RELION 5's own layout (ALGORITHM.md 6.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from aurefine.atomic import atomic_file
from aurefine.errors import InputError
from aurefine.regular_files import regular
from aurefine.star_labels import LABEL_TYPES
from aurefine.star_read import read_blocks
from aurefine.star_write import as_written, table_text

__all__ = ["LABEL_TYPES", "Table", "as_written", "leading_comments", "read", "read_table", "single_values", "write"]

@dataclass(frozen=True)
class Table:
    """One `data_` block: columns of equal length in file order, labels without the leading underscore.

    `is_list` marks a block of single values (columns of length 1) instead of a loop. Known RELION labels hold int64, bool or
    float64; text and unknown labels are object arrays of str.
    """

    name: str
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    is_list: bool = False

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def __contains__(self, label: str) -> bool:
        return label in self.columns

    def __getitem__(self, label: str) -> np.ndarray:
        """A column; InputError where the table lacks it (readers that know the file say more, and earlier)."""
        if label not in self.columns:
            raise InputError(f"the table data_{self.name} has no column {label}, which is needed here; is its file damaged, or another program's?")
        return self.columns[label]

    def value(self, label: str, default: object = None) -> object:
        """First value of a column as a Python object, or `default` where the column is absent or empty."""
        column = self.columns.get(label)
        if column is None or len(column) == 0:
            return default
        first = column[0]
        return first.item() if isinstance(first, np.generic) else first

    def select(self, rows: np.ndarray) -> Table:
        """The rows given by a mask or an index array, in that order."""
        return Table(self.name, {label: column[rows] for label, column in self.columns.items()}, self.is_list)

    def with_columns(self, columns: Mapping[str, np.ndarray]) -> Table:
        """A copy with columns replaced in place, and new ones appended."""
        return Table(self.name, {**self.columns, **columns}, self.is_list)

    def without(self, labels: Iterable[str]) -> Table:
        """A copy without the named columns."""
        dropped = set(labels)
        return Table(self.name, {label: column for label, column in self.columns.items() if label not in dropped}, self.is_list)

    @staticmethod
    def from_values(name: str, values: Mapping[str, object]) -> Table:
        """A list block from single values."""
        return Table(name, {label: _as_column([value]) for label, value in values.items()}, is_list=True)

    @staticmethod
    def from_rows(name: str, labels: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
        """A loop from rows of values."""
        return Table(name, {label: _as_column([row[index] for row in rows]) for index, label in enumerate(labels)})


def _as_column(values: list) -> np.ndarray:
    if any(isinstance(value, str) for value in values) or not values:
        return np.array([str(value) for value in values], dtype=object)
    return np.asarray(values)


def read(path: str | Path, wanted: Callable[[str], object] | None = None) -> dict[str, Table]:
    """All tables of a STAR file, or those `wanted`, by block name (without `data_`; RELION 3.0's nameless block has the name '').

    Raises InputError for a file that is missing, is not STAR, or has a malformed row or number (named by line).
    """
    return {name: Table(name, columns, is_list) for name, columns, is_list in read_blocks(path, wanted)}


def read_table(path: str | Path, name: str) -> Table:
    """One named table; InputError (listing what there is) when the file lacks it."""
    tables = read(path)
    if name not in tables:
        found = ", ".join(f"data_{other}" for other in tables)
        raise InputError(f"{path}: there is no block data_{name}, only {found}; is it the right kind of STAR file?")
    return tables[name]


def single_values(path: str | Path) -> Table:
    """The single values of all list tables of a STAR file in one table; an empty one where the file is not there."""
    if not Path(path).is_file():
        return Table("")
    columns = {label: column for table in read(path).values() if table.is_list for label, column in table.columns.items()}
    return Table("", columns, is_list=True)


def leading_comments(path: str | Path) -> list[str]:
    """The comment lines before the first table, without their `# `: an optimiser's file begins with its program and command line."""
    comments = []
    with open(path, encoding="utf-8", errors="surrogateescape", opener=regular) as lines:
        for line in lines:
            if not line.startswith("# "):
                break
            comments.append(line[2:].strip())
    return comments


def write(path: str | Path, tables: Mapping[str, Table] | Iterable[Table], comments: Sequence[str] = (), version: int = 50001) -> None:
    """Write tables atomically, byte for byte in RELION's layout; `comments` become leading '# ' lines.

    Raises InputError when the file cannot be written, ValueError for columns of unequal length.
    """
    blocks = list(tables.values()) if isinstance(tables, Mapping) else list(tables)
    with atomic_file(path) as handle:
        for comment in comments:
            handle.write(f"# {comment}\n".encode("utf-8", "surrogateescape"))
        for block in blocks:
            for piece in table_text(block.name, block.columns, block.is_list, version):
                handle.write(piece.encode("utf-8", "surrogateescape"))
