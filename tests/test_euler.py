from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from aurefine import euler
from aurefine.symmetry import point_group, rotation_about

ANGLE = st.floats(-180, 180, allow_nan=False)


@given(ANGLE, st.floats(0, 180), ANGLE)
@settings(max_examples=200, deadline=None)
def test_angles_of_a_matrix_give_the_matrix_back(rot, tilt, psi):
    matrix = euler.to_matrix([rot, tilt, psi])
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(euler.to_matrix(euler.from_matrix(matrix)), matrix, atol=3e-6)


def test_ordinary_angles_come_back_unchanged():
    rng = np.random.default_rng(0)
    angles = np.stack([rng.uniform(-179, 179, 500), rng.uniform(1, 179, 500), rng.uniform(-179, 179, 500)], axis=1)
    np.testing.assert_allclose(euler.from_matrix(euler.to_matrix(angles)), angles, atol=1e-10)


def test_matrix_is_the_product_of_three_axis_rotations():
    rot, tilt, psi = 20.0, 50.0, -75.0
    expected = rotation_about([0, 0, 1], -psi) @ rotation_about([0, 1, 0], -tilt) @ rotation_about([0, 0, 1], -rot)
    np.testing.assert_allclose(euler.to_matrix([rot, tilt, psi]), expected, atol=1e-12)


def test_poles_put_everything_into_psi():
    np.testing.assert_allclose(euler.from_matrix(euler.to_matrix([30.0, 0.0, 25.0])), [0, 0, 55], atol=1e-9)
    np.testing.assert_allclose(euler.from_matrix(euler.to_matrix([30.0, 180.0, 25.0])), [0, 180, -5], atol=1e-9)


def test_rotation_vectors_turn_about_themselves():
    vectors = np.random.default_rng(4).normal(size=(60, 3)) * np.repeat([1e-12, 1e-4, 1, 10], 15)[:, None]
    vectors[0] = 0
    np.testing.assert_allclose(euler.from_rotation_vector(vectors), Rotation.from_rotvec(vectors).as_matrix(), atol=1e-13)
    assert euler.from_rotation_vector([0.0, 0, 0.1])[1, 0] == pytest.approx(np.sin(0.1))


def test_view_direction_is_the_third_row():
    angles = np.array([[10.0, 20.0, 30.0], [-100.0, 150.0, 0.0]])
    np.testing.assert_allclose(euler.view_direction(angles[:, 0], angles[:, 1]), euler.to_matrix(angles)[:, 2], atol=1e-12)


def test_angular_difference_is_the_mean_over_the_image_axes():
    pose = euler.to_matrix([[12.0, 34.0, 56.0]])
    turned = euler.to_matrix([[12.0, 34.0, 59.0]])  # two axes turn by 3 degrees, the view stays
    np.testing.assert_allclose(euler.angular_difference(pose, turned), [2.0], atol=1e-10)


def test_symmetry_mates_do_not_differ():
    group = point_group("O")
    poses = euler.to_matrix(np.random.default_rng(1).uniform(-180, 180, (20, 3)))
    for operator in group.operators:
        np.testing.assert_allclose(euler.angular_difference(poses, poses @ operator, group), 0, atol=1e-6)
