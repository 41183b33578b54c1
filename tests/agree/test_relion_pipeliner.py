"""RELION 3.1's own pipeliner reads, keeps and runs what aurefine writes into a project, and the other way round."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from aurefine import mrc
from aurefine.cli.main import main
from aurefine.project import job_star, labels
from aurefine.project.project import Project

BOX = 24
MASK = ("--ini_threshold", "0.5", "--lowpass", "30", "--extend_inimask", "1", "--width_soft_edge", "3")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project of RELION 3.1 made by aurefine, with a map and particles in it, entered."""
    if shutil.which("relion_pipeliner") is None:
        pytest.skip("relion_pipeliner is not on the PATH")
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    z, y, x = np.indices((BOX, BOX, BOX)) - BOX // 2
    mrc.write_map("in/map.mrc", (z**2 + y**2 + x**2 < 36).astype(np.float32), 4.0)
    Path("in/particles.star").write_text(
        "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnOpticsGroupName #2\n1 g\n\n"
        "data_particles\n\nloop_\n_rlnImageName #1\n_rlnDefocusU #2\n_rlnOpticsGroup #3\n1@a.mrcs 10000 1\n2@a.mrcs 20000 1\n"
    )
    return Project.create(".", "3.1")


def relion(*arguments: str) -> str:
    done = subprocess.run(["relion_pipeliner", *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def statuses(project: Project) -> list[str]:
    return [process.status for process in project.read().processes]


def pipeline() -> bytes:
    return Path("default_pipeline.star").read_bytes()


def test_relion_takes_a_validation_for_an_external_job(project: Project) -> None:
    for half in ("half1", "half2"):
        mrc.write_map(f"in/{half}.mrc", np.random.default_rng(len(half)).normal(size=(BOX,) * 3).astype(np.float32), 4.0)
    assert main(["run", "--schedule", "Validation", "fn_half=in/half1.mrc", "do_reslog=No"]) == 0
    before = pipeline()
    relion("--check_job_completion")
    assert pipeline() == before
    relion("--addJobFromStar", "Validation/job001/job.star")
    assert project.read().processes[-1].name == "External/job002/"


def test_relion_reads_and_keeps_our_jobs(project: Project) -> None:
    assert main(["run", "--alias", "soft", "MaskCreate", "--i", "in/map.mrc", *MASK]) == 0
    assert main(["run", "Select", "--i", "in/particles.star", "--select", "rlnDefocusU", "--minval", "1", "--maxval", "15000"]) == 0
    assert main(["run", "image_handler", "--i", "in/map.mrc", "--multiply_constant", "2"]) == 0
    assert main(["run", "--schedule", "refine", "--i", "in/particles.star", "--ref", "in/map.mrc"]) == 0
    before = pipeline()
    relion("--check_job_completion")
    assert pipeline() == before
    assert statuses(project) == [labels.SUCCEEDED] * 3 + [labels.SCHEDULED]


def test_relion_adds_its_job_after_ours_and_loses_nothing(project: Project) -> None:
    assert main(["run", "MaskCreate", "--i", "in/map.mrc", *MASK]) == 0
    ours = project.read()
    relion("--addJobFromStar", "MaskCreate/job001/job.star", "--setJobAlias", "theirs")
    both = project.read()
    assert both.processes[:1] == ours.processes
    assert both.process("MaskCreate/theirs") is not None
    assert both.counter == 3
    assert both.inputs("MaskCreate/job001/") == ours.inputs("MaskCreate/job001/")


def test_relion_understands_every_option_of_our_job_star(project: Project) -> None:
    assert main(["run", "--schedule", "Refine3D", "fn_img=in/particles.star", "fn_ref=in/map.mrc"]) == 0
    assert main(["run", "--schedule", "Extract", "star_mics=in/mics.star", "do_reextract=Yes", "fndata_reextract=in/particles.star"]) == 0
    assert main(["run", "--schedule", "Select", "fn_data=in/particles.star", "do_split=Yes", "nr_split=2"]) == 0
    assert main(["run", "--schedule", "PostProcess", "fn_in=in/run_half1_class001_unfil.mrc", "fn_mask=in/map.mrc"]) == 0
    assert main(["run", "--schedule", "image_handler", "--i", "in/map.mrc", "--multiply_constant", "2"]) == 0
    for process in project.read().processes:
        ours = job_star.read(f"{process.name}job.star").values
        printed = relion("--addJobFromStar", f"{process.name}job.star")
        assert "WARNING: cannot find" not in printed, printed
        theirs = job_star.read(f"{project.read().processes[-1].name}job.star").values
        assert {key: theirs[key] for key in ours if key in theirs} == ours, process.name
    assert statuses(project) == [labels.SCHEDULED] * 10


def test_relion_runs_a_job_that_we_scheduled_with_the_command_that_we_would_run(project: Project) -> None:
    assert main(["run", "--schedule", "MaskCreate", "fn_in=in/map.mrc", "inimask_threshold=0.5", "lowpass_filter=30"]) == 0
    relion("--RunJobs", "MaskCreate/job001/", "--schedule", "ours", "--sec_wait_after", "1")
    assert statuses(project) == [labels.SUCCEEDED]
    assert main(["run", "MaskCreate/job001/job.star"]) == 0
    notes = [re.sub(r"job00\d", "job", Path(f"MaskCreate/job00{n}/note.txt").read_text()) for n in (1, 2)]
    commands = [note.splitlines()[-2].split(" ", 2)[2].split() for note in notes]
    assert [word for word in commands[0] if word != "relion_mask_create`"] == commands[1]
    ours, theirs = (mrc.read_map(f"MaskCreate/job00{n}/mask.mrc")[0] for n in (2, 1))
    assert np.abs(ours - theirs).max() < 1e-4


def test_we_run_a_job_that_relion_scheduled(project: Project) -> None:
    assert main(["run", "--schedule", "MaskCreate", "fn_in=in/map.mrc", "inimask_threshold=0.5"]) == 0
    relion("--addJobFromStar", "MaskCreate/job001/job.star")
    assert main(["run", "MaskCreate/job002"]) == 0
    relion("--check_job_completion")
    assert statuses(project) == [labels.SCHEDULED, labels.SUCCEEDED]


def test_relion_sees_how_a_job_ended_whose_watcher_was_lost(project: Project) -> None:
    for number, file in enumerate(("SUCCESS", "FAILURE", "ABORTED"), start=1):
        assert main(["run", "--schedule", "MaskCreate", "--i", "in/map.mrc"]) == 0
        with project.edit("test") as graph:
            graph.set_status(f"MaskCreate/job00{number}/", labels.RUNNING)
        Path(f"MaskCreate/job00{number}/RELION_JOB_EXIT_{file}").touch()
        Path(f"MaskCreate/job00{number}/mask.mrc").touch()
    relion("--check_job_completion")
    assert statuses(project) == [labels.SUCCEEDED, labels.FAILED, labels.ABORTED]


def test_our_lock_keeps_relion_out_and_the_other_way_round(project: Project) -> None:
    with project.edit("test"):
        waiting = subprocess.Popen(["relion_pipeliner", "--check_job_completion"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(timeout=1)
    assert "exists (which protects against simultaneous writing" in waiting.communicate(timeout=60)[0]
    assert waiting.returncode == 0
    assert not Path(".relion_lock").exists()
