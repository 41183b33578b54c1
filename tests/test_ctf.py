from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from aurefine import aberrations, ctf

RNG = np.random.default_rng(0)
X, Y = RNG.uniform(-0.25, 0.25, (2, 400))


def optics(**changes):
    values = {
        "voltage": 300.0,
        "spherical_aberration": 2.7,
        "amplitude_contrast": 0.1,
        "magnification": np.eye(2),
        "even_zernike": (),
        "odd_zernike": (),
        "beam_tilt": (0.0, 0.0),
    }
    return SimpleNamespace(**{**values, **changes})


def table(n=3, **changes):
    values = {
        "defocus_u": np.linspace(9000.0, 21000.0, n),
        "defocus_v": np.linspace(8000.0, 22000.0, n),
        "defocus_angle": np.linspace(-70.0, 70.0, n),
        "bfactor": np.zeros(n),
        "scale": np.ones(n),
        "phase_shift": np.zeros(n),
    }
    return SimpleNamespace(**{**values, **changes})


def phase(t, i, o, x, y):
    """The textbook form: defocus along the frequency's azimuth, spherical aberration, phase plate, amplitude contrast."""
    x, y = o.magnification @ np.stack([x, y])
    lam, k2, azimuth = ctf.wavelength(o.voltage), x**2 + y**2, np.arctan2(y, x)
    mean, half = (t.defocus_u[i] + t.defocus_v[i]) / 2, (t.defocus_u[i] - t.defocus_v[i]) / 2
    defocus = mean + half * np.cos(2 * (azimuth - np.radians(t.defocus_angle[i])))
    gamma = -np.pi * lam * defocus * k2 + np.pi / 2 * o.spherical_aberration * 1e7 * lam**3 * k2**2
    return gamma - np.radians(t.phase_shift[i]) - np.arcsin(o.amplitude_contrast)


@pytest.mark.parametrize("voltage, expected", [(300.0, 0.0196875), (200.0, 0.0250793)])
def test_wavelengths(voltage, expected):
    assert ctf.wavelength(voltage) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("magnification", [np.eye(2), np.array([[1.02, 0.01], [-0.005, 0.97]])])
def test_ctf_is_the_textbook_formula(magnification):
    o, t = optics(magnification=magnification), table(phase_shift=np.array([0.0, 90.0, 45.0]))
    values = ctf.evaluate(t, [2, 0, 1], o, X, Y)
    assert values.shape == (3, 400) and values.dtype == np.float32
    for row, i in enumerate([2, 0, 1]):
        np.testing.assert_allclose(values[row], -np.sin(phase(t, i, o, X, Y)), atol=2e-7)


def test_zero_frequency_is_the_amplitude_contrast():
    np.testing.assert_allclose(ctf.evaluate(table(), [0], optics(), [0.0], [0.0]), [[0.1]], rtol=1e-6)


def test_envelope_and_scale_factor():
    t = table(bfactor=np.array([0.0, 80.0, -20.0]), scale=np.array([1.0, 0.5, 2.0]))
    plain = ctf.evaluate(table(), [0, 1, 2], optics(), X, Y)
    expected = plain * t.scale[:, None] * np.exp(-t.bfactor[:, None] / 4 * (X**2 + Y**2))
    np.testing.assert_allclose(ctf.evaluate(t, [0, 1, 2], optics(), X, Y), expected, rtol=1e-5, atol=1e-7)


def test_first_peak_is_left_intact():
    t, o = table(), optics()
    values = ctf.evaluate(t, [0], o, X, Y, intact_first_peak=True)[0]
    low = np.abs(phase(t, 0, o, X, Y)) < np.pi / 2
    assert low.any() and (values[low] == 1).all()
    np.testing.assert_array_equal(values[~low], ctf.evaluate(t, [0], o, X, Y)[0][~low])


def test_flipped_phases():
    plain = ctf.evaluate(table(), [0, 1], optics(), X, Y)
    np.testing.assert_array_equal(ctf.evaluate(table(), [0, 1], optics(), X, Y, phase_flipped=True), np.abs(plain))
    np.testing.assert_array_equal(ctf.evaluate(table(), [0, 1], optics(), X, Y, only_flip_phases=True), np.sign(plain))


def test_no_value_is_exactly_zero():
    t = table(scale=np.array([0.0, 1e-12, -1e-12]))
    values = ctf.evaluate(t, [0, 1, 2], optics(), X, Y)
    np.testing.assert_allclose(np.abs(values), 1e-8, rtol=1e-6)


def test_even_zernikes_contain_defocus_and_spherical_aberration():
    """The list's entries 1, 2, 3 are the terms of degree 2 (m = -2, 0, 2) and entry 6 the round one of degree 4."""
    assert [aberrations.even_index(i) for i in range(9)] == [(0, 0), (-2, 2), (0, 2), (2, 2), (-4, 4), (-2, 4), (0, 4), (2, 4), (4, 4)]
    extra, lam, t = 500.0, ctf.wavelength(300.0), table()
    c = np.pi * lam * extra / 2  # less defocus by `extra`: +pi lam extra k^2 = c (2 k^2 - 1) + c
    values = ctf.evaluate(t, [1], optics(even_zernike=[c, 0.0, c]), X, Y)
    less = table(defocus_u=t.defocus_u - extra, defocus_v=t.defocus_v - extra)
    np.testing.assert_allclose(values, ctf.evaluate(less, [1], optics(), X, Y), atol=1e-6)


def test_even_zernikes_are_taken_at_the_corrected_frequency():
    magnification, c = np.array([[1.05, 0.02], [0.0, 0.96]]), [0.0, 3.0, 0.0, 5.0]
    x, y = magnification @ np.stack([X, Y])
    expected = ctf.evaluate(table(), [0], optics(even_zernike=c), x, y)
    np.testing.assert_allclose(ctf.evaluate(table(), [0], optics(even_zernike=c, magnification=magnification), X, Y), expected, atol=1e-6)


def test_odd_zernikes_are_the_polynomials_of_their_indices():
    assert [aberrations.odd_index(i) for i in range(6)] == [(-1, 1), (1, 1), (-3, 3), (-1, 3), (1, 3), (3, 3)]
    k2 = X**2 + Y**2
    polynomials = [Y, X, 3 * X**2 * Y - Y**3, (3 * k2 - 2) * Y, (3 * k2 - 2) * X, X**3 - 3 * X * Y**2]
    for i, expected in enumerate(polynomials):
        coefficients = np.zeros(6)
        coefficients[i] = 1
        np.testing.assert_allclose(aberrations.odd_phase(coefficients, X, Y), expected, atol=1e-12)


def test_beam_tilt_is_coma():
    o = optics(beam_tilt=(0.3, -0.5))
    lam = ctf.wavelength(o.voltage)
    coma = -2 * np.pi * o.spherical_aberration * 1e7 * lam**2 * (X**2 + Y**2) * (0.3e-3 * X - 0.5e-3 * Y)
    factor = ctf.demodulation(o, X, Y)
    assert factor.dtype == np.complex64
    np.testing.assert_allclose(factor, np.exp(-1j * coma), atol=1e-5)


def test_beam_tilt_adds_to_a_short_odd_list():
    both = ctf.demodulation(optics(beam_tilt=(0.3, -0.5), odd_zernike=[0.7, 0.2]), X, Y)
    apart = ctf.demodulation(optics(beam_tilt=(0.3, -0.5)), X, Y) * ctf.demodulation(optics(odd_zernike=[0.7, 0.2]), X, Y)
    np.testing.assert_allclose(both, apart, atol=1e-6)


@pytest.mark.parametrize("odd", [(), None, [0.0, 0.0]])
def test_without_odd_aberrations_there_is_nothing_to_demodulate(odd):
    assert ctf.demodulation(optics(odd_zernike=odd), X, Y) is None
