"""Faults under a run of several processes, each injected for real: one message, no hang, nothing half-written (docs/faults.md)."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_distributed import AUREFINE, LONGEST, command, started

from aurefine import job_control, molecule, mrc, simulate, star
from aurefine.imaging import Camera, Imaging
from aurefine.refine import checkpoint, resume
from aurefine.refine.run_status import read_status


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("set")
    simulate.simulate(molecule.generate("D2", seed=1), made, Imaging(400, (Camera(8.0, 32),), snr=0.5, reference_resolution=50, seed=1))
    return made


@pytest.fixture
def small_disk(folder: Path) -> Iterator[str]:
    """The name of an output folder that has room for an iteration or two."""
    (folder / "full").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", folder / "full"], capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield "full"
    subprocess.run(["umount", folder / "full"], check=True)


def test_a_disk_that_is_full_ends_all_processes_with_one_message(folder: Path, small_disk: str) -> None:
    """The second process writes the files: the first one tells what went wrong there."""
    with started([*AUREFINE, *command(folder, small_disk, "--processes", "2")], folder) as process:
        _, errors = process.communicate(timeout=LONGEST)
    told = [line for line in errors.splitlines() if line.startswith("aurefine:")]
    assert process.returncode == 2 and len(told) == 1 and "no space is left on the disk" in told[0], errors
    assert read_status(folder / small_disk).state == "failed" and (folder / small_disk / job_control.FAILURE).is_file()
    assert not list((folder / small_disk).glob(".*.tmp"))
    complete = resume.kept(str(folder / small_disk / "run")).optimisers
    assert complete
    for path in (folder / small_disk).glob("*.mrc"):
        mrc.read_map(path)
    for path in (folder / small_disk).glob("*.star"):
        star.read(path)
    shutil.copytree(folder / small_disk, folder / "copied" / small_disk)
    checkpoint.load(folder / "copied" / small_disk / Path(complete[-1]).name)


def test_without_room_in_shared_memory_images_are_shared_on_disk(folder: Path) -> None:
    """As in a container whose /dev/shm is tiny."""
    tiny = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"'
    if subprocess.run(["unshare", "--mount", "sh", "-c", tiny, "sh", "true"], capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    words = command(folder, "tiny", "--processes", "2", "--auto_iter_max", "1")
    with started(["unshare", "--mount", "sh", "-c", tiny, "sh", *AUREFINE, *words], folder) as process:
        _, errors = process.communicate(timeout=LONGEST)
    assert process.returncode == 0, errors
    assert (folder / "tiny" / job_control.SUCCESS).is_file() and read_status(folder / "tiny").state == "finished"
