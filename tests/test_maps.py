from __future__ import annotations

import numpy as np
import pytest

from aurefine import maps, mrc


def _blob(box: int, width: float, centre: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    """A Gaussian about the centre box/2, its width and place in units of the box."""
    axis = np.arange(box) / box - 0.5
    z, y, x = np.meshgrid(*(axis - shift for shift in centre), indexing="ij")
    return np.exp(-(x**2 + y**2 + z**2) / (2 * width**2)).astype(np.float32)


@pytest.mark.parametrize(("old", "new"), [(48, 32), (32, 48), (40, 40), (36, 50)])
def test_rescaling_keeps_grey_values_and_the_centre(old, new):
    place = (0.05, -0.1, 0.02)
    assert np.abs(maps.fourier_rescale(_blob(old, 0.08, place), new) - _blob(new, 0.08, place)).max() < 2e-3


def test_images_are_rescaled_one_by_one():
    volume = _blob(32, 0.1)
    images = maps.fourier_rescale(volume[12:20], 24, images=True)
    assert images.shape == (8, 24, 24)
    assert np.allclose(images[3], maps.fourier_rescale(volume[15:16], 24, images=True)[0], atol=1e-6)


def test_up_and_down_again_is_the_identity_for_a_band_limited_map():
    volume = maps.fourier_rescale(maps.fourier_rescale(np.random.default_rng(0).normal(size=(24, 24, 24)), 12), 24)
    inner = maps.fourier_rescale(volume, 36)
    assert np.abs(maps.fourier_rescale(inner, 24) - volume).max() < 1e-5


def test_padding_drops_the_corners_outside_the_inscribed_sphere():
    x = np.arange(16)
    corner = np.cos(2 * np.pi * 6 * (x[:, None, None] + x[None, :, None] + x[None, None, :]) / 16)
    assert np.abs(maps.fourier_rescale(corner, 24)).max() < 1e-6
    inside = np.cos(2 * np.pi * 4 * (x[:, None, None] + x[None, :, None] + x[None, None, :]) / 16)
    assert np.isclose(maps.fourier_rescale(inside, 24).max(), 1.0, atol=1e-5)


@pytest.mark.parametrize(("old", "new"), [(8, 12), (12, 8), (8, 8), (9, 12), (9, 6), (8, 5)])
def test_windowing_keeps_the_centre_pixel(old, new):
    volume = np.zeros((old, old, old), dtype=np.float32)
    volume[old // 2, old // 2, old // 2 + 1] = 3.0
    result = maps.window(volume, new)
    assert result.shape == (new, new, new) and result.sum() == 3.0 and result[new // 2, new // 2, new // 2 + 1] == 3.0


def test_fit_to_gives_the_box_asked_for_and_the_true_pixel_size():
    volume, pixel_size = maps.fit_to(_blob(50, 0.05), 2.0, 64, 1.7)
    assert volume.shape == (64, 64, 64) and volume.dtype == np.float32
    assert pixel_size == 50 * 2.0 / 58  # 58.8 pixels: 59, made even
    assert np.isclose(volume[32, 32, 32], 1.0, atol=1e-3)


def test_fit_to_the_same_pixel_size_only_changes_the_box():
    volume = _blob(20, 0.1)
    result, pixel_size = maps.fit_to(volume, 3.54, 16, 3.54)
    assert pixel_size == 3.54 and np.array_equal(result, volume[2:18, 2:18, 2:18])


def test_an_odd_map_keeps_its_centre_when_fitted():
    volume = np.zeros((9, 9, 9), dtype=np.float32)
    volume[4, 4, 4] = 1.0
    result, pixel_size = maps.fit_to(volume, 1.0, 8, 1.0)
    assert pixel_size == 1.0 and result[4, 4, 4] == 1.0


@pytest.mark.parametrize(("size", "down", "up"), [(58.8, 58, 60), (58.4, 58, 58), (57.5, 58, 58), (58.5, 58, 60), (64.0, 64, 64)])
def test_boxes_are_made_even_downwards_for_maps_and_upwards_for_masks(size, down, up):
    assert maps.even_box(size) == down and maps.even_box(size, round_up=True) == up


def test_a_map_that_is_not_cubic_is_refused():
    with pytest.raises(ValueError, match="volume"):
        maps.fourier_rescale(np.zeros((4, 4, 6)), 8)
    with pytest.raises(ValueError, match="even"):
        maps.fourier_rescale(np.zeros((4, 4, 4)), 7)


def test_the_centre_of_the_reference_is_relions_window(shared_data):
    large, pixel_size = mrc.read_map(shared_data / "betagal_10204" / "reference_100px_3.54A.mrc")
    small, _ = mrc.read_map(shared_data / "betagal_10204" / "reference_64px_3.54A.mrc")
    assert np.array_equal(maps.fit_to(large, pixel_size, 64, 3.54)[0], small)
