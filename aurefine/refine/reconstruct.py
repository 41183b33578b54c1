"""From sums to a map: the prior that the FSC gives, and the Wiener filter (ALGORITHM.md 3.8, 3.9)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit, prange

from aurefine import mask
from aurefine.fsc import Map
from aurefine.refine import devices, sums_torch
from aurefine.refine.backprojection import BackProjection
from aurefine.refine.gridding import density_compensation
from aurefine.refine.transforms import gridding_correction, inverse, padded_size


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
    count, total, _ = _sums(half, half.weight, np.zeros(shells), 0.5)
    sigma2 = np.divide(count, total * half.padding**3, out=np.zeros(shells), where=total > 0)
    f = np.maximum(fsc, 0.001)
    if joined:
        f = np.sqrt(2 * f / (1 + f))
    f = np.minimum(f, 0.999)
    ssnr = tau2_fudge * f / (1 - f)
    tau2 = ssnr * sigma2
    least = np.divide(1.0, tau2_fudge * tau2 * half.padding**3, out=np.full(shells, np.inf), where=tau2 > 0)
    _, _, covered = _sums(half, half.weight, least, 0.5)
    return Prior(tau2, ssnr, sigma2, covered / np.maximum(count, 1))


def _sums(half: BackProjection, weight: torch.Tensor, least: np.ndarray, rounding: float):
    """`_shell_sums` of weights in the sphere of a half, wherever they are."""
    if devices.compiled(weight.device):
        return _shell_sums(weight.numpy(), least, half.radius, half.padding, rounding)
    return sums_torch.shell_sums(weight, least, half.radius, half.padding, rounding)


@njit(nogil=True, parallel=True, cache=True)
def _shell_sums(weight, least, radius, padding, rounding):
    """Of each unpadded shell floor(|k| / padding + rounding) within the sphere: voxels, sum of weights, and voxels that weigh `least` or more."""
    size, width, shells = weight.shape[0], weight.shape[2], len(least)
    h = width - 1
    sums = np.zeros((size, 3, shells))
    for iz in prange(size):
        for iy in range(size):
            across = (iz - h) ** 2 + (iy - h) ** 2
            for ix in range(width):
                if across + ix * ix >= radius * radius:
                    break
                shell = int(math.sqrt(across + ix * ix) / padding + rounding)
                if shell < shells:
                    sums[iz, 0, shell] += 1
                    sums[iz, 1, shell] += weight[iz, iy, ix]
                    sums[iz, 2, shell] += weight[iz, iy, ix] >= least[shell]
    whole = sums.sum(0)
    return whole[0], whole[1], whole[2]


@njit(nogil=True, parallel=True, cache=True)
def _regularised(weight, added, hopeless, radius, padding, minimum_shell):
    """Weights plus `added` of the voxel's shell (a thousandfold of 1/weight where its tau2 is hopeless); 0 outside the sphere."""
    out = np.zeros_like(weight)
    h = weight.shape[2] - 1
    for iz in prange(2 * h + 1):
        for iy in range(2 * h + 1):
            across = (iz - h) ** 2 + (iy - h) ** 2
            for ix in range(h + 1):
                square = across + ix * ix
                if square > radius * radius:
                    break
                shell, w = min(int(math.sqrt(square) / padding + 0.5), len(added) - 1), weight[iz, iy, ix]
                if shell >= minimum_shell and square < radius * radius:
                    if not hopeless[shell]:
                        w += added[shell]
                    elif w > 1e-20:
                        w += 1 / (0.001 * w)
                out[iz, iy, ix] = w
    return out


@njit(nogil=True, parallel=True, cache=True)
def _divided(data, weight, floor, radius, padding):
    """data float32 [.., 2] over weights of at least the shell's `floor`; 0 where that is none, and outside the sphere."""
    out = np.zeros_like(data)
    h = weight.shape[2] - 1
    for iz in prange(2 * h + 1):
        for iy in range(2 * h + 1):
            across = (iz - h) ** 2 + (iy - h) ** 2
            for ix in range(h + 1):
                if across + ix * ix > radius * radius:
                    break
                w = max(weight[iz, iy, ix], floor[min(int(math.sqrt(across + ix * ix) / padding + 1e-5), len(floor) - 1)])
                if w > 0:
                    out[iz, iy, ix, 0] = data[iz, iy, ix, 0] / w
                    out[iz, iy, ix, 1] = data[iz, iy, ix, 1] / w
    return out


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
            data = sums_torch.divided(half.data, weights, _radial_floor(weights, half), radius, padding)
        return sums_torch.finished(data, half.box, padding)
    weight = torch.from_numpy(_regularised(half.weight.numpy(), added, hopeless, radius, padding, minimum_shell))
    if gridding > 0:
        data = half.data * density_compensation(weight, radius, padded_size(half.box, padding), gridding)
    else:
        floor = _radial_floor(weight, half)
        data = torch.view_as_complex(torch.from_numpy(_divided(half.values, weight.numpy(), floor, radius, padding)))
    volume = inverse(data, half.box, half.padding)
    volume = mask.fill_outside(volume, mask.soft_edge(half.box, 3, half.box / 2, 3))
    volume /= gridding_correction(half.box, padded_size(half.box, half.padding))
    return volume


def _radial_floor(weight: torch.Tensor, half: BackProjection) -> np.ndarray:
    """A thousandth of the mean weight of each shell: voxels with less than that cannot be trusted to divide by."""
    count, total, _ = _sums(half, weight, np.zeros(half.box // 2 + 1), 1e-5)
    used = np.flatnonzero(count)
    mean = total[: used[-1] + 1] / np.maximum(count[: used[-1] + 1], 1)
    return (mean / 1000).astype(np.float32)
