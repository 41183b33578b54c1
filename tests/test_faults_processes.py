"""Faults under a run of several processes, each injected for real: one message, no hang, nothing half-written (docs/faults.md)."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_distributed import AUREFINE, LONGEST, assert_alike, children_of, command, rank_of, started, wait_for

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


# ---------------------------------------------------------------------- of one process alone
def faulty(folder: Path, name: str, code: str, *, everywhere: bool = False) -> dict[str, str]:
    """The environment in which Python runs `code` as it starts in the second process alone (or `everywhere`)."""
    (folder / name).mkdir()
    who = ("0", "1") if everywhere else ("1",)
    (folder / name / "sitecustomize.py").write_text(f"import os\nif os.environ.get('RANK') in {who}:\n    " + code.strip().replace("\n", "\n    "))
    return {"PYTHONPATH": os.pathsep.join([str(folder / name), str(Path(__file__).parents[1])])}


def ends_with(folder: Path, output: str, process: subprocess.Popen[str], *messages: str) -> None:
    """The run ends with one message, which status.json has, too; the first iteration is kept."""
    _, errors = process.communicate(timeout=LONGEST)
    told = [line for line in errors.splitlines() if line.startswith("aurefine:")]
    assert process.returncode == 2 and len(told) == 1 and "Traceback" not in errors, errors
    status = read_status(folder / output)
    assert status.verdict() == "failed" and (folder / output / job_control.FAILURE).is_file()
    for message in messages:
        assert message in told[0] and message in status.message
    assert not list((folder / output).glob(".*.tmp")) and resume.kept(str(folder / output / "run")).optimisers


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> Path:
    with started([*AUREFINE, *command(folder, "undisturbed", "--processes", "2")], folder) as process:
        _, errors = process.communicate(timeout=LONGEST)
    assert process.returncode == 0, errors
    return folder / "undisturbed"


SHORT = """
from aurefine.refine import expectation
real = expectation.prepare
def short_of_memory(cache, particles, group, indices, *others, **named):
    if len(indices) > {most}:
        raise MemoryError
    return real(cache, particles, group, indices, *others, **named)
expectation.prepare = short_of_memory
"""


def test_memory_that_is_short_in_one_process_only_is_recovered_from_there_and_told(folder: Path, undisturbed: Path) -> None:
    variables = faulty(folder, "short", SHORT.format(most=32))
    with started([*AUREFINE, *command(folder, "recovered", "--processes", "2")], folder, **variables) as process:
        _, errors = process.communicate(timeout=LONGEST)
    assert process.returncode == 0, errors
    told = "rank 1: memory is short: less is done at a time from now on"
    assert errors.count("WARNING: " + told) == 1 and "aurefine:" not in errors
    assert told in (folder / "recovered" / "run_warnings.txt").read_text()
    assert read_status(folder / "recovered").state == "finished"
    assert_alike(folder / "recovered", undisturbed, same=0.9, correlation=0.999)


def test_memory_that_does_not_do_for_one_image_in_one_process_ends_all(folder: Path) -> None:
    variables = faulty(folder, "shortest", SHORT.format(most=0))
    with started([*AUREFINE, *command(folder, "hopeless", "--processes", "2")], folder, **variables) as process:
        ends_with(folder, "hopeless", process, "memory is too short for this run", "Iteration 0 is kept (hopeless/run_it000", "found by rank 1")


def test_an_address_space_that_is_cut_down_under_one_process_never_hangs_the_run(folder: Path) -> None:
    """Where malloc fails is chance: a batch is halved, the run ends with its message, or the process is killed by code that cannot be loaded."""
    with started([*AUREFINE, *command(folder, "cut", "--processes", "2")], folder) as process:
        wait_for(process, "Maximization")
        (pid,) = (pid for pid in children_of(process.pid) if rank_of(pid) == 1)
        size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize() + (2 << 20)
        resource.prlimit(pid, resource.RLIMIT_AS, (size, size))
        _, errors = process.communicate(timeout=LONGEST)
    told = [line for line in errors.splitlines() if line.startswith("aurefine:")]
    status = read_status(folder / "cut")
    if process.returncode:
        assert len(told) == 1 and ("memory is too short for this run" in told[0] or "was killed by SIG" in told[0]), errors
        assert status.verdict() == "failed" and (folder / "cut" / job_control.FAILURE).is_file()
    else:
        assert not told and status.verdict() == "finished" and (folder / "cut" / job_control.SUCCESS).is_file()
    assert "Traceback" not in errors and not list((folder / "cut").glob(".*.tmp"))


# ---------------------------------------------------------------------- stacks
@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A set of its own, whose stacks may be spoilt."""
    for name in ("Particles", "particles.star", "reference.mrc"):
        (shutil.copytree if (folder / name).is_dir() else shutil.copy)(folder / name, tmp_path / name)
    return tmp_path


CUT_BEFORE_READING = """
from aurefine.refine import memory_fit
real = memory_fit.settle
def cut(*given):
    from pathlib import Path
    settled = real(*given)
    for stack in Path("Particles").glob("*.mrcs"):
        os.truncate(stack, 2000)
    return settled
memory_fit.settle = cut
"""
NO_ROOM_ON_SCRATCH = """
from aurefine.refine import scratch
scratch.Scratch.create = lambda self: ""
"""


def test_a_stack_that_is_cut_before_the_processes_have_read_it_is_named(copied: Path) -> None:
    variables = faulty(copied, "fault", CUT_BEFORE_READING, everywhere=True)
    with started([*AUREFINE, *command(copied, "out", "--processes", "2")], copied, **variables) as process:
        _, errors = process.communicate(timeout=LONGEST)
    told = [line for line in errors.splitlines() if line.startswith("aurefine:")]
    assert process.returncode == 2 and len(told) == 1 and "Particles/" in told[0], errors
    assert "ended early" in told[0] or "truncated" in told[0]  # the other process may still have been about to check them
    assert (copied / "out" / job_control.FAILURE).is_file() and read_status(copied / "out").verdict() == "failed"


@pytest.mark.parametrize("further", [(), ("--scratch_dir", ".", "--keep_free_scratch", "0")], ids=["memory", "scratch"])
def test_stacks_that_vanish_after_the_processes_have_read_them_do_not_matter(copied: Path, undisturbed: Path, further: tuple[str, ...]) -> None:
    with started([*AUREFINE, *command(copied, "out", "--processes", "2", *further)], copied) as process:
        wait_for(process, "Expectation iteration 1")
        shutil.rmtree(copied / "Particles")
        _, errors = process.communicate(timeout=LONGEST)
    assert process.returncode == 0 and read_status(copied / "out").state == "finished", errors
    assert_alike(copied / "out", undisturbed)


@pytest.mark.parametrize(("fault", "said"), [("truncated", "ended early"), ("deleted", "there is no such file")])
def test_a_stack_that_becomes_unreadable_while_it_is_read_batch_by_batch_is_named(copied: Path, fault: str, said: str) -> None:
    """No disk had room for a copy, so images are read from their own stacks in every iteration."""
    variables = faulty(copied, "fault", NO_ROOM_ON_SCRATCH, everywhere=True)
    words = command(copied, "out", "--processes", "2", "--scratch_dir", ".", "--keep_free_scratch", "0")
    kept = shutil.copytree(copied / "Particles", copied / "kept")
    with started([*AUREFINE, *words], copied, **variables) as process:
        wait_for(process, "Expectation iteration 2")
        for stack in (copied / "Particles").glob("*.mrcs"):
            if fault == "deleted":
                stack.unlink()
            else:
                os.truncate(stack, 2000)
        ends_with(copied, "out", process, "Particles/", said, "Iteration 1 is kept", "--resume")
    shutil.copytree(kept, copied / "Particles", dirs_exist_ok=True)
    with started([*AUREFINE, *words, "--resume"], copied, **variables) as process:
        _, errors = process.communicate(timeout=LONGEST)
    assert process.returncode == 0 and np.isfinite(mrc.read_map(copied / "out" / "run_class001.mrc")[0]).all(), errors
