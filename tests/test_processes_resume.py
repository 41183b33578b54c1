"""A run of several processes that is killed within an iteration goes on there, with any number of processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_distributed import FLAGS, free_port

from aurefine import fsc, molecule, mrc, simulate
from aurefine.imaging import Camera, Imaging

COUNT, BOX = 600, 24
LONGEST = 300  # seconds
# Few particles at a time, and each process writes down how many: {name}.RANK. The last process kills itself where its number of calls is reached.
PROGRAM = """
import os, signal, sys
from aurefine.cli.main import main
from aurefine.refine import expectation, shortage
shortage.CHUNK_PIXELS = 1
name, most = sys.argv[1], int(sys.argv[2])
rank, real, calls = os.environ.get("RANK", "0"), expectation._GroupPass.chunk, []
def chunk(self, indices, *others):
    calls.append(self.owner.plan.iteration)
    if calls.count(2) > most > 0 and rank == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    with open(f"{name}.{rank}", "a") as log:
        print(self.owner.plan.iteration, len(indices), file=log)
    return real(self, indices, *others)
expectation._GroupPass.chunk = chunk
sys.exit(main(sys.argv[3:]))
"""


def run(folder: Path, output: str, processes: int, *further: str, most: int = 0) -> list[int]:
    """A run of so many processes, each started here as torchrun does; returns their exit codes."""
    words = [sys.executable, "-c", PROGRAM, output, str(most), *FLAGS, "--i", "particles.star", "--ref", "reference.mrc", "--o", f"{output}/run",
             "--auto_iter_max", "3", *further]  # fmt: skip
    common = {**os.environ, "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1",
              "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}  # fmt: skip
    places = [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
    running = [subprocess.Popen(words, cwd=folder, env=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for place in places]
    try:
        for process in running:
            process.communicate(timeout=LONGEST)
    finally:
        for process in running:
            process.kill()
            process.wait()
    return [process.returncode for process in running]


def particles_of(folder: Path, output: str, iteration: int) -> int:
    """How many particles all processes of the run worked on in that iteration."""
    lines = [line.split() for path in folder.glob(f"{output}.?") for line in path.read_text().splitlines()]
    return sum(int(count) for number, count in lines if int(number) == iteration)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed run, and of one whose second process was killed within the second iteration."""
    folder = tmp_path_factory.mktemp("set")
    imaging = Imaging(COUNT, (Camera(9.44, BOX),), snr=0.5, reference_resolution=50, seed=1)
    simulate.simulate(molecule.generate("D2", seed=1), folder, imaging)
    assert run(folder, "undisturbed", 2) == [0, 0]
    codes = run(folder, "killed", 2, "--checkpoint", "1e-9", most=3)
    assert codes[1] == -9 and codes[0] == 1
    return folder


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_run_of_two_processes_that_is_killed_within_an_iteration_goes_on_there(killed: Path, processes: int) -> None:
    output = f"resumed{processes}"
    shutil.copytree(killed / "killed", killed / output)
    parts = sorted((killed / output).glob("*_half*_checkpoint.npz"))
    assert {path.name.split("_")[1] for path in parts} == {"it002"} and (killed / output / "run_it002_plan_checkpoint.npz").exists()
    rows = [np.load(path)["rows"] for path in parts]
    done = np.unique(np.concatenate(rows))
    assert len(done) == sum(map(len, rows)) >= 3 * 64  # of the killed process alone three chunks
    assert set(run(killed, output, processes, "--resume")) == {0}
    assert particles_of(killed, output, 1) == 0 and particles_of(killed, output, 2) == COUNT - len(done)
    assert particles_of(killed, output, 3) == COUNT
    assert [path.name for path in (killed / output).glob("*_checkpoint.npz")] == ["run_it003_state_checkpoint.npz"]
    for half in (1, 2):
        maps = [mrc.read_map(killed / job / f"run_it003_half{half}_class001.mrc")[0] for job in (output, "undisturbed")]
        assert fsc.of_maps(*maps).min() > 0.99


def test_sums_that_were_written_twice_count_once(killed: Path) -> None:
    """As when a process has gone on from the sums of another, and the other's file is still there."""
    shutil.copytree(killed / "killed", killed / "twice")
    first, second = killed / "twice" / "run_it002_half2_rank1_checkpoint.npz", killed / "twice" / "run_it002_half2_rank7_checkpoint.npz"
    shutil.copyfile(first, second)
    done = sum(len(np.load(path)["rows"]) for path in (killed / "killed").glob("*_half*_checkpoint.npz"))
    (killed / "twice" / "run_it002_half1_checkpoint.npz").write_bytes(b"damaged")
    lost = len(np.load(killed / "killed" / "run_it002_half1_checkpoint.npz")["rows"])
    assert run(killed, "twice", 2, "--resume") == [0, 0]
    assert particles_of(killed, "twice", 2) == COUNT - done + lost
    maps = [mrc.read_map(killed / job / "run_it002_half2_class001.mrc")[0] for job in ("twice", "undisturbed")]
    assert fsc.of_maps(*maps).min() > 0.99
