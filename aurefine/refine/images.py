"""Particle images on their way into Fourier space: pre-centring, masking, transforms (ALGORITHM.md 1.8)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from aurefine import ctf, ctf_torch, mask, mtf
from aurefine.errors import InputError
from aurefine.fourier import PixelList, frequencies, round_half_away
from aurefine.optics import OpticsGroup
from aurefine.particles import ParticleSet
from aurefine.refine import devices, image_passes
from aurefine.refine.image_cache import ImageCache
from aurefine.refine.options import RefineOptions
from aurefine.refine.shortage import Batches

if TYPE_CHECKING:
    from aurefine.refine.plan import Plan

MORE_ON_A_GPU = 64  # times as many images at most are transformed together there: it has no cache to stay in, and each call costs


@dataclass(frozen=True, eq=False)
class Prepared:
    """Transforms of a batch of particles at the current image size, and what lies beyond it.

    unmasked, masked complex64 [n, pixels]; model float32 [n, pixels], scale * CTF (CTF^2 if premultiplied), by which projections are multiplied
    before they are compared; centre int64 [n, 2] whole pixels by which the images were moved; power float64 [n] sum |masked|^2 in the list;
    outer float32 [n, box/2+1]: |masked|^2 beyond the list, by shell; inserted: the model that maps are made with.
    """

    indices: np.ndarray
    unmasked: torch.Tensor
    masked: torch.Tensor
    model: torch.Tensor
    centre: np.ndarray
    power: np.ndarray
    outer: np.ndarray
    inserted: torch.Tensor

    def part(self, rows: slice) -> Prepared:
        """Some of the particles."""
        return Prepared(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    @property
    def high_power(self) -> np.ndarray:
        """float64 [n]: power beyond the list."""
        return self.outer.sum(1, dtype=np.float64)

    @property
    def high_shells(self) -> np.ndarray:
        """float64 [box/2+1]: power beyond the list, summed over particles."""
        return self.outer.sum(0, dtype=np.float64)


def recentre(images: torch.Tensor, factor: np.ndarray, shift: np.ndarray) -> torch.Tensor:
    """Move each image [n, y, x] by whole pixels `shift` int [n, 2] (x, y) and multiply it by its factor; vacated pixels become 0."""
    if devices.compiled(images.device):
        return image_passes.centred(images, factor.astype(np.float32), shift)
    images = images * torch.from_numpy(factor.astype(np.float32)).to(images.device)[:, None, None]
    if not shift.any():
        return images
    n, box, _ = images.shape
    axis, moved = torch.arange(box, device=images.device), torch.from_numpy(shift).to(images.device)
    x = axis[None, :] - moved[:, :1]
    y = axis[None, :] - moved[:, 1:]
    inside = ((x >= 0) & (x < box))[:, None, :] & ((y >= 0) & (y < box))[:, :, None]
    flat = y.clamp(0, box - 1)[:, :, None] * box + x.clamp(0, box - 1)[:, None, :]
    return images.reshape(n, -1).gather(1, flat.reshape(n, -1)).reshape(n, box, box) * inside


def squares(values: torch.Tensor) -> torch.Tensor:
    """float32 |F|^2 of complex64 values."""
    if devices.compiled(values.device):
        return image_passes.squares(values)
    return values.abs().square()


def weighted(values: torch.Tensor, model: torch.Tensor, weight: torch.Tensor, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """values X model X weight, complex64, and model^2 X weight, float32, both [n, rows]; `rows` int64 are some of the pixels."""
    if devices.compiled(values.device):
        return image_passes.weighted(values, model, weight, rows)
    place = torch.from_numpy(rows).to(values.device)
    model = model[:, place]
    factor = model * weight[place]
    return values[:, place] * factor, model * factor


def mask_background(images: torch.Tensor, radius: float, edge: float) -> torch.Tensor:
    """Replace what lies outside a soft circle (pixels) by the average of the background, image by image."""
    weight = mask.soft_edge(images.shape[1], 2, radius, edge)
    if devices.compiled(images.device):
        return image_passes.masked(images, weight)
    inside = torch.from_numpy(np.array(weight)).to(images.device)
    outside = 1 - inside
    average = (images * outside).sum((1, 2)) / outside.sum().clamp(min=1e-6)
    return images * inside + average[:, None, None] * outside


def fill_with_noise(images: torch.Tensor, radius: float, edge: float, sigma2: np.ndarray, seeds: np.ndarray) -> torch.Tensor:
    """Replace what lies outside a soft circle by Gaussian noise of spectrum sigma2 [image shells]; one seed an image, so order does not matter."""
    box = images.shape[1]
    shell = round_half_away(np.hypot(np.arange(box // 2 + 1)[None, :], frequencies(box)[:, None]))
    amplitude = torch.from_numpy(np.sqrt(2 * sigma2[np.minimum(shell, len(sigma2) - 1)]).astype(np.float32)).to(images.device)
    white = np.stack([np.random.default_rng(seed).standard_normal((box, box), dtype=np.float32) for seed in seeds])
    noise = torch.fft.irfft2(torch.fft.rfft2(torch.from_numpy(white).to(images.device)) * amplitude * box, s=(box, box))
    inside = torch.from_numpy(np.array(mask.soft_edge(box, 2, radius, edge))).to(images.device)
    return images * inside + noise * (1 - inside)


@lru_cache(maxsize=16)
def _high_shells(box: int, size: int) -> np.ndarray:
    """int64 [box * (box/2+1)]: shell of every half-complex pixel beyond image size `size`, 0 for all others."""
    x, y = np.meshgrid(np.arange(box // 2 + 1), frequencies(box))
    shell = round_half_away(np.hypot(x, y))
    shell[(shell <= size // 2) | (shell > box // 2) | ((x == 0) & (y < 0))] = 0
    return shell.ravel()


def prepare(
    cache: ImageCache,
    particles: ParticleSet,
    group: int,
    indices: np.ndarray,
    offsets: np.ndarray,
    factor: np.ndarray,
    scale: np.ndarray,
    sigma2: np.ndarray,
    pixels: PixelList,
    options: RefineOptions,
    plan: Plan,
    device: torch.device | str = "cpu",
    batches: Batches | None = None,
    room: int = 1,
) -> Prepared:
    """Transforms of particles `indices` (all of one optics group).

    Args: offsets [n, 2] Angstrom; factor [n] grey-value factor of the norm correction; scale [n] grey-scale of each particle's group;
        sigma2 [model shells] noise spectrum of the group, for noise-filled masks; plan: of the iteration, in the last one of which unmasked
        transforms are those of rlnReconstructImageName where the particles have it; device: where the transforms are to be; batches: how many
        images are transformed at a time, `room` times as many on a GPU.
    """
    optics = particles.optics[group]
    correct, beyond_list = _corrections(particles.optics, group, pixels)
    noise = plan.geometry[group].image_power(sigma2) * options.sigma2_fudge
    centre = round_half_away(offsets / optics.pixel_size)
    unmasked, masked = (torch.empty((len(indices), len(pixels)), dtype=torch.complex64, device=device) for _ in range(2))
    outer: list[np.ndarray | torch.Tensor] = []
    together = (batches or Batches()).images(optics.box, max(1, min(room, MORE_ON_A_GPU)))
    for start in range(0, len(indices), together):
        part = slice(start, start + together)
        cache.ahead(group, indices[part.stop : part.stop + together])
        centred = partial(recentre, factor=factor[part], shift=centre[part])
        images = centred(cache.read(group, indices[part], device))
        inserted = centred(_for_map(particles, indices[part], device)) if plan.final and particles.reconstruct_images is not None else images
        _pick(torch.fft.rfft2(inserted, norm="forward"), pixels.flat, correct, unmasked[part])
        full = torch.fft.rfft2(_masked(images, optics, noise, options, options.random_seed + indices[part]), norm="forward")
        _pick(full, pixels.flat, correct, masked[part])
        outer.append(_beyond(full, optics.box, pixels.size))
    power = squares(masked).sum(1, dtype=torch.float64).cpu().numpy()
    model = _model(particles, indices, optics, scale, pixels, options, options.ctf_correction, torch.device(device))
    compared = _model(particles, indices, optics, scale, pixels, options, False, torch.device(device)) if plan.reference_has_ctf else model
    beyond = np.concatenate(outer) if isinstance(outer[0], np.ndarray) else torch.cat(outer).cpu().numpy()  # type: ignore[arg-type]
    if beyond_list is not None:
        beyond *= beyond_list
    return Prepared(indices, unmasked, masked, compared, centre, power, beyond, model)


def _corrections(groups: Sequence[OpticsGroup], group: int, pixels: PixelList) -> tuple[np.ndarray, np.ndarray | None]:
    """(factor of each listed pixel, that of the power beyond by shell): origin to the centre, no antisymmetrical aberrations, a common MTF."""
    optics = groups[group]
    demodulate = ctf.demodulation(optics, pixels.frequency_x, pixels.frequency_y)
    correct = pixels.sign if demodulate is None else (pixels.sign * demodulate).astype(np.complex64)
    gain = mtf.to_common(groups, group)
    if gain is None:
        return correct, None
    by_shell = gain(np.arange(optics.box // 2 + 1) / (optics.box * optics.pixel_size))
    return (correct * gain(np.hypot(pixels.frequency_x, pixels.frequency_y))).astype(correct.dtype), np.square(by_shell).astype(np.float32)


def _for_map(particles: ParticleSet, indices: np.ndarray, device: torch.device | str) -> torch.Tensor:
    """float32 [k, box, box]: the images of rlnReconstructImageName; InputError where one is not finite."""
    images = particles.read_images(indices, for_reconstruction=True)
    wrong = np.flatnonzero(~np.isfinite(images).all((1, 2)))
    if len(wrong):
        row = indices[wrong[0]]
        raise InputError(
            f"{particles.path}, row {particles.source_row[row]}: the image {particles.table['rlnReconstructImageName'][row]} holds values that "
            "are no numbers; the last iteration needs it. Make it again, or remove the column rlnReconstructImageName."
        )
    return torch.from_numpy(images).to(device)


def _masked(images: torch.Tensor, optics: OpticsGroup, noise: np.ndarray, options: RefineOptions, seeds: np.ndarray) -> torch.Tensor:
    """Centred images with nothing but the background's average, or noise of a spectrum [image shells], around the particle."""
    radius, edge = _mask_radius(options, optics), options.mask_edge_pixels
    return mask_background(images, radius, edge) if options.zero_mask else fill_with_noise(images, radius, edge, noise, seeds)


def _pick(full: torch.Tensor, flat: np.ndarray, factor: np.ndarray, out: torch.Tensor) -> None:
    """The listed pixels of transforms [n, y, x / 2 + 1], times a factor each, into `out` [n, pixels]."""
    if devices.compiled(full.device):
        image_passes.picked(full, flat, factor, out)
    else:
        torch.mul(full.flatten(1)[:, torch.from_numpy(flat).to(full.device)], torch.from_numpy(factor).to(full.device), out=out)


def _mask_radius(options: RefineOptions, optics: OpticsGroup) -> float:
    return options.particle_diameter / (2 * optics.pixel_size)


def _beyond(full: torch.Tensor, box: int, size: int) -> np.ndarray | torch.Tensor:
    """float32 [n, box/2+1]: power of each shell beyond image size `size`; a tensor on a GPU."""
    shell = _high_shells(box, size)
    outer, shells = np.flatnonzero(shell), box // 2 + 1
    if devices.compiled(full.device):
        return image_passes.shell_power(full, outer, shell[outer], shells)
    total = torch.zeros((len(full), shells), device=full.device)
    place = torch.from_numpy(outer).to(full.device)
    total.index_add_(1, torch.from_numpy(shell[outer]).to(full.device), squares(full.flatten(1)[:, place]))
    return total


def contrast(
    particles: ParticleSet, indices: np.ndarray, optics: OpticsGroup, pixels: PixelList, options: RefineOptions, device: torch.device
) -> Any:
    """CTF float32 [n, pixels] of particles `indices`, all of one optics group: NumPy's on the CPU, a tensor on another device."""
    evaluate: Callable[..., Any] = ctf.evaluate if devices.compiled(device) else partial(ctf_torch.evaluate, device=device)
    return evaluate(
        particles.defocus, indices, optics, pixels.frequency_x, pixels.frequency_y,
        intact_first_peak=options.ctf_intact_first_peak, phase_flipped=options.ctf_phase_flipped, only_flip_phases=options.only_flip_phases,
    )  # fmt: skip


def _model(
    particles: ParticleSet, indices: np.ndarray, optics: OpticsGroup, scale: np.ndarray, pixels: PixelList, options: RefineOptions, use_ctf: bool,
    device: torch.device,
) -> torch.Tensor:  # fmt: skip
    """float32 [n, pixels]: what a projection is multiplied by before it is compared with an image."""
    factor = torch.from_numpy(scale.astype(np.float32)).to(device)[:, None]
    if not use_ctf or optics.ctf_corrected:
        return factor.expand(-1, len(pixels)).clone()
    values = torch.as_tensor(contrast(particles, indices, optics, pixels, options, device))
    if optics.premultiplied:
        values = values * values
    return values * factor
