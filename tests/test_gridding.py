"""Iterative density compensation makes an uneven Fourier sampling even, and leaves an even one alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import i0

from aurefine import fourier
from aurefine.refine import gridding, reconstruct, transforms
from aurefine.refine.backprojection import BackProjection

BOX, R_MAX, PADDING = 16, 8, 2.0
H = int(R_MAX * PADDING) + 1


def blob(seed: int = 1) -> np.ndarray:
    """A smooth random density that vanishes towards the rim."""
    noise = np.random.default_rng(seed).normal(size=(BOX,) * 3).astype(np.float32)
    axis = np.arange(BOX) - BOX / 2
    envelope = np.exp(-(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2) / 12)
    return fourier.low_pass(noise * envelope, 1.0, 3.0).astype(np.float32)


def friedel(weight: np.ndarray) -> torch.Tensor:
    """Weights whose x = 0 plane is symmetric, as sums of images have it."""
    weight[:, :, 0] = (weight[:, :, 0] + weight[::-1, ::-1, 0]) / 2
    return torch.from_numpy(weight.astype(np.float32))


def uneven() -> torch.Tensor:
    """Weights of preferred orientation: a hundred times more near one plane."""
    z, y, x = np.meshgrid(np.arange(-H, H + 1), np.arange(-H, H + 1), np.arange(H + 1), indexing="ij")
    return friedel(1 + 99 * np.exp(-((z / 4.0) ** 2)) + 0 * (x + y))


@pytest.mark.parametrize("frequency", [0.0, 0.05, 0.3, 0.6, 0.7, 0.9])
def test_the_blobs_transform_is_that_of_a_kaiser_bessel_function(frequency):
    def shell(r: float, w: float) -> float:
        return i0(15 * np.sqrt(max(0.0, 1 - (r / 3.8) ** 2))) * r * r * np.sinc(2 * w * r)

    expected = quad(shell, 0, 3.8, (frequency,))[0] / quad(shell, 0, 3.8, (0.0,))[0]
    assert gridding.blob_transform(frequency) == pytest.approx(expected, rel=1e-3, abs=1e-9)


def test_even_weights_are_divided_by_as_without_gridding():
    weight = torch.full((2 * H + 1, 2 * H + 1, H + 1), 3.0)
    compensation = gridding.density_compensation(weight, int(R_MAX * PADDING), int(BOX * PADDING), 10)
    inside = compensation > 0
    assert inside.sum() > 0.4 * inside.numel()
    torch.testing.assert_close(compensation[inside], torch.full_like(compensation[inside], 1 / 3), rtol=1e-3, atol=0)


def test_iterations_even_out_the_density():
    weight = uneven()
    spread = []
    for iterations in (1, 3, 10):
        left = (weight * gridding.density_compensation(weight, int(R_MAX * PADDING), int(BOX * PADDING), iterations))[weight > 0]
        left = left[left > 0]
        spread.append(float(left.std() / left.mean()))
    assert spread[0] > spread[1] > spread[2] and spread[2] < 0.2


def test_gridding_reconstructs_the_map_that_was_inserted():
    volume, weight = blob(), uneven()
    transform = transforms.projector(volume, R_MAX, PADDING).data
    half = BackProjection(transform * weight, weight, R_MAX, PADDING, BOX)
    plain, gridded = (reconstruct.reconstruct(half, None, 1.0, 0, iterations) for iterations in (0, 10))
    assert not np.array_equal(plain, gridded)
    core = np.s_[4:12, 4:12, 4:12]
    assert np.corrcoef(gridded[core].ravel(), volume[core].ravel())[0, 1] > 0.98


def test_voxels_without_data_stay_empty():
    weight = uneven()
    weight[:, :, 5:] = 0
    compensation = gridding.density_compensation(weight, int(R_MAX * PADDING), int(BOX * PADDING), 10)
    assert torch.isfinite(compensation).all() and not compensation[:, :, 5:].any()
    assert not gridding.density_compensation(torch.zeros_like(weight), 16, 32, 2).any()
