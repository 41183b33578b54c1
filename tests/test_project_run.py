"""`aurefine run` makes jobs of a RELION project: directory, logs, notes, exit files and pipeline are right however the job ends."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from extraction_project import make_project

from aurefine import job_control, star
from aurefine.cli.main import main
from aurefine.process_record import FILE as RECORD
from aurefine.process_record import ProcessRecord
from aurefine.project import job_directory, job_star, labels, runner, status, watch
from aurefine.project.pipeline import Pipeline
from aurefine.project.project import Project
from aurefine.project.runner import Planned

SELECT = ["Select", "--i", "in/particles.star", "--select", "rlnDefocusU", "--minval", "15000", "--maxval", "25000"]
PARTICLES = "data_particles\n\nloop_\n_rlnImageName #1\n_rlnDefocusU #2\n" + "".join(f"{i:06d}@a.mrcs {i * 10000}\n" for i in range(1, 5))


@pytest.fixture(params=["5", "3.1"])
def project(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A new project of RELION 5 and one of 3.1, entered."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "particles.star").write_text(PARTICLES)
    return Project.create(".", request.param)


@pytest.fixture
def new_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A new project of RELION 5, entered."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "particles.star").write_text(PARTICLES)
    return Project.create(".", "5")


def run(*words: str) -> int:
    return main(["run", *words])


def statuses(project: Project) -> dict[str, str]:
    return {process.name: process.status for process in project.read().processes}


def program(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let jobs run a shell script in aurefine's place."""
    path = (folder / "program").resolve()
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(watch.sys, "executable", str(path))


def test_a_job_becomes_the_next_of_its_project(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*SELECT) == 0
    assert statuses(project) == {"Select/job001/": labels.SUCCEEDED}
    assert star.read_table("Select/job001/particles.star", "particles").count == 1
    folder = Path("Select/job001")
    assert {path.name for path in folder.iterdir()} >= {
        "job.star", "job_pipeline.star", "default_pipeline.star", "note.txt", "run.out", "run.err", "RELION_JOB_EXIT_SUCCESS"
    }  # fmt: skip
    note = (folder / "note.txt").read_text()
    assert "++++ with the following command(s): \naurefine select --o Select/job001/particles.star --i in/particles.star" in note
    assert (folder / "run.out").read_text() in capsys.readouterr().out
    graph = project.read()
    assert graph.inputs("Select/job001/") == ["in/particles.star"]
    assert graph.outputs("Select/job001/") == ["Select/job001/particles.star"]
    kind = graph.nodes()["Select/job001/particles.star"]
    assert kind == ("3" if graph.generation == 3 else "ParticleGroupMetadata.star.relion")
    assert Path(".Nodes", kind, "Select/job001/particles.star").is_file()
    assert not Path(".relion_lock").exists()


def test_the_gui_sees_the_options_that_were_given(project: Project) -> None:
    run(*SELECT)
    job = job_star.read("Select/job001/job.star")
    assert (job.job_type.name, job.values["do_select_values"], job.values["select_label"]) == ("Select", "Yes", "rlnDefocusU")
    assert (job.values["select_minval"], job.values["other_args"]) == ("15000", "")


def test_a_job_star_runs_as_a_new_job(new_project: Project) -> None:
    assert run(*SELECT) == 0
    assert run("Select/job001/job.star", "select_minval=5000") == 0
    assert statuses(new_project) == {"Select/job001/": labels.SUCCEEDED, "Select/job002/": labels.SUCCEEDED}
    assert star.read_table("Select/job002/particles.star", "particles").count == 2


def test_the_rows_of_the_form_can_be_given(new_project: Project) -> None:
    rows = ["do_select_values=Yes", "select_label=rlnDefocusU", "select_minval=35000", "select_maxval=99999"]
    assert run("Select", "fn_data=in/particles.star", *rows) == 0
    assert star.read_table("Select/job001/particles.star", "particles").count == 1


def test_picks_of_relion_3_are_extracted_and_are_a_node(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    make_project(Path())
    picks = "AutoPick/job004/coords_suffix_pick.star"
    Path(picks).write_text("ctf.star\n")
    assert run("Extract", "star_mics=ctf.star", f"coords_suffix={picks}", "extract_size=64") == 0
    assert run("Extract", "--i", "ctf.star", "--coord_dir", "AutoPick/job004/", "--coord_suffix", "_pick.star", "--extract_size", "64") == 0
    for name in ("Extract/job001/", "Extract/job002/"):
        assert project.read().inputs(name) == ["ctf.star", picks]
        assert job_star.read(f"{name}job.star").values["coords_suffix"] == picks
    assert run("Extract", "star_mics=ctf.star", "coords_suffix=AutoPick/job009/coords_suffix_pick.star", "extract_size=64") == 2
    assert "--coord_dir AutoPick/job009/: there is no such file" in capsys.readouterr().err
    assert len(statuses(project)) == 2


def test_a_job_that_fails_is_shown_as_failed(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    Path("in/particles.star").write_text("nonsense")
    assert run(*SELECT) == 2
    assert statuses(project) == {"Select/job001/": labels.FAILED}
    assert Path("Select/job001/RELION_JOB_EXIT_FAILURE").exists()
    assert "in/particles.star: not a STAR file" in Path("Select/job001/run.err").read_text()
    assert "in/particles.star: not a STAR file" in capsys.readouterr().err


def test_a_job_that_is_killed_is_shown_as_failed(new_project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    program(Path(), monkeypatch, "echo started; kill -9 $$; sleep 60")
    assert run(*SELECT) == 128 + signal.SIGKILL
    assert statuses(new_project) == {"Select/job001/": labels.FAILED}
    assert Path("Select/job001/RELION_JOB_EXIT_FAILURE").exists()
    assert Path("Select/job001/run.out").read_text() == "started\n"


def test_a_job_that_was_killed_together_with_its_watcher_is_later_shown_as_failed(new_project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--schedule", *SELECT) == 0
    with new_project.edit("test") as graph:
        graph.set_status("Select/job001/", labels.RUNNING)
    process = subprocess.Popen(["sleep", "60"])
    ProcessRecord.of(process.pid).save("Select/job001")
    assert main(["jobs"]) == 0
    assert statuses(new_project) == {"Select/job001/": labels.RUNNING}
    process.kill()
    process.wait()
    assert main(["jobs"]) == 0
    assert "Failed" in capsys.readouterr().out
    assert statuses(new_project) == {"Select/job001/": labels.FAILED}
    assert Path("Select/job001/RELION_JOB_EXIT_FAILURE").exists()


@pytest.mark.parametrize("ended", ["exit file", "died"])
def test_a_job_that_is_started_again_while_a_look_waits_for_the_lock_is_left_running(
    new_project: Project, monkeypatch: pytest.MonkeyPatch, ended: str
) -> None:
    assert run("--schedule", *SELECT) == 0
    with new_project.edit("test") as graph:
        graph.set_status("Select/job001/", labels.RUNNING)
    if ended == "died":
        Path("Select/job001", RECORD).write_text(replace(ProcessRecord.own(), start="1").text())
    else:
        Path("Select/job001", job_control.FAILURE).touch()
    real = Project.edit

    def overtaken(project: Project, purpose: str) -> contextlib.AbstractContextManager[Pipeline]:
        with real(project, "another look, then a start") as graph:
            process = graph.process("Select/job001/")
            assert process is not None
            graph.set_status(process.name, labels.FAILED)
        monkeypatch.setattr(Project, "edit", real)
        planned = Planned(job_star.read("Select/job001/job.star"), None, "test")
        runner.restart(project, process, planned, planned.command(process.name))
        return real(project, purpose)

    monkeypatch.setattr(Project, "edit", overtaken)
    status.refresh(new_project)
    assert statuses(new_project) == {"Select/job001/": labels.RUNNING}
    assert not list(Path("Select/job001").glob("RELION_JOB_EXIT_*"))


def test_a_job_of_relion_or_of_another_machine_is_left_running(new_project: Project) -> None:
    run("--schedule", *SELECT)
    with new_project.edit("test") as graph:
        graph.set_status("Select/job001/", labels.RUNNING)
    main(["jobs"])
    assert statuses(new_project) == {"Select/job001/": labels.RUNNING}
    Path("Select/job001", RECORD).write_text(ProcessRecord("another machine", "", 1, "").text())
    main(["jobs"])
    assert statuses(new_project) == {"Select/job001/": labels.RUNNING}
    Path("Select/job001", job_control.SUCCESS).touch()
    Path("Select/job001/particles.star").write_text(PARTICLES)
    main(["jobs"])
    assert statuses(new_project) == {"Select/job001/": labels.SUCCEEDED}


def test_a_job_that_is_stopped_is_shown_as_aborted(new_project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    program(Path(), monkeypatch, "trap 'echo asked; exit 130' INT; echo started; while true; do sleep 0.1; done")

    def stop() -> None:
        out = Path("Select/job001/run.out")
        for _ in range(600):
            if out.exists() and "started" in out.read_text():
                break
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    assert run(*SELECT) == 130
    assert "asked" in Path("Select/job001/run.out").read_text()
    assert statuses(new_project) == {"Select/job001/": labels.ABORTED}
    assert Path("Select/job001/RELION_JOB_EXIT_ABORTED").exists()


def _is_gone(pid: int) -> bool:
    """Whether a process has ended; it may take a moment to be taken away."""
    for _ in range(200):
        if ProcessRecord.of(pid).alive() is False:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("end, how", [("exit 3", labels.FAILED), ("kill -9 $$", labels.FAILED), ("kill -TERM $PPID; sleep 600", labels.ABORTED),
                                      ("touch Select/job001/RELION_JOB_ABORT_NOW; sleep 600", labels.ABORTED)])  # fmt: skip
def test_no_process_outlives_a_job_that_ends_early(new_project: Project, monkeypatch: pytest.MonkeyPatch, end: str, how: str) -> None:
    monkeypatch.setattr(watch, "_PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(watch, "_GRACE_SECONDS", 0.3)
    program(Path(), monkeypatch, f"trap '' INT\nsh -c 'sleep 600 & echo $! > child; wait' &\nwhile [ ! -s child ]; do sleep 0.02; done\n{end}")
    assert run(*SELECT) != 0
    assert _is_gone(int(Path("child").read_text()))
    assert statuses(new_project) == {"Select/job001/": how}


def test_two_jobs_that_start_at_once_get_two_numbers(new_project: Project) -> None:
    command = [sys.executable, "-m", "aurefine", "run", *SELECT]
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [each.wait(timeout=120) for each in both] == [0, 0]
    assert statuses(new_project) == {"Select/job001/": labels.SUCCEEDED, "Select/job002/": labels.SUCCEEDED}
    assert new_project.read().counter == 3


def test_a_directory_that_is_there_is_never_written_into(new_project: Project) -> None:
    Path("Select/job001").mkdir(parents=True)
    Path("Select/job001/particles.star").write_text("precious")
    assert run(*SELECT) == 0
    assert statuses(new_project) == {"Select/job002/": labels.SUCCEEDED}
    assert Path("Select/job001/particles.star").read_text() == "precious"


def test_a_scheduled_job_runs_where_it_was_scheduled(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--schedule", "--alias", "good", *SELECT) == 0
    assert statuses(project) == {"Select/job001/": labels.SCHEDULED}
    assert list(Path(".Nodes").rglob("good/particles.star"))  # the next job can be pointed at it
    assert Path("Select/good").resolve() == Path("Select/job001").resolve()
    assert run("Select/good") == 0
    assert statuses(project) == {"Select/job001/": labels.SUCCEEDED}
    assert run("Select/job001") == 2
    assert "run it again as a new job" in capsys.readouterr().err


def test_aliases_in_command_lines_become_the_jobs(new_project: Project) -> None:
    assert run("--alias", "good", *SELECT) == 0
    assert run("Select", "--i", "Select/good/particles.star", *SELECT[3:]) == 0
    assert new_project.read().inputs("Select/job002/") == ["Select/job001/particles.star"]


def test_stale_exit_files_are_removed_when_a_job_starts(new_project: Project) -> None:
    run("--schedule", *SELECT)
    for name in (job_control.FAILURE, job_control.ABORT_NOW):
        Path("Select/job001", name).touch()
    assert run("Select/job001") == 0
    assert {path.name for path in Path("Select/job001").glob("RELION_JOB*")} == {job_control.SUCCESS}


def test_nodes_that_a_job_reports_itself_are_added(new_project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled = ("rlnPipeLineNodeName", "rlnPipeLineNodeTypeLabel")
    star.write("reported.star", [star.Table.from_rows("output_nodes", labelled, [("Select/job001/more.star", "ParticleGroupMetadata.star")])])
    program(Path(), monkeypatch, "cp reported.star Select/job001/RELION_OUTPUT_NODES.star; touch Select/job001/RELION_JOB_EXIT_SUCCESS")
    assert run(*SELECT) == 0
    assert "Select/job001/more.star" in new_project.read().outputs("Select/job001/")


@pytest.mark.parametrize(
    ("node", "label"),
    [("Select/job001/" + "x" * 300, "DensityMap.mrc"), ("Select/job001/" + "x/" * 2500, "DensityMap.mrc"), ("Select/job001/a", "y" * 300)],
    ids=["name", "path", "label"],
)
def test_a_broken_job_does_not_take_its_project_down(
    new_project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], node: str, label: str
) -> None:
    labelled = ("rlnPipeLineNodeName", "rlnPipeLineNodeTypeLabel")
    star.write("reported.star", [star.Table.from_rows("output_nodes", labelled, [(node, label), ("Select/job001/more.star", "Mask3D.mrc")])])
    program(Path(), monkeypatch, "cp reported.star Select/job001/RELION_OUTPUT_NODES.star; touch Select/job001/RELION_JOB_EXIT_SUCCESS")
    assert run(*SELECT) == 0
    assert "Warning: Select/job001/: RELION_OUTPUT_NODES.star names a file that no file system takes" in capsys.readouterr().out
    assert statuses(new_project) == {"Select/job001/": labels.SUCCEEDED}
    assert node not in new_project.read().nodes() and "Select/job001/more.star" in new_project.read().outputs("Select/job001/")
    assert main(["jobs"]) == 0 and "Warning" not in capsys.readouterr().out


def test_a_directory_that_cannot_be_looked_into_is_told_of_its_job(
    new_project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert run("--schedule", *SELECT) == 0
    with new_project.edit("test") as graph:
        for name in ("Select/job001/", "Select/job002/"):
            graph.set_status(name, labels.RUNNING)
    Path("Select/job002/RELION_JOB_EXIT_FAILURE").touch()
    outcome = job_directory.outcome

    def locked(folder: Path) -> str | None:
        if folder.name == "job001":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return outcome(folder)

    monkeypatch.setattr(job_directory, "outcome", locked)
    assert main(["jobs"]) == 0 and "Warning: Select/job001/: Permission denied" in capsys.readouterr().out
    assert statuses(new_project) == {"Select/job001/": labels.RUNNING, "Select/job002/": labels.FAILED}


def test_subsets_are_in_the_pipeline_though_only_the_job_knew_their_number(project: Project) -> None:
    assert run("Select", "fn_data=in/particles.star", "do_split=Yes", "split_size=2") == 0
    assert project.read().outputs("Select/job001/") == ["Select/job001/particles_split1.star", "Select/job001/particles_split2.star"]


def test_the_tutorials_job_star_needs_its_input_and_runs(new_project: Project, shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--show", str(shared_data / "tutorial" / "job019_job.star")) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("aurefine refine --o Refine3D/job001/run --auto_refine --split_random_halves --i Extract/job018/particles.star --ref ")
    assert run(str(shared_data / "tutorial" / "job019_job.star")) == 2
    assert "--i Extract/job018/particles.star: there is no such file" in capsys.readouterr().err
    assert statuses(new_project) == {}
    inputs = ["fn_img=in/particles.star", "fn_ref=in/particles.star"]
    assert run(str(shared_data / "tutorial" / "job019_job.star"), *inputs) == 2
    printed = capsys.readouterr()
    assert "runs without it" in printed.out and "nr_mpi is 3" in printed.out
    assert statuses(new_project) == {"Refine3D/job001/": labels.FAILED}


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_terminal_does_not_stop_a_job(new_project: Project, unbuffered: str) -> None:
    read, write = os.pipe()
    os.close(read)  # the very first line that is printed finds nobody there
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    ended = subprocess.run(
        [sys.executable, "-m", "aurefine", "run", *SELECT], stdout=write, stderr=subprocess.PIPE, timeout=120, check=False, env=environment
    )
    os.close(write)
    assert ended.returncode == 0 and not ended.stderr
    assert statuses(new_project) == {"Select/job001/": labels.SUCCEEDED}


def test_other_jobs_of_ours_are_shown_as_external(project: Project) -> None:
    assert run("star", "--i", "in/particles.star", "--operate", "rlnDefocusU", "--multiply_by", "2") == 0
    assert statuses(project) == {"External/job001/": labels.SUCCEEDED}
    assert star.read_table("External/job001/particles.star", "particles")["rlnDefocusU"].tolist() == [20000, 40000, 60000, 80000]
    assert job_star.read("External/job001/job.star").values["fn_exe"] == "aurefine star"


def test_a_refinement_goes_on_from_its_last_iteration(new_project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--schedule", "refine", "--i", "in/particles.star", "--ref", "r.mrc", "--j", "3") == 0
    capsys.readouterr()
    assert run("--continue", "--show", "Refine3D/job001") == 2
    assert "nothing to go on from" in capsys.readouterr().err
    for number in (2, 11):
        Path(f"Refine3D/job001/run_it{number:03d}_optimiser.star").touch()
    assert run("--show", "--continue", "Refine3D/job001", "--force_converge") == 0
    line = capsys.readouterr().out
    assert line.startswith("aurefine refine --continue Refine3D/job001/run_it011_optimiser.star --o Refine3D/job001/run ")
    assert "--j 3 --force_converge --pipeline_control Refine3D/job001/" in line


def kept(folder: str) -> dict[str, bytes]:
    """What a job's directory holds, and what the pipeline says."""
    return {path.name: path.read_bytes() for path in [*Path(folder).iterdir(), Path("default_pipeline.star")] if path.is_file()}


def finished_refinement(project: Project) -> None:
    """Refine3D/job001, which has succeeded after the iterations 2 and 11."""
    run("--schedule", "refine", "--i", "in/particles.star", "--ref", "in/particles.star")
    for name in ("run_it002_optimiser.star", "run_it011_optimiser.star", "run_optimiser.star", job_control.SUCCESS):
        Path("Refine3D/job001", name).touch()
    with project.edit("test") as graph:
        graph.set_status("Refine3D/job001/", labels.SUCCEEDED)


@pytest.mark.parametrize("words, message", [
    ([], "name it: fn_cont=Refine3D/job001/run_it011_optimiser.star"),
    (["fn_cont=Refine3D/job001/run_it010_optimiser.star"], "no such file; the last iteration is fn_cont=Refine3D/job001/run_it011_optimiser.star"),
    (["fn_cont=Refine3D/job001/run_optimiser.star"], "the file of an iteration was expected"),
    (["fn_cont=Refine3D/job001/run_it002_optimiser.star", "fn_mask=in/none.mrc"], "--solvent_mask in/none.mrc: there is no such file"),
])  # fmt: skip
def test_a_finished_job_is_left_alone_where_it_cannot_go_on(
    new_project: Project, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    finished_refinement(new_project)
    before = kept("Refine3D/job001")
    assert run("--continue", "Refine3D/job001", *words) == 2
    assert message in capsys.readouterr().err
    assert kept("Refine3D/job001") == before and statuses(new_project) == {"Refine3D/job001/": labels.SUCCEEDED}


def test_a_scheduled_job_waits_until_its_input_is_there(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--schedule", "Select", "--i", "in/later.star", *SELECT[3:]) == 0
    before = kept("Select/job001")
    assert run("Select/job001") == 2
    assert "--i in/later.star: there is no such file" in capsys.readouterr().err
    assert kept("Select/job001") == before and statuses(project) == {"Select/job001/": labels.SCHEDULED}
    Path("in/later.star").write_text(PARTICLES)
    assert run("Select/job001") == 0


@pytest.mark.parametrize("status", [labels.FAILED, labels.SUCCEEDED])
def test_a_job_that_is_not_scheduled_says_what_can_be_done_with_it(project: Project, capsys: pytest.CaptureFixture[str], status: str) -> None:
    finished_refinement(project)
    run("--schedule", *SELECT)
    with project.edit("test") as graph:
        for name in ("Refine3D/job001/", "Select/job002/"):
            graph.set_status(name, status)
    for path in Path("Refine3D/job001").glob("RELION_JOB_EXIT_*"):
        path.unlink()
    capsys.readouterr()
    for name, goes_on in (("Refine3D/job001", status == labels.FAILED), ("Select/job002", False)):
        assert run(name) == 2
        said = capsys.readouterr().err
        assert (f"aurefine run --continue {name}/" in said) == goes_on and f"`aurefine run {name}/job.star`" in said


def test_the_results_of_a_continued_refinement_are_in_the_pipeline(new_project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    run("--schedule", "refine", "--i", "in/particles.star", "--ref", "r.mrc")
    Path("Refine3D/job001/run_it003_optimiser.star").touch()
    files = " ".join(f"Refine3D/job001/run_ct3_{end}" for end in ("data.star", "class001.mrc", "it004_data.star", "half1_class001_unfil.mrc"))
    program(Path(), monkeypatch, f"touch {files}")
    assert run("--continue", "Refine3D/job001") == 0
    added = {Path(node).name for node in new_project.read().outputs("Refine3D/job001/") if "_ct3_" in node}
    assert added == {"run_ct3_data.star", "run_ct3_class001.mrc", "run_ct3_half1_class001_unfil.mrc"}
    assert job_star.read("Refine3D/job001/job.star").is_continue
    assert run("--show", "--continue", "Refine3D/job001") == 2  # it has converged
    assert run("--show", "--continue", "Refine3D/job001", "fn_cont=Refine3D/job001/run_it003_optimiser.star") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "which job?"),
        (["--alias"], "which job?"),
        (["Refine4D", "--i", "x"], "no job type 'Refine4D'"),
        (["Refine3D", "--particle_diametr", "3"], "Did you mean --particle_diameter"),
        (["Select", "--i", "in/none.star", "--select", "rlnDefocusU"], "--i in/none.star: there is no such file"),
        (["Refine3D"], "fn_img .* is empty"),
        (["Refine3D", "sym=D2"], "not an option of the form"),
        (["Select/job009"], "no such job"),
        (["--continue", "Select", "--i", "x"], "the directory of a job was expected"),
        (["--continue", "Select/job001"], "cannot go on"),
        (["Select/job001"], "not scheduled but Succeeded"),
        (["missing/job.star"], "cannot be read"),
        (["in/particles.star"], "not a job.star"),
        (["--alias", "job7", *SELECT], "choose another name"),
        (["--alias", "a b", *SELECT], "may not hold ' '"),
        (["--alias", "taken", *SELECT], "choose another --alias"),
        (["--new_project", "5", *SELECT], "a RELION project already"),
        (["star", "x", "--i", "y"], "does not follow a flag"),
        (["compare", "--i", "in/particles.star", "--truth", "in/particles.star"], "compare has no --o .* run `aurefine compare` itself"),
        (["gui"], "gui has no --o .* cannot be a job of a project"),
        (["Refine3D", "--i", "in/particles.star", "--ref", "in/particles.star", "--submit", "--dry_run"], "submit `aurefine run` itself"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_message_and_adds_no_job(new_project: Project, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert run("--schedule", "--alias", "taken", *SELECT) == 0
    with new_project.edit("test") as graph:
        graph.set_status("Select/job001/", labels.SUCCEEDED)
    before = Path("default_pipeline.star").read_bytes()
    capsys.readouterr()
    assert run(*(words or ["--show"])) == 2
    printed = capsys.readouterr().err.strip()
    assert re.search(message, printed), printed
    assert "\n" not in printed
    assert Path("default_pipeline.star").read_bytes() == before
    assert sorted(path.name for path in Path().glob("*/job*")) == ["job001"]


def test_outside_a_project_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*SELECT) == 2
    assert main(["jobs"]) == 2
    assert "no RELION project" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_job_whose_flags_are_wrong_leaves_its_exit_file(tmp_path: Path) -> None:
    assert main(["compare", "--nonsense", "1", "--pipeline_control", str(tmp_path / "job") + "/"]) == 2
    assert (tmp_path / "job" / job_control.FAILURE).exists()


def test_the_list_says_how_jobs_stand(new_project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    run("--alias", "good", *SELECT)
    run("--schedule", *SELECT)
    capsys.readouterr()
    assert main(["jobs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["job", "alias", "state", "started"]
    assert lines[1].split()[:3] == ["Select/job001/", "Select/good/", "Succeeded"]
    assert lines[2].split() == ["Select/job002/", "Scheduled"]
    assert main(["jobs", "--unfinished"]) == 0
    assert "job001" not in capsys.readouterr().out
    assert isinstance(new_project.read(), Pipeline)


def test_a_request_to_stop_that_comes_while_the_job_is_being_started_stops_it(new_project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    program(Path(), monkeypatch, "trap 'echo asked; exit 130' INT; echo started; while true; do sleep 0.1; done")
    start = subprocess.Popen

    def start_and_terminate(*words: Any, **options: Any) -> subprocess.Popen[bytes]:
        job = start(*words, **options)
        while "started" not in Path("Select/job001/run.out").read_text():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)  # before anybody knows the job
        return job

    monkeypatch.setattr(watch.subprocess, "Popen", start_and_terminate)
    assert run(*SELECT) == 130
    assert "asked" in Path("Select/job001/run.out").read_text()
