"""From sums to a map: the prior that the FSC gives, and the Wiener filter (ALGORITHM.md 3.8, 3.9)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit, prange

from aurefine.fsc import Map
from aurefine.refine import devices, radial, sums_torch
from aurefine.refine.backprojection import BackProjection
from aurefine.refine.gridding import density_compensation
from aurefine.refine.transforms import inverse, padded_size


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
    count, total, _ = _sums(half, np.zeros(shells))
    sigma2 = np.divide(count, total * half.padding**3, out=np.zeros(shells), where=total > 0)
    f = np.maximum(fsc, 0.001)
    if joined:
        f = np.sqrt(2 * f / (1 + f))
    f = np.minimum(f, 0.999)
    ssnr = tau2_fudge * f / (1 - f)
    tau2 = ssnr * sigma2
    least = np.divide(1.0, tau2_fudge * tau2 * half.padding**3, out=np.full(shells, np.inf), where=tau2 > 0)
    _, _, covered = _sums(half, least)
    return Prior(tau2, ssnr, sigma2, covered / np.maximum(count, 1))


def _sums(half: BackProjection, least: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`_shell_sums` of a half's weights as they are, by rounded shells, wherever they are."""
    if not devices.compiled(half.weight.device):
        count, total, covered = sums_torch.shell_sums(half.weight, least, half.radius, half.padding, 0.5)
        return count, total, covered
    shells = len(least)
    nothing = np.zeros(shells, np.float32), np.zeros(shells, bool), shells  # to be added, from a shell on that does not exist
    return _shell_sums(half.weight.numpy(), *nothing, least, half.radius, half.padding, 0.5)


@njit(nogil=True)
def _regularised(weight, square, radius, padding, added, hopeless, minimum_shell):
    """A voxel's weight plus `added` of its shell (a thousandfold of 1/weight where the shell's tau2 is hopeless)."""
    shell = min(int(math.sqrt(square) / padding + 0.5), len(added) - 1)
    if shell >= minimum_shell and square < radius * radius:
        if not hopeless[shell]:
            return weight + added[shell]
        if weight > 1e-20:
            return weight + 1 / (0.001 * weight)
    return weight


@njit(nogil=True, parallel=True, cache=True)
def _shell_sums(weight, added, hopeless, minimum_shell, least, radius, padding, rounding):
    """Of each unpadded shell floor(|k| / padding + rounding) within the sphere: voxels, the sum of their `_regularised` weights, and voxels whose own
    weight is `least` or more."""
    size, width, shells = weight.shape[0], weight.shape[2], len(least)
    h = width - 1
    sums = np.zeros((size, 3, shells))
    for iz in prange(size):
        for iy in range(size):
            across = (iz - h) ** 2 + (iy - h) ** 2
            for ix in range(width):
                square = across + ix * ix
                if square >= radius * radius:
                    break
                shell = int(math.sqrt(square) / padding + rounding)
                if shell < shells:
                    sums[iz, 0, shell] += 1
                    sums[iz, 1, shell] += _regularised(weight[iz, iy, ix], square, radius, padding, added, hopeless, minimum_shell)
                    sums[iz, 2, shell] += weight[iz, iy, ix] >= least[shell]
    whole = sums.sum(0)
    return whole[0], whole[1], whole[2]


@njit(nogil=True, parallel=True, cache=True)
def _all_regularised(weight, added, hopeless, radius, padding, minimum_shell):
    """`_regularised` of all voxels within the sphere, 0 outside."""
    out = np.zeros_like(weight)
    h = weight.shape[2] - 1
    for iz in prange(2 * h + 1):
        for iy in range(2 * h + 1):
            across = (iz - h) ** 2 + (iy - h) ** 2
            for ix in range(h + 1):
                if across + ix * ix > radius * radius:
                    break
                out[iz, iy, ix] = _regularised(weight[iz, iy, ix], across + ix * ix, radius, padding, added, hopeless, minimum_shell)
    return out


@njit(nogil=True, parallel=True, cache=True)
def _divided(data, weight, added, hopeless, floor, radius, padding, minimum_shell, start, out):
    """out[y, z, x]: the planes y = start .. of data float32 [z, y, x, 2] over their regularised weights, but over at least the shell's `floor`.

    0 where that is none, and outside the sphere: `out` is zero before. Made plane by plane: nothing of the size of the sums is held beside them.
    """
    h = weight.shape[2] - 1
    for iz in prange(weight.shape[0]):
        for a in range(out.shape[0]):
            iy = start + a
            across = (iz - h) ** 2 + (iy - h) ** 2
            for ix in range(out.shape[2]):
                square = across + ix * ix
                if square > radius * radius:
                    break
                w = _regularised(weight[iz, iy, ix], square, radius, padding, added, hopeless, minimum_shell)
                w = max(w, floor[min(int(math.sqrt(square) / padding + 1e-5), len(floor) - 1)])
                if w > 0:
                    out[a, iz, ix] = complex(data[iz, iy, ix, 0] / w, data[iz, iy, ix, 1] / w)


def reconstruct(half: BackProjection, prior: Prior | None, tau2_fudge: float, minimum_shell: int, gridding: int = 0) -> Map:
    """float32 map [box^3]: Wiener-filtered with the prior, or unregularised without one, with `gridding` iterations (ALGORITHM.md 3.9).

    A tensor where the sums are on a GPU.
    """
    shells, radius, padding = half.box // 2 + 1, half.radius, half.padding
    added, hopeless = np.zeros(shells, np.float32), np.zeros(shells, bool)
    if prior is not None:
        strength = prior.tau2 * tau2_fudge * padding**3
        hopeless = prior.tau2 < 1e-20
        added = np.divide(1.0, strength, out=np.zeros(shells), where=~hopeless).astype(np.float32)
    if not devices.compiled(half.data.device):
        weights = sums_torch.regularised(half.weight, added, hopeless, radius, padding, minimum_shell)
        if gridding > 0:
            data = half.data * density_compensation(weights, radius, padded_size(half.box, padding), gridding)
        else:
            count, total, _ = sums_torch.shell_sums(weights, np.zeros(shells), radius, padding, 1e-5)
            data = sums_torch.divided(half.data, weights, _floor(count, total), radius, padding)
        return sums_torch.finished(data, half.box, padding)
    weight, rule = half.weight.numpy(), (added, hopeless)
    if gridding > 0:
        regularised = torch.from_numpy(_all_regularised(weight, *rule, radius, padding, minimum_shell))
        even = (half.data * density_compensation(regularised, radius, padded_size(half.box, padding), gridding)).numpy()
        del regularised
        volume: np.ndarray = inverse(lambda first, last, columns: even[:, first:last, :columns].transpose(1, 0, 2), half.h, half.box, padding)
    else:
        count, total, _ = _shell_sums(weight, *rule, minimum_shell, np.zeros(shells), radius, padding, 1e-5)
        floor = _floor(count, total)

        def planes(first: int, last: int, columns: int) -> np.ndarray:
            out = np.zeros((last - first, len(weight), columns), np.complex64)
            _divided(half.values, weight, *rule, floor, radius, padding, minimum_shell, first, out)
            return out

        volume = inverse(planes, half.h, half.box, padding)
    radial.finish(volume, radial.gridding_correction(half.box, padded_size(half.box, padding)))
    return volume


def _floor(count: np.ndarray, total: np.ndarray) -> np.ndarray:
    """A thousandth of the mean weight of each shell: voxels with less than that cannot be trusted to divide by."""
    used = np.flatnonzero(count)
    mean = total[: used[-1] + 1] / np.maximum(count[: used[-1] + 1], 1)
    return (mean / 1000).astype(np.float32)
