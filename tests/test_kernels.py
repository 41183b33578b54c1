"""Every fast kernel equals its plain-torch twin."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from aurefine.fourier import pixel_list
from aurefine.kernels import NEVER, Accumulator, Samples, Screening, Volume, cpu, reference


def _volume(r_max, padding, rng):
    h = int(padding * r_max + 0.5) + 1
    shape = (2 * h + 1, 2 * h + 1, h + 1)
    return Volume(torch.complex(*(torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)) for _ in range(2))), r_max, padding)


def _slices(n, padding, rng):
    return np.ascontiguousarray(padding * Rotation.random(n, rng=rng).as_matrix()[:, :, :2], dtype=np.float32)


SHAPES = [(8, 16, 2.0, 8), (12, 24, 1.0, 12), (10, 24, 2.0, 12), (24, 24, 2.0, 12)]


@pytest.mark.parametrize(("size", "box", "padding", "r_max"), SHAPES)
def test_projection_equals_its_twin(size, box, padding, r_max):
    rng = np.random.default_rng(1)
    volume, slices, pixels = _volume(r_max, padding, rng), _slices(9, padding, rng), pixel_list(size, box, 1.0)
    expected = reference.project(volume, slices, pixels)
    assert expected.abs().max() > 0
    torch.testing.assert_close(cpu.project(volume, slices, pixels), expected, rtol=1e-4, atol=1e-4)


def _images(n, pixels, rng):
    real, imaginary = rng.standard_normal((2, n, len(pixels)), dtype=np.float32)
    return torch.complex(torch.from_numpy(real), torch.from_numpy(imaginary))


@pytest.mark.parametrize(("size", "box", "padding", "r_max"), SHAPES)
def test_scores_equal_their_twin(size, box, padding, r_max):
    rng = np.random.default_rng(2)
    volume, slices, pixels = _volume(r_max, padding, rng), _slices(20, padding, rng), pixel_list(size, box, 1.0)
    pair_ptr = np.array([0, 3, 3, 15], np.int64)
    pair_slice = rng.integers(0, 20, 15).astype(np.int32)
    shift_ptr = np.array([0, 5, 7, 20], np.int64)
    shift_row = rng.integers(0, 6, 20).astype(np.int32)
    shifts = rng.standard_normal((6, 2)).astype(np.float32) * 0.3
    power = torch.from_numpy(rng.random((3, len(pixels)), dtype=np.float32))
    arguments = (volume, slices, pair_ptr, pair_slice, _images(3, pixels, rng), power, shift_ptr, shift_row, shifts, pixels)
    fast, slow = cpu.score(*arguments), reference.score(*arguments)
    np.testing.assert_array_equal(fast[1], slow[1])
    np.testing.assert_allclose(fast[0], slow[0], rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("shells", [(3, 4, 6), ()])
def test_screened_scores_drop_what_their_twin_drops(shells):
    rng = np.random.default_rng(8)
    volume, slices, pixels = _volume(10, 2.0, rng), _slices(40, 2.0, rng), pixel_list(20, 24, 1.0)
    shifts = rng.standard_normal((5, 2)).astype(np.float32) * 0.3
    pair_ptr, shift_ptr = np.array([0, 17, 17, 40], np.int64), np.arange(4, dtype=np.int64) * 5
    log_pair = np.where(rng.random(40) < 0.1, NEVER, rng.standard_normal(40)).astype(np.float32)
    power = torch.from_numpy(rng.random((3, len(pixels)), dtype=np.float32))
    rule = Screening(shells, 12.0, 0.2, log_pair, rng.standard_normal((3, 5)).astype(np.float32))
    arguments = (volume, slices, pair_ptr, np.arange(40, dtype=np.int32), _images(3, pixels, rng), power, shift_ptr, np.tile(np.arange(5), 3), shifts)
    fast, slow = (np.asarray(backend.score(*arguments, pixels, False, rule)[0]) for backend in (cpu, reference))
    dropped = slow == NEVER
    assert 0.2 < dropped.mean() < 0.95 if shells else not dropped.any()
    np.testing.assert_array_equal(fast == NEVER, dropped)
    np.testing.assert_allclose(fast, slow, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("correlation", [False, True])
@pytest.mark.parametrize(("n_rot", "n_shift"), [(8, 4), (8, 1), (1, 4), (1, 1), (64, 16)])
@pytest.mark.parametrize(("size", "box", "padding", "r_max"), SHAPES[:2])
def test_scores_of_children_equal_their_twin(size, box, padding, r_max, n_rot, n_shift, correlation):
    rng = np.random.default_rng(5)
    volume, slices, pixels = _volume(r_max, padding, rng), _slices(3 * n_rot, padding, rng), pixel_list(size, box, 1.0)
    rotation_ptr = np.array([0, 2, 2, 5], np.int64)
    particle, shift = np.array([0, 0, 0, 1, 2], np.int32), np.array([1, 2, 0, 1, 1], np.int32)
    shifts = rng.standard_normal((3 * n_shift, 2)).astype(np.float32) * 0.3
    power = torch.from_numpy(rng.random((3, len(pixels)), dtype=np.float32))
    arguments = (volume, slices, n_rot, rotation_ptr, particle, shift, _images(3, pixels, rng), power, shifts, n_shift, pixels, correlation)
    np.testing.assert_allclose(cpu.score_children(*arguments), reference.score_children(*arguments), rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("premultiplied", [False, True])
@pytest.mark.parametrize(("size", "box", "padding", "r_max"), SHAPES)
def test_accumulation_equals_its_twin(size, box, padding, r_max, premultiplied):
    rng = np.random.default_rng(3)
    volume, slices, pixels = _volume(r_max, padding, rng), _slices(6, padding, rng), pixel_list(size, box, 1.0)
    samples = Samples(
        np.array([0, 2, 2, 3, 5, 6, 7], np.int64), rng.integers(0, 3, 7).astype(np.int32), np.arange(8) * 3,
        rng.integers(0, 6, 21).astype(np.int32), rng.random(21).astype(np.float32),
    )  # fmt: skip
    shifts = rng.standard_normal((6, 2)).astype(np.float32) * 0.3
    model = torch.from_numpy(rng.standard_normal((3, len(pixels)), dtype=np.float32))
    strong, inverse = rng.random(len(pixels)) > 0.5, rng.random(len(pixels)).astype(np.float32)
    if premultiplied:
        model = model**2
    rest = (slices, samples, shifts, _images(3, pixels, rng), _images(3, pixels, rng), model, inverse, strong, pixels, premultiplied)
    fast, slow = Accumulator.empty(r_max, padding, 2), Accumulator.empty(r_max, padding, 1)
    fast_sums, slow_sums = cpu.accumulate(volume, fast, *rest), reference.accumulate(volume, slow, *rest)
    assert slow.combined().abs().max() > 0
    torch.testing.assert_close(fast.combined(), slow.combined(), rtol=1e-3, atol=1e-3)
    for name in fast_sums.__dataclass_fields__:
        np.testing.assert_allclose(getattr(fast_sums, name), getattr(slow_sums, name), rtol=1e-3, atol=1e-2)


def test_a_projection_of_a_backprojected_slice_returns_the_slice():
    """On the grid (no rotation) inserting and slicing are exact inverses."""
    rng = np.random.default_rng(4)
    pixels, padding, r_max = pixel_list(16, 16, 1.0), 2.0, 8
    identity = np.array([[[2, 0], [0, 2], [0, 0]]], np.float32)
    accumulator = Accumulator.empty(r_max, padding, 1)
    image = _images(1, pixels, rng)
    reference.insert(accumulator, identity, image, torch.ones(1, len(pixels)), pixels)
    data = accumulator.combined()
    projected = cpu.project(Volume(torch.view_as_complex(data[..., :2].contiguous()), r_max, padding), identity, pixels)
    free = torch.from_numpy(pixels.inside & (pixels.x > 0))
    torch.testing.assert_close(projected[:, free], image[:, free])
