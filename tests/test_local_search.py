from __future__ import annotations

import numpy as np
import pytest

from aurefine import euler, sampling
from aurefine.symmetry import point_group, rotation_about

ORDER = 3
SIGMA = 5.0


def tilt_and_in_plane(pose, other):
    """The tilt between two views and the in-plane angle left after it is undone by the shortest way, in degrees; step by step."""
    axis = np.cross(pose[2], other[2])
    tilt = np.degrees(np.arctan2(np.linalg.norm(axis), pose[2] @ other[2]))
    aligned = pose if tilt < 1e-9 else pose @ rotation_about(axis, tilt).T
    left = other @ aligned.T
    return tilt, np.degrees(np.arctan2(left[0, 1], left[0, 0]))


def brute_force(angles, grid, group):
    """Candidates and their normalised priors by trying every mate against every grid orientation."""
    orientations = sampling.coarse_rotations(grid, sampling.psi_angles(ORDER))
    found = {}
    for operator in group.operators:
        pose = euler.to_matrix(angles) @ operator
        for index in np.flatnonzero(orientations[:, 2] @ pose[2] > np.cos(np.radians(3 * SIGMA + 1))):
            tilt, turn = tilt_and_in_plane(pose, orientations[index])
            if tilt < 3 * SIGMA and abs(turn) < 3 * SIGMA:
                found[int(index)] = max(found.get(int(index), 0.0), np.exp(-(tilt**2 + turn**2) / (2 * SIGMA**2)))
    total = sum(found.values())
    return {index: weight / total for index, weight in found.items()}


def candidates_of(result, particle):
    rows = slice(result.ptr[particle], result.ptr[particle + 1])
    return dict(zip(result.coarse_index[rows].tolist(), np.exp(result.log_prior[rows].astype(float)), strict=True))


@pytest.mark.parametrize("name", ["C1", "C4", "D2", "O"])
def test_candidates_are_those_of_an_exhaustive_search(name):
    group, grid = point_group(name), sampling.directions(ORDER, name)
    angles = [[0.0, 0.0, 13.0], [77.0, 0.4, -120.0], [10.0, 89.0, 5.0], [-170.0, 91.0, 44.0], [33.0, 179.0, 0.0], [123.0, 61.0, 179.9]]
    result = sampling.local_candidates(angles, grid, group, ORDER, SIGMA)
    for particle, pose in enumerate(angles):
        expected, found = brute_force(pose, grid, group), candidates_of(result, particle)
        assert found.keys() == expected.keys()
        for index, weight in expected.items():
            assert found[index] == pytest.approx(weight, rel=1e-4)


@pytest.mark.parametrize("name", ["D2", "T", "I"])
def test_symmetry_mates_of_a_pose_have_the_same_candidates(name):
    group, grid = point_group(name), sampling.directions(ORDER, name)
    pose = euler.to_matrix([31.0, 47.0, 101.0])
    mates = euler.from_matrix(pose @ group.operators)
    result = sampling.local_candidates(mates, grid, group, ORDER, SIGMA)
    first = candidates_of(result, 0)
    for particle in range(1, len(mates)):
        mate = candidates_of(result, particle)
        assert mate.keys() == first.keys()
        np.testing.assert_allclose([mate[i] for i in first], list(first.values()), rtol=1e-3)


@pytest.mark.parametrize("name", ["C1", "D2"])
def test_poles_and_borders_have_as_many_candidates_as_elsewhere(name):
    rng = np.random.default_rng(0)
    angles = np.stack([rng.uniform(-180, 180, 300), np.linspace(0, 180, 300), rng.uniform(-180, 180, 300)], axis=1)
    result = sampling.local_candidates(angles, sampling.directions(4, name), point_group(name), 4, 3.75)
    counts = np.diff(result.ptr)
    assert counts.min() > 0.7 * np.median(counts) and counts.max() < 1.3 * np.median(counts)


def test_priors_are_normalised_and_indices_sorted():
    angles = np.random.default_rng(2).uniform(-180, 180, (50, 3))
    result = sampling.local_candidates(angles, sampling.directions(ORDER, "D2"), point_group("D2"), ORDER, SIGMA)
    assert result.log_prior.dtype == np.float32 and len(result.ptr) == 51
    for particle in range(50):
        found = candidates_of(result, particle)
        assert sum(found.values()) == pytest.approx(1, abs=1e-5)
        assert list(found) == sorted(found) and len(found) == result.ptr[particle + 1] - result.ptr[particle]


def test_the_grid_orientation_itself_is_the_likeliest():
    grid, psi = sampling.directions(ORDER, "D2"), sampling.psi_angles(ORDER)
    index = 77 * len(psi) + 5
    result = sampling.local_candidates([[*grid.angles[77], psi[5]]], grid, point_group("D2"), ORDER, SIGMA)
    assert result.coarse_index[result.log_prior.argmax()] == index


def test_a_tiny_sigma_leaves_the_nearest_orientation_with_prior_one():
    grid = sampling.directions(ORDER, "D2")
    result = sampling.local_candidates([[11.0, 33.0, 44.0], [-140.0, 120.0, 9.0]], grid, point_group("D2"), ORDER, 1e-3)
    np.testing.assert_array_equal(np.diff(result.ptr), 1)
    np.testing.assert_allclose(result.log_prior, 0, atol=1e-6)
    nearest = sampling.coarse_rotations(grid, sampling.psi_angles(ORDER))[result.coarse_index]
    poses = euler.to_matrix([[11.0, 33.0, 44.0], [-140.0, 120.0, 9.0]])
    assert euler.angular_difference(poses, nearest, point_group("D2")).max() < sampling.angular_step(ORDER)


def test_a_huge_sigma_searches_every_orientation_once():
    grid = sampling.directions(1, "C1")
    result = sampling.local_candidates([[11.0, 33.0, 44.0]], grid, point_group("C1"), 1, 100.0)
    np.testing.assert_array_equal(result.coarse_index, np.arange(48 * 12))


def test_no_particles_give_an_empty_list():
    result = sampling.local_candidates(np.zeros((0, 3)), sampling.directions(2), point_group("C1"), 2, 5.0)
    assert result.ptr.tolist() == [0] and len(result.coarse_index) == len(result.log_prior) == 0


def test_a_width_of_zero_is_refused():
    with pytest.raises(ValueError, match="must be positive"):
        sampling.local_candidates([[0, 0, 0]], sampling.directions(2), point_group("C1"), 2, 0.0)
