"""The memory that is planned is the memory that is taken, and batches are made to fit into it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import aurefine
from aurefine import molecule, simulate
from aurefine.cli.main import main
from aurefine.imaging import Camera, Imaging
from aurefine.particles import ParticleSet, load
from aurefine.refine import initial, memory_plan
from aurefine.refine.memory_plan import MB, Workers
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


def test_a_cap_makes_batches_smaller_and_an_impossible_one_says_the_least(project, particles, monkeypatch, capsys):
    whole, least = planned(particles), planned(particles, halved=6)
    assert least.peak < whole.peak
    between = memory_plan._MARGIN * (whole.peak + least.peak) / 2 / (1 << 30)  # of which what the tests before hold is a part
    options = RefineOptions(**{**vars(OPTIONS), "memory_gb": between})
    batches = Batches()
    plan, there = memory_plan.fitted(particles, initial.first_sampling(options, 8.0), 32, options, TWO, batches, 64 << 30)
    assert 0 < batches.halved < 6 and plan.peak <= there == int(between * (1 << 30))
    assert any("times smaller than usual" in line for line in plan.lines(there))
    monkeypatch.chdir(project)
    assert main(arguments("--memory", "0.01")) == 2
    message = capsys.readouterr().err
    assert "--memory 0.01: at least " in message and "GB are needed for 300 particles in a box of 32 px" in message


def test_without_a_cap_and_with_room_batches_are_the_usual_ones(particles):
    batches = Batches()
    memory_plan.fitted(particles, initial.first_sampling(OPTIONS, 8.0), 32, OPTIONS, TWO, batches, 64 << 30)
    assert batches.halved == 0 and batches.chunk(1000) == 1500 and batches.dense() == batches.fine() == 8_000_000


def test_large_boxes_and_many_threads_take_what_their_sums_take(particles):
    small, large = planned(particles, 32), planned(particles, 256)
    voxels = 515 * 515 * 258  # of the half transform, padded by 2
    assert large.sums == 2 * 24 * voxels and large.peak > large.maximisation > 100 * MB
    assert planned(particles, 256, Workers(2, 8)).sums - large.sums == 2 * 7 * 16 * voxels
    assert planned(particles, 256, options=RefineOptions(**{**vars(OPTIONS), "padding": 1.0})).sums < large.sums / 7
    assert large.images == small.images == 300 * 32 * 32 * 2


def test_the_finest_whole_grid_counts_where_searches_become_local_late(particles):
    early, late = (planned(particles, options=RefineOptions(**{**vars(OPTIONS), "local_healpix_order": order})) for order in (3, 4))
    rotations = 768 * 48  # of order 3 without symmetry, an eighth of them of order 2
    assert late.searches - early.searches > (rotations - rotations // 8) * 150 * memory_plan._SURVIVING
    assert planned(particles, halved=6).searches > rotations * memory_plan._PLANES  # slices stay, however small batches are


def test_large_maps_are_made_one_after_the_other_before_batches_become_smaller(particles):
    whole, batches = planned(particles, 256), Batches()
    assert whole.peak - whole.held == whole.maximisation and not whole.in_turn
    plan, _ = memory_plan.fitted(particles, initial.first_sampling(OPTIONS, 8.0), 256, OPTIONS, TWO, batches, whole.peak - 100 * MB)
    assert batches.in_turn and batches.halved == 0
    assert plan.maximisation == whole.maximisation - 24 * 515 * 515 * 258
    assert "  The last maps of the half-sets are made one after the other, to fit" in plan.lines(0)


def test_the_limits_of_all_control_groups_around_a_process_count(tmp_path):
    for name, limit in (("", "max"), ("slurm", "8000"), ("slurm/job_1", "5000"), ("other", "1")):
        group = tmp_path / name
        group.mkdir(exist_ok=True)
        for file, text in (("memory.max", limit), ("memory.current", "3000"), ("memory.stat", "anon 2000\ninactive_file 700")):
            (group / file).write_text(text + "\n")
    own = tmp_path / "cgroup"
    own.write_text("0::/slurm/job_1\n")
    assert memory_plan._control_group(tmp_path, own) == [(5000, 2300), (8000, 2300)]
    own.write_text("4:cpu,cpuacct:/slurm\n")
    assert memory_plan._control_group(tmp_path, own) == []
    assert memory_plan._control_group(tmp_path, tmp_path / "none") == []


def test_what_a_control_group_leaves_is_what_is_there(monkeypatch):
    own = memory_plan.run_status.memory_in_use()[0]
    monkeypatch.setattr(memory_plan, "_control_group", lambda: [(100 * MB, 30 * MB)])
    assert memory_plan.available() == pytest.approx(70 * MB + own, abs=20 * MB)
    monkeypatch.setattr(memory_plan, "_address_space", lambda: [(100 * MB, 60 * MB)])
    assert memory_plan.available() == pytest.approx(40 * MB + own, abs=20 * MB)
