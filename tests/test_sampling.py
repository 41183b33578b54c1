from __future__ import annotations

import numpy as np
import pytest

from aurefine import euler, healpix, sampling
from aurefine.errors import InputError
from aurefine.symmetry import point_group


@pytest.mark.parametrize("order, count, n_psi", [(2, 192, 24), (3, 768, 48), (4, 3072, 96)])
def test_grid_sizes_are_relions(order, count, n_psi):
    assert len(sampling.directions(order)) == count
    psi = sampling.psi_angles(order)
    assert len(psi) == n_psi and psi[0] == 0
    np.testing.assert_allclose(np.diff(psi), sampling.angular_step(order))


@pytest.mark.parametrize("order, step", [(0, 60), (1, 30), (2, 15), (3, 7.5), (4, 3.75), (8, 0.234375)])
def test_angular_steps(order, step):
    assert sampling.angular_step(order) == step
    assert sampling.angular_step(order, 1) == step / 2


@pytest.mark.parametrize("name", ["C2", "C3", "D2", "T", "O", "I", "I1", "I4"])
def test_every_direction_of_the_sphere_has_a_near_mate_in_the_grid(name):
    order, group = 3, point_group(name)
    grid = sampling.directions(order, name)
    kept = euler.view_direction(*grid.angles.T)
    sphere = euler.view_direction(*healpix.centres(order).T)
    cosines = np.max([(sphere @ operator @ kept.T).max(axis=1) for operator in group.operators], axis=0)
    assert np.degrees(np.arccos(np.clip(cosines, -1, 1))).max() < 1.5 * healpix.max_pixel_radius(order)
    assert 0.7 * 768 / group.order < len(grid) < 1.3 * 768 / group.order


def test_no_two_kept_directions_are_near_duplicates():
    group = point_group("D2")
    kept = euler.view_direction(*sampling.directions(3, group).angles.T)
    for operator in group.operators[1:]:
        angle = np.degrees(np.arccos(np.clip(kept @ operator @ kept.T, -1, 1)))
        assert angle[~np.eye(len(kept), dtype=bool)].min() > 0.5 * healpix.max_pixel_radius(3)


def test_tilt_limit_keeps_side_or_top_views():
    tilt = sampling.directions(3, "C1", limit_tilt=60).angles[:, 1]
    assert len(tilt) and (np.minimum(tilt, 180 - tilt) >= 60).all()
    tilt = sampling.directions(3, "C1", limit_tilt=-30).angles[:, 1]
    assert len(tilt) and (np.minimum(tilt, 180 - tilt) <= 30).all()
    with pytest.raises(InputError, match="limit_tilt"):
        sampling.directions(0, "C1", limit_tilt=-5)


def test_coarse_rotations_are_the_grids_angles_times_the_perturbation():
    grid, psi, delta = sampling.directions(2, "D2"), sampling.psi_angles(2), 3.7
    matrices = sampling.coarse_rotations(grid, psi, delta)
    angles = np.concatenate([np.repeat(grid.angles, len(psi), axis=0), np.tile(psi, len(grid))[:, None]], axis=1)
    np.testing.assert_allclose(matrices, euler.to_matrix(angles) @ euler.to_matrix([delta] * 3), atol=1e-12)


@pytest.mark.parametrize("oversampling", [0, 1, 2])
def test_fine_rotations_are_the_children_of_the_coarse_one(oversampling):
    order, delta = 2, -2.0
    grid, psi = sampling.directions(order, "C2"), sampling.psi_angles(order)
    chosen = np.array([0, 17, 24 * 50 + 3, len(grid) * len(psi) - 1])
    fine = sampling.fine_rotations(order, grid, chosen, delta, oversampling)
    assert fine.shape == (4, 8**oversampling, 3, 3)
    n_sub, step = 2**oversampling, 15.0
    for index, children in zip(chosen, fine, strict=True):
        direction, turn = divmod(index, len(psi))
        pixels = healpix.children(grid.pixel[direction], oversampling)
        views = healpix.centres(order + oversampling, pixels)
        turns = psi[turn] - step / 2 + (np.arange(n_sub) + 0.5) * step / n_sub
        angles = np.array([[*view, turn] for view in views for turn in turns])
        np.testing.assert_allclose(children, euler.to_matrix(angles) @ euler.to_matrix([delta] * 3), atol=1e-12)


def test_translations_fill_a_circle_x_outermost():
    grid = sampling.translations(5.0, 2.0)
    assert grid.shape == (21, 2)
    assert (np.hypot(*grid.T) <= 5.0).all()
    np.testing.assert_array_equal(grid[0], [-4, -2])
    np.testing.assert_array_equal(grid, sorted(map(tuple, grid)))
    assert len(sampling.translations(10.0, 4.0)) == 21


def test_a_translation_on_the_circle_is_kept():
    assert [3.0, 0.0] in sampling.translations(3.0, 1.5).tolist()


def test_range_zero_keeps_the_centre_alone():
    np.testing.assert_array_equal(sampling.translations(0.0, 1.0), [[0, 0]])


def test_a_step_of_zero_is_refused():
    with pytest.raises(InputError, match="offset_step"):
        sampling.translations(5.0, 0.0)


def test_children_of_translations_tile_the_coarse_cell():
    fine = sampling.oversample_translations([[4.0, -2.0]], 2.0)
    np.testing.assert_allclose(fine, [[[3.5, -2.5], [3.5, -1.5], [4.5, -2.5], [4.5, -1.5]]])
    np.testing.assert_allclose(sampling.oversample_translations([[4.0, -2.0]], 2.0, 0), [[[4.0, -2.0]]])
    np.testing.assert_allclose(sampling.perturb_translations(fine, 0.25, 2.0), fine + 0.5)
