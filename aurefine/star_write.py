"""Text of STAR tables exactly as RELION 5 lays them out (ALGORITHM.md 6.2)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import numpy as np

from aurefine.errors import InputError
from aurefine.star_labels import LABEL_TYPES

_FLOAT_FORMATS = np.array(["%12.6f", "%12.5f", "%12.6e", "%12.5e"], dtype=object)  # plain, plain negative, exponent, exponent negative
_ROWS_AT_A_TIME = 50_000
_THREADS = min(4, os.cpu_count() or 1)
_MANY_CELLS = 5_000_000  # from here on, compiled code (star_format.py) pays for being loaded


def table_text(name: str, columns: dict[str, np.ndarray], is_list: bool, version: int) -> Iterator[str]:
    """Pieces of one block's text, columns of equal length in their order; ValueError for unequal lengths."""
    lengths = {label: len(column) for label, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"data_{name}: columns of unequal length: {lengths}")
    yield f"\n# version {version}\n\ndata_{name}\n\n"
    yield from _list_lines(columns) if is_list else _loop_lines(columns)
    yield " \n"


def format_column(label: str, column: np.ndarray, in_list: bool = False) -> list[str]:
    """Each value as RELION prints it: `%12d` for whole numbers and flags, 12 characters for floats, quoted text where needed."""
    values = np.asarray(column)
    kind = LABEL_TYPES.get(label, _own_kind(values))
    if kind is str or values.dtype.kind in "OUS":
        return [_quoted(str(value)) if in_list else _quoted(str(value)).rjust(10) for value in values.tolist()]
    if kind is float:
        return format_floats(values)
    return [f"{value:12d}" for value in values.tolist()]


def format_floats(values: np.ndarray) -> list[str]:
    """Floats with six digits (five when negative), as exponents when smaller than 0.001 or larger than 1e5."""
    numbers = np.asarray(values, dtype=np.float64)
    size = np.abs(numbers)
    exponent = ((size < 0.001) & (size > 0)) | (size > 1e5)
    formats = _FLOAT_FORMATS[2 * exponent + (numbers < 0)]
    # one formatting call for the whole column is several times faster than one a value
    return ("\n".join(formats.tolist()) % tuple(numbers.tolist())).split("\n") if len(numbers) else []


def as_written(values: np.ndarray) -> np.ndarray:
    """Floats as they are read again once they were written (float64); what RELION or `format_floats` has written stays as it is."""
    numbers = np.asarray(values, dtype=np.float64)
    scale = np.where(numbers < 0, 1e5, 1e6)
    size = np.abs(numbers)
    with np.errstate(over="ignore", invalid="ignore"):
        wide = numbers * scale
        whole = np.rint(wide)
        away = np.abs(wide - whole)
    written = whole / scale  # the nearest double, as a reader finds it
    plain = (size >= 0.001) & (size <= 1e5) & (away < 0.4999)  # nearer to a rounding tie only exact arithmetic decides
    hard = ~(plain | ((written == numbers) & (size <= 1e5)))
    if hard.any():
        written[hard] = [float(text) for text in format_floats(numbers[hard])]
    return written


def _own_kind(values: np.ndarray) -> type:
    return {"f": float, "i": int, "u": int, "b": bool}.get(values.dtype.kind, str)


def _quoted(text: str) -> str:
    """Quotes only where a reader would otherwise see no word, two words, or something else than a word.

    A quoted word ends at the first of its quotes that white space follows. InputError for text that neither kind can hold.
    """
    if text and text[0] not in "\"'#" and len(text.split()) == 1 and text.strip() == text:
        return text
    for quote in sorted("\"'", key=text.__contains__):  # rather the one that it does not hold
        if not re.search(rf"{quote}\s|[\n\r]", text):
            return f"{quote}{text}{quote}"
    raise InputError(f"a STAR file cannot hold the text {text!r}: leave out its line ends, or one of its kinds of quotes")


def _list_lines(columns: dict[str, np.ndarray]) -> Iterator[str]:
    width = max((len(label) + 1 for label in columns), default=0) + 12
    for label, column in columns.items():
        yield f"{'_' + label:<{width}}{format_column(label, column, in_list=True)[0]}\n"


def _loop_lines(columns: dict[str, np.ndarray]) -> Iterator[str]:
    yield "loop_ \n"
    for number, label in enumerate(columns, start=1):
        yield f"_{label} #{number} \n"
    count = len(next(iter(columns.values()))) if columns else 0
    parts = [{label: np.asarray(column[start : start + _ROWS_AT_A_TIME]) for label, column in columns.items()}
             for start in range(0, count, _ROWS_AT_A_TIME)]  # fmt: skip
    if count * len(columns) <= _MANY_CELLS:
        yield from map(_lines, parts)
        return
    from concurrent.futures import ThreadPoolExecutor  # slow to import, and most tables are short

    with ThreadPoolExecutor(_THREADS) as pool:  # compiled code runs beside Python's; a few parts ahead bound the memory
        for start in range(0, len(parts), _THREADS):
            yield from pool.map(lambda part: _fast_lines(part) or _lines(part), parts[start : start + _THREADS])


def _lines(columns: dict[str, np.ndarray]) -> str:
    cells = [format_column(label, column) for label, column in columns.items()]
    return "".join([" ".join(row) + " \n" for row in zip(*cells, strict=True)])


def _fast_lines(columns: dict[str, np.ndarray]) -> str | None:
    """The lines by compiled code; None for columns of a kind that it does not know."""
    from aurefine import star_format  # numba takes a second to load, which short files need not wait for

    prepared: list[np.ndarray | bytes | list[bytes]] = []
    texts = []
    for label, values in columns.items():
        kind = LABEL_TYPES.get(label, _own_kind(values))
        if kind is str or values.dtype.kind in "OUS":
            texts.append((len(prepared), label))
            prepared.append(_joined(values))
        elif values.dtype.kind not in "iufb" or (kind is not float and values.dtype.kind in "fu"):
            return None
        else:
            prepared.append(values.astype(np.float64 if kind is float else np.int64))
    rows = len(next(iter(columns.values())))
    lines = star_format.format_rows(prepared, rows, format_floats)
    if lines is None:  # words that need quotes
        for place, label in texts:
            prepared[place] = [cell.encode("utf-8", "surrogateescape") for cell in format_column(label, columns[label])]
        lines = star_format.format_rows(prepared, rows, format_floats)
    return None if lines is None else lines.decode("utf-8", "surrogateescape")


def _joined(values: np.ndarray) -> bytes:
    """Words in lines; nothing (which is not plain) where there are values of another kind."""
    try:
        return "\n".join(values.tolist()).encode("ascii")
    except (TypeError, UnicodeEncodeError):
        return b""
