"""Reading the blocks of a STAR file: whole-file text, rows tokenised a chunk at a time, errors that name the line."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from aurefine.errors import InputError
from aurefine.regular_files import regular
from aurefine.star_labels import LABEL_TYPES

_HEAD = re.compile(rb"\s*data_(\S*)[ \t]*(?:#.*)?")
_WORD = re.compile(r"\S+")
_CLOSING = {quote: re.compile(quote + r"(?!\S)") for quote in "\"'"}  # a quoted word ends at the first of its quotes that white space follows
_HEAD_BYTES = 4096  # in which a binary file shows that it is one
_CHUNK = 1 << 18  # bytes tokenised at a time: stays in cache, and bounds the memory that millions of rows take
_LONG = 1 << 26  # from this many bytes on (a quarter of a million particles), compiled code (star_parse.py) pays for being loaded
_LONG_CHUNK = 1 << 22
_BEYOND = 2.0**63  # no int64
_THREADS = min(4, os.cpu_count() or 1)


def read_blocks(path: str | Path, wanted: Callable[[str], object] | None = None) -> Iterator[tuple[str, dict[str, np.ndarray], bool]]:
    """Name, columns and "is a list" of each block (of a `wanted` name); InputError for a missing file or malformed text."""
    yield from blocks_of(_load(path), path, wanted)


def blocks_of(data: bytes, path: str | Path, wanted: Callable[[str], object] | None = None) -> Iterator[tuple[str, dict[str, np.ndarray], bool]]:
    """The same of a file's bytes, with line ends as Unix has them; `path` is for messages."""
    heads = list(_heads(data))
    if not heads or b"\0" in data[:_HEAD_BYTES]:
        raise _not_star(path)
    seen: set[str] = set()
    for (start, stop, name), end in zip(heads, [*(head[0] for head in heads[1:]), len(data)], strict=True):
        if name in seen:
            raise InputError(f"{path}, line {_line_number(data, start)}: the block data_{name} occurs twice; remove one of them")
        seen.add(name)
        if wanted is None or wanted(name):
            yield name, *_BlockReader(str(path), data, name, stop, end).block()


def _heads(data: bytes) -> Iterator[tuple[int, int, str]]:
    """Start, end and name of each `data_` line."""
    position = 0 if data.startswith(b"data_") else data.find(b"\ndata_")
    while position >= 0:
        line = position + (data[position : position + 1] == b"\n")
        stop = data.find(b"\n", line)
        stop = len(data) if stop < 0 else stop
        match = _HEAD.fullmatch(data, line, stop)
        if match:  # otherwise a row whose first value starts with data_
            yield line, stop, _decoded(match.group(1))
        position = data.find(b"\ndata_", stop)


def _load(path: str | Path) -> bytes:
    try:
        with open(path, "rb", opener=regular) as handle:
            head = handle.read(_HEAD_BYTES)
            if b"\0" in head:  # a stack of many gigabytes is not read to find that it is none
                raise _not_star(path)
            if os.fstat(handle.fileno()).st_size > _memory():
                raise InputError(f"{path}: the file is larger than this machine's memory; is it a STAR file?")
            data = head + handle.read()
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file; check the name, and that you are in the RELION project's folder") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', error)})") from error
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data


def _not_star(path: str | Path) -> InputError:
    return InputError(f"{path}: not a STAR file (no line starts with 'data_'); give the .star file that RELION wrote")


def _memory() -> float:
    """Bytes of the machine's memory; infinite where the system does not tell."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return float("inf")


def _decoded(data: bytes) -> str:
    return data.decode("ascii") if data.isascii() else data.decode("utf-8", "surrogateescape")


def _line_number(data: bytes, position: int) -> int:
    return data.count(b"\n", 0, position) + 1


class _BlockReader:
    """Reads data[start:end], the inside of one data block; keeps positions so that errors can name the line."""

    def __init__(self, path: str, data: bytes, name: str, start: int, end: int) -> None:
        self.path, self.data, self.name, self.start, self.end = path, data, name, start, end

    def block(self) -> tuple[dict[str, np.ndarray], bool]:
        labels: dict[str, str] = {}  # and the values of a list
        is_loop = False
        body = self.end
        for position, line in self._lines():
            content = line.strip()
            if not content or content.startswith("#"):
                continue
            if content == "loop_" and not labels:
                is_loop = True
            elif content.startswith("_") and not (is_loop and self._is_row(content, labels)):
                self._add_label(content, is_loop, labels, position)
            elif is_loop and labels:
                body = position
                break
            else:
                raise self._error(position, f"expected a label (starting with '_') but found '{content[:40]}'")
        if is_loop:
            return self._loop_columns(list(labels), body), False
        return {label: self._numbers(label, [value], body) for label, value in labels.items()}, True

    @staticmethod
    def _is_row(content: str, labels: dict[str, str]) -> bool:
        """A row whose first value happens to start with an underscore: as many values as there are labels."""
        words = content.split()
        return len(labels) > 2 and len(words) == len(labels) and not words[1].startswith("#")

    def _lines(self) -> Iterator[tuple[int, str]]:
        position = self.start
        while position < self.end:
            stop = self.data.find(b"\n", position, self.end)
            stop = self.end if stop < 0 else stop
            yield position, _decoded(self.data[position:stop])
            position = stop + 1

    def _add_label(self, content: str, is_loop: bool, labels: dict[str, str], position: int) -> None:
        words = _split(content)
        label = words[0][1:]
        if label in labels:
            raise self._error(position, f"the label _{label} occurs twice")
        if not is_loop and len(words) < 2:
            raise self._error(position, f"the label _{label} has no value")
        labels[label] = words[1] if len(words) > 1 else ""

    def _loop_columns(self, labels: list[str], body: int) -> dict[str, np.ndarray]:
        parts: list[list[np.ndarray]] = [[] for _ in labels]
        for columns in self._columns_of_chunks(labels, body):
            for part, column in zip(parts, columns, strict=True):
                part.append(column)
        return {label: _join(part, label) for label, part in zip(labels, parts, strict=True)}

    def _columns_of_chunks(self, labels: list[str], body: int) -> Iterator[list[np.ndarray]]:
        if self.end - body <= _LONG:
            yield from (self._chunk_columns(labels, *piece) for piece in self._chunks(body, _CHUNK))
            return
        from concurrent.futures import ThreadPoolExecutor  # slow to import, and most tables are short

        with ThreadPoolExecutor(_THREADS) as pool:  # compiled code runs beside Python's
            yield from pool.map(lambda piece: _fast_columns(labels, piece[1]) or self._chunk_columns(labels, *piece), self._chunks(body, _LONG_CHUNK))

    def _chunk_columns(self, labels: list[str], position: int, chunk: bytes) -> list[np.ndarray]:
        words = self._row_words(_decoded(chunk), len(labels), position)
        return [self._numbers(label, words[index :: len(labels)], position) for index, label in enumerate(labels)]

    def _chunks(self, position: int, size: int) -> Iterator[tuple[int, bytes]]:
        """Pieces of the rows, cut at line ends."""
        while position < self.end:
            stop = self.end if self.end - position <= size else self.data.find(b"\n", position + size, self.end) + 1 or self.end
            yield position, self.data[position:stop]
            position = stop

    def _row_words(self, chunk: str, width: int, position: int) -> list[str]:
        lines = list(filter(str.strip, chunk.split("\n")))
        if "#" in chunk:
            lines = [line for line in lines if not line.lstrip().startswith("#")]
            chunk = "\n".join(lines)
        words = _split(chunk)
        # in long tables only the ends of a chunk are looked at: rows that shift their neighbours do not convert to numbers
        looked_at = lines if self.end - position <= _CHUNK else lines[:1] + lines[-1:]
        if len(words) != width * len(lines) or any(len(_split(line)) != width for line in looked_at):
            self._complain_about_rows(position, width)
        return words

    def _complain_about_rows(self, position: int, width: int) -> None:
        offset = position
        for line in self.data[position : self.end].split(b"\n"):
            found = len(_split(_decoded(line)))
            if found not in (0, width) and not line.lstrip().startswith(b"#"):
                cut = " (the file ends here: it is truncated)" if offset + len(line) + 1 >= len(self.data) else ""
                raise self._error(offset, f"the row has {found} values but the table has {width} columns{cut}; restore or repair this file")
            offset += len(line) + 1
        raise self._error(position, f"the rows from here on do not have {width} values each; are quotes missing?")

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
        expected = "a number" if kind is float else "a whole number (of 64 bits at most)"
        for row, word in enumerate(words):
            try:
                _convert(kind, [word])
            except (ValueError, OverflowError):
                return self._error(self._row_position(position, row), f"{label} must be {expected}, but '{word}' was found")
        return self._error(position, f"{label} must be {expected}")

    def _row_position(self, position: int, row: int) -> int:
        for line in self.data[position : self.end].split(b"\n"):
            if line.strip() and not line.lstrip().startswith(b"#"):
                row -= 1
                if row < 0:
                    break
            position += len(line) + 1
        return position

    def _error(self, position: int, message: str) -> InputError:
        return InputError(f"{self.path}, line {_line_number(self.data, position)} (data_{self.name}): {message}")


def _fast_columns(labels: list[str], chunk: bytes) -> list[np.ndarray] | None:
    """Columns of plain rows by compiled code; None where the chunk needs (or its mistakes need) a closer look."""
    from aurefine import star_parse  # numba takes a second to load, which short files need not wait for

    if not chunk.isascii():
        return None
    types = [LABEL_TYPES.get(label, str) for label in labels]
    kinds = {str: star_parse.TEXT, float: star_parse.FLOAT}
    columns = star_parse.parse_rows(chunk, [kinds.get(kind, star_parse.WHOLE) for kind in types])
    if columns is None:
        return None
    return [_as_flags(column) if kind is bool else column for kind, column in zip(types, columns, strict=True)]


def _split(text: str) -> list[str]:
    """Words of one or more lines; quoted words may hold blanks or nothing."""
    if '"' not in text and "'" not in text:
        return text.split()
    return [word for line in text.split("\n") for word in (_quoted_words(line) if '"' in line or "'" in line else line.split())]


def _quoted_words(line: str) -> list[str]:
    words, position, unclosed = [], 0, set()  # each kind of quote is looked for in vain once, so that long lines take no long time
    while found := _WORD.search(line, position):
        start = found.start()
        quote = line[start]
        closing = _CLOSING[quote].search(line, start + 1) if quote in _CLOSING and quote not in unclosed else None
        if closing:
            words.append(line[start + 1 : closing.start()])
        else:
            unclosed.add(quote)
            words.append(found.group())
        position = (closing or found).end()
    return words


def _convert(kind: type, words: list[str]) -> np.ndarray:
    if kind is float:
        return np.fromiter(map(float, words), np.float64, len(words))
    try:
        column = np.fromiter(map(int, words), np.int64, len(words))
    except ValueError:
        column = _loose_integers(words)
    return _as_flags(column) if kind is bool else column


def _as_flags(column: np.ndarray) -> np.ndarray:
    """Flags as bool; some of RELION's also say -1, and stay numbers."""
    return column.astype(bool) if np.isin(column, (0, 1)).all() else column


def _loose_integers(words: list[str]) -> np.ndarray:
    """Other programs write 1.000000 for a whole number, and True or False for a flag."""
    values = np.array([float({"true": "1", "false": "0"}.get(word.lower(), word)) for word in words])
    if not (np.array_equal(values, np.round(values)) and (np.abs(values) < _BEYOND).all()):  # also refuses nan and inf
        raise ValueError("not a whole number of 64 bits")
    return values.astype(np.int64)


def _join(parts: list[np.ndarray], label: str) -> np.ndarray:
    if parts:
        return np.concatenate(parts)
    kind = LABEL_TYPES.get(label, str)
    return np.empty(0, dtype={int: np.int64, float: np.float64, bool: bool}.get(kind, object))
