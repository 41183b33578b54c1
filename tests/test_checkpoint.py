"""Continuing: what was written is read back, RELION's own files are understood, and RELION's rules for a continued run hold."""

from __future__ import annotations

import shutil
from dataclasses import fields, replace

import numpy as np
import pytest
from refinement_states import SmallParticles, small_options, small_state

from aurefine import star
from aurefine.errors import InputError
from aurefine.refine import checkpoint, writer

COMPLETE = ("000", "001", "002", "004", "005", "008", "009", "012")  # RELION's iterations with data and maps in the test data


def assert_printed_equal(found, expected, where: str) -> None:
    """Equal to the digits of a STAR file: six decimals, or seven significant digits when small or large."""
    found, expected = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    tolerance = np.where(np.abs(expected) < 1e-3, 1e-6 * np.abs(expected), 1.1e-5 + 1e-6 * np.abs(expected))
    assert found.shape == expected.shape and np.all(np.abs(found - expected) <= tolerance), where


def assert_same_state(found, expected) -> None:
    for index, (model, original) in enumerate(zip(found.halves, expected.halves, strict=True)):
        for field in fields(model):
            assert_printed_equal(getattr(model, field.name), getattr(original, field.name), f"half {index + 1} {field.name}")
    for field in fields(found.poses):
        assert_printed_equal(getattr(found.poses, field.name), getattr(expected.poses, field.name), field.name)
    for part in ("progress", "sampling"):
        for field in fields(getattr(found, part)):
            value, original = (getattr(getattr(state, part), field.name) for state in (found, expected))
            if isinstance(original, str):
                assert value == original
            else:
                assert_printed_equal(value, original, field.name)
    assert np.array_equal(found.random_subset, expected.random_subset)


@pytest.fixture
def written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = small_state(iteration=4)
    writer.write_iteration("run", 4, state, SmallParticles(state), small_options())
    return state


def test_a_state_is_read_back_as_it_was_written(written):
    found = checkpoint.load("run_it004_optimiser.star")
    assert found.root == "run" and found.particles == "run_it004_data.star"
    assert_same_state(found.state, written)


def test_options_are_read_back_as_they_were(written):
    options, notes = checkpoint.continued_options(checkpoint.load("run_it004_optimiser.star"), {})
    original = small_options()
    changed = {field.name for field in fields(options) if getattr(options, field.name) != getattr(original, field.name)}
    # named on the new command line, or of the process
    assert changed <= {"output", "particles", "reference", "initial_lowpass", "command_line", "continue_from"}, changed
    assert notes == []


def test_settings_that_only_the_command_line_holds_are_read_from_the_comment(written):
    def read(arguments):
        assert arguments == small_options().command_line.split()
        return {"initial_lowpass": 50.0, "first_iteration_cc": True, "ignore_angle_changes": True, "threads": 9}

    found = checkpoint.load("run_it004_optimiser.star", read)
    options, notes = checkpoint.continued_options(found, {"gpu": "0"})
    assert options.initial_lowpass == 50.0 and options.first_iteration_cc and options.gpu == "0" and options.threads == 1
    assert not options.ignore_angle_changes and "--auto_ignore_angles" in notes[0]


@pytest.mark.parametrize(
    ("given", "root"),
    [("", "run_ct4"), ("run", "run_ct4"), ("./run", "run_ct4"), ("again/run", "again/run")],
)
def test_the_output_root_never_overwrites_the_first_run(written, given, root):
    values = {"output": given} if given else {}
    assert checkpoint.continued_options(checkpoint.load("run_it004_optimiser.star"), values)[0].output == root


def test_the_sampling_cannot_be_changed_by_continuing_but_the_mask_can(written):
    found = checkpoint.load("run_it004_optimiser.star")
    options, notes = checkpoint.continued_options(found, {"healpix_order": 5, "particle_diameter": 150.0})
    assert options.healpix_order == written.sampling.healpix_order_original and options.particle_diameter == 150.0
    assert "healpix_order" in notes[0]


def test_forcing_convergence_makes_the_next_iteration_the_last(written):
    found = checkpoint.load("run_it004_optimiser.star")
    given = {"force_converge": True, "sigma_offset": 4.0}
    options, _ = checkpoint.continued_options(found, given)
    state = checkpoint.continued_state(found, options, given)
    assert state.progress.has_converged and state.halves[1].sigma2_offset == 16.0
    assert not checkpoint.continued_state(found, replace(options, force_converge=False), {}).progress.has_converged


def test_relaxing_a_symmetry_while_continuing_searches_all_directions(written):
    found = checkpoint.load("run_it004_optimiser.star")
    options, notes = checkpoint.continued_options(found, {"relax_symmetry": "O"})
    state = checkpoint.continued_state(found, options, {"relax_symmetry": "O"})
    assert notes == [] and state.sampling.relax_symmetry == "O"
    for half in state.halves:
        assert half.pdf_direction == pytest.approx(np.full(192, 1 / 192))


def test_a_run_with_nearest_neighbour_interpolation_is_refused(written, tmp_path):
    path = tmp_path / "run_it004_half1_model.star"
    tables = star.read(path)
    columns = {**tables["model_general"].columns, "rlnFourierSpaceInterpolator": np.array([0])}
    tables["model_general"] = star.Table("model_general", columns, True)
    star.write(path, tables)
    with pytest.raises(InputError, match="--NN"):
        checkpoint.load("run_it004_optimiser.star")


def test_files_are_found_beside_the_optimiser_after_a_move(written, tmp_path, monkeypatch):
    shutil.copytree(tmp_path, tmp_path / "moved", ignore=shutil.ignore_patterns("moved"))
    for name in tmp_path.glob("run_*"):
        name.unlink()
    assert_same_state(checkpoint.load("moved/run_it004_optimiser.star").state, written)


def test_a_missing_file_is_named(written, tmp_path):
    (tmp_path / "run_it004_half2_class001.mrc").unlink()
    with pytest.raises(InputError, match="run_it004_half2_model.star names run_it004_half2_class001.mrc"):
        checkpoint.load("run_it004_optimiser.star")


def test_a_finished_run_is_not_a_place_to_continue_from(shared_data):
    with pytest.raises(InputError, match="--force_converge"):
        checkpoint.load(shared_data / "relion5_betagal_run" / "run_optimiser.star")


def test_a_classification_cannot_be_continued(shared_data):
    with pytest.raises(InputError, match="half-sets"):
        checkpoint.load(shared_data / "star" / "run_it025_optimiser_3D.star")


@pytest.mark.parametrize("iteration", COMPLETE)
def test_relions_own_iterations_are_understood(iteration, shared_data):
    folder = shared_data / "relion5_betagal_run"
    found = checkpoint.load(folder / f"run_it{iteration}_optimiser.star")
    state = found.state
    number = int(iteration)
    assert state.progress.iteration == number and found.root == "r5/run"
    assert len(state.random_subset) == 1534 and set(state.random_subset) == {1, 2}
    assert state.sampling.symmetry == "D2" and state.sampling.local == (number >= 8)
    assert state.sampling.healpix_order == {0: 2, 1: 2, 2: 2, 4: 2, 5: 3, 8: 4, 9: 4, 12: 5}[number]
    assert len(state.halves) == 2 and state.halves[0].sigma2_noise.shape == (1, 33) and np.all(state.halves[0].sigma2_noise > 0)
    assert state.halves[0].map.shape == (64, 64, 64) and not np.array_equal(state.halves[0].map, state.halves[1].map) or number == 0
    assert len(state.halves[0].pdf_direction) == star.read(folder / f"run_it{iteration}_sampling.star")["sampling_directions"].count
    options, _ = checkpoint.continued_options(found, {})
    assert options.join_halves_resolution == 40 and options.norm_correction and options.ctf_correction and options.particle_diameter == 200
    assert options.output == f"r5/run_ct{number}"
    assert (options.offset_range_pixels, options.offset_step_pixels) == pytest.approx((5.0, 2.0))


@pytest.mark.parametrize(("iteration", "missing"), [("003", "run_it003_data.star"), ("011", "run_it011_data.star")])
def test_an_iteration_without_its_particles_is_refused(iteration, missing, shared_data):
    with pytest.raises(InputError, match=missing):
        checkpoint.load(shared_data / "relion5_betagal_run" / f"run_it{iteration}_optimiser.star")


def test_noise_spectra_of_relion_31_are_averaged_over_the_particles_of_an_optics_group(written, tmp_path):
    path = tmp_path / "run_it004_half1_model.star"
    tables = {name: table for name, table in star.read(path).items() if not name.startswith("model_optics_group_")}
    shells = np.arange(9)
    for group, level in ((1, 1.0), (2, 3.0), (3, 9.0)):
        columns = {"rlnSpectralIndex": shells, "rlnResolution": shells / 16, "rlnSigma2Noise": np.full(9, level)}
        tables[f"model_group_{group}"] = star.Table(f"model_group_{group}", columns)
    star.write(path, tables)
    data = star.read(tmp_path / "run_it004_data.star")
    optics = data["particles"]["rlnOpticsGroup"]
    groups = data["particles"]["rlnGroupNumber"]
    noise = checkpoint.load(tmp_path / "run_it004_optimiser.star").state.halves[0].sigma2_noise
    levels = np.array([1.0, 3.0, 9.0])[groups - 1]
    assert noise[:, 4] == pytest.approx([levels[optics == number].mean() for number in (1, 2)])
