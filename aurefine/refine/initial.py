"""The start of a refinement: half-sets, reference on the particles' grid, first noise spectra and priors (ALGORITHM.md 2)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from aurefine import fourier, maps, mask, mrc, sampling
from aurefine.errors import InputError
from aurefine.particles import ParticleSet
from aurefine.refine.images import ImageCache, mask_background
from aurefine.refine.maximisation import Masks
from aurefine.refine.options import RefineOptions
from aurefine.refine.state import Model, Poses, Progress, SamplingState, State
from aurefine.symmetry import point_group

_NOISE_PARTICLES = 1000


def half_sets(particles: ParticleSet, seed: int) -> np.ndarray:
    """1 or 2 for every particle: those of the file, or a fair coin. InputError when one half would be empty."""
    subset = np.asarray(particles.random_subset)
    if not subset.any():
        subset = 1 + np.random.default_rng(seed).integers(0, 2, particles.count)
    for half in (1, 2):
        if not (subset == half).any():
            raise InputError(
                f"{particles.path}: no particle is in half-set {half} (rlnRandomSubset), {particles.count} are in the other. "
                "Gold-standard refinement needs both: remove the column to have the halves drawn anew, or assign both 1 and 2."
            )
    return subset.astype(np.int64)


def processing_order(particles: ParticleSet, subset: np.ndarray, half: int, seed: int) -> np.ndarray:
    """Particles of a half in random order, sorted by optics group: the same in every iteration (ALGORITHM.md 2.1)."""
    members = np.flatnonzero(subset == half)
    members = np.random.default_rng(seed).permutation(members)
    return members[np.argsort(particles.optics_index[members], kind="stable")]


def read_reference(options: RefineOptions, particles: ParticleSet, path: str | None = None) -> tuple[np.ndarray, float]:
    """The reference on the box and pixel size of the first optics group: (float32 [box^3], pixel size in Angstrom).

    A map of other size is resampled, whether or not --trust_ref_size was given: docs/differences-from-relion.md.
    """
    path = path or options.reference
    volume, pixel_size = mrc.read_map(path)
    if options.reference_pixel_size > 0:
        pixel_size = options.reference_pixel_size
    if volume.ndim != 3 or len(set(volume.shape)) != 1:
        raise InputError(f"{path}: the reference has shape {volume.shape}; a cubic map was expected. Crop or pad it to a cube.")
    if not np.isfinite(volume).all() or np.ptp(volume) == 0:
        raise InputError(f"{path}: the reference has NaN or infinite values, or the same value everywhere. Give a real map with --ref.")
    if not pixel_size > 0:
        raise InputError(f"{path}: the header gives no pixel size. Give it in Angstrom with --ref_angpix.")
    optics = particles.optics[0]
    box = optics.box
    if abs(pixel_size - optics.pixel_size) > 0.001 or volume.shape[0] != box:
        extent = volume.shape[0] * pixel_size
        if extent < 0.5 * options.particle_diameter:
            raise InputError(
                f"{path}: the reference is {extent:.0f} A wide, less than half the particle diameter of {options.particle_diameter:.0f} A. "
                f"Its pixel size ({pixel_size:g} A in the header) is probably wrong: give the true one with --ref_angpix."
            )
        logging.getLogger(__name__).info("the reference (%d px of %g A) is resampled to the particles' grid", volume.shape[0], pixel_size)
        volume, pixel_size = maps.fit_to(volume, pixel_size, box, optics.pixel_size)
    return np.ascontiguousarray(volume, np.float32), float(pixel_size)


def half_map_name(path: str, half: int) -> str:
    """The half-set's own map where the reference's name says it is one of two half maps (ALGORITHM.md 2.2)."""
    folder, _, name = path.rpartition("/")
    for digit in ("1", "2"):
        if f"half{digit}" in name:
            name = name.replace(f"half{digit}", f"half{half}")
            break
    return f"{folder}/{name}" if folder else name


def read_mask(path: str, box: int, pixel_size: float) -> np.ndarray | None:
    """A mask on the model's grid, None without one; InputError for values outside 0..1."""
    if not path or path == "None":
        return None
    volume, own = mrc.read_map(path)
    if volume.min() < -1e-4 or volume.max() > 1 + 1e-4:
        raise InputError(f"{path}: mask values run from {volume.min():g} to {volume.max():g}; 0 to 1 was expected. Make it with mask_create.")
    if volume.shape[0] != box or abs(own - pixel_size) > 0.001:
        volume, _ = maps.fit_to(volume, own, box, pixel_size, round_up=True)
    return np.clip(volume, 0, 1).astype(np.float32)


def read_masks(options: RefineOptions, box: int, pixel_size: float) -> Masks:
    """All masks that the options name."""
    read = lambda path: read_mask(path, box, pixel_size)  # noqa: E731
    return Masks(read(options.solvent_mask), read(options.solvent_mask2), read(options.lowpass_mask))


def noise_spectra(
    particles: ParticleSet, cache: ImageCache, members: np.ndarray, box: int, pixel_size: float, options: RefineOptions, warn: Callable[[str], None]
) -> np.ndarray:
    """First noise power [optics groups, shells] from the images themselves, less that of their average (ALGORITHM.md 2.3)."""
    limit = options.noise_particles if options.noise_particles > 0 else _NOISE_PARTICLES
    shells = box // 2 + 1
    spectra, counts = np.zeros((len(particles.optics), shells)), np.zeros(len(particles.optics))
    average = np.zeros((box, box))
    for group, optics in enumerate(particles.optics):
        mine = members[particles.optics_index[members] == group][:limit]
        for start in range(0, len(mine), 512):
            images = cache.read(group, mine[start : start + 512])
            radius = options.particle_diameter / (2 * optics.pixel_size)
            if options.check_norm and start == 0:
                _check_norm(images, radius, str(particles.table["rlnImageName"][mine[0]]), warn)
            if options.zero_mask:
                images = mask_background(images, radius, options.mask_edge_pixels)
            resampled = _on_model_grid(images.numpy(), optics.pixel_size, box, pixel_size)
            spectra[group] += _image_power(resampled).sum(0)
            average += resampled.sum(0)
        counts[group] = len(mine)
    mean = average / max(counts.sum(), 1)
    sigma2 = spectra / np.maximum(counts, 1)[:, None] / 2 - _image_power(mean[None].astype(np.float32))[0] / 2
    used = counts > 0
    sigma2[~used] = sigma2[used].mean(0)
    return np.stack([_positive(spectrum) for spectrum in sigma2])


def _on_model_grid(images: np.ndarray, own: float, box: int, pixel_size: float) -> np.ndarray:
    if abs(own - pixel_size) > 0.001:
        images = maps.fourier_rescale(images, maps.even_box(images.shape[1] * own / pixel_size, round_up=True), images=True)
    return images if images.shape[1] == box else maps.window(images, box, images=True)


def _image_power(images: np.ndarray) -> np.ndarray:
    """Mean |F|^2 per shell of every image [n, box, box]: float64 [n, box/2+1]."""
    box = images.shape[1]
    transform = torch.fft.rfft2(torch.from_numpy(np.ascontiguousarray(images)), norm="forward").flatten(1)
    power = (transform.real**2 + transform.imag**2).double()
    x, y = np.meshgrid(np.arange(box // 2 + 1), fourier.frequencies(box))
    shell = np.minimum(fourier.round_half_away(np.hypot(x, y)).ravel(), box // 2 + 1)
    total = torch.zeros((len(images), box // 2 + 2), dtype=torch.float64).index_add_(1, torch.from_numpy(shell), power)
    return total.numpy()[:, :-1] / np.bincount(shell, minlength=box // 2 + 2)[:-1]


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


def _check_norm(images: torch.Tensor, radius: float, name: str, warn) -> None:
    """Warn when the backgrounds are not normalised to mean 0 and deviation 1."""
    background = torch.from_numpy(mask.radius_grid(images.shape[1], 2) > radius)
    if not background.any():
        return
    values = images[:, background]
    mean, deviation = values.mean(1), values.std(1)
    bad = ((mean / deviation).abs() > 0.5) | (deviation < 0.5) | (deviation > 2)
    if bad.any():
        k = int(torch.nonzero(bad)[0])
        warn(
            f"{int(bad.sum())} of the first {len(images)} images look un-normalised: a background of mean {float(mean[k]):.3g} and deviation "
            f"{float(deviation[k]):.3g} near {name}, where 0 and 1 are expected. Extract the particles again with normalisation on."
        )


def initial_state(particles: ParticleSet, cache: ImageCache, options: RefineOptions, warn) -> State:
    """Everything before the first iteration."""
    subset = half_sets(particles, options.random_seed)
    first = read_reference(options, particles, half_map_name(options.reference, 1))
    second = read_reference(options, particles, half_map_name(options.reference, 2))
    box, pixel_size = first[0].shape[0], first[1]
    members = np.concatenate([np.flatnonzero(subset == half) for half in (1, 2)])
    sigma2 = noise_spectra(particles, cache, members, box, pixel_size, options, warn)
    grid = _first_sampling(options, pixel_size)
    directions = len(sampling.directions(grid.healpix_order, point_group(grid.symmetry), grid.limit_tilt))
    models = tuple(
        _first_model(volume, pixel_size, sigma2, (subset == half).sum(), directions, particles, options)
        for half, (volume, _) in enumerate((first, second), 1)
    )
    n = particles.count
    poses = Poses(
        particles.angles.astype(float), particles.offsets.astype(float), np.asarray(particles.norm, float).copy(), np.zeros(n), np.zeros(n),
        np.zeros(n, np.int64), np.asarray(particles.class_number).astype(np.int64),
    )  # fmt: skip
    progress = Progress(current_size=box, increment_size=options.increment_size)
    return State(models, poses, grid, progress, subset)


def _first_sampling(options: RefineOptions, pixel_size: float) -> SamplingState:
    reach, step = options.offset_range_pixels * pixel_size, options.offset_step_pixels * pixel_size
    state = SamplingState(
        options.healpix_order, point_group(options.symmetry).name, reach, step, perturbation_factor=options.perturbation_factor,
        oversampling=options.oversampling, limit_tilt=options.limit_tilt, healpix_order_original=options.healpix_order,
        offset_range_original=reach, offset_step_original=step,
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
    tau2 = options.tau2_fudge_used * fourier.power_spectrum(volume) * box**2 / 2
    weight = np.bincount(particles.optics_index, minlength=len(particles.optics)) / particles.count
    noise = weight @ sigma2
    ratio = count * tau2 / np.maximum(noise, 1e-30) / np.maximum(2 * shells, 1)
    zero = np.zeros(len(shells))
    return Model(
        volume.astype(np.float32), pixel_size, sigma2, tau2, ratio, zero, zero, zero, zero, np.ones(len(particles.group_names)),
        np.full(directions, 1 / directions), sigma2_offset=options.sigma_offset**2,
    )  # fmt: skip
