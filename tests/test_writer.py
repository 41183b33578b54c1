"""Output files: RELION's names, tables and columns, maps and angular distribution, exit files; never a part of a file."""

from __future__ import annotations

import errno
import os
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from refinement_states import BOX, SmallParticles, small_options, small_state

import aurefine
from aurefine import job_control, mrc, star
from aurefine.cli.main import main
from aurefine.errors import InputError
from aurefine.job_control import JobAborted
from aurefine.process_record import ProcessRecord
from aurefine.refine import angdist, star_tables, writer


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_an_iteration_leaves_relions_files(folder):
    state = small_state()
    assert writer.write_iteration("run", 4, state, SmallParticles(state), small_options()) == "run_it004_optimiser.star"
    halves = {f"run_it004_half{half}_{rest}" for half in (1, 2) for rest in ("model.star", "class001.mrc", "class001_angdist.bild")}
    assert names(folder) == {"run_it004_data.star", "run_it004_optimiser.star", "run_it004_sampling.star"} | halves
    volume, pixel_size = mrc.read_map("run_it004_half2_class001.mrc")
    assert np.array_equal(volume, state.halves[1].map) and pixel_size == pytest.approx(2.5)


def test_an_output_folder_that_is_none_any_more_is_one_message(folder):
    state = small_state()
    (folder / "v").touch()
    with pytest.raises(InputError, match="cannot remove v/run_it004_optimiser.star: Not a directory"):
        writer.write_iteration("v/run", 4, state, SmallParticles(state), small_options())


def test_unfiltered_maps_are_written_with_a_solvent_corrected_fsc(folder):
    state = replace(small_state(), half_maps_unfiltered=tuple(np.full((BOX,) * 3, half, dtype=np.float32) for half in (1, 2)))
    writer.write_iteration("run", 3, state, SmallParticles(state), small_options())
    assert not Path("run_it003_half2_class001_unfil.mrc").exists()
    writer.write_iteration("run", 4, state, SmallParticles(state), replace(small_options(), solvent_mask="mask.mrc", solvent_correct_fsc=True))
    assert mrc.read_map("run_it004_half2_class001_unfil.mrc")[0][0, 0, 0] == 2


def test_the_end_leaves_relions_files_without_an_iteration(folder):
    state = replace(small_state(halves=1), half_maps_unfiltered=(np.ones((BOX,) * 3, dtype=np.float32),) * 2)
    writer.write_final("run", state, SmallParticles(state), small_options())
    assert names(folder) == {
        "run_data.star", "run_optimiser.star", "run_sampling.star", "run_model.star", "run_class001.mrc", "run_class001_angdist.bild",
        "run_half1_class001_unfil.mrc", "run_half2_class001_unfil.mrc",
    }  # fmt: skip
    table = star.read_table("run_optimiser.star", "optimiser_general")
    assert table.value("rlnCurrentIteration") == -1 and not table.value("rlnDoSplitRandomHalves") and "rlnModelStarFile2" not in table
    counts = star.read_table("run_model.star", "model_groups")["rlnGroupNrParticles"]
    assert counts.tolist() == [4, 4, 4]  # of both halves


@pytest.mark.parametrize("kind", ["optimiser", "sampling", "half1_model"])
def test_tables_and_columns_are_relions(kind, folder, shared_data):
    state = small_state()
    writer.write_iteration("run", 4, state, SmallParticles(state), small_options())
    found = star.read(f"run_it004_{kind}.star")
    expected = star.read(shared_data / "relion5_betagal_run" / f"run_it004_{kind}.star")
    extra = {"model_optics_group_2", "model_group_1", "model_group_2", "model_group_3"}
    assert [name for name in found if name not in extra] == list(expected)
    for name, table in expected.items():
        assert list(found[name].columns) == list(table.columns), name
        assert found[name].is_list == table.is_list
        for label, column in table.columns.items():
            assert found[name][label].dtype == column.dtype, label


def test_values_of_one_kind_look_as_relion_prints_them(folder, shared_data):
    """Line by line, with digits, letters and signs made alike: the same widths and places."""
    state = small_state()
    writer.write_iteration("r5/run", 4, state, SmallParticles(state), small_options()) if Path("r5").mkdir() is None else None
    found = Path("r5/run_it004_optimiser.star").read_text().splitlines()[2:]
    expected = (shared_data / "relion5_betagal_run" / "run_it004_optimiser.star").read_text().splitlines()[2:]
    assert len(found) == len(expected)
    for line, original in zip(found, expected):
        assert (line.split() or [""])[0] == (original.split() or [""])[0]
        assert len(line.rstrip()) == len(original.rstrip()), (line, original)


def test_optimiser_files_begin_with_version_and_command_line(folder):
    state = small_state()
    writer.write_iteration("run", 4, state, SmallParticles(state), small_options())
    version, command = star.leading_comments("run_it004_optimiser.star")
    assert version == f"RELION optimiser; version 5.0.1-aurefine-{aurefine.__version__}"
    assert command == small_options().command_line


def test_the_resolution_of_a_map_is_where_its_signal_to_noise_falls_below_one(shared_data):
    for iteration in ("001", "004", "009", "012"):
        for half in (1, 2):
            tables = star.read(shared_data / "relion5_betagal_run" / f"run_it{iteration}_half{half}_model.star")
            shell = star_tables.resolved_shell(tables["model_class_1"]["rlnSsnrMap"])
            assert 64 * 3.54 / shell == pytest.approx(tables["model_classes"].value("rlnEstimatedResolution"), abs=1e-5)
            seen = star_tables.completeness(tables["model_class_1"]["rlnFourierCompleteness"], shell)
            assert seen == pytest.approx(tables["model_classes"].value("rlnOverallFourierCompleteness"), abs=0.01)


def test_the_angular_distribution_is_drawn_as_relion_draws_it(shared_data):
    folder = shared_data / "relion5_betagal_run"
    pdf = star.read(folder / "run_it009_half1_model.star")["model_pdf_orient_class_1"]["rlnOrientationDistribution"]
    directions = star.read(folder / "run_it009_sampling.star")["sampling_directions"]
    angles = np.stack([directions["rlnAngleRot"], directions["rlnAngleTilt"]], axis=1)
    found = angdist.bild_text(pdf, angles, 64 * 3.54 / 2, 3.75).splitlines()
    expected = (folder / "run_it009_half1_class001_angdist.bild").read_text().splitlines()
    assert len(found) == len(expected)
    for line, original in zip(found, expected):
        assert line.split()[0] == original.split()[0]
        assert np.allclose([float(word) for word in line.split()[1:]], [float(word) for word in original.split()[1:]], rtol=2e-4, atol=6e-3)


def test_a_full_disk_ends_with_a_message_and_no_optimiser_file(folder, monkeypatch):
    state = small_state()
    original = os.fsync

    def full(descriptor):
        if len(names(folder)) > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="no space is left"):
        writer.write_iteration("run", 4, state, SmallParticles(state), small_options())
    assert "run_it004_optimiser.star" not in names(folder) and not [name for name in names(folder) if name.endswith(".tmp")]


def test_relion_31_finds_the_noise_of_every_micrograph_group(folder, monkeypatch):
    state = small_state()
    particles = SmallParticles(state)
    particles.optics_index = np.repeat([0, 1, 0], 4)
    writer.write_iteration("run", 4, state, particles, small_options())
    tables = star.read("run_it004_half1_model.star")
    for group, optics in ((1, 1), (2, 2), (3, 1)):
        assert np.array_equal(tables[f"model_group_{group}"]["rlnSigma2Noise"], tables[f"model_optics_group_{optics}"]["rlnSigma2Noise"])
    monkeypatch.setattr(writer, "MOST_MICROGRAPH_SPECTRA", 2)
    writer.write_iteration("run", 5, state, particles, small_options())
    assert "model_group_1" not in star.read("run_it005_half1_model.star")


def test_warnings_are_kept_beside_the_results(folder):
    writer.write_warnings("run", [])
    assert names(folder) == set()
    writer.write_warnings("run", ["the mask is tight"])
    assert Path("run_warnings.txt").read_text() == "the mask is tight\n"
    writer.write_warnings("run", ["the mask is tight", "two\nlines"])
    assert writer.read_warnings("run") == ["the mask is tight", "two lines"]
    writer.write_warnings("run", [])
    assert names(folder) == set() and writer.read_warnings("run") == []


def test_every_field_of_the_model_is_written():
    """A new field of Model has to find its place in the files: continuing would lose it."""
    known = {"map", "pixel_size", "sigma2_noise", "tau2", "data_vs_prior", "fsc", "sigma2_reference", "fourier_coverage", "orientability",
             "group_scale", "pdf_direction", "average_norm", "sigma2_offset", "average_pmax", "log_likelihood", "accuracy_rotation",
             "accuracy_translation"}  # fmt: skip
    assert {field.name for field in fields(small_state().halves[0])} == known


def test_exit_files_say_how_the_job_ended(folder):
    job = folder / "Refine3D" / "job001"
    with job_control.job_control(f"{job}/"):
        pass
    assert names(job) == {job_control.SUCCESS}
    with pytest.raises(ZeroDivisionError), job_control.job_control(f"{job}/"):
        assert names(job) == set()  # the old one is gone as soon as the job runs
        raise ZeroDivisionError
    assert names(job) == {job_control.FAILURE}
    with pytest.raises(InputError, match="stopped"), job_control.job_control(f"{job}/") as control:
        control.check()
        (job / job_control.ABORT_NOW).touch()
        control.check()
    assert names(job) == {job_control.ABORTED}


@pytest.mark.parametrize("started", ["by hand", "by a pipeline of RELION", "by aurefine run"])
def test_a_request_to_stop_that_came_before_the_job_looked_is_heeded_but_not_that_of_an_earlier_run(folder, started):
    request = folder / job_control.ABORT_NOW
    request.touch()
    if started == "by hand":
        os.utime(request, (1e9, 1e9))  # before this process began
    elif started == "by aurefine run":
        os.utime(request, (1e9, 1e9))  # the clock of a file server
        ProcessRecord.of(os.getppid()).save(folder)
    with pytest.raises(JobAborted) if started != "by hand" else nullcontext(), job_control.job_control(f"{folder}/") as control:
        with job_control.job_control(f"{folder}/"):  # a job's own, within that of the command line
            control.check()
    assert not request.exists() and (folder / job_control.SUCCESS).exists() == (started == "by hand")


def test_a_request_to_stop_that_comes_too_late_is_not_left_for_the_next_run(folder):
    with job_control.job_control(f"{folder}/"):
        (folder / job_control.ABORT_NOW).touch()
    assert names(folder) == {job_control.SUCCESS}


@pytest.mark.parametrize("name", ["file", "file/job"])
def test_a_directory_of_exit_files_that_is_none_is_one_message(folder, name, capsys):
    (folder / "file").touch()
    assert main(["select", "--i", "none.star", "--pipeline_control", str(folder / name)]) == 2
    assert "a folder that may be written to was expected" in capsys.readouterr().err


def test_without_a_pipeline_nothing_is_written(folder):
    with job_control.job_control() as control:
        control.check()
    assert names(folder) == set()
