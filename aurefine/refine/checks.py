"""What an expert looks at before the first iteration and after the last one: the checks of `aurefine.sanity` on a refinement's data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numba
import numpy as np

from aurefine.particles import ParticleSet
from aurefine.refine import crosscheck, messages
from aurefine.refine.inputs import Inputs
from aurefine.refine.maximisation import Masks
from aurefine.refine.options import RefineOptions
from aurefine.refine.state import State
from aurefine.sanity import defocus_range, grey_scale, half_map_fsc, masks, particle_pairs, pixel_sizes, symmetry_axes
from aurefine.threads import use_threads

_LEAKED_SHELLS = 3  # joined shells make those next to them agree too, by interpolation
_IMAGES = 300  # whose grey scale is looked at


def warnings_at_start(particles: ParticleSet, given: Inputs, found: Masks, options: RefineOptions) -> list[str]:
    """Warnings about a new run: of `of_table` and `of_reference`."""
    reference = Reference(given.references[0], given.pixel_size, found.solvent)
    return of_table(particles, given.random_subset, options) + of_reference(particles, particles.read_images, reference, options)


def of_table(particles: ParticleSet, subset: np.ndarray, options: RefineOptions) -> list[str]:
    """Warnings that the particle table alone gives rise to; `subset` [n] are the half-sets (0: not drawn yet)."""
    warnings = particle_pairs.check(particles, subset, options.particle_diameter) + pixel_sizes.check(particles)
    return warnings + (defocus_range.check(particles) if options.ctf_correction else [])


@dataclass(frozen=True, eq=False)
class Reference:
    """A reference [n, n, n] on the grid of the first optics group, its pixel size (Angstrom), and a solvent mask on the same grid."""

    volume: np.ndarray
    pixel_size: float
    mask: np.ndarray | None


def of_reference(particles: ParticleSet, read: Callable[[np.ndarray], np.ndarray], reference: Reference, options: RefineOptions) -> list[str]:
    """Warnings about symmetry and grey scale of a reference, and about the mask; `read(rows)` gives images of the first optics group."""
    volume, pixel_size, name, warnings = reference.volume, reference.pixel_size, options.reference, []
    with use_threads(numba.get_num_threads()):  # turning a map sets that number
        warnings += symmetry_axes.check(volume, pixel_size, options.symmetry, name, options.particle_diameter)
        if reference.mask is not None:
            warnings += masks.check(reference.mask, volume, pixel_size, options.solvent_mask)
        rows = np.flatnonzero(particles.optics_index == 0)[:_IMAGES]
        if not options.first_iteration_cc and len(rows):
            resolution = options.initial_lowpass
            warnings += grey_scale.check(read(rows), rows, particles, volume, options.particle_diameter, resolution, options.ctf_correction, name)
    return warnings


def warnings_at_end(state: State, found: Masks, options: RefineOptions) -> list[str]:
    """Warnings about a converged run: whether its resolution is to be trusted."""
    model, halves = state.halves[0], state.half_maps_unfiltered
    warnings = doubts(state, options)
    with use_threads(numba.get_num_threads()):
        if not options.solvent_correct_fsc:
            warnings += half_map_fsc.check_curve(model.fsc, model.box, model.pixel_size)
        if found.solvent is not None and len(halves) == 2:
            warnings += half_map_fsc.check_mask(*halves, found.solvent, model.pixel_size, abs(options.random_seed))
    return warnings


def doubts(state: State, options: RefineOptions) -> list[str]:
    """Reasons, in plain words, why the resolution of a converged refinement is not to be trusted; none is good news."""
    progress, model, reasons = state.progress, state.halves[0], []
    advice = "Look at the particles, the pixel size, the CTF, the symmetry and the reference."
    claim = f"The resolution of {1 / progress.current_resolution:.1f} A is not to be trusted."
    if model.accuracy_rotation > messages.POOR_ACCURACY:
        found = f"the angular accuracy is {model.accuracy_rotation:.1f} degrees at the end"
        reasons.append(f"the alignment has probably failed: {found}. {claim} {advice}")
    if 0 <= progress.orientations_kept < crosscheck.LEAST_KEPT:
        reasons.append(
            f"the alignment has failed: only {100 * progress.orientations_kept:.0f} % of the particles examined find their orientation again in "
            f"the map of the other half-set. {claim} {advice}"
        )
    extent, joined = model.box * model.pixel_size, max(options.join_halves_resolution, options.initial_lowpass)
    if joined > 0 and progress.current_resolution * extent <= extent / joined + _LEAKED_SHELLS:
        reasons.append(
            f"nothing was refined: beyond {joined:.0f} A, where the half-sets are no longer joined and the reference ends, they do not agree. "
            f"{advice}"
        )
    return reasons
