"""Plain-torch twins of every kernel: slow, obvious, on any device; what the fast versions are tested against."""

from __future__ import annotations

import numpy as np
import torch

from aurefine.fourier import PixelList
from aurefine.kernels import NEVER, Accumulator, Samples, Screening, Sums, Volume, shift_phases


def _points(volume: Volume | Accumulator, slices: np.ndarray, pixels: PixelList, device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Voxel coordinates [n, pixels, 3] folded to x >= 0, the Friedel sign, and which pixels lie inside sphere and circle."""
    frequency = torch.as_tensor(np.stack([pixels.x, pixels.y], 0), dtype=torch.float32, device=device)
    points = (torch.as_tensor(slices, device=device) @ frequency).transpose(1, 2)
    inside = (points**2).sum(-1) <= float(int(volume.r_max * volume.padding) ** 2) * 1.00001
    inside &= torch.as_tensor(pixels.inside, device=device)
    sign = torch.where(points[..., 0] >= 0, 1.0, -1.0)
    return points * sign[..., None], sign, inside


def _corners(points: torch.Tensor, half: int):
    """The 8 voxel indices [n, pixels] around each point with their trilinear weights."""
    low = torch.floor(points)
    fraction = points - low
    low = low.long()
    size = 2 * half + 1
    for corner in range(8):
        bit = torch.tensor([corner & 1, corner >> 1 & 1, corner >> 2], device=points.device)
        weight = torch.where(bit.bool(), fraction, 1 - fraction).prod(-1)
        x, y, z = (low + bit).unbind(-1)
        yield ((z + half) * size + y + half) * (half + 1) + x, weight


def project(volume: Volume, slices: np.ndarray, pixels: PixelList) -> torch.Tensor:
    """See `kernels.project`."""
    points, sign, inside = _points(volume, slices, pixels, volume.data.device)
    points = points * inside[..., None]
    flat = volume.data.reshape(-1)
    value = torch.zeros(points.shape[:2], dtype=torch.complex64, device=flat.device)
    for index, weight in _corners(points, volume.half):
        value += flat[index] * weight
    value = torch.complex(value.real, value.imag * sign)
    return value * inside


def project_planes(volume: Volume, slices: np.ndarray, pixels: PixelList) -> torch.Tensor:
    """See `kernels.project_planes`."""
    value = project(volume, slices, pixels)
    return torch.stack([value.real, value.imag], 1)


def score(
    volume, slices, pair_ptr, pair_slice, images, power, shift_ptr, shift_row, shifts, pixels, correlation=False, screening=None
) -> tuple[torch.Tensor, np.ndarray]:
    """See `kernels.score`."""
    device = volume.data.device
    phases = shift_phases(torch.as_tensor(shifts, device=device), pixels)
    block_ptr = np.zeros(len(pair_ptr), np.int64)
    np.cumsum(np.diff(pair_ptr) * np.diff(shift_ptr), out=block_ptr[1:])
    blocks = []
    for i in range(len(images)):
        pairs = slice(pair_ptr[i], pair_ptr[i + 1])
        projections = project(volume, slices[pair_slice[pairs]], pixels)
        rows = torch.as_tensor(shift_row[shift_ptr[i] : shift_ptr[i + 1]], device=device).long()
        operand = images[i] * phases[rows]
        cross = (projections.conj() @ operand.T).real
        norm = (projections.abs() ** 2 @ power[i])[:, None]
        block = cross / torch.sqrt(norm + 1e-30) if correlation else cross - 0.5 * norm
        if screening:
            block[~_near_best(projections, operand, power[i], pixels, screening, pairs, i)] = float(NEVER)
        blocks.append(block.reshape(-1))
    return torch.cat(blocks) if blocks else torch.zeros(0, device=device), block_ptr


def _near_best(projections: torch.Tensor, operand: torch.Tensor, power: torch.Tensor, pixels: PixelList, rule: Screening, pairs: slice, i: int):
    """bool [pairs]: which stay near the best one from band to band."""
    alive = torch.ones(len(projections), dtype=torch.bool, device=projections.device)
    log_pair = torch.as_tensor(rule.log_pair[pairs], device=alive.device)
    for shell in rule.shells:
        part = torch.as_tensor(pixels.shell <= shell, device=alive.device)
        cross = (projections[:, part].conj() @ operand[:, part].T).real + torch.as_tensor(rule.log_offset[i], device=alive.device)
        best = cross.amax(1) - 0.5 * (projections[:, part].abs() ** 2 @ power[part]) + log_pair
        counted = best[alive & (best > -1e29)]
        if len(counted):
            alive &= best >= counted.max() - torch.clamp(rule.share * (counted.max() - counted.double().mean()), min=rule.margin)
    return alive


def score_children(
    volume, slices, n_rot, rotation_ptr, pair_particle, pair_shift, images, power, shifts, n_shift, pixels, correlation=False
) -> torch.Tensor:
    """See `kernels.score_children`."""
    device = volume.data.device
    phases = shift_phases(torch.as_tensor(shifts, device=device), pixels)
    out = torch.empty((len(pair_particle), n_rot, n_shift), device=device)
    for u in range(len(rotation_ptr) - 1):
        projections = project(volume, slices[u * n_rot : (u + 1) * n_rot], pixels)
        for pair in range(rotation_ptr[u], rotation_ptr[u + 1]):
            i, t = int(pair_particle[pair]), int(pair_shift[pair]) * n_shift
            cross = (projections.conj() @ (images[i] * phases[t : t + n_shift]).T).real
            norm = (projections.abs() ** 2 @ power[i])[:, None]
            out[pair] = cross / torch.sqrt(norm + 1e-30) if correlation else cross - 0.5 * norm
    return out


def insert(accumulator: Accumulator, slices: np.ndarray, values: torch.Tensor, weights: torch.Tensor, pixels: PixelList) -> None:
    """Back-project slices complex64 [n, pixels] with weights float32 [n, pixels] into the accumulator's first copy."""
    target = accumulator.data[0]
    points, sign, inside = _points(accumulator, slices, pixels, target.device)
    keep = inside & (weights > 0)
    points = points * keep[..., None]
    payload = torch.stack([values.real, values.imag * sign, weights, torch.zeros_like(weights)], -1) * keep[..., None]
    flat = target.view(-1, 4)
    for index, weight in _corners(points, target.shape[2] - 1):
        flat.index_add_(0, index.reshape(-1), (payload * weight[..., None]).reshape(-1, 4))


def accumulate(
    volume: Volume, accumulator: Accumulator, slices: np.ndarray, samples: Samples, shifts: np.ndarray, unmasked: torch.Tensor,
    masked: torch.Tensor, model: torch.Tensor, inverse_sigma2: np.ndarray, strong: np.ndarray, pixels: PixelList, premultiplied: bool,
) -> Sums:  # fmt: skip
    """See `kernels.accumulate`."""
    device = volume.data.device
    phases = shift_phases(torch.as_tensor(shifts, device=device), pixels)
    inverse = torch.as_tensor(inverse_sigma2, device=device)
    flag = torch.as_tensor(strong, device=device).double()
    pixel = torch.zeros((2, len(pixels)), dtype=torch.float64, device=device)
    particle = torch.zeros((4, len(masked)), dtype=torch.float64, device=device)
    for r in range(len(slices)):
        if samples.slice_ptr[r] == samples.slice_ptr[r + 1]:
            continue
        projection = project(volume, slices[r : r + 1], pixels)[0]
        value = torch.zeros(len(pixels), dtype=torch.complex64, device=device)
        weight = torch.zeros(len(pixels), device=device)
        for run in range(samples.slice_ptr[r], samples.slice_ptr[r + 1]):
            i, part = int(samples.run_particle[run]), slice(samples.run_ptr[run], samples.run_ptr[run + 1])
            w = torch.as_tensor(samples.weight[part], device=device)
            factor = (w[:, None] * phases[torch.as_tensor(samples.shift[part], device=device).long()]).sum(0)
            gain = inverse * (1.0 if premultiplied else model[i])
            value += gain * unmasked[i] * factor
            weight += w.sum() * gain * model[i]
            cross = (model[i] * (projection.conj() * masked[i] * factor).real).double()
            power = (w.sum() * model[i] ** 2 * projection.abs() ** 2).double()
            pixel += torch.stack([cross, power])
            particle[:, i] += torch.stack([cross.sum(), power.sum(), (cross * flag).sum(), (power * flag).sum()])
        insert(accumulator, slices[r : r + 1], value[None], weight[None], pixels)
    return Sums(*pixel.cpu().numpy(), *particle.cpu().numpy())
