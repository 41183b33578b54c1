"""Reading the blocks of a STAR file: whole-file text, rows tokenised a chunk at a time, errors that name the line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from aurefine.errors import InputError
from aurefine.star_labels import LABEL_TYPES

_HEAD = re.compile(r"\s*data_(\S*)[ \t]*(?:#.*)?")
_TOKEN = re.compile(r'"([^"\n]*)"(?=\s|$)|\'([^\'\n]*)\'(?=\s|$)|(\S+)', re.MULTILINE)
_CHUNK = 1 << 18  # characters tokenised at a time: stays in cache, and bounds the memory that millions of rows take


def read_blocks(path: str | Path) -> Iterator[tuple[str, dict[str, np.ndarray], bool]]:
    """Name, columns and "is a list" of each block; InputError for a missing file or malformed text."""
    text = _load(path)
    heads = list(_heads(text))
    if not heads or "\0" in text[:4096]:
        raise InputError(f"{path}: not a STAR file (no line starts with 'data_'); give the .star file that RELION wrote")
    seen: set[str] = set()
    for (start, stop, name), end in zip(heads, [*(head[0] for head in heads[1:]), len(text)], strict=True):
        if name in seen:
            raise InputError(f"{path}, line {_line_number(text, start)}: the block data_{name} occurs twice; remove one of them")
        seen.add(name)
        yield name, *_BlockReader(str(path), text, name, stop, end).block()


def _heads(text: str) -> Iterator[tuple[int, int, str]]:
    """Start, end and name of each `data_` line."""
    position = 0 if text.startswith("data_") else text.find("\ndata_")
    while position >= 0:
        line = position + (text[position] == "\n")
        stop = text.find("\n", line)
        stop = len(text) if stop < 0 else stop
        match = _HEAD.fullmatch(text, line, stop)
        if match:  # otherwise a row whose first value starts with data_
            yield line, stop, match.group(1)
        position = text.find("\ndata_", stop)


def _load(path: str | Path) -> str:
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file; check the name, and that you are in the RELION project's folder") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    text = data.decode("ascii") if data.isascii() else data.decode("utf-8", "surrogateescape")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _line_number(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


class _BlockReader:
    """Reads text[start:end], the inside of one data block; keeps positions so that errors can name the line."""

    def __init__(self, path: str, text: str, name: str, start: int, end: int) -> None:
        self.path, self.text, self.name, self.start, self.end = path, text, name, start, end

    def block(self) -> tuple[dict[str, np.ndarray], bool]:
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
            return self._loop_columns(labels, body), False
        return {label: self._numbers(label, [value], body) for label, value in zip(labels, values, strict=True)}, True

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
        # in long tables only the ends of a chunk are looked at: rows that shift their neighbours do not convert to numbers
        looked_at = lines if self.end - position <= _CHUNK else lines[:1] + lines[-1:]
        if len(words) != width * len(lines) or any(len(_split(line)) != width for line in looked_at):
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
