"""`aurefine gui`: RELION's forms, checked as they are filled in; jobs run, stopped, named and deleted; a refinement watched while it runs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gui_client import Page, add_job, serving, wait_for, write_iteration, write_particles, write_postprocess

from aurefine import mrc
from aurefine.process_record import ProcessRecord
from aurefine.project import job_star, job_types, labels
from aurefine.project.job_star import JobStar
from aurefine.project.project import Project
from aurefine.refine.run_status import RunStatus, write_status
from aurefine.web.field_help import help_of
from aurefine.web.project_data import tail


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new project with three particles and a map."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    write_particles(tmp_path / "in" / "particles.star")
    mrc.write_map(tmp_path / "in" / "map.mrc", np.zeros((16, 16, 16), np.float32), 2.0)
    Project.create(tmp_path, "5")
    return tmp_path


@pytest.fixture
def page(root: Path) -> Iterator[Page]:
    with serving(root) as served:
        yield served.enter()


@pytest.fixture
def running(root: Path) -> str:
    """A refinement that somebody else runs, at its first iteration."""
    add_job(root, "Refine3D/job001/", labels.RUNNING)
    write_iteration(root / "Refine3D" / "job001", 0, 30.0)
    (root / "Refine3D" / "job001" / "run.out").write_text(" Expectation iteration 1\n   40 % in 1.0 min, 1.5 min left\n")
    return "Refine3D/job001"


def check(page: Page, kind: str, **values: str) -> dict[str, str]:
    """Row -> level and text of what the page says of a form."""
    found = page.post("/api/form/check", {"type": kind, "values": values}).json
    return {problem["key"]: f"{problem['level']}: {problem['text']}" for problem in found["problems"]}


def test_forms_have_relions_tabs_in_its_order_and_help_at_every_field(page: Page) -> None:
    types = {each["name"]: each for each in page.get("/api/types").json["types"]}
    refine3d = ["I/O", "Reference", "CTF", "Optimisation", "Auto-sampling", "Helix", "Compute", "Running"]
    assert [tab["name"] for tab in types["Refine3D"]["tabs"]] == refine3d
    assert [tab["name"] for tab in types["Extract"]["tabs"]] == ["I/O", "extract", "Helix", "Running"]
    assert not any(row["supported"] for tab in types["Extract"]["tabs"] if tab["name"] == "Helix" for row in tab["rows"])
    for job_type in job_types.JOB_TYPES:
        for row in job_type.fields:
            assert len(help_of(job_type, row)) > 10, (job_type.name, row.key)
    maps = [next(row["help"] for row in types[name]["tabs"][0]["rows"] if row["key"] == "fn_in") for name in ("MaskCreate", "PostProcess")]
    assert "of which the mask is made" in maps[0] and "half map" in maps[1]
    recentring = [row["help"] for tab in types["Extract"]["tabs"] for row in tab["rows"] if row["key"] == "do_recenter"]
    assert recentring and "class averages" not in recentring[0]


def test_recentring_is_refused_where_relion_alone_does_it(page: Page) -> None:
    types = {each["name"]: each for each in page.get("/api/types").json["types"]}
    found = {(name, row["key"]): row["supported"] for name in types for tab in types[name]["tabs"] for row in tab["rows"]}
    assert found["Extract", "do_recenter"] and not found["Select", "do_recenter"]


def test_help_tells_what_the_row_takes_not_what_the_flag_does(page: Page) -> None:
    types = {each["name"]: each for each in page.get("/api/types").json["types"]}
    found = {(name, row["key"]): row["help"] for name in types for tab in types[name]["tabs"] for row in tab["rows"]}
    assert "twice this value" in found["Refine3D", "offset_step"] and "degrees" in found["Refine3D", "sampling"]
    assert "degrees" in found["Refine3D", "auto_local_sampling"] and "No: " in found["Refine3D", "ref_correct_greyscale"]
    assert all("1 stands for all its cores" in text for (_, key), text in found.items() if key == "nr_threads")
    assert "grey values" in found["MaskCreate", "inimask_threshold"] and "half map" in found["Validation", "fn_half"]


def test_a_complete_form_has_no_mistakes_and_shows_its_command_line(page: Page) -> None:
    values = {"fn_img": "in/particles.star", "fn_ref": "in/map.mrc", "sym_name": "D2"}
    found = page.post("/api/form/check", {"type": "Refine3D", "values": values}).json
    assert not [problem for problem in found["problems"] if problem["level"] == "error"]
    assert found["command"].startswith("aurefine refine --o Refine3D/job001/run") and "--sym D2" in found["command"]


def test_wrong_values_are_told_at_their_rows(page: Page, root: Path) -> None:
    write_particles(root / "in" / "noctf.star", ctf=False)
    mrc.write_map(root / "in" / "small.mrc", np.zeros((8, 8, 8), np.float32), 3.0)
    (root / "in" / "broken.mrc").write_bytes(b"no map")
    assert "no such file" in check(page, "Refine3D", fn_img="in/absent.star", fn_ref="in/map.mrc")["fn_img"]
    assert "CTF columns" in check(page, "Refine3D", fn_img="in/noctf.star", fn_ref="in/map.mrc")["fn_img"]
    assert check(page, "Refine3D", fn_img="in/particles.star", fn_ref="in/small.mrc")["fn_ref"].startswith("warning: The reference has 8 px at 3 Å")
    assert "it will be resampled" in check(page, "Refine3D", fn_img="in/particles.star", fn_ref="in/small.mrc", trust_ref_size="No")["fn_ref"]
    assert check(page, "Refine3D", fn_img="in/particles.star", fn_ref="in/broken.mrc")["fn_ref"].startswith("error")
    assert check(page, "Refine3D", ini_high="fine")["ini_high"] == "error: It is 'fine', but a number was expected."
    assert "value is needed" in check(page, "Refine3D", fn_img="")["fn_img"]
    assert check(page, "Refine3D", sym_name="Q9")["sym_name"].startswith("error") and "sym_name" not in check(page, "Refine3D", sym_name="d2")
    assert check(page, "Refine3D", relax_sym="Q7")["relax_sym"].startswith("error") and "relax_sym" not in check(page, "Refine3D", relax_sym="")
    queued = check(page, "MaskCreate", fn_in="in/map.mrc", do_queue="Yes", qsub=" ")
    assert "give the template" in queued["qsubscript"] and "give the program" in queued["qsub"]
    assert "larger than the box (32 Å)" in check(page, "Refine3D", fn_img="in/particles.star", particle_diameter="50")["particle_diameter"]
    assert "a map (.mrc) was expected" in check(page, "MaskCreate", fn_in="in/particles.star")["fn_in"]
    assert "no STAR file" in check(page, "Refine3D", fn_img="in/map.mrc")["fn_img"]
    assert "no column _rlnNope" in check(page, "Select", fn_data="in/particles.star", do_select_values="Yes", select_label="rlnNope")["select_label"]
    assert "no half map" in check(page, "PostProcess", fn_in="in/map.mrc")["fn_in"]
    os.mkfifo(root / "in" / "pipe.star")
    assert "cannot be read (a pipe or a device" in check(page, "Refine3D", fn_img="in/pipe.star")["fn_img"]
    mrc.write_map(root / "in" / "run_half1.mrc", np.zeros((16, 16, 16), np.float32), 2.0)
    assert "run_half2.mrc, is not beside it" in check(page, "PostProcess", fn_in="in/run_half1.mrc")["fn_in"]
    mrc.write_map(root / "in" / "run_half2.mrc", np.zeros((16, 16, 16), np.float32), 2.0)
    assert "fn_in" not in check(page, "PostProcess", fn_in="in/run_half1.mrc")
    (root / "in" / "coords_suffix_autopick.star").write_text("micrographs_ctf.star\n")  # RELION 3's, which is no STAR file
    assert check(page, "Extract", star_mics="in/particles.star", coords_suffix="in/coords_suffix_autopick.star") == {}
    assert check(page, "Refine3D", fn_img="../../etc/passwd", fn_ref="in/map.mrc")["fn_img"].startswith("warning: This file is outside")


@pytest.mark.parametrize("size", ["inf", "1e400", "nan", "-3"])
def test_sizes_that_are_none_are_no_error_of_the_page(page: Page, root: Path, size: str) -> None:
    (root / "in" / "odd.star").write_text((root / "in" / "particles.star").read_text().replace("2.0 16 ", f"{size} {size} "))
    assert "fn_img" not in check(page, "Refine3D", fn_img="in/odd.star", fn_ref="in/map.mrc")  # nothing is said of its box


def test_an_image_beyond_its_stack_is_one_message(page: Page, root: Path) -> None:
    mrc.write_stack(root / "in" / "m.mrcs", np.zeros((3, 16, 16), np.float32), 1.0)
    for number in (0, 4, 10**20):
        answer = page.get(f"/api/thumbnail?image={number}@in/m.mrcs")
        assert answer.status == 400 and "it has images 1 to 3" in answer.json["error"]


def test_browsing_shows_the_projects_nodes_of_the_right_kind_first(page: Page, root: Path) -> None:
    add_job(root, "Extract/job001/", labels.SUCCEEDED, outputs=("Extract/job001/particles.star",))
    found = page.get("/api/browse?type=Refine3D&key=fn_img&under=in").json
    assert found["nodes"] == ["Extract/job001/particles.star"]
    assert {"name": "particles.star", "folder": False, "bytes": (root / "in/particles.star").stat().st_size} in found["entries"]
    assert page.get("/api/browse?type=Refine3D&key=fn_ref").json["nodes"] == []


def test_a_folder_is_listed_whole_by_name_also_with_a_name_that_is_no_utf8(page: Page, root: Path) -> None:
    for number in range(2100):
        (root / "in" / f"{number:04d}.mrc").touch()
    os.close(os.open(os.fsencode(root / "in") + b"/caf\xe9.star", os.O_CREAT))
    (root / "in" / "sub").mkdir()
    (root / "in" / "elsewhere").symlink_to("/etc")
    (root / "in" / ".hidden").touch()
    names = [each["name"] for each in page.get("/api/browse?type=Refine3D&key=fn_img&under=in").json["entries"]]
    assert names[:2] == ["sub", "0000.mrc"] and names[-4:] == ["caf\udce9.star", "map.mrc", "particles.star", "stack.mrcs"] and len(names) == 2105
    refused = page.post("/api/form/check", {"type": "Refine3D", "values": {"fn_img": "in/caf\udce9.star"}})
    assert refused.status == 400 and "not UTF-8" in refused.json["error"]


def test_a_progress_bar_comes_again_from_the_beginning_of_its_line(root: Path) -> None:
    log = root / "run.out"
    log.write_bytes(b" Expectation\n[oo..] 10/100 sec")
    first = tail(log, 0)
    log.write_bytes(log.read_bytes() + b"\r[ooo.] 20/100 sec\r")
    second = tail(log, first["line"])
    assert first["text"] == " Expectation\n[oo..] 10/100 sec" and (second["start"], second["text"]) == (13, "[ooo.] 20/100 sec")
    log.write_bytes(log.read_bytes() + b"\n Maximisation\n")
    assert tail(log, second["line"])["text"] == "[ooo.] 20/100 sec\n Maximisation\n" and tail(log, log.stat().st_size)["text"] == ""


def test_a_job_that_has_failed_says_why_or_that_it_was_killed(page: Page, root: Path) -> None:
    add_job(root, "Refine3D/job001/", labels.FAILED)
    folder = root / "Refine3D" / "job001"
    (folder / "aurefine_start.txt").write_text("aurefine: in/particles.star is gone\n")

    def said() -> str:
        return page.get("/api/job/Refine3D/job001/state").json["startLog"]

    assert said() == "aurefine: in/particles.star is gone\n"  # it never started
    (folder / "run.out").touch()
    assert said() == ""  # RELION's
    ProcessRecord.own().save(folder)
    (folder / "run.err").write_text("WARNING: the micrographs have another pixel size\n")
    assert "killed" in said() and "WARNING" not in said()
    (folder / "run.err").write_text("WARNING: the micrographs have another pixel size\naurefine: no symmetry Q7\n")
    assert said() == "aurefine: no symmetry Q7"


def test_the_options_of_a_job_are_those_of_its_version_and_its_files_have_kinds_in_words(page: Page, root: Path) -> None:
    add_job(root, "Refine3D/job001/", labels.SUCCEEDED, outputs=("Refine3D/job001/run_data.star",), kind="3")
    values = job_types.by_name("Refine3D").defaults(5)
    job_star.write(root / "Refine3D/job001/job.star", JobStar(job_types.by_name("Refine3D"), values), 5)
    job = page.get("/api/job/Refine3D/job001").json
    assert not {"ctf_corrected_ref", "skip_gridding"} & {row["key"] for row in job["form"]["rows"]}
    assert job["outputs"][0]["kind"] == "ParticleGroupMetadata.star"


def test_a_job_runs_from_the_page_and_its_log_is_shown(page: Page, root: Path) -> None:
    values = {"fn_data": "in/particles.star", "do_select_values": "Yes", "select_label": "rlnDefocusU", "select_maxval": "20000"}
    started = page.post("/api/form/run", {"type": "Select", "values": values, "alias": "good"})
    assert started.status == 200, started.body
    job = wait_for(page, started.json["job"], "Succeeded", "Failed")
    assert (job["status"], job["alias"]) == ("Succeeded", "good")
    assert (root / job["name"] / "particles.star").is_file()
    log = page.get(f"/api/job/{job['name']}/log?file=run.out").json
    assert log["text"] and page.get(f"/api/job/{job['name']}/log?file=run.out&from={log['position']}").json["text"] == ""
    overview = page.get("/api/project").json
    assert [each["name"] for each in overview["jobs"]] == [job["name"]]


def test_a_scheduled_job_waits_until_it_is_started(page: Page, root: Path) -> None:
    values = {"fn_in": "in/map.mrc", "inimask_threshold": "0.5"}
    job = page.post("/api/form/run", {"type": "MaskCreate", "values": values, "schedule": True}).json["job"]
    assert page.get(f"/api/job/{job}").json["status"] == "Scheduled" and not (root / job / "run.out").exists()
    assert page.post(f"/api/job/{job}/start", {}).status == 200
    wait_for(page, job, "Succeeded", "Failed")


def test_the_form_of_a_job_that_goes_on_shows_the_command_line_that_will_run(page: Page, root: Path) -> None:
    values = {"fn_img": "in/particles.star", "fn_ref": "in/map.mrc"}
    job = page.post("/api/form/run", {"type": "Refine3D", "values": values, "schedule": True}).json["job"]
    asked = {"type": "Refine3D", "values": values, "continue": job, "changed": {"nr_threads": "3"}}
    assert "no iteration was finished" in page.post("/api/form/check", asked).json["problems"][-1]["text"]
    write_iteration(root / job, 3, 20.0)
    found = page.post("/api/form/check", asked).json
    assert [problem for problem in found["problems"] if problem["level"] == "error"] == []
    assert found["command"].startswith(f"aurefine refine --continue {job}/run_it003_optimiser.star") and "--j 3" in found["command"]
    assert page.post("/api/form/check", {**asked, "continue": "Refine3D/job099"}).status == 404
    asked["changed"] = {"fn_cont": f"{job}/run_it010_optimiser.star"}
    found = [problem for problem in page.post("/api/form/check", asked).json["problems"] if problem["level"] == "error"]
    assert [problem["key"] for problem in found] == ["fn_cont"]
    assert f"the last iteration is fn_cont={job}/run_it003_optimiser.star" in found[0]["text"]


def test_a_finished_job_is_left_alone_where_it_does_not_start_or_go_on(page: Page, root: Path) -> None:
    values = {"fn_img": "in/particles.star", "fn_ref": "in/map.mrc"}
    job = page.post("/api/form/run", {"type": "Refine3D", "values": values, "schedule": True}).json["job"]
    write_iteration(root / job, 3, 20.0)
    with Project.open(root).edit("a test") as pipeline:
        pipeline.set_status(f"{job}/", labels.SUCCEEDED)
    before = {path.name: path.read_bytes() for path in (root / job).iterdir() if path.is_file()}
    answer = page.post(f"/api/job/{job}/continue", {"values": {"fn_cont": f"{job}/run_it010_optimiser.star"}})
    assert answer.status == 400 and "there is no such file" in answer.json["error"]
    answer = page.post(f"/api/job/{job}/start", {})
    assert answer.status == 400 and "is not scheduled but Succeeded" in answer.json["error"]
    assert {path.name: path.read_bytes() for path in (root / job).iterdir() if path.is_file()} == before


def test_a_scheduled_job_whose_input_is_still_missing_keeps_waiting(page: Page, root: Path) -> None:
    values = {"fn_in": "in/map.mrc", "inimask_threshold": "0"}
    job = page.post("/api/form/run", {"type": "MaskCreate", "values": values, "schedule": True}).json["job"]
    (root / "in" / "map.mrc").rename(root / "in" / "later.mrc")
    answer = page.post(f"/api/job/{job}/start", {})
    assert answer.status == 400 and "in/map.mrc: there is no such file" in answer.json["error"]
    assert page.get(f"/api/job/{job}").json["status"] == "Scheduled"


def test_a_job_that_does_not_run_for_want_of_its_input_is_not_added(page: Page, root: Path) -> None:
    add_job(root, "Refine3D/job001/", outputs=("Refine3D/job001/run_class001.mrc",), kind="DensityMap.mrc")
    asked = {"type": "MaskCreate", "values": {"fn_in": "Refine3D/job001/run_class001.mrc"}}  # still to be made: no more than a warning
    answer = page.post("/api/form/run", asked)
    assert answer.status == 400 and "there is no such file" in answer.json["error"]
    assert [job["name"] for job in page.get("/api/project").json["jobs"]] == ["Refine3D/job001"]
    assert page.post("/api/form/run", {**asked, "schedule": True}).json["job"] == "MaskCreate/job002"


def test_a_job_that_cannot_go_on_says_so(page: Page, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"fn_img": "in/particles.star", "fn_ref": "in/map.mrc"}
    job = page.post("/api/form/run", {"type": "Refine3D", "values": values, "schedule": True}).json["job"]
    write_iteration(root / job, 3, 20.0)
    with Project.open(root).edit("a test") as pipeline:
        pipeline.set_status(f"{job}/", labels.ABORTED)
    assert page.get(f"/api/job/{job}").json["lastOptimiser"] == f"{job}/run_it003_optimiser.star"
    program = root / "program.sh"
    program.write_text("#!/bin/sh\necho There is no room. >&2\nexit 2\n")
    program.chmod(0o755)
    monkeypatch.setattr("aurefine.web.starting.sys", SimpleNamespace(executable=str(program)))
    answer = page.post(f"/api/job/{job}/continue", {"values": {}})
    assert answer.status == 400 and answer.json["error"] == f"{job}/ does not go on: There is no room.", answer.body


def test_rows_without_a_say_in_a_job_that_goes_on_are_known(page: Page) -> None:
    types = {each["name"]: each for each in page.get("/api/types").json["types"]}
    open_rows = {name: {row["key"] for tab in each["tabs"] for row in tab["rows"] if row["mayChange"]} for name, each in types.items()}
    assert open_rows["Refine3D"] >= {"fn_cont", "fn_mask", "do_solvent_fsc", "nr_threads", "scratch_dir", "gpu_ids", "other_args", "qsub"}
    assert not open_rows["Refine3D"] & {"fn_img", "fn_ref", "sym_name", "ini_high", "sampling", "do_ctf_correction"}
    assert open_rows["Extract"] == {"nr_mpi", "do_queue", "queuename", "qsub", "qsubscript", "min_dedicated", "other_args"}
    assert open_rows["MaskCreate"] == set()


def test_an_extraction_goes_on_as_it_began(page: Page, root: Path) -> None:
    values = {"star_mics": "in/particles.star", "coords_suffix": "in/particles.star"}
    job = page.post("/api/form/run", {"type": "Extract", "values": values, "schedule": True}).json["job"]
    with Project.open(root).edit("a test") as pipeline:
        pipeline.set_status(f"{job}/", labels.ABORTED)
    answer = page.post(f"/api/job/{job}/continue", {"values": {"do_invert": "No"}})
    assert answer.status == 400 and "do_invert (Invert contrast?) is 'No', but the job began with 'Yes'" in answer.json["error"]
    answer = page.post(f"/api/job/{job}/continue", {"values": {"other_args": "--j 2 --phase_flip"}})
    assert answer.status == 400 and "other_args (Additional arguments) changes --phase_flip" in answer.json["error"]
    asked = {"type": "Extract", "values": {**values, "extract_size": "64"}, "continue": job, "changed": {"extract_size": "64"}}
    found = [problem for problem in page.post("/api/form/check", asked).json["problems"] if problem["level"] == "error"]
    assert [problem["key"] for problem in found] == ["extract_size"]
    found = page.post("/api/form/check", {**asked, "values": values, "changed": {"other_args": "--j 2"}}).json
    assert found["command"].endswith(f"--j 2 --only_do_unfinished --pipeline_control {job}/")


def test_a_job_of_the_queue_goes_on_in_the_queue(page: Page, root: Path) -> None:
    (root / "script.sh").write_text("#!/bin/sh\nXXXcommandXXX\n")
    (root / "queue.sh").write_text("#!/bin/sh\necho Submitted $1\n")
    (root / "queue.sh").chmod(0o755)
    values = {"fn_img": "in/particles.star", "fn_ref": "in/map.mrc", "do_queue": "Yes", "qsub": str(root / "queue.sh"), "qsubscript": "script.sh"}
    job = page.post("/api/form/run", {"type": "Refine3D", "values": values, "schedule": True}).json["job"]
    write_iteration(root / job, 3, 20.0)
    with Project.open(root).edit("a test") as pipeline:
        pipeline.set_status(f"{job}/", labels.ABORTED)
    answer = page.post(f"/api/job/{job}/continue", {"values": {"nr_threads": "3", "fn_mask": "", "fn_cont": ""}})
    assert answer.json["message"].startswith("Submitted"), answer.body
    script = next((root / job).glob("*.script")).read_text() if list((root / job).glob("*.script")) else ""
    assert f"aurefine run --continue {job}/ nr_threads=3 fn_mask=\n" in script  # a row that was emptied stays so


def test_a_job_is_handed_to_the_queue_with_its_script_filled_in(page: Page, root: Path) -> None:
    (root / "submit.sh").write_text("#!/bin/sh\n#Q XXXqueueXXX XXXthreadsXXX\nXXXcommandXXX\n")
    (root / "queue").write_text("#!/bin/sh\necho submitted $1\n")
    (root / "queue").chmod(0o755)
    values = {"fn_in": "in/map.mrc", "do_queue": "Yes", "qsub": "./queue", "qsubscript": "submit.sh", "queuename": "long", "nr_threads": "4"}
    started = page.post("/api/form/run", {"type": "MaskCreate", "values": values}).json
    assert started["message"] == f"submitted {started['job']}/run_submit.script"
    script = (root / started["job"] / "run_submit.script").read_text()
    assert "#Q long 4\n" in script and f"aurefine run {started['job']}/" in script
    refused = page.post("/api/form/run", {"type": "MaskCreate", "values": {**values, "queuename": "long; touch pwned"}})
    assert refused.status == 400 and not (root / "pwned").exists()


def test_a_job_can_be_named_annotated_stopped_and_deleted_with_its_dependents(page: Page, root: Path) -> None:
    add_job(root, "Extract/job001/", labels.SUCCEEDED, outputs=("Extract/job001/particles.star",))
    add_job(root, "Refine3D/job002/", labels.RUNNING, inputs=("Extract/job001/particles.star",))
    assert page.post("/api/job/Extract/job001/alias", {"alias": "first"}).status == 200
    assert (root / "Extract" / "first").resolve() == root / "Extract" / "job001"
    assert page.post("/api/job/Extract/job001/alias", {"alias": "../x"}).status == 400
    page.post("/api/job/Extract/job001/note", {"text": "<b>looks good</b>"})
    assert "<b>looks good</b>" in page.get("/api/job/Extract/first").json["note"]
    assert page.post("/api/job/Refine3D/job002/abort", {}).status == 200 and (root / "Refine3D/job002/RELION_JOB_ABORT_NOW").exists()
    assert "would be deleted too" in page.post("/api/job/Extract/job001/delete", {"with": []}).json["error"]
    assert "is running" in page.post("/api/job/Extract/job001/delete", {"with": ["Refine3D/job002"]}).json["error"]
    (root / "Refine3D/job002/RELION_JOB_EXIT_ABORTED").touch()
    assert page.get("/api/job/Extract/job001").json["dependents"] == ["Refine3D/job002"]
    assert page.get("/api/project").json["edges"] == [["Extract/job001/", "Refine3D/job002/"]]
    assert page.post("/api/job/Extract/job001/delete", {"with": ["Refine3D/job002"]}).status == 200
    assert (root / "Trash/Extract/job001").is_dir() and (root / "Trash/Refine3D/job002").is_dir() and not (root / "Extract/first").is_symlink()
    pipeline = Project.open(root).read()
    assert pipeline.processes == [] and pipeline.nodes() == {}


def test_a_running_refinement_is_shown_as_its_status_says(page: Page, root: Path, running: str) -> None:
    now, here = time.time(), ProcessRecord.own()
    status = RunStatus("running", "maximisation", 3, "run", 0, 0, 0.0, 90.0, 1, 1, now, now, 5.0, "", "", here)
    write_status(root / running / "status.json", status)
    found = page.get(f"/api/job/{running}/refinement").json
    assert (found["phase"], found["left"]) == ("iteration 3: reconstructing", "1.5 min for this step")
    for text in ("{:>90}", "{0.__class__.__mro__}", "{", "of another version"):  # the file may be anybody's
        write_status(root / running / "status.json", replace(status, phase=text))
        assert page.get(f"/api/job/{running}/refinement").json["phase"] == text
    (root / running / "status.json").write_text((root / running / "status.json").read_text().replace('"seconds_left": 90.0', '"seconds_left": "x"'))
    assert page.get(f"/api/job/{running}/refinement").json["phase"] == "iteration 1: aligning the particles"  # as its log says
    write_status(root / running / "status.json", replace(status, heartbeat=now - 600))
    assert page.get(f"/api/job/{running}/refinement").json["phase"].startswith("no sign of life for 60")


def test_a_running_refinement_is_followed_without_reading_anything_twice(page: Page, root: Path, running: str) -> None:
    address = f"/api/job/{running}/refinement"
    first = page.get(address).json
    assert (first["phase"], first["left"]) == ("iteration 1: aligning the particles", "1.5 min for this step")
    assert [row["iteration"] for row in first["rows"]] == [0] and first["rows"][0]["step"] == 7.5
    assert page.get(f"{address}?have={first['version']}").json == {
        "version": first["version"],
        "unchanged": True,
        **{key: first[key] for key in ("phase", "left", "warnings")},
    }
    (root / running / "run.out").write_text(" Expectation iteration 1\n   80 % in 2.0 min, 0.5 min left\n")
    (root / running / "run_warnings.txt").write_text("the alignment has failed\n")
    assert first["warnings"] == [] and page.get(f"{address}?have={first['version']}").json["warnings"] == ["the alignment has failed"]
    assert page.get(f"{address}?have={first['version']}").json["left"] == "0.5 min for this step"
    write_iteration(root / running, 1, 15.0)
    (root / running / "run_it002_half1_model.star").write_text("data_model_general\n_rlnOrig")  # just being written
    second = page.get(f"{address}?have={first['version']}").json
    assert [row["resolution"] for row in second["rows"]] == [30.0, 15.0]
    assert [plot["name"] for plot in second["plots"]] == ["fsc", "resolution", "angles", "offsets", "changes", "pmax", "spectra"]
    assert second["rows"][1]["fsc143"] < second["rows"][1]["fsc05"] < 32


def test_every_plot_comes_as_png_pdf_and_csv(page: Page, running: str) -> None:
    for plot in page.get(f"/api/job/{running}/refinement").json["plots"]:
        csv = page.get(f"/api/job/{running}/plot/{plot['name']}.csv")
        assert csv.status == 200 and len(csv.body.splitlines()) > sum(len(series["x"]) for series in plot["series"])
    assert page.get(f"/api/job/{running}/plot/fsc.png").body.startswith(b"\x89PNG")
    assert page.get(f"/api/job/{running}/plot/spectra.pdf").body.startswith(b"%PDF")
    assert page.get(f"/api/job/{running}/plot/directions.png").body.startswith(b"\x89PNG")
    assert page.get(f"/api/job/{running}/plot/directions.csv").body.startswith(b"rot_degree")
    assert page.get(f"/api/job/{running}/plot/fsc.exe").status == 404


def test_sections_maps_and_particles_are_shown(page: Page, root: Path, running: str) -> None:
    for kind in ("half1", "half2", "difference"):
        assert page.get(f"/api/job/{running}/section?iteration=0&kind={kind}&axis=y&position=0.3").body.startswith(b"\x89PNG")
    volume = page.get(f"/api/job/{running}/volume?iteration=0&kind=half1")
    expected, _ = mrc.read_map(root / running / "run_it000_half1_class001.mrc")
    (root / "shown.mrc").write_bytes(volume.body)
    shown, pixel_size = mrc.read_map(root / "shown.mrc")
    np.testing.assert_array_equal(shown, expected)
    assert pixel_size == 2.0 and np.frombuffer(volume.body[76:88], "<f4") == pytest.approx([shown.min(), shown.max(), shown.mean()], abs=1e-6)
    table = page.get(f"/api/job/{running}/particles?sort=rlnLogLikeliContribution&down=0").json
    assert [row["row"] for row in table["rows"]] == [3, 1, 2]
    assert page.get(f"/api/thumbnail?image={table['rows'][0]['image']}").body.startswith(b"\x89PNG")


def test_relions_own_run_is_shown_as_relion_reports_it(root: Path, shared_data: Path) -> None:
    add_job(root, "Refine3D/job001/", labels.SUCCEEDED)
    for path in (shared_data / "relion5_betagal_run").iterdir():
        (root / "Refine3D/job001" / path.name).write_bytes(path.read_bytes())
    with serving(root) as served:
        found = served.enter().get("/api/job/Refine3D/job001/refinement").json
    assert found["phase"] == "converged, final maps written" and found["symmetry"] == "D2"
    assert [round(row["resolution"], 2) for row in found["rows"][1:6]] == [45.31, 20.6, 17.43, 12.59, 9.85]
    assert found["rows"][-1]["iteration"] == -1 and found["rows"][-1]["resolution"] == pytest.approx(7.308, abs=1e-3)


def test_the_report_comes_from_the_page(page: Page, root: Path, running: str) -> None:
    methods = page.get(f"/api/job/{running}/methods").json
    assert "has not converged" in methods["paragraph"] and methods["references"]
    for name, start in (("report.html", b"<!doctype html>"), ("report.png", b"\x89PNG"), ("view.cxc", b"# Refine3D/job001")):
        answer = page.get(f"/api/job/{running}/report/{name}")
        assert answer.status == 200 and answer.body.startswith(start) and answer.headers["content-disposition"].startswith("attachment")
    assert "content-disposition" not in page.get(f"/api/job/{running}/report/report.png?show=1").headers
    assert "content-disposition" in page.get(f"/api/job/{running}/report/report.html?show=1").headers  # no HTML is shown by the page's own address
    assert page.get(f"/api/job/{running}/report/other.txt").status == 404
    first = page.get(f"/api/job/{running}/methods").json["paragraph"]
    write_iteration(root / running, 1, 15.0)
    assert page.get(f"/api/job/{running}/methods").json["paragraph"] != first
    (root / running / "run_it001_half1_class001.mrc").unlink()
    mrc.write_map(root.parent / "secret.mrc", np.zeros((16, 16, 16), np.float32), 2.0)
    (root / running / "run_it001_half1_class001.mrc").symlink_to(root.parent / "secret.mrc")
    assert page.get(f"/api/job/{running}/report/report.png").status == 403


def test_a_post_processing_is_drawn_from_its_numbers_also_relions(page: Page, root: Path) -> None:
    add_job(root, "PostProcess/job001/", labels.SUCCEEDED)
    write_postprocess(root / "PostProcess/job001", "Refine3D/job009")
    (root / "PostProcess/job001/postprocess_fsc.png").touch()
    job = page.get("/api/job/PostProcess/job001").json
    assert job["hasCurves"] and job["pictures"] == [] and not job["isRefinement"]
    found = page.get("/api/job/PostProcess/job001/curves").json
    assert [["Resolution", "5.33 Å"], ["B-factor", "-61.5 Å²"]] == found["facts"][:2]
    fsc, guinier = found["plots"]
    assert fsc["series"][0]["x"][:2] == [0, 1 / 32] and fsc["series"][0]["y"][3] == pytest.approx(0.64)
    assert [series["label"] for series in guinier["series"]] == ["original", "sharpened", "fit"] and guinier["series"][1]["y"][8] is None
    assert page.get("/api/job/PostProcess/job001/plot/guinier.csv").body.startswith(b"series,x,value\noriginal,0,-3\n")
    assert page.get("/api/job/PostProcess/job001/plot/fsc.pdf").body.startswith(b"%PDF")
    (root / "PostProcess/job001/postprocess.star").write_text("data_general\n_rlnFinalResolution 5\n")
    assert "data_fsc is missing" in page.get("/api/job/PostProcess/job001/curves").json["error"]


def test_the_noise_shown_is_that_of_optics_groups_where_the_file_has_it(page: Page, root: Path, running: str) -> None:
    model = root / running / "run_it000_half1_model.star"
    noise = model.read_text().partition("data_model_optics_group_1")[2]
    model.write_text(model.read_text() + "".join(f"\ndata_model_group_{number}{noise}" for number in range(1, 12)))
    spectra = page.get(f"/api/job/{running}/refinement").json["plots"][-1]
    assert [series["label"] for series in spectra["series"]] == ["signal (tau2)", "noise (sigma2)", "signal-to-noise"]
    model.write_text(model.read_text().replace("data_model_optics_group_1", "data_model_group_0"))
    spectra = page.get(f"/api/job/{running}/refinement").json["plots"][-1]
    assert [series["label"] for series in spectra["series"]][1:-1] == [f"noise (sigma2) {number}" for number in range(1, 9)]


def test_a_jobs_state_is_what_may_change_of_it(page: Page, root: Path, running: str) -> None:
    state = page.get(f"/api/job/{running}/state").json
    job = page.get(f"/api/job/{running}").json
    shared = ("status", "alias", "place", "can", "startLog", "isRefinement", "hasValidation")
    assert {key: state[key] for key in shared} == {key: job[key] for key in shared} and state["shown"] == len(job["maps"])
    (root / running / "RELION_JOB_EXIT_SUCCESS").touch()
    state = page.get(f"/api/job/{running}/state").json  # nobody has looked at the project since
    assert state["status"] == "Succeeded" and not state["can"]["abort"]
