"""Fourier sums over small windows of a large box, exact on the large box's own shells.

A local mask leaves most of the box empty. So the transform is taken axis by axis, each axis from the few planes that hold anything to the full
length, and only for the columns that lie within Nyquist's sphere; backwards alike, keeping the window's planes only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy import fft

from aurefine import fourier

_COLUMNS_AT_A_TIME = 512  # keeps a batch of columns in cache


@dataclass(frozen=True)
class Columns:
    """The columns along z of a half-complex transform that reach into Nyquist's sphere, those nearest to the axis first."""

    box: int
    y: np.ndarray  # index along y [c]
    x: np.ndarray  # index along x [c]
    rho2: np.ndarray  # squared frequency in the plane [c], int32
    shell: np.ndarray  # int16 [c, n]: rounded shell of each element; n/2 + 1 beyond the last

    def within(self, radius: float) -> int:
        """How many columns lie within this distance from the axis."""
        return int(np.searchsorted(self.rho2, radius * radius, side="right"))


def columns_of(box: int) -> Columns:
    """All columns of a box."""
    f = fourier.frequencies(box).astype(np.int32)
    rho2 = f[:, None] ** 2 + f[None, : box // 2 + 1] ** 2
    inside = np.flatnonzero(rho2.ravel() <= (box // 2 + 0.5) ** 2)
    order = inside[np.argsort(rho2.ravel()[inside], kind="stable")]
    y, x = np.unravel_index(order, rho2.shape)
    near = rho2[y, x]
    shell = fourier.round_half_away(np.sqrt(near[:, None] + (f**2)[None, :]))
    return Columns(box, y, x, near, np.minimum(shell, box // 2 + 1).astype(np.int16))


def gather(transform: np.ndarray, columns: Columns) -> np.ndarray:
    """complex64 [c, n]: the columns of a half-complex transform [n, n, n/2+1]."""
    return np.ascontiguousarray(transform[:, columns.y, columns.x].T)


def correlations(windows: np.ndarray, columns: Columns) -> np.ndarray:
    """FSC [pairs, n/2+1] of windows [2 pairs, z, y, x] (first, second, first, ...) as if each lay in the large box, empty elsewhere."""
    n = columns.box
    upright = np.ascontiguousarray(windows.transpose(0, 2, 3, 1))  # y, x, z: columns come out in one piece
    planes = fft.fft(fft.rfft(upright, n=n, axis=2), n=n, axis=1)
    sums = np.zeros((len(windows) // 2, 3, n // 2 + 2))
    for start in range(0, len(columns.y), _COLUMNS_AT_A_TIME):
        part = slice(start, start + _COLUMNS_AT_A_TIME)
        lines = planes[:, columns.y[part], columns.x[part]]
        _add_shells(fft.fft(lines, n=n, axis=2), columns.shell[part], sums)
    norm = np.sqrt(sums[:, 1] * sums[:, 2])
    curve = np.divide(sums[:, 0], norm, out=np.zeros_like(norm), where=norm > 0)[:, : n // 2 + 1]
    curve[:, 0] = 1.0
    return curve


def filtered_window(spectrum: np.ndarray, columns: Columns, weights: np.ndarray, edge: tuple[float, float], window: tuple[slice, ...]) -> np.ndarray:
    """A window (z, y, x) of the map whose columns are `spectrum`, each shell weighted and low-passed by a raised cosine.

    `edge` is where the cosine begins and ends, in pixels of frequency.
    """
    n = columns.box
    used = columns.within(min(edge[1], n // 2) + 0.5)
    z, y, x = window
    planes = np.zeros((n, n // 2 + 1, z.stop - z.start), dtype=np.complex64)
    padded = np.append(weights, 0).astype(np.float32)
    for start in range(0, used, _COLUMNS_AT_A_TIME):
        part = slice(start, min(start + _COLUMNS_AT_A_TIME, used))
        weighted = np.empty((part.stop - start, n), dtype=np.complex64)
        _weigh(spectrum[part], columns.shell[part], columns.rho2[part], padded, *edge, weighted)
        planes[columns.y[part], columns.x[part]] = fft.ifft(weighted, axis=1, norm="forward", overwrite_x=True)[:, z]
    rows = np.ascontiguousarray(fft.ifft(planes, axis=0, norm="forward", overwrite_x=True)[y])
    return fft.irfft(rows, n=n, axis=1, norm="forward")[:, x].transpose(2, 0, 1)


@njit(cache=True, nogil=True, fastmath=True)
def _add_shells(lines, shell, sums):
    """Add cross and own products of pairs of lines [2 pairs, c, n] to the sums [pairs, 3, shells]."""
    for pair in range(sums.shape[0]):
        for c in range(shell.shape[0]):
            for k in range(shell.shape[1]):
                a, b, s = lines[2 * pair, c, k], lines[2 * pair + 1, c, k], shell[c, k]
                sums[pair, 0, s] += a.real * b.real + a.imag * b.imag
                sums[pair, 1, s] += a.real * a.real + a.imag * a.imag
                sums[pair, 2, s] += b.real * b.real + b.imag * b.imag


@njit(cache=True, nogil=True)
def _weigh(spectrum, shell, rho2, weights, begin, end, out):
    """Each element times its shell's weight and the low-pass filter."""
    n = shell.shape[1]
    for c in range(shell.shape[0]):
        for k in range(n):
            weight = weights[shell[c, k]]
            z = k if k <= n // 2 else k - n
            radius = np.sqrt(np.float64(rho2[c] + z * z))
            if radius >= end:
                weight = np.float32(0)
            elif radius > begin:
                weight *= np.float32(0.5 + 0.5 * np.cos(np.pi * (radius - begin) / (end - begin)))
            out[c, k] = spectrum[c, k] * weight
