from __future__ import annotations

import numpy as np
import pytest

from aurefine import euler
from aurefine.errors import InputError
from aurefine.symmetry import point_group, rotation_about

GROUPS = {"C1": 1, "C4": 4, "c13": 13, "D1": 2, "D2": 4, "d7": 14, "T": 12, "O": 24, "I": 60, "I1": 60, "i2": 60, "I3": 60, "I4": 60}

# axes that RELION's settings promise (ALGORITHM.md 4.4): (group, axis, fold)
AXES = [
    ("C4", (0, 0, 1), 4),
    ("D3", (0, 0, 1), 3),
    ("D3", (1, 0, 0), 2),
    ("T", (0, 0, 1), 3),
    ("T", (0, 0.816496, 0.577350), 2),
    ("O", (1, 1, 1), 3),
    ("O", (0, 0, 1), 4),
    ("I2", (0, 0, 1), 2),
    ("I2", (0.525731114, 0, 0.850650807), 5),
    ("I2", (0, 0.356822076, 0.934172364), 3),
    ("I1", (1, 0, 0), 2),
    ("I1", (0.85065080702670, 0, -0.5257311142635), 5),
    ("I1", (0.9341723640, 0.3568220765, 0), 3),
    ("I3", (-0.5257311143, 0, 0.8506508070), 2),
    ("I3", (0, 0, 1), 5),
    ("I3", (-0.4911234778630044, 0.3568220764705179, 0.7946544753759428), 3),
    ("I4", (0.5257311143, 0, 0.8506508070), 2),
    ("I4", (0.8944271932547096, 0, 0.4472135909903704), 5),
    ("I4", (0.4911234778630044, 0.3568220764705179, 0.7946544753759428), 3),
]


@pytest.mark.parametrize("name, order", GROUPS.items())
def test_operators_form_a_group_of_proper_rotations(name, order):
    operators = point_group(name).operators
    assert operators.shape == (order, 3, 3)
    np.testing.assert_array_equal(operators[0], np.eye(3))
    np.testing.assert_allclose(operators @ operators.transpose(0, 2, 1), np.broadcast_to(np.eye(3), operators.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(operators), 1)
    products = np.einsum("aij,bjk->abik", operators, operators).reshape(-1, 9)
    for product in products[:: max(1, len(products) // 200)]:
        assert (np.abs(operators.reshape(-1, 9) - product).max(axis=1) < 1e-9).sum() == 1


@pytest.mark.parametrize("name, axis, fold", AXES)
def test_axes_are_where_relion_has_them(name, axis, fold):
    turn = rotation_about(axis, 360 / fold)
    assert np.abs(point_group(name).operators - turn).max(axis=(1, 2)).min() < 1e-5


@pytest.mark.parametrize("name", GROUPS)
def test_every_direction_has_exactly_one_mate_in_the_unit(name):
    group = point_group(name)
    vectors = np.random.default_rng(0).normal(size=(2000, 3))
    vectors /= np.linalg.norm(vectors, axis=1)[:, None]
    found = np.zeros(len(vectors), dtype=int)
    for operator in group.operators:
        x, y, z = (vectors @ operator).T
        found += group.in_unit(np.degrees(np.arctan2(y, x)), np.degrees(np.arccos(z)))
    assert (found == 1).all()


@pytest.mark.parametrize("name", ["C3", "D2", "T", "O", "I1", "I3"])
def test_mates_give_the_same_projection(name):
    """A symmetrised set of points, seen from `A` and from `A R`, falls on the same places of the image."""
    group = point_group(name)
    points = np.concatenate([operator @ [[3.0], [5.0], [11.0]] for operator in group.operators], axis=1)
    pose = euler.to_matrix([20.0, 40.0, 60.0])
    seen = (pose @ points).T
    for operator in group.operators:
        mate = (pose @ operator @ points).T
        distance = np.linalg.norm(seen[:, None] - mate[None], axis=-1)
        assert distance.min(axis=1).max() < 1e-9


def test_names_ignore_case_and_i_is_i2():
    assert point_group(" d2 ") is point_group("D2")
    np.testing.assert_array_equal(point_group("i").operators, point_group("I2").operators)


@pytest.mark.parametrize("name", ["Ci", "CS", "C2v", "C3H", "S4", "D2V", "D2h", "Td", "Th", "OH", "IH", "I3H"])
def test_mirror_groups_are_refused_as_not_chiral(name):
    with pytest.raises(InputError, match="not a symmetry of a chiral molecule"):
        point_group(name)


@pytest.mark.parametrize("name, hint", [("D", "D"), ("2D", "D2"), ("C0", "C"), ("I5", "I"), ("", "Known groups")])
def test_unknown_names_bring_the_nearest_known_ones(name, hint):
    with pytest.raises(InputError, match="not a known point group") as caught:
        point_group(name)
    assert hint in str(caught.value)
