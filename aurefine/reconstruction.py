"""A map from particles whose poses are given, without alignment and without a prior: what relion_reconstruct does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from aurefine import ctf, euler, fourier, kernels, symmetry
from aurefine.particles import ParticleSet
from aurefine.refine.backprojection import collect
from aurefine.refine.plan import geometry_of, slice_matrices
from aurefine.refine.reconstruct import prior_from_fsc, reconstruct

BATCH_PIXELS = 4_000_000  # Fourier pixels handled at a time
GRIDDING_ITERATIONS = 10


def from_poses(
    particles: ParticleSet,
    rows: np.ndarray,
    point_group: str = "C1",
    *,
    use_ctf: bool = True,
    padding: float = 2.0,
    resolution: float = 0.0,
    gridding: int = GRIDDING_ITERATIONS,
    intact_first_peak: bool = False,
    expected_fsc: float = 0.0,
    tell: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """Map float32 [box^3] of the particles `rows` at their angles and offsets, in the box and pixel size of the first optics group.

    Each image enters as CTF x image, the sum is divided by the sum of CTF^2 (ALGORITHM.md 3.3, 3.9 without tau2). `resolution` (Angstrom) limits
    the frequencies used, 0 means Nyquist; `gridding` iterations of density compensation, 0 for none. `expected_fsc` above 0 is a prior: voxels
    are Wiener-filtered as if every shell had that FSC between halves (ALGORITHM.md 3.8). `tell(done)` hears of progress.
    """
    first = particles.optics[0]
    box, pixel_size = first.box, first.pixel_size
    r_max = box // 2 if resolution <= 0 else min(box // 2, int(np.ceil(box * pixel_size / resolution)))
    accumulator = kernels.Accumulator.empty(r_max, padding, torch.get_num_threads())
    empty = kernels.Volume(torch.zeros(accumulator.data.shape[1:4], dtype=torch.complex64), r_max, padding)
    done = 0
    for group, optics in enumerate(particles.optics):
        geometry = geometry_of(optics, box, pixel_size)
        size = min(optics.box, 2 * int(np.ceil(geometry.scale * r_max)))
        pixels = fourier.pixel_list(size, optics.box, optics.pixel_size)
        members = rows[particles.optics_index[rows] == group]
        step = max(1, BATCH_PIXELS // len(pixels))
        for batch in (members[i : i + step] for i in range(0, len(members), step)):
            slices = slice_matrices(euler.to_matrix(particles.angles[batch]), empty, geometry)
            _insert(empty, accumulator, particles, batch, slices, pixels, geometry.scale, use_ctf, intact_first_peak)
            done += len(batch)
            tell(done)
    half = collect(accumulator, symmetry.point_group(point_group).operators, box)
    prior = prior_from_fsc(half, np.full(box // 2 + 1, expected_fsc), 1.0, joined=False) if expected_fsc > 0 else None
    return reconstruct(half, prior, 1.0, 0, gridding)


def _insert(
    empty: kernels.Volume, accumulator: kernels.Accumulator, particles: ParticleSet, rows: np.ndarray, slices: np.ndarray,
    pixels: fourier.PixelList, scale: float, use_ctf: bool, intact_first_peak: bool,
) -> None:  # fmt: skip
    """Back-project the images of one optics group, each once; `scale`: how much wider they are than the map."""
    optics = particles.optics[particles.optics_index[rows[0]]]
    transform = _transforms(particles.read_images(rows, for_reconstruction=True), optics, pixels) * scale**2  # they are averages over the image
    model = np.ones((len(rows), len(pixels)), np.float32)
    if use_ctf and not optics.ctf_corrected:
        model = ctf.evaluate(particles.defocus, rows, optics, pixels.frequency_x, pixels.frequency_y, intact_first_peak=intact_first_peak)
        model = model * model if optics.premultiplied else model
    shifts = (2 * np.pi / (optics.box * optics.pixel_size) * particles.offsets[rows]).astype(np.float32)
    once, count = np.arange(len(rows) + 1), len(rows)
    samples = kernels.Samples(once, once[:-1].astype(np.int32), once, once[:-1].astype(np.int32), np.ones(count, np.float32))
    kernels.accumulate(
        empty, accumulator, slices, samples, shifts, transform, transform, torch.from_numpy(model), np.ones(len(pixels), np.float32),
        np.zeros(len(pixels), bool), pixels, optics.premultiplied,
    )  # fmt: skip


def _transforms(images: np.ndarray, optics, pixels: fourier.PixelList) -> torch.Tensor:
    """complex64 [k, pixels] about the image centre, antisymmetrical aberrations removed."""
    correct = pixels.sign.astype(np.complex64)
    demodulate = ctf.demodulation(optics, pixels.frequency_x, pixels.frequency_y)
    if demodulate is not None:
        correct = correct * demodulate
    transform = torch.fft.rfft2(torch.from_numpy(images), norm="forward").flatten(1)
    return transform[:, torch.from_numpy(pixels.flat)] * torch.from_numpy(correct)
