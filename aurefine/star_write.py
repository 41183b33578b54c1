"""Text of STAR tables exactly as RELION 5 lays them out (ALGORITHM.md 6.2)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from aurefine.star_labels import LABEL_TYPES

_FLOAT_FORMATS = np.array(["%12.6f", "%12.5f", "%12.6e", "%12.5e"], dtype=object)  # plain, plain negative, exponent, exponent negative
_ROWS_AT_A_TIME = 50_000


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


def _own_kind(values: np.ndarray) -> type:
    return {"f": float, "i": int, "u": int, "b": bool}.get(values.dtype.kind, str)


def _quoted(text: str) -> str:
    """Quotes only where a reader would otherwise see no word, two words, or something else than a word."""
    if text and text[0] not in "\"'#" and len(text.split()) == 1 and text.strip() == text:
        return text
    return f"'{text}'" if '"' in text else f'"{text}"'


def _list_lines(columns: dict[str, np.ndarray]) -> Iterator[str]:
    width = max((len(label) + 1 for label in columns), default=0) + 12
    for label, column in columns.items():
        yield f"{'_' + label:<{width}}{format_column(label, column, in_list=True)[0]}\n"


def _loop_lines(columns: dict[str, np.ndarray]) -> Iterator[str]:
    yield "loop_ \n"
    for number, label in enumerate(columns, start=1):
        yield f"_{label} #{number} \n"
    count = len(next(iter(columns.values()))) if columns else 0
    for start in range(0, count, _ROWS_AT_A_TIME):
        part = slice(start, start + _ROWS_AT_A_TIME)
        cells = [format_column(label, column[part]) for label, column in columns.items()]
        yield "".join([" ".join(row) + " \n" for row in zip(*cells, strict=True)])
