"""Two hosts with a network between them: namespaces of the kernel, each with a name and addresses of its own, joined by a virtual cable."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_distributed import LONGEST, command, wait_for

from aurefine import job_control, molecule, mrc, simulate
from aurefine.imaging import Camera, Imaging
from aurefine.refine.run_status import read_status

SILENCE = 4  # seconds
NAMES = tuple(f"aurefine{os.getpid()}{letter}" for letter in "ab")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[str, str]]:
    """Names of two hosts, 10.99.0.1 and 10.99.0.2."""
    if sys.platform != "linux" or not shutil.which("ip") or not shutil.which("unshare"):
        pytest.skip("hosts are namespaces of a Linux kernel, made with ip and unshare")
    try:
        ip("netns", "add", NAMES[0])
    except subprocess.CalledProcessError as error:
        pytest.skip(f"namespaces cannot be made here: {error.stderr.decode().strip()}")
    try:
        ip("netns", "add", NAMES[1])
        ip("link", "add", "cable", "netns", NAMES[0], "type", "veth", "peer", "name", "cable", "netns", NAMES[1])
        for number, name in enumerate(NAMES, 1):
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "address", "add", f"10.99.0.{number}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
        yield NAMES[0], NAMES[1]
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("set")
    simulate.simulate(molecule.generate("D2", seed=1), made, Imaging(400, (Camera(9.44, 24),), snr=0.5, reference_resolution=50, seed=1))
    return made


def on(host: str, folder: Path, output: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    """The command line on a host whose name nobody can look up, as in many containers."""
    words = [*command(folder, output), "--auto_iter_max", "3"]
    place = ["ip", "netns", "exec", host, "unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', host]
    variables = {name: value for name, value in os.environ.items() if name not in ("GLOO_SOCKET_IFNAME", "AUREFINE_MACHINE")} | environment
    variables |= {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    variables["AUREFINE_SILENCE_SECONDS"] = str(SILENCE)
    pipe = subprocess.PIPE
    return subprocess.Popen([*place, sys.executable, "-m", "aurefine", *words], cwd=folder, env=variables, stdout=pipe, stderr=pipe, text=True)


def torchrun(rank: int) -> dict[str, str]:
    """What torchrun sets with two nodes of one process."""
    return {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "10.99.0.1", "MASTER_PORT": "29513"}


def srun(rank: int) -> dict[str, str]:
    """What srun sets with two nodes of one task, on a cluster whose nodes are named by their addresses."""
    return {"SLURM_PROCID": str(rank), "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0", "SLURM_NODEID": str(rank), "SLURM_JOB_ID": "7",
            "SLURM_STEP_ID": "0", "SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_STEP_NODELIST": "10.99.0.1,10.99.0.2"}  # fmt: skip


@pytest.mark.parametrize("starter", [torchrun, srun])
def test_two_hosts_work_together_over_their_network(hosts: tuple[str, str], folder: Path, starter) -> None:
    output = starter.__name__
    running = [on(host, folder, output, starter(rank)) for rank, host in enumerate(hosts)]
    try:
        (printed, errors), (silent, others) = (process.communicate(timeout=LONGEST) for process in running)
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert [process.returncode for process in running] == [0, 0], errors + others
    assert printed.count(" Auto-refine: Iteration= 2\n") == 1 and silent == ""
    assert (folder / output / job_control.SUCCESS).is_file() and (folder / output / "run_it003_optimiser.star").exists()
    map_, _ = mrc.read_map(folder / output / "run_it003_half1_class001.mrc")
    truth, _ = mrc.read_map(folder / "truth.mrc")
    assert np.corrcoef(map_.ravel(), truth.ravel())[0, 1] > 0.9


def test_a_host_that_drops_off_the_network_ends_the_run_on_both(hosts: tuple[str, str], folder: Path) -> None:
    running = [on(host, folder, "dropped", torchrun(rank)) for rank, host in enumerate(hosts)]
    try:
        wait_for(running[0], "Expectation iteration 1")
        ip("-n", hosts[1], "link", "set", "cable", "down")
        began = time.monotonic()
        (_, errors), (_, others) = (process.communicate(timeout=LONGEST) for process in running)
        took = time.monotonic() - began
    finally:
        ip("-n", hosts[1], "link", "set", "cable", "up")
        for process in running:
            process.kill()
            process.wait()
    told = [line for line in errors.splitlines() if line.startswith("aurefine:")]
    assert running[0].returncode == 1 and len(told) == 1, errors
    assert told[0].startswith("aurefine: rank 1 (process ") and f"on {hosts[1]}) has said nothing for {SILENCE} seconds" in told[0]
    assert running[1].returncode == 1 and f"rank 0 has said nothing for {SILENCE} seconds" in others
    assert took < 10 * SILENCE
    assert (folder / "dropped" / job_control.FAILURE).is_file() and read_status(folder / "dropped").state == "failed"
