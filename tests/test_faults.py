"""What fails under a run ends it, or is recovered from, by the rules of docs/faults.md: each fault is injected here."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from aurefine import atomic, kernels, molecule, mrc, simulate, star
from aurefine.cli.main import main
from aurefine.imaging import Camera, Imaging
from aurefine.particles import load
from aurefine.refine import checkpoint, expectation, inputs, loop, maximisation, resume, shortage
from aurefine.refine.console import Console
from aurefine.refine.options import RefineOptions
from aurefine.refine.result import Result
from aurefine.refine.run_status import read_status

COUNT = 90
TORCH_IS_SHORT = "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 1024 bytes."


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    simulate.simulate(molecule.generate("D2", seed=1), folder, Imaging(particles=COUNT, cameras=(Camera(8.0, 32),), snr=0.5))
    return folder


def arguments(*more: str) -> list[str]:
    return ["refine", "--i", "particles.star", "--ref", "reference.mrc", "--o", "out/run", "--sym", "D2", "--ini_high", "50", "--ctf", "--zero_mask",
            "--particle_diameter", "200", "--firstiter_cc", "--auto_iter_max", "2", "--healpix_order", "1", "--random_seed", "1", "--j", "2",
            "--pipeline_control", "out/", *more]  # fmt: skip


def fails(capsys, *messages: str) -> None:
    """The run ends with one message and says so everywhere."""
    assert main(arguments()) == 2
    errors = capsys.readouterr().err.strip()
    for message in messages:
        assert message in errors.splitlines()[-1]
    assert "Traceback" not in errors
    if Path("out").is_dir():
        status = read_status("out")
        assert status.verdict() == "failed" and messages[0] in status.message


def goes_on(capsys) -> None:
    """The same command line and --resume ends what was begun."""
    assert main(arguments("--resume")) == 0
    assert "Resuming after run_it001_optimiser.star" in capsys.readouterr().out
    assert Path("out/run_it002_optimiser.star").exists() and read_status("out").verdict() == "finished"


# ---------------------------------------------------------------------- memory
def refined(**changed) -> Result:
    options = RefineOptions(
        reference="reference.mrc", symmetry="D2", initial_lowpass=50, particle_diameter=200, ctf_correction=True, zero_mask=True,
        first_iteration_cc=True, healpix_order=1, max_iterations=2, random_seed=1, threads=2, verbosity=0, **changed,
    )  # fmt: skip
    return loop.refine(load("particles.star"), "reference.mrc", options, console=Console(verbosity=0))


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError(TORCH_IS_SHORT), RuntimeError("CUDA out of memory. Tried to allocate")])
def test_work_that_does_not_fit_is_done_in_parts(project, monkeypatch, error):
    whole = refined()
    seen: list[int] = []

    def short_of_memory(cache, particles, group, indices, *others, **named):
        if len(indices) > 16:
            raise error
        seen.append(len(indices))
        return real(cache, particles, group, indices, *others, **named)

    real = expectation.prepare
    monkeypatch.setattr(expectation, "prepare", short_of_memory)
    parts = refined()
    assert max(seen) <= 16 and sum(seen) == 2 * COUNT
    np.testing.assert_array_equal(whole.poses.angles, parts.poses.angles)
    assert np.linalg.norm(whole.map - parts.map) < 5e-3 * np.linalg.norm(whole.map)
    assert [warning for warning in parts.warnings if "memory is short: less is done at a time" in warning]


def test_what_was_summed_before_memory_ran_short_is_not_summed_again(project, monkeypatch):
    whole = refined()
    calls: list[int] = []

    def short_of_memory(self, prepared, coarse, *others):
        calls.append(len(coarse.rows))
        if len(calls) in (2, 5, 8):
            raise MemoryError
        return real(self, prepared, coarse, *others)

    real = expectation._GroupPass._fine
    monkeypatch.setattr(shortage, "FINE_SCORES", 20_000)  # many batches
    monkeypatch.setattr(expectation._GroupPass, "_fine", short_of_memory)
    parts = refined()
    assert len(calls) > 6
    np.testing.assert_array_equal(whole.poses.angles, parts.poses.angles)
    assert parts.state.halves[0].average_pmax == pytest.approx(whole.state.halves[0].average_pmax, abs=1e-4)


def test_maps_that_do_not_fit_side_by_side_are_made_one_after_the_other(project, monkeypatch):
    whole = refined()
    calls: list[str] = []

    def short_of_memory(*given, **named):
        calls.append(threading.current_thread().name)
        if len(calls) == 1:
            raise MemoryError
        return real(*given, **named)

    real = maximisation._with_map
    monkeypatch.setattr(maximisation, "_with_map", short_of_memory)
    parts = refined()
    assert len(calls) in (5, 6) and set(calls[-4:]) == {"MainThread"}  # two iterations' maps, after the first attempt
    np.testing.assert_allclose(whole.map, parts.map, atol=1e-5 * np.abs(whole.map).max())
    np.testing.assert_array_equal(whole.poses.angles, parts.poses.angles)
    assert [warning for warning in parts.warnings if "maximised one after the other from now on" in warning]


@pytest.mark.parametrize("where", ["prepare", "accumulate"])  # one image does not fit; in the midst of what cannot be undone
def test_memory_that_is_too_short_for_anything_is_one_message(project, monkeypatch, capsys, where):
    def short_of_memory(*given, **named):
        raise RuntimeError(TORCH_IS_SHORT)

    monkeypatch.setattr(expectation if where == "prepare" else kernels, where, short_of_memory)
    fails(capsys, "memory is too short for this run", "can't allocate memory", "Iteration 0 is kept (out/run_it000_optimiser.star)")


def test_other_errors_are_not_taken_for_short_memory(project, monkeypatch):
    def broken(*given, **named):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(expectation, "prepare", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        main(arguments())
    assert read_status("out").verdict() == "failed"


# ---------------------------------------------------------------------- files
def test_a_disk_that_fills_up_in_mid_run_ends_it_with_what_is_complete(project, monkeypatch, capsys):
    real = os.fsync

    def full(descriptor: int) -> None:
        if list(Path("out").glob(".run_it002*.tmp")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(atomic.os, "fsync", full)
    fails(capsys, "cannot write out/run_it002", "no space is left on the disk", "Iteration 1 is kept (out/run_it001_optimiser.star)")
    assert not Path("out/run_it002_optimiser.star").exists() and not list(Path("out").glob(".*.tmp"))
    monkeypatch.setattr(atomic.os, "fsync", real)
    goes_on(capsys)


def test_a_disk_that_is_really_full_leaves_whole_files(project, capsys):
    Path("out").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1000k", "tmpfs", "out"], capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        fails(capsys, "no space is left on the disk")
        complete = resume.kept("out/run").optimisers
        assert complete and not list(Path("out").glob(".*"))
        for path in Path("out").glob("*.star"):
            star.read(path)
        for path in Path("out").glob("*.mrc"):
            mrc.read_map(path)
        for path in complete:
            checkpoint.load(path)
    finally:
        subprocess.run(["umount", "out"], check=True)


def test_a_stack_that_becomes_unreadable_is_named(project, monkeypatch, capsys):
    stack = next(Path("Particles").glob("*.mrcs"))
    real = inputs.read_masks

    def cut(*given):
        with stack.open("r+b") as handle:
            handle.truncate(stack.stat().st_size // 2)
        return real(*given)

    monkeypatch.setattr(inputs, "read_masks", cut)  # after the stacks were checked, before they are read
    fails(capsys, str(stack))


def test_particles_that_vanish_after_they_were_read_do_not_matter(project, monkeypatch):
    real = loop.plan_iteration

    def vanish(*given):
        shutil.rmtree("Particles", ignore_errors=True)
        return real(*given)

    monkeypatch.setattr(loop, "plan_iteration", vanish)
    assert main(arguments()) == 0
    assert Path("out/run_it002_optimiser.star").exists() and not Path("Particles").exists()


def test_an_output_folder_that_vanishes_ends_the_run(project, monkeypatch, capsys):
    real = loop.maximise

    def vanish(*given):
        shutil.rmtree("out", ignore_errors=True)
        return real(*given)

    monkeypatch.setattr(loop, "maximise", vanish)
    fails(capsys, "out/", "the folder does not exist")
