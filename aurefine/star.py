"""STAR tables as RELION 3.0 to 5 write them: a fast reader, and a writer in RELION 5's own layout (ALGORITHM.md 6.2)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from aurefine.atomic import atomic_file
from aurefine.errors import InputError
from aurefine.star_labels import LABEL_TYPES
from aurefine.star_write import table_text

__all__ = ["LABEL_TYPES", "Table", "read", "read_table", "write"]

_BLOCK = re.compile(r"^[ \t]*data_(\S*)[ \t\r]*(?:#.*)?$", re.MULTILINE)
_TOKEN = re.compile(r'"([^"\n]*)"(?=\s|$)|\'([^\'\n]*)\'(?=\s|$)|(\S+)', re.MULTILINE)
_CHUNK = 1 << 22  # characters tokenised at a time: bounds the memory that a file of millions of rows takes


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


def read(path: str | Path) -> dict[str, Table]:
    """All tables of a STAR file by block name (without `data_`; RELION 3.0's nameless block has the name '').

    Raises InputError for a file that is missing, is not STAR, or has a malformed row or number (named by line).
    """
    text = _load(path)
    heads = list(_BLOCK.finditer(text))
    if not heads or "\0" in text[:4096]:
        raise InputError(f"{path}: not a STAR file (no line starts with 'data_'); give the .star file that RELION wrote")
    tables: dict[str, Table] = {}
    for head, end in zip(heads, [*(head.start() for head in heads[1:]), len(text)], strict=True):
        name = head.group(1)
        if name in tables:
            raise InputError(f"{path}, line {_line_number(text, head.start())}: the block data_{name} occurs twice; remove one of them")
        tables[name] = _BlockReader(str(path), text, name, head.end(), end).table()
    return tables


def read_table(path: str | Path, name: str) -> Table:
    """One named table; InputError (listing what there is) when the file lacks it."""
    tables = read(path)
    if name not in tables:
        found = ", ".join(f"data_{other}" for other in tables)
        raise InputError(f"{path}: there is no block data_{name}, only {found}; is it the right kind of STAR file?")
    return tables[name]


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


def _load(path: str | Path) -> str:
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file; check the name, and that you are in the RELION project's folder") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return data.decode("utf-8", "surrogateescape").replace("\r\n", "\n")


def _line_number(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


class _BlockReader:
    """Reads text[start:end], the inside of one data block; keeps positions so that errors can name the line."""

    def __init__(self, path: str, text: str, name: str, start: int, end: int) -> None:
        self.path, self.text, self.name, self.start, self.end = path, text, name, start, end

    def table(self) -> Table:
        labels: list[str] = []
        values: list[str] = []
        is_loop = False
        body = self.end
        for position, line in self._lines():
            content = line.strip()
            if not content or content.startswith("#"):
                continue
            if content == "loop_" and not labels:
                is_loop = True
            elif content.startswith("_") and not (is_loop and self._is_row(content, labels)):
                self._add_label(content, is_loop, labels, values, position)
            elif is_loop and labels:
                body = position
                break
            else:
                raise self._error(position, f"expected a label (starting with '_') but found '{content[:40]}'")
        if is_loop:
            return Table(self.name, self._loop_columns(labels, body))
        columns = {label: self._numbers(label, [value], body) for label, value in zip(labels, values, strict=True)}
        return Table(self.name, columns, is_list=True)

    @staticmethod
    def _is_row(content: str, labels: list[str]) -> bool:
        """A row whose first value happens to start with an underscore: as many values as there are labels."""
        words = content.split()
        return len(labels) > 2 and len(words) == len(labels) and not words[1].startswith("#")

    def _lines(self) -> Iterator[tuple[int, str]]:
        position = self.start
        while position < self.end:
            stop = self.text.find("\n", position, self.end)
            stop = self.end if stop < 0 else stop
            yield position, self.text[position:stop]
            position = stop + 1

    def _add_label(self, content: str, is_loop: bool, labels: list[str], values: list[str], position: int) -> None:
        words = _split(content)
        label = words[0][1:]
        if label in labels:
            raise self._error(position, f"the label _{label} occurs twice")
        if not is_loop and len(words) < 2:
            raise self._error(position, f"the label _{label} has no value")
        labels.append(label)
        values.append(words[1] if len(words) > 1 else "")

    def _loop_columns(self, labels: list[str], body: int) -> dict[str, np.ndarray]:
        parts: list[list[np.ndarray]] = [[] for _ in labels]
        for position, chunk in self._chunks(body):
            words = self._row_words(chunk, len(labels), position)
            for index, label in enumerate(labels):
                parts[index].append(self._numbers(label, words[index :: len(labels)], position))
        return {label: _join(part, label) for label, part in zip(labels, parts, strict=True)}

    def _chunks(self, position: int) -> Iterator[tuple[int, str]]:
        """Pieces of the rows, cut at line ends."""
        while position < self.end:
            stop = self.end if self.end - position <= _CHUNK else self.text.find("\n", position + _CHUNK, self.end) + 1 or self.end
            yield position, self.text[position:stop]
            position = stop

    def _row_words(self, chunk: str, width: int, position: int) -> list[str]:
        lines = list(filter(str.strip, chunk.split("\n")))
        if "#" in chunk:
            lines = [line for line in lines if not line.lstrip().startswith("#")]
            chunk = "\n".join(lines)
        words = _split(chunk)
        if len(words) != width * len(lines) or (width > 1 and any(len(_split(line)) != width for line in (lines[:1] + lines[-1:]))):
            self._complain_about_rows(position, width)
        return words

    def _complain_about_rows(self, position: int, width: int) -> None:
        offset = position
        for line in self.text[position : self.end].split("\n"):
            found = len(_split(line))
            if found not in (0, width) and not line.lstrip().startswith("#"):
                cut = " (the file ends here: it is truncated)" if offset + len(line) + 1 >= len(self.text) else ""
                raise self._error(offset, f"the row has {found} values but the table has {width} columns{cut}; restore or repair this file")
            offset += len(line) + 1

    def _numbers(self, label: str, words: list[str], position: int) -> np.ndarray:
        kind = LABEL_TYPES.get(label, str)
        if kind is str:
            column = np.empty(len(words), dtype=object)
            memory: dict[str, str] = {}  # equal names share one object: micrograph names repeat hundreds of times
            column[:] = [memory.setdefault(word, word) for word in words]
            return column
        try:
            return _convert(kind, words)
        except (ValueError, OverflowError):
            raise self._number_error(label, kind, words, position) from None

    def _number_error(self, label: str, kind: type, words: list[str], position: int) -> InputError:
        expected = "a number" if kind is float else "a whole number"
        for row, word in enumerate(words):
            try:
                _convert(kind, [word])
            except (ValueError, OverflowError):
                return self._error(self._row_position(position, row), f"{label} must be {expected}, but '{word}' was found")
        return self._error(position, f"{label} must be {expected}")

    def _row_position(self, position: int, row: int) -> int:
        for line in self.text[position : self.end].split("\n"):
            if line.strip() and not line.lstrip().startswith("#"):
                row -= 1
                if row < 0:
                    break
            position += len(line) + 1
        return position

    def _error(self, position: int, message: str) -> InputError:
        return InputError(f"{self.path}, line {_line_number(self.text, position)} (data_{self.name}): {message}")


def _split(text: str) -> list[str]:
    """Words of one or more lines; quoted words may hold blanks or nothing."""
    if '"' not in text and "'" not in text:
        return text.split()
    return [match.group(match.lastindex or 0) for match in _TOKEN.finditer(text)]


def _convert(kind: type, words: list[str]) -> np.ndarray:
    if kind is float:
        return np.fromiter(map(float, words), np.float64, len(words))
    try:
        column = np.fromiter(map(int, words), np.int64, len(words))
    except ValueError:
        column = _loose_integers(words)
    flags = kind is bool and bool(np.isin(column, (0, 1)).all())  # some of RELION's flags also say -1
    return column.astype(bool) if flags else column


def _loose_integers(words: list[str]) -> np.ndarray:
    """Other programs write 1.000000 for a whole number, and True or False for a flag."""
    values = np.array([float({"true": "1", "false": "0"}.get(word.lower(), word)) for word in words])
    if not np.array_equal(values, np.round(values)):  # also refuses nan
        raise ValueError("not a whole number")
    return values.astype(np.int64)


def _join(parts: list[np.ndarray], label: str) -> np.ndarray:
    if parts:
        return np.concatenate(parts)
    kind = LABEL_TYPES.get(label, str)
    return np.empty(0, dtype={int: np.int64, float: np.float64, bool: bool}.get(kind, object))
