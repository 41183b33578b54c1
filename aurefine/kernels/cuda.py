"""CUDA versions of the kernels: host side of the Triton programs in `_triton`; arrays of images, volumes and scores never leave the device.

Lists of slices, shifts and samples may be numpy arrays, moved once, or tensors that are on the device already. Sums into the accumulator
and per particle are atomic: their last digit depends on the order in which programs finish.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import triton

from aurefine.fourier import PixelList
from aurefine.kernels import Accumulator, Samples, Screening, Sums, Volume, _triton

_BLOCK = 128  # pixels of a program that projects or inserts
_SCORE_ROWS, _SCORE_BLOCK = 32, 16  # slices and pixels of a scoring program's tile: larger ones spill registers on sm_90
_SCORE_COLUMNS = (16, 32, 64)  # shifts of a tile: each particle gets the smallest that holds its own
_CHILD_COLUMNS = (16, 32, 64)  # pairs x child shifts of a tile
_STAGES = 1  # no software pipeline: it would put every gathered corner into shared memory, more than there is
_SHARES = 4096  # programs that `accumulate` aims at: some 30 for each multiprocessor of a large GPU
_OUTSIDE = np.float32(1e9)  # frequency given to pixels beyond the image's circle: the sphere test then drops them
_TOLERANCE = 1.00001  # float32 rounding of points lying exactly on the sphere


def try_out() -> None:
    """Raise what Triton raises where it cannot start programs: its first one makes it compile a part of itself, with a C compiler."""
    if isinstance(_triton.project, triton.runtime.JITFunction):  # the interpreter needs none
        triton.runtime.driver.active.utils  # noqa: B018


def _limit(volume: Volume | Accumulator) -> float:
    return float(int(volume.r_max * volume.padding) ** 2) * _TOLERANCE


def _bits(values: torch.Tensor) -> torch.Tensor:
    """complex64 as int64, one 8-byte load a value."""
    return torch.view_as_real(values.contiguous()).view(torch.int64)


def _move(array: np.ndarray | torch.Tensor, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """A contiguous tensor on the device; from page-locked memory, so that the host need not wait for the copy."""
    tensor = array if isinstance(array, torch.Tensor) else torch.as_tensor(np.ascontiguousarray(array))
    tensor = tensor.to(dtype) if tensor.device == device else tensor.to(dtype).contiguous()
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True).contiguous()


@lru_cache(maxsize=32)
def _frequencies(pixels: PixelList, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """float32 [p] on the device: x with pixels beyond the circle moved out, y, and the true x."""
    x = np.where(pixels.inside, pixels.x, _OUTSIDE)
    moved = (_move(values, device, torch.float32) for values in (x, pixels.y, pixels.x))
    return tuple(moved)  # type: ignore[return-value]


def _phases(shifts: np.ndarray | torch.Tensor, pixels: PixelList, device: torch.device) -> torch.Tensor:
    """int64 bits of complex64 [t, p]: exp(-i k.d) of every shift; small enough to stay in the second-level cache."""
    _, y, x = _frequencies(pixels, device)
    d = _move(shifts, device, torch.float32)
    angle = -(d[:, :1] * x + d[:, 1:] * y)
    return _bits(torch.polar(torch.ones_like(angle), angle))


def _project(volume: Volume, slices: np.ndarray | torch.Tensor, pixels: PixelList, out: torch.Tensor, strides: tuple[int, int]) -> None:
    device = volume.data.device
    x, y, _ = _frequencies(pixels, device)
    matrices = _move(slices, device, torch.float32)
    if len(matrices):
        grid = (len(matrices), -(-len(pixels) // _BLOCK))
        _triton.project[grid](_bits(volume.data), matrices, x, y, out, len(pixels), volume.half, _limit(volume), *strides, BLOCK=_BLOCK)


def project(volume: Volume, slices: np.ndarray, pixels: PixelList) -> torch.Tensor:
    """See `kernels.project`."""
    out = torch.empty((len(slices), len(pixels)), dtype=torch.complex64, device=volume.data.device)
    _project(volume, slices, pixels, torch.view_as_real(out), (1, 2))
    return out


def project_planes(volume: Volume, slices: np.ndarray, pixels: PixelList) -> torch.Tensor:
    """See `kernels.project_planes`."""
    out = torch.empty((len(slices), 2, len(pixels)), device=volume.data.device)
    _project(volume, slices, pixels, out, (len(pixels), 1))
    return out


def _score_tiles(pair_ptr: np.ndarray, shift_ptr: np.ndarray, block_ptr: np.ndarray, columns: int, chosen: np.ndarray) -> np.ndarray:
    """int64 [tiles, 7]: the work list of `_triton.score` for the chosen particles, in their order."""
    pairs, shifts = np.diff(pair_ptr)[chosen], np.diff(shift_ptr)[chosen]
    across = -(-shifts // columns)
    count = -(-pairs // _SCORE_ROWS) * across
    owner = np.repeat(np.arange(len(chosen)), count)
    k = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    particle, row, column = chosen[owner], k // across[owner] * _SCORE_ROWS, k % across[owner] * columns
    table = [
        particle, pair_ptr[particle] + row, np.minimum(pairs[owner] - row, _SCORE_ROWS), shift_ptr[particle] + column,
        np.minimum(shifts[owner] - column, columns), block_ptr[particle] + row * shifts[owner] + column, shifts[owner],
    ]  # fmt: skip
    return np.stack(table, 1).astype(np.int64)


def _precision(device: torch.device) -> str:
    """Products of three TF32 terms keep float32's digits and use the tensor cores; older GPUs have none for them."""
    new = device.type == "cuda" and torch.version.cuda is not None and torch.cuda.get_device_capability(device) >= (8, 0)
    return "tf32x3" if new else "ieee"


def score(
    volume: Volume, slices: np.ndarray, pair_ptr: np.ndarray, pair_slice: np.ndarray, images: torch.Tensor, power: torch.Tensor,
    shift_ptr: np.ndarray, shift_row: np.ndarray, shifts: np.ndarray, pixels: PixelList, correlation: bool = False,
    screening: Screening | None = None,
) -> tuple[torch.Tensor, np.ndarray]:  # fmt: skip
    """See `kernels.score`; the scores stay on the device, and nothing is dropped."""
    device = volume.data.device
    block_ptr = np.zeros(len(pair_ptr), np.int64)
    np.cumsum(np.diff(pair_ptr) * np.diff(shift_ptr), out=block_ptr[1:])
    out = torch.empty(int(block_ptr[-1]), device=device)
    x, y, _ = _frequencies(pixels, device)
    operands = (
        _bits(volume.data), _move(slices, device, torch.float32), _move(pair_slice, device, torch.int32), _move(shift_row, device, torch.int32),
        _phases(shifts, pixels, device), _bits(images), power.contiguous(), x, y,
    )  # fmt: skip
    bucket = np.minimum(np.searchsorted(_SCORE_COLUMNS, np.diff(shift_ptr)), len(_SCORE_COLUMNS) - 1)
    for k, columns in enumerate(_SCORE_COLUMNS):
        tiles = _score_tiles(pair_ptr, shift_ptr, block_ptr, columns, np.flatnonzero(bucket == k))
        if len(tiles):
            _triton.score[(len(tiles),)](
                *operands, _move(tiles, device, torch.int64), out, len(pixels), volume.half, _limit(volume), CORRELATION=correlation,
                PRECISION=_precision(device), ROWS=_SCORE_ROWS, COLUMNS=columns, BLOCK=_SCORE_BLOCK, num_stages=_STAGES,
            )  # fmt: skip
    return out, block_ptr


def _children_tiles(rotation_ptr: torch.Tensor, n_rot: int, rows: int, room: int, chosen: torch.Tensor) -> torch.Tensor:
    """int64 [tiles, 4]: the work list of `_triton.score_children` for the chosen coarse rotations, `room` pairs to a tile."""
    first = rotation_ptr[chosen]
    pairs = rotation_ptr[chosen + 1] - first
    across = -(-n_rot // rows)
    count = torch.div(pairs + room - 1, room, rounding_mode="floor") * across
    owner = torch.repeat_interleave(torch.arange(len(chosen), device=chosen.device), count)
    k = torch.arange(len(owner), device=chosen.device) - (torch.cumsum(count, 0) - count)[owner]
    start = torch.div(k, across, rounding_mode="floor") * room
    return torch.stack([chosen[owner], first[owner] + start, (pairs[owner] - start).clamp(max=room), k % across * rows], 1)


def score_children(
    volume: Volume, slices: np.ndarray, n_rot: int, rotation_ptr: np.ndarray, pair_particle: np.ndarray, pair_shift: np.ndarray,
    images: torch.Tensor, power: torch.Tensor, shifts: np.ndarray, n_shift: int, pixels: PixelList, correlation: bool = False,
) -> torch.Tensor:  # fmt: skip
    """See `kernels.score_children`; the scores stay on the device."""
    device = volume.data.device
    out = torch.empty((len(pair_particle), n_rot, n_shift), device=device)
    x, y, _ = _frequencies(pixels, device)
    operands = (
        _bits(volume.data), _move(slices, device, torch.float32), _move(pair_particle, device, torch.int32),
        _move(pair_shift, device, torch.int32), _phases(shifts, pixels, device), _bits(images), power.contiguous(), x, y,
    )  # fmt: skip
    rows = min(max(n_rot, 8), _SCORE_ROWS)
    bounds = _move(rotation_ptr, device, torch.int64)
    bucket = torch.searchsorted(torch.tensor(_CHILD_COLUMNS, device=device), bounds.diff() * n_shift).clamp(max=len(_CHILD_COLUMNS) - 1)
    for k, least in enumerate(_CHILD_COLUMNS):
        columns = max(least, n_shift)
        tiles = _children_tiles(bounds, n_rot, rows, columns // n_shift, torch.nonzero(bucket == k).squeeze(1))
        if len(tiles):
            _triton.score_children[(len(tiles),)](
                *operands, tiles, out, len(pixels), n_rot, n_shift, volume.half, _limit(volume),
                CORRELATION=correlation, PRECISION=_precision(device), ROWS=rows, COLUMNS=columns, BLOCK=_SCORE_BLOCK, num_stages=_STAGES,
            )  # fmt: skip
    return out


def insert(accumulator: Accumulator, slices: np.ndarray, values: torch.Tensor, weights: torch.Tensor, pixels: PixelList) -> None:
    """Back-project slices complex64 [n, pixels] with weights float32 [n, pixels] into the accumulator's first copy."""
    target = accumulator.data[0]
    x, y, _ = _frequencies(pixels, target.device)
    if len(slices):
        grid = (len(slices), -(-len(pixels) // _BLOCK))
        _triton.insert[grid](
            target, _move(slices, target.device, torch.float32), _bits(values), weights.contiguous(), x, y, len(pixels),
            target.shape[2] - 1, _limit(accumulator), BLOCK=_BLOCK,
        )  # fmt: skip


def _shares(samples: Samples, blocks: int, device: torch.device) -> torch.Tensor:
    """int64 [shares + 1]: contiguous slices of nearly equal work, as many as fill the device; slices without samples cost nothing."""
    slice_ptr, run_ptr = _move(samples.slice_ptr, device, torch.int64), _move(samples.run_ptr, device, torch.int64)
    runs = slice_ptr.diff()
    slices = len(runs)
    work = torch.cumsum(2 * runs + run_ptr[slice_ptr].diff() + 8 * (runs > 0), 0)
    count = max(1, min(slices, _SHARES // blocks))
    if count == 1:
        return torch.tensor([0, slices], device=device)
    cuts = torch.searchsorted(work, work[-1] * torch.arange(1, count, device=device) // count)
    return torch.cat([cuts.new_zeros(1), cuts, cuts.new_full((1,), slices)])


def accumulate(
    volume: Volume, accumulator: Accumulator, slices: np.ndarray, samples: Samples, shifts: np.ndarray, unmasked: torch.Tensor,
    masked: torch.Tensor, model: torch.Tensor, inverse_sigma2: np.ndarray, strong: np.ndarray, pixels: PixelList, premultiplied: bool,
) -> Sums:  # fmt: skip
    """See `kernels.accumulate`; everything goes into the accumulator's first copy. Only the small sums come back to the host."""
    device, target = volume.data.device, accumulator.data[0]
    x, y, _ = _frequencies(pixels, device)
    blocks, particles = -(-len(pixels) // _BLOCK), len(masked)
    bounds = _shares(samples, blocks, device)
    pixel_sums = torch.empty((len(bounds) - 1, 2, len(pixels)), dtype=torch.float64, device=device)
    particle_sums = torch.zeros((4, particles), dtype=torch.float64, device=device)
    lists = (
        (bounds, torch.int64), (samples.slice_ptr, torch.int64), (samples.run_particle, torch.int32), (samples.run_ptr, torch.int64),
        (samples.shift, torch.int32), (samples.weight, torch.float32),
    )  # fmt: skip
    _triton.accumulate[(blocks, len(bounds) - 1)](
        _bits(volume.data), target, _move(slices, device, torch.float32), *(_move(array, device, dtype) for array, dtype in lists),
        _phases(shifts, pixels, device), _bits(unmasked), _bits(masked), model.contiguous(), _move(inverse_sigma2, device, torch.float32),
        _move(strong, device, torch.float32), x, y, pixel_sums, particle_sums, len(pixels), particles, volume.half, _limit(volume),
        target.shape[2] - 1, _limit(accumulator), PREMULTIPLIED=premultiplied, BLOCK=_BLOCK,
    )  # fmt: skip
    return Sums(*pixel_sums.sum(0).cpu().numpy(), *particle_sums.cpu().numpy())
