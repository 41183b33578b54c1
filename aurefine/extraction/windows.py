"""Cutting particles out of a micrograph, and changing their box (ALGORITHM.md 7.1)."""

from __future__ import annotations

import numpy as np

from aurefine import fft
from aurefine.fourier import frequencies


def positions(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pixels [n, 2] (x, y) on which windows are centred: coordinates lose their fractions."""
    return np.stack([np.trunc(x), np.trunc(y)], axis=1).astype(np.int64)


def outside(position: np.ndarray, box: int, shape: tuple[int, int]) -> np.ndarray:
    """Mask [n] of the windows that share no pixel with a micrograph of `shape` (rows, columns)."""
    first = position - box // 2
    size = np.array([shape[1], shape[0]])
    return np.any((first + box <= 0) | (first >= size), axis=1)


def cut(micrograph: np.ndarray, position: np.ndarray, box: int, fill: float | None = None) -> np.ndarray:
    """Windows [n, box, box] (float32) around the pixels `position` [n, 2] (x, y) of a micrograph [rows, columns].

    What lies outside repeats the nearest pixel of the edge, or is `fill`.
    """
    windows = np.empty((len(position), box, box), dtype=np.float32)
    for window, (x, y) in zip(windows, position.tolist(), strict=True):
        x0, y0 = x - box // 2, y - box // 2
        if x0 >= 0 and y0 >= 0 and x0 + box <= micrograph.shape[1] and y0 + box <= micrograph.shape[0]:
            window[:] = micrograph[y0 : y0 + box, x0 : x0 + box]
        elif fill is None:
            window[:] = micrograph[np.ix_(_clipped(y0, box, micrograph.shape[0]), _clipped(x0, box, micrograph.shape[1]))]
        else:
            window[:] = fill
            top, left = max(0, y0), max(0, x0)
            part = micrograph[top : max(0, y0 + box), left : max(0, x0 + box)]
            window[top - y0 : top - y0 + part.shape[0], left - x0 : left - x0 + part.shape[1]] = part
    return windows


def repeat_edges(windows: np.ndarray, position: np.ndarray, shape: tuple[int, int]) -> None:
    """Put the nearest pixel of the micrograph's edge wherever a window [n, box, box] lies outside the micrograph; in place."""
    box = windows.shape[-1]
    for window, (x, y) in zip(windows, position.tolist(), strict=True):
        x0, y0 = x - box // 2, y - box // 2
        rows, columns = _clipped(y0, box, shape[0]) - y0, _clipped(x0, box, shape[1]) - x0
        if rows[0] != 0 or columns[0] != 0 or rows[-1] != box - 1 or columns[-1] != box - 1:
            window[:] = window[np.ix_(rows, columns)]


def _clipped(first: int, box: int, size: int) -> np.ndarray:
    return np.clip(np.arange(first, first + box), 0, size - 1)


def rescale(windows: np.ndarray, box: int) -> np.ndarray:
    """Images [n, old, old] reduced to `box` pixels by cropping their Fourier transforms; grey values stay (ALGORITHM.md 1.4).

    The same as `maps.fourier_rescale`, in float32 and with the frequencies that will be dropped left out as early as possible.
    """
    if windows.shape[-1] == box:
        return windows
    result = np.empty((len(windows), box, box), dtype=windows.dtype)
    for part in fft.stretches(windows):
        columns = fft.rfftn(windows[part], axes=(2,), norm="forward")[:, :, : box // 2 + 1]
        transform = fft.fft(columns, axis=1, norm="forward", overwrite_x=True)[:, frequencies(box)]  # negative frequencies index from the end
        result[part] = fft.irfftn(fft.ifft(transform, axis=1, norm="forward", overwrite_x=True), (box,), axes=(2,), norm="forward")
    return result
