"""Half-complex Fourier layout: flat pixel lists, shells, spectra, low-pass filters.

Conventions (ALGORITHM.md 1.4): forward transforms are divided by the number of real-space pixels; the image centre is pixel n/2, so that a
centred transform carries the sign (-1)^(x+y(+z)); index i of a full axis is frequency i for i <= n/2 and i - n above.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from aurefine import fft
from aurefine.threads import in_parts, threads_told

_SHARP = 1e-6  # shells: an edge without width


def frequencies(n: int) -> np.ndarray:
    """Integer frequencies of a full axis of length n, Nyquist positive: 0 .. n/2, -(n/2 - 1) .. -1."""
    index = np.arange(n)
    return np.where(index <= n // 2, index, index - n)


def round_half_away(x: np.ndarray | float) -> np.ndarray:
    """RELION's ROUND for non-negative and negative numbers (half away from zero), as int64."""
    return (np.sign(x) * np.floor(np.abs(x) + 0.5)).astype(np.int64)


@dataclass(frozen=True, eq=False)
class PixelList:
    """The Fourier pixels of an image group at one image size, flat and row by row.

    Holds every half-complex pixel whose rounded shell is at most size/2, without the redundant half of the x = 0 column
    (ALGORITHM.md 1.4, the "resolution index array").

    Attributes:
        size: image size m in pixels (even); box: full box n; pixel_size: Angstrom per pixel of the full box.
        x, y: int32 [p] integer frequencies in units of 1/(n pixel_size); shell: int32 [p].
        flat: int64 [p] index into a flattened rfft2 output of shape (n, n/2 + 1).
        inside: bool [p], within the circle of radius m/2, where a projection has values.
    """

    size: int
    box: int
    pixel_size: float
    x: np.ndarray
    y: np.ndarray
    shell: np.ndarray
    flat: np.ndarray
    inside: np.ndarray

    def __len__(self) -> int:
        return len(self.x)

    @property
    def sign(self) -> np.ndarray:
        """float32 [p]: (-1)^(x + y), moves the origin of the transform to pixel n/2."""
        return (1 - 2 * ((self.x + self.y) & 1)).astype(np.float32)

    @property
    def frequency_x(self) -> np.ndarray:
        """float64 [p] spatial frequency along x, 1/Angstrom."""
        return self.x / (self.box * self.pixel_size)

    @property
    def frequency_y(self) -> np.ndarray:
        """float64 [p] spatial frequency along y, 1/Angstrom."""
        return self.y / (self.box * self.pixel_size)


@lru_cache(maxsize=64)
def pixel_list(size: int, box: int, pixel_size: float) -> PixelList:
    """The pixels of images of full box `box` used at image size `size` (both even, size <= box)."""
    lowest = size // 2 if size < box else size // 2 - 1  # the full transform holds its Nyquist row once, at +box/2
    x, y = np.meshgrid(np.arange(size // 2 + 1), np.arange(-lowest, size // 2 + 1))
    shell = round_half_away(np.hypot(x, y))
    keep = (shell <= size // 2) & ~((x == 0) & (y < 0))
    x, y, shell = x[keep], y[keep], shell[keep]
    flat = np.where(y >= 0, y, y + box) * (box // 2 + 1) + x
    inside = x * x + y * y <= (size // 2) ** 2
    as_int = lambda a: np.ascontiguousarray(a, np.int32)  # noqa: E731
    return PixelList(size, box, pixel_size, as_int(x), as_int(y), as_int(shell), flat.astype(np.int64), inside)


@lru_cache(maxsize=8)
def shell_index_3d(n: int) -> np.ndarray:
    """int32 [n, n, n/2+1]: rounded shell of each voxel of an rfftn of an n^3 map."""
    result = np.empty((n, n, n // 2 + 1), dtype=np.int32)

    def fill(part: slice) -> None:
        for shells, plane in zip(result[part], radius_squared_planes(n, part), strict=True):
            shells[:] = np.sqrt(plane, dtype=np.float64) + 0.5  # the cast cuts the fraction off

    in_parts(fill, n)
    return result


def radius_squared_planes(n: int, part: slice = slice(None)) -> Iterator[np.ndarray]:
    """int32 [n, n/2+1] for each z of an rfftn of an n^3 map (or of some z): squared integer frequency of each voxel."""
    f = frequencies(n).astype(np.int32) ** 2
    plane = f[:, None] + f[None, : n // 2 + 1]
    for z in f[part]:
        yield plane + z


def radius_squared_3d(n: int) -> np.ndarray:
    """int32 [n, n, n/2+1]: the planes of `radius_squared_planes` as one array."""
    return np.stack(list(radius_squared_planes(n)))


def stretches(count: int, length: int = 1 << 14) -> Iterator[slice]:
    """Slices that cover 0 .. count-1, short enough that their temporaries stay in cache and cost no new pages."""
    return (slice(start, start + length) for start in range(0, count, length))


def shell_mean(values: np.ndarray, shell: np.ndarray, n_shells: int) -> np.ndarray:
    """Mean of `values` over the elements of each shell 0 .. n_shells-1 (0 where a shell is empty); float64."""
    total, count = np.zeros(n_shells + 1), np.zeros(n_shells + 1, dtype=np.int64)
    flat, shells = values.ravel(), shell.ravel()
    for part in stretches(flat.size):
        index = np.minimum(shells[part], n_shells)
        total += np.bincount(index, flat[part], n_shells + 1)
        count += np.bincount(index, minlength=n_shells + 1)
    return (total / np.maximum(count, 1))[:n_shells]


@lru_cache(maxsize=16)
def pixels_per_shell(box: int) -> np.ndarray:
    """float64 [box/2+1]: number of half-complex image pixels in each shell, redundant ones excluded."""
    return np.bincount(pixel_list(box, box, 1.0).shell, minlength=box // 2 + 1)[: box // 2 + 1].astype(np.float64)


def transform_map(volume: np.ndarray) -> np.ndarray:
    """Forward transform of a map [n, n, n], divided by n^3, origin at the corner: complex64 [n, n, n/2+1]."""
    values = np.ascontiguousarray(volume, np.float32)
    torch = sys.modules.get("torch")  # the faster one, but a second to import: jobs that start without it go on without it
    if torch is None:
        return fft.rfftn(values, norm="forward", workers=threads_told())
    return torch.fft.rfftn(torch.from_numpy(values), norm="forward").numpy()


def inverse_map(transform: np.ndarray, n: int) -> np.ndarray:
    """Inverse of `transform_map`: float32 [n, n, n]."""
    torch = sys.modules.get("torch")
    if torch is None:
        return fft.irfftn(transform, (n, n, n), norm="forward", workers=threads_told()).astype(np.float32, copy=False)
    return torch.fft.irfftn(torch.from_numpy(transform), s=(n, n, n), norm="forward").numpy().astype(np.float32, copy=False)


def power_spectrum(volume: np.ndarray) -> np.ndarray:
    """Mean of |F|^2 per shell 0..n/2 of a map [n, n, n], F divided by n^3; float64."""
    n = volume.shape[0]
    return shell_mean(np.abs(transform_map(volume)) ** 2, shell_index_3d(n), n // 2 + 1)


def low_pass(volume: np.ndarray, pixel_size: float, resolution: float, width: int = 2) -> np.ndarray:
    """Low-pass a map with a raised cosine of `width` shells whose half-height lies at `resolution` (Angstrom); ALGORITHM.md 2.2."""
    n = volume.shape[0]
    return inverse_map(transform_map(volume) * low_pass_gain(n, pixel_size, resolution, width)[radius_squared_3d(n)], n)


def low_pass_gain(n: int, pixel_size: float, resolution: float, width: int = 2) -> np.ndarray:
    """float32 [3 (n/2)^2 + 1]: what `low_pass` multiplies voxels by, for each squared integer frequency."""
    radius = np.sqrt(np.arange(3 * (n // 2) ** 2 + 1), dtype=np.float32)
    return falling(radius, *edge(n * pixel_size / resolution, width))


def edge(shell: float, width: int) -> tuple[float, float]:
    """Where a filter's edge of `width` shells about a shell begins and ends: `width // 2` to either side, not below 0; sharp below a width of 2."""
    half = width // 2
    return max(0.0, shell - half), shell + max(half, _SHARP)


def falling(radius: np.ndarray, begin: float, end: float) -> np.ndarray:
    """A raised cosine: 1 up to `begin`, 0 from `end` on."""
    return 0.5 + 0.5 * np.cos(np.pi * np.clip((radius - begin) / (end - begin), 0, 1), dtype=radius.dtype)
