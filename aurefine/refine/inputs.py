"""What a refinement is given, read and checked before any image is: half-sets, references, masks, room for the output (ALGORITHM.md 2.1, 2.2)."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aurefine import maps, mrc
from aurefine.errors import InputError
from aurefine.particles import ParticleSet
from aurefine.refine.maximisation import Masks
from aurefine.refine.options import RefineOptions

_MOST_ENLARGED = 8  # times the box: a reference wider than that has a wrong pixel size
_PARTICLE_BYTES = 500  # a row of the written particle table, at the most


@dataclass(frozen=True, eq=False)
class Inputs:
    """A new run's half-sets [n] (1 or 2), the references of both halves float32 [box, box, box] on one grid, and its pixel size (Angstrom)."""

    random_subset: np.ndarray
    references: tuple[np.ndarray, np.ndarray]
    pixel_size: float

    @property
    def box(self) -> int:
        """Box of the references in pixels."""
        return self.references[0].shape[0]


def read_inputs(particles: ParticleSet, options: RefineOptions, warn: Callable[[str], None]) -> Inputs:
    """Half-sets and references of a new run; InputError for anything that would end it later, warnings for what looks odd."""
    subset = half_sets(particles, options.random_seed)
    first, pixel_size = read_reference(options, particles, half_map_name(options.reference, 1))
    second, _ = read_reference(options, particles, half_map_name(options.reference, 2))
    for optics in particles.optics:
        if options.particle_diameter > optics.box * optics.pixel_size * 1.001:
            warn(
                f"--particle_diameter {options.particle_diameter:g} is wider than the box of optics group {optics.number} "
                f"({optics.box * optics.pixel_size:.0f} A): its images are not masked. Give the diameter of the particle in Angstrom."
            )
    return Inputs(subset, (first, second), pixel_size)


def half_sets(particles: ParticleSet, seed: int) -> np.ndarray:
    """1 or 2 for every particle: those of the file, or a fair coin. InputError when one half would be empty."""
    subset = np.asarray(particles.random_subset)
    if not subset.any():
        subset = 1 + np.random.default_rng(seed).integers(0, 2, particles.count)
        if len(np.unique(subset)) < 2:
            raise InputError(
                f"{particles.path}: {particles.count} particle{'s' * (particles.count > 1)} cannot be divided into two half-sets at random; "
                "gold-standard refinement needs some in each: give more particles."
            )
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
    if len(set(volume.shape)) != 1:
        raise InputError(f"{path}: the reference has {_shape(volume)} voxels; a cubic map was expected. Crop or pad it to a cube.")
    if np.ptp(volume) == 0:
        raise InputError(f"{path}: the reference has the same value everywhere. Give a real map with --ref.")
    if options.reference_pixel_size > 0:
        pixel_size = options.reference_pixel_size
    elif not mrc.read_header(path).states_pixel_size:
        raise InputError(f"{path}: the header gives no pixel size. Give it in Angstrom with --ref_angpix.")
    optics = particles.optics[0]
    if abs(pixel_size - optics.pixel_size) > 0.001 or volume.shape[0] != optics.box:
        _refuse_absurd_extent(path, volume.shape[0] * pixel_size, pixel_size, optics.box * optics.pixel_size, options)
        logging.getLogger(__name__).info("the reference (%d px of %g A) is resampled to the particles' grid", volume.shape[0], pixel_size)
        volume, pixel_size = maps.fit_to(volume, pixel_size, optics.box, optics.pixel_size)
    return np.ascontiguousarray(volume, np.float32), float(pixel_size)


def _refuse_absurd_extent(path: str, extent: float, pixel_size: float, box_extent: float, options: RefineOptions) -> None:
    """InputError for a reference much smaller than the particle or much larger than the particles' box (all in Angstrom)."""
    if extent < 0.5 * options.particle_diameter:
        compared = f"less than half the particle diameter of {options.particle_diameter:.0f} A"
    elif extent > _MOST_ENLARGED * box_extent:
        compared = f"more than {_MOST_ENLARGED} times the particles' box of {box_extent:.0f} A"
    else:
        return
    raise InputError(
        f"{path}: the reference is {extent:.0f} A wide, {compared}. "
        f"Its pixel size ({pixel_size:g} A) is probably wrong: give the true one with --ref_angpix."
    )


def half_map_name(path: str, half: int) -> str:
    """The half-set's own map where the reference's name says it is one of two half maps (ALGORITHM.md 2.2)."""
    folder, _, name = path.rpartition("/")
    for digit in ("1", "2"):
        if f"half{digit}" in name:
            name = name.replace(f"half{digit}", f"half{half}")
            break
    return f"{folder}/{name}" if folder else name


def read_mask(path: str, box: int, pixel_size: float) -> np.ndarray | None:
    """A mask on the model's grid, None without one; InputError for a mask that is no cube, all zero, or has values outside 0..1."""
    if not path or path == "None":
        return None
    volume, own = mrc.read_map(path)
    if volume.shape[0] == box and not mrc.read_header(path).states_pixel_size:
        own = pixel_size  # on the model's grid: nothing says that it is not
    if len(set(volume.shape)) != 1:
        raise InputError(f"{path}: the mask has {_shape(volume)} voxels; a cubic map was expected. Make it from a map of the refinement's box.")
    if volume.min() < -1e-4 or volume.max() > 1 + 1e-4:
        raise InputError(f"{path}: mask values run from {volume.min():g} to {volume.max():g}; 0 to 1 was expected. Make it with relion_mask_create.")
    if volume.max() < 0.5:
        raise InputError(f"{path}: the mask is nowhere above {volume.max():g}; 1 was expected inside the particle. Make it with relion_mask_create.")
    if volume.shape[0] != box or abs(own - pixel_size) > 0.001:
        if not 0.5 < volume.shape[0] * own / (box * pixel_size) < _MOST_ENLARGED:
            raise InputError(
                f"{path}: the mask is {volume.shape[0] * own:.0f} A wide ({own:g} A per voxel), the map {box * pixel_size:.0f} A. "
                "Make it from a map of this refinement."
            )
        volume, _ = maps.fit_to(volume, own, box, pixel_size, round_up=True)
    return np.clip(volume, 0, 1).astype(np.float32)


def read_masks(options: RefineOptions, box: int, pixel_size: float) -> Masks:
    """All masks that the options name."""
    names = (options.solvent_mask, options.solvent_mask2, options.lowpass_mask)
    return Masks(*(read_mask(name, box, pixel_size) for name in names))


def check_room(root: str, box: int, particles: int) -> None:
    """InputError when the disk of the output root has no room for two iterations; the folder must exist."""
    needed = 2 * (3 * 4 * box**3 + _PARTICLE_BYTES * particles)
    free = shutil.disk_usage(Path(root).parent).free
    if free < needed:
        raise InputError(
            f"{Path(root).parent}: {free / 1e6:.0f} MB are free on this disk, two iterations alone take {needed / 1e6:.0f} MB. "
            "Free some space, or choose another place with --o."
        )


def _shape(volume: np.ndarray) -> str:
    return " x ".join(str(size) for size in reversed(volume.shape))
