"""Images that are not in memory: the same result, wherever they are, and a rule for each disk that fails."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import tempfile
from collections import namedtuple
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from aurefine import molecule, simulate, star
from aurefine.cli.main import main
from aurefine.distributed import shared_images
from aurefine.errors import InputError
from aurefine.imaging import Camera, Imaging
from aurefine.job_control import JobTerminated
from aurefine.particles import load
from aurefine.refine import image_cache, image_stacks, initial, loop, memory_fit, memory_plan, scratch
from aurefine.refine.console import Console
from aurefine.refine.image_stacks import AtSource, InMemory, OnScratch
from aurefine.refine.options import RefineOptions
from aurefine.refine.scratch import Scratch
from aurefine.refine.shortage import Batches

COUNT = 90
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Particles of two cameras, so that there are two files."""
    folder = tmp_path_factory.mktemp("project")
    cameras = Camera(8.0, 32), Camera(6.4, 40)
    simulate.simulate(molecule.generate("D2", seed=1), folder, Imaging(particles=COUNT, cameras=cameras, snr=0.5))
    return folder


@pytest.fixture
def project(simulated: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The current folder; temporary files go to an empty folder of the test's own."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(simulated)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path


def arguments(output: Path, *more: str) -> list[str]:
    return ["refine", "--i", "particles.star", "--ref", "reference.mrc", "--o", f"{output}/run", "--sym", "D2", "--ini_high", "50", "--ctf",
            "--zero_mask", "--particle_diameter", "200", "--firstiter_cc", "--auto_iter_max", "2", "--healpix_order", "1", "--random_seed", "1",
            "--j", "2", "--keep_free_scratch", "0", *more]  # fmt: skip


def refined(**changed):
    options = RefineOptions(
        reference="reference.mrc", symmetry="D2", initial_lowpass=50, particle_diameter=200, ctf_correction=True, zero_mask=True,
        first_iteration_cc=True, healpix_order=1, max_iterations=2, random_seed=1, threads=2, verbosity=0, keep_free_scratch_gb=0, **changed,
    )  # fmt: skip
    return loop.refine(load("particles.star"), "reference.mrc", options, console=Console(verbosity=0))


def stacks_made(monkeypatch: pytest.MonkeyPatch) -> list[image_stacks.ImageStack]:
    """Every stack that is made from now on."""
    made: list[image_stacks.ImageStack] = []
    real = image_cache._stack

    def noting(*given):
        made.append(real(*given))
        return made[-1]

    monkeypatch.setattr(image_cache, "_stack", noting)
    return made


def test_images_on_scratch_give_the_same_numbers_and_leave_nothing_behind(project, monkeypatch):
    made = stacks_made(monkeypatch)
    held = refined()
    assert [type(stack) for stack in made] == [InMemory, InMemory]
    (project / "ssd").mkdir()
    read = refined(scratch_dir=str(project / "ssd"))
    assert [type(stack) for stack in made[2:]] == [OnScratch, OnScratch]
    for one, other in zip(held.state.halves, read.state.halves, strict=True):
        np.testing.assert_array_equal(one.map, other.map)
        np.testing.assert_array_equal(one.sigma2_noise, other.sigma2_noise)
    np.testing.assert_array_equal(held.poses.angles, read.poses.angles)
    np.testing.assert_array_equal(held.poses.offsets, read.poses.offsets)
    assert not list((project / "ssd").iterdir())


def test_without_room_on_any_disk_images_are_read_from_their_own_stacks(project, monkeypatch):
    made = stacks_made(monkeypatch)
    (project / "ssd").mkdir()
    on_scratch = refined(scratch_dir=str(project / "ssd"))

    def full(handle: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    at_source = refined(scratch_dir=str(project / "ssd"))
    assert [type(stack) for stack in made] == [OnScratch, OnScratch, AtSource, AtSource]
    np.testing.assert_array_equal(on_scratch.map, at_source.map)
    assert any("has no room for the images after all (No space left on device)" in line for line in at_source.warnings)
    assert not list((project / "ssd").iterdir())


def test_the_plan_says_where_images_are(project, capsys):
    (project / "ssd").mkdir()
    assert main(arguments(project / "out", "--auto_iter_max", "1", "--scratch_dir", f"{project}/ssd")) == 0
    assert f"are not held: they are read batch by batch from a copy in {project}/ssd" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["absent", "full"])
def test_scratch_that_is_absent_or_full_is_told_and_not_used(project, capsys, monkeypatch, name):
    (project / "full").mkdir()
    real = scratch.shutil.disk_usage
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda path: Usage(1, 1, 1000) if str(path).endswith("full") else real(path))
    assert main(arguments(project / "out", "--auto_iter_max", "1", "--scratch_dir", f"{project}/{name}")) == 0
    printed = capsys.readouterr()
    assert "scratch is not used" in printed.err and f"--scratch_dir {project}/{name}" in printed.err
    assert "are not held" not in printed.out


def test_disks_are_tried_in_turn_and_what_is_in_memory_is_none(project, monkeypatch):
    said: list[str] = []
    options = RefineOptions(output=str(project / "run"))
    assert scratch.found(options, 1000, said.append) == str(project / "temporary")
    monkeypatch.setattr(scratch, "in_memory", lambda folder: folder.endswith("temporary"))
    assert scratch.found(options, 1000, said.append) == str(project) and not said
    assert scratch.found(options, 1 << 60, said.append) == "" and "no disk has" in said[0]


def test_a_file_system_in_memory_is_told_from_a_disk(tmp_path):
    device = os.stat(tmp_path).st_dev
    mounts = tmp_path / "mountinfo"
    for kind, expected in (("tmpfs", True), ("ext4", False)):
        mounts.write_text(f"25 30 {os.major(device)}:{os.minor(device)} / /tmp rw,nosuid shared:2 - {kind} none rw\n")
        assert scratch.in_memory(str(tmp_path), mounts) is expected
    assert not scratch.in_memory(str(tmp_path), tmp_path / "none")


def opened(folder: Path, size: int) -> int:
    file = Scratch(str(folder), print).opened(size)
    assert file is not None
    return file


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_file_holds_what_memory_holds(tmp_path, dtype):
    values = np.random.default_rng(1).normal(size=(20, 6, 6)).astype(np.float32)
    held = InMemory(torch.empty((20, 6, 6), dtype=dtype))
    filed = OnScratch(opened(tmp_path, 20 * 36 * dtype.itemsize), str(tmp_path), (20, 6, 6), dtype)
    for stack in (held, filed):
        for part in (slice(8, 20), slice(0, 8)):
            stack.write(part, values[part])
    for rows in ([3], [19, 0, 7, 7], [], list(range(20))):
        filed.ahead(np.array(rows, int))
        assert torch.equal(filed.read(np.array(rows, int)), held.read(np.array(rows, int)))


def test_a_disk_that_fails_is_one_message(tmp_path, monkeypatch):
    file = opened(tmp_path, 4 * 36 * 2)
    stack = OnScratch(file, str(tmp_path), (4, 6, 6), torch.float16)
    os.ftruncate(file, 100)
    with pytest.raises(InputError, match=re.escape(f"cannot read the images that are on scratch in {tmp_path}: the file is too short")):
        stack.read(np.arange(4))

    def failing(*given):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pwrite", failing)
    with pytest.raises(InputError, match="cannot write the images that are on scratch in .*: Input/output error"):
        stack.write(slice(0, 4), np.zeros((4, 6, 6), np.float32))


def test_files_are_closed_with_what_reads_them(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    stack = OnScratch(opened(tmp_path, 72), str(tmp_path), (1, 6, 6), torch.float16)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    del stack
    assert len(os.listdir("/proc/self/fd")) == before


class OneOfTwo:
    """Stands for torch.distributed in the first of two processes; `barrier` is where both have the file open."""

    def __init__(self, barrier) -> None:
        self.barrier = barrier

    def get_rank(self) -> int:
        return 0


@pytest.mark.parametrize("where", ["opening", "reserving", "nowhere"])
@pytest.mark.parametrize("kept", ["scratch", "memory", "alone"])
def test_a_process_that_is_stopped_while_room_for_images_is_made_leaves_no_room_taken(tmp_path, monkeypatch, where, kept):
    """A signal comes out of whatever is being done just then."""

    def barrier(*given):
        assert [path.stat().st_size for path in tmp_path.iterdir()] == [0]
        if where == "opening":
            raise JobTerminated

    def reserved(file, start, size):
        os.ftruncate(file, size)
        if where == "reserving":
            raise JobTerminated

    place = Scratch(str(tmp_path), print)
    monkeypatch.setattr(shared_images, "_MEMORY", (place,))
    monkeypatch.setattr(shared_images, "dist", OneOfTwo(barrier))
    monkeypatch.setattr(shared_images.messages, "broadcast", lambda value, source, group: value)
    monkeypatch.setattr(os, "posix_fallocate", reserved)
    storage = image_cache.Private() if kept == "alone" else shared_images.SharedImages(shared_images.Machine(0, 1, [0, 1]), None)
    with pytest.raises(JobTerminated) if where == "reserving" or (where == "opening" and kept != "alone") else nullcontext():
        stack = storage.empty((3, 4, 4), torch.float16, None if kept == "memory" else place)
        images = np.arange(48, dtype=np.float32).reshape(3, 4, 4)
        stack.write(slice(0, 3), images)
        np.testing.assert_array_equal(stack.read(np.arange(3)).numpy(), images)
    assert not list(tmp_path.iterdir())


def test_images_that_float16_cannot_hold_are_kept_whole_on_scratch(project, tmp_path):
    loaded = load("particles.star")
    real = loaded.read_images
    large = type("Large", (), {**{name: getattr(loaded, name) for name in ("count", "optics", "optics_index")},
                               "read_images": staticmethod(lambda rows: real(rows) * np.float32(1e5))})()  # fmt: skip
    cache = image_cache.ImageCache(large, scratch=Scratch(str(tmp_path / "temporary"), print))
    rows = np.flatnonzero(loaded.optics_index == 1)[[4, 1]]
    assert isinstance(cache.stacks[1], OnScratch)
    np.testing.assert_array_equal(cache.read(1, rows).numpy(), real(rows) * np.float32(1e5))


def test_images_at_their_source_are_those_that_would_be_held(project):
    loaded = load("particles.star")
    read, held = image_cache.ImageCache(loaded, scratch=Scratch("", print)), image_cache.ImageCache(loaded)
    assert all(isinstance(stack, AtSource) for stack in read.stacks)
    rows = np.flatnonzero(loaded.optics_index == 1)[[5, 0, 2]]
    assert torch.equal(read.read(1, rows), held.read(1, rows))


def test_images_leave_memory_when_they_do_not_fit(project, monkeypatch):
    loaded, options = load("particles.star"), RefineOptions(symmetry="D2", initial_lowpass=50, particle_diameter=200)

    def fitted(there: int, streams: bool | None = None):
        return memory_fit.fitted(
            loaded, initial.first_sampling(options, 8.0), 32, options, memory_plan.Workers(2), Batches(), there, streams
        )[0]  # fmt: skip

    monkeypatch.setattr(memory_plan, "image_bytes", lambda particles: 5 << 30)
    roomy, tight = fitted(64 << 30), fitted(4 << 30)
    assert (roomy.images, roomy.streamed, roomy.halved) == (5 << 30, 0, 0)
    assert (tight.images, tight.streamed, tight.halved) == (0, 5 << 30, 0) and tight.peak < 4 << 30
    assert fitted(4 << 30, streams=False).images == 5 << 30  # as the others of a run have decided
    assert "read batch by batch from a copy in /ssd" in "".join(tight.lines(4 << 30, Scratch("/ssd", print).place))


def test_two_processes_share_one_copy_on_scratch(project):
    (project / "ssd").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "aurefine", *arguments(project / "out", "--processes", "2", "--scratch_dir", f"{project}/ssd")]
    run = subprocess.run(words, capture_output=True, text=True, timeout=500, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    assert f"read batch by batch from a copy in {project}/ssd" in run.stdout and not list((project / "ssd").iterdir())
    alone = refined()
    found = star.read_table(f"{project}/out/run_it002_data.star", "particles")
    angles = np.stack([found.columns[name] for name in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")], 1)
    assert (np.abs(angles - alone.poses.angles).max(1) < 1e-3).mean() > 0.9
