"""Every flag of RELION's refinement program: what it sets here, why it has no effect, or why it is refused (ALGORITHM.md 11)."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from aurefine.jobs.options import Effect, Kind, Option
from aurefine.refine.options import RefineOptions

_DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(RefineOptions)}
_TYPES: dict[str, str] = {field.name: str(field.type) for field in fields(RefineOptions)}
_KINDS: dict[str, Kind] = {"bool": "switch", "int": "int", "float": "float", "str": "text", "str | None": "optional_text"}

Row = tuple[str, str, str, str]  # flag, field of RefineOptions, unit, help

IO: tuple[Row, ...] = (
    ("--i", "particles", "", "Particles: a STAR file with their images, micrographs and CTF"),
    ("--o", "output", "", "Root of the output names, such as Refine3D/job019/run"),
    ("--ref", "reference", "", "Reference map (.mrc)"),
    ("--continue", "continue_from", "", "Go on after an earlier iteration: its _optimiser.star (aurefine's or RELION's)"),
    ("--solvent_mask", "solvent_mask", "", "Solvent mask (.mrc, values 0 to 1)"),
    ("--solvent_mask2", "solvent_mask2", "", "Second mask: solvent where it is 0 is set to its mean there (virus interiors)"),
)
REFERENCE: tuple[Row, ...] = (
    ("--firstiter_cc", "first_iteration_cc", "", "First iteration by cross-correlation: the reference is not on the absolute grey scale"),
    ("--ini_high", "initial_lowpass", "A", "Initial low-pass filter of the reference; negative: none"),
    ("--sym", "symmetry", "", "Point group: C1, Cn, Dn, T, O, I1 to I4"),
    ("--relax_sym", "relax_symmetry", "", "Point group to be relaxed: local searches also look at each particle's mates by it"),
    ("--ref_angpix", "reference_pixel_size", "A", "Pixel size of the reference, if not that of its header"),
)
CTF: tuple[Row, ...] = (
    ("--ctf", "ctf_correction", "", "Correct for the CTF"),
    ("--ctf_intact_first_peak", "ctf_intact_first_peak", "", "Ignore the CTF up to its first peak"),
    ("--ctf_phase_flipped", "ctf_phase_flipped", "", "The images' phases have been flipped"),
    ("--only_flip_phases", "only_flip_phases", "", "Correct phases only, not amplitudes"),
    ("--ctf_corrected_ref", "reference_ctf_corrected", "", "The reference has been CTF-corrected (the default)"),
)
OPTIMISATION: tuple[Row, ...] = (
    ("--particle_diameter", "particle_diameter", "A", "Diameter of the circular mask on the particles; negative: the box less the mask's edge"),
    ("--zero_mask", "zero_mask", "", "Mask particles with zeros, not with noise"),
    ("--maskedge", "mask_edge_pixels", "", "Width of the mask's soft edge in pixels"),
    ("--flatten_solvent", "flatten_solvent", "", "Mask the maps after each iteration"),
    ("--solvent_correct_fsc", "solvent_correct_fsc", "", "FSC inside the solvent mask, corrected by phase randomisation"),
    ("--lowpass_mask", "lowpass_mask", "", "Mask inside which the map is low-pass filtered"),
    ("--lowpass", "lowpass_mask_resolution", "A", "Resolution of the filter inside --lowpass_mask"),
    ("--norm", "norm_correction", "", "Correct differences in the images' normalisation"),
    ("--scale", "scale_correction", "", "Correct differences in grey scale between micrographs"),
    ("--low_resol_join_halves", "join_halves_resolution", "A", "Both halves share their map up to this resolution; negative: never"),
    ("--tau2_fudge", "tau2_fudge", "", "Regularisation parameter T; negative: 1"),
    ("--minres_map", "minimum_map_shells", "", "Shells below this one are not regularised"),
    ("--incr_size", "increment_size", "", "Shells beyond the current resolution that are looked at"),
    ("--strict_highres_exp", "max_expectation_resolution", "A", "Align to frequencies up to this resolution; negative: no limit"),
    ("--strict_lowres_exp", "min_expectation_resolution", "A", "Align to frequencies beyond this resolution; negative: no limit"),
    ("--coarse_size", "coarse_size", "", "Image size of the coarse pass in pixels; negative: from the sampling"),
    ("--accuracy_current_size", "accuracy_current_size", "", "Estimate accuracies at the current size even with --strict_highres_exp"),
    ("--use_all_data", "use_all_data", "", "Look to Nyquist from the first iteration on"),
    ("--sigma", "initial_noise_spectrum", "", "STAR file with the initial noise spectra"),
    ("--tau", "initial_tau2_spectrum", "", "STAR file with the initial signal spectrum"),
    ("--nr_parts_sigma2noise", "noise_particles", "", "Particles of each optics group for the initial noise spectra; negative: 1000"),
    ("--fix_sigma_noise", "fix_sigma_noise", "", "Keep the initial noise spectra"),
    ("--fix_sigma_offset", "fix_sigma_offset", "", "Keep the initial width of the offset prior"),
    ("--sigma2_fudge", "sigma2_fudge", "", "Factor on the noise spectra"),
    ("--offset", "sigma_offset", "A", "Initial width of the offset prior"),
    ("--min_sigma2_offset", "min_sigma2_offset", "A^2", "Smallest variance of the offset prior"),
)
SAMPLING: tuple[Row, ...] = (
    ("--healpix_order", "healpix_order", "", "Initial coarse angular sampling: 0 60, 1 30, 2 15, 3 7.5, 4 3.75 degrees, before oversampling"),
    ("--auto_local_healpix_order", "local_healpix_order", "", "Local searches from this coarse order on"),
    ("--oversampling", "oversampling", "", "Oversampling order of the fine pass"),
    ("--psi_step", "psi_step", "deg", "In-plane step of the first grid; negative: that of --healpix_order"),
    ("--offset_range", "offset_range_pixels", "px", "Initial offset search range"),
    ("--offset_step", "offset_step_pixels", "px", "Initial offset step, before oversampling"),
    ("--offset_range_x", "offset_range_x", "A", "Width of the offset prior along x times three; negative: learned"),
    ("--offset_range_y", "offset_range_y", "A", "Width of the offset prior along y times three; negative: learned"),
    ("--perturb", "perturbation_factor", "", "Random perturbation of the grid, as a fraction of its step"),
    ("--adaptive_fraction", "adaptive_fraction", "", "Share of the weight that the significant samples make up"),
    ("--maxsig", "max_significant", "", "Largest number of significant samples of a particle; negative: no limit"),
    ("--minimum_angular_sampling", "minimum_angular_sampling", "deg", "Go on until the step is at least this fine; 0: off"),
    ("--maximum_angular_sampling", "maximum_angular_sampling", "deg", "Stop refining the sampling once the step is below this; 0: off"),
    ("--auto_ignore_angles", "ignore_angle_changes", "", "Finer sampling faster: do not wait until assignments settle"),
    ("--auto_resol_angles", "sampling_from_resolution", "", "Finer sampling faster: the accuracy alone may ask for it"),
    ("--sigma_ang", "sigma_angle", "deg", "Local searches with priors of this width from the start; negative: off"),
    ("--limit_tilt", "limit_tilt", "deg", "Limit tilt: below this if positive, above its size if negative; -91: off"),
    ("--auto_iter_max", "max_iterations", "", "Largest number of iterations"),
    ("--random_seed", "random_seed", "", "Seed of half-sets and perturbations; negative: from the clock"),
    ("--force_converge", "force_converge", "", "With --continue: the next iteration is the last"),
    ("--join_random_halves", "join_random_halves", "", "With --continue: both halves share one map from now on"),
)
COMPUTE: tuple[Row, ...] = (
    ("--pad", "padding", "", "Padding factor of the projector: 1 or 2"),
    ("--skip_gridding", "skip_gridding", "", "No gridding iterations in the reconstruction (the default)"),
    ("--gridding_iter", "gridding_iterations", "", "Gridding iterations, with --dont_skip_gridding"),
    ("--j", "threads", "", "Threads of each process; 1 means all cores, for one process does the work of all of RELION's"),
    ("--processes", "processes", "", "Processes on this machine that share the work; 0: one for each GPU that is named, else one"),
    ("--full_precision", "full_precision", "", "Coarse pass in float32 throughout: no screening in bfloat16 on a CPU that has it, no TF32 on a GPU"),
    ("--gpu", "gpu", "", "Use GPUs: their numbers such as 0:1, or nothing for all; the CPU where there is none"),
    ("--verb", "verbosity", "", "0: silent"),
    ("--resume", "resume", "", "Go on from what an earlier run of this command line has finished; start where there is nothing"),
    ("--checkpoint", "checkpoint_minutes", "min", "Time between two checkpoints within an iteration; 0: only whole iterations are kept"),
    ("--memory", "memory_gb", "GB", "Memory that each process may take: smaller batches where it would take more; 0: what is there"),
    ("--scratch_dir", "scratch_dir", "", "Folder on a fast disk: a copy of the images is read batch by batch from there, not held in memory"),
    ("--keep_free_scratch", "keep_free_scratch_gb", "GB", "What stays free on the disk of --scratch_dir"),
    ("--watchdog", "watchdog_minutes", "min", "End the run when it has made no progress for so long, and tell where it hangs; 0: never"),
    ("--pipeline_control", "pipeline_control", "", "Directory of the files that tell RELION's pipeliner how the job ended"),
)
NEGATIONS = (  # flag, field, what it stores, help, tab
    ("--ctf_uncorrected_ref", "reference_ctf_corrected", False, "The reference has not been CTF-corrected", "CTF"),
    ("--no_norm", "norm_correction", False, "No normalisation correction (with --continue)", "Optimisation"),
    ("--no_scale", "scale_correction", False, "No grey-scale correction (with --continue)", "Optimisation"),
    ("--no_map", "map_regularisation", False, "No regularisation", "Optimisation"),
    ("--dont_check_norm", "check_norm", False, "Do not check that the images are normalised", "Optimisation"),
    ("--dont_skip_gridding", "skip_gridding", False, "Gridding iterations in the reconstruction", "Compute"),
)
_ONE_PROCESS = "processes combine what they have summed in memory"
_IMPLIED = "this is what `aurefine refine` does"
IGNORED = (  # flag, takes a value, why (nothing is said about the two that name the job itself)
    ("--auto_refine", False, ""),
    ("--split_random_halves", False, ""),
    ("--auto_sampling", False, _IMPLIED),
    ("--pool", True, "particles are batched by the memory that there is"),
    ("--dont_combine_weights_via_disc", False, _ONE_PROCESS),
    ("--no_parallel_disc_io", False, "images are read once"),
    ("--preread_images", False, "images are read once and kept in memory where they fit"),
    ("--reuse_scratch", False, "the copy on scratch goes with the run that made it"),
    ("--keep_scratch", False, "the copy on scratch goes with the run that made it"),
    ("--trust_ref_size", False, "a reference of another size is always resampled"),
    ("--r_min_nn", True, "it belongs to --NN"),
    ("--asymmetric_padding", False, "maps are padded alike along all axes"),
    ("--cpu", False, "without --gpu the CPU does the work"),
    ("--free_gpu_memory", True, "batches are sized from the memory that there is"),
    ("--failsafe_threshold", True, "weights are summed as logarithms and cannot fail"),
    ("--onthefly_shifts", False, "images are always shifted on the fly"),
    ("--pad_ctf", False, "RELION ignores it too"),
    ("--allow_coarser_sampling", False, "the sampling of auto-refine never becomes coarser"),
    ("--sequential_halves_recons", False, "the memory is planned before the start"),
    ("--keep_debug_reconstruct_files", False, "nothing of the kind is written"),
    ("--blush_skip_spectral_trailing", False, "it belongs to --blush"),
    ("--maximum_significants", True, "use --maxsig"),
    ("--iter", True, "auto-refine ends by itself; --auto_iter_max limits it"),
)
_ONE_CLASS = "aurefine refines one map; use RELION for classification"
UNSUPPORTED = (  # flag, takes a value, the value that means off, why
    ("--K", True, 1, _ONE_CLASS),
    ("--helix", False, None, "helical reconstruction"),
    ("--blush", False, None, "Blush regularisation needs RELION's network"),
    ("--external_reconstruct", False, None, "external reconstruction programs"),
    ("--tomograms", True, "", "tomography (2D stacks and subtomograms)"),
    ("--trajectories", True, "", "tomography (2D stacks and subtomograms)"),
    ("--multibody_masks", True, "None", "multi-body refinement"),
    ("--denovo_3dref", False, None, "initial models"),
    ("--grad", False, None, "gradient refinement"),
    ("--sgd", False, None, "gradient refinement"),
    ("--class_inactivity_threshold", True, 0, _ONE_CLASS),
    ("--fast_subsets", False, None, _ONE_CLASS),
    ("--center_classes", False, None, _ONE_CLASS),
    ("--som", False, None, _ONE_CLASS),
    ("--always_cc", False, None, "cross-correlation in every iteration; --firstiter_cc does the first"),
    ("--skip_align", False, None, "fixed orientations; `relion_reconstruct` makes a map from given ones"),
    ("--skip_rotate", False, None, "fixed orientations; `relion_reconstruct` makes a map from given ones"),
    ("--skip_maximize", False, None, "an expectation without a map"),
    ("--sigma_rot", True, -1, "one width serves the three angles: use --sigma_ang"),
    ("--sigma_tilt", True, -1, "one width serves the three angles: use --sigma_ang"),
    ("--sigma_psi", True, -1, "one width serves the three angles: use --sigma_ang"),
    ("--offset_range_z", True, -1, "particles are 2D images"),
    ("--NN", False, None, "projections are interpolated linearly"),
    ("--bimodal_psi", False, None, "helical reconstruction"),
    ("--only_sample_tilt", False, None, "helical reconstruction"),
    ("--local_symmetry", True, "None", "local symmetry"),
    ("--tau2_fudge_scheme", True, "", "gradient refinement"),
    ("--always_join_random_halves", False, None, "the halves would no longer be independent"),
    ("--debug_split_random_half", True, 0, "the halves would no longer be independent"),
    ("--print_metadata_labels", False, None, "a list of RELION's labels"),
    ("--print_symmetry_ops", False, None, "a list of symmetry operators"),
)
_FILES = {"particles", "reference", "continue_from", "solvent_mask", "solvent_mask2", "lowpass_mask",
          "initial_noise_spectrum", "initial_tau2_spectrum"}  # fmt: skip


def _row(row: Row, tab: str) -> Option:
    flag, name, unit, text = row
    kind: Kind = "file" if name in _FILES else _KINDS[_TYPES[name]]
    return Option(name, flag, text.split(":")[0], tab, _DEFAULTS[name], kind, text, unit=unit)


def _rows() -> tuple[Option, ...]:
    tabs = {"I/O": IO, "Reference": REFERENCE, "CTF": CTF, "Optimisation": OPTIMISATION, "Auto-sampling": SAMPLING, "Compute": COMPUTE}
    rows = [_row(row, tab) for tab, table in tabs.items() for row in table]
    rows += [Option(name, flag, text, tab, _DEFAULTS[name], "switch", text, value=value) for flag, name, value, text, tab in NEGATIONS]
    rows += [_without_effect(flag, takes, None, why, "ignored") for flag, takes, why in IGNORED]
    rows += [_without_effect(flag, takes, off, why, "unsupported") for flag, takes, off, why in UNSUPPORTED]
    return tuple(rows)


def _without_effect(flag: str, takes_value: bool, off: Any, why: str, effect: Effect) -> Option:
    return Option(flag, flag, flag, "Without effect", off, "text", why, effect=effect, takes_value=takes_value)


FLAGS = _rows()
