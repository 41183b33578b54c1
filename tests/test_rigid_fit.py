"""A map is found in another whatever its turn and shift, and its mirror image is not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from aurefine import molecule, rigid_fit, symmetry

BOX, PIXEL_SIZE, RESOLUTION = 32, 6.0, 14.0
TURN = Rotation.from_euler("zyz", [40, 70, 110], degrees=True).as_matrix()
SHIFT = np.array([6.0, -9.0, 4.0])


def noisy(density, seed=0):
    return density + np.random.default_rng(seed).normal(0, 0.3 * density.std(), density.shape).astype(np.float32)


@pytest.mark.parametrize("group", ["C1", "D2"])
def test_any_turn_and_shift_is_found(group):
    body = molecule.generate(group, 3)
    target = noisy(body.density(BOX, PIXEL_SIZE))
    # The target keeps its axes, what is fitted lies anywhere.
    moving = body.moved(TURN.T, -TURN.T @ SHIFT).density(BOX, PIXEL_SIZE)
    fit = rigid_fit.search(target, moving, PIXEL_SIZE, RESOLUTION, group)
    mates = symmetry.point_group(group).operators @ TURN
    apart = [np.degrees(Rotation.from_matrix(fit.rotation.T @ mate).magnitude()) for mate in mates]
    assert min(apart) < 1
    assert fit.shift == pytest.approx(mates[int(np.argmin(apart))] @ TURN.T @ SHIFT, abs=0.5)
    assert fit.score > 0.8 and rigid_fit.score(target, moving, PIXEL_SIZE, RESOLUTION) < 0.3


def test_a_larger_box_gives_the_same_fit():
    body = molecule.generate("C1", 3)
    target, moving = (each.density(2 * BOX, PIXEL_SIZE / 2) for each in (body.moved(TURN, SHIFT), body))
    assert rigid_fit.working_box(2 * BOX, PIXEL_SIZE / 2, 2 * RESOLUTION) < BOX
    fit = rigid_fit.search(target, moving, PIXEL_SIZE / 2, 2 * RESOLUTION)
    assert np.degrees(Rotation.from_matrix(fit.rotation.T @ TURN).magnitude()) < 1
    assert fit.shift == pytest.approx(SHIFT, abs=0.5)


def test_the_mirror_image_fits_worse():
    body = molecule.generate("C1", 3)
    mirrored = body.moved(np.diag([1.0, 1.0, -1.0]), np.zeros(3)).density(BOX, PIXEL_SIZE)
    fit = rigid_fit.search(body.density(BOX, PIXEL_SIZE), mirrored, PIXEL_SIZE, RESOLUTION)
    assert fit.score < 0.6
