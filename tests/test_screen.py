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
    found, bound = screen.best_over_shifts(products.to(dtype), half_power, log_rotation, log_offset, half)
    assert found == pytest.approx(expected, abs=error)
    assert (np.abs(found - expected).max(1) <= bound + 1e-6).all() and (bound > 0).all() == (dtype == torch.bfloat16)


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


@pytest.mark.parametrize(("scale", "most"), [(12.0, 0.5), (120.0, 5.0)], ids=["the margin counts", "the share counts"])
def test_what_is_scored_again_decides_as_if_nothing_were_rounded(scale, most):
    exact = (scale * RANDOM.standard_normal((200, 400))).astype(np.float32)
    error = np.full(200, most, np.float32)
    rough = exact + RANDOM.uniform(-most, most, exact.shape).astype(np.float32)
    every = np.arange(201) * 400
    wanted, rounded = (screen.near_best(values.reshape(-1), every)[1] for values in (exact, rough))
    scored = 0
    for of_floor in (False, True):
        ptr, rotation = screen.doubtful(rough, error, of_floor)
        shifts = 2
        row = np.repeat(np.arange(200), np.diff(ptr))
        values = np.stack([exact[row, rotation] - 1, exact[row, rotation] - 3], 1).astype(np.float32)  # at its two shifts, whose priors add 1 and 2
        screen.put_best(values.reshape(-1), ptr * shifts, ptr, rotation, np.zeros(400, np.float32), np.tile(np.float32([1, 2]), (200, 1)), rough)
        scored += len(rotation)
    found = screen.near_best(rough.reshape(-1), every)[1]
    before, after = (len(np.setxor1d(kept, wanted)) for kept in (rounded, found))
    assert before > 100 and after < 0.05 * before  # the average, which counts where the share does, is rounded still
    assert scored < 0.1 * exact.size
