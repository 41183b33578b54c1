"""Higher-order lens aberrations as sums of Zernike polynomials of the spatial frequency (not scaled to a unit disc).

Sources: Zivanov, Nakane & Scheres (2020), IUCrJ 7, 253; ALGORITHM.md 1.7.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike


def even_index(i: int) -> tuple[int, int]:
    """(m, n) of the i-th symmetrical Zernike polynomial."""
    k = math.isqrt(i)
    return 2 * (i - k * k - k), 2 * k


def odd_index(i: int) -> tuple[int, int]:
    """(m, n) of the i-th antisymmetrical Zernike polynomial."""
    k = (math.isqrt(1 + 4 * i) - 1) // 2
    n = 2 * k + 1
    return 2 * (i - k * k - k) - n, n


def zernike(m: int, n: int, frequency_x: np.ndarray, frequency_y: np.ndarray) -> np.ndarray:
    """Z_n^m at frequencies in 1/Angstrom: R_n^|m|(rho) cos(m phi) for m >= 0, R_n^|m|(rho) sin(|m| phi) for m < 0."""
    rho, phi = np.hypot(frequency_x, frequency_y), np.arctan2(frequency_y, frequency_x)
    order, radial = abs(m), np.zeros_like(rho)
    for k in range((n - order) // 2 + 1):
        bottom = math.factorial(k) * math.factorial((n + order) // 2 - k) * math.factorial((n - order) // 2 - k)
        radial += (-1) ** k * math.factorial(n - k) / bottom * rho ** (n - 2 * k)
    return radial * (np.cos(m * phi) if m >= 0 else np.sin(-m * phi))


def even_phase(coefficients: ArrayLike, frequency_x: np.ndarray, frequency_y: np.ndarray) -> np.ndarray:
    """Phase (radians) that the even Zernike list (rlnEvenZernike) adds to the CTF's."""
    return _sum(coefficients, even_index, frequency_x, frequency_y)


def odd_phase(coefficients: ArrayLike, frequency_x: np.ndarray, frequency_y: np.ndarray) -> np.ndarray:
    """Phase (radians) of the odd Zernike list (rlnOddZernike)."""
    return _sum(coefficients, odd_index, frequency_x, frequency_y)


def with_beam_tilt(coefficients: ArrayLike, beam_tilt: tuple[float, float], spherical_aberration_mm: float, wavelength: float) -> np.ndarray:
    """The odd Zernike list with the coma of a beam tilt (x, y in mrad) added; empty when there is neither."""
    odd = np.array(coefficients if coefficients is not None else (), dtype=np.float64).ravel()
    if not any(beam_tilt):
        return odd
    odd = np.concatenate([odd, np.zeros(max(0, 6 - len(odd)))])
    scale = spherical_aberration_mm * 20000 * wavelength**2 * math.pi
    x, y = -scale * beam_tilt[0] / 3, -scale * beam_tilt[1] / 3
    odd[[0, 1, 3, 4]] += [2 * y, 2 * x, y, x]
    return odd


def _sum(coefficients: ArrayLike, index: Callable[[int], tuple[int, int]], frequency_x: np.ndarray, frequency_y: np.ndarray) -> np.ndarray:
    x, y = np.asarray(frequency_x, dtype=np.float64), np.asarray(frequency_y, dtype=np.float64)
    total = np.zeros(np.broadcast(x, y).shape)
    for i, coefficient in enumerate(np.asarray(coefficients if coefficients is not None else (), dtype=np.float64).ravel()):
        if coefficient:
            m, n = index(i)
            total += coefficient * zernike(m, n, x, y)
    return total
