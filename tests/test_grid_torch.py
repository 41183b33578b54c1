"""Rotations, local candidates and the CTF made on a GPU equal those made on the CPU; on CPU tensors where there is no GPU."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from aurefine import ctf, ctf_torch
from aurefine.kernels import Volume
from aurefine.refine import grid_torch
from aurefine.refine.grid_torch import DeviceGrid
from aurefine.refine.plan import Geometry, Grid, slice_matrices
from aurefine.refine.state import SamplingState

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
RNG = np.random.default_rng(5)


@pytest.mark.parametrize("oversampling", [0, 1, 2])
def test_slices_of_rotations_and_their_children(oversampling, monkeypatch):
    monkeypatch.setattr(grid_torch, "_ROTATIONS", 300)
    grid = Grid(SamplingState(2, "D2", 10.0, 2.0, perturbation=0.3), (oversampling, 1))
    geometry = Geometry(32, 2.0, 1.1, np.array([[1.01, 0.02], [-0.01, 0.98]]))
    volume = Volume(torch.zeros((1, 1, 1), dtype=torch.complex64), 4, 2.0)
    coarse = RNG.integers(0, grid.coarse_count, 200)
    expected = slice_matrices(grid.fine_rotations(coarse), volume, geometry)
    found = DeviceGrid(grid, DEVICE).slices(torch.from_numpy(coarse).to(DEVICE), oversampling, geometry.stretch(volume))
    np.testing.assert_allclose(found.cpu().numpy(), expected, atol=1e-6)


def test_the_half_of_a_grid_that_products_are_made_of():
    grid = Grid(SamplingState(1, "C2", 10.0, 2.0))
    found = DeviceGrid(grid, DEVICE).below_half_a_turn().cpu().numpy()
    np.testing.assert_array_equal(found, np.arange(grid.coarse_count).reshape(-1, grid.n_psi)[:, : grid.n_psi // 2].ravel())


@pytest.mark.parametrize(("group", "sigma", "relaxed"), [("C1", 3.0, ""), ("D2", 5.0, ""), ("O", 1e-3, ""), ("C1", 40.0, ""), ("C1", 3.0, "C4")])
def test_local_candidates_near_poses(group, sigma, relaxed, monkeypatch):
    state = SamplingState(3, group, 10.0, 2.0, local=True, sigma_angle=sigma, relax_symmetry=relaxed)
    grid = Grid(state)
    angles = np.column_stack([RNG.uniform(-180, 180, 40), RNG.uniform(0, 180, 40), RNG.uniform(-180, 180, 40)])
    expected = grid.near(angles)
    monkeypatch.setattr(grid_torch, "_DISTANCES", 7 * len(grid.mates.operators) * len(grid.directions))  # several parts
    ptr, index, log_prior = DeviceGrid(grid, DEVICE).near(angles)
    np.testing.assert_array_equal(ptr, expected.ptr)
    np.testing.assert_array_equal(index.cpu().numpy(), expected.coarse_index)
    np.testing.assert_allclose(log_prior.cpu().numpy(), expected.log_prior, atol=2e-5)


@pytest.mark.parametrize("flags", [{}, {"intact_first_peak": True}, {"phase_flipped": True}, {"only_flip_phases": True}])
@pytest.mark.parametrize("bfactor", [0.0, 80.0])
def test_the_ctf(flags, bfactor, monkeypatch):
    monkeypatch.setattr(ctf_torch, "_TERMS", 1000)  # a few particles at a time
    table = SimpleNamespace(
        defocus_u=RNG.uniform(8e3, 3e4, 9), defocus_v=RNG.uniform(8e3, 3e4, 9), defocus_angle=RNG.uniform(-90, 90, 9),
        bfactor=np.full(9, bfactor), scale=RNG.uniform(0.5, 1.5, 9), phase_shift=RNG.uniform(0, 90, 9),
    )  # fmt: skip
    optics = SimpleNamespace(
        voltage=300.0, spherical_aberration=2.7, amplitude_contrast=0.1, magnification=np.array([[1.02, 0.01], [0.0, 0.99]]),
        even_zernike=(0.0, 0.0, 0.0, 0.4, -0.3), odd_zernike=(), beam_tilt=(0.0, 0.0),
    )  # fmt: skip
    x, y = RNG.uniform(-0.25, 0.25, (2, 400))
    rows = np.array([8, 0, 3, 3, 5])
    expected = ctf.evaluate(table, rows, optics, x, y, **flags)
    found = ctf_torch.evaluate(table, rows, optics, x, y, DEVICE, **flags)
    np.testing.assert_allclose(found.cpu().numpy(), expected, atol=1e-6)
