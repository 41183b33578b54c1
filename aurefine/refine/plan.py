"""What one iteration will do: image sizes, grids of rotations and shifts, geometry of every optics group (ALGORITHM.md 1.6, 4.1-4.6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from numba import njit, prange

from aurefine import sampling
from aurefine.errors import InputError
from aurefine.fourier import pixels_per_shell, power_spectrum, round_half_away
from aurefine.kernels import Volume
from aurefine.optics import OpticsGroup
from aurefine.refine import devices, maps_torch
from aurefine.refine.options import RefineOptions
from aurefine.refine.state import Model, Progress, SamplingState
from aurefine.symmetry import point_group

_NO_INFORMATION = 1e-3  # share of it; without it angles are determined less accurately by half of that


@dataclass(frozen=True, eq=False)
class Geometry:
    """How an optics group's images relate to the model: scale = (box * pixel size of the group) / (that of the model)."""

    box: int
    pixel_size: float
    scale: float
    magnification: np.ndarray  # [2, 2]

    def model_shell(self, image_shell: np.ndarray, shells: int) -> np.ndarray:
        """Model shell of each image shell; `shells` for those beyond the model."""
        return np.minimum((image_shell / self.scale + 0.5).astype(np.int64), shells)

    def pixels_per_model_shell(self, shells: int) -> np.ndarray:
        """float64 [shells]: image pixels that fall into each model shell, as many as there would be in an image as wide as the model.

        A wider image has more pixels, but tells no more: what lies around the particle is masked. Sums over its pixels, divided by these numbers,
        count as much as those over an image of the model's width.
        """
        per_image_shell = pixels_per_shell(self.box)
        found = np.bincount(self.model_shell(np.arange(len(per_image_shell)), shells), per_image_shell, shells + 1)[:shells]
        return found / self.scale**2

    def image_power(self, sigma2: np.ndarray) -> np.ndarray:
        """float64 [box/2+1]: power of a single pixel in each image shell where the model's noise spectrum is sigma2 [shells]."""
        return sigma2[self.model_shell(np.arange(self.box // 2 + 1), len(sigma2) - 1)] / self.scale**2

    def stretch(self, volume: Volume) -> np.ndarray:
        """float64 [2, 2]: image frequency to padded voxels before the rotation (ALGORITHM.md 1.6, 3.2)."""
        return self.magnification * (volume.padding / self.scale)


@dataclass(frozen=True, eq=False)
class Plan:
    """One iteration's settings, decided before its first image is read."""

    iteration: int
    sampling: SamplingState
    current_size: int  # model pixels
    image_sizes: tuple[tuple[int, int, int], ...]  # (current, coarse, aligned) of every optics group
    geometry: tuple[Geometry, ...]
    correlation: bool = False  # first iteration by cross-correlation
    reference_has_ctf: bool = False  # first iteration with a reference that is not CTF-corrected: compared as it is, maps are made with the CTF
    final: bool = False
    reduced_precision: bool = True  # screening in bfloat16 on a CPU, products in TF32 on a GPU
    relion_offset_prior: bool = False  # only to compare with RELION's own iterations
    oversampling: tuple[int, int] | None = None  # of rotations and of shifts, where they are not both the sampling's own
    least_share: float = 0.02  # of a particle's weight: slices of less are drawn by lot (thinning.py); 0: all are summed
    compared_size: int = 0  # model pixels; 0: current_size. Beyond it the references hold nothing

    @property
    def reference_size(self) -> int:
        """Image size (model pixels) up to which references are projected."""
        return self.compared_size or self.current_size

    @property
    def rounds_products(self) -> bool:
        """Whether a GPU's products with the whole grid may be rounded: only where a fine pass follows, which decides."""
        return self.reduced_precision and (self.oversampling or (self.sampling.oversampling, self.sampling.oversampling)) != (0, 0)

    @property
    def grid(self) -> Grid:
        """The rotations and shifts to look at."""
        return Grid(self.sampling, self.oversampling)

    def oversampled(self, rotations: int, shifts: int) -> Plan:
        """The plan with these orders of oversampling; without any, the coarse pass is the only one and sees all frequencies."""
        sizes = self.image_sizes
        if not rotations and not shifts:
            sizes = tuple((current, aligned, aligned) for current, _, aligned in sizes)
        return replace(self, oversampling=(rotations, shifts), image_sizes=sizes)

    def comparing(self, shells: int) -> Plan:
        """The plan with images compared up to that model shell only; what goes into the map stays."""
        return replace(self, compared_size=min(2 * shells, self.current_size))

    def compared(self, size: int, group: int) -> int:
        """The image size at which images of a group are compared, where `size` is asked for: no larger than the references."""
        return min(size, 2 * math.ceil(0.5 * self.geometry[group].scale * self.reference_size - 1e-9))

    def shift_radians(self, shifts: np.ndarray, group: int) -> np.ndarray:
        """Translations [t, 2] in Angstrom as float32 radians per unit of frequency of the group's images."""
        geometry = self.geometry[group]
        return (2 * np.pi * shifts / (geometry.pixel_size * geometry.box)).astype(np.float32)


class Grid:
    """The rotations and shifts of an iteration: coarse ones, and the children of any of them."""

    def __init__(self, state: SamplingState, oversampling: tuple[int, int] | None = None) -> None:
        self.state = state
        self.rotation_oversampling, self.shift_oversampling = oversampling or (state.oversampling, state.oversampling)
        self.mates = point_group(state.relax_symmetry or state.symmetry)
        self.directions = sampling.directions(state.healpix_order, state.grid_symmetry, state.limit_tilt)
        self.psi = sampling.psi_angles(state.healpix_order, state.psi_step)
        self.n_psi = len(self.psi)
        self.turn = state.perturbation * state.coarse_step
        self.rotation_children = 8**self.rotation_oversampling
        self.shift_children = 4**self.shift_oversampling
        self.children = self.rotation_children * self.shift_children
        self.coarse_shifts_unperturbed = sampling.translations(state.offset_range, state.offset_step)
        moved = lambda shifts: sampling.perturb_translations(shifts, state.perturbation, state.offset_step)  # noqa: E731
        self.coarse_shifts = moved(self.coarse_shifts_unperturbed)
        self.fine_shifts = moved(sampling.oversample_translations(self.coarse_shifts_unperturbed, state.offset_step, self.shift_oversampling))

    @property
    def coarse_count(self) -> int:
        """Number of coarse rotations."""
        return len(self.directions) * self.n_psi

    @cached_property
    def coarse_rotations(self) -> np.ndarray:
        """float64 [rotations, 3, 3] of the whole coarse grid."""
        return sampling.coarse_rotations(self.directions, self.psi, self.turn)

    def near(self, angles: np.ndarray) -> sampling.LocalCandidates:
        """The coarse rotations near poses [n, 3] (degrees) that a local search looks at, with their priors."""
        state = self.state
        return sampling.local_candidates(angles, self.directions, self.mates, state.healpix_order, state.sigma_angle, self.n_psi)

    def rotation_of(self, coarse: np.ndarray) -> np.ndarray:
        """float64 [k, 3, 3] of coarse rotations given by index."""
        return self._children(coarse, 0)

    def fine_rotations(self, coarse: np.ndarray) -> np.ndarray:
        """float64 [k * children, 3, 3]: all children of coarse rotations given by index."""
        return self._children(coarse, self.rotation_oversampling)

    def _children(self, coarse: np.ndarray, oversampling: int) -> np.ndarray:
        state = self.state
        return sampling.fine_rotations(state.healpix_order, self.directions, coarse, self.turn, oversampling, state.psi_step).reshape(-1, 3, 3)

    def fine_rotations_of(self, fine: np.ndarray) -> np.ndarray:
        """float64 [k, 3, 3] of fine rotations given by coarse index * children + child."""
        coarse, where = np.unique(fine // self.rotation_children, return_inverse=True)
        return self.fine_rotations(coarse)[where * self.rotation_children + fine % self.rotation_children]


def slice_matrices(rotations: np.ndarray, volume: Volume, geometry: Geometry) -> np.ndarray:
    """float32 [n, 3, 2]: image frequency to padded voxel, the inverse rotation with padding, scale and magnification (ALGORITHM.md 1.6, 3.2)."""
    out = np.empty((len(rotations), 3, 2), np.float32)
    _slice_matrices(rotations, geometry.stretch(volume), out)
    return out


@njit(nogil=True, parallel=True, cache=True)
def _slice_matrices(rotations, stretch, out):
    for n in prange(len(out)):
        for axis in range(3):
            a, b = rotations[n, 0, axis], rotations[n, 1, axis]
            out[n, axis, 0] = a * stretch[0, 0] + b * stretch[1, 0]
            out[n, axis, 1] = a * stretch[0, 1] + b * stretch[1, 1]


def geometry_of(optics: OpticsGroup, box: int, pixel_size: float) -> Geometry:
    """Geometry of an optics group against a model of that box and pixel size."""
    magnification = np.asarray(optics.magnification, float).reshape(2, 2)
    return Geometry(optics.box, optics.pixel_size, optics.box * optics.pixel_size / (box * pixel_size), magnification)


def current_image_size(progress: Progress, average_pmax: float, box: int, pixel_size: float) -> int:
    """Image size (model pixels, even) that this iteration looks at (ALGORITHM.md 4.3)."""
    if progress.has_converged:
        return box
    shell = int(round_half_away(progress.current_resolution * box * pixel_size))
    generous = average_pmax > 0.1 and progress.has_high_fsc_at_limit
    shell += int(round_half_away(0.25 * box / 2)) if generous else progress.increment_size
    return min(2 * shell, box)


def shells_with_signal(models: Sequence[Model], device: torch.device) -> int:
    """The last model shell that tells anything about orientations: all beyond hold less than `_NO_INFORMATION` of the angular information.

    That is the sum of k^2 |A|^2 / sigma^2 over pixels. Maps are empty beyond the image size that they were made from, but for what the solvent
    mask spreads; only the last iteration looks further.
    """
    last = 1
    spectrum = power_spectrum if devices.compiled(device) else partial(maps_torch.power_spectrum, device=device)
    for model in models:
        box = model.box
        noise = np.where(model.sigma2_noise > 0, model.sigma2_noise, np.inf).min(0)
        information = spectrum(model.map) * np.arange(box // 2 + 1) ** 2 * pixels_per_shell(box) / np.maximum(noise, 1e-30)
        beyond = np.cumsum(information[::-1])[::-1]
        last = max(last, int(np.count_nonzero(beyond > _NO_INFORMATION * beyond[0])) - 1)
    return last


def shells_left_out(options: RefineOptions, extent: float, current_size: int) -> int:
    """Shells at the origin that the projector leaves out (--strict_lowres_exp), 0 for none; `extent` is the box in Angstrom.

    Raises InputError when nothing would be left to align to.
    """
    limit = options.min_expectation_resolution
    shells = int(round_half_away(extent / limit)) if limit > 0 else 0
    if shells >= current_size // 2:
        raise InputError(
            f"--strict_lowres_exp {limit:g}: nothing is left to align to, this iteration looks at resolutions to {2 * extent / current_size:.1f} A. "
            "Give a lower resolution (a larger number), or a higher --ini_high (a smaller one)."
        )
    return shells


def image_sizes(
    options: RefineOptions, geometry: Geometry, current_size: int, coarse_step: float, box: int, pixel_size: float
) -> tuple[int, int, int]:
    """Even image sizes of an optics group in its own pixels (ALGORITHM.md 4.3).

    Returns: (current: what goes into the map, coarse: what the coarse pass compares, aligned: what the fine pass compares). Aligned is
    current but for --strict_highres_exp, which limits both comparisons and leaves the map alone.
    """
    even = lambda half: 2 * math.ceil(half - 1e-9)  # noqa: E731
    current = min(geometry.box, even(0.5 * geometry.scale * current_size))
    if options.max_expectation_resolution > 0:
        limited = min(current, 2 * int(round_half_away(geometry.scale * box * pixel_size / options.max_expectation_resolution)))
        if limited < 2:
            raise InputError(
                f"--strict_highres_exp {options.max_expectation_resolution:g}: images of {geometry.box * geometry.pixel_size:.0f} A hold nothing "
                "as coarse, so that nothing is left to align to. Give a higher resolution (a smaller number)."
            )
        return current, limited, limited
    if options.oversampling == 0:
        return current, current, current
    finest = coarse_step / 360 * math.pi * options.particle_diameter / 1.2
    coarse = even(geometry.scale * pixel_size * box / finest)
    if options.coarse_size > 0:
        coarse = min(coarse, even(0.5 * geometry.scale * options.coarse_size))
    return current, min(coarse, current), current
