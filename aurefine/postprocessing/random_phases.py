"""Randomised phases beyond a resolution, drawn as RELION draws them: with the same seed its curves come out again (ALGORITHM.md 1.1, 9.2)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import numpy as np

from aurefine import fourier
from aurefine.threads import at_once

_ORDER = 31  # of the recurrence behind the C library's rand(): s(i) = s(i - 31) + s(i - 3) modulo 2^32
_LAG = 3
_DISCARDED = 310 + _ORDER  # the generator warms up, and its table itself is never given out
_RAND_MAX = 2147483647
_LOW_BITS = np.uint64(0xFFFFFFFF)


class CRandom:
    """The numbers of the GNU C library's rand() after srand(seed), an additive feedback generator; a negative seed is taken from the clock."""

    def __init__(self, seed: int) -> None:
        self._state = _first_state(seed if seed >= 0 else time.time_ns())
        self._take(_DISCARDED)

    def uniform(self, count: int) -> np.ndarray:
        """float64 [count], rand() / RAND_MAX: 0 to 1."""
        return self.integers(count) / _RAND_MAX

    def integers(self, count: int) -> np.ndarray:
        """uint32 [count], rand(): 0 to RAND_MAX."""
        return self._take(count) >> 1

    def _take(self, count: int) -> np.ndarray:
        """The next `count` raw values, uint32, computed as many stretches of the sequence side by side."""
        length = max(_ORDER, int(np.ceil(np.sqrt(count + _ORDER))))
        stretches = -(-(count + _ORDER) // length)
        table = np.empty((length, stretches), dtype=np.uint32)
        table[:_ORDER] = _starts(self._state, length, stretches)
        for i in range(_ORDER, length):
            np.add(table[i - _ORDER], table[i - _LAG], out=table[i])
        sequence = table.T.ravel()
        self._state = sequence[count : count + _ORDER].copy()
        return sequence[:count]


def _first_state(seed: int) -> np.ndarray:
    """The 31 values from which the recurrence starts: a Park-Miller sequence of the seed, 0 counting as 1."""
    values = [(seed & 0xFFFFFFFF) or 1]
    for _ in range(_ORDER - 1):
        values.append(16807 * values[-1] % _RAND_MAX)
    return np.array(values[_LAG:] + values[:_LAG], dtype=np.uint32)


def _starts(state: np.ndarray, length: int, stretches: int) -> np.ndarray:
    """uint32 [31, stretches]: the state at the start of every stretch of `length` values."""
    step = np.eye(_ORDER, k=1, dtype=np.uint64)
    step[-1, 0] = step[-1, _ORDER - _LAG] = 1
    jump = _power(step, length)
    starts = np.empty((_ORDER, stretches), dtype=np.uint64)
    current = state.astype(np.uint64)
    for index in range(stretches):
        starts[:, index] = current
        current = (jump @ current) & _LOW_BITS
    return starts.astype(np.uint32)


def _power(matrix: np.ndarray, exponent: int) -> np.ndarray:
    """A matrix power modulo 2^32 (sums wrap modulo 2^64, which is a multiple)."""
    result = np.eye(len(matrix), dtype=np.uint64)
    while exponent:
        if exponent & 1:
            result = (result @ matrix) & _LOW_BITS
        matrix = (matrix @ matrix) & _LOW_BITS
        exponent >>= 1
    return result


def randomise(transforms: Sequence[np.ndarray], from_radius: int, random: CRandom) -> list[np.ndarray]:
    """Make the phases of half-complex transforms random from `from_radius` pixels of frequency on, in place; returns the maps [n, n, n].

    Amplitudes are kept. Phases are drawn in the arrays' order, one for each element at or beyond the radius (not its rounded shell), as RELION does.
    """
    beyond = sum(int(np.count_nonzero(plane >= from_radius**2)) for plane in fourier.radius_squared_planes(len(transforms[0])))
    drawn = [random.integers(beyond) for _ in transforms]  # one after the other, whichever thread is quicker
    return at_once(*(partial(_with_phases, *each, from_radius) for each in zip(transforms, drawn, strict=True)))


def _with_phases(transform: np.ndarray, drawn: np.ndarray, from_radius: int) -> np.ndarray:
    """The map of a transform whose phases beyond the radius are those of the drawn numbers."""
    n = len(transform)
    position = 0
    for plane, squared in zip(transform, fourier.radius_squared_planes(n), strict=True):
        beyond = squared >= from_radius**2
        amplitude = np.abs(plane[beyond])
        angle = (drawn[position : position + len(amplitude)] * (2 * np.pi / _RAND_MAX)).astype(np.float32)
        plane[beyond] = amplitude * np.cos(angle) + 1j * (amplitude * np.sin(angle))
        position += len(amplitude)
    for column in {0, n // 2} if n % 2 == 0 else {0}:
        transform[:, :, column] = _hermitian(transform[:, :, column])
    return fourier.inverse_map(transform, n)


def _hermitian(plane: np.ndarray) -> np.ndarray:
    """The part of a plane of a half-complex transform that a real map can have: its mean with its own conjugate mirror image."""
    mirrored = np.roll(plane[::-1, ::-1], 1, axis=(0, 1))
    return 0.5 * (plane + mirrored.conj())
