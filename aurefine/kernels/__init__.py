"""Projection, scoring and back-projection of flat pixel lists; one dispatcher over the CPU (Numba), CUDA (Triton) and plain-torch versions.

Shared vocabulary
* A *slice matrix* [3, 2] float32 maps a pixel's integer frequency (x, y) to the padded voxel (x, y, z) of the volume.
* A *shift* (dx, dy) float32 is a translation in radians per unit of frequency, 2 pi d / n: applying it multiplies a transform by
  exp(-i (x dx + y dy)).
* `Volume` is the central sphere of a padded transform (x >= 0 half); `Accumulator` has the same shape with (re, im, weight, -) per voxel.
"""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aurefine import large_arrays
from aurefine.fourier import PixelList

__all__ = [
    "NEVER",
    "Accumulator",
    "Samples",
    "Screening",
    "Sums",
    "Volume",
    "accumulate",
    "matrix_product",
    "product_precision",
    "project",
    "project_planes",
    "score",
    "score_children",
    "shift_phases",
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Volume:
    """Padded transform of a reference: complex64 [2h+1, 2h+1, h+1] (z, y, x), centre at [h, h, 0], valid within r_max * padding voxels."""

    data: torch.Tensor
    r_max: int
    padding: float

    @property
    def half(self) -> int:
        """h: index of the centre along z and y."""
        return self.data.shape[2] - 1

    def to(self, device: torch.device | str) -> Volume:
        """The volume on a device: itself where it is there already."""
        return self if self.data.device == torch.device(device) else Volume(self.data.to(device), self.r_max, self.padding)


@dataclass(eq=False)
class Accumulator:
    """Back-projection sums: float32 [copies, 2h+1, 2h+1, h+1, 4] with (re, im, weight, unused); copies are summed at the end (one a thread)."""

    data: torch.Tensor
    r_max: int
    padding: float

    @property
    def half(self) -> int:
        """Index of the centre along z and y."""
        return self.data.shape[3] - 1

    @classmethod
    def empty(cls, r_max: int, padding: float, copies: int, device: torch.device | str = "cpu") -> Accumulator:
        """A zero accumulator for frequencies up to r_max shells of a map padded by `padding`."""
        h = int(padding * r_max + 0.5) + 1
        shape = (copies, 2 * h + 1, 2 * h + 1, h + 1, 4)
        if torch.device(device).type == "cpu":  # torch.zeros would clear fresh pages once more
            return cls(torch.from_numpy(large_arrays.zeros(shape)), r_max, padding)
        return cls(torch.zeros(shape, device=device), r_max, padding)

    def combined(self) -> torch.Tensor:
        """float32 [2h+1, 2h+1, h+1, 4]: the sum over all copies."""
        return self.data[0] if len(self.data) == 1 else self.data.sum(0)

    def combine(self) -> None:
        """Add up the copies in the first one, the only one from now on."""
        for copy in self.data[1:]:
            self.data[0] += copy
        self.data = self.data[:1]


NEVER = np.float32(-1e30)  # log weight of what is excluded; infinities and fast-math do not mix


@dataclass(frozen=True, eq=False)
class Screening:
    """How lists of slices are shortened while they are scored: after each band of frequencies those far below the best one are dropped.

    The score up to a shell is a likelihood, too: the true orientation falls `margin` below the best one with a probability of about e^-margin. With
    strong signal it is not noise that decides but what falls between two points of the grid, which grows with the signal: hence the second rule,
    `share` of the best one's lead over the average.

    shells: ends of the bands but the last; log_pair float32 [pairs] and log_offset float32 [particles, shifts]: priors that count in the comparison.
    """

    shells: tuple[int, ...]
    margin: float
    share: float
    log_pair: np.ndarray
    log_offset: np.ndarray


@dataclass(frozen=True, eq=False)
class Samples:
    """Weighted (slice, particle, shift) samples, sorted by slice and then by particle.

    slice_ptr int64 [slices + 1] points into the runs; run_particle int32 [runs]; run_ptr int64 [runs + 1] points into
    shift int32 [samples] (row of the shift table) and weight float32 [samples].
    """

    slice_ptr: np.ndarray
    run_particle: np.ndarray
    run_ptr: np.ndarray
    shift: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True, eq=False)
class Sums:
    """What `accumulate` returns beside the accumulator (model = scale * CTF * projection, X = masked image).

    cross, power float64 [pixels]: sums of w Re(conj(model) X) and w |model|^2 over all samples; the same per particle: float64
    [particles] over all pixels, and *_strong over the pixels flagged strong.
    """

    pixel_cross: np.ndarray
    pixel_power: np.ndarray
    particle_cross: np.ndarray
    particle_power: np.ndarray
    strong_cross: np.ndarray
    strong_power: np.ndarray


def _backend(device: torch.device):
    if device.type == "cpu":
        from aurefine.kernels import cpu

        return cpu
    if device.type != "cuda":
        return _plain_torch()
    if device.index is not None:
        torch.cuda.set_device(device)  # kernels are started on the calling thread's current device
    return _gpu_backend()


@lru_cache(maxsize=1)
def _gpu_backend():
    """The Triton kernels, or their plain-torch twins where Triton is missing or cannot work, which is said once."""
    try:
        from aurefine.kernels import cuda

        cuda.try_out()
    except ImportError as error:
        warnings.warn(f"GPU kernels need Triton ({error}): slower plain torch is used. Install it with: pip install triton", stacklevel=4)
        return _plain_torch()
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        warnings.warn(
            f"Triton, which makes the GPU kernels, does not work here ({error}): slower plain torch is used. It needs a C compiler and Python's "
            "headers: install gcc and python3-dev.",
            stacklevel=4,
        )
        return _plain_torch()
    return cuda


def _plain_torch():
    from aurefine.kernels import reference

    return reference


def project(volume: Volume, slices: np.ndarray, pixels: PixelList) -> torch.Tensor:
    """Central slices complex64 [n, pixels] of the volume; zero outside the volume's sphere and the image's circle.

    Args: slices float32 [n, 3, 2].
    """
    return _backend(volume.data.device).project(volume, slices, pixels)


def project_planes(volume: Volume, slices: np.ndarray, pixels: PixelList) -> torch.Tensor:
    """`project` as float32 [n, 2, pixels], real plane and imaginary plane: the operand of the global search's matrix product."""
    return _backend(volume.data.device).project_planes(volume, slices, pixels)


def shift_phases(shifts: np.ndarray | torch.Tensor, pixels: PixelList) -> torch.Tensor:
    """complex64 [t, pixels]: exp(-i k.d) of every shift."""
    shifts = torch.as_tensor(shifts)
    x, y = (torch.as_tensor(frequency, dtype=torch.float32, device=shifts.device) for frequency in (pixels.x, pixels.y))
    angle = -(shifts[:, :1] * x + shifts[:, 1:] * y)
    return torch.polar(torch.ones_like(angle), angle)


@contextmanager
def product_precision(device: torch.device, reduced: bool) -> Iterator[None]:
    """Inside, `matrix_product` may round its operands to TF32 on a GPU if `reduced`; for all threads alike. A CPU rounds what is given rounded only.

    The rounding is far below the noise of an image: each product errs by 2^-11 of itself at the most, at random. It is torch's setting for all
    products of float32 matrices, so that nothing else may multiply any there (tests/test_pretended_gpu.py sees to that). The plain-torch
    kernels, whose fine pass does, are never rounded.
    """
    if device.type == "cpu":
        yield
        return
    reduced = reduced and _backend(device) is not _plain_torch()
    target: Any = torch.backends.cuda.matmul
    name, value = ("fp32_precision", "tf32" if reduced else "ieee") if hasattr(target, "fp32_precision") else ("allow_tf32", reduced)  # torch < 2.9
    before = getattr(target, name)
    setattr(target, name, value)
    try:
        yield
    finally:
        setattr(target, name, before)


def matrix_product(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """out [m, n] = left [m, k] @ right [n, k]^T in the precision of `product_precision`.

    Where all three are bfloat16 (`fast_bfloat16`) it is twice as fast, with its result rounded to 2^-9 of its size: for a screening that scores again
    what this leaves in doubt.
    """
    return torch.mm(left, right.T, out=out)


@lru_cache(maxsize=1)
def fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 numbers in hardware (elsewhere torch's products of them are slower than float32's)."""
    try:
        flags = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def score(
    volume: Volume,
    slices: np.ndarray,
    pair_ptr: np.ndarray,
    pair_slice: np.ndarray,
    images: torch.Tensor,
    power: torch.Tensor,
    shift_ptr: np.ndarray,
    shift_row: np.ndarray,
    shifts: np.ndarray,
    pixels: PixelList,
    correlation: bool = False,
    screening: Screening | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihood (up to a constant per particle) of every listed slice at every listed shift, particle by particle.

    score = Re sum conj(A) image exp(-i k.d) - 1/2 sum power |A|^2, with image = X model / sigma^2 and power = model^2 / sigma^2; with
    `correlation`, the first sum divided by the root of the second, sum power |A|^2. What `screening` drops scores NEVER (a GPU drops nothing: there
    products are cheaper than decisions).

    Args: slices float32 [n, 3, 2]; pair_ptr int64 [particles + 1] into pair_slice int32 (rows of slices); images complex64
        [particles, pixels]; power float32 [particles, pixels]; shift_ptr int64 [particles + 1] into shift_row int32 (rows of
        shifts float32 [t, 2]).
    Returns: (scores float32 flat, block_ptr int64 [particles + 1]): block i is [slices of i, shifts of i] in row-major order. The Triton
        version leaves the scores on the device, as a tensor.
    """
    return _backend(volume.data.device).score(
        volume, slices, pair_ptr, pair_slice, images, power, shift_ptr, shift_row, shifts, pixels, correlation, screening
    )


def score_children(
    volume: Volume,
    slices: np.ndarray,
    n_rot: int,
    rotation_ptr: np.ndarray,
    pair_particle: np.ndarray,
    pair_shift: np.ndarray,
    images: torch.Tensor,
    power: torch.Tensor,
    shifts: np.ndarray,
    n_shift: int,
    pixels: PixelList,
    correlation: bool = False,
) -> np.ndarray:
    """`score` of the children of (coarse rotation, particle, coarse shift) pairs, rotation by rotation so that projections are shared.

    Args: slices float32 [rotations * n_rot, 3, 2], children of a coarse rotation side by side; rotation_ptr int64 [rotations + 1] into the
        pairs; pair_particle int32, pair_shift int32 [pairs] (a rotation's pairs of one particle lie together); images, power as for
        `score`; shifts float32 [coarse shifts * n_shift, 2], children of a coarse shift side by side.
    Returns: float32 [pairs, n_rot, n_shift]; a tensor on the device from the Triton version.
    """
    return _backend(volume.data.device).score_children(
        volume, slices, n_rot, rotation_ptr, pair_particle, pair_shift, images, power, shifts, n_shift, pixels, correlation
    )


def accumulate(
    volume: Volume,
    accumulator: Accumulator,
    slices: np.ndarray,
    samples: Samples,
    shifts: np.ndarray,
    unmasked: torch.Tensor,
    masked: torch.Tensor,
    model: torch.Tensor,
    inverse_sigma2: np.ndarray,
    strong: np.ndarray,
    pixels: PixelList,
    premultiplied: bool,
) -> Sums:
    """Sum shifted, weighted images into one slice per orientation, insert each slice once, and collect residual statistics.

    Args: slices float32 [n, 3, 2]; unmasked, masked complex64 [particles, pixels]; model float32 [particles, pixels] (scale * CTF, or
        scale * CTF^2 for premultiplied data); inverse_sigma2 float32 [pixels]; strong bool [pixels].
    """
    return _backend(volume.data.device).accumulate(
        volume, accumulator, slices, samples, shifts, unmasked, masked, model, inverse_sigma2, strong, pixels, premultiplied
    )
