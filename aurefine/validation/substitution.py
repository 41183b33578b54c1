"""The noise-substitution test: the particles refined again with random phases beyond some resolution, where nothing is left to be found.

Source: Chen et al. (2013), Ultramicroscopy 135, 24. What the half maps of the substituted particles share beyond that resolution was made by
the refinement (and by the mask), not by the molecule: FSC_true = (FSC_t - FSC_n) / (1 - FSC_n).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from aurefine import fft, fourier, fsc
from aurefine.errors import InputError
from aurefine.image_source import ImageSource
from aurefine.job_control import JobControl
from aurefine.particles import ParticleSet
from aurefine.validation.inputs import Given, first_command, refined_particles
from aurefine.validation.options import ValidateOptions
from aurefine.validation.result import Measure, Validation, Verdict

if TYPE_CHECKING:
    from aurefine.refine.options import RefineOptions

CHEN = "Chen et al. 2013"
_KEY, _LABEL = "noise_substitution", "Noise substitution, FSC 0.143"
_RANDOMISE_AT = 0.8  # of the masked FSC; and in any case so much coarser than the resolution:
_AT_LEAST_COARSER = 1.33
_EDGE = 2  # shells beyond the first random one that still take part of their neighbours' signal
_GOOD, _POOR = 0.05, 0.143  # mean FSC of the substituted halves between there and the resolution
_OF_THE_JOB = {"output", "continue_from", "pipeline_control", "threads", "particles", "symmetry"}


@dataclass(frozen=True)
class SubstitutedImages(ImageSource):
    """Images whose phases are random beyond `resolution` (Angstrom); each has its own, the same ones whenever it is read."""

    resolution: float = 0.0
    pixel_sizes: np.ndarray | None = None  # [n] Angstrom
    seeds: np.ndarray | None = None  # [n]

    @classmethod
    def of(cls, images: ImageSource, resolution: float, pixel_sizes: np.ndarray, seed: int) -> SubstitutedImages:
        """The images of a source [n] with random phases."""
        own = {field.name: getattr(images, field.name) for field in fields(ImageSource)}
        return cls(**own, resolution=resolution, pixel_sizes=pixel_sizes, seeds=seed * 1_000_003 + np.arange(images.count))

    def select(self, rows: np.ndarray) -> SubstitutedImages:
        """Those of some particles, by mask or index array."""
        chosen = super().select(rows)
        assert isinstance(chosen, SubstitutedImages) and self.pixel_sizes is not None and self.seeds is not None
        return replace(chosen, pixel_sizes=self.pixel_sizes[rows], seeds=self.seeds[rows])

    def read(self, indices: np.ndarray) -> np.ndarray:
        """As `ImageSource.read`."""
        assert self.pixel_sizes is not None and self.seeds is not None
        rows = np.atleast_1d(np.asarray(indices, dtype=np.int64))
        images = super().read(rows)
        for image, row in zip(images, rows.tolist(), strict=True):
            shell = image.shape[-1] * float(self.pixel_sizes[row]) / self.resolution
            image[:] = random_phases(image, shell, np.random.default_rng(self.seeds[row]))
        return images


def random_phases(image: np.ndarray, from_shell: float, rng: np.random.Generator) -> np.ndarray:
    """An image [n, n] whose Fourier coefficients beyond a shell keep their amplitudes and take the phases of white noise; float32."""
    n = image.shape[0]
    transform = fft.rfftn(image, norm="forward", workers=1)
    noise = fft.rfftn(rng.standard_normal(image.shape, dtype=np.float32), norm="forward", workers=1)
    beyond = np.hypot(np.arange(n // 2 + 1)[None, :], fourier.frequencies(n)[:, None]) >= from_shell
    transform[beyond] = np.abs(transform[beyond]) * noise[beyond] / np.maximum(np.abs(noise[beyond]), 1e-30)
    return fft.irfftn(transform, image.shape, norm="forward", workers=1)


def true_fsc(found: np.ndarray, substituted: np.ndarray, from_shell: int) -> np.ndarray:
    """(FSC_t - FSC_n) / (1 - FSC_n) beyond the shell where phases become random (and two more), FSC_t before; negative FSC_n count as 0."""
    result = np.array(found, dtype=np.float64)
    tail = slice(from_shell + _EDGE, None)
    noise = np.clip(substituted[tail], 0.0, 1 - 1e-6)
    result[tail] = (found[tail] - noise) / (1 - noise)
    return result


def measure(found: Validation, given: Given, options: ValidateOptions, control: JobControl) -> None:
    """Row `noise_substitution` and the curves of the same name; nothing unless it was asked for."""
    if not options.noise_substitution:
        return
    masked = found.curves.get("fsc", {}).get("masked")
    if given.halves is None or given.mask is None or masked is None:
        return found.missing(_LABEL, _KEY, f"{given.files.name}: there are no unfiltered half maps", CHEN)
    extent = given.halves.box * given.halves.pixel_size
    reached = extent / fsc.resolution_at(masked, 0.143, given.halves.box, given.halves.pixel_size)
    shell = from_shell(masked, reached, extent, options.substitute_from)
    if shell + _EDGE >= reached:
        return found.missing(_LABEL, _KEY, f"phases would be random from {extent / max(shell, 1):.1f} A on, but the half maps only reach "
                             f"{extent / reached:.1f} A: give a coarser --substitute_from", CHEN)  # fmt: skip
    try:
        particles, refinement = plan(given, options, extent / shell)
    except InputError as error:  # as for ResLog: maps can be validated where the images have been left behind
        return found.missing(_LABEL, _KEY, str(error), CHEN)
    halves = _refine(particles, refinement, control)
    if halves[0].shape != masked.shape and halves[0].shape != given.mask.shape:
        return found.missing(_LABEL, _KEY, f"the new half maps have a box of {len(halves[0])}, those of the run {given.halves.box}", CHEN)
    _keep(found, given, masked, fsc.of_maps(*(half * given.mask for half in halves)), shell, reached, options)
    return None


def from_shell(masked: np.ndarray, reached: float, extent: float, asked: float) -> int:
    """First shell with random phases: that of the resolution asked for (Angstrom), else where the FSC falls below 0.8, but well before its end."""
    if asked > 0:
        return int(extent / asked + 0.5)
    falls = fsc.first_below(masked, _RANDOMISE_AT)
    latest = int(reached / _AT_LEAST_COARSER)
    return max(1, min(falls, latest) if falls > 0 else latest)


def plan(given: Given, options: ValidateOptions, resolution: float) -> tuple[ParticleSet, RefineOptions]:
    """Particles with random phases beyond `resolution` (Angstrom) and the options to refine them with: those of the run, or local searches alone.

    InputError where the run's command line, its particles or (from the start) its reference are not there.
    """
    from aurefine.refine.options import RefineOptions, validate

    if options.read_command_line is None:
        raise InputError("the refinement's command line cannot be read here")
    values = options.read_command_line(first_command(given))
    own = {field.name for field in fields(RefineOptions)} - _OF_THE_JOB
    run = replace(RefineOptions(), **{name: value for name, value in values.items() if name in own}, symmetry=given.symmetry)
    found = refined_particles(given)
    if not found.random_subset.any():
        raise InputError(f"{given.files.data}: no rlnRandomSubset: without the run's half-sets the halves would not be the same")
    if options.substitute_from_start:  # the poses were found with the phases that are taken away
        found = replace(found, angles=np.zeros_like(found.angles), offsets=np.zeros_like(found.offsets))
    else:
        assert given.halves is not None
        run = replace(run, reference=given.halves.names[0], reference_pixel_size=given.halves.pixel_size, initial_lowpass=resolution,
                      first_iteration_cc=False, healpix_order=run.local_healpix_order)  # fmt: skip
    # An output has to be named to be valid, but none is written.
    run = replace(run, particles=given.files.data, threads=max(1, options.threads), random_seed=max(0, run.random_seed))
    run = validate(replace(run, output="validation"))
    pixel_sizes = np.array([optics.pixel_size for optics in found.optics])[found.optics_index]
    images, others = (
        None if source is None else SubstitutedImages.of(source, resolution, pixel_sizes, options.random_seed)
        for source in (found.images, found.reconstruct_images)
    )
    assert images is not None
    return replace(found, images=images, reconstruct_images=others), replace(run, output="")


def _refine(particles: ParticleSet, options: RefineOptions, control: JobControl) -> tuple[np.ndarray, np.ndarray]:
    from aurefine.refine.loop import refine  # torch

    print(f" Noise substitution: {particles.count} particles are refined again, without files of their own ...", flush=True)
    result = refine(particles, options.reference, options, control=control)
    if len(result.half_maps) == 2:
        return result.half_maps[0], result.half_maps[1]
    return result.state.halves[0].map, result.state.halves[1].map  # it did not converge within --auto_iter_max


def _keep(found: Validation, given: Given, masked: np.ndarray, substituted: np.ndarray, shell: int, reached: float, options: ValidateOptions) -> None:
    assert given.halves is not None
    halves = given.halves
    extent = halves.box * halves.pixel_size
    true = true_fsc(masked, substituted, shell)
    frequency = np.arange(halves.box // 2 + 1) / extent
    found.curves["noise_substitution"] = {"frequency": frequency, "found": masked, "substituted": substituted, "true": true}
    between = substituted[shell + _EDGE : max(shell + _EDGE + 1, int(reached) + 1)]
    shared = float(between.mean())
    verdict: Verdict = "good" if shared < _GOOD else "poor" if shared >= _POOR else "warning"
    words = "nothing was made of noise" if shared < _GOOD else "half maps agree where there is nothing but noise: the resolution is too good"
    how = "refined from the start" if options.substitute_from_start else "local searches from the poses found"
    reaches = fsc.resolution_at(true, 0.143, halves.box, halves.pixel_size)
    found.add(Measure(_KEY, _LABEL, reaches, "A", verdict, f"{words} (mean FSC {shared:.3f} of substituted halves, phases random beyond "
                      f"{extent / shell:.1f} A, {how})", CHEN))  # fmt: skip
