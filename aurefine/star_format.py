"""Compiled writing of STAR tables of many rows: numbers to text, digit by digit as Python formats them.

Everything unusual (quotes, comments, a row too short, a number with too many digits) is left to the plain code in `star_write.py`:
nothing here raises an error of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numba import njit

from aurefine.star_parse import FLOAT, TEXT, WHOLE, slots

_POWERS = 10.0 ** np.arange(23)  # 10**22 is the largest power of ten that a double holds exactly
_TIE_PLAIN, _TIE_EXPONENT = 1e-4, 1e-6  # nearer to a rounding tie than this, only exact arithmetic decides


def format_rows(columns: Sequence[np.ndarray | bytes | list[bytes]], rows: int, python_floats: Callable[[np.ndarray], list[str]]) -> bytes | None:
    """Lines of RELION's layout from float64 and int64 columns and texts (one bytes of words joined by line ends, or a list of cells).

    `python_floats(values)` formats what is hard. None where joined words are not plain.
    """
    kinds = [TEXT if isinstance(column, bytes | list) else FLOAT if column.dtype.kind == "f" else WHOLE for column in columns]
    texts, ends, base = [], [], 0
    for column in columns:
        if isinstance(column, np.ndarray):
            continue
        stop = _cell_ends(column, rows)
        if stop is None:
            return None
        text = b"".join(column) if isinstance(column, list) else column.replace(b"\n", b"")
        texts.append(text)
        ends.append(np.concatenate([[0], stop]) + base)
        base += len(text)
    floats = _stack([c for c, kind in zip(columns, kinds, strict=True) if kind == FLOAT], rows, np.float64)
    wholes = _stack([c for c, kind in zip(columns, kinds, strict=True) if kind == WHOLE], rows, np.int64)
    hard = np.zeros(floats.shape, dtype=np.bool_)
    _mark_hard(floats, hard)
    extra = [cell.encode() for cell in python_floats(floats.T[hard.T])]  # in the order of writing: row by row
    extra_ends = np.cumsum([0, *map(len, extra)])
    room = rows * sum({FLOAT: 14, WHOLE: 22, TEXT: 12}[kind] for kind in kinds) + 2 * rows + base + int(extra_ends[-1])
    out = np.empty(room, dtype=np.uint8)
    slot = slots(kinds)
    used = _format(out, rows, np.array(kinds, dtype=np.int64), slot, floats, wholes, np.frombuffer(b"".join(texts), np.uint8),
                   np.array(ends, dtype=np.int64).reshape(-1, rows + 1), hard, np.frombuffer(b"".join(extra), np.uint8), extra_ends)  # fmt: skip
    return out[:used].tobytes()


def _stack(columns: list, rows: int, kind: type) -> np.ndarray:
    return np.array(columns, dtype=kind).reshape(len(columns), rows)


def _cell_ends(column: bytes | list[bytes], rows: int) -> np.ndarray | None:
    if isinstance(column, list):
        return np.cumsum(np.fromiter(map(len, column), np.int64, len(column)))
    ends = np.empty(rows, dtype=np.int64)
    return ends if _plain_words(np.frombuffer(column, np.uint8), ends) else None


@njit(nogil=True, cache=True)
def _plain_words(data, ends):  # type: ignore[no-untyped-def]
    """Whether there are as many words as rows, none of which needs quotes; where each ends once the line ends are taken out."""
    row, length = 0, 0
    for position in range(len(data)):
        byte = data[position]
        if byte == 10:
            if length == 0 or row == len(ends) - 1:
                return False
            ends[row] = position - row
            row, length = row + 1, 0
        elif byte <= 32 or byte == 34 or byte == 39 or byte == 35 or byte > 126:
            return False
        else:
            length += 1
    if length == 0 or row != len(ends) - 1:
        return False
    ends[row] = len(data) - row
    return True


@njit(nogil=True, cache=True)
def _mark_hard(floats, hard):  # type: ignore[no-untyped-def]
    for place in range(floats.shape[0]):
        for row in range(floats.shape[1]):
            hard[place, row] = _scaled(floats[place, row])[0] < 0


@njit(nogil=True, cache=True)
def _scaled(value):  # type: ignore[no-untyped-def]
    """Digits as a whole number, their count after the point, and the exponent (1000: none); digits -1: Python decides."""
    size = abs(value)
    decimals = 5 if value < 0 else 6
    if not size <= 1e28:  # also nan
        return -1, 0, 0
    if size == 0 or 0.001 <= size <= 1e5:
        wide = size * _POWERS[decimals]
        whole = np.floor(wide)
        if abs(wide - whole - 0.5) < _TIE_PLAIN:
            return -1, 0, 0
        return np.int64(whole) + (1 if wide - whole > 0.5 else 0), decimals, 1000
    exponent = np.int64(np.floor(np.log10(size)))
    for _ in range(2):
        shift = decimals - exponent
        if abs(shift) > 22:
            return -1, 0, 0
        wide = size * _POWERS[shift] if shift >= 0 else size / _POWERS[-shift]
        if wide < _POWERS[decimals]:
            exponent -= 1
        elif wide >= _POWERS[decimals + 1]:
            exponent += 1
        else:
            break
    whole = np.floor(wide)
    if abs(wide - whole - 0.5) < _TIE_EXPONENT or wide < _POWERS[decimals] or wide >= _POWERS[decimals + 1] - 1:
        return -1, 0, 0
    return np.int64(whole) + (1 if wide - whole > 0.5 else 0), decimals, exponent


@njit(nogil=True, cache=True)
def _format(out, rows, kind, slot, floats, wholes, texts, ends, hard, extra, extra_ends):  # type: ignore[no-untyped-def]
    position, next_extra = 0, 0
    for row in range(rows):
        for column in range(len(kind)):
            place = slot[column]
            if kind[column] == 0:
                position = _put_text(out, position, texts, ends[place, row], ends[place, row + 1], 10)
            elif kind[column] == 1:
                position = _put_whole(out, position, wholes[place, row])
            elif hard[place, row]:
                position = _put_text(out, position, extra, extra_ends[next_extra], extra_ends[next_extra + 1], 12)
                next_extra += 1
            else:
                position = _put_float(out, position, floats[place, row])
            out[position] = 32
            position += 1
        out[position] = 10
        position += 1
    return position


@njit(nogil=True, cache=True)
def _put_text(out, position, texts, start, stop, width):  # type: ignore[no-untyped-def]
    for _ in range(width - (stop - start)):
        out[position] = 32
        position += 1
    for place in range(start, stop):
        out[position] = texts[place]
        position += 1
    return position


@njit(nogil=True, cache=True)
def _put_digits(out, stop, value, count):  # type: ignore[no-untyped-def]
    """The last `count` digits of a number, ending before `stop`; returns where they start."""
    for _ in range(count):
        stop -= 1
        out[stop] = 48 + value % 10
        value //= 10
    return stop


@njit(nogil=True, cache=True)
def _count_digits(value):  # type: ignore[no-untyped-def]
    count = 1
    while value >= 10:
        value //= 10
        count += 1
    return count


@njit(nogil=True, cache=True)
def _put_whole(out, position, value):  # type: ignore[no-untyped-def]
    digits = _count_digits(abs(value))
    length = digits + (1 if value < 0 else 0)
    for _ in range(12 - length):
        out[position] = 32
        position += 1
    if value < 0:
        out[position] = 45
        position += 1
    _put_digits(out, position + digits, abs(value), digits)
    return position + digits


@njit(nogil=True, cache=True)
def _put_float(out, position, value):  # type: ignore[no-untyped-def]
    digits, decimals, exponent = _scaled(value)
    whole = digits // np.int64(_POWERS[decimals])
    count = _count_digits(whole)
    negative = np.copysign(1.0, value) < 0
    length = count + 1 + decimals + (1 if negative else 0) + (4 if exponent < 1000 else 0)
    for _ in range(12 - length):
        out[position] = 32
        position += 1
    if negative:
        out[position] = 45
        position += 1
    _put_digits(out, position + count, whole, count)
    position += count
    out[position] = 46
    position += 1 + decimals
    _put_digits(out, position, digits, decimals)
    if exponent < 1000:
        out[position] = 101
        out[position + 1] = 45 if exponent < 0 else 43
        _put_digits(out, position + 4, abs(exponent), 2)
        position += 4
    return position
