"""The automatic schedule: when sampling gets finer, when the run has converged, how resolution is judged (ALGORITHM.md 5).

Differences from RELION are listed in docs/differences-from-relion.md: "fine enough" is judged anew in every iteration from the accuracy of
that iteration, and ratios of changes use the sampling in force.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from aurefine import euler
from aurefine.fourier import round_half_away
from aurefine.refine.options import RefineOptions
from aurefine.refine.state import Model, Poses, Progress, SamplingState
from aurefine.symmetry import point_group

_FINEST_STEP = 1.5  # Angstrom
_SHARE_OF_ACCURACY = 0.75
_MINIMUM_SHELL = 5
_DIP = 0.25  # share of the shells beyond the first bad one that may be bad, too
_TOO_COARSE, _FAR_TOO_COARSE = 1.25, 2  # times the accuracy; 1.5 for the first serves C1 sets a little better and C4 ones worse
_IMPROVED_ACCURACY = 0.95
_UNKNOWN_ACCURACY = 999.0  # degrees, before the first estimate


def is_fine_enough(sampling: SamplingState, progress: Progress, options: RefineOptions) -> bool:
    """Whether the angular step resolves the accuracy of the assignments, as it is now."""
    fine = sampling.fine_step
    if options.maximum_angular_sampling > 0 and fine < options.maximum_angular_sampling:
        return True
    wanted = options.minimum_angular_sampling > 0 and fine > options.minimum_angular_sampling
    return fine < _SHARE_OF_ACCURACY * progress.accuracy_rotation and not wanted


def was_fine_enough(sampling: SamplingState, before: Progress, options: RefineOptions) -> bool:
    """Whether the step was fine enough by the accuracy of the iteration before, too; False where that was never estimated."""
    return before.accuracy_rotation < _UNKNOWN_ACCURACY and is_fine_enough(sampling, before, options)


def oversampling(sampling: SamplingState, progress: Progress) -> tuple[int, int]:
    """Oversampling orders of rotations and of shifts: none where the coarse step itself resolves the accuracy.

    Not in RELION, which always oversamples; early iterations, in which accuracies are poor and thousands of samples significant, gain most.
    """
    last = progress.has_converged or progress.accuracy_rotation >= _UNKNOWN_ACCURACY
    rotations = sampling.coarse_step < _SHARE_OF_ACCURACY * progress.accuracy_rotation
    shifts = sampling.offset_step < _SHARE_OF_ACCURACY * progress.accuracy_translation
    return tuple(0 if enough and not last else sampling.oversampling for enough in (rotations, shifts))  # type: ignore[return-value]


def has_converged(progress: Progress, options: RefineOptions) -> bool:
    """No gain in resolution, no large changes, and a sampling as fine as the accuracy allows (ALGORITHM.md 5.5)."""
    steady = options.ignore_angle_changes or progress.iterations_without_large_changes >= 1
    return progress.has_fine_enough and progress.iterations_without_resolution_gain >= 1 and steady


def accuracy_improves(before: Progress, now: Progress) -> bool:
    """Whether particles can be aligned noticeably better than an iteration ago: then the run has not come to rest, whatever its resolution."""
    return now.accuracy_rotation < _IMPROVED_ACCURACY * before.accuracy_rotation


def update_sampling(sampling: SamplingState, progress: Progress, options: RefineOptions) -> tuple[SamplingState, Progress]:
    """Go to a finer grid when resolution and changes have stalled and the accuracy allows it (ALGORITHM.md 5.3)."""
    unchanged = progress.iterations_without_large_changes >= 1
    at_rest = unchanged or not _still_turning(sampling, progress, options)
    stalled = (at_rest and progress.iterations_without_resolution_gain >= 1) or _too_coarse(sampling, progress, options)
    settled = unchanged or options.ignore_angle_changes
    if progress.has_fine_enough or not (stalled and settled):
        return sampling, progress
    progress = replace(
        progress, iterations_without_resolution_gain=0, iterations_without_large_changes=0,
        smallest_changes_angles=999.0, smallest_changes_offsets=999.0, smallest_changes_classes=9999999,
    )  # fmt: skip
    return _finer(sampling, progress, options), progress


def _still_turning(sampling: SamplingState, progress: Progress, options: RefineOptions) -> bool:
    """Whether, in the global searches of finer-sampling-faster, orientations move by more than a step on average.

    Not in RELION, whose finer-sampling-faster goes on after one iteration without a gain in resolution.
    """
    return options.sampling_from_resolution and not sampling.local and progress.changes_angles >= sampling.fine_step


def _too_coarse(sampling: SamplingState, progress: Progress, options: RefineOptions) -> bool:
    """Whether finer-sampling-faster goes on although the resolution still improves; to local searches only once orientations have come to rest.

    RELION asks for the step that the resolution needs, however inaccurate the orientations still are: a finer grid does not make them better, but
    costs many times as much while thousands of samples are significant.
    """
    too_coarse = sampling.fine_step > _TOO_COARSE * progress.accuracy_rotation
    last_global = not sampling.local and sampling.healpix_order + 1 == options.local_healpix_order
    return options.sampling_from_resolution and too_coarse and not (last_global and _still_turning(sampling, progress, options))


def ends_on_next_step(sampling: SamplingState, progress: Progress, options: RefineOptions) -> bool:
    """Whether finer-sampling-faster makes the iteration on the next finer grid the last one, which joins the halves.

    Not in RELION: where local searches gain no more resolution and the next step is fine enough, an iteration of separate halves on it would only
    repeat what the last one does with the joined map to Nyquist.
    """
    due = options.sampling_from_resolution and sampling.local and progress.iterations_without_resolution_gain >= 1
    if not due or progress.has_fine_enough:
        return False
    finer, _ = update_sampling(sampling, progress, options)
    return finer.healpix_order > sampling.healpix_order and is_fine_enough(finer, progress, options)


def _lie_wrong(sampling: SamplingState, progress: Progress) -> bool:
    """Whether images still lie wrong, and off the centre, too: orientations turn by more than a step, and not because that is far too coarse."""
    return progress.changes_angles >= sampling.fine_step and sampling.fine_step <= _FAR_TOO_COARSE * progress.accuracy_rotation


def _finer(sampling: SamplingState, progress: Progress, options: RefineOptions) -> SamplingState:
    """The next HEALPix order, with offsets sampled by their accuracy and searched over what they still change."""
    step = min(_FINEST_STEP, _SHARE_OF_ACCURACY * progress.accuracy_translation) * 2**sampling.oversampling
    reach = max(min(1.3 * sampling.offset_range, 5 * progress.changes_offsets), 1.5 * step)
    if reach > 4 * step:
        reach = max(reach / 2, 4 * step) if _lie_wrong(sampling, progress) else reach / 2  # RELION halves it in any case
    if reach > 4 * step:
        step = reach / 4
    if step > sampling.offset_step:
        step, reach = sampling.offset_step, sampling.offset_range
    finer = replace(sampling, healpix_order=sampling.healpix_order + 1, psi_step=0.0, offset_step=step, offset_range=reach)
    if finer.healpix_order >= options.local_healpix_order:
        finer = replace(finer, local=True, sigma_angle=2 * finer.fine_step)
    return finer


def count_changes(progress: Progress, sampling: SamplingState, old: Poses, new: Poses) -> Progress:
    """Mean changes of angles, offsets and classes, and how long they have been small (ALGORITHM.md 4.11, 5.4)."""
    operators = point_group(sampling.symmetry).operators
    angles = float(euler.angular_difference(euler.to_matrix(old.angles), euler.to_matrix(new.angles), operators).mean())
    offsets = float(np.sqrt(((new.offsets - old.offsets) ** 2).sum(1).mean() / 2))
    classes = float((new.class_number != old.class_number).mean())
    small = (
        1.03 * classes >= progress.smallest_changes_classes
        and (offsets / (sampling.offset_step / 2**sampling.oversampling) < 0.40 or 1.03 * offsets >= progress.smallest_changes_offsets)
        and (angles / sampling.fine_step < 0.40 or 1.03 * angles >= progress.smallest_changes_angles)
    )
    return replace(
        progress,
        changes_angles=angles, changes_offsets=offsets, changes_classes=classes,
        iterations_without_large_changes=progress.iterations_without_large_changes + 1 if small else 0,
        smallest_changes_angles=min(progress.smallest_changes_angles, angles),
        smallest_changes_offsets=min(progress.smallest_changes_offsets, offsets),
        smallest_changes_classes=int(min(progress.smallest_changes_classes, round(classes))),
    )  # fmt: skip


def resolution_shell(model: Model) -> int:
    """Shell up to which signal exceeds noise (ALGORITHM.md 5.6); a dip is bridged where most shells beyond it, more than 3, are good again.

    RELION goes to the last good shell whatever lies between: scattered shells of noise would then be a resolution.
    """
    ratio = model.data_vs_prior[:-1]  # the Nyquist shell never counts: half of its voxels lie outside the sphere
    below = np.flatnonzero(ratio[1:] < 1)
    shell = int(below[0]) if len(below) else len(ratio) - 1
    above = np.flatnonzero(ratio > 1)
    last = int(above[-1]) if len(above) else 0
    beyond = ratio[shell + 1 : last + 1]
    bridged = last > shell + 3 and (beyond < 1).mean() <= _DIP
    return max(last if bridged else shell, _MINIMUM_SHELL)


def update_resolution(progress: Progress, model: Model, options: RefineOptions, fixed_by_lowpass: bool) -> Progress:
    """Current and best resolution from the first half's spectra; `fixed_by_lowpass` in iteration 0 and a correlation iteration."""
    extent = model.box * model.pixel_size
    shell = int(round_half_away(extent / options.initial_lowpass)) if fixed_by_lowpass else resolution_shell(model)
    resolution = shell / extent
    gained = resolution > progress.current_resolution + 0.0001
    return replace(
        progress, current_resolution=resolution, best_resolution=max(progress.best_resolution, resolution),
        iterations_without_resolution_gain=0 if gained else progress.iterations_without_resolution_gain + 1,
    )  # fmt: skip


def update_image_growth(progress: Progress, fsc: np.ndarray, current_size: int) -> Progress:
    """How far beyond the resolution to look next time, from the fall of the FSC (ALGORITHM.md 5.1, step 10)."""
    first_below = lambda threshold: next((s for s in range(1, len(fsc)) if fsc[s] < threshold), -1)  # noqa: E731
    increment = max(progress.increment_size, first_below(0.143) - first_below(0.5) + 5)
    high = progress.has_high_fsc_at_limit or bool(fsc[max(current_size // 2 - 1, 0)] > 0.2)
    return replace(progress, increment_size=increment, has_high_fsc_at_limit=high)


def perturbed(sampling: SamplingState, seed: int) -> SamplingState:
    """The next random perturbation of the grids: a step of 0.5 to 1 factors, wrapped into [-factor, factor] (ALGORITHM.md 4.6)."""
    factor = sampling.perturbation_factor
    if factor <= 0:
        return replace(sampling, perturbation=0.0)
    value = sampling.perturbation + np.random.default_rng(abs(seed)).uniform(0.5 * factor, factor)
    return replace(sampling, perturbation=float((value + factor) % (2 * factor) - factor))
