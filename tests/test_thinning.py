"""Thinning keeps what samples mean: each slice's weight on average, every particle's total exactly, the heavy ones as they are."""

from __future__ import annotations

import numpy as np
import pytest

from aurefine.kernels import Samples
from aurefine.refine import thinning

SHARE = 0.05


def samples(particles: int, slices: int, seed: int) -> Samples:
    """Every particle in every slice with three shifts, weights of very different size that sum to 1 a particle."""
    rng = np.random.default_rng(seed)
    weight = rng.exponential(1, (slices, particles, 3)) ** 4
    weight /= weight.sum((0, 2), keepdims=True)
    runs = slices * particles
    slice_ptr, run_ptr = np.arange(slices + 1, dtype=np.int64) * particles, np.arange(runs + 1, dtype=np.int64) * 3
    return Samples(
        slice_ptr, np.tile(np.arange(particles, dtype=np.int32), slices), run_ptr,
        rng.integers(0, 9, 3 * runs).astype(np.int32), weight.reshape(-1).astype(np.float32),
    )  # fmt: skip


def by_run(given: Samples, particles: int) -> np.ndarray:
    """float64 [slices, particles] weights."""
    slices = len(given.slice_ptr) - 1
    out = np.zeros((slices, particles))
    of_slice = np.repeat(np.arange(slices), np.diff(given.slice_ptr))
    np.add.at(out, (of_slice, given.run_particle), np.add.reduceat(given.weight.astype(float), given.run_ptr[:-1]))
    return out


def test_heavy_slices_stay_and_every_particle_keeps_its_total():
    whole = samples(20, 200, 1)
    thin = thinning.thinned(whole, thinning.lots(np.arange(20), 3), SHARE)
    before, after = by_run(whole, 20), by_run(thin, 20)
    heavy = before >= SHARE
    assert heavy.any()
    np.testing.assert_allclose(after[heavy], before[heavy], rtol=1e-6)
    assert after.sum(0) == pytest.approx(np.ones(20), abs=1e-3)
    light = (after > 0) & ~heavy
    assert (light.sum(0) <= np.ceil(1 / SHARE)).all()
    assert len(thin.run_particle) < 0.3 * len(whole.run_particle)


def test_each_slice_has_its_weight_on_average():
    whole = samples(1, 100, 2)
    before = by_run(whole, 1)
    draws = [by_run(thinning.thinned(whole, np.array([lot]), SHARE), 1) for lot in (np.arange(500) + 0.5) / 500]
    np.testing.assert_allclose(np.mean(draws, axis=0), before, atol=2e-4)


def test_shifts_of_a_slice_stay_together():
    whole = samples(5, 50, 3)
    thin = thinning.thinned(whole, np.full(5, 0.3), SHARE)
    assert (np.diff(thin.run_ptr) == 3).all()
    assert thin.run_ptr[-1] == len(thin.shift) == len(thin.weight)
    assert thin.slice_ptr[-1] == len(thin.run_particle)


def test_lots_are_spread_evenly():
    assert np.histogram(thinning.lots(np.arange(1000), 7), 10, (0, 1))[0].tolist() == pytest.approx([100] * 10, abs=3)
    assert len({float(thinning.lots(np.array([5]), iteration)[0]) for iteration in range(20)}) == 20
