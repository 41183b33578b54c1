"""Screening keeps what may be best: it never changes which orientations win, only how many are looked at."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aurefine import sampling
from aurefine.refine import screen, select

RANDOM = np.random.default_rng(3)


def test_entries_near_the_best_are_kept_and_others_not():
    weak = [5, 4 - screen.MARGIN, 6 - screen.MARGIN, 4]  # the lead is small: the margin counts
    strong = [900, 400, 500, 600, 850]  # lead 250, of which SHARE counts: 100
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
def test_best_over_shifts_is_the_largest_of_the_dense_scores(dtype, error):
    particles, shifts, directions, half = 3, 4, 2, 3
    products = torch.from_numpy(RANDOM.standard_normal((2, particles * shifts, directions * half)).astype(np.float32))
    half_power, log_rotation = RANDOM.random((particles, directions * half), np.float32), RANDOM.random(2 * directions * half, np.float32)
    log_offset = RANDOM.random((particles, shifts), np.float32)
    expected = select.dense_scores(products.numpy(), half_power, log_rotation, log_offset, half).max(1)
    assert screen.best_over_shifts(products.to(dtype), half_power, log_rotation, log_offset, half) == pytest.approx(expected, abs=error)


@pytest.mark.parametrize("reach", [1.0, 2.0, 5.0, 9.0])
def test_every_second_shift_leaves_each_of_the_others_a_neighbour(reach):
    shifts = sampling.translations(reach, 2.0)
    kept = screen.every_second(shifts, 2.0)
    distance = np.linalg.norm(shifts[:, None] - shifts[kept][None], axis=-1).min(1)
    assert 0 < len(kept) <= 1 + 0.3 * len(shifts)
    assert distance.max() <= 2.0 * np.sqrt(2) + 1e-9


@pytest.mark.parametrize("span", [50, 10**9], ids=["by counting", "by sorting"])
def test_distinct_is_unique(span):
    index = RANDOM.integers(0, span, 200)
    used, place = screen.distinct(index)
    expected = np.unique(index, return_inverse=True)
    assert used.tolist() == expected[0].tolist() and place.tolist() == expected[1].tolist()
