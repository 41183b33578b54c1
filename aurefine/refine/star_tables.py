"""The tables of `_optimiser.star`, `_model.star` and `_sampling.star` from the refinement's state (ALGORITHM.md 6.4-6.6)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aurefine import sampling as grids
from aurefine.refine.options import RefineOptions
from aurefine.refine.state import Model, Progress, SamplingState, State
from aurefine.star import Table

UNRESOLVED = 999.0  # Angstrom, as RELION writes shell 0


def optimiser_table(names: Mapping[str, str], state: State, options: RefineOptions, *, final: bool = False) -> Table:
    """`optimiser_general` in RELION's order; `names` gives root, model, model2 (absent at the end), data and sampling."""
    values: dict[str, Any] = {"rlnOutputRootName": names["root"], "rlnModelStarFile": names["model"]}
    if "model2" in names:
        values["rlnModelStarFile2"] = names["model2"]
    values |= {
        "rlnExperimentalDataStarFile": names["data"],
        "rlnTomoTomogramsFile": "",
        "rlnTomoTrajectoriesFile": "",
        "rlnOrientSamplingStarFile": names["sampling"],
        "rlnCurrentIteration": -1 if final else state.progress.iteration,
        "rlnNumberOfIterations": options.max_iterations,
        "rlnDoSplitRandomHalves": not final,
    }
    values |= _settings(options, state.progress) | _UNUSED_GRADIENT | _schedule(state, options) | _UNUSED_HELIX
    values |= _verdicts(state.progress, options)
    return Table.from_values("optimiser_general", values)


def _settings(options: RefineOptions, progress: Progress) -> dict[str, Any]:
    return {
        "rlnJoinHalvesUntilThisResolution": float(options.join_halves_resolution),
        "rlnAdaptiveOversampleOrder": options.oversampling,
        "rlnAdaptiveOversampleFraction": float(options.adaptive_fraction),
        "rlnRandomSeed": options.random_seed,
        "rlnParticleDiameter": float(options.particle_diameter),
        "rlnWidthMaskEdge": options.mask_edge_pixels,
        "rlnDoZeroMask": options.zero_mask,
        "rlnDoSolventFlattening": options.flatten_solvent,
        "rlnDoSolventFscCorrection": options.solvent_correct_fsc,
        "rlnSolventMaskName": options.solvent_mask or "None",
        "rlnSolventMask2Name": options.solvent_mask2 or "None",
        "rlnBodyStarFile": "None",
        "rlnTauSpectrumName": options.initial_tau2_spectrum or "None",
        "rlnMaximumCoarseImageSize": options.coarse_size,
        "rlnHighresLimitExpectation": float(options.max_expectation_resolution),
        "rlnLowresLimitExpectation": float(options.min_expectation_resolution),
        "rlnIncrementImageSize": progress.increment_size,
        "rlnDoMapEstimation": options.map_regularisation,
        "rlnDoFastSubsetOptimisation": False,
        "rlnDoExternalReconstruct": False,
        "rlnDoBlush": False,
        "rlnBlushNoSpectralTrailing": False,
    }


_UNUSED_GRADIENT: dict[str, Any] = {
    "rlnDoGradientRefine": False,
    "rlnDoStochasticGradientDescent": False,
    "rlnGradEmIters": 0,
    "rlnGradHasConverged": False,
    "rlnGradCurrentStepsize": 0.0,
    "rlnGradSubsetOrder": 0,
    "rlnGradSuspendFinerSamplingIter": -1,
    "rlnGradSuspendLocalSamplingIter": -1,
    "rlnSgdInitialIterationsFraction": 0.3,
    "rlnSgdFinalIterationsFraction": 0.2,
    "rlnSgdMinimumResolution": 20.0,
    "rlnSgdInitialResolution": -1.0,
    "rlnSgdFinalResolution": -1.0,
    "rlnSgdInitialSubsetSize": -1,
    "rlnSgdFinalSubsetSize": -1,
    "rlnSgdMuFactor": 0.0,
    "rlnSgdSkipAnneal": False,
    "rlnSgdClassInactivityThreshold": 0.0,
    "rlnSgdSubsetSize": -1,
    "rlnSgdWriteEverySubset": 10,
    "rlnSgdStepsize": -1.0,
    "rlnSgdStepsizeScheme": "",
    "rlnTau2FudgeScheme": "",
}


def _schedule(state: State, options: RefineOptions) -> dict[str, Any]:
    progress = state.progress
    return {
        "rlnTau2FudgeArg": float(options.tau2_fudge),
        "rlnMaximumSignificantPoses": options.max_significant,
        "rlnDoAutoRefine": True,
        "rlnDoAutoSampling": True,
        "rlnAutoLocalSearchesHealpixOrder": options.local_healpix_order,
        "rlnNumberOfIterWithoutResolutionGain": progress.iterations_without_resolution_gain,
        "rlnBestResolutionThusFar": float(progress.best_resolution),
        "rlnNumberOfIterWithoutChangingAssignments": progress.iterations_without_large_changes,
        "rlnDoSkipAlign": False,
        "rlnDoSkipRotate": False,
        "rlnOverallAccuracyRotations": float(progress.accuracy_rotation),
        "rlnOverallAccuracyTranslationsAngst": float(progress.accuracy_translation),
        "rlnChangesOptimalOrientations": float(progress.changes_angles),
        "rlnChangesOptimalOffsets": float(progress.changes_offsets),
        "rlnChangesOptimalClasses": float(progress.changes_classes),
        "rlnSmallestChangesOrientations": float(progress.smallest_changes_angles),
        "rlnSmallestChangesOffsets": float(progress.smallest_changes_offsets),
        "rlnSmallestChangesClasses": int(progress.smallest_changes_classes),
        "rlnLocalSymmetryFile": "None",
    }


_UNUSED_HELIX: dict[str, Any] = {
    "rlnDoHelicalRefine": False,
    "rlnIgnoreHelicalSymmetry": False,
    "rlnFourierMask": "None",
    "rlnHelicalTwistInitial": 0.0,
    "rlnHelicalRiseInitial": 0.0,
    "rlnHelicalCentralProportion": 0.3,
    "rlnNrHelicalNStart": 1,
    "rlnHelicalMaskTubeInnerDiameter": -1.0,
    "rlnHelicalMaskTubeOuterDiameter": -1.0,
    "rlnHelicalSymmetryLocalRefinement": False,
    "rlnHelicalSigmaDistance": -1.0,
    "rlnHelicalKeepTiltPriorFixed": False,
}


def _verdicts(progress: Progress, options: RefineOptions) -> dict[str, Any]:
    return {
        "rlnHasConverged": progress.has_converged,
        "rlnHasHighFscAtResolLimit": progress.has_high_fsc_at_limit,
        "rlnHasLargeSizeIncreaseIterationsAgo": 0,
        "rlnDoCorrectNorm": options.norm_correction,
        "rlnDoCorrectScale": options.scale_correction,
        "rlnDoCorrectCtf": options.ctf_correction,
        "rlnDoCenterClasses": False,
        "rlnDoIgnoreCtfUntilFirstPeak": options.ctf_intact_first_peak,
        "rlnCtfDataArePhaseFlipped": options.ctf_phase_flipped,
        "rlnDoOnlyFlipCtfPhases": options.only_flip_phases,
        "rlnRefsAreCtfCorrected": options.reference_ctf_corrected,
        "rlnFixSigmaNoiseEstimates": options.fix_sigma_noise,
        "rlnFixSigmaOffsetEstimates": options.fix_sigma_offset,
        "rlnMaxNumberOfPooledParticles": 1,
        "rlnOffsetRangeX": float(options.offset_range_x),
        "rlnOffsetRangeY": float(options.offset_range_y),
        "rlnOffsetRangeZ": -1.0,
    }


def sampling_tables(sampling: SamplingState) -> list[Table]:
    """`sampling_general` and `sampling_directions` (the coarse grid)."""
    original = sampling.healpix_order_original
    general = {
        "rlnIs3DSampling": True,
        "rlnIs3DTranslationalSampling": False,
        "rlnHealpixOrder": sampling.healpix_order,
        "rlnSymmetryGroup": sampling.symmetry,
        "rlnTiltAngleLimit": float(sampling.limit_tilt),
        "rlnPsiStep": float(sampling.psi_step or grids.angular_step(sampling.healpix_order)),
        "rlnOffsetRange": float(sampling.offset_range),
        "rlnOffsetStep": float(sampling.offset_step),
        "rlnHelicalOffsetStep": -1.0,
        "rlnSamplingPerturbInstance": float(sampling.perturbation),
        "rlnSamplingPerturbFactor": float(sampling.perturbation_factor),
        "rlnHealpixOrderOriginal": original,
        "rlnPsiStepOriginal": grids.angular_step(original),
        "rlnOffsetRangeOriginal": float(sampling.offset_range_original),
        "rlnOffsetStepOriginal": float(sampling.offset_step_original),
    }
    angles = grids.directions(sampling.healpix_order, sampling.grid_symmetry, sampling.limit_tilt).angles
    directions = {"rlnAngleRot": angles[:, 0], "rlnAngleTilt": angles[:, 1]}
    return [Table.from_values("sampling_general", general), Table("sampling_directions", directions)]


def model_tables(model: Model, map_name: str, state: State, options: RefineOptions, groups: Sequence[str], group_counts: np.ndarray) -> list[Table]:
    """All tables of one model file; `group_counts [groups]` are the particles of this half in each group."""
    tables = [
        Table.from_values("model_general", _model_general(model, state, options, len(groups))),
        Table.from_rows("model_classes", *_classes(model, map_name)),
        _shell_table(model),
        Table("model_groups", {
            "rlnGroupNumber": np.arange(1, len(groups) + 1),
            "rlnGroupName": np.array(list(groups), dtype=object),
            "rlnGroupNrParticles": np.asarray(group_counts, dtype=np.int64),
            "rlnGroupScaleCorrection": np.asarray(model.group_scale, dtype=np.float64),
        }),
    ]  # fmt: skip
    tables += [_noise_table(f"model_optics_group_{number}", noise, model) for number, noise in enumerate(model.sigma2_noise, 1)]
    return [*tables, Table("model_pdf_orient_class_1", {"rlnOrientationDistribution": np.asarray(model.pdf_direction, dtype=np.float64)})]


def micrograph_noise_tables(model: Model, particles_of: np.ndarray) -> list[Table]:
    """`model_group_N`, the noise of each micrograph group, from `particles_of [groups, optics groups]` (numbers of particles).

    RELION 5 has noise by optics group and skips these tables; RELION 3.1 cannot continue without them.
    """
    counts = np.asarray(particles_of, dtype=np.float64)
    weights = np.where(counts.sum(axis=1, keepdims=True) > 0, counts, counts.sum(axis=0) + 1e-9)
    spectra = weights @ model.sigma2_noise / weights.sum(axis=1, keepdims=True)
    return [_noise_table(f"model_group_{number}", noise, model) for number, noise in enumerate(spectra, 1)]


def _model_general(model: Model, state: State, options: RefineOptions, groups: int) -> dict[str, Any]:
    sigma = float(state.sampling.sigma_angle) if state.sampling.local else 0.0
    resolution = state.progress.current_resolution
    return {
        "rlnReferenceDimensionality": 3,
        "rlnDataDimensionality": 2,
        "rlnOriginalImageSize": model.box,
        "rlnCurrentResolution": 1.0 / resolution if resolution > 0 else math.inf,
        "rlnCurrentImageSize": state.progress.current_size,
        "rlnPaddingFactor": float(options.padding),
        "rlnIsHelix": False,
        "rlnFourierSpaceInterpolator": 1,  # trilinear
        "rlnMinRadiusNnInterpolation": 10,
        "rlnPixelSize": float(model.pixel_size),
        "rlnNrClasses": 1,
        "rlnNrBodies": 1,
        "rlnNrGroups": groups,
        "rlnNrOpticsGroups": len(model.sigma2_noise),
        "rlnTau2FudgeFactor": float(options.tau2_fudge_used),
        "rlnNormCorrectionAverage": float(model.average_norm),
        "rlnSigmaOffsetsAngst": math.sqrt(model.sigma2_offset),
        "rlnOrientationalPriorMode": int(state.sampling.local),
        "rlnSigmaPriorRotAngle": sigma,
        "rlnSigmaPriorTiltAngle": sigma,
        "rlnSigmaPriorPsiAngle": sigma,
        "rlnLogLikelihood": float(model.log_likelihood),
        "rlnAveragePmax": float(model.average_pmax),
    }


def _classes(model: Model, map_name: str) -> tuple[list[str], list[list[Any]]]:
    shell = resolved_shell(model.data_vs_prior)
    labels = ["rlnReferenceImage", "rlnClassDistribution", "rlnAccuracyRotations", "rlnAccuracyTranslationsAngst",
              "rlnEstimatedResolution", "rlnOverallFourierCompleteness"]  # fmt: skip
    resolution = model.box * model.pixel_size / shell if shell > 0 else UNRESOLVED
    row = [map_name, 1.0, float(model.accuracy_rotation), float(model.accuracy_translation), resolution, completeness(model.fourier_coverage, shell)]
    return labels, [row]


def resolved_shell(data_vs_prior: np.ndarray) -> int:
    """The last shell before the spectral signal-to-noise ratio `[shells]` first falls below 1."""
    below = np.flatnonzero(data_vs_prior[1:] < 1)
    return int(below[0]) if len(below) else len(data_vs_prior) - 1


def completeness(coverage: np.ndarray, shell: int) -> float:
    """The share of Fourier voxels seen up to a shell, from each shell's `coverage [shells]`."""
    radius = np.arange(shell + 1)
    voxels = 4 * math.pi * radius**2 + math.pi / 3
    return float(np.sum(voxels * coverage[: shell + 1]) / np.sum(voxels))


def _shell_table(model: Model) -> Table:
    shells = np.arange(model.box // 2 + 1)
    resolution = shells / (model.box * model.pixel_size)
    angstrom = np.full(len(shells), UNRESOLVED)
    angstrom[1:] = 1.0 / resolution[1:]
    columns = {
        "rlnSpectralIndex": shells,
        "rlnResolution": resolution,
        "rlnAngstromResolution": angstrom,
        "rlnSsnrMap": model.data_vs_prior,
        "rlnGoldStandardFsc": model.fsc,
        "rlnFourierCompleteness": model.fourier_coverage,
        "rlnReferenceSigma2": model.sigma2_reference,
        "rlnReferenceTau2": model.tau2,
    }
    if np.any(model.orientability):
        columns["rlnSpectralOrientabilityContribution"] = model.orientability
    return Table("model_class_1", {label: np.asarray(column, None if column is shells else np.float64) for label, column in columns.items()})


def _noise_table(name: str, noise: np.ndarray, model: Model) -> Table:
    """One noise spectrum; shells without an estimate are left out."""
    shells = np.flatnonzero(np.asarray(noise) > 0)
    columns = {
        "rlnSpectralIndex": shells,
        "rlnResolution": shells / (model.box * model.pixel_size),
        "rlnSigma2Noise": np.asarray(noise, dtype=np.float64)[shells],
    }
    return Table(name, columns)
