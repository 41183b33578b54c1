"""When sampling gets finer, and when a run may converge."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from aurefine.refine import schedule
from aurefine.refine.options import RefineOptions
from aurefine.refine.state import Progress, SamplingState

OPTIONS = RefineOptions()
SAMPLING = SamplingState(symmetry="C1", healpix_order=4, offset_range=5.0, offset_step=2.0)  # fine step 1.875 degrees
AT_REST = Progress(iterations_without_resolution_gain=1, iterations_without_large_changes=1, has_fine_enough=True)


def test_a_run_whose_accuracy_still_improves_has_not_come_to_rest() -> None:
    before = Progress(accuracy_rotation=13.1)
    assert schedule.accuracy_improves(before, Progress(accuracy_rotation=10.1))
    assert not schedule.accuracy_improves(before, Progress(accuracy_rotation=13.0))
    assert not schedule.accuracy_improves(before, Progress(accuracy_rotation=15.0))


@pytest.mark.parametrize(("accuracy", "fine"), [(2.49, False), (2.51, True)])
def test_a_step_is_fine_enough_below_three_quarters_of_the_accuracy(accuracy: float, fine: bool) -> None:
    assert schedule.is_fine_enough(SAMPLING, Progress(accuracy_rotation=accuracy), OPTIONS) == fine
    assert schedule.was_fine_enough(SAMPLING, Progress(accuracy_rotation=accuracy), OPTIONS) == fine


def test_an_accuracy_that_was_never_estimated_is_no_verdict() -> None:
    assert not schedule.was_fine_enough(SAMPLING, Progress(), OPTIONS)


@pytest.mark.parametrize("name", ["iterations_without_resolution_gain", "iterations_without_large_changes", "has_fine_enough"])
def test_a_run_converges_only_when_all_three_conditions_hold(name: str) -> None:
    assert schedule.has_converged(AT_REST, OPTIONS)
    assert not schedule.has_converged(replace(AT_REST, **{name: 0}), OPTIONS)


def test_finer_sampling_faster_does_not_wait_for_the_changes_of_orientations() -> None:
    moving = replace(AT_REST, iterations_without_large_changes=0)
    assert not schedule.has_converged(moving, OPTIONS)
    assert schedule.has_converged(moving, replace(OPTIONS, ignore_angle_changes=True))


def test_sampling_gets_finer_only_when_resolution_and_changes_have_stalled() -> None:
    stalled = replace(AT_REST, has_fine_enough=False, accuracy_rotation=1.0, accuracy_translation=1.0, changes_offsets=0.5)
    finer, progress = schedule.update_sampling(SAMPLING, stalled, OPTIONS)
    assert finer.healpix_order == 5 and finer.local and finer.sigma_angle == pytest.approx(2 * finer.fine_step)
    assert progress.iterations_without_resolution_gain == progress.iterations_without_large_changes == 0
    for name in ("iterations_without_resolution_gain", "iterations_without_large_changes"):
        same, _ = schedule.update_sampling(SAMPLING, replace(stalled, **{name: 0}), OPTIONS)
        assert same == SAMPLING
    same, _ = schedule.update_sampling(SAMPLING, replace(stalled, has_fine_enough=True), OPTIONS)
    assert same == SAMPLING


LOCAL = replace(SAMPLING, healpix_order=5, local=True)
FASTER = replace(OPTIONS, ignore_angle_changes=True, sampling_from_resolution=True, particle_diameter=200.0)


def test_finer_sampling_faster_ends_on_the_next_step_when_that_one_is_fine_enough() -> None:
    settled = Progress(accuracy_rotation=1.0, accuracy_translation=1.0, changes_offsets=0.5, current_resolution=1 / 30)
    paused = replace(settled, iterations_without_resolution_gain=1)
    assert LOCAL.fine_step == 0.9375  # the next one, 0.46875, is below three quarters of a degree
    assert schedule.ends_on_next_step(LOCAL, paused, FASTER)
    assert not schedule.ends_on_next_step(LOCAL, paused, replace(FASTER, sampling_from_resolution=False))  # RELION's default schedule
    assert not schedule.ends_on_next_step(replace(LOCAL, local=False), paused, FASTER)
    assert not schedule.ends_on_next_step(LOCAL, settled, FASTER)
    assert not schedule.ends_on_next_step(LOCAL, replace(paused, accuracy_rotation=0.6), FASTER)  # two steps are wanted
    assert not schedule.ends_on_next_step(LOCAL, replace(paused, has_fine_enough=True), FASTER)  # nothing is to get finer


def test_finer_sampling_faster_does_not_stay_on_a_grid_coarser_than_the_accuracy() -> None:
    improving = Progress(accuracy_rotation=2.0, accuracy_translation=1.0, changes_angles=20.0, changes_offsets=0.5, current_resolution=1 / 30)
    coarse = replace(SAMPLING, healpix_order=2)  # 7.5 degrees
    assert schedule.update_sampling(coarse, improving, FASTER)[0].healpix_order == 3
    assert schedule.update_sampling(coarse, improving, replace(FASTER, ignore_angle_changes=False))[0] == coarse  # changes are to be waited for
    assert schedule.update_sampling(coarse, replace(improving, accuracy_rotation=6.5), FASTER)[0] == coarse
    # orientations must have come to rest before searches become local
    last_global = replace(SAMPLING, healpix_order=3, local=False)  # 3.75 degrees
    assert schedule.update_sampling(last_global, improving, FASTER)[0] == last_global
    assert schedule.update_sampling(last_global, replace(improving, changes_angles=3.0), FASTER)[0].local


def test_finer_sampling_faster_waits_while_orientations_still_turn_far() -> None:
    last_global = replace(SAMPLING, healpix_order=3, local=False)  # 3.75 degrees
    paused = Progress(accuracy_rotation=4.0, accuracy_translation=1.0, changes_angles=8.8, changes_offsets=0.5, current_resolution=1 / 16,
                      iterations_without_resolution_gain=1)  # fmt: skip
    assert schedule.update_sampling(last_global, paused, FASTER)[0] == last_global
    assert schedule.update_sampling(last_global, replace(paused, changes_angles=3.0), FASTER)[0].local
    # weak images never come to rest: it is enough that they turn no less than before
    assert schedule.update_sampling(last_global, replace(paused, iterations_without_large_changes=1), FASTER)[0].local
    assert schedule.update_sampling(last_global, paused, replace(FASTER, sampling_from_resolution=False))[0].local  # RELION's --auto_ignore_angles
    # on coarser grids, too, but for a step that is too coarse for what the orientations could be
    coarse = replace(last_global, healpix_order=2)  # 7.5 degrees
    assert schedule.update_sampling(coarse, replace(paused, accuracy_rotation=6.5), FASTER)[0] == coarse
    assert schedule.update_sampling(coarse, replace(paused, accuracy_rotation=5.5), FASTER)[0].healpix_order == 3


def test_offsets_are_searched_as_far_as_the_grid_allows_while_orientations_turn_by_more_than_a_step() -> None:
    coarse = SamplingState(symmetry="C1", healpix_order=2, offset_range=17.7, offset_step=7.08)  # 7.5 degrees
    turning = Progress(accuracy_rotation=4.0, accuracy_translation=5.0, changes_angles=20.0, changes_offsets=3.6, current_resolution=1 / 16)
    finer = schedule.update_sampling(coarse, turning, FASTER)[0]
    assert (finer.healpix_order, finer.offset_step, finer.offset_range) == (3, 3.0, 12.0)  # four steps, where half of 5 x 3.6 is 9
    assert schedule.update_sampling(coarse, replace(turning, changes_angles=7.0), FASTER)[0].offset_range == 9.0
    assert schedule.update_sampling(coarse, replace(turning, accuracy_rotation=3.0), FASTER)[0].offset_range == 9.0  # the grid was the reason
    far = schedule.update_sampling(coarse, replace(turning, accuracy_translation=1.0, changes_offsets=5.0), FASTER)[0]
    assert (far.offset_step, far.offset_range) == (11.505 / 4, 11.505)  # half of 1.3 x 17.7: more than four steps of 1.5


def test_nothing_is_oversampled_where_the_coarse_step_resolves_the_accuracy() -> None:
    poor = Progress(accuracy_rotation=5.1, accuracy_translation=2.7)  # coarse steps: 3.75 degrees, 2 Angstrom
    assert schedule.oversampling(SAMPLING, poor) == (0, 0)
    assert schedule.oversampling(SAMPLING, replace(poor, accuracy_rotation=4.9)) == (1, 0)
    assert schedule.oversampling(SAMPLING, replace(poor, accuracy_translation=2.6)) == (0, 1)
    assert schedule.oversampling(SAMPLING, replace(poor, has_converged=True)) == (1, 1)
    assert schedule.oversampling(SAMPLING, Progress()) == (1, 1)


@pytest.mark.parametrize(
    ("bad", "last", "shell"),
    [([], 20, 20), ([10, 11], 25, 25), ([10, 12], 13, 9), ([10, 12, 14, 16], 17, 9), ([10], 12, 9), ([2], 3, 5)],
    ids=["no dip", "a dip", "scattered noise", "more of it", "nothing much beyond", "never below shell 5"],
)
def test_only_a_dip_in_a_good_curve_is_bridged(bad: list[int], last: int, shell: int) -> None:
    ratio = np.where(np.arange(33) <= last, 5.0, 0.1)
    ratio[bad] = 0.9
    assert schedule.resolution_shell(SimpleNamespace(data_vs_prior=ratio)) == shell  # type: ignore[arg-type]
