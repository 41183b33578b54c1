"""The option table: RELION's flags, their values, and what is said about those that do nothing or cannot be done."""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import fields
from types import SimpleNamespace

import pytest
from refinement_states import small_model

from aurefine.errors import InputError
from aurefine.jobs import refine3d
from aurefine.jobs.options import parse
from aurefine.optics import OpticsGroup
from aurefine.refine.options import RefineOptions, validate, validate_values
from aurefine.refine.planning import make_plan
from aurefine.refine.state import Progress, SamplingState

STARRED = """--i --o --ref --auto_refine --split_random_halves --auto_iter_max --auto_ignore_angles --auto_resol_angles
--auto_local_healpix_order --healpix_order --oversampling --offset_range --offset_step --psi_step --offset_range_x --offset_range_y --offset_range_z
--perturb --adaptive_fraction --maxsig --minimum_angular_sampling --maximum_angular_sampling --sym --relax_sym --ini_high --firstiter_cc
--trust_ref_size --ctf --ctf_intact_first_peak --particle_diameter --zero_mask --maskedge --flatten_solvent --solvent_mask --solvent_correct_fsc
--low_resol_join_halves --tau2_fudge --norm --scale --no_norm --no_scale --offset --min_sigma2_offset --pad --NN --r_min_nn --asymmetric_padding
--dont_skip_gridding --gridding_iter --minres_map --incr_size --strict_highres_exp --random_seed --pool --j --gpu
--dont_combine_weights_via_disc --no_parallel_disc_io --preread_images --scratch_dir --blush --pipeline_control""".split()


def parsed(line: str) -> tuple[dict, list[str]]:
    return parse("aurefine refine", refine3d.SUMMARY, refine3d.OPTIONS, shlex.split(line))


def test_every_flag_that_matters_for_auto_refine_is_known():
    assert set(STARRED) <= {option.flag for option in refine3d.OPTIONS}


def test_no_flag_is_declared_twice_and_every_field_has_a_flag():
    flags = [option.flag for option in refine3d.OPTIONS]
    assert len(flags) == len(set(flags))
    names = {option.name for option in refine3d.OPTIONS}
    assert {field.name for field in fields(RefineOptions)} - names == {"command_line"}


def test_the_tutorials_command_line_runs_with_the_programs_name_changed(shared_data):
    text = (shared_data / "tutorial" / "job019_index.md").read_text()
    command = re.search(r"which relion_refine_mpi (.*)", text).group(1)
    values, notes = parsed(command)
    assert values["gpu"] == "4:5:6:7"
    assert (values["symmetry"], values["initial_lowpass"], values["offset_step_pixels"]) == ("D2", 50.0, 2.0)
    assert len(notes) == 2  # --pool, --dont_combine_weights_via_disc: one line each
    assert values["scratch_dir"]
    assert RefineOptions(**values).gpu_numbers == (4, 5, 6, 7)


def test_a_form_gives_the_command_line_that_relions_gui_prints():
    form = {"fn_img": "a.star", "fn_ref": "r.mrc", "ini_high": "50", "auto_faster": "Yes", "sym_name": "D2", "trust_ref_size": "No",
            "nr_threads": "6", "use_gpu": "Yes", "gpu_ids": "4:5:6:7", "scratch_dir": "/ssd"}  # fmt: skip
    assert refine3d.arguments_from_form(form, "Refine3D/job019/run") == shlex.split(
        "--o Refine3D/job019/run --auto_refine --split_random_halves --i a.star --ref r.mrc --firstiter_cc --ini_high 50 "
        "--dont_combine_weights_via_disc --scratch_dir /ssd --pool 3 --pad 2 --auto_ignore_angles --auto_resol_angles --ctf --particle_diameter 200 "
        "--flatten_solvent --zero_mask --oversampling 1 --healpix_order 2 --auto_local_healpix_order 4 --offset_range 5 --offset_step 2 --sym D2 "
        '--low_resol_join_halves 40 --norm --scale --j 6 --gpu "4:5:6:7"'
    )


def test_negative_numbers_are_values():
    values, _ = parsed("--tau2_fudge -1 --ini_high -1e-3 --maxsig -1 --limit_tilt -91 --random_seed -1")
    assert values == {"tau2_fudge": -1.0, "initial_lowpass": -1e-3, "max_significant": -1, "limit_tilt": -91.0, "random_seed": -1}


@pytest.mark.parametrize(
    ("line", "gpus"), [("", None), ("--gpu", ()), ('--gpu ""', ()), ("--gpu --j 2", ()), ("--gpu 0:1", (0, 1)), ("--gpu 0,1:0,1", (0, 1))]
)
def test_gpu_may_stand_alone_or_name_devices(line, gpus):
    assert RefineOptions(**parsed(line)[0]).gpu_numbers == gpus


def test_an_unknown_flag_is_an_error_that_names_the_nearest():
    with pytest.raises(InputError, match=r"--particle_diametre.*--particle_diameter"):
        parsed("--particle_diametre 200")
    with pytest.raises(InputError, match="does not follow an option"):
        parsed("--ctf yes")


@pytest.mark.parametrize("line", ["--K 3", "--helix", "--blush", "--tomograms t.star", "--grad", "--skip_align", "--multibody_masks b.star"])
def test_other_job_types_are_refused_in_plain_words(line):
    with pytest.raises(InputError, match=f"{line.split()[0]} is not supported: .{{10}}"):
        parsed(line)


def test_an_unsupported_flag_at_its_harmless_value_is_accepted():
    assert parsed("--K 1 --sigma_rot -1 --local_symmetry None --multibody_masks None") == ({}, [])


@pytest.mark.parametrize("line", ["--j two", "--ini_high high", "--healpix_order 2.5", "--i", "--ini_high nan", "--particle_diameter inf", "--j inf"])
def test_a_wrong_value_names_its_flag(line):
    with pytest.raises(InputError, match=line.split()[0]):
        parsed(line)


def test_defaults_are_relions():
    options = RefineOptions()
    assert (options.healpix_order, options.local_healpix_order, options.oversampling, options.max_iterations) == (2, 4, 1, 999)
    assert (options.offset_range_pixels, options.offset_step_pixels, options.sigma_offset, options.padding) == (6.0, 2.0, 10.0, 2.0)
    assert options.tau2_fudge_used == 1.0 and options.skip_gridding and options.reference_ctf_corrected


@pytest.mark.parametrize("name", ["particle_diameter", "sigma_offset", "initial_lowpass", "tau2_fudge", "adaptive_fraction"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_refused_from_python_too(name, value):
    with pytest.raises(InputError, match=f"{name} is {value}: a finite number"):
        validate_values(RefineOptions(**{name: value}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "--i"),
        ({"particles": "p.star"}, "--o"),
        ({"particles": "p.star", "output": "run"}, "--ref"),
        ({"particles": "p.star", "output": "run", "reference": "r.mrc"}, r"--i p.star: there is no such file"),
        ({"continue_from": "nowhere_optimiser.star"}, "--continue nowhere_optimiser.star"),
        ({"gpu": "first"}, "--gpu first"),
        ({"padding": 0.5}, "--pad 0.5"),
        ({"healpix_order": 20}, "--healpix_order 20"),
    ],
)
def test_what_is_wrong_at_once_is_said_at_once(values, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        validate(RefineOptions(**values))


def test_full_precision_is_one_switch_for_every_product_of_the_coarse_pass():
    assert parsed("--i p.star --o run --ref r.mrc --full_precision")[0]["full_precision"] is True
    particles = SimpleNamespace(optics=(OpticsGroup("one", 1, 300.0, 2.7, 0.1, 2.0, 32),))
    sampling = SamplingState(2, "C1", 10.0, 2.0)
    state = SimpleNamespace(halves=(small_model(1, 10),))
    for correlation, full, reduced in ((False, False, True), (False, True, False), (True, False, False), (True, True, False)):
        options = RefineOptions(full_precision=full, particle_diameter=40.0)
        plan = make_plan(2, sampling, Progress(current_resolution=0.05), state, particles, options, correlation)
        assert plan.reduced_precision is plan.rounds_products is reduced
        assert plan.oversampled(0, 0).rounds_products is False  # the coarse pass decides, in float32
