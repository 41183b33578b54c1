"""The torch versions of selection and fine-pass bookkeeping, for scores on a GPU, equal the Numba ones; run on the CPU where there is no GPU."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aurefine.kernels import NEVER
from aurefine.refine import fine, fine_torch, select, select_torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def _tensor(values):
    return torch.from_numpy(values.copy()).to(DEVICE)


def _ragged(rng, lengths, spread):
    ptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return (rng.standard_normal(ptr[-1]) * spread - 1000).astype(np.float32), ptr


def _assert_alike(torch_one, numba_one, names):
    for name in names:
        np.testing.assert_allclose(getattr(torch_one, name), getattr(numba_one, name), rtol=1e-6, err_msg=name)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6), lengths=st.lists(st.integers(1, 300), min_size=1, max_size=6), spread=st.sampled_from([0.01, 1.0, 5.0, 300.0]),
    fraction=st.sampled_from([0.9, 0.999]), largest=st.sampled_from([-1, 1, 7]),
)  # fmt: skip
def test_significant_samples_equal_their_twin(seed, lengths, spread, fraction, largest):
    values, ptr = _ragged(np.random.default_rng(seed), lengths, spread)
    expected = select.significant(values, ptr, fraction, largest)
    found = select_torch.significant(_tensor(values), ptr, fraction, largest)
    _assert_alike(found, expected, ("maximum", "argmax", "log_sum", "threshold", "count"))
    (index, found_ptr), (expected_index, expected_ptr) = select_torch.indices(_tensor(values), ptr, found), select.indices(values, ptr, expected)
    np.testing.assert_array_equal(index.cpu(), expected_index)
    np.testing.assert_array_equal(found_ptr, expected_ptr)


def test_ties_and_excluded_samples_are_selected_alike():
    values = np.array([1, 1, 1, NEVER, 5, NEVER, 5, 5, 2], np.float32)
    ptr = np.array([0, 4, 5, 9], np.int64)
    expected, found = select.significant(values, ptr, 0.6), select_torch.significant(_tensor(values), ptr, 0.6)
    _assert_alike(found, expected, ("maximum", "argmax", "log_sum", "threshold", "count"))
    expected, found = select.best_only(values, ptr), select_torch.best_only(_tensor(values), ptr)
    _assert_alike(found, expected, ("maximum", "argmax", "threshold", "count"))


@pytest.mark.parametrize("correlation", [False, True])
def test_dense_scores_equal_their_twin(correlation):
    rng = np.random.default_rng(1)
    products, half_power = rng.standard_normal((2, 3 * 5, 8), dtype=np.float32), rng.random((3, 8), dtype=np.float32)
    rotation, offset = rng.standard_normal(16, dtype=np.float32), rng.standard_normal((3, 5), dtype=np.float32)
    found = select_torch.dense_scores(_tensor(products), _tensor(half_power), rotation, offset, 4, correlation)
    np.testing.assert_allclose(found.cpu(), select.dense_scores(products, half_power, rotation, offset, 4, correlation), rtol=1e-5, atol=1e-6)


def test_block_priors_equal_their_twin():
    rng = np.random.default_rng(2)
    pair_ptr, shifts = np.array([0, 3, 3, 8], np.int64), 5
    values, pair = rng.standard_normal(8 * shifts, dtype=np.float32), rng.standard_normal(8, dtype=np.float32)
    offset = rng.standard_normal((3, shifts), dtype=np.float32)
    found = _tensor(values)
    select_torch.add_block_priors(found, pair_ptr * shifts, pair_ptr, pair, offset)
    select.add_block_priors(values, pair_ptr * shifts, pair_ptr, pair, offset)
    np.testing.assert_allclose(found.cpu(), values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("children", "shifts"), [(8, 4), (1, 1)])
@pytest.mark.parametrize("spread", [0.5, 8.0])
def test_fine_samples_equal_their_twin(children, shifts, spread):
    rng = np.random.default_rng(3)
    particle_ptr = np.array([0, 6, 7, 20], np.int64)
    rotation, shift = rng.integers(0, 5, 20), rng.integers(0, 3, 20)
    pairs = fine.by_rotation(particle_ptr, rotation, shift)
    values, prior = (rng.standard_normal((20, children, shifts)) * spread).astype(np.float32), rng.standard_normal(20, dtype=np.float32)
    found, ordered, found_ordered = _tensor(values), np.empty_like(values), torch.empty(values.shape, device=DEVICE)
    fine.add_pair_prior(values, prior)
    fine_torch.add_pair_prior(found, prior)
    fine.to_particle_order(values, pairs.order, ordered)
    fine_torch.to_particle_order(found, pairs.order, found_ordered)
    np.testing.assert_allclose(found_ordered.cpu(), ordered, rtol=1e-6)
    chosen = select.significant(ordered.reshape(-1), particle_ptr * children * shifts, 0.99)
    expected, samples = fine.samples_of(ordered, pairs, chosen), fine_torch.samples_of(found_ordered, pairs, chosen)
    for name in expected.__dataclass_fields__:
        one, other = getattr(samples, name), getattr(expected, name)
        assert one.numel() == other.size
        np.testing.assert_allclose(one.cpu(), other, rtol=1e-5, err_msg=name)
    centre, table = rng.standard_normal((3, 2)), rng.standard_normal((3 * shifts, 2))
    weight, by_slice, square = fine.totals(expected, centre, table)
    found_weight, found_by_slice, found_square = fine_torch.totals(samples, centre, table)
    np.testing.assert_allclose(found_weight, weight, rtol=1e-5)
    np.testing.assert_allclose(found_by_slice.cpu(), by_slice, rtol=1e-5)
    np.testing.assert_allclose(found_square, square, rtol=1e-5)
    directions = fine_torch.by_direction(pairs, found_by_slice, 2, 3)
    np.testing.assert_allclose(directions, fine.by_direction(pairs, by_slice, 2, 3), rtol=1e-5)


def test_pairs_in_order_of_rotation_equal_their_twin():
    rng = np.random.default_rng(4)
    particle_ptr = np.array([0, 16, 17, 17, 60], np.int64)  # several particles share each rotation: the grid's order
    rotation, shift = np.concatenate([np.sort(rng.integers(0, 9, n)) for n in (16, 1, 43)]) * 7, rng.integers(0, 5, 60)
    expected, found = fine.by_rotation(particle_ptr, rotation, shift), fine_torch.by_rotation(particle_ptr, _tensor(rotation), _tensor(shift))
    for name in expected.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(found, name).cpu(), getattr(expected, name), err_msg=name)


@pytest.mark.parametrize("rotation_prior", [True, False])
def test_significant_pairs_with_their_priors_equal_their_twin(rotation_prior):
    rng = np.random.default_rng(6)
    values, ptr = _ragged(rng, [24, 12, 36], 3.0)
    offset = rng.standard_normal((3, 4), dtype=np.float32)
    rotation = rng.standard_normal(9, dtype=np.float32) if rotation_prior else None
    split = lambda k: (k // 4, k % 4)  # noqa: E731
    chosen = select.significant(values, ptr, 0.99)
    expected = select.pairs(values, ptr, chosen, split, rotation, offset)
    found = select_torch.pairs(_tensor(values), ptr, chosen, split, rotation, offset)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(torch.as_tensor(one).cpu(), other, rtol=1e-6)
    count = np.array([3, 0, 2])
    spread = select_torch.spread(np.arange(3), count, torch.zeros(5, device=DEVICE))
    np.testing.assert_array_equal(spread.cpu(), select.spread(np.arange(3), count, np.zeros(5)))
    np.testing.assert_array_equal(select_torch.picked(_tensor(values), count), select.picked(values, count))
