"""Pipes and devices in place of files are refused, and not waited for."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aurefine import cryosparc, molecule, mrc, process_record, star
from aurefine.cli.main import main
from aurefine.errors import InputError
from aurefine.extraction import coordinates
from aurefine.jobs import list_jobs
from aurefine.project import job_star, submission
from aurefine.reporting import validation_plots
from aurefine.web import form_contents, project_data, refinement

READERS: dict[str, Callable[[Path], object]] = {  # name of the file -> who reads it
    "a.star": star.read, "a_data.star": form_contents.star_head, "a.mrc": mrc.read_header, "a.cs": cryosparc.read, "job.star": job_star.read,
    "validation.json": validation_plots.read_validation, "template": submission.read_template, "a.pdb": molecule.from_model,
    "a.box": lambda path: coordinates._read_list(str(path), True),
}  # fmt: skip


@pytest.fixture
def impatient() -> Iterator[None]:
    """Who opens a pipe that nobody writes into waits for ever: such a test fails instead."""

    def fail(*_: object) -> None:
        raise AssertionError("the pipe was opened")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", READERS)
def test_readers_refuse_a_pipe_and_a_device(tmp_path: Path, impatient: None, name: str) -> None:
    os.mkfifo(tmp_path / name)
    (tmp_path / "zero").symlink_to("/dev/zero")
    for path in (tmp_path / name, tmp_path / "zero"):
        with pytest.raises(InputError, match="a pipe or a device, where a regular file was expected"):
            READERS[name](path)


def test_pipes_among_a_jobs_files_are_passed_over(tmp_path: Path, impatient: None) -> None:
    for name in (process_record.FILE, "note.txt", "run.out"):
        os.mkfifo(tmp_path / name)
    assert process_record.ProcessRecord.load(tmp_path) is None and list_jobs.started(tmp_path) == ""
    assert project_data.tail(tmp_path / "run.out", 0)["text"] == "" and refinement._end_of(tmp_path / "run.out") == ""


def test_a_job_on_a_pipe_is_one_message(tmp_path: Path, impatient: None, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "m.mrc")
    assert main(["mask_create", "--i", str(tmp_path / "m.mrc"), "--o", str(tmp_path / "o.mrc")]) == 2
    assert "m.mrc: cannot be read (a pipe or a device" in capsys.readouterr().err
