"""What a refinement knows between two iterations: small frozen dataclasses that are passed on, never globals.

Shells run from 0 to box/2 (arrays of length box//2 + 1); lengths are Angstrom and angles degrees unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Model:
    """Everything estimated for one half-set (or, at the end, for all particles)."""

    map: np.ndarray  # [box, box, box] float32, real space, (z, y, x)
    pixel_size: float
    sigma2_noise: np.ndarray  # [optics groups, shells] noise power (per real or imaginary part)
    tau2: np.ndarray  # [shells] signal power
    data_vs_prior: np.ndarray  # [shells] spectral signal-to-noise ratio of the map
    fsc: np.ndarray  # [shells] gold-standard Fourier shell correlation
    sigma2_reference: np.ndarray  # [shells] noise power of the reconstruction
    fourier_coverage: np.ndarray  # [shells]
    orientability: np.ndarray  # [shells] share of each shell in the angular accuracy
    group_scale: np.ndarray  # [groups] grey-scale factor of each micrograph group
    pdf_direction: np.ndarray  # [directions] prior of each HEALPix direction in the asymmetric unit
    average_norm: float = 1.0
    sigma2_offset: float = 100.0  # Angstrom^2
    average_pmax: float = 0.0
    log_likelihood: float = 0.0
    accuracy_rotation: float = 999.0  # degrees
    accuracy_translation: float = 999.0  # Angstrom

    @property
    def box(self) -> int:
        """Box size in pixels."""
        return self.map.shape[0]


@dataclass(frozen=True)
class Poses:
    """Per-particle hidden variables and what the last expectation said of them (all arrays of length n)."""

    angles: np.ndarray  # [n, 3] rot, tilt, psi in degrees
    offsets: np.ndarray  # [n, 2] Angstrom, to be applied to the image (rlnOriginX/YAngst)
    norm: np.ndarray  # [n] rlnNormCorrection
    pmax: np.ndarray  # [n] rlnMaxValueProbDistribution
    log_likelihood: np.ndarray  # [n] rlnLogLikeliContribution
    significant: np.ndarray  # [n] int, rlnNrOfSignificantSamples
    class_number: np.ndarray  # [n] int, 0 before the first iteration, then 1
    signal_fit: np.ndarray  # [n] strength of the model's projection in the image, 1 where it is the model's own; 0 before the first iteration

    def of(self, rows: np.ndarray) -> Poses:
        """Those of some particles, by mask or index array."""
        return Poses(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def copied(self) -> Poses:
        """The same in arrays of their own, for an iteration to write into."""
        return Poses(*(np.array(getattr(self, name)) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class SamplingState:
    """The orientational and translational grid of an iteration (RELION's _sampling.star)."""

    healpix_order: int
    symmetry: str
    offset_range: float  # Angstrom
    offset_step: float  # Angstrom, before oversampling
    perturbation: float = 0.0  # rlnSamplingPerturbInstance
    perturbation_factor: float = 0.5
    oversampling: int = 1
    limit_tilt: float = -91.0
    local: bool = False  # local searches with Gaussian priors on the angles
    sigma_angle: float = 0.0  # degrees, width of those priors (rot, tilt and psi alike)
    healpix_order_original: int = 2
    offset_range_original: float = 0.0
    offset_step_original: float = 0.0
    psi_step: float = 0.0  # in-plane step of the coarse grid, 0 for that of the order
    relax_symmetry: str = ""  # a point group whose mates local searches look at as well, "" for none

    @property
    def grid_symmetry(self) -> str:
        """Point group whose asymmetric unit the grid covers: a relaxed symmetry needs all directions."""
        return "C1" if self.relax_symmetry else self.symmetry

    @property
    def coarse_step(self) -> float:
        """Angular step of the coarse grid, degrees."""
        return 360.0 / (6 * 2**self.healpix_order)

    @property
    def fine_step(self) -> float:
        """Angular step after oversampling, degrees."""
        return 360.0 / (6 * 2 ** (self.healpix_order + self.oversampling))


@dataclass(frozen=True)
class Progress:
    """Where the run stands: counters and verdicts of the automatic schedule (ALGORITHM.md 5)."""

    iteration: int = 0
    current_resolution: float = 0.0  # 1/Angstrom
    best_resolution: float = 0.0  # 1/Angstrom
    current_size: int = 0  # pixels
    iterations_without_resolution_gain: int = 0
    iterations_without_large_changes: int = 0
    changes_angles: float = 999.0
    changes_offsets: float = 999.0
    changes_classes: float = 9999999.0
    smallest_changes_angles: float = 999.0
    smallest_changes_offsets: float = 999.0
    smallest_changes_classes: int = 9999999
    has_fine_enough: bool = False
    has_high_fsc_at_limit: bool = False
    has_converged: bool = False
    increment_size: int = 10  # shells
    accuracy_rotation: float = 999.0
    accuracy_translation: float = 999.0
    orientations_kept: float = -1.0  # share of particles found again in the other half-set's map (crosscheck.py); -1: not examined


@dataclass(frozen=True)
class State:
    """A whole refinement between two iterations: enough to write every file and to continue exactly."""

    halves: tuple[Model, ...]  # two models, or one after the halves have been joined
    poses: Poses
    sampling: SamplingState
    progress: Progress
    random_subset: np.ndarray  # [n] 1 or 2
    half_maps_unfiltered: tuple[np.ndarray, ...] = field(default=())  # only with a solvent-corrected FSC, or at the end
