"""Plain-torch twins of `fourier` and `fsc` for whole maps on a GPU: what an M-step makes of its maps before they come to the host."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from aurefine import fourier, fsc
from aurefine.fsc import Map
from aurefine.refine.transforms_torch import planes


def beside(volume: Map, values: np.ndarray) -> Map:
    """The values where the volume is: an array beside an array, a tensor on its device beside a tensor."""
    if isinstance(volume, np.ndarray):
        return values
    return torch.from_numpy(values if values.flags.writeable else values.copy()).to(volume.device)  # torch warns of arrays that cannot be written


def on_host(volume: Map) -> np.ndarray:
    """The map as an array."""
    return volume.numpy(force=True) if isinstance(volume, torch.Tensor) else volume


def _squares(n: int, some: slice, device: torch.device) -> torch.Tensor:
    """int32 [planes, n, n/2+1]: squared frequency of the voxels of some planes of an rfftn of an n^3 map."""
    square = torch.from_numpy(fourier.frequencies(n).astype(np.int32) ** 2).to(device)
    return square[some, None, None] + square[None, :, None] + square[None, None, : n // 2 + 1]


def _shells(n: int, some: slice, device: torch.device) -> torch.Tensor:
    """int64 [planes, n, n/2+1]: rounded shell of each voxel, n/2 + 1 for all beyond n/2."""
    return (_squares(n, some, device).double().sqrt() + 0.5).long().clamp_(max=n // 2 + 1)


def _transform(volume: torch.Tensor) -> torch.Tensor:
    return torch.fft.rfftn(volume, norm="forward")


def _inverse(transform: torch.Tensor, n: int) -> torch.Tensor:
    return torch.fft.irfftn(transform, s=(n, n, n), norm="forward")


def correlate(one: torch.Tensor, other: torch.Tensor, shell_of: Callable[[slice], torch.Tensor], shells: int) -> np.ndarray:
    """See `fsc.correlate`: float64 [shells] of two half-complex transforms; `shell_of` planes: their voxels' shells, `shells` where none counts."""
    sums = torch.zeros((3, shells + 1), dtype=torch.float64, device=one.device)
    for some in planes(one.shape[0], one.shape[2]):
        shell, a, b = shell_of(some).flatten(), one[some].flatten(), other[some].flatten()
        for row, values in enumerate(((a * b.conj()).real, a.real**2 + a.imag**2, b.real**2 + b.imag**2)):
            sums[row] += torch.bincount(shell, values.double(), shells + 1)
    return fsc.of_sums(sums.cpu().numpy())[:shells]


def of_maps(first: torch.Tensor, second: torch.Tensor) -> np.ndarray:
    """See `fsc.of_maps`."""
    n = first.shape[0]
    curve = correlate(_transform(first), _transform(second), lambda some: _shells(n, some, first.device), n // 2 + 1)
    curve[0] = 1.0
    return curve


def _white(n: int, generator: torch.Generator) -> torch.Tensor:
    """float32 [n, n, n] of white noise, on the generator's device."""
    return torch.randn((n, n, n), generator=generator, device=generator.device)


def randomise_phases(volume: torch.Tensor, from_shell: int, generator: torch.Generator) -> torch.Tensor:
    """See `fsc.randomise_phases`; random numbers are drawn on the device and differ from those of the CPU."""
    n = volume.shape[0]
    transform, noise = _transform(volume), _transform(_white(n, generator))
    for some in planes(n, n // 2 + 1):
        phase = noise[some] / noise[some].abs().clamp_(min=1e-30)
        beyond = _shells(n, some, volume.device) >= from_shell
        transform[some] = torch.where(beyond, transform[some].abs() * phase, transform[some])
    return _inverse(transform, n)


def mask_corrected(first: torch.Tensor, second: torch.Tensor, mask: np.ndarray, seed: int) -> fsc.MaskedFsc:
    """See `fsc.mask_corrected`: of maps [n, n, n] on a device, the second one brought to the first's; `mask` float32 [n, n, n]."""
    generator = torch.Generator(first.device).manual_seed(seed)
    second = second.to(first.device)
    return fsc.corrected(first, second, beside(first, mask), of_maps, lambda volume, start: randomise_phases(volume, start, generator))


def low_pass(volume: torch.Tensor, pixel_size: float, resolution: float) -> torch.Tensor:
    """See `fourier.low_pass`."""
    n = volume.shape[0]
    transform, gain = _transform(volume), beside(volume, fourier.low_pass_gain(n, pixel_size, resolution))
    for some in planes(n, n // 2 + 1):
        transform[some] *= gain[_squares(n, some, volume.device).long()]
    return _inverse(transform, n)


def power_spectrum(volume: np.ndarray, device: torch.device) -> np.ndarray:
    """See `fourier.power_spectrum`: of a map on the host, computed on a device."""
    n = volume.shape[0]
    transform = _transform(torch.from_numpy(volume).to(device))
    sums = torch.zeros((2, n // 2 + 2), dtype=torch.float64, device=device)
    for some in planes(n, n // 2 + 1):
        shell, values = _shells(n, some, device).flatten(), transform[some].flatten()
        sums[0] += torch.bincount(shell, (values.real**2 + values.imag**2).double(), n // 2 + 2)
        sums[1] += torch.bincount(shell, minlength=n // 2 + 2)
    total, count = sums[:, : n // 2 + 1].cpu().numpy()
    return total / np.maximum(count, 1)
