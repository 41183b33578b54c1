"""Anisotropy measures find what maps and views with a known answer have: a missing cone, side views, a single view, an ellipsoid."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ive

from aurefine import fourier
from aurefine.validation import cones, efficiency, sampling
from aurefine.validation.sphere import cells

BOX = 64


def fibonacci(count: int) -> np.ndarray:
    """Even views: z in equal steps, each a golden angle further."""
    z = 1 - (2 * np.arange(count) + 1) / count
    turn = np.arange(count) * np.pi * (3 - np.sqrt(5))
    return np.stack([np.sqrt(1 - z * z) * np.cos(turn), np.sqrt(1 - z * z) * np.sin(turn), z], axis=1)


def side_views(count: int) -> np.ndarray:
    turn = 2 * np.pi * (np.arange(count) + 0.5) / count
    return np.stack([np.cos(turn), np.sin(turn), np.zeros(count)], axis=1)


def half_maps(gain) -> tuple[np.ndarray, np.ndarray]:
    """White signal times `gain(direction cosine to z, shell)` in both halves, and independent white noise of power 1 in each."""
    rng = np.random.default_rng(1)
    signal = fourier.transform_map(rng.standard_normal((BOX,) * 3).astype(np.float32))
    z = np.abs(fourier.frequencies(BOX))[:, None, None]
    radius = np.sqrt(fourier.radius_squared_3d(BOX))
    signal = signal * gain(z / np.maximum(radius, 1), radius).astype(np.float32)
    base = fourier.inverse_map(signal.astype(np.complex64), BOX)
    return tuple(base + rng.standard_normal(base.shape).astype(np.float32) for _ in range(2))


def test_cells_cover_half_the_sphere_evenly():
    grid = cells()
    assert grid.area.sum() == pytest.approx(1)
    assert np.array_equal(grid.index(grid.directions), np.arange(len(grid)))
    assert np.array_equal(grid.index(-3 * grid.directions), np.arange(len(grid)))
    random = np.random.default_rng(0).standard_normal((20000, 3))
    nearest = np.abs((random / np.linalg.norm(random, axis=1, keepdims=True) * grid.directions[grid.index(random)]).sum(axis=1))
    assert np.degrees(np.arccos(nearest.min())) < 1.6  # half a cell's diagonal
    assert (grid.area[:, None] * grid.directions**2).sum(axis=0) == pytest.approx([1 / 3] * 3, abs=1e-3)


def test_isotropic_maps_have_alike_cones_and_a_round_3dfsc():
    conical = cones.measure(*half_maps(lambda cosine, radius: 3 * np.exp(-((radius / 20) ** 2))))
    power = 9 * np.exp(-2 * (np.arange(BOX // 2 + 1) / 20) ** 2)
    assert np.allclose(conical.whole[5:], (power / (1 + power))[5:], atol=0.03)  # S / (S + N)
    assert conical.area_ratio() > 0.9
    assert conical.sphericity() > 0.96


def test_a_missing_cone_is_found_where_it_is():
    def gain(cosine, radius):
        return 5 * (cosine < np.cos(np.radians(40))) * np.ones_like(radius)  # nothing within 40 degrees of z

    conical = cones.measure(*half_maps(gain))
    tilt = np.degrees(np.arccos(np.abs(conical.grid.directions[:, 2])))
    inside, outside = conical.curves[tilt < 18, 12:30].mean(), conical.curves[tilt > 62, 12:30].mean()
    assert abs(inside) < 0.03  # cones of 20 degrees that lie wholly in the gap
    assert outside == pytest.approx(25 / 26, abs=0.01)
    assert conical.area_ratio() < 0.35
    # A cone whose axis is 23 degrees from z has 1/25 of itself outside the gap, where signal and noise are even (FSC 0.5): a ball with
    # two conical dents of that half-angle has the volume 4 pi / 3 cos and the area 4 pi cos + 2 pi sin.
    cosine, sine = np.cos(np.radians(23)), np.sin(np.radians(23))
    dented = np.pi ** (1 / 3) * (8 * np.pi * cosine) ** (2 / 3) / (4 * np.pi * cosine + 2 * np.pi * sine)
    assert conical.sphericity() == pytest.approx(dented, abs=0.03)
    volume = conical.volume()
    assert volume[BOX // 2 + 20, BOX // 2, BOX // 2] < 0.25 and volume[BOX // 2, BOX // 2, BOX // 2 + 20] > 0.9
    assert volume[BOX // 2, BOX // 2, BOX // 2] == 1 and volume[0, 0, 0] == 0
    assert np.allclose(volume[1:, 1:, 1:], volume[1:, 1:, 1:][::-1, ::-1, ::-1], atol=1e-6)


def test_a_cone_of_a_quarter_of_the_sphere_averages_what_lies_in_it():
    conical = cones.measure(*half_maps(lambda cosine, radius: 3.0 * (cosine > 0.5) * np.ones_like(radius)), half_angle=60)
    pole = np.argmax(np.abs(conical.grid.directions[:, 2]))
    assert conical.curves[pole, 15:30].mean() == pytest.approx(0.9, abs=0.02)  # 9 / (9 + 1) exactly within 60 degrees of z


@pytest.mark.parametrize("ratio", [0.4, 0.8, 1.0, 2.0])
def test_sphericity_of_ellipsoids_of_revolution(ratio):
    d = cells().directions
    radius = 1 / np.sqrt(d[:, 0] ** 2 + d[:, 1] ** 2 + (d[:, 2] / ratio) ** 2)
    if ratio < 1:
        e = np.sqrt(1 - ratio**2)
        area = 2 * np.pi * (1 + (1 - e * e) / e * np.arctanh(e))
    else:
        e = np.sqrt(1 - 1 / ratio**2)
        area = 2 * np.pi * (1 + (ratio / e * np.arcsin(e) if e else 1))
    known = np.pi ** (1 / 3) * (8 * np.pi * ratio) ** (2 / 3) / area
    assert cones.sphericity(7 * d * radius[:, None]) == pytest.approx(known, abs=2e-3)


def test_sampling_of_even_side_and_single_views():
    assert sampling.measure(fibonacci(20000)).scf == pytest.approx(1, abs=0.01)
    side = sampling.measure(side_views(20000))
    assert side.scf == pytest.approx(8 / np.pi**2, abs=0.01)
    assert side.empty == pytest.approx(0, abs=1e-12)
    top = sampling.measure(np.tile([[0.0, 0.0, 1.0]], (20000, 1)))
    assert top.scf < 0.001
    assert top.empty == pytest.approx(1 - 0.01, abs=0.02)  # one slice, one voxel thick on shell 50


def test_chance_alone_does_not_make_a_poor_sampling():
    views = np.random.default_rng(3).standard_normal((400, 3))
    views /= np.linalg.norm(views, axis=1, keepdims=True)
    assert sampling.measure(views).scf > 0.85


def test_symmetry_mates_fill_the_sampling():
    angles = np.zeros((3000, 3))
    angles[:, 0], angles[:, 1] = np.linspace(-180, 180, 3000), 90
    side = sampling.measure(sampling.views_of(angles, "C1")).scf
    cube = sampling.measure(sampling.views_of(angles, "O")).scf
    assert side == pytest.approx(0.81, abs=0.01) and cube > 0.9
    assert len(sampling.views_of(angles, "O")) <= sampling.MOST_VIEWS


def test_efficiency_of_even_side_and_single_views():
    even = efficiency.measure(fibonacci(20000))
    assert even.value == pytest.approx(1, abs=0.01)
    assert even.relative == pytest.approx(np.ones(len(even.relative)), abs=0.01)
    assert efficiency.measure(np.tile([[0.0, 0.0, 1.0]], (100, 1))).value == 0
    side = efficiency.measure(side_views(7200), 1000)
    square = 1 - side.grid.directions[:, 2] ** 2
    radius = side.relative * efficiency._UNIFORM
    # < exp(-r^2 (1 - s^2 cos^2)) > over a circle is exp(-r^2 (1 - s^2 / 2)) I0(r^2 s^2 / 2), which is 1/e at the radius found
    half = radius**2 * square / 2
    assert np.exp(-(radius**2) + 2 * half) * ive(0, half) == pytest.approx(np.full(len(half), np.exp(-1)), abs=0.004)
    assert 0.5 < side.value < 0.85
