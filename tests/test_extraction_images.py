"""Cutting, rescaling and normalising particle images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurefine import maps
from aurefine.extraction import windows
from aurefine.extraction.normalise import background, normalise, remove_dust

MICROGRAPH = np.random.default_rng(0).normal(size=(50, 60)).astype(np.float32)
BOX = 16


@given(st.integers(-7, 67), st.integers(-7, 57))
@settings(max_examples=60, deadline=None)
def test_a_window_over_the_edge_repeats_the_nearest_pixel(x, y):
    padded = np.pad(MICROGRAPH, 40, mode="edge")
    expected = padded[y + 40 - BOX // 2 : y + 40 + BOX // 2, x + 40 - BOX // 2 : x + 40 + BOX // 2]
    np.testing.assert_array_equal(windows.cut(MICROGRAPH, np.array([[x, y]]), BOX)[0], expected)


@given(st.integers(-7, 67), st.integers(-7, 57))
@settings(max_examples=60, deadline=None)
def test_edges_can_be_repeated_after_the_window_was_filled(x, y):
    position = np.array([[x, y]])
    filled = windows.cut(MICROGRAPH, position, BOX, fill=99.0)
    assert (filled == 99.0).any() == (not (8 <= x <= 52 and 8 <= y <= 42))
    windows.repeat_edges(filled, position, MICROGRAPH.shape)
    np.testing.assert_array_equal(filled, windows.cut(MICROGRAPH, position, BOX))


def test_a_window_is_outside_when_it_shares_no_pixel_with_the_micrograph():
    x = np.array([-8, -7, 67, 68, 30])
    assert windows.outside(np.stack([x, np.full(5, 20)], axis=1), BOX, MICROGRAPH.shape).tolist() == [True, False, False, True, False]


@pytest.mark.parametrize("old, new", [(64, 48), (90, 64), (36, 36), (40, 2)])
def test_rescaling_is_that_of_maps(old, new):
    images = np.random.default_rng(1).normal(5, 1, (3, old, old)).astype(np.float32)
    np.testing.assert_allclose(windows.rescale(images, new), maps.fourier_rescale(images, new, images=True), atol=2e-5)


def ramped(count: int, box: int) -> np.ndarray:
    y, x = np.mgrid[:box, :box]
    return (np.random.default_rng(2).normal(300, 7, (count, box, box)) + 0.4 * x - 0.7 * y).astype(np.float32)


@pytest.mark.parametrize("ramp", [True, False])
@pytest.mark.parametrize("radius", [5, 12, 16])
def test_the_background_gets_mean_0_and_deviation_1(ramp, radius):
    images = ramped(4, 32)
    where = background(32, radius, ramp)
    y, x = np.mgrid[-16:16, -16:16]
    np.testing.assert_array_equal(where.mask, x**2 + y**2 > radius**2)
    assert normalise(images, where) == 0
    outside = images[:, where.mask].astype(np.float64)
    np.testing.assert_allclose(outside.mean(axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(outside.std(axis=1), 1, atol=1e-4)
    slope = np.polyfit(x[where.mask], outside.mean(axis=0), 1)[0]
    assert (abs(slope) < 1e-4) == ramp


def test_inverted_contrast_is_the_negative():
    where = background(32, 12)
    one, other = ramped(2, 32), ramped(2, 32)
    normalise(one, where)
    normalise(other, where, -1.0)
    np.testing.assert_array_equal(one, -other)


def test_images_without_variation_are_counted_and_not_divided():
    images = ramped(3, 32)
    images[1] = 5.0
    assert normalise(images, background(32, 12)) == 1
    assert np.isfinite(images).all()
    np.testing.assert_allclose(images[1], 0, atol=1e-5)


@pytest.mark.parametrize("white, black, changed", [(5, -1, {"hot"}), (-1, 5, {"cold"}), (5, 5, {"hot", "cold"}), (-1, -1, set())])
def test_dust_is_replaced_by_noise_like_the_background(white, black, changed):
    images = np.random.default_rng(3).normal(100, 2, (1, 32, 32)).astype(np.float32)
    images[0, 16, 16], images[0, 10, 12] = 200, 20
    before = images.copy()
    remove_dust(images, background(32, 12), white, black, np.random.default_rng(0))
    for name, place in (("hot", (0, 16, 16)), ("cold", (0, 10, 12))):
        assert (images[place] != before[place]) == (name in changed)
        assert abs(images[place] - 100) < 10 or name not in changed
    assert (images != before).sum() == len(changed)
