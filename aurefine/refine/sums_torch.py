"""Plain-torch twins of `backprojection` and `reconstruct` for sums on a GPU: volumes stay there, spectra come to the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from aurefine import fourier, mask
from aurefine.kernels import Accumulator
from aurefine.refine import maps_torch, radial, transforms, transforms_torch
from aurefine.refine.transforms_torch import planes, squares

if TYPE_CHECKING:
    from aurefine.refine.backprojection import BackProjection


def collect(accumulator: Accumulator, operators: np.ndarray, radius: int) -> tuple[torch.Tensor, torch.Tensor]:
    """See `backprojection.collect`: (data complex64, weight float32), zero outside the sphere. The accumulator is emptied."""
    sums = accumulator.combined().contiguous()
    accumulator.data = torch.empty(0, device=sums.device)  # not a view, which would keep the memory
    size, width, h = sums.shape[0], sums.shape[2], sums.shape[2] - 1
    plane = sums[:, :, 0, :]
    mate = plane.flip(0, 1) * torch.tensor([1.0, -1.0, 1.0, 1.0], device=sums.device)
    mate[h, h] = 0  # the origin is its own mate and stays as it is
    plane += mate
    data = torch.zeros((size, size, width), dtype=torch.complex64, device=sums.device)
    weight = torch.zeros((size, size, width), device=sums.device)
    flat, others = sums.view(-1, 4), np.asarray(operators[1:], np.float32)
    on_grid = np.abs(others - np.round(others)).max(initial=0) < 1e-6
    axis = torch.arange(-h, h + 1, device=sums.device, dtype=torch.float32)
    for some in planes(size, width):
        inside = squares(h, some, sums.device) <= radius * radius
        z, y, x = (axis[some, None, None] * inside, axis[None, :, None] * inside, axis[None, None, h:] * inside)
        total = sums[some].clone()
        for r in np.round(others).tolist() if on_grid else others.tolist():
            total += _at(flat, [row[0] * x + row[1] * y + row[2] * z for row in r], h, on_grid)
        total *= inside[..., None]
        data[some] = torch.view_as_complex(total[..., :2].contiguous())
        weight[some] = total[..., 2]
    return data, weight


def _at(flat: torch.Tensor, place: list[torch.Tensor], h: int, on_grid: bool) -> torch.Tensor:
    """float32 [..., 4]: the half cube `flat` at points (x, y, z), Friedel mates where x < 0; between voxels interpolated."""
    sign = torch.where(place[0] >= 0, 1.0, -1.0)
    x, y, z = (axis * sign for axis in place)
    width, size = h + 1, 2 * h + 1
    low = [axis.floor() for axis in (x, y, z)]
    index = ((low[2].long() + h) * size + low[1].long() + h) * width + low[0].long()
    if on_grid:
        out = flat[index]
    else:
        out = torch.zeros((*index.shape, 4), device=flat.device)
        fx, fy, fz = x - low[0], y - low[1], z - low[2]
        for dz, wz in ((0, 1 - fz), (1, fz)):
            for dy, wy in ((0, 1 - fy), (1, fy)):
                for dx, wx in ((0, 1 - fx), (1, fx)):
                    out += flat[index + (dz * size + dy) * width + dx] * (wx * wy * wz)[..., None]
    out[..., 1] *= sign
    return out


def downsampled(half: BackProjection) -> torch.Tensor:
    """See `backprojection.downsampled`; on the device."""
    q, device = half.r_max + 1, half.data.device
    axis = np.arange(-half.h, half.h + 1)
    nearest = torch.from_numpy(np.clip(fourier.round_half_away(axis / half.padding) + q, 0, 2 * q).astype(np.int64)).to(device)
    both = torch.cat([torch.view_as_real(half.data), half.weight[..., None]], -1)
    for dimension, (places, size) in enumerate(((nearest, 2 * q + 1), (nearest, 2 * q + 1), (nearest[half.h :] - q, q + 1))):
        shape = list(both.shape)
        shape[dimension] = size
        both = torch.zeros(shape, device=device).index_add_(dimension, places, both)
    weight = both[..., 2:]
    return torch.view_as_complex(torch.where(weight > 0, both[..., :2] / weight, 0.0).contiguous())


def gold_standard_fsc(one: torch.Tensor, other: torch.Tensor, r_max: int, box: int) -> np.ndarray:
    """See `backprojection.gold_standard_fsc`."""
    device, q, shells = one.device, one.shape[2] - 1, min(r_max + 1, box // 2 + 1)
    shell_of = lambda some: (squares(q, some, device).float().sqrt() + 0.5).long().clamp(max=shells)  # noqa: E731
    out = np.zeros(box // 2 + 1)
    out[:shells] = maps_torch.correlate(one, other.to(device), shell_of, shells)
    out[0] = 1.0
    return out


def _shells(h: int, some: slice, padding: float, rounding: float, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(squared distance, unpadded shell floor(|k| / padding + rounding)) of some planes."""
    square = squares(h, some, device)
    return square, (square.double().sqrt() / padding + rounding).long()


def shell_sums(weight: torch.Tensor, least: np.ndarray, radius: int, padding: float, rounding: float) -> np.ndarray:
    """See `reconstruct._shell_sums`: float64 [3, shells]."""
    shells, h = len(least), weight.shape[2] - 1
    needed = torch.from_numpy(np.append(least, np.inf)).to(weight.device)
    out = torch.zeros((3, shells + 1), dtype=torch.float64, device=weight.device)
    for some in planes(weight.shape[0], h + 1):
        square, shell = _shells(h, some, padding, rounding, weight.device)
        shell = torch.where(square < radius * radius, shell.clamp(max=shells), shells).flatten()
        values = weight[some].flatten().double()
        out[0] += torch.bincount(shell, minlength=shells + 1)
        out[1] += torch.bincount(shell, values, shells + 1)
        out[2] += torch.bincount(shell, (values >= needed[shell]).double(), shells + 1)
    return out[:, :shells].cpu().numpy()


def regularised(weight: torch.Tensor, added: np.ndarray, hopeless: np.ndarray, radius: int, padding: float, minimum_shell: int) -> torch.Tensor:
    """See `reconstruct._regularised`."""
    out, h = torch.zeros_like(weight), weight.shape[2] - 1
    more, none = (torch.from_numpy(table).to(weight.device) for table in (added, hopeless))
    for some in planes(weight.shape[0], h + 1):
        square, shell = _shells(h, some, padding, 0.5, weight.device)
        shell.clamp_(max=len(added) - 1)
        w = weight[some]
        without_hope = torch.where(w > 1e-20, w + 1 / (0.001 * w), w)
        changed = torch.where(none[shell], without_hope, w + more[shell])
        w = torch.where((shell >= minimum_shell) & (square < radius * radius), changed, w)
        out[some] = w * (square <= radius * radius)
    return out


def divided(data: torch.Tensor, weight: torch.Tensor, floor: np.ndarray, radius: int, padding: float) -> torch.Tensor:
    """See `reconstruct._divided`; complex64 in and out."""
    out, h = torch.zeros_like(data), data.shape[2] - 1
    lowest = torch.from_numpy(floor).to(data.device)
    for some in planes(data.shape[0], h + 1):
        square, shell = _shells(h, some, padding, 1e-5, data.device)
        w = torch.maximum(weight[some], lowest[shell.clamp_(max=len(floor) - 1)])
        out[some] = torch.where((w > 0) & (square <= radius * radius), data[some] / w, 0)
    return out


def finished(data: torch.Tensor, box: int, padding: float) -> torch.Tensor:
    """The map of a divided transform: outside the sphere its average, the interpolation corrected; on the device."""
    volume = transforms_torch.inverse(data, box, padding)
    inside = transforms_torch.on_grid(mask.soft_edge_by_square(box, 3, box / 2, 3), box, data.device)
    outside = 1 - inside
    total = float(outside.sum(dtype=torch.float64))
    average = float((volume * outside).sum(dtype=torch.float64)) / total if total > 0 else 0.0
    volume = volume * inside + average * outside
    return volume / transforms_torch.on_grid(radial.gridding_correction(box, transforms.padded_size(box, padding)), box, data.device)
