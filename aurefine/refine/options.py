"""What the user asked of a refinement: one frozen dataclass, its defaults those of RELION's command line."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path

from aurefine.errors import InputError
from aurefine.symmetry import point_group


@dataclass(frozen=True)
class RefineOptions:
    """Everything that is set before a refinement starts (ALGORITHM.md 10.1 and 11).

    A negative number means "not set" where RELION has it so. Lengths are Angstrom and angles degrees unless a name says otherwise.
    """

    # files
    particles: str = ""  # particle STAR file
    output: str = ""  # root of all output names, such as Refine3D/job019/run
    reference: str = ""
    solvent_mask: str = ""
    solvent_mask2: str = ""
    continue_from: str = ""  # _optimiser.star of an earlier iteration
    # reference
    first_iteration_cc: bool = False  # first iteration by cross-correlation: the reference is not on the absolute grey scale
    initial_lowpass: float = -1.0
    symmetry: str = "C1"
    relax_symmetry: str = ""  # point group whose mates local searches look at as well
    reference_pixel_size: float = -1.0  # overrides the MRC header
    # CTF
    ctf_correction: bool = False
    ctf_intact_first_peak: bool = False
    reference_ctf_corrected: bool = True  # False: iteration 1 compares with a reference that still has the CTF on it
    ctf_phase_flipped: bool = False
    only_flip_phases: bool = False
    # optimisation
    particle_diameter: float = -1.0
    zero_mask: bool = False
    mask_edge_pixels: int = 5
    flatten_solvent: bool = False
    solvent_correct_fsc: bool = False
    lowpass_mask: str = ""  # mask inside which the reference is low-pass filtered, to `lowpass_mask_resolution`
    lowpass_mask_resolution: float = 0.0
    norm_correction: bool = False
    scale_correction: bool = False
    join_halves_resolution: float = -1.0  # both halves share their map up to this resolution
    tau2_fudge: float = -1.0  # -1: 1
    map_regularisation: bool = True
    minimum_map_shells: int = 5  # shells below this one are not regularised
    increment_size: int = 10  # shells beyond the current resolution that are looked at
    max_expectation_resolution: float = -1.0  # never look beyond this resolution
    min_expectation_resolution: float = -1.0  # never look below this resolution
    coarse_size: int = -1  # pixels
    accuracy_current_size: bool = False  # accuracies at the current size although max_expectation_resolution is set
    use_all_data: bool = False  # always look to Nyquist
    initial_noise_spectrum: str = ""  # STAR file
    initial_tau2_spectrum: str = ""  # STAR file
    noise_particles: int = -1  # particles per optics group for the initial noise spectra; -1: 1000
    fix_sigma_noise: bool = False
    fix_sigma_offset: bool = False
    sigma2_fudge: float = 1.0
    sigma_offset: float = 10.0
    min_sigma2_offset: float = 2.0  # Angstrom^2
    check_norm: bool = True
    # angular and translational sampling
    healpix_order: int = 2
    local_healpix_order: int = 4  # from this coarse order on, searches are local
    oversampling: int = 1
    psi_step: float = -1.0  # of the first grid; negative: that of healpix_order
    offset_range_pixels: float = 6.0
    offset_step_pixels: float = 2.0
    offset_range_x: float = -1.0  # three times the width of the offset prior along x; negative: learned
    offset_range_y: float = -1.0
    perturbation_factor: float = 0.5
    adaptive_fraction: float = 0.999
    max_significant: int = -1
    minimum_angular_sampling: float = 0.0  # go on until the step is at least this fine, whatever the accuracy (0: off)
    maximum_angular_sampling: float = 0.0  # go no further once the step is finer than this (0: off)
    ignore_angle_changes: bool = False  # --auto_ignore_angles
    sampling_from_resolution: bool = False  # --auto_resol_angles
    sigma_angle: float = -1.0  # width of the priors of local searches, from the first iteration on
    limit_tilt: float = -91.0
    # schedule
    max_iterations: int = 999
    random_seed: int = -1  # -1: from the clock
    force_converge: bool = False  # with continue_from: the next iteration is the last
    join_random_halves: bool = False  # with continue_from: both halves share one map from now on
    # durability
    resume: bool = False  # go on from what an earlier run of the same command line has finished
    checkpoint_minutes: float = 30.0  # between two checkpoints within an iteration; 0: none
    memory_gb: float = 0.0  # what the process may take; 0: what is there
    scratch_dir: str = ""  # folder for a copy of the images, which are read from there then; "": in memory where they fit
    keep_free_scratch_gb: float = 10.0  # of that folder's disk
    watchdog_minutes: float = 120.0  # without any progress, after which the run is ended; 0: never
    # projector
    padding: float = 2.0
    skip_gridding: bool = True
    gridding_iterations: int = 10
    # compute
    threads: int = 1  # 1: all cores
    full_precision: bool = False  # no bfloat16 or TF32 in the coarse pass
    processes: int = 0  # on this machine; 0: one for each GPU that is named, else one
    gpu: str | None = None  # None: no GPU; "": all; else their numbers, such as "0:1" or "0,1"
    verbosity: int = 1
    pipeline_control: str = ""  # directory of the exit files
    command_line: str = ""  # the arguments as given, for the second line of _optimiser.star

    @property
    def tau2_fudge_used(self) -> float:
        """The regularisation parameter T: 1 where it was not set."""
        return self.tau2_fudge if self.tau2_fudge > 0 else 1.0

    def seeded(self) -> RefineOptions:
        """The same options with a seed taken from the clock where none was given."""
        return self if self.random_seed >= 0 else replace(self, random_seed=int(time.time()))

    @property
    def gpu_numbers(self) -> tuple[int, ...] | None:
        """The GPUs to use: None for no GPU, an empty tuple for all there are."""
        if self.gpu is None:
            return None
        return tuple(dict.fromkeys(int(number) for number in self.gpu.replace(":", ",").split(",") if number.strip()))


_LIMITS = (  # field, flag, smallest, largest, what it is
    ("healpix_order", "--healpix_order", 0, 8, "HEALPix order"),
    ("local_healpix_order", "--auto_local_healpix_order", 0, 12, "HEALPix order"),
    ("oversampling", "--oversampling", 0, 3, "oversampling order"),
    ("adaptive_fraction", "--adaptive_fraction", 1e-6, 1.0, "fraction"),
    ("perturbation_factor", "--perturb", 0.0, 1.0, "fraction of the sampling step"),
    ("offset_range_pixels", "--offset_range", 0.0, 1000.0, "number of pixels"),
    ("offset_step_pixels", "--offset_step", 1e-3, 1000.0, "number of pixels"),
    ("sigma_offset", "--offset", 0.0, 1e6, "number of Angstrom"),
    ("psi_step", "--psi_step", -1e9, 180.0, "number of degrees"),
    ("padding", "--pad", 1.0, 4.0, "padding factor"),
    ("threads", "--j", 1, 4096, "number of threads"),
    ("processes", "--processes", 0, 1024, "number of processes"),
    ("max_iterations", "--auto_iter_max", 1, 100000, "number of iterations"),
    ("mask_edge_pixels", "--maskedge", 0, 1000, "number of pixels"),
    ("sigma2_fudge", "--sigma2_fudge", 1e-9, 1e9, "factor"),
    ("minimum_map_shells", "--minres_map", 0, 100000, "shell number"),
    ("checkpoint_minutes", "--checkpoint", 0.0, 1e6, "number of minutes"),
    ("memory_gb", "--memory", 0.0, 1e6, "number of GB"),
    ("keep_free_scratch_gb", "--keep_free_scratch", 0.0, 1e9, "number of GB"),
    ("watchdog_minutes", "--watchdog", 0.0, 1e6, "number of minutes"),
    ("gridding_iterations", "--gridding_iter", 1, 1000, "number of iterations"),
)


def notes(options: RefineOptions) -> list[str]:
    """A line for each option that has consequences one may not think of."""
    if options.join_random_halves:
        return ["--join_random_halves: both half-sets share one map from now on, so that the FSC between them is no longer a gold standard"]
    return []


def validate(options: RefineOptions) -> RefineOptions:
    """The same options; raises InputError for what can be seen to be wrong at once, missing files included."""
    validate_values(options)
    if not options.continue_from:
        _validate_new(options)
    masks = (("--solvent_mask", options.solvent_mask), ("--solvent_mask2", options.solvent_mask2), ("--lowpass_mask", options.lowpass_mask))
    spectra = (("--sigma", options.initial_noise_spectrum), ("--tau", options.initial_tau2_spectrum))
    for flag, path in (*masks, *spectra, ("--continue", options.continue_from)):
        _must_exist(flag, path)
    return options


def validate_values(options: RefineOptions) -> None:
    """Raise InputError for numbers out of their range, unknown point groups, GPU names and options that need others."""
    for field in fields(options):
        if isinstance(value := getattr(options, field.name), float) and not math.isfinite(value):
            raise InputError(f"{field.name} is {value}: a finite number was expected.")
    for name, flag, smallest, largest, what in _LIMITS:
        value = getattr(options, name)
        if not smallest <= value <= largest:
            raise InputError(f"{flag} {value:g}: a {what} between {smallest:g} and {largest:g} was expected.")
    _validate_gpu(options)
    if options.output.endswith("/"):
        raise InputError(f"--o {options.output}: a folder; the beginning of all file names was expected as well, such as {options.output}run.")
    point_group(options.symmetry)
    if options.relax_symmetry:
        point_group(options.relax_symmetry)
    if options.join_random_halves and not options.continue_from:
        raise InputError("--join_random_halves goes with --continue: a new run starts with two independent half-sets.")
    if options.lowpass_mask and options.lowpass_mask_resolution <= 0:
        raise InputError("--lowpass_mask needs the resolution (Angstrom) up to which density inside it is kept: give it with --lowpass.")
    if options.solvent_correct_fsc and not options.solvent_mask:
        raise InputError("--solvent_correct_fsc needs a mask: give one with --solvent_mask, or leave the option out.")


def _validate_new(options: RefineOptions) -> None:
    if not options.particles:
        raise InputError("No particles: give their STAR file with --i.")
    if not options.output:
        raise InputError("No output name: give a root such as Refine3D/job001/run with --o.")
    if not options.reference or options.reference == "None":
        raise InputError("No reference: give a map (.mrc) with --ref. A refinement without a reference is not supported.")
    _must_exist("--i", options.particles)
    _must_exist("--ref", options.reference)


def _must_exist(flag: str, path: str) -> None:
    if path and path != "None" and not Path(path).is_file():
        raise InputError(f"{flag} {path}: there is no such file. Check the name; relative names start from {Path.cwd()}.")


def _validate_gpu(options: RefineOptions) -> None:
    try:
        options.gpu_numbers  # noqa: B018  (parsing is the check)
    except ValueError as error:
        raise InputError(f'--gpu {options.gpu}: GPU numbers such as "0" or "0:1" were expected.') from error
