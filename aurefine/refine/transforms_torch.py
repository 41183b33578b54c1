"""Plain-torch twins of `transforms` for maps and transforms on a GPU: the same functions, whatever the device.

Transforms are pruned axis by axis: only the lines that hold something are transformed, so that a padded cube is never built whole.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from aurefine.kernels import Volume
from aurefine.refine import radial, transforms

_VOXELS = 1 << 24  # worked on at a time where there are temporary arrays


def planes(size: int, width: int) -> Iterator[slice]:
    """Stretches of the first axis of a half cube [size, size, width], some 16 million voxels each."""
    step = max(1, _VOXELS // (size * width))
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


def squares(h: int, some: slice, device: torch.device) -> torch.Tensor:
    """int32 [planes, 2h+1, h+1]: squared distance from the origin of the voxels of some planes of a centred half cube."""
    axis = torch.arange(-h, h + 1, dtype=torch.int32, device=device) ** 2
    return axis[some, None, None] + axis[None, :, None] + axis[None, None, h:]


def _turns(count: int, first: int, origin: float, padded: int, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(transforms._turns(count, first, origin, padded)).to(device)


def on_grid(table: np.ndarray, box: int, device: torch.device) -> torch.Tensor:
    """float32 [box^3]: the values of a table by squared radius (radial.py), on the device."""
    square = torch.arange(-(box // 2), box - box // 2, dtype=torch.int32, device=device) ** 2
    values = torch.from_numpy(np.array(table)).to(device)
    out = torch.empty((box, box, box), device=device)
    for some in planes(box, box):
        out[some] = values[square[some, None, None] + square[None, :, None] + square[None, None, :]]
    return out


def projector(volume: np.ndarray, r_max: int, padding: float, left_out: int, device: torch.device) -> Volume:
    """See `transforms.projector`; the result is on the device."""
    box = volume.shape[0]
    padded = transforms.padded_size(box, padding)
    padding = padded / box
    h = int(padding * r_max + 0.5) + 1
    below, above = min(h, padded // 2 - 1), min(h, padded // 2)  # frequencies that exist: -below .. above
    place = torch.arange(-below, above + 1, device=device) % padded
    values = torch.from_numpy(volume).to(device) / on_grid(radial.gridding_correction(box, padded), box, device)
    lines = torch.fft.rfft(values, n=padded, dim=2)[:, :, : above + 1]
    lines = torch.fft.fft(lines, n=padded, dim=1)[:, place]
    lines = torch.fft.fft(lines, n=padded, dim=0)[place]
    turns = _turns(2 * h + 1, -h, box // 2, padded, device)  # the centre of the map is index box / 2, not 0
    there = slice(h - below, h + above + 1)
    scale = padding**3 * box / padded**3
    radius, inner = int(padding * r_max + 0.5), int(padding * left_out + 0.5) if left_out > 0 else -1
    out = torch.zeros((2 * h + 1, 2 * h + 1, h + 1), dtype=torch.complex64, device=device)
    out[there, there, : above + 1] = lines.mul_(turns[there, None, None] * scale).mul_(turns[there, None]).mul_(turns[h : h + above + 1])
    for some in planes(2 * h + 1, h + 1):
        square = squares(h, some, device)
        outside = square > radius**2 if inner < 0 else (square > radius**2) | (square <= inner**2)
        out[some].masked_fill_(outside, 0)
    return Volume(out, r_max, padding)


def inverse(data: torch.Tensor, box: int, padding: float) -> torch.Tensor:
    """See `transforms.inverse`: the map stays on the device."""
    padded, h, device = transforms.padded_size(box, padding), data.shape[2] - 1, data.device
    columns = min(h, padded // 2) + 1
    place = torch.arange(-h, h + 1, device=device) % padded  # frequencies that are the same in the padded box meet
    turns = _turns(2 * h + 1, -h, -(box // 2), padded, device)
    lines = _spread(data[:, :, :columns] * (turns[:, None, None] / (padding**3 * box)), place, 0, padded)
    lines = torch.fft.ifft(lines, dim=0, norm="forward")[:box]
    lines = torch.fft.ifft(_spread(lines * turns[:, None], place, 1, padded), dim=1, norm="forward")[:, :box]
    return torch.fft.irfft(lines * turns[h : h + columns], n=padded, dim=2, norm="forward")[:, :, :box]


def _spread(values: torch.Tensor, place: torch.Tensor, axis: int, length: int) -> torch.Tensor:
    """Zeros with `length` entries along an axis, the values added at their places."""
    shape = list(values.shape)
    shape[axis] = length
    out = torch.zeros((*shape, 2), device=values.device)
    return torch.view_as_complex(out.index_add_(axis, place, torch.view_as_real(values)))
