"""The memory that is planned is the memory that is taken, and batches are made to fit into it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import aurefine
from aurefine import large_arrays, molecule, mrc, simulate
from aurefine.cli.main import main
from aurefine.imaging import Camera, Imaging
from aurefine.particles import ParticleSet, load
from aurefine.refine import backprojection, devices, gpu_plan, initial, loop, memory, memory_fit, memory_plan, memory_there, shortage
from aurefine.refine.gpu_plan import MB
from aurefine.refine.memory_plan import Workers
from aurefine.refine.options import RefineOptions
from aurefine.refine.run_status import read_status
from aurefine.refine.shortage import Batches

TWO = Workers(2)
OPTIONS = RefineOptions(symmetry="C1", initial_lowpass=50, particle_diameter=200)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    simulate.simulate(molecule.generate("C1", seed=1), folder, Imaging(particles=300, cameras=(Camera(8.0, 32),), snr=0.5))
    return folder


@pytest.fixture(scope="module")
def particles(project: Path) -> ParticleSet:
    return load(project / "particles.star")


def planned(particles: ParticleSet, box: int = 32, workers: Workers = TWO, options: RefineOptions = OPTIONS, halved: int = 0):
    return memory_plan.measure(particles, initial.first_sampling(options, 8.0), box, options, workers, Batches(halved))


def arguments(*more: str) -> list[str]:
    return ["refine", "--i", "particles.star", "--ref", "reference.mrc", "--o", "out/run", "--sym", "C1", "--ini_high", "50", "--ctf", "--zero_mask",
            "--particle_diameter", "200", "--random_seed", "1", "--auto_iter_max", "3", "--j", "2", *more]  # fmt: skip


def test_the_peak_is_what_is_planned(project):
    environment = {**os.environ, "PYTHONPATH": str(Path(aurefine.__file__).parents[1])}
    run = subprocess.run([sys.executable, "-m", "aurefine", *arguments()], cwd=project, capture_output=True, text=True, check=True, env=environment)
    found = re.search(r"peak, of \d+ MB that are there +(\d+) MB", run.stdout)
    assert found, run.stdout
    assert read_status(project / "out").peak_memory_mb == pytest.approx(int(found.group(1)), rel=0.15)


@pytest.mark.skipif(large_arrays.glibc() is None, reason="freed blocks are kept and given back with glibc only")
def test_what_chunks_leave_in_the_heap_goes_back_to_the_system(project, monkeypatch):
    """Else memory grows with the number of particles, though no more of it is in use."""
    large_arrays.keep_freed()
    blocks = [np.ones(1 << 20) for _ in range(40)]
    del blocks[:-1]  # the last one keeps the heap from shrinking
    tidying, held = memory.Tidying(), memory_plan.run_status.memory_in_use()[0]
    for _ in range(memory._CHUNKS):
        assert memory_plan.run_status.memory_in_use()[0] > held - 8 * MB
        tidying.chunk_done()
    assert memory_plan.run_status.memory_in_use()[0] < held - 200 * MB
    monkeypatch.chdir(project)
    monkeypatch.setattr(shortage, "CHUNK_PIXELS", 1)  # 64 images a chunk: 3 of each half-set
    done: list[int] = []
    monkeypatch.setattr(memory.Tidying, "chunk_done", lambda self: done.append(1))
    assert main(["refine", *arguments("--o", "chunks/run", "--auto_iter_max", "1")[1:]]) == 0
    assert len(done) == 6


PRODUCTS = """
import torch
from aurefine import kernels
from aurefine.refine import start
start.use_threads(1)
size_mb = lambda: int(open("/proc/self/statm").read().split()[0]) * 4096 >> 20
other = torch.ones(512, 512, dtype=torch.bfloat16)
for size in range(64, 464):
    if size == 164:
        before = size_mb()
    kernels.matrix_product(torch.ones(size, 512, dtype=torch.bfloat16), other, torch.empty(size, 512, dtype=torch.bfloat16))
print(size_mb() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks Linux")
def test_code_of_matrix_products_is_not_kept_for_every_size():
    environment = {**os.environ, "PYTHONPATH": str(Path(aurefine.__file__).parents[1])}
    assert int(subprocess.check_output([sys.executable, "-c", PRODUCTS], env=environment)) < 220  # MB; 377 of all sizes


def test_a_cap_makes_batches_smaller_and_an_impossible_one_says_the_least(project, particles, monkeypatch, capsys):
    whole, least = planned(particles), planned(particles, halved=6)
    assert least.peak < whole.peak
    between = memory_fit._MARGIN * (whole.peak + least.peak) / 2 / (1 << 30)  # of which what the tests before hold is a part
    options = RefineOptions(**{**vars(OPTIONS), "memory_gb": between})
    batches = Batches()
    plan, there = memory_fit.fitted(particles, initial.first_sampling(options, 8.0), 32, options, TWO, batches, 64 << 30)
    assert 0 < batches.halved < 6 and plan.peak <= there == int(between * (1 << 30))
    assert any("times smaller than usual" in line for line in plan.lines(there))
    monkeypatch.chdir(project)
    assert main(arguments("--memory", "0.01")) == 2
    message = capsys.readouterr().err
    assert "--memory 0.01: at least " in message and "GB are needed for 300 particles in a box of 32 px" in message


def test_without_a_cap_and_with_room_batches_are_the_usual_ones(particles):
    batches = Batches()
    memory_fit.fitted(particles, initial.first_sampling(OPTIONS, 8.0), 32, OPTIONS, TWO, batches, 64 << 30)
    assert batches.halved == 0 and batches.chunk(1000) == 1500 and batches.dense() == batches.fine() == 8_000_000


def test_large_boxes_and_many_threads_take_what_their_sums_take(particles):
    small, large = planned(particles, 32), planned(particles, 256)
    voxels = 515 * 515 * 258  # of the half transform, padded by 2
    assert large.sums == 2 * 24 * voxels and large.peak > large.maximisation > 100 * MB
    assert planned(particles, 256, Workers(2, 8)).sums - large.sums == 2 * 7 * 16 * voxels
    assert planned(particles, 256, options=RefineOptions(**{**vars(OPTIONS), "padding": 1.0})).sums < large.sums / 7
    assert large.images == small.images == 300 * 32 * 32 * 2


def test_one_of_two_processes_has_the_sums_of_one_half_set(particles):
    voxels = 515 * 515 * 258
    both, one = (planned(particles, 256, Workers(1, sharing=2, alone=False, halves=halves, piece=105)) for halves in (2, 1))
    assert one.sums == 24 * voxels == both.sums // 2
    assert (one.maximisation, both.maximisation) == (28 * voxels, 44 * voxels)  # sums as they are added up, and made into those for a map
    assert planned(particles, 32, Workers(1, piece=75)).last == planned(particles, 32, Workers(1)).last // 2


def test_the_finest_whole_grid_counts_where_searches_become_local_late(particles):
    early, late = (planned(particles, options=RefineOptions(**{**vars(OPTIONS), "local_healpix_order": order})) for order in (3, 4))
    rotations = 768 * 48  # of order 3 without symmetry, an eighth of them of order 2
    assert late.searches - early.searches > (rotations - rotations // 8) * 150 * memory_plan._SURVIVING
    assert planned(particles, halved=6).searches > rotations * memory_plan._PLANES  # slices stay, however small batches are


def test_large_sums_are_made_one_after_the_other_before_batches_become_much_smaller(particles):
    """With 2 threads: first the M-steps come in turn, then the last E-steps; batches are halved no more than twice before."""
    whole, voxels = planned(particles, 256), 515 * 515 * 258
    assert whole.peak - whole.held == whole.maximisation and not whole.in_turn

    def fitted(there: int, workers: Workers) -> tuple[memory_plan.MemoryPlan, Batches]:
        batches = Batches()
        return memory_fit.fitted(particles, initial.first_sampling(OPTIONS, 8.0), 256, OPTIONS, workers, batches, there)[0], batches

    plan, batches = fitted(whole.peak - 100 * MB, TWO)
    assert batches.in_turn and batches.halved == 0 and not batches.sums_in_turn
    assert plan.maximisation == whole.maximisation - 12 * voxels
    assert "  The last maps of the half-sets are made one after the other, to fit" in plan.lines(0)
    plan, batches = fitted(whole.held + 42 * voxels, TWO)
    assert batches.sums_in_turn and batches.copies == 1 and batches.halved <= 2
    assert plan.sums == 36 * voxels and plan.maximisation == 40 * voxels and plan.peak <= whole.held + 42 * voxels
    assert "  So are their sums while they are large, to fit" in plan.lines(0) and not batches.stored
    plan, batches = fitted(whole.held + 30 * voxels, TWO)
    assert batches.stored and plan.sums == 24 * voxels and plan.maximisation == 16 * voxels and plan.stored == 24 * voxels
    assert f"  Those that are finished ({24 * voxels / MB:.0f} MB) are in a file in /scratch, to fit" in plan.lines(0, folder="/scratch")
    plan, batches = fitted(whole.peak, Workers(2, 8))  # of 16 threads some wait, as each has sums of its own
    assert batches.copies == 1 and not batches.sums_in_turn and plan.peak <= whole.peak
    assert any("Only 1 thread" in line for line in plan.lines(0))
    _, batches = fitted(whole.held, Workers(2, alone=False))  # among several processes, half-sets are added up first
    assert not batches.sums_in_turn


def test_half_sets_in_turn_are_summed_to_the_same(project, tmp_path, monkeypatch):
    """The same numbers as side by side, also in the last iteration; the first half-set's are collected, in a file, before the second starts."""
    monkeypatch.chdir(project)
    real, in_turn, order = memory_fit.settle, False, []
    stored = tmp_path / "stored"
    stored.mkdir()

    def settle(*given):
        batches, scratch = real(*given)
        batches.in_turn = batches.sums_in_turn = in_turn
        batches.copies, batches.folder = 1, str(stored) if in_turn else ""
        return batches, scratch

    def noted(name, function):
        return lambda *given, **more: (order.append(name), function(*given, **more))[1]

    monkeypatch.setattr(memory_fit, "settle", settle)
    monkeypatch.setattr(loop, "_NEARLY_WHOLE", 0.0)
    folders: list[str] = []
    zeros_on = large_arrays.zeros_on
    monkeypatch.setattr(large_arrays, "zeros_on", lambda folder, shape: (folders.append(folder), zeros_on(folder, shape))[1])
    maximise = loop.maximise

    def let_go(models, sums, *others):
        made = maximise(models, sums, *others)
        assert all(each.collected is None and not each.accumulator.data.numel() for each in sums)  # else they are there beside the next ones
        return made

    monkeypatch.setattr(loop, "maximise", let_go)
    monkeypatch.setattr(backprojection, "collect", noted("collect", backprojection.collect))
    monkeypatch.setattr(loop.Expectation, "run", noted("sum", loop.Expectation.run))
    for name, in_turn in (("beside", False), ("turns", True)):
        order.clear()
        folders.clear()
        assert main(arguments("--o", f"{name}/run", "--force_converge")) == 0
        assert set(folders) == ({str(stored)} if in_turn else {""}) and not list(stored.iterdir())
        assert order[-4:] == (["sum", "collect"] * 2 if in_turn else ["sum", "sum", "collect", "collect"])
    for file, tolerance in (("run_it001_half1_class001.mrc", 2e-3), ("run_it001_half2_class001.mrc", 2e-3), ("run_class001.mrc", 1e-2)):
        beside, turns = (mrc.read_map(project / name / file)[0] for name in ("beside", "turns"))  # rounded by where arrays lie
        assert np.abs(beside - turns).max() < tolerance * np.abs(beside).max(), file


def on_gpus(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """GPUs of so many free bytes."""
    monkeypatch.setattr(devices, "free_memory", lambda device: free)
    monkeypatch.setattr(gpu_plan, "_name", lambda number: f"GPU {number}")


def test_a_gpu_with_room_takes_batches_images_sums_and_m_step_off_the_host(particles, monkeypatch):
    on_gpus(monkeypatch, 80 << 30)
    voxels = 515 * 515 * 258
    plan = planned(particles, 256, Workers(1, gpus=(0,)))
    assert plan.first == plan.searches == plan.last == plan.sums == plan.maximisation == plan.kept == 0
    assert plan.peak == plan.held
    (gpu,) = plan.gpus
    assert (gpu.held, gpu.images) == (2 * 24 * voxels, plan.images) and gpu.maximises
    assert gpu.maximisation == 2 * 80 * voxels  # both half-sets' sums, and what is made of them
    (line,) = (line for line in plan.lines(0) if "GPU 0" in line)
    assert line == (f"  GPU 0, {80 << 10} MB free: images 1 MB, references and sums {gpu.held / MB:.0f} MB, batches in what is left; "
                    f"last M-step {gpu.maximisation / MB:.0f} MB at most")  # fmt: skip
    assert not any(name in line for line in plan.lines(0) for name in ("batches of", "last M-step    ", "sums of the last E-step"))


def test_an_m_step_that_a_gpu_has_no_room_for_is_planned_on_the_host(particles, monkeypatch):
    voxels = 515 * 515 * 258
    on_gpus(monkeypatch, 2 * 79 * voxels)
    plan = planned(particles, 256, Workers(1, gpus=(0,)))
    assert (plan.sums, plan.maximisation) == (2 * 16 * voxels, 2 * (16 + 12) * voxels) and plan.peak == plan.held + plan.maximisation
    assert any("the last M-step is done on the host: it would take" in line for line in plan.lines(0))
    assert any(line.startswith("  last M-step ") for line in plan.lines(0))


def test_each_of_two_gpus_takes_a_half_set_and_each_process_of_several_maximises_one(particles, monkeypatch):
    on_gpus(monkeypatch, 80 << 30)
    voxels = 515 * 515 * 258
    two = planned(particles, 256, Workers(2, gpus=(0, 1)))
    assert [(gpu.held, gpu.maximisation) for gpu in two.gpus] == 2 * [(24 * voxels, 80 * voxels)]
    one_of_many = planned(particles, 256, Workers(1, gpus=(0,), sharing=2, alone=False))
    assert [(gpu.held, gpu.maximisation) for gpu in one_of_many.gpus] == [(2 * 24 * voxels, 80 * voxels)]
    assert one_of_many.sums == 7 * voxels and one_of_many.maximisation == 0  # what travels to the process that needs it


def test_images_that_a_gpu_has_no_room_for_are_read_by_the_host_batch_by_batch(particles, monkeypatch):
    on_gpus(monkeypatch, 1 << 20)
    plan = planned(particles, 32, Workers(1, gpus=(0,)))
    assert plan.gpus[0].images == 0 and plan.last == 150 * 32 * 32 * 2


def test_the_limits_of_all_control_groups_around_a_process_count(tmp_path):
    for name, limit in (("", "max"), ("slurm", "8000"), ("slurm/job_1", "5000"), ("other", "1")):
        group = tmp_path / name
        group.mkdir(exist_ok=True)
        for file, text in (("memory.max", limit), ("memory.current", "3000"), ("memory.stat", "anon 2000\ninactive_file 700")):
            (group / file).write_text(text + "\n")
    own = tmp_path / "cgroup"
    own.write_text("0::/slurm/job_1\n")
    assert memory_there._control_group(tmp_path, own) == [(5000, 2300), (8000, 2300)]
    own.write_text("4:cpu,cpuacct:/slurm\n")
    assert memory_there._control_group(tmp_path, own) == []
    assert memory_there._control_group(tmp_path, tmp_path / "none") == []


def test_what_a_control_group_leaves_is_what_is_there(monkeypatch):
    own = memory_plan.run_status.memory_in_use()[0]
    monkeypatch.setattr(memory_there, "_control_group", lambda: [(100 * MB, 30 * MB)])
    assert memory_there.available() == pytest.approx(70 * MB + own, abs=20 * MB)
    monkeypatch.setattr(memory_there, "_address_space", lambda: [(100 * MB, 60 * MB)])
    assert memory_there.available() == pytest.approx(40 * MB + own, abs=20 * MB)
