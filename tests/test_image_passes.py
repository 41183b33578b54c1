"""The passes over images on a CPU equal what tensors say of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aurefine.refine import image_passes

RANDOM = np.random.default_rng(5)
BOX = 12


def images(count: int) -> torch.Tensor:
    return torch.from_numpy(RANDOM.standard_normal((count, BOX, BOX)).astype(np.float32))


@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-5, 1), (0, 11), (12, 0), (40, -40)])
def test_images_move_by_whole_pixels_without_wrapping(shift):
    given = images(2)
    found = image_passes.centred(given, np.float32([2, 0.5]), np.array([shift, (0, 0)])).numpy()
    expected = np.zeros((BOX, BOX), np.float32)
    for y in range(BOX):
        for x in range(BOX):
            if 0 <= y - shift[1] < BOX and 0 <= x - shift[0] < BOX:
                expected[y, x] = 2 * given[0, y - shift[1], x - shift[0]]
    np.testing.assert_array_equal(found[0], expected)
    np.testing.assert_array_equal(found[1], 0.5 * given[1].numpy())


def test_the_background_becomes_its_own_average():
    given, inside = images(3), RANDOM.random((BOX, BOX)).astype(np.float32)
    outside = torch.from_numpy(1 - inside)
    average = (given * outside).sum((1, 2)) / outside.sum()
    expected = given * torch.from_numpy(inside) + average[:, None, None] * outside
    torch.testing.assert_close(image_passes.masked(given, inside), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [np.float32, np.complex64])
def test_pixels_are_picked_with_their_factor(kind):
    full = torch.fft.rfft2(images(3))
    flat, factor = RANDOM.integers(0, full[0].numel(), 20), RANDOM.standard_normal(20).astype(kind)
    out = torch.empty((3, 20), dtype=torch.complex64)
    image_passes.picked(full, flat, factor, out)
    np.testing.assert_allclose(out, full.flatten(1)[:, flat].numpy() * factor, rtol=1e-6)


def test_power_is_summed_by_shell():
    full = torch.fft.rfft2(images(3))
    place, shell = RANDOM.permutation(full[0].numel())[:30], RANDOM.integers(0, 5, 30)
    expected = [np.bincount(shell, np.abs(row[place].numpy()) ** 2, 6) for row in full.flatten(1)]
    np.testing.assert_allclose(image_passes.shell_power(full, place, shell, 6), expected, rtol=1e-5)


def test_squares_are_those_of_absolute_values():
    values = torch.randn((3, 50), dtype=torch.complex64)
    assert torch.allclose(image_passes.squares(values), values.abs().square(), rtol=1e-5)


def test_operands_of_scores_are_products_at_some_of_the_pixels():
    values, model, weight = torch.randn((3, 20), dtype=torch.complex64), torch.randn((3, 20)), torch.rand(20)
    rows = np.array([0, 3, 4, 19])
    images, power = image_passes.weighted(values, model, weight, rows)
    assert torch.allclose(images, (values * model * weight)[:, rows], rtol=1e-5, atol=1e-6)
    assert torch.allclose(power, (model.square() * weight)[:, rows], rtol=1e-5, atol=1e-6)
