"""The start of a refinement: first noise spectra, low-passed references, priors and sampling (ALGORITHM.md 2.3, 2.4)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from aurefine import fourier, maps, sampling
from aurefine.errors import InputError
from aurefine.particles import ParticleSet, normalisation_warning
from aurefine.refine import image_passes
from aurefine.refine.crew import Crew
from aurefine.refine.image_cache import ImageCache
from aurefine.refine.image_stacks import at_a_time
from aurefine.refine.images import mask_background
from aurefine.refine.inputs import Inputs
from aurefine.refine.model_reader import read_noise, read_signal
from aurefine.refine.options import RefineOptions
from aurefine.refine.state import Model, Poses, Progress, SamplingState, State
from aurefine.symmetry import point_group

_NOISE_PARTICLES = 1000


@dataclass(eq=False)
class _Power:
    """Sums over images on the model's grid: power of each shell [optics groups, shells], images [optics groups], the images [box, box]."""

    spectra: np.ndarray
    counts: np.ndarray
    total: np.ndarray


def noise_spectra(
    particles: ParticleSet, cache: ImageCache, members: np.ndarray, box: int, pixel_size: float, options: RefineOptions, warn: Callable[[str], None],
    crew: Crew,
) -> np.ndarray:  # fmt: skip
    """First noise power [optics groups, shells] from the images themselves, less that of their average (ALGORITHM.md 2.3)."""
    limit = options.noise_particles if options.noise_particles > 0 else _NOISE_PARTICLES
    first = [members[particles.optics_index[members] == group][:limit] for group in range(len(particles.optics))]

    def share(number: int) -> tuple[_Power, list[str]]:
        found: list[str] = []
        power = _power([mine[number::2] for mine in first], particles, cache, box, pixel_size, options, found.append if number == 0 else None)
        return power, found

    powers, found = zip(*crew.everywhere(crew.map(share, range(2))), strict=True)
    for reason in itertools.chain(*found):
        warn(reason)
    spectra, counts, total = (sum(getattr(power, name) for power in powers) for name in ("spectra", "counts", "total"))
    mean = total / max(counts.sum(), 1)
    sigma2 = spectra / np.maximum(counts, 1)[:, None] / 2 - _image_power(mean[None].astype(np.float32)) / 2
    used = counts > 0
    sigma2[~used] = sigma2[used].mean(0)
    return np.stack([_positive(spectrum) for spectrum in sigma2])


def _power(
    chosen: Sequence[np.ndarray], particles: ParticleSet, cache: ImageCache, box: int, pixel_size: float, options: RefineOptions,
    warn: Callable[[str], None] | None,
) -> _Power:  # fmt: skip
    """Sums over the `chosen` particles of each optics group."""
    found = _Power(np.zeros((len(particles.optics), box // 2 + 1)), np.array([len(mine) for mine in chosen], float), np.zeros((box, box)))
    for group, (optics, mine) in enumerate(zip(particles.optics, chosen, strict=True)):
        together = at_a_time(optics.box)
        for start in range(0, len(mine), together):
            images = cache.read(group, mine[start : start + together])
            radius = options.particle_diameter / (2 * optics.pixel_size)
            if warn and options.check_norm and start == 0:
                warning = normalisation_warning(images.numpy(), radius, particles.table["rlnImageName"][mine[:together]])
                if warning:
                    warn(f"{particles.path}: {warning}")
            if options.zero_mask:
                images = mask_background(images, radius, options.mask_edge_pixels)
            resampled = _on_model_grid(images.numpy(), optics.pixel_size, box, pixel_size)
            found.spectra[group] += _image_power(resampled)
            found.total += resampled.sum(0)
    return found


def _on_model_grid(images: np.ndarray, own: float, box: int, pixel_size: float) -> np.ndarray:
    if abs(own - pixel_size) > 0.001:
        images = maps.fourier_rescale(images, maps.even_box(images.shape[1] * own / pixel_size, round_up=True), images=True)
    return images if images.shape[1] == box else maps.window(images, box, images=True)


def _image_power(images: np.ndarray) -> np.ndarray:
    """Mean |F|^2 per shell, summed over images [n, box, box]: float64 [box/2+1]."""
    box = images.shape[1]
    transform = torch.fft.rfft2(torch.from_numpy(np.ascontiguousarray(images)), norm="forward")
    x, y = np.meshgrid(np.arange(box // 2 + 1), fourier.frequencies(box))
    shell = fourier.round_half_away(np.hypot(x, y)).ravel()
    inside = np.flatnonzero(shell <= box // 2)
    total = image_passes.shell_power(transform, inside, shell[inside], box // 2 + 1)
    return total.sum(0, dtype=np.float64) / np.bincount(shell[inside], minlength=box // 2 + 1)


def _positive(spectrum: np.ndarray) -> np.ndarray:
    """Replace values that are not positive by their lower neighbour, or the next positive one."""
    out = spectrum.copy()
    positive = np.flatnonzero(out > 0)
    if not len(positive):
        raise InputError("The noise spectrum of the particles is zero everywhere: are the images empty?")
    out[: positive[0]] = out[positive[0]]
    for shell in range(1, len(out)):
        if out[shell] <= 0:
            out[shell] = out[shell - 1]
    return out


def first_noise(
    particles: ParticleSet, cache: ImageCache, inputs: Inputs, options: RefineOptions, warn: Callable[[str], None], crew: Crew
) -> np.ndarray:
    """Noise power [optics groups, shells] before the first iteration: read, or that of the images, of which both half-sets' workers take one half."""
    if options.initial_noise_spectrum:
        return read_noise(options.initial_noise_spectrum, len(particles.optics), inputs.box // 2 + 1)
    members = np.concatenate([np.flatnonzero((inputs.random_subset == half) & cache.holds) for half in (1, 2)])
    return noise_spectra(particles, cache, members, inputs.box, inputs.pixel_size, options, warn, crew)


def initial_state(particles: ParticleSet, inputs: Inputs, options: RefineOptions, sigma2: np.ndarray) -> State:
    """Everything before the first iteration; `sigma2` is that of `first_noise`."""
    subset, box, pixel_size = inputs.random_subset, inputs.box, inputs.pixel_size
    grid = first_sampling(options, pixel_size)
    directions = len(sampling.directions(grid.healpix_order, grid.grid_symmetry, grid.limit_tilt))
    models = tuple(
        _first_model(volume, pixel_size, sigma2, (subset == half).sum(), directions, particles, options)
        for half, volume in zip((1, 2), inputs.references, strict=True)
    )
    n = particles.count
    poses = Poses(
        particles.angles.astype(float), particles.offsets.astype(float), np.asarray(particles.norm, float).copy(), np.zeros(n), np.zeros(n),
        np.zeros(n, np.int64), np.asarray(particles.class_number).astype(np.int64), np.zeros(n),
    )  # fmt: skip
    progress = Progress(current_size=box, increment_size=options.increment_size)
    return State(models, poses, grid, progress, subset)


def first_sampling(options: RefineOptions, pixel_size: float) -> SamplingState:
    """The grid of a new run's first iteration; `pixel_size` is the model's."""
    reach, step = options.offset_range_pixels * pixel_size, options.offset_step_pixels * pixel_size
    state = SamplingState(
        options.healpix_order, point_group(options.symmetry).name, reach, step, perturbation_factor=options.perturbation_factor,
        oversampling=options.oversampling, limit_tilt=options.limit_tilt, healpix_order_original=options.healpix_order,
        offset_range_original=reach, offset_step_original=step, relax_symmetry=options.relax_symmetry,
        psi_step=max(options.psi_step, 0.0),
    )  # fmt: skip
    if options.sigma_angle > 0:
        return replace(state, local=True, sigma_angle=options.sigma_angle)
    if options.healpix_order >= options.local_healpix_order:
        return replace(state, local=True, sigma_angle=2 * state.fine_step)
    return state


def _first_model(
    volume: np.ndarray, pixel_size: float, sigma2: np.ndarray, count: int, directions: int, particles: ParticleSet, options: RefineOptions
) -> Model:
    """A half's model: low-passed reference, its power as first signal spectrum (ALGORITHM.md 2.4)."""
    box = volume.shape[0]
    if options.initial_lowpass > 0:
        volume = fourier.low_pass(volume, pixel_size, options.initial_lowpass)
    shells = np.arange(box // 2 + 1)
    if options.initial_tau2_spectrum:
        tau2 = read_signal(options.initial_tau2_spectrum, len(shells))
    else:
        tau2 = options.tau2_fudge_used * fourier.power_spectrum(volume) * box**2 / 2
    weight = np.bincount(particles.optics_index, minlength=len(particles.optics)) / particles.count
    noise = weight @ sigma2
    ratio = count * tau2 / np.maximum(noise, 1e-30) / np.maximum(2 * shells, 1)
    zero = np.zeros(len(shells))
    return Model(
        volume.astype(np.float32), pixel_size, sigma2, tau2, ratio, zero, zero, zero, zero, np.ones(len(particles.group_names)),
        np.full(directions, 1 / directions), sigma2_offset=options.sigma_offset**2,
    )  # fmt: skip
