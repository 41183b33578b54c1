"""Continue a refinement from the `_optimiser.star` of an earlier iteration, ours or RELION's (ALGORITHM.md 5.7)."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from aurefine import sampling as grids
from aurefine import star
from aurefine.errors import InputError
from aurefine.refine.model_reader import block, need, need_length, number, poses_of, read_model, read_particle_table, read_sampling
from aurefine.refine.options import RefineOptions, validate
from aurefine.refine.state import Progress, State
from aurefine.star import Table
from aurefine.star_document import named_file

CommandLineReader = Callable[[list[str]], Mapping[str, Any]]

# Fields that a continued run takes from its own command line when they are given there; all others stay as they were.
RE_READ = frozenset("""
    output continue_from padding tau2_fudge flatten_solvent solvent_mask solvent_mask2 lowpass_mask lowpass_mask_resolution
    particle_diameter max_significant join_random_halves oversampling local_healpix_order sigma_angle sigma_offset perturbation_factor
    scale_correction norm_correction relax_symmetry solvent_correct_fsc max_iterations random_seed
    ignore_angle_changes sampling_from_resolution force_converge
    threads processes gpu full_precision verbosity pipeline_control command_line resume checkpoint_minutes watchdog_minutes memory_gb
    scratch_dir keep_free_scratch_gb
    check_norm accuracy_current_size minimum_angular_sampling maximum_angular_sampling
    skip_gridding gridding_iterations minimum_map_shells min_sigma2_offset
    adaptive_fraction max_expectation_resolution min_expectation_resolution coarse_size use_all_data sigma2_fudge fix_sigma_noise fix_sigma_offset
    """.split())  # fmt: skip
# Plain switches of the new command line: off unless they are given again.
GIVEN_AGAIN = ("ignore_angle_changes", "sampling_from_resolution", "force_converge", "join_random_halves")
# Belong to the process, not to the refinement.
OF_THE_PROCESS = frozenset("""
    output continue_from threads processes gpu full_precision verbosity pipeline_control command_line
    resume checkpoint_minutes watchdog_minutes memory_gb
    scratch_dir keep_free_scratch_gb
    """.split())  # fmt: skip
_NEVER_STORED = OF_THE_PROCESS | {"solvent_mask", "solvent_mask2", "lowpass_mask", "initial_tau2_spectrum", "initial_noise_spectrum"}

_STORED: dict[str, tuple[str, type]] = {
    "join_halves_resolution": ("rlnJoinHalvesUntilThisResolution", float),
    "oversampling": ("rlnAdaptiveOversampleOrder", int),
    "adaptive_fraction": ("rlnAdaptiveOversampleFraction", float),
    "random_seed": ("rlnRandomSeed", int),
    "particle_diameter": ("rlnParticleDiameter", float),
    "mask_edge_pixels": ("rlnWidthMaskEdge", int),
    "zero_mask": ("rlnDoZeroMask", bool),
    "flatten_solvent": ("rlnDoSolventFlattening", bool),
    "solvent_correct_fsc": ("rlnDoSolventFscCorrection", bool),
    "coarse_size": ("rlnMaximumCoarseImageSize", int),
    "max_expectation_resolution": ("rlnHighresLimitExpectation", float),
    "min_expectation_resolution": ("rlnLowresLimitExpectation", float),
    "map_regularisation": ("rlnDoMapEstimation", bool),
    "max_significant": ("rlnMaximumSignificantPoses", int),
    "local_healpix_order": ("rlnAutoLocalSearchesHealpixOrder", int),
    "max_iterations": ("rlnNumberOfIterations", int),
    "tau2_fudge": ("rlnTau2FudgeArg", float),
    "norm_correction": ("rlnDoCorrectNorm", bool),
    "scale_correction": ("rlnDoCorrectScale", bool),
    "ctf_correction": ("rlnDoCorrectCtf", bool),
    "ctf_intact_first_peak": ("rlnDoIgnoreCtfUntilFirstPeak", bool),
    "ctf_phase_flipped": ("rlnCtfDataArePhaseFlipped", bool),
    "only_flip_phases": ("rlnDoOnlyFlipCtfPhases", bool),
    "reference_ctf_corrected": ("rlnRefsAreCtfCorrected", bool),
    "fix_sigma_noise": ("rlnFixSigmaNoiseEstimates", bool),
    "fix_sigma_offset": ("rlnFixSigmaOffsetEstimates", bool),
    "offset_range_x": ("rlnOffsetRangeX", float),
    "offset_range_y": ("rlnOffsetRangeY", float),
}
_FINEST = 1e-3  # Angstrom; a finer resolution is damage
_FILES = {"solvent_mask": "rlnSolventMaskName", "solvent_mask2": "rlnSolventMask2Name", "initial_tau2_spectrum": "rlnTauSpectrumName"}


@dataclass(frozen=True)
class Checkpoint:
    """A refinement as an earlier run left it."""

    path: str  # the optimiser file
    stored: dict[str, Any]  # fields of RefineOptions as that run had them
    state: State
    particles: str  # its `_data.star`
    root: str  # its output root


def load(path: str | Path, read_command_line: CommandLineReader | None = None) -> Checkpoint:
    """Read an optimiser file and all that it names; file names are looked for from the current folder, else beside the optimiser file.

    `read_command_line` turns the arguments in the file's second comment line into options: RELION stores some settings only there.
    Raises InputError for a file that is missing, is of a finished run, or is not of a 3D auto-refine.
    """
    path = str(path)
    table = block(star.read(path), "optimiser_general", path)
    _check_kind(table, path)
    data_path = named_file(str(need(table, "rlnExperimentalDataStarFile", path)), path)
    particles = read_particle_table(data_path)
    models = [read_model(named_file(str(need(table, label, path)), path), particles) for label in ("rlnModelStarFile", "rlnModelStarFile2")]
    sampling_path = named_file(str(need(table, "rlnOrientSamplingStarFile", path)), path)
    sampling = read_sampling(sampling_path, int(need(table, "rlnAdaptiveOversampleOrder", path)), models[0][1])
    state = State(
        halves=tuple(model for model, _ in models),
        poses=poses_of(particles),
        sampling=sampling,
        progress=_progress(table, models[0][1], path),
        random_subset=_subsets(particles, data_path),
    )
    stored = stored_command_line(path, read_command_line) | _stored_options(table, models[0][1], state, path)
    state = replace(state, progress=_with_first_resolution(state, float(stored.get("initial_lowpass", -1.0))))
    return Checkpoint(path, stored, state, data_path, str(need(table, "rlnOutputRootName", path)))


def _check_kind(table: Table, path: str) -> None:
    if int(need(table, "rlnCurrentIteration", path)) < 0:
        raise InputError(
            f"{path} is of a finished run: continue from the _optimiser.star of its last iteration (run_itNNN_optimiser.star), "
            "with --force_converge to do only the last step again."
        )
    if not table.value("rlnDoSplitRandomHalves", False) or "rlnModelStarFile2" not in table:
        raise InputError(f"{path} is not of a 3D auto-refine with two half-sets (rlnDoSplitRandomHalves): only those can be continued here.")
    for label, what in (("rlnDoHelicalRefine", "helical"), ("rlnDoBlush", "Blush"), ("rlnDoGradientRefine", "gradient")):
        if table.value(label, False):
            raise InputError(f"{path} is of a {what} refinement, which is not supported: continue it in RELION.")


def _progress(table: Table, general: Table, path: str) -> Progress:
    """Where the run stood. The verdicts are taken anew (has_fine_enough, has_converged); the counters stay as they were."""
    extent = int(need(general, "rlnOriginalImageSize", path)) * need_length(general, "rlnPixelSize", path)
    resolution = float(need(general, "rlnCurrentResolution", path))
    return Progress(
        iteration=int(need(table, "rlnCurrentIteration", path)),
        current_resolution=_at_shell(1.0 / resolution if _FINEST < resolution < np.inf else 0.0, extent),
        best_resolution=_at_shell(number(table, "rlnBestResolutionThusFar", 0.0), extent),
        current_size=int(need(general, "rlnCurrentImageSize", path)),
        iterations_without_resolution_gain=int(number(table, "rlnNumberOfIterWithoutResolutionGain", 0)),
        iterations_without_large_changes=int(number(table, "rlnNumberOfIterWithoutChangingAssignments", 0)),
        changes_angles=number(table, "rlnChangesOptimalOrientations", 999.0),
        changes_offsets=number(table, "rlnChangesOptimalOffsets", 999.0),
        changes_classes=number(table, "rlnChangesOptimalClasses", 9999999.0),
        smallest_changes_angles=number(table, "rlnSmallestChangesOrientations", 999.0),
        smallest_changes_offsets=number(table, "rlnSmallestChangesOffsets", 999.0),
        smallest_changes_classes=int(number(table, "rlnSmallestChangesClasses", 9999999)),
        has_high_fsc_at_limit=bool(table.value("rlnHasHighFscAtResolLimit", False)),
        increment_size=int(number(table, "rlnIncrementImageSize", 10)),
        accuracy_rotation=number(table, "rlnOverallAccuracyRotations", 999.0),
        accuracy_translation=number(table, "rlnOverallAccuracyTranslationsAngst", 999.0),
    )


def _with_first_resolution(state: State, initial_lowpass: float) -> Progress:
    """RELION writes iteration 0 before it sets the resolution from the initial low-pass filter."""
    progress, model = state.progress, state.halves[0]
    if progress.current_resolution > 0 or initial_lowpass <= 0:
        return progress
    extent = model.box * model.pixel_size
    resolution = int(extent / initial_lowpass + 0.5) / extent
    return replace(progress, current_resolution=resolution, best_resolution=max(resolution, progress.best_resolution))


def _at_shell(resolution: float, extent: float) -> float:
    """Resolutions lie on shells of the box (of `extent` Angstrom): take away the rounding of the printed number."""
    shell = resolution * extent
    return round(shell) / extent if math.isfinite(shell) and abs(shell - round(shell)) < 0.01 else resolution


def _subsets(particles: Table, path: str) -> np.ndarray:
    if "rlnRandomSubset" not in particles:
        raise InputError(f"{path}: no rlnRandomSubset: without the half-sets of the first run the halves would not stay independent.")
    return particles["rlnRandomSubset"].astype(np.int64)


def _stored_options(table: Table, general: Table, state: State, path: str) -> dict[str, Any]:
    stored: dict[str, Any] = {name: kind(table.value(label)) for name, (label, kind) in _STORED.items() if label in table}
    for name, label in _FILES.items():
        value = str(table.value(label, "None"))
        stored[name] = "" if value in ("None", "") else named_file(value, path)
    model, sampling = state.halves[0], state.sampling
    stored["padding"] = number(general, "rlnPaddingFactor", 2.0)
    if int(number(general, "rlnFourierSpaceInterpolator", 1)) == 0:
        raise InputError(f"{path} is of a run with nearest-neighbour interpolation (--NN), which is not supported: continue it in RELION.")
    if stored.get("tau2_fudge", -1.0) <= 0:  # RELION 3.1 knows only the value in the model
        factor = number(general, "rlnTau2FudgeFactor", 1.0)
        stored["tau2_fudge"] = factor if factor != 1.0 else -1.0
    stored |= {
        "symmetry": sampling.symmetry,
        "perturbation_factor": sampling.perturbation_factor,
        "limit_tilt": sampling.limit_tilt,
        "healpix_order": sampling.healpix_order_original,
        "offset_range_pixels": sampling.offset_range_original / model.pixel_size,
        "offset_step_pixels": sampling.offset_step_original / model.pixel_size,
    }
    return stored


def stored_command_line(path: str, read: CommandLineReader | None) -> dict[str, Any]:
    """What the run was told, files and the process apart."""
    return {name: value for name, value in told(path, read).items() if name not in _NEVER_STORED}


def told(path: str, read: CommandLineReader | None) -> dict[str, Any]:
    """What the run was told, from the second comment line of its optimiser file; nothing where it cannot be read."""
    comments = star.leading_comments(path)
    if read is None or len(comments) < 2:
        return {}
    try:
        values = read(shlex.split(comments[1]))
    except (InputError, ValueError):  # options of another version: the tables hold all that matters
        return {}
    names = {field.name for field in fields(RefineOptions)}
    return {name: value for name, value in values.items() if name in names}


def continued_options(checkpoint: Checkpoint, given: Mapping[str, Any]) -> tuple[RefineOptions, list[str]]:
    """The options of a run that goes on from `checkpoint`, `given` those of its own command line, and notes for the user.

    Raises InputError for values that are wrong.
    """
    stored = {name: value for name, value in checkpoint.stored.items() if name not in GIVEN_AGAIN}
    accepted = {name: value for name, value in given.items() if name in RE_READ}
    options = replace(RefineOptions(), **{**stored, **accepted})
    options = replace(options, continue_from=checkpoint.path, particles=checkpoint.particles, output=continued_root(checkpoint, options.output))
    return validate(options), _notes(checkpoint, given)


def continued_root(checkpoint: Checkpoint, output: str) -> str:
    """The output root: the one that was given, or `<old root>_ct<iteration>` where that is the old one or none was given."""
    if output and Path(output).resolve() != Path(checkpoint.root).resolve():
        return output
    return f"{checkpoint.root}_ct{checkpoint.state.progress.iteration}"


def _notes(checkpoint: Checkpoint, given: Mapping[str, Any]) -> list[str]:
    notes = []
    kept = sorted(name for name in given if name not in RE_READ)
    if kept:
        notes.append(f"a continued run keeps these as they were, the new values are not used: {', '.join(kept)}")
    flags = {"ignore_angle_changes": "--auto_ignore_angles", "sampling_from_resolution": "--auto_resol_angles"}
    for name, flag in flags.items():
        if checkpoint.stored.get(name) and not given.get(name):
            notes.append(f"the run that is continued had {flag}; as in RELION it is off now, since it was not given again")
    return notes


def continued_state(checkpoint: Checkpoint, options: RefineOptions, given: Mapping[str, Any]) -> State:
    """The state to go on from: as it was, but for what the new command line sets anew."""
    state, sampling, halves = checkpoint.state, checkpoint.state.sampling, checkpoint.state.halves
    sampling = replace(
        sampling, oversampling=options.oversampling, perturbation_factor=options.perturbation_factor, relax_symmetry=options.relax_symmetry
    )
    directions = len(grids.directions(sampling.healpix_order, sampling.grid_symmetry, sampling.limit_tilt))
    if any(len(model.pdf_direction) != directions for model in halves):  # a symmetry is relaxed that was not before
        halves = tuple(replace(model, pdf_direction=np.full(directions, 1 / directions)) for model in halves)
    if given.get("sigma_angle", -1.0) > 0:
        sampling = replace(sampling, local=True, sigma_angle=options.sigma_angle)
    if "sigma_offset" in given:
        halves = tuple(replace(model, sigma2_offset=options.sigma_offset**2) for model in halves)
    progress = replace(state.progress, has_converged=options.force_converge)
    return replace(state, sampling=sampling, halves=halves, progress=progress)
