"""Files are whole or absent, and on the disk when a job says that it has succeeded."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from aurefine import mrc
from aurefine.atomic import atomic_file, without_waiting_for_the_disk, write_bytes
from aurefine.cli.main import main
from aurefine.errors import InputError
from aurefine.job_control import ABORT_NOW, FAILURE, JobAborted, JobControl, job_control
from aurefine.threads import at_once


@pytest.fixture
def flushed(monkeypatch) -> list[int]:
    calls: list[int] = []
    monkeypatch.setattr(os, "fsync", calls.append)
    return calls


def test_files_are_flushed_unless_told_otherwise(tmp_path, flushed):
    write_bytes(tmp_path / "a", b"1")
    assert len(flushed) == 2  # the file and its folder
    with without_waiting_for_the_disk():
        write_bytes(tmp_path / "b", b"2")
        at_once(lambda: write_bytes(tmp_path / "c", b"3"), lambda: write_bytes(tmp_path / "d", b"4"))
    assert len(flushed) == 2
    assert [(tmp_path / name).read_bytes() for name in "abcd"] == [b"1", b"2", b"3", b"4"]
    write_bytes(tmp_path / "a", b"5")
    assert len(flushed) == 4


def test_an_error_leaves_the_old_file_although_nothing_is_flushed(tmp_path):
    write_bytes(tmp_path / "a", b"old")
    with without_waiting_for_the_disk(), pytest.raises(ValueError, match="half way"), atomic_file(tmp_path / "a") as handle:
        handle.write(b"new")
        raise ValueError("half way")
    assert (tmp_path / "a").read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize(("name", "said"), [("file/a", "Not a directory"), ("none/a", "the folder does not exist"), (250 * "n", "name too long")])
def test_a_file_that_cannot_be_written_is_one_message(tmp_path, name, said):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=f"cannot write .*{said}"):
        write_bytes(tmp_path / name, b"1")


def test_a_folder_that_becomes_read_only_does_not_hide_what_went_wrong_first(tmp_path, monkeypatch):
    def refused(path: Path, missing_ok: bool = False) -> None:
        raise OSError(30, "Read-only file system", str(path))

    with pytest.raises(InputError, match="first cause"), job_control(f"{tmp_path}/"):
        monkeypatch.setattr(Path, "unlink", refused)
        raise InputError("first cause")
    (tmp_path / ABORT_NOW).touch()
    with pytest.raises(JobAborted):
        JobControl(f"{tmp_path}/").check()
    assert (tmp_path / FAILURE).exists()


@pytest.mark.parametrize("command", ["image_handler --i half1.mrc --flipX --o out/post.mrc",
                                     "mask_create --i half1.mrc --ini_threshold 0 --o out/post.mrc",
                                     "postprocess --i half1.mrc --o out/post"])  # fmt: skip
def test_in_a_project_the_files_are_on_the_disk_before_success_is_told(command, tmp_path, monkeypatch, flushed):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for half in (1, 2):
        mrc.write_map(f"half{half}.mrc", rng.standard_normal((16, 16, 16)), 1.0)
    os.mkdir("out")
    flushed.clear()
    assert main(command.split()) == 0
    assert not flushed
    assert main([*command.split(), "--overwrite", "--pipeline_control", "out/"]) == 0
    assert len(flushed) == 2 * (len(os.listdir("out")) + 1)  # each file, and its folder; the sign of success is written by the job and by its caller
