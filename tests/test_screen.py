"""Screening keeps what may be best: it never changes which orientations win, only how many are looked at."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aurefine.refine import screen

RANDOM = np.random.default_rng(3)


def test_entries_near_the_best_are_kept_and_others_not():
    weak = [5, 4 - screen.MARGIN, 6 - screen.MARGIN, 4]  # the lead is small: the margin counts
    strong = [900, 400, 500, 600, 850]  # lead 250, of which SHARE counts
    ptr, kept = screen.near_best(np.float32(weak + strong), np.array([0, 4, 9]))
    assert kept.tolist() == [0, 2, 3, 4, 8]
    assert ptr.tolist() == [0, 3, 5]


def test_the_best_is_kept_whatever_the_signal():
    values = (RANDOM.standard_normal((50, 300)) * 10.0 ** RANDOM.uniform(-2, 4, (50, 1))).astype(np.float32)
    ptr, kept = screen.near_best(values.reshape(-1), np.arange(51) * 300)
    best = values.argmax(1) + np.arange(50) * 300
    assert np.isin(best, kept).all()
    assert (np.diff(ptr) >= 1).all()


def test_what_a_prior_excludes_is_never_kept_and_has_no_say():
    values = np.float32([0, -1, -3, -1e30, -1e30])
    assert screen.near_best(values, np.array([0, 5]))[1].tolist() == [0, 1, 2]


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_best_over_shifts_is_the_largest_score_with_all_priors(dtype, error):
    cross, half_power = torch.from_numpy(RANDOM.standard_normal((3, 4, 7)).astype(np.float32)), RANDOM.random((3, 7)).astype(np.float32)
    log_rotation, log_offset = RANDOM.random(7).astype(np.float32), RANDOM.random((3, 4)).astype(np.float32)
    expected = (cross.numpy() + log_offset[:, :, None]).max(1) + log_rotation - half_power
    assert screen.best_over_shifts(cross.to(dtype), half_power, log_rotation, log_offset) == pytest.approx(expected, abs=error)


@pytest.mark.parametrize("span", [50, 10**9], ids=["by counting", "by sorting"])
def test_distinct_is_unique(span):
    index = RANDOM.integers(0, span, 200)
    used, place = screen.distinct(index)
    expected = np.unique(index, return_inverse=True)
    assert used.tolist() == expected[0].tolist() and place.tolist() == expected[1].tolist()
