"""From map to projector and back: padding, gridding correction, symmetry, Wiener filter (ALGORITHM.md 3.1, 3.4-3.9).

Only the sphere in use is ever held: transforms are pruned, one axis at a time, so that a padded cube is never built whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numba import njit, prange

from aurefine import fourier, mask
from aurefine.fsc import correlate
from aurefine.kernels import Accumulator, Volume
from aurefine.refine.gridding import density_compensation


def padded_size(box: int, padding: float) -> int:
    """Even size of the padded box."""
    size = int(padding * box + 0.5)
    return size + size % 2


def _gridding_correction(box: int, padded: int) -> np.ndarray:
    """float32 [box, box, box]: sinc^2 of the radius, the transform of trilinear interpolation."""
    return np.sinc(mask.radius_grid(box, 3) / padded).astype(np.float32) ** 2


def _axis_phase(frequency: np.ndarray, box: int, padded: int) -> torch.Tensor:
    """complex64: moves the origin of a transform from index 0 to the centre box/2 of the unpadded map."""
    return torch.from_numpy(np.exp(2j * np.pi * frequency * (box // 2) / padded).astype(np.complex64))


def projector(volume: np.ndarray, r_max: int, padding: float, left_out: int = 0) -> Volume:
    """Padded transform of a map [box^3] up to r_max shells, scaled so that a slice equals a projection's transform (ALGORITHM.md 3.1).

    Everything up to shell `left_out` is zero if that is positive (--strict_lowres_exp).
    """
    box = volume.shape[0]
    padded = padded_size(box, padding)
    padding = padded / box
    h = int(padding * r_max + 0.5) + 1
    data = torch.from_numpy(np.ascontiguousarray(volume / _gridding_correction(box, padded), np.float32))
    columns, rows = np.arange(min(h, padded // 2) + 1), np.arange(-min(h, padded // 2 - 1), min(h, padded // 2) + 1)
    data = torch.fft.rfft(data, n=padded, dim=2)[:, :, : len(columns)] * _axis_phase(columns, box, padded)
    for dim in (1, 0):
        data = torch.fft.fft(data, n=padded, dim=dim).index_select(dim, torch.from_numpy(rows % padded))
        shape = [1, 1, 1]
        shape[dim] = len(rows)
        data *= _axis_phase(rows, box, padded).view(shape)
    out = torch.zeros((2 * h + 1, 2 * h + 1, h + 1), dtype=torch.complex64)
    first = h + rows[0]
    out[first : first + len(rows), first : first + len(rows), : len(columns)] = data * (padding**3 * box / padded**3)
    out[~torch.from_numpy(_sphere(h, int(padding * r_max + 0.5)))] = 0
    if left_out > 0:
        out[torch.from_numpy(_sphere(h, int(padding * left_out + 0.5)))] = 0
    return Volume(out, r_max, padding)


def inverse(data: torch.Tensor, box: int, padding: float) -> np.ndarray:
    """float32 map [box^3] of a centred half transform complex64 [2h+1, 2h+1, h+1]; undoes the scaling of `projector`."""
    padded, h = padded_size(box, padding), data.shape[2] - 1
    rows = np.arange(-h, h + 1)
    keep = np.flatnonzero(np.abs(rows) <= padded // 2)
    for dim in (0, 1):
        shape, view = list(data.shape), [1, 1, 1]
        shape[dim], view[dim] = padded, -1
        full = torch.zeros(shape, dtype=torch.complex64)
        part = data.index_select(dim, torch.from_numpy(keep)).mul_(_axis_phase(-rows[keep], box, padded).view(view))
        full.index_add_(dim, torch.from_numpy(rows[keep] % padded), part)
        data = torch.fft.ifft(full, dim=dim, norm="forward").narrow(dim, 0, box)
        del full, part
    columns = min(h, padded // 2) + 1
    data = data[:, :, :columns] * _axis_phase(-np.arange(columns), box, padded)
    real = torch.fft.irfft(data, n=padded, dim=2, norm="forward").narrow(2, 0, box)
    return (real / (padding**3 * box)).numpy()


@lru_cache(maxsize=2)
def _square_radius(h: int) -> np.ndarray:
    """int32 [2h+1, 2h+1, h+1]: squared distance of each voxel from the centre."""
    axis = np.arange(-h, h + 1, dtype=np.int32) ** 2
    return axis[:, None, None] + axis[None, :, None] + (np.arange(h + 1, dtype=np.int32) ** 2)[None, None, :]


def _sphere(h: int, radius: int) -> np.ndarray:
    return _square_radius(h) <= radius * radius


@lru_cache(maxsize=2)
def _shells(h: int, padding: float) -> np.ndarray:
    """int32 shell of each voxel in unpadded units, |k| / padding rounded."""
    return (np.sqrt(_square_radius(h).astype(np.float32)) / np.float32(padding) + 0.5).astype(np.int32)


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


def collect(accumulator: Accumulator, operators: np.ndarray, box: int) -> BackProjection:
    """Combine an accumulator (emptied by this), add Friedel mates on the x = 0 plane and apply the point group (ALGORITHM.md 3.4)."""
    sums = accumulator.combined().contiguous()
    accumulator.data = sums[:0]  # its memory is not needed beside what follows
    plane = sums[:, :, 0, :]
    mate = plane.flip(0, 1) * torch.tensor([1.0, -1.0, 1.0, 1.0])
    mate[plane.shape[0] // 2, plane.shape[1] // 2] = 0  # the origin is its own mate and stays as it is
    plane += mate
    h = sums.shape[2] - 1
    radius = int(accumulator.r_max * accumulator.padding + 0.5)
    data, weight = _symmetrise(sums.numpy().reshape(-1), h, radius, np.ascontiguousarray(operators[1:], np.float32))
    return BackProjection(torch.view_as_complex(torch.from_numpy(data)), torch.from_numpy(weight), accumulator.r_max, accumulator.padding, box)


@njit(parallel=True, fastmath=True, cache=True)
def _symmetrise(source, h, radius, operators):
    """out(k) = in(k) + sum over operators of in(R k), trilinear, within the sphere; source has 4 floats (re, im, weight, -) a voxel.

    Returns (data float32 [2h+1, 2h+1, h+1, 2], weight float32 [2h+1, 2h+1, h+1]).
    """
    size, width = 2 * h + 1, h + 1
    data, total = np.zeros((size, size, width, 2), np.float32), np.zeros((size, size, width), np.float32)
    stride_y, stride_z = 4 * width, 4 * width * size
    for iz in prange(size):
        for iy in range(size):
            for ix in range(width):
                x, y, z = np.float32(ix), np.float32(iy - h), np.float32(iz - h)
                if x * x + y * y + z * z > radius * radius:
                    continue
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
    return data, total


def join_low_resolution(first: BackProjection, second: BackProjection, shell: int) -> None:
    """Replace, in place, both halves' sums within `shell` unpadded shells by their mean (ALGORITHM.md 3.5)."""
    inside = torch.from_numpy(_sphere(first.h, int(first.padding * shell + 0.5)))
    for name in ("data", "weight"):
        one, other = getattr(first, name), getattr(second, name)
        mean = 0.5 * (one[inside] + other[inside])
        one[inside] = mean
        other[inside] = mean


def _downsampled(half: BackProjection) -> tuple[np.ndarray, int]:
    """Unpadded voxel averages sum(data) / sum(weight) over the padded voxels that round to each, complex64 [2q+1, 2q+1, q+1], and q."""
    q = half.r_max + 1
    axis = np.arange(-half.h, half.h + 1)
    to = np.clip(fourier.round_half_away(axis / half.padding) + q, 0, 2 * q)
    to_x = np.clip(fourier.round_half_away(np.arange(half.h + 1) / half.padding), 0, q)
    inside = torch.from_numpy(_sphere(half.h, half.radius))

    def fold(values: torch.Tensor) -> torch.Tensor:
        values = values * inside
        for dim, index, size in ((0, to, 2 * q + 1), (1, to, 2 * q + 1), (2, to_x, q + 1)):
            shape = list(values.shape)
            shape[dim] = size
            values = torch.zeros(shape, dtype=values.dtype).index_add_(dim, torch.from_numpy(index), values)
        return values

    data, weight = fold(half.data), fold(half.weight)
    return torch.where(weight > 0, data / weight.clamp(min=1e-30), torch.zeros_like(data)).numpy(), q


def gold_standard_fsc(first: BackProjection, second: BackProjection) -> np.ndarray:
    """FSC of two halves' voxel averages, float64 [box/2+1]; 1 at shell 0, 0 beyond r_max (ALGORITHM.md 3.6)."""
    (one, q), (other, _) = _downsampled(first), _downsampled(second)
    shell = _shells(q, 1.0)
    shell = np.where((shell <= first.r_max), shell, first.box)
    out = np.zeros(first.box // 2 + 1)
    n = min(first.r_max + 1, len(out))
    out[:n] = correlate(one, other, shell, n)
    out[0] = 1.0
    return out


@dataclass(frozen=True, eq=False)
class Prior:
    """Spectral results of a half: all float64 [box/2+1] (ALGORITHM.md 3.8)."""

    tau2: np.ndarray
    data_vs_prior: np.ndarray
    sigma2: np.ndarray
    coverage: np.ndarray


def prior_from_fsc(half: BackProjection, fsc: np.ndarray, tau2_fudge: float, joined: bool) -> Prior:
    """tau2 from the FSC: SSNR = f / (1 - f), tau2 = SSNR * sigma2 (ALGORITHM.md 3.8); `joined` when the sums hold both halves."""
    shells = half.box // 2 + 1
    count, total = _shell_sums(half.weight.numpy(), half.radius, half.padding, 0.5, shells)
    sigma2 = np.divide(count, total * half.padding**3, out=np.zeros(shells), where=total > 0)
    f = np.maximum(fsc, 0.001)
    if joined:
        f = np.sqrt(2 * f / (1 + f))
    f = np.minimum(f, 0.999)
    ssnr = tau2_fudge * f / (1 - f)
    tau2 = ssnr * sigma2
    least = np.divide(1.0, tau2_fudge * tau2 * half.padding**3, out=np.full(shells, np.inf), where=tau2 > 0)
    covered = _shells_covered(half.weight.numpy(), least, half.radius, half.padding)
    return Prior(tau2, ssnr, sigma2, covered / np.maximum(count, 1))


@njit(cache=True)
def _shell_sums(weight, radius, padding, rounding, shells):
    """(number of voxels, sum of weights) of each unpadded shell floor(|k| / padding + rounding), within the sphere."""
    count, total = np.zeros(shells), np.zeros(shells)
    h = weight.shape[2] - 1
    for iz in range(2 * h + 1):
        for iy in range(2 * h + 1):
            across = (iz - h) ** 2 + (iy - h) ** 2
            for ix in range(h + 1):
                if across + ix * ix >= radius * radius:
                    break
                shell = int(math.sqrt(across + ix * ix) / padding + rounding)
                if shell < shells:
                    count[shell] += 1
                    total[shell] += weight[iz, iy, ix]
    return count, total


@njit(cache=True)
def _shells_covered(weight, least, radius, padding):
    """Number of voxels of each shell whose weight reaches `least` of the shell."""
    covered = np.zeros(len(least))
    h = weight.shape[2] - 1
    for iz in range(2 * h + 1):
        for iy in range(2 * h + 1):
            across = (iz - h) ** 2 + (iy - h) ** 2
            for ix in range(h + 1):
                if across + ix * ix >= radius * radius:
                    break
                shell = int(math.sqrt(across + ix * ix) / padding + 0.5)
                if shell < len(least) and weight[iz, iy, ix] >= least[shell]:
                    covered[shell] += 1
    return covered


@njit(parallel=True, cache=True)
def _regularised(weight, added, hopeless, floor, radius, padding, minimum_shell):
    """Weights to divide by: plus `added` of the voxel's shell (a thousandfold of 1/weight where its tau2 is hopeless), at least `floor`."""
    out = np.zeros_like(weight)
    h = weight.shape[2] - 1
    for iz in prange(2 * h + 1):
        for iy in range(2 * h + 1):
            across = (iz - h) ** 2 + (iy - h) ** 2
            for ix in range(h + 1):
                square = across + ix * ix
                if square > radius * radius:
                    break
                distance = math.sqrt(square) / padding
                shell, w = min(int(distance + 0.5), len(added) - 1), weight[iz, iy, ix]
                if shell >= minimum_shell and square < radius * radius:
                    if not hopeless[shell]:
                        w += added[shell]
                    elif w > 1e-20:
                        w += 1 / (0.001 * w)
                out[iz, iy, ix] = max(w, floor[min(int(distance + 1e-5), len(floor) - 1)])
    return out


def reconstruct(half: BackProjection, prior: Prior | None, tau2_fudge: float, minimum_shell: int, gridding: int = 0) -> np.ndarray:
    """float32 map [box^3]: Wiener-filtered with the prior, or unregularised without one, with `gridding` iterations (ALGORITHM.md 3.9)."""
    shells, radius, padding = half.box // 2 + 1, half.radius, half.padding
    added, hopeless = np.zeros(shells, np.float32), np.zeros(shells, bool)
    if prior is not None:
        strength = prior.tau2 * tau2_fudge * padding**3
        hopeless = prior.tau2 < 1e-20
        added = np.divide(1.0, strength, out=np.zeros(shells), where=~hopeless).astype(np.float32)
    raw = half.weight.numpy()
    regularised = _regularised(raw, added, hopeless, np.zeros(shells, np.float32), radius, padding, minimum_shell)
    if gridding > 0:
        data = half.data * density_compensation(torch.from_numpy(regularised), radius, padded_size(half.box, padding), gridding)
    else:
        floor = _radial_floor(regularised, half)
        weight = torch.from_numpy(_regularised(raw, added, hopeless, floor, radius, padding, minimum_shell))
        data = torch.where(weight > 0, half.data / weight.clamp(min=1e-30), torch.zeros(()))
    volume = inverse(data, half.box, half.padding)
    volume = mask.fill_outside(volume, mask.soft_edge(half.box, 3, half.box / 2, 3))
    return volume / _gridding_correction(half.box, padded_size(half.box, half.padding))


def _radial_floor(weight: np.ndarray, half: BackProjection) -> np.ndarray:
    """A thousandth of the mean weight of each shell: voxels with less than that cannot be trusted to divide by."""
    count, total = _shell_sums(weight, half.radius, half.padding, 1e-5, half.box // 2 + 1)
    used = np.flatnonzero(count)
    mean = total[: used[-1] + 1] / np.maximum(count[: used[-1] + 1], 1)
    return (mean / 1000).astype(np.float32)
