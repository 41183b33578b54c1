"""Every Triton kernel equals its plain-torch twin: on the GPU where there is one, else in Triton's interpreter on the CPU."""

import os
import sys
import warnings

import numpy as np
import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels are defined, so it must stand before their import
pytest.importorskip("triton", reason="Triton is not installed: it is only made for Linux, and only GPUs need it")

from test_kernels import SHAPES, _images, _slices, _volume  # noqa: E402

from aurefine import kernels  # noqa: E402
from aurefine.fourier import pixel_list  # noqa: E402
from aurefine.kernels import Accumulator, Samples, Volume, cuda, reference  # noqa: E402


def _on_device(volume):
    return Volume(volume.data.to(DEVICE), volume.r_max, volume.padding)


@pytest.mark.parametrize(("size", "box", "padding", "r_max"), SHAPES)
def test_projection_equals_its_twin(size, box, padding, r_max):
    rng = np.random.default_rng(1)
    volume, slices, pixels = _on_device(_volume(r_max, padding, rng)), _slices(9, padding, rng), pixel_list(size, box, 1.0)
    expected = reference.project(volume, slices, pixels)
    assert expected.abs().max() > 0
    torch.testing.assert_close(cuda.project(volume, slices, pixels), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(cuda.project_planes(volume, slices, pixels), torch.stack([expected.real, expected.imag], 1), rtol=1e-4, atol=1e-4)


def _score_arguments(size, box, padding, r_max, pairs=(3, 0, 40), shifts=(5, 2, 20), table=6):
    rng = np.random.default_rng(2)
    volume, slices, pixels = _on_device(_volume(r_max, padding, rng)), _slices(20, padding, rng), pixel_list(size, box, 1.0)
    pair_ptr, shift_ptr = (np.concatenate([[0], np.cumsum(counts)]) for counts in (pairs, shifts))
    pair_slice = rng.integers(0, 20, pair_ptr[-1]).astype(np.int32)
    shift_row = rng.integers(0, table, shift_ptr[-1]).astype(np.int32)
    radians = rng.standard_normal((table, 2)).astype(np.float32) * 0.3
    power = torch.from_numpy(rng.random((len(pairs), len(pixels)), dtype=np.float32)).to(DEVICE)
    return volume, slices, pair_ptr, pair_slice, _images(len(pairs), pixels, rng).to(DEVICE), power, shift_ptr, shift_row, radians, pixels


@pytest.mark.parametrize("correlation", [False, True])
@pytest.mark.parametrize(("size", "box", "padding", "r_max"), SHAPES)
def test_scores_equal_their_twin(size, box, padding, r_max, correlation):
    arguments = _score_arguments(size, box, padding, r_max)
    fast, slow = cuda.score(*arguments, correlation), reference.score(*arguments, correlation)
    np.testing.assert_array_equal(fast[1], slow[1])
    np.testing.assert_allclose(fast[0].cpu(), slow[0].cpu(), rtol=1e-4, atol=2e-3)


def test_scores_of_many_shifts_and_slices_need_several_tiles():
    arguments = _score_arguments(10, 24, 2.0, 12, pairs=(1, 70, 33), shifts=(300, 129, 64), table=150)
    fast, slow = cuda.score(*arguments), reference.score(*arguments)
    np.testing.assert_allclose(fast[0].cpu(), slow[0].cpu(), rtol=1e-4, atol=2e-3)


def test_lists_that_are_on_the_device_already_score_alike():
    arguments = list(_score_arguments(10, 24, 2.0, 12))
    expected = cuda.score(*arguments)[0]
    for k in (1, 3, 7, 8):
        arguments[k] = torch.from_numpy(arguments[k]).to(DEVICE)
    torch.testing.assert_close(cuda.score(*arguments)[0], expected)


@pytest.mark.parametrize("correlation", [False, True])
@pytest.mark.parametrize(("n_rot", "n_shift"), [(8, 4), (1, 1), (64, 16)])
@pytest.mark.parametrize(("size", "box", "padding", "r_max"), SHAPES[:2])
def test_scores_of_children_equal_their_twin(size, box, padding, r_max, n_rot, n_shift, correlation):
    rng = np.random.default_rng(5)
    volume, slices, pixels = _on_device(_volume(r_max, padding, rng)), _slices(3 * n_rot, padding, rng), pixel_list(size, box, 1.0)
    rotation_ptr = np.array([0, 20, 20, 23], np.int64)
    particle, shift = np.sort(rng.integers(0, 3, 23)).astype(np.int32), rng.integers(0, 3, 23).astype(np.int32)
    shifts = rng.standard_normal((3 * n_shift, 2)).astype(np.float32) * 0.3
    images, power = _images(3, pixels, rng).to(DEVICE), torch.from_numpy(rng.random((3, len(pixels)), dtype=np.float32)).to(DEVICE)
    arguments = (volume, slices, n_rot, rotation_ptr, particle, shift, images, power, shifts, n_shift, pixels, correlation)
    np.testing.assert_allclose(cuda.score_children(*arguments).cpu(), reference.score_children(*arguments).cpu(), rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize(("size", "box", "padding", "r_max"), SHAPES)
def test_insertion_equals_its_twin(size, box, padding, r_max):
    rng = np.random.default_rng(5)
    slices, pixels = _slices(4, padding, rng), pixel_list(size, box, 1.0)
    values, weights = _images(4, pixels, rng).to(DEVICE), torch.from_numpy(rng.standard_normal((4, len(pixels)), dtype=np.float32)).to(DEVICE)
    fast, slow = (Accumulator.empty(r_max, padding, 1, DEVICE) for _ in range(2))
    cuda.insert(fast, slices, values, weights, pixels)
    reference.insert(slow, slices, values, weights, pixels)
    assert slow.combined().abs().max() > 0
    torch.testing.assert_close(fast.combined(), slow.combined(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("premultiplied", [False, True])
@pytest.mark.parametrize(("size", "box", "padding", "r_max"), SHAPES)
def test_accumulation_equals_its_twin(size, box, padding, r_max, premultiplied):
    rng = np.random.default_rng(3)
    volume, slices, pixels = _on_device(_volume(r_max, padding, rng)), _slices(6, padding, rng), pixel_list(size, box, 1.0)
    samples = Samples(
        np.array([0, 2, 2, 3, 5, 6, 7], np.int64), rng.integers(0, 3, 7).astype(np.int32), np.arange(8) * 3,
        rng.integers(0, 6, 21).astype(np.int32), rng.random(21).astype(np.float32),
    )  # fmt: skip
    shifts = rng.standard_normal((6, 2)).astype(np.float32) * 0.3
    model = torch.from_numpy(rng.standard_normal((3, len(pixels)), dtype=np.float32)).to(DEVICE)
    strong, inverse = rng.random(len(pixels)) > 0.5, rng.random(len(pixels)).astype(np.float32)
    images = [_images(3, pixels, rng).to(DEVICE) for _ in range(2)]
    rest = (slices, samples, shifts, *images, model**2 if premultiplied else model, inverse, strong, pixels, premultiplied)
    fast, slow = (Accumulator.empty(r_max, padding, 1, DEVICE) for _ in range(2))
    fast_sums, slow_sums = cuda.accumulate(volume, fast, *rest), reference.accumulate(volume, slow, *rest)
    assert slow.combined().abs().max() > 0
    torch.testing.assert_close(fast.combined(), slow.combined(), rtol=1e-3, atol=1e-3)
    on_device = Samples(*(torch.from_numpy(getattr(samples, name)).to(DEVICE) for name in samples.__dataclass_fields__))
    again = Accumulator.empty(r_max, padding, 1, DEVICE)
    again_sums = cuda.accumulate(volume, again, slices, on_device, *rest[2:])
    torch.testing.assert_close(again.combined(), fast.combined())
    for name in fast_sums.__dataclass_fields__:
        np.testing.assert_allclose(getattr(fast_sums, name), getattr(slow_sums, name), rtol=1e-3, atol=1e-2)
        np.testing.assert_allclose(getattr(again_sums, name), getattr(fast_sums, name), rtol=1e-5, atol=1e-5)


@pytest.fixture
def fresh_choice():
    kernels._gpu_backend.cache_clear()
    yield
    kernels._gpu_backend.cache_clear()


def test_tensors_on_a_gpu_get_the_triton_kernels(fresh_choice):
    assert kernels._backend(torch.device("cuda")) is cuda
    assert kernels._backend(torch.device("cpu")).__name__ == "aurefine.kernels.cpu"


def test_without_triton_a_gpu_runs_plain_torch_and_says_so_once(monkeypatch, fresh_choice):
    for name in ("aurefine.kernels.cuda", "aurefine.kernels._triton"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(kernels, "cuda")
    monkeypatch.delattr(kernels, "_triton")
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.warns(UserWarning, match="Triton"):
        assert kernels._backend(torch.device("cuda")) is reference
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernels._backend(torch.device("cuda")) is reference
