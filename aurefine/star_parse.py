"""Compiled reading of STAR tables of many rows: numbers out of text, bit by bit what Python's float() and int() give.

Everything unusual (quotes, comments, a row too short, a number with too many digits) is left to the plain code in `star_read.py`:
nothing here raises an error of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

TEXT, WHOLE, FLOAT = 0, 1, 2
_POWERS = 10.0 ** np.arange(23)  # 10**22 is the largest power of ten that a double holds exactly


def slots(kinds: Sequence[int]) -> np.ndarray:
    """Place of each column among those of its kind."""
    seen = dict.fromkeys((TEXT, WHOLE, FLOAT), 0)
    places = np.empty(len(kinds), dtype=np.int64)
    for column, kind in enumerate(kinds):
        places[column] = seen[kind]
        seen[kind] += 1
    return places


def parse_rows(chunk: bytes, kinds: Sequence[int]) -> list[np.ndarray] | None:
    """The columns of whole lines: float64, int64, or object arrays of str; None where the chunk is not plain rows of plain words.

    `chunk` is ASCII. A whole number that is none, or a number beyond what is exact here, also gives None, or is left to Python's float().
    """
    data = np.frombuffer(chunk, np.uint8)
    kind = np.array(kinds, dtype=np.int64)
    slot = slots(kinds)
    lines = min(chunk.count(b"\n") + 1, len(chunk) // (2 * len(kind)) + 1)  # a value takes two bytes; blank lines take no memory
    floats = np.empty((list(kinds).count(FLOAT), lines))
    wholes = np.empty((list(kinds).count(WHOLE), lines), dtype=np.int64)
    starts, stops = (np.empty((list(kinds).count(TEXT), lines), dtype=np.int64) for _ in range(2))
    hard = np.empty((1000, 4), dtype=np.int64)
    rows, n_hard = _parse(data, kind, slot, floats, wholes, starts, stops, hard)
    if rows < 0:
        return None
    try:
        for place, row, start, stop in hard[:n_hard].tolist():
            floats[place, row] = float(chunk[start:stop])
    except ValueError:
        return None
    text = chunk.decode("ascii")
    return [
        _words(text, data, starts[place, :rows], stops[place, :rows]) if one == TEXT else (floats if one == FLOAT else wholes)[place, :rows]
        for one, place in zip(kinds, slot.tolist(), strict=True)
    ]


def _words(text: str, data: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Texts as an object array; a text that repeats the row before is the same object."""
    new = np.empty(len(starts), dtype=np.bool_)
    _mark_new(data, starts, stops, new)
    spans = zip(starts[new].tolist(), stops[new].tolist(), strict=True)
    words = np.empty(int(new.sum()), dtype=object)
    words[:] = [text[start:stop] for start, stop in spans]
    return words if len(words) == len(starts) else words[np.cumsum(new) - 1]


@njit(nogil=True, cache=True)
def _mark_new(data, starts, stops, new):  # type: ignore[no-untyped-def]
    for row in range(len(starts)):
        same = row > 0 and stops[row] - starts[row] == stops[row - 1] - starts[row - 1]
        if same:
            for place in range(stops[row] - starts[row]):
                if data[starts[row] + place] != data[starts[row - 1] + place]:
                    same = False
                    break
        new[row] = not same


@njit(nogil=True, cache=True)
def _parse(data, kind, slot, floats, wholes, starts, stops, hard):  # type: ignore[no-untyped-def]
    """Rows found, and hard numbers (column, row, start, stop) left to the caller; rows -1: not plain."""
    width, size = len(kind), len(data)
    position, row, column, n_hard = 0, 0, 0, 0
    while position <= size:
        byte = data[position] if position < size else np.uint8(10)
        if byte == 10:
            if column == width:
                row, column = row + 1, 0
            elif column > 0:
                return -1, 0
            position += 1
            continue
        if byte <= 32:
            if byte != 32 and byte != 9:
                return -1, 0
            position += 1
            continue
        start = position
        while position < size and data[position] > 32:
            byte = data[position]
            if byte == 34 or byte == 39 or byte == 35 or byte > 126:  # quotes and comments
                return -1, 0
            position += 1
        if column == width:
            return -1, 0
        place = slot[column]
        if kind[column] == 0:
            starts[place, row], stops[place, row] = start, position
        elif kind[column] == 1:
            good, value = _whole(data, start, position)
            if not good:
                return -1, 0
            wholes[place, row] = value
        else:
            good, number = _number(data, start, position)
            floats[place, row] = number
            if not good:
                if n_hard == len(hard):
                    return -1, 0
                hard[n_hard] = place, row, start, position
                n_hard += 1
        column += 1
    return row, n_hard


@njit(nogil=True, cache=True)
def _whole(data, start, stop):  # type: ignore[no-untyped-def]
    negative = data[start] == 45
    first = start + 1 if negative or data[start] == 43 else start
    if stop <= first or stop - first > 18:
        return False, 0
    value = np.int64(0)
    for place in range(first, stop):
        digit = np.int64(data[place]) - 48
        if digit < 0 or digit > 9:
            return False, 0
        value = value * 10 + digit
    return True, -value if negative else value


@njit(nogil=True, cache=True)
def _number(data, start, stop):  # type: ignore[no-untyped-def]
    """A decimal number where one exact integer and one exact power of ten give the nearest double (Clinger 1990)."""
    negative = data[start] == 45
    position = start + 1 if negative or data[start] == 43 else start
    mantissa = np.int64(0)
    digits, scale, seen = 0, 0, 0
    fraction = False
    while position < stop:
        digit = np.int64(data[position]) - 48
        if 0 <= digit <= 9:
            mantissa = np.int64(mantissa * 10 + digit)
            seen += 1
            digits += 1 if mantissa else 0
            scale -= 1 if fraction else 0
            if digits > 18:
                return False, 0.0
        elif data[position] == 46 and not fraction:
            fraction = True
        else:
            break
        position += 1
    if seen == 0 or mantissa > 9007199254740992:
        return False, 0.0
    if position < stop:
        if data[position] != 101 and data[position] != 69:
            return False, 0.0
        good, exponent = _whole(data, position + 1, stop) if position + 1 < stop else (False, 0)
        if not good or abs(exponent) > 400:
            return False, 0.0
        scale += exponent
    if scale < -22 or scale > 22:
        return False, 0.0
    value = mantissa / _POWERS[-scale] if scale < 0 else mantissa * _POWERS[scale]
    return True, -value if negative else value
