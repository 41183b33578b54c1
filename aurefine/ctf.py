"""The contrast transfer function of a weak-phase object, and the demodulation of antisymmetrical aberrations.

Source: ALGORITHM.md 1.7; Zivanov et al. (2018), eLife 7, e42166. Frequencies belong to the FULL box of the image, 1/Angstrom.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np
from numba import njit, prange
from numpy.typing import ArrayLike

from aurefine import aberrations

SMALLEST = 1e-8  # |CTF| is never below this


class CtfParameters(Protocol):
    """Per-particle arrays `[n]`: Angstrom, degrees, Angstrom^2, and a plain factor."""

    @property
    def defocus_u(self) -> np.ndarray: ...

    @property
    def defocus_v(self) -> np.ndarray: ...

    @property
    def defocus_angle(self) -> np.ndarray: ...

    @property
    def bfactor(self) -> np.ndarray: ...

    @property
    def scale(self) -> np.ndarray: ...

    @property
    def phase_shift(self) -> np.ndarray: ...


class Optics(Protocol):
    """What an optics group says of the microscope: kV, mm, fraction, 2x2 matrix, Zernike lists, (x, y) mrad."""

    @property
    def voltage(self) -> float: ...

    @property
    def spherical_aberration(self) -> float: ...

    @property
    def amplitude_contrast(self) -> float: ...

    @property
    def magnification(self) -> np.ndarray: ...

    @property
    def even_zernike(self) -> ArrayLike: ...

    @property
    def odd_zernike(self) -> ArrayLike: ...

    @property
    def beam_tilt(self) -> tuple[float, float]: ...


def wavelength(voltage_kv: float) -> float:
    """Relativistic wavelength of the electrons (Angstrom) at an acceleration voltage in kV."""
    volts = voltage_kv * 1000.0
    return 12.2643247 / math.sqrt(volts * (1.0 + 0.978466e-6 * volts))


def evaluate(
    table: CtfParameters,
    indices: ArrayLike,
    optics: Optics,
    frequency_x: ArrayLike,
    frequency_y: ArrayLike,
    *,
    intact_first_peak: bool = False,
    phase_flipped: bool = False,
    only_flip_phases: bool = False,
) -> np.ndarray:
    """CTF `[k, p]` (float32) of the particles `indices [k]` of one optics group at frequencies `[p]` (1/Angstrom).

    CTF = -sin(gamma), computed in float64: at zero frequency it is the amplitude contrast (positive), so bright density stays
    bright. Options act in RELION's order: 1 up to the first peak (`intact_first_peak`), B-factor envelope, absolute value
    (`phase_flipped`), sign only (`only_flip_phases`), scale factor. Values below 1e-8 in size become 1e-8 with their sign.
    """
    rows = np.asarray(indices, dtype=np.int64)
    pixels = pixel_terms(optics, frequency_x, frequency_y)
    columns = particle_terms(table, rows, optics)
    out = np.empty((len(rows), len(pixels.xx)), dtype=np.float32)
    flags = (bool(intact_first_peak), bool(phase_flipped), bool(only_flip_phases))
    _evaluate(*pixels, *columns, *flags, out)
    return out


def demodulation(optics: Optics, frequency_x: ArrayLike, frequency_y: ArrayLike) -> np.ndarray | None:
    """Factor `[p]` (complex64), exp(-i phase), that removes beam tilt and odd Zernike aberrations from an image's transform.

    None when the optics group has none of them. Frequencies are not corrected for anisotropic magnification, as in RELION.
    """
    odd = aberrations.with_beam_tilt(
        getattr(optics, "odd_zernike", ()),
        tuple(getattr(optics, "beam_tilt", (0.0, 0.0))),
        optics.spherical_aberration,
        wavelength(optics.voltage),
    )
    if not odd.any():
        return None
    return np.exp(-1j * aberrations.odd_phase(odd, np.asarray(frequency_x), np.asarray(frequency_y))).astype(np.complex64)


class PixelTerms(NamedTuple):
    """What depends on the pixel only, each `[p]`: squares of the frequency, and the phase all particles share."""

    xx: np.ndarray
    xy: np.ndarray
    yy: np.ndarray
    shared: np.ndarray


def pixel_terms(optics: Optics, frequency_x: ArrayLike, frequency_y: ArrayLike) -> PixelTerms:
    """What the phase of every particle has in common, at frequencies `[p]` (1/Angstrom)."""
    frequency = np.stack([np.asarray(frequency_x, dtype=np.float64), np.asarray(frequency_y, dtype=np.float64)])
    magnification = getattr(optics, "magnification", None)
    x, y = frequency if magnification is None else np.asarray(magnification, dtype=np.float64) @ frequency
    spherical = 0.5 * math.pi * optics.spherical_aberration * 1e7 * wavelength(optics.voltage) ** 3
    shared = spherical * (x * x + y * y) ** 2 + aberrations.even_phase(getattr(optics, "even_zernike", ()), x, y)
    contrast = optics.amplitude_contrast
    shared -= math.atan2(contrast, math.sqrt(max(0.0, 1.0 - contrast * contrast)))
    return PixelTerms(x * x, 2 * x * y, y * y, shared)


def particle_terms(table: CtfParameters, rows: np.ndarray, optics: Optics) -> tuple[np.ndarray, ...]:
    """Coefficients of x^2, 2xy and y^2, phase shift (radians), envelope exponent and scale factor, each `[k]`."""
    lam = wavelength(optics.voltage)
    u, v, angle, bfactor, scale, shift = (
        np.asarray(getattr(table, name), dtype=np.float64)[rows]
        for name in ("defocus_u", "defocus_v", "defocus_angle", "bfactor", "scale", "phase_shift")
    )
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    along_x = -math.pi * lam * (u * cos * cos + v * sin * sin)
    mixed = -math.pi * lam * (u - v) * sin * cos
    along_y = -math.pi * lam * (u * sin * sin + v * cos * cos)
    return along_x, mixed, along_y, np.deg2rad(shift), -bfactor / 4, scale


@njit(nogil=True, cache=True, parallel=True)
def _evaluate(xx, xy, yy, shared, along_x, mixed, along_y, shift, envelope, scale, intact, absolute, sign_only, out):
    for i in prange(out.shape[0]):
        gamma = np.empty(out.shape[1])
        for p in range(len(gamma)):
            gamma[p] = along_x[i] * xx[p] + mixed[i] * xy[p] + along_y[i] * yy[p] + shared[p] - shift[i]
        row = out[i]
        _minus_sine(gamma, row)
        if intact:
            for p in range(len(row)):
                row[p] = 1.0 if abs(gamma[p]) < 0.5 * math.pi else row[p]
        if envelope[i] != 0.0:
            for p in range(len(row)):
                row[p] *= math.exp(envelope[i] * (xx[p] + yy[p]))
        if absolute or sign_only:
            _flip_phases(row, absolute)
        _scale_and_clamp(row, scale[i])


@njit(nogil=True, cache=True, fastmath=True)
def _minus_sine(gamma, out):
    """-sin in plain arithmetic, which compiles to vector instructions: Taylor series on half a period, error below 1e-9."""
    for p in range(len(out)):
        half_periods = np.floor(gamma[p] * (1 / math.pi) + 0.5)
        sign = 4.0 * (0.5 * half_periods - np.floor(0.5 * half_periods)) - 1.0  # + for odd numbers: minus the sine
        r = gamma[p] - half_periods * math.pi
        q = r * r
        series = 1.0 / 6227020800.0
        series = series * q - 1.0 / 39916800.0
        series = series * q + 1.0 / 362880.0
        series = series * q - 1.0 / 5040.0
        series = series * q + 1.0 / 120.0
        series = series * q - 1.0 / 6.0
        out[p] = sign * (r + r * q * series)


@njit(nogil=True, cache=True)
def _flip_phases(row, absolute):
    for p in range(len(row)):
        row[p] = abs(row[p]) if absolute else (-1.0 if row[p] < 0.0 else 1.0)


@njit(nogil=True, cache=True)
def _scale_and_clamp(row, scale):
    for p in range(len(row)):
        value = row[p] * scale
        size = max(abs(value), SMALLEST)
        row[p] = size if value >= 0.0 else -size
