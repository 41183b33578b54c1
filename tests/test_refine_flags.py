"""Every option of a refinement changes what it says, or is refused: none is without effect."""

from __future__ import annotations

import ast
import contextlib
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import aurefine
from aurefine import euler, fourier, mask, mrc, simulate, star
from aurefine.errors import InputError
from aurefine.imaging import Camera, Imaging
from aurefine.particles import load
from aurefine.refine import loop, options, schedule, start, transforms
from aurefine.refine.model_reader import read_sampling
from aurefine.refine.options import RefineOptions
from aurefine.refine.plan import Geometry, Grid, image_sizes, shells_left_out
from aurefine.refine.result import Result
from aurefine.refine.star_tables import sampling_tables
from aurefine.refine.state import SamplingState
from aurefine.symmetry import point_group

BOX, PIXEL_SIZE, COUNT = 20, 8.0, 24
BASE = RefineOptions(
    reference="reference.mrc", initial_lowpass=40, particle_diameter=120, ctf_correction=True, zero_mask=True, healpix_order=1, random_seed=1,
    max_iterations=1, offset_range_pixels=2, norm_correction=True, verbosity=0,
)  # fmt: skip
PACKAGE = Path(aurefine.__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few particles of an asymmetric blob."""
    folder = tmp_path_factory.mktemp("flags")
    noise = np.random.default_rng(2).normal(size=(BOX,) * 3)
    density = fourier.low_pass((noise * mask.soft_edge(BOX, 3, 5, 3)).astype(np.float32), PIXEL_SIZE, 25.0)
    imaging = Imaging(particles=COUNT, cameras=(Camera(PIXEL_SIZE, BOX),), snr=1.0, reference_resolution=40, seed=1)
    simulate.simulate(simulate.MapSource(density, PIXEL_SIZE, 100.0), folder, imaging)
    return folder


@pytest.fixture(scope="module")
def refine(folder: Path):
    """A function that refines the particles with changed options, one iteration unless told otherwise; the plain run is made once."""
    cache: dict[tuple, Result] = {}

    def run(state=None, **changed) -> Result:
        key = tuple(sorted(changed.items()))
        if state is not None or key not in cache:
            with contextlib.chdir(folder):
                result = loop.refine(load("particles.star"), None if state else "reference.mrc", replace(BASE, **changed), state=state)
            cache[key] = result
        return cache[key]

    return run


def test_every_field_is_read_by_the_engine():
    read = set()
    for path in PACKAGE.rglob("*.py"):
        if path.name in ("checkpoint.py", "star_tables.py", "refine3d_flags.py"):  # they only carry options along
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and ast.unparse(node.value).endswith(("options", "self")):
                read.add(node.attr)
    names = {field.name for field in fields(RefineOptions)} - {"pipeline_control"}  # taken from the command line's values, for it must be first
    assert names - read == set()


def test_gridding_makes_another_map_of_the_same_particles(refine):
    plain, gridded = refine(), refine(skip_gridding=False, gridding_iterations=3)
    assert not np.array_equal(plain.map, gridded.map)
    assert np.corrcoef(plain.map.ravel(), gridded.map.ravel())[0, 1] > 0.9
    assert not np.array_equal(gridded.map, refine(skip_gridding=False, gridding_iterations=1).map)
    np.testing.assert_array_equal(plain.poses.angles, gridded.poses.angles)


def test_low_resolution_is_left_out_of_the_alignment(folder, refine):
    volume, _ = mrc.read_map(folder / "reference.mrc")
    whole, cut = (transforms.projector(volume, 8, 2.0, shells).data for shells in (0, 3))
    h = whole.shape[2] - 1
    assert cut[h, h, :7].abs().max() == 0 and torch.equal(cut[h, h, 7:], whole[h, h, 7:])
    assert not np.array_equal(refine().poses.angles, refine(min_expectation_resolution=60.0).poses.angles)
    assert shells_left_out(replace(BASE, min_expectation_resolution=60.0), BOX * PIXEL_SIZE, 16) == 3
    with pytest.raises(InputError, match="--strict_lowres_exp 20: nothing is left"):
        shells_left_out(replace(BASE, min_expectation_resolution=20.0), BOX * PIXEL_SIZE, 16)


def test_high_resolution_is_left_out_of_the_alignment_and_stays_in_the_map(folder, refine):
    geometry = Geometry(BOX, PIXEL_SIZE, 1.0, np.eye(2))
    assert image_sizes(replace(BASE, max_expectation_resolution=32.0), geometry, 18, 30.0, BOX, PIXEL_SIZE) == (18, 10, 10)
    plain, limited = refine(), refine(max_expectation_resolution=32.0)
    power = np.abs(np.fft.fftshift(np.fft.fftn(limited.map)))
    assert power[BOX // 2, BOX // 2, BOX // 2 + 7] > 1e-3 * power.max() and not np.array_equal(plain.poses.angles, limited.poses.angles)
    spectrum(folder / "clear.star", "rlnSigma2Noise", np.full(BOX // 2 + 1, 1e-5))
    clear = {"max_expectation_resolution": 40.0, "initial_noise_spectrum": "clear.star", "initial_lowpass": 20.0}
    limited, current = refine(**clear), refine(**clear, accuracy_current_size=True)
    assert current.history[0]["accuracy_rotation"] < limited.history[0]["accuracy_rotation"]


def test_the_offset_prior_may_differ_between_the_axes(refine):
    free, held = refine().poses.offsets, refine(offset_range_x=0.3).poses.offsets
    step = BASE.offset_step_pixels * PIXEL_SIZE
    assert np.abs(held[:, 0]).max() < step and np.abs(free[:, 0]).max() > np.abs(held[:, 0]).max()
    assert np.abs(held[:, 1]).max() > np.abs(held[:, 0]).max()
    other = refine(offset_range_y=0.3).poses.offsets
    assert np.abs(other[:, 1]).max() < step and np.abs(other[:, 0]).max() > np.abs(other[:, 1]).max()


@pytest.mark.filterwarnings("error")
def test_an_offset_prior_without_width_leaves_the_nearest_shift(refine):
    held = refine(sigma_offset=0.0, perturbation_factor=0.0, oversampling=0).poses.offsets
    assert np.abs(held).max() < 1e-6 and np.abs(refine().poses.offsets).max() > 1


def spectrum(path: Path, label: str, values: np.ndarray) -> None:
    star.write(path, {"spectrum": star.Table("spectrum", {"rlnSpectralIndex": np.arange(len(values)), label: values})})


def test_the_first_noise_spectrum_may_be_given(folder, refine):
    estimated = refine()
    spectrum(folder / "noise.star", "rlnSigma2Noise", np.full(BOX // 2 + 1, 7.0))
    given = refine(initial_noise_spectrum="noise.star", fix_sigma_noise=True)
    assert np.all(given.state.halves[0].sigma2_noise == 7.0) and given.state.halves[0].average_pmax < estimated.state.halves[0].average_pmax
    spectrum(folder / "wrong.star", "rlnReferenceTau2", np.ones(5))
    with pytest.raises(InputError, match="wrong.star: no spectrum: .*rlnSigma2Noise"):
        refine(initial_noise_spectrum="wrong.star")


def test_the_first_signal_spectrum_may_be_given(folder, refine):
    spectrum(folder / "signal.star", "rlnReferenceTau2", np.concatenate([np.ones(7), np.zeros(BOX // 2 - 6)]))
    spectrum(folder / "weak.star", "rlnReferenceTau2", np.full(BOX // 2 + 1, 1e-12))
    strong, weak = (refine(initial_tau2_spectrum=f"{name}.star", initial_lowpass=-1.0) for name in ("signal", "weak"))
    assert strong.history[0]["current_size"] >= weak.history[0]["current_size"]
    with contextlib.chdir(folder):
        particles = load("particles.star")
        at_start = [_first_signal(particles, name) for name in ("signal.star", "")]
    assert at_start[0][:7] == pytest.approx(1.0) and at_start[0][7:] == pytest.approx(0.0) and at_start[1][1] != pytest.approx(1.0)


def _first_signal(particles, name: str) -> np.ndarray:
    from aurefine.refine import image_cache, initial, inputs, lanes

    chosen = replace(BASE, initial_tau2_spectrum=name)
    given = inputs.read_inputs(particles, chosen, print)
    noise = initial.first_noise(particles, image_cache.ImageCache(particles), given, chosen, print, lanes.lanes_of(1))
    return initial.initial_state(particles, given, chosen, noise).halves[0].tau2


def test_joined_halves_share_one_map(refine):
    first = refine()
    apart = refine(state=first.state, continue_from="run_optimiser.star", max_iterations=2)
    joined = refine(state=first.state, continue_from="run_optimiser.star", max_iterations=2, join_random_halves=True)
    one, other = (half.map for half in joined.state.halves)
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(*(half.map for half in apart.state.halves))
    with pytest.raises(InputError, match="--join_random_halves goes with --continue"):
        refine(join_random_halves=True)
    assert "no longer a gold standard" in options.notes(RefineOptions(join_random_halves=True))[0]


@pytest.mark.parametrize("relaxed", ["C4", "D2", "O"])
def test_local_searches_look_at_the_mates_of_a_relaxed_symmetry(relaxed):
    state = SamplingState(2, "C1", 10.0, 5.0, local=True, sigma_angle=8.0)
    angles = np.array([[20.0, 70.0, 50.0]])
    plain, grid = Grid(state), Grid(replace(state, relax_symmetry=relaxed))
    assert len(grid.directions) == len(plain.directions) == 192
    mates = euler.to_matrix(angles) @ point_group(relaxed).operators
    near, few = (g.rotation_of(g.near(angles).coarse_index) for g in (grid, plain))
    for mate in mates:
        assert _nearest(mate, near) < 20
    assert max(_nearest(mate, few) for mate in mates) > 60 and len(near) > 2 * len(few)


def _nearest(rotation: np.ndarray, others: np.ndarray) -> float:
    trace = np.einsum("ij,nij->n", rotation, others).max()
    return float(np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1))))


def test_the_first_grid_may_have_its_own_in_plane_step(refine, tmp_path, monkeypatch: pytest.MonkeyPatch):
    result = refine(psi_step=20.0)
    grid = Grid(result.state.sampling)
    assert grid.n_psi == 18 and np.diff(grid.psi) == pytest.approx(20.0)
    assert not np.array_equal(result.poses.angles, refine().poses.angles)
    children = grid.fine_rotations(np.array([5])).reshape(4, 2, 3, 3)
    turn = children[0, 0] @ children[0, 1].T
    assert np.degrees(np.arccos((np.trace(turn) - 1) / 2)) == pytest.approx(10.0)
    monkeypatch.chdir(tmp_path)
    for state in (result.state.sampling, refine().state.sampling):
        star.write("run_sampling.star", {table.name: table for table in sampling_tables(state)})
        general = star.Table("model_general", {}, True)
        assert read_sampling("run_sampling.star", 1, general).psi_step == state.psi_step
    finer = schedule._finer(result.state.sampling, result.state.progress, BASE)
    assert finer.psi_step == 0 and Grid(finer).n_psi == 6 * 2**finer.healpix_order


def test_relaxing_a_symmetry_searches_all_directions(refine):
    assert Grid(SamplingState(2, "D2", 10.0, 5.0, relax_symmetry="O")).coarse_count == Grid(SamplingState(2, "C1", 10.0, 5.0)).coarse_count
    result = refine(relax_symmetry="C4", sigma_angle=10.0)
    assert result.state.sampling.relax_symmetry == "C4" and np.mean(result.poses.significant) > 0
    assert not np.array_equal(result.poses.angles, refine(sigma_angle=10.0).poses.angles)
    with pytest.raises(InputError, match="'C0' is not a known point group"):
        refine(relax_symmetry="C0")


def test_the_grid_lines_tell_one_particles_local_orientations(refine):
    result = refine(sigma_angle=10.0)
    grid = Grid(result.state.sampling)
    data = start.Data(None, None, (np.array([3, 0]), np.array([1, 2])), None, None)  # type: ignore[arg-type]
    count = loop._orientations(grid, result.poses, data)
    assert count == len(grid.near(result.poses.angles[[3]]).coarse_index) < grid.coarse_count / 5
    assert loop._orientations(Grid(replace(result.state.sampling, local=False)), result.poses, data) == grid.coarse_count


def test_iterations_are_counted_in_total_when_a_run_goes_on(refine):
    first = refine()
    assert refine(state=first.state, continue_from="run_optimiser.star", max_iterations=2).state.progress.iteration == 2
    with pytest.raises(InputError, match="--auto_iter_max 1: 1 iterations are done already"):
        refine(state=first.state, continue_from="run_optimiser.star", max_iterations=1)


def test_a_gpu_that_is_not_there_is_one_warning_and_the_cpu_does_the_work(refine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    result = refine(gpu="4:5:6:7")
    assert [line for line in result.warnings if "no CUDA GPU was found" in line] and not any("GPU" in line for line in refine().warnings)
    np.testing.assert_array_equal(result.poses.angles, refine().poses.angles)
