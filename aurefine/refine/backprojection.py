"""What back-projection leaves: Friedel mates and the point group applied, low resolution joined, the halves compared (ALGORITHM.md 3.4-3.6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numba import njit, prange

from aurefine import fourier, large_arrays
from aurefine.fsc import correlate
from aurefine.kernels import Accumulator
from aurefine.refine import devices, sums_torch

_ON_GRID = 1e-6  # an operator whose elements are this near to integers takes voxels to voxels


@dataclass(eq=False)
class BackProjection:
    """One half's symmetrised sums: data complex64 and weight float32, both [2h+1, 2h+1, h+1], for maps of `box` padded by `padding`."""

    data: torch.Tensor
    weight: torch.Tensor
    r_max: int
    padding: float
    box: int

    @property
    def h(self) -> int:
        """Index of the centre along z and y."""
        return self.data.shape[2] - 1

    @property
    def radius(self) -> int:
        """Radius of the sphere in use, padded voxels."""
        return int(self.r_max * self.padding + 0.5)

    @property
    def values(self) -> np.ndarray:
        """The data as float32 [2h+1, 2h+1, h+1, 2], the same memory."""
        return torch.view_as_real(self.data).numpy()


def collect(accumulator: Accumulator, operators: np.ndarray, box: int, folder: str = "") -> BackProjection:
    """Combine an accumulator (emptied by this), add Friedel mates on the x = 0 plane and apply the point group (ALGORITHM.md 3.4).

    The result is in memory, or in a nameless file in `folder`.
    """
    radius = int(accumulator.r_max * accumulator.padding + 0.5)
    if not devices.compiled(accumulator.data.device):
        found = sums_torch.collect(accumulator, operators, radius)
        return BackProjection(*found, accumulator.r_max, accumulator.padding, box)
    sums = accumulator.combined().contiguous()
    accumulator.data = torch.empty(0)  # not a view: its memory is not needed beside what follows
    plane = sums[:, :, 0, :]
    mate = plane.flip(0, 1) * torch.tensor([1.0, -1.0, 1.0, 1.0])
    mate[plane.shape[0] // 2, plane.shape[1] // 2] = 0  # the origin is its own mate and stays as it is
    plane += mate
    h = sums.shape[2] - 1
    others, source = np.ascontiguousarray(operators[1:], np.float32), sums.numpy().reshape(-1)
    on_grid = np.abs(others - np.round(others)).max(initial=0) < _ON_GRID
    data, weight = (large_arrays.zeros_on(folder, (2 * h + 1, 2 * h + 1, h + 1, *last)) for last in ((2,), ()))
    if on_grid:
        _permuted(source, h, radius, np.round(others).astype(np.int64), data, weight)
    else:
        _symmetrised(source, h, radius, others, data, weight)
    return BackProjection(torch.view_as_complex(torch.from_numpy(data)), torch.from_numpy(weight), accumulator.r_max, accumulator.padding, box)


@njit(nogil=True, parallel=True, cache=True)
def _permuted(source, h, radius, operators, data, total):
    """out(k) = in(k) + sum over operators of in(R k) for operators that take voxels to voxels, within the sphere.

    Args: source float32, 4 values (re, im, weight, -) a voxel; operators int64 [n, 3, 3]; data float32 [2h+1, 2h+1, h+1, 2] and
        total float32 [2h+1, 2h+1, h+1], zero outside the sphere, are filled inside it.
    """
    size, width = 2 * h + 1, h + 1
    stride_y, stride_z = 4 * width, 4 * width * size
    for iz in prange(size):
        for iy in range(size):
            y, z = iy - h, iz - h
            for x in range(width):
                if x * x + y * y + z * z > radius * radius:
                    break
                start = iz * stride_z + iy * stride_y + x * 4
                re, im, weight = source[start], source[start + 1], source[start + 2]
                for o in range(len(operators)):
                    r = operators[o]
                    px = r[0, 0] * x + r[0, 1] * y + r[0, 2] * z
                    sign = 1 if px >= 0 else -1
                    py = (r[1, 0] * x + r[1, 1] * y + r[1, 2] * z) * sign
                    pz = (r[2, 0] * x + r[2, 1] * y + r[2, 2] * z) * sign
                    i = (pz + h) * stride_z + (py + h) * stride_y + px * sign * 4
                    re += source[i]
                    im += sign * source[i + 1]
                    weight += source[i + 2]
                data[iz, iy, x, 0], data[iz, iy, x, 1], total[iz, iy, x] = re, im, weight


@njit(nogil=True, parallel=True, fastmath=True, cache=True)
def _symmetrised(source, h, radius, operators, data, total):
    """The same for any operators float32 [n, 3, 3]: what lies between voxels is interpolated."""
    size, width = 2 * h + 1, h + 1
    stride_y, stride_z = 4 * width, 4 * width * size
    for iz in prange(size):
        for iy in range(size):
            for ix in range(width):
                x, y, z = np.float32(ix), np.float32(iy - h), np.float32(iz - h)
                if x * x + y * y + z * z > radius * radius:
                    break
                start = iz * stride_z + iy * stride_y + ix * 4
                re, im, weight = source[start], source[start + 1], source[start + 2]
                for o in range(len(operators)):
                    r = operators[o]
                    px = r[0, 0] * x + r[0, 1] * y + r[0, 2] * z
                    py = r[1, 0] * x + r[1, 1] * y + r[1, 2] * z
                    pz = r[2, 0] * x + r[2, 1] * y + r[2, 2] * z
                    sign = np.float32(1.0) if px >= 0 else np.float32(-1.0)
                    px, py, pz = px * sign, py * sign, pz * sign
                    lx, ly, lz = np.floor(px), np.floor(py), np.floor(pz)
                    fx, fy, fz = px - lx, py - ly, pz - lz
                    low = (int(lz) + h) * stride_z + (int(ly) + h) * stride_y + int(lx) * 4
                    for corner in range(4):
                        w = (fy if corner & 1 else 1 - fy) * (fz if corner & 2 else 1 - fz)
                        i = low + (stride_y if corner & 1 else 0) + (stride_z if corner & 2 else 0)
                        left, right = w * (1 - fx), w * fx
                        re += left * source[i] + right * source[i + 4]
                        im += sign * (left * source[i + 1] + right * source[i + 5])
                        weight += left * source[i + 2] + right * source[i + 6]
                data[iz, iy, ix, 0], data[iz, iy, ix, 1], total[iz, iy, ix] = re, im, weight


@dataclass(frozen=True, eq=False)
class Centre:
    """The sums near the origin, on the host: data float32 [2r+1, 2r+1, r+1, 2] and weight float32 [2r+1, 2r+1, r+1]."""

    data: np.ndarray
    weight: np.ndarray


def _central(half: BackProjection, shell: int) -> tuple[slice, slice, slice]:
    h, r = half.h, min(half.h, int(half.padding * shell + 0.5))
    return slice(h - r, h + r + 1), slice(h - r, h + r + 1), slice(0, r + 1)


def low_resolution(half: BackProjection, shell: int) -> Centre:
    """A half's sums within `shell` unpadded shells, and some around them."""
    where = _central(half, shell)
    return Centre(torch.view_as_real(half.data)[where].numpy(force=True).copy(), half.weight[where].numpy(force=True).copy())


def mean(first: Centre, second: Centre) -> Centre:
    """What both halves share at low resolution (ALGORITHM.md 3.5)."""
    return Centre((first.data + second.data) / 2, (first.weight + second.weight) / 2)


def join_low_resolution(half: BackProjection, shared: Centre, shell: int) -> None:
    """Replace, in place, a half's sums within `shell` unpadded shells by the mean of both halves' (ALGORITHM.md 3.5)."""
    where, r = _central(half, shell), shared.weight.shape[2] - 1
    axis = np.arange(-r, r + 1)
    squared = axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, r:] ** 2
    inside = squared <= int(half.padding * shell + 0.5) ** 2
    replaced = torch.from_numpy(inside).to(half.data.device)
    for sums, mean_sums in ((torch.view_as_real(half.data), shared.data), (half.weight, shared.weight)):
        sums[where][replaced] = torch.from_numpy(mean_sums[inside]).to(half.data.device)


def downsampled(half: BackProjection) -> np.ndarray | torch.Tensor:
    """Unpadded voxel averages sum(data) / sum(weight) over the padded voxels that round to each: complex64 [2q+1, 2q+1, q+1], q = r_max + 1.

    A tensor where the sums are on a GPU.
    """
    if not devices.compiled(half.data.device):
        return sums_torch.downsampled(half)
    q = half.r_max + 1
    axis = np.arange(-half.h, half.h + 1)
    nearest = np.clip(fourier.round_half_away(axis / half.padding) + q, 0, 2 * q).astype(np.int64)
    first = np.searchsorted(nearest, np.arange(2 * q + 2))
    return _averages(half.values, half.weight.numpy(), half.radius, nearest, first)


@njit(nogil=True, parallel=True, cache=True)
def _averages(data, weight, radius, nearest, first):
    """first[n] is the first padded index that rounds to n; each output plane belongs to one thread."""
    size, width = weight.shape[0], weight.shape[2]
    h, q = width - 1, (len(first) - 2) // 2
    out = np.zeros((2 * q + 1, 2 * q + 1, q + 1), np.complex64)
    for plane in prange(2 * q + 1):
        sums, total = np.zeros((2 * q + 1, q + 1), np.complex64), np.zeros((2 * q + 1, q + 1), np.float32)
        for iz in range(first[plane], first[plane + 1]):
            for iy in range(size):
                for ix in range(width):
                    if (iz - h) ** 2 + (iy - h) ** 2 + ix * ix > radius * radius:
                        break
                    x = nearest[h + ix] - q
                    sums[nearest[iy], x] += np.complex64(complex(data[iz, iy, ix, 0], data[iz, iy, ix, 1]))
                    total[nearest[iy], x] += weight[iz, iy, ix]
        for y in range(2 * q + 1):
            for x in range(q + 1):
                if total[y, x] > 0:
                    out[plane, y, x] = sums[y, x] / total[y, x]
    return out


def gold_standard_fsc(one: np.ndarray | torch.Tensor, other: np.ndarray | torch.Tensor, r_max: int, box: int) -> np.ndarray:
    """FSC of two halves' voxel averages (`downsampled`), float64 [box/2+1]; 1 at shell 0, 0 beyond r_max (ALGORITHM.md 3.6)."""
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return sums_torch.gold_standard_fsc(torch.as_tensor(one), torch.as_tensor(other), r_max, box)
    q = one.shape[2] - 1
    axis = np.arange(-q, q + 1, dtype=np.float32) ** 2
    shell = (np.sqrt(axis[:, None, None] + axis[None, :, None] + axis[None, None, q:]) + np.float32(0.5)).astype(np.int32)
    shell[shell > r_max] = box
    out = np.zeros(box // 2 + 1)
    n = min(r_max + 1, len(out))
    out[:n] = correlate(one, other, shell, n)
    out[0] = 1.0
    return out
