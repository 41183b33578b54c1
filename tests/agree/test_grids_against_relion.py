"""Grids, perturbation and changes of a RELION 5 auto-refine run (D2), from the STAR files that it wrote."""

from __future__ import annotations

import numpy as np
import pytest

from aurefine import euler, healpix, sampling, star
from aurefine.symmetry import point_group

GROUP = point_group("D2")


class Iteration:
    """The sampling and the poses RELION wrote after one iteration."""

    def __init__(self, folder, number):
        tables = star.read(folder / f"run_it{number:03d}_sampling.star")
        general = {name: values[0] for name, values in tables["sampling_general"].columns.items()}
        self.directions = np.stack([tables["sampling_directions"].columns[f"rlnAngle{name}"] for name in ("Rot", "Tilt")], axis=1)
        self.order = int(general["rlnHealpixOrder"])
        self.perturbation = float(general["rlnSamplingPerturbInstance"])
        self.offset_range, self.offset_step = float(general["rlnOffsetRange"]), float(general["rlnOffsetStep"])
        self.folder, self.number = folder, number

    def poses(self):
        columns = star.read(self.folder / f"run_it{self.number:03d}_data.star")["particles"].columns
        angles = np.stack([columns[f"rlnAngle{name}"] for name in ("Rot", "Tilt", "Psi")], axis=1)
        return angles, np.stack([columns[f"rlnOrigin{axis}Angst"] for axis in "XY"], axis=1)


@pytest.fixture(scope="module")
def run(shared_data):
    return shared_data / "relion5_betagal_run"


@pytest.mark.parametrize("number", [4, 5, 8, 10, 12])
def test_directions_are_relions_in_relions_order(run, number):
    theirs = Iteration(run, number)
    ours = sampling.directions(theirs.order, "D2")
    assert ours.angles.shape == theirs.directions.shape
    np.testing.assert_allclose(ours.angles, theirs.directions, atol=1e-4)
    table = star.read(run / f"run_it{number:03d}_half1_model.star")["model_pdf_orient_class_1"]
    assert len(table.columns["rlnOrientationDistribution"]) == len(ours)


@pytest.mark.parametrize("number", [1, 4, 5, 9, 12])
def test_relions_best_orientations_are_points_of_our_perturbed_fine_grid(run, number):
    theirs = Iteration(run, number)
    delta = theirs.perturbation * sampling.angular_step(theirs.order)
    poses = euler.to_matrix(theirs.poses()[0])
    grid, psi = sampling.directions(theirs.order, "D2"), sampling.psi_angles(theirs.order)
    children = healpix.centres(theirs.order + 1, healpix.children(grid.pixel, 1)).reshape(-1, 2)
    unperturbed = euler.from_matrix(poses @ euler.to_matrix([delta] * 3).T)
    views = euler.view_direction(unperturbed[:, 0], unperturbed[:, 1])
    direction = (views @ euler.view_direction(*children.T).T).argmax(axis=1) // 4
    turn = np.floor(np.mod(unperturbed[:, 2] / sampling.angular_step(theirs.order) + 0.5, len(psi))).astype(int)
    fine = sampling.fine_rotations(theirs.order, grid, direction * len(psi) + turn, delta)
    nearest = np.abs(fine - poses[:, None]).max(axis=(2, 3)).min(axis=1)
    assert nearest.max() < 1e-5


@pytest.mark.parametrize("before, after", [(1, 2), (4, 5), (8, 9)])
def test_relions_best_offsets_are_points_of_our_perturbed_translation_grid(run, before, after):
    pixel, theirs = 3.54, Iteration(run, after)
    start = Iteration(run, before).poses()[1] / pixel
    start = np.trunc(start + np.copysign(0.5, start)) * pixel
    coarse = sampling.translations(theirs.offset_range, theirs.offset_step)
    fine = sampling.oversample_translations(coarse, theirs.offset_step).reshape(-1, 2)
    fine = sampling.perturb_translations(fine, theirs.perturbation, theirs.offset_step)
    moved = theirs.poses()[1] - start
    assert np.abs(moved[:, None] - fine[None]).max(axis=-1).min(axis=1).max() < 1e-3


@pytest.mark.parametrize("before, after", [(0, 1), (1, 2), (4, 5), (8, 9)])
def test_the_mean_change_of_orientation_is_the_one_relion_reports(run, before, after):
    old, new = (euler.to_matrix(Iteration(run, number).poses()[0]) for number in (before, after))
    reported = star.read(run / f"run_it{after:03d}_optimiser.star")["optimiser_general"].columns["rlnChangesOptimalOrientations"][0]
    assert euler.angular_difference(old, new, GROUP).mean() == pytest.approx(float(reported), abs=1e-5)


def test_relions_next_poses_lie_among_our_local_candidates(run):
    """Between two local iterations nearly every particle moves to the child of an orientation that we would search, too."""
    old, theirs = Iteration(run, 8).poses()[0], Iteration(run, 9)
    grid, psi = sampling.directions(theirs.order, "D2"), sampling.psi_angles(theirs.order)
    step = sampling.angular_step(theirs.order)
    result = sampling.local_candidates(old, grid, GROUP, theirs.order, step)
    poses = euler.to_matrix(theirs.poses()[0]) @ euler.to_matrix([theirs.perturbation * step] * 3).T
    owner = np.repeat(np.arange(len(old)), np.diff(result.ptr))
    candidates = sampling.coarse_rotations(grid, psi)[result.coarse_index]
    nearest = np.full(len(old), np.inf)
    np.minimum.at(nearest, owner, euler.angular_difference(candidates, poses[owner], GROUP))
    assert (nearest < step).mean() > 0.98
