"""Operations on maps and images: what each promises, on cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from aurefine import image_operations as io
from aurefine.errors import InputError

BOX, PIXEL = 24, 1.5


def waves(shell: int, axis: int = 2, box: int = BOX) -> np.ndarray:
    wave = np.cos(2 * np.pi * shell * np.arange(box) / box).astype(np.float32)
    return np.broadcast_to(np.expand_dims(wave, [other for other in range(3) if other != axis]), (box, box, box)).copy()


def noise(shape=(BOX, BOX, BOX), seed=0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize(("shell", "gain"), [(4, 1.0), (5, 1.0), (6, 0.5), (7, 0.0), (9, 0.0)])
def test_a_low_pass_filter_is_a_half_at_its_resolution_and_a_high_pass_the_rest(shell, gain):
    resolution = BOX * PIXEL / 6
    low = io.filter_radial(waves(shell), io.bandpass_gain(BOX, PIXEL, lowpass=resolution))
    high = io.filter_radial(waves(shell), io.bandpass_gain(BOX, PIXEL, highpass=resolution))
    assert np.allclose(low, gain * waves(shell), atol=1e-5) and np.allclose(low + high, waves(shell), atol=1e-5)


def test_an_edge_of_no_width_is_sharp():
    gain = io.bandpass_gain(BOX, PIXEL, lowpass=BOX * PIXEL / 6, edge_width=0)
    assert gain(np.array([5.9, 6.0, 6.1])).tolist() == [1, 1, 0]


def test_a_bfactor_falls_with_the_square_of_frequency_and_sharpening_undoes_it():
    frequency = 5 / (BOX * PIXEL)
    assert np.allclose(io.filter_radial(waves(5), io.bfactor_gain(BOX, PIXEL, 100.0)), np.exp(-25 * frequency**2) * waves(5), atol=1e-5)
    smooth = io.filter_radial(noise(), io.bandpass_gain(BOX, PIXEL, lowpass=4.0))
    back = io.filter_radial(io.filter_radial(smooth, io.bfactor_gain(BOX, PIXEL, 200.0)), io.bfactor_gain(BOX, PIXEL, -200.0))
    assert np.abs(back - smooth).max() < 1e-4 * np.ptp(smooth)


def test_a_strong_sharpening_does_not_show_the_rounding_of_single_precision():
    gain = io.bfactor_gain(BOX, PIXEL, -1000.0)
    volume = 100 * waves(1) + 1e-4 * waves(12)
    expected = np.fft.irfftn(np.fft.rfftn(volume.astype(np.float64)) * gain(_radius()), s=volume.shape, axes=(0, 1, 2))
    assert np.abs(io.filter_radial(volume, gain) - expected).max() < 1e-5 * np.ptp(expected)


def _radius() -> np.ndarray:
    full = np.minimum(np.arange(BOX), BOX - np.arange(BOX))
    return np.sqrt(full[:, None, None] ** 2 + full[None, :, None] ** 2 + np.arange(BOX // 2 + 1) ** 2.0)


def test_laplacian_of_gaussian_answers_best_to_its_own_diameter():
    radius = np.linspace(0.1, 40, 2000)
    gain = io.laplacian_of_gaussian_gain(200, 1.0, 20.0)(radius)
    assert np.isclose(radius[gain.argmax()], np.sqrt(2) / (2 * 20.0) * 200, rtol=0.01)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_directional_filter_acts_along_its_axis_only(axis):
    gain = io.bandpass_gain(BOX, PIXEL, lowpass=BOX * PIXEL / 3)
    for other in range(3):
        expected = 0 if other == axis else 1
        assert np.allclose(io.filter_directional(waves(8, other), gain, axis), expected * waves(8, other), atol=1e-5)


def test_images_that_are_not_square_are_filtered_by_true_frequency():
    image = np.broadcast_to(np.cos(2 * np.pi * 6 * np.arange(48) / 24), (1, 16, 48)).astype(np.float32)
    inner = (0, slice(6, 10), slice(12, 36))
    passed = io.filter_radial(image, io.bandpass_gain(48, 1.0, lowpass=3.0), images=True)  # a wave of 4 pixels
    stopped = io.filter_radial(image, io.bandpass_gain(48, 1.0, lowpass=6.0), images=True)
    assert np.abs(passed - image)[inner].max() < 0.1 and np.abs(stopped)[inner].max() < 0.1


@pytest.mark.parametrize("box", [24, 25])
@pytest.mark.parametrize("options", [{"bfactor": 30.0}, {"bfactor": -900.0}, {"lowpass": 8.0}, {"highpass": 8.0, "lowpass": 4.0}, {"lowpass": 1e4}])
def test_filtered_images_are_those_of_the_whole_transform(box, options):
    images = noise((3, box, box)) + 1
    result, size = io.apply(images, PIXEL, io.Operations(**options), images=True)
    radius = np.sqrt((np.fft.fftfreq(box)[:, None] * box) ** 2 + (np.fft.rfftfreq(box) * box) ** 2)
    gain = io.bandpass_gain(box, PIXEL, options.get("lowpass"), options.get("highpass"))(radius)
    if "bfactor" in options:
        gain = io.bfactor_gain(box, PIXEL, options["bfactor"])(radius)
    expected = np.fft.irfft2(np.fft.rfft2(images.astype(np.float64)) * gain, s=(box, box))
    assert size == PIXEL and result.dtype == np.float32
    assert np.abs(result - expected).max() < 1e-5 * np.ptp(expected) + 1e-6


@pytest.mark.parametrize("box", [24, 25])
@pytest.mark.parametrize("options", [{"bfactor": 30.0}, {"lowpass": 9.0}, {"lowpass": 4.0}, {"highpass": 9.0, "lowpass": 4.0}])
@pytest.mark.parametrize("target", [1.2, 2.0, 4.5])
def test_filtering_and_rescaling_together_is_one_after_the_other(box, options, target):
    images = noise((3, box, box)) + 1
    found, size = io.apply(images, PIXEL, io.Operations(**options, rescale_pixel_size=target), images=True)
    filtered, _ = io.apply(images, PIXEL, io.Operations(**options), images=True)
    expected, expected_size = io.rescale(filtered, PIXEL, target, images=True)
    assert size == expected_size and found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-5 * np.ptp(expected)


def test_a_shift_of_whole_pixels_moves_and_fills_with_zeros():
    volume = noise()
    moved = io.shift(volume, (0, -2, 3))
    assert np.array_equal(moved[:, :-2, 3:], volume[:, 2:, :-3]) and not moved[:, -2:].any() and not moved[..., :3].any()


def test_a_shift_beyond_the_box_leaves_nothing():
    assert not io.shift(noise(), (0, 0, BOX + 1)).any() and not io.shift(noise(), (-3 * BOX, 0, 0.5)).any()


def test_a_fractional_shift_mixes_two_neighbours():
    volume = noise()
    assert np.allclose(io.shift(volume, (0.25, 0, 0))[1:], 0.75 * volume[1:] + 0.25 * volume[:-1], atol=1e-6)


def test_the_centre_of_mass_counts_positive_density_from_the_centre_pixel():
    volume = np.full((BOX, BOX, BOX), -1.0, np.float32)
    volume[12, 13, 15] = 3.0
    volume[12, 13, 11] = 1.0
    assert np.allclose(io.centre_of_mass(volume), (0, 1, 2))
    assert np.isnan(io.centre_of_mass(-np.ones((4, 4)))).all()


def test_centring_brings_the_mass_to_the_centre():
    volume = np.zeros((BOX, BOX, BOX), np.float32)
    volume[8:11, 14:17, 15:18] = 1.0
    result, _ = io.apply(volume, PIXEL, io.Operations(shift_to_centre_of_mass=True))
    assert np.abs(io.centre_of_mass(result)).max() < 1e-6
    with pytest.raises(InputError, match="above zero"):
        io.apply(-np.ones_like(volume), PIXEL, io.Operations(shift_to_centre_of_mass=True))


@pytest.mark.parametrize("box", [24, 23])
def test_inverting_the_hand_keeps_the_centre_and_is_its_own_inverse(box):
    volume = noise((box, box, box))
    mirrored = io.invert_hand(volume)
    assert np.array_equal(mirrored[:, :, box // 2], volume[:, :, box // 2]) and np.array_equal(mirrored[..., box // 2 - 3], volume[..., box // 2 + 3])
    assert np.array_equal(io.invert_hand(mirrored), volume)


@pytest.mark.parametrize("name", ["C4", "D2", "O"])
def test_a_symmetrised_map_has_the_symmetry_and_is_not_changed_again(name):
    axis = np.arange(BOX) - BOX // 2
    ball = np.add.outer(np.add.outer(axis**2, axis**2), axis**2) < 10**2
    volume = np.where(ball, noise(), 0).astype(np.float32)
    once = io.symmetrise(volume, name)
    assert np.abs(io.symmetrise(once, name) - once).max() < 1e-5
    turned = np.roll(once[:, ::-1, ::-1], (1, 1), axis=(1, 2))  # 180 degrees about z, which all these groups hold
    assert np.abs(turned - once).max() < 1e-5


def test_symmetrising_keeps_the_average_of_what_lies_inside():
    axis = np.arange(BOX) - BOX // 2
    ball = (np.add.outer(np.add.outer(axis**2, axis**2), axis**2) < 36).astype(np.float32)
    assert np.isclose(io.symmetrise(ball, "I1").sum(), ball.sum(), rtol=0.01)


def test_rescaling_tells_the_true_pixel_size():
    values, size = io.rescale(noise(), PIXEL, 2.3)
    assert values.shape == (16, 16, 16) and size == BOX * PIXEL / 16
    images, size = io.rescale(noise((2, 40, 60)), 2.1, 4.0, images=True)
    assert images.shape == (2, 20, 32) and size == 2.1 * 60 / 32


def test_the_power_spectrum_sums_to_the_variance_and_the_fsc_of_a_map_with_itself_is_one():
    volume = noise()
    assert np.allclose(io.power_spectrum(volume)[4:12] * BOX**3, 1, atol=0.3)
    assert np.allclose(io.shell_correlation(volume, volume), 1)
    assert np.abs(io.shell_correlation(volume, noise(seed=1))[4:]).max() < 0.15


def test_adjusted_amplitudes_are_those_of_the_target_and_phases_stay():
    volume, target = noise(), io.filter_radial(noise(seed=1), io.bfactor_gain(BOX, PIXEL, 100.0))
    result = io.adjust_power(volume, target)
    assert np.allclose(io.shell_correlation(result, volume)[1:12], 1, atol=1e-5)
    assert np.allclose(io.power_spectrum(result)[3:12], io.power_spectrum(target)[3:12], rtol=0.3)


def test_a_fourier_filter_of_ones_changes_nothing_below_nyquist():
    smooth = io.filter_radial(noise(), io.bandpass_gain(BOX, PIXEL, lowpass=4.0))
    assert np.allclose(io.fourier_filter(smooth, np.ones_like(smooth)), smooth, atol=1e-5)


def test_randomised_phases_keep_amplitudes_and_the_shells_below():
    volume = noise()
    result = io.randomise_phases(volume, 6, np.random.default_rng(7))
    correlation = io.shell_correlation(volume, result)
    assert np.allclose(correlation[:6], 1, atol=1e-5) and np.abs(correlation[7:]).max() < 0.3
    assert np.allclose(io.power_spectrum(result)[:12], io.power_spectrum(volume)[:12], rtol=1e-3)


def test_dividing_by_zero_gives_zero():
    volume, divisor = noise(), noise(seed=1)
    divisor[3] = 0
    result, _ = io.apply(volume, PIXEL, io.Operations(divide=divisor))
    assert not result[3].any() and np.allclose(result[4], volume[4] / divisor[4])


def test_the_scale_for_subtraction_leaves_the_smallest_rest():
    volume = noise()
    mask = np.zeros_like(volume)
    mask[4:20] = 1
    result, _ = io.apply(2.5 * volume + 10 * (1 - mask), PIXEL, io.Operations(subtract=volume, optimise_scale=True, optimise_mask=mask))
    assert np.abs(result[4:20]).max() < 1e-5


def test_the_order_is_arithmetic_filter_flip_shift_rescale_window_threshold():
    volume = noise()
    result, size = io.apply(volume, PIXEL, io.Operations(
        add_constant=1.0, bfactor=20.0, flips=("X",), shift=(3, 0, 0), rescale_pixel_size=2.25, new_box=20, threshold_below=0.1))  # fmt: skip
    step = io.shift(io.flip(io.filter_radial(volume + 1, io.bfactor_gain(BOX, PIXEL, 20.0)), 2), (0, 0, 3))
    step, expected_size = io.rescale(step, PIXEL, 2.25)
    assert size == expected_size and np.array_equal(result, np.maximum(io.window(step, 20), np.float32(0.1)))


def test_a_volume_that_is_no_cube_is_not_rescaled():
    with pytest.raises(InputError, match="cube"):
        io.apply(noise((8, 10, 12)), PIXEL, io.Operations(rescale_pixel_size=3.0))
