"""RELION's forms become RELION's command lines, and command lines become forms again; job.star of every version is read and rewritten."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurefine.errors import InputError
from aurefine.jobs import submit
from aurefine.jobs.form import JobType
from aurefine.jobs.options import FormField, Option
from aurefine.project import job_star, job_types
from aurefine.project.job_star import JobStar

TUTORIAL_EXTRACT = (
    "--i CtfFind/job003/micrographs_ctf.star --reextract_data_star Select/job017/particles.star --recenter --recenter_x 0 --recenter_y 0 "
    "--recenter_z 0 --part_star Extract/job018/particles.star --pick_star Extract/job018/extractpick.star --part_dir Extract/job018/ --extract "
    "--extract_size 360 --float16 --scale 256 --norm --bg_radius 71 --white_dust -1 --black_dust -1 --invert_contrast"
)
TUTORIAL_REFINE = (
    "--o Refine3D/job019/run --auto_refine --split_random_halves --i Extract/job018/particles.star "
    "--ref Class3D/job016/run_it025_class004_box256.mrc --firstiter_cc --ini_high 50 "
    "--dont_combine_weights_via_disc --scratch_dir /ssd/scheres --pool 3 --pad 2 --auto_ignore_angles "
    "--auto_resol_angles --ctf --particle_diameter 200 --flatten_solvent --zero_mask --oversampling 1 --healpix_order 2 "
    "--auto_local_healpix_order 4 --offset_range 5 --offset_step 2 --sym D2 --low_resol_join_halves 40 --norm --scale --j 6 --gpu 4:5:6:7"
)
# as RELION 3.1.3 prints them in note.txt for the form's values beside them
RELION_31 = {
    "Extract": (
        {"do_reextract": "Yes", "fndata_reextract": "in/run_data.star", "star_mics": "in/mics.star", "do_recenter": "Yes", "recenter_z": "3",
         "do_rescale": "Yes", "extract_size": "360", "rescale": "256", "bg_diameter": "200"},
        "--i in/mics.star --reextract_data_star in/run_data.star --recenter --recenter_x 0 --recenter_y 0 --recenter_z 3 "
        "--part_star D/particles.star --pick_star D/extractpick.star --part_dir D/ --extract --extract_size 360 --scale 256 --norm --bg_radius 71 "
        "--white_dust -1 --black_dust -1 --invert_contrast",
    ),
    "PostProcess": (
        {"fn_in": "in/run_half1_class001_unfil.mrc", "fn_mask": "in/m.mrc", "fn_mtf": "in/mtf.star", "do_adhoc_bfac": "Yes", "do_auto_bfac": "No",
         "do_skip_fsc_weighting": "Yes", "angpix": "1.1"},
        "--mask in/m.mrc --i in/run_half1_class001_unfil.mrc --o D/postprocess --angpix 1.1 --mtf in/mtf.star --mtf_angpix 1 --adhoc_bfac -1000 "
        "--skip_fsc_weighting --low_pass 5",
    ),
    "Refine3D": (
        {"fn_img": "in/p.star", "fn_ref": "in/r.mrc", "fn_mask": "in/m.mrc", "do_solvent_fsc": "Yes", "auto_faster": "Yes", "sym_name": "D2",
         "relax_sym": "C2", "use_gpu": "Yes", "gpu_ids": "0", "do_pad1": "Yes", "scratch_dir": "/tmp"},
        "--o D/run --auto_refine --split_random_halves --i in/p.star --ref in/r.mrc --firstiter_cc --ini_high 60 --dont_combine_weights_via_disc "
        "--scratch_dir /tmp --pool 3 --pad 1 --auto_ignore_angles --auto_resol_angles --ctf --particle_diameter 200 --flatten_solvent --zero_mask "
        "--solvent_mask in/m.mrc --solvent_correct_fsc --oversampling 1 --healpix_order 2 --auto_local_healpix_order 4 --offset_range 5 "
        "--offset_step 2 --sym D2 --low_resol_join_halves 40 --norm --scale --relax_sym C2 --j 1 --gpu 0",
    ),
    "Select": (
        {"fn_data": "in/p.star", "do_split": "Yes", "do_random": "Yes", "nr_split": "3"},
        "--i in/p.star --o D/particles.star --split --random_order --nr_split 3 --size_split 100",
    ),
    "MaskCreate": (
        {"fn_in": "in/r.mrc", "inimask_threshold": "0.01"},
        "--i in/r.mrc --o D/mask.mrc --lowpass 15 --ini_threshold 0.01 --extend_inimask 3 --width_soft_edge 3 --j 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RELION_31)
def test_forms_become_the_command_lines_of_relions_gui(name: str) -> None:
    job_type = job_types.by_name(name)
    values, line = RELION_31[name]
    assert job_type.arguments({**job_type.defaults(3), **values}, "D/", "form") == shlex.split(line)


@pytest.mark.parametrize(("name", "line"), [("Extract", TUTORIAL_EXTRACT), ("Refine3D", TUTORIAL_REFINE)])
def test_the_tutorials_command_lines_become_forms_that_say_the_same(name: str, line: str) -> None:
    job_type = job_types.by_name(name)
    form = job_type.form_from([*shlex.split(line), "--pipeline_control", "x/"], f"{name}/job018/")
    assert form["other_args"] == ""
    directory = "Extract/job018/" if name == "Extract" else "Refine3D/job019/"
    assert job_type.arguments(form, directory, "form") == shlex.split(line)


@pytest.mark.parametrize("picks", ["AutoPick/job004/coords_suffix_autopick.star", "ManualPick/job002/coords_suffix_manualpick.star"])
def test_relion_3_names_picks_by_the_ending_of_their_files(picks: str) -> None:
    job_type = job_types.by_name("Extract")
    line = job_type.arguments({**job_type.defaults(3), "star_mics": "m.star", "coords_suffix": picks}, "D/", "form")
    folder, ending = picks.split("coords_suffix")
    assert line[:6] == ["--i", "m.star", "--coord_dir", folder, "--coord_suffix", ending]  # as RELION 3.1.3 prints it
    form = job_type.form_from(line, "D/")
    assert (form["coords_suffix"], form["other_args"]) == (picks, "")
    beside = job_type.form_from(["--i", "m.star", "--coord_suffix", ".box"], "D/")
    assert (beside["coords_suffix"], beside["other_args"]) == ("", "--coord_suffix .box")


def test_flags_that_no_form_says_go_to_the_additional_arguments() -> None:
    job_type = job_types.by_name("refine")
    form = job_type.form_from(shlex.split("--i p.star --ref r.mrc --random_seed 3 --tau2_fudge -1 --o elsewhere"), "D/")
    assert form["other_args"] == "--random_seed 3 --tau2_fudge -1"
    assert (form["do_zero_mask"], form["ref_correct_greyscale"], form["ini_high"]) == ("No", "Yes", "-1")


def value(row: FormField) -> st.SearchStrategy[str]:
    if row.kind == "bool":
        return st.sampled_from(["Yes", "No"])
    if row.kind == "choice":
        return st.sampled_from(row.choices)
    if row.key in ("extract_size", "rescale"):
        return st.integers(1, 250).map(lambda half: str(2 * half))
    if row.kind == "float":
        return st.integers(1, 500).map(str)
    return st.just("some/file.star") if row.kind == "file" else st.just(row.default)


FIXED = {"do_discard", "do_split", "do_remove_duplicates", "do_class_ranker", "do_filaments", "do_reset_offsets", "do_pad1", "other_args", "fn_mic",
         "fn_model", "fn_cont"}  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(data=st.data(), job_type=st.sampled_from([each for each in job_types.JOB_TYPES if each.name != "External"]))
def test_a_form_read_back_from_its_command_line_gives_that_command_line(data: st.DataObject, job_type: JobType) -> None:
    form = {row.key: data.draw(value(row), row.key) for row in job_type.fields if row.key not in FIXED}
    form = {**job_type.defaults(), **form, **({"do_select_values": "Yes"} if job_type.name == "Select" else {})}
    line = job_type.arguments(form, "D/", "form")
    back = job_type.form_from(line, "D/")
    assert job_type.arguments(back, "D/", "form") == line


@settings(max_examples=30, deadline=None)
@given(data=st.data(), job_type=st.sampled_from(job_types.JOB_TYPES), generation=st.sampled_from([3, 4, 5]))
def test_any_job_star_comes_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, job_type: JobType, generation: int
) -> None:
    form = job_type.defaults(generation) | {row.key: data.draw(value(row), row.key) for row in job_type.fields}
    form["other_args"] = data.draw(st.sampled_from(["", "--k 2", "--name 'a b' --x"]))
    path = tmp_path_factory.mktemp("job") / "job.star"
    job_star.write(path, JobStar(job_type, form), generation)
    again = job_star.read(path)
    shown = {row.key for row in job_type.fields if row.since <= generation <= row.until}
    assert again.job_type is job_type
    if job_type.name == "Validation":  # kept as the External job that RELION takes it for: as what it runs
        assert again.job_type.arguments(again.values, "D/") == job_type.arguments(form, "D/")
        return
    assert {key: again.values[key] for key in shown} == {key: form[key] for key in shown}


def test_the_tutorials_job_star_is_rewritten_to_the_byte(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "tutorial" / "job019_job.star"
    job = job_star.read(path)
    known = {line.split()[0] for line in path.read_text().splitlines() if line.strip()}
    kept = JobStar(job.job_type, {key: value for key, value in job.values.items() if key in known})
    job_star.write(tmp_path / "job.star", kept, 5)
    assert (tmp_path / "job.star").read_text().replace("50001", "30001") == path.read_text()
    line = job.job_type.arguments(job.values, "Refine3D/job020/", str(path))
    assert line[:4] == ["--o", "Refine3D/job020/run", "--auto_refine", "--split_random_halves"]
    assert "--blush" in line and line[line.index("--sym") + 1] == "D2"


def test_a_validation_is_an_external_job_to_relion(tmp_path: Path) -> None:
    values = {"fn_half": "Refine3D/job001/run_half1_class001_unfil.mrc", "fn_atoms": "in/model.cif", "do_queue": "Yes", "do_reslog": "No"}
    job_type = job_types.by_name("validate")
    job_star.write(tmp_path / "job.star", JobStar(job_type, {**job_type.defaults(), **values}), 5)
    text = (tmp_path / "job.star").read_text()
    assert "relion.external" in text and '"aurefine validate"' in text and "fn_half" not in text
    again = job_star.read(tmp_path / "job.star")
    assert again.job_type is job_type and {key: again.values[key] for key in values} == values
    assert job_types.by_label("relion.external", "pipeline").name == "External"


def test_run_job_of_relion_3_is_read_by_its_labels(tmp_path: Path) -> None:
    (tmp_path / "run.job").write_text(
        "job_type == 10\nis_continue == false\nInput images STAR file: == p.star\nReference map: == r.mrc\nSymmetry: == D2\n"
        "Mask diameter (A): == 180\nSomething that is no more: == 7\n"
    )
    job = job_star.read(tmp_path / "run.job")
    assert (job.job_type.name, job.is_continue) == ("Refine3D", False)
    assert [job.values[key] for key in ("fn_img", "fn_ref", "sym_name", "particle_diameter")] == ["p.star", "r.mrc", "D2", "180"]


def star_text(kind: str, rows: str = "fn_in r.mrc") -> str:
    return f"data_job\n\n{kind}\n\ndata_joboptions_values\n\nloop_\n_rlnJobOptionVariable #1\n_rlnJobOptionValue #2\n{rows}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (star_text("_rlnJobTypeLabel relion.class2d"), "no job of type relion.class2d"),
        (star_text("_rlnJobTypeLabel relion.refine3d.tomo\n_rlnJobIsTomo 1"), "tomography"),
        (star_text("_rlnJobType 8"), "no job of RELION 3's type 8"),
        (star_text("_rlnJobIsContinue 0"), "says no type"),
        ("data_other\n\n_rlnX 1\n", "not a job.star"),
        ("job_type == ten\n", "is not a number"),
        ("job_type == 10\nnonsense\n", "line 2: 'label == value' was expected"),
    ],
)
def test_a_file_that_is_no_job_of_ours_is_one_clear_message(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "job.star").write_text(text)
    with pytest.raises(InputError, match=message):
        job_star.read(tmp_path / "job.star")


REEXTRACT = {"star_mics": "m.star", "do_reextract": "Yes", "fndata_reextract": "p.star"}


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("MaskCreate", {}, r"fn_in \(Input 3D map\) is empty"),
        ("MaskCreate", {"fn_in": "r.mrc", "lowpass_filter": "much"}, "lowpass_filter .*a number was expected"),
        ("MaskCreate", {"fn_in": "r.mrc", "lowpass_filter": "nan"}, "lowpass_filter .*a number was expected"),
        ("Extract", {"star_mics": "m.star", "coords_suffix": "c.star", "extract_size": "inf"}, "extract_size .*a number was expected"),
        ("MaskCreate", {"fn_in": "r.mrc", "do_helix": "maybe"}, "Yes or No was expected"),
        ("Refine3D", {"fn_img": "p.star", "fn_ref": "r.mrc", "sampling": "8 degrees"}, "one of 30 degrees"),
        ("Refine3D", {"fn_img": "p.star", "fn_ref": "r.mrc", "other_args": "--x 'open"}, "a quote is not closed"),
        ("Refine3D", {"fn_img": "p.star", "fn_ref": "r.mrc", "other_args": "--o /elsewhere/run"}, "writes into its own directory"),
        ("Refine3D", {"fn_img": "p.star", "fn_ref": "r.mrc", "fn_cont": "run_it003_optimiser.star"}, "fn_cont .*a new job starts from the beginning"),
        ("Refine3D", {"fn_img": "--pipeline_control", "fn_ref": "r.mrc"}, "taken for a flag"),
        ("MaskCreate", {"fn_in": "m.mrc", "other_args": "--o=../../x.mrc"}, "writes into its own directory"),
        ("PostProcess", {"fn_in": "half1.mrc", "fn_mask": "m.mrc", "other_args": "--pipeline_control /elsewhere"}, "writes into its own directory"),
        ("Select", {"fn_data": "p.star", "other_args": "--classes 1 --fn_imgs ../../x.star"}, "writes into its own directory"),
        ("Select", {"fn_data": "p.star", "other_args": "--classes 1 --fn_imgs=full/x.star"}, "name of the file alone"),
        ("External", {"fn_exe": "aurefine select", "other_args": "--i p.star --fn_imgs /elsewhere/x.star --overwrite"}, "name of the file alone"),
        *(("Extract", REEXTRACT | {"do_rescale": "Yes", key: size}, rf"{key} .* is {message}") for key, size, message in (
            ("extract_size", "0", "0, but a whole number"), ("extract_size", "1e308", "1e308, but a whole"), ("extract_size", "65", "65, but an"),
            ("extract_size", "64.5", "64.5, but a whole"), ("rescale", "-2", "-2, but a whole"), ("bg_diameter", "1e308", "1e308, which is larger"))),
        ("Extract", {"star_mics": "m.star"}, "coords_suffix .* is empty"),
        ("Extract", {"star_mics": "m.star", "do_reextract": "Yes"}, "fndata_reextract .* is empty"),
        ("Extract", REEXTRACT | {"do_reset_offsets": "Yes", "do_recenter": "Yes"}, "both Yes"),
        ("Select", {"fn_data": "p.star"}, "say how to select"),
        ("Select", {"fn_data": "p.star", "do_split": "Yes", "do_discard": "Yes"}, "choose one"),
        ("Select", {"do_split": "Yes"}, "fn_data .* empty"),
        ("Select", {"do_split": "Yes", "fn_data": "p.star", "fn_model": "o.star"}, "fn_model and fn_data are given"),
        ("Select", {"do_regroup": "Yes", "fn_data": "p.star", "nr_groups": "0"}, "nr_groups .*a number from 1"),
        ("Select", {"fn_data": "p.star", "do_split": "Yes", "split_size": "-1"}, "not positive"),
        ("External", {"fn_exe": "/bin/ls"}, "only runs its own jobs"),
        ("External", {"fn_exe": "aurefine 'select"}, "fn_exe .*a quote is not closed"),
        ("External", {"fn_exe": "aurefine image_handler", "other_args": "--i 'm.mrc"}, "other_args .*a quote is not closed"),
        ("External", {"fn_exe": "aurefine star", "other_args": "--i p.star", "in_mask": "m.mrc"}, "in_mask .*has no flag --in_mask"),
        ("External", {"fn_exe": "aurefine star", "other_args": "--i p.star", "nr_threads": "4"}, "nr_threads .*has no threads"),
        ("External", {"fn_exe": "aurefine star", "other_args": "--i p.star", "param1_value": "4"}, "param1_label.* is empty"),
        ("External", {"fn_exe": "aurefine refine", "param2_label": "submit"}, "param2_label: --submit may not be given"),
        ("External", {"fn_exe": "aurefine select", "param1_label": "fn_imgs", "param1_value": "../x.star"}, "param1_label: .*name of the file alone"),
        ("Validation", {"fn_mask": "m.mrc"}, "fn_half .* is empty"),
    ],
)
def test_wrong_forms_are_one_clear_message(name: str, values: dict[str, str], message: str) -> None:
    job_type = job_types.by_name(name)
    with pytest.raises(InputError, match=message):
        job_type.arguments({**job_type.defaults(), **values}, "D/", "job.star")


@pytest.mark.parametrize("option", submit.FLAGS, ids=lambda option: option.name)
def test_no_form_hands_a_job_to_a_program_of_its_own_choice(option: Option) -> None:
    """--submit runs what --qsub names: a job.star from elsewhere would run any program."""
    inputs = {"fn_img": "p.star", "fn_ref": "r.mrc", "fn_exe": "aurefine refine", "fn_cont": ""}
    for name, make in (("Refine3D", "to_arguments"), ("Refine3D", "continued"), ("External", "to_arguments")):
        job_type = job_types.by_name(name)
        form = {**job_type.defaults(), **inputs, "other_args": f"--i p.star --j 2 {option.flag}='touch pwned'"}
        with pytest.raises(InputError, match=f"{option.flag} may not be given here"):
            getattr(job_type, make)(form, "D/")


def test_further_outputs_go_into_the_jobs_directory() -> None:
    select, external = job_types.by_name("Select"), job_types.by_name("External")
    for job_type, form in ((select, {"fn_data": "p.star"}), (external, {"fn_exe": "aurefine select"})):
        words = job_type.arguments({**form, "other_args": "--i p.star --classes 1 --fn_imgs classes.star"}, "D/", "job.star")
        assert words[words.index("--fn_imgs") + 1] == "D/classes.star"


@pytest.mark.parametrize("output", ["/elsewhere/x.mrc", "../../x.mrc", "a/..", "..", "/"])
def test_external_jobs_write_into_their_directory(output: str) -> None:
    job_type = job_types.by_name("External")
    form = {"fn_exe": "aurefine image_handler", "other_args": f"--i m.mrc --o {output} --pipeline_control /elsewhere"}
    words = job_type.arguments(form, "External/job001/", "job.star")
    place = Path(words[words.index("--o") + 1])
    assert place.is_relative_to("External/job001") and ".." not in place.parts and "--pipeline_control" not in words


def test_the_environment_gives_the_defaults_that_it_gives_relions_gui(monkeypatch: pytest.MonkeyPatch) -> None:
    refine = job_types.by_name("Refine3D")
    given = {"scratch_dir": "/ssd", "qsubscript": "/site/qsub.csh", "qsub": "sbatch"}
    for key, variable in (("scratch_dir", "SCRATCH_DIR"), ("qsubscript", "QSUB_TEMPLATE"), ("qsub", "QSUB_COMMAND")):
        assert refine.defaults()[key] in ("", "qsub")
        monkeypatch.setenv(f"RELION_{variable}", given[key])
    assert {key: refine.defaults()[key] for key in given} == given
    assert refine.form_from(["--i", "p.star", "--ref", "r.mrc"], "D/")["scratch_dir"] == ""  # a command line says what it wants


def test_selections_take_a_classification_and_merge_its_groups() -> None:
    select = job_types.by_name("Select")
    form = {"fn_model": "Class3D/job002/run_it025_optimiser.star", "do_regroup": "Yes", "nr_groups": "40", "other_args": "--classes 1,3"}
    words = select.arguments(form, "D/", "job.star")
    assert words == shlex.split("--i Class3D/job002/run_it025_optimiser.star --o D/particles.star --regroup 40 --classes 1,3")
    back = select.form_from(words, "D/")
    assert {key: back[key] for key in (*form, "fn_data")} == {**form, "fn_data": ""}


def test_the_params_and_threads_of_external_jobs_are_flags() -> None:
    params = {"param1_label": "lowpass", "param1_value": "20", "param2_label": "i", "param2_value": "a b.mrc", "param10_label": "overwrite"}
    form = {"fn_exe": "aurefine image_handler", "other_args": "--angpix 2", "in_3dref": "a b.mrc", "nr_threads": "3", **params}
    words = job_types.by_name("External").arguments(form, "D/", "job.star")
    assert words == ["image_handler", "--lowpass", "20", "--i", "a b.mrc", "--overwrite", "--angpix", "2", "--j", "3", "--o", "D/a b.mrc"]
    assert "--j" not in job_types.by_name("External").arguments({"fn_exe": "aurefine star", "other_args": "--i p.star"}, "D/", "job.star")


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean sym_name"):
        job_types.by_name("Refine3D").override({}, ["symname=D2"], "aurefine run")


def test_an_unknown_job_type_names_the_nearest() -> None:
    with pytest.raises(InputError, match="Did you mean Refine3D"):
        job_types.by_name("Refine3")
