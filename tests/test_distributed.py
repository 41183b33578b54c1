"""Several processes give the answer of one, and when one of them fails all end, with one message."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist

from aurefine import euler, fsc, job_control, mask, molecule, mrc, simulate, star
from aurefine.cli.main import main
from aurefine.distributed import launch, messages, place, ranks, run, sphere, watch
from aurefine.errors import InputError
from aurefine.imaging import Camera, Imaging
from aurefine.refine import devices, transforms_torch
from aurefine.refine.run_status import read_status
from aurefine.symmetry import point_group

LONGEST = 100  # seconds that any run may take before a test gives up on it
FLAGS = (
    "refine --auto_refine --split_random_halves --firstiter_cc --ini_high 50 --ctf --particle_diameter 200 --flatten_solvent --zero_mask "
    "--auto_ignore_angles --auto_resol_angles --offset_range 5 --sym D2 --low_resol_join_halves 40 --norm --scale --random_seed 1"
).split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small set: 500 particles, so that each half-set has several pieces."""
    made = tmp_path_factory.mktemp("set")
    simulate.simulate(molecule.generate("D2", seed=1), made, Imaging(500, (Camera(9.44, 24),), snr=0.5, reference_resolution=50, seed=1))
    return made


def command(folder: Path, output: str, *further: str) -> list[str]:
    return [*FLAGS, "--i", "particles.star", "--ref", "reference.mrc", "--o", f"{output}/run", "--pipeline_control", f"{output}/", *further]


@contextlib.contextmanager
def started(words: list[str], folder: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A process of the command line; killed, with all that it has started, at the end of the block."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(Path(__file__).parents[1]), **variables}
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    children = children_of(process.pid)
    try:
        yield process
    finally:
        children |= children_of(process.pid)
        for pid in [process.pid, *children]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()


def children_of(pid: int) -> set[int]:
    try:
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    except OSError:
        return set()


def rank_of(pid: int) -> int:
    words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next(int(word.partition(b"=")[2]) for word in words if word.startswith(b"RANK="))


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    """Read what the process prints until a line holds `text`."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    pytest.fail(f"{text!r} was never printed: {process.stderr.read() if process.stderr else ''}")


AUREFINE = [sys.executable, "-m", "aurefine"]


# ---------------------------------------------------------------------- the same answer
@pytest.fixture(scope="module")
def alone(folder: Path) -> Path:
    """The run of one process."""
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        assert main(command(folder, "alone")) == 0
    return folder / "alone"


def test_two_processes_give_the_answer_of_one(folder: Path, alone: Path) -> None:
    with started([*AUREFINE, *command(folder, "two", "--processes", "2")], folder) as process:
        printed, errors = process.communicate(timeout=LONGEST)
    assert process.returncode == 0, errors
    assert (folder / "two" / job_control.SUCCESS).is_file()
    told = errors.splitlines()
    assert len(told) == len(set(told)) and "aurefine:" not in errors  # each warning once
    assert printed.count("Final resolution") == 1 and printed.count(" Auto-refine: Iteration= 2\n") == 1
    assert {path.name for path in (folder / "two").iterdir()} == {path.name for path in alone.iterdir()}
    assert_alike(folder / "two", alone)


def assert_alike(one: Path, other: Path, same: float = 0.95, correlation: float = 0.9999) -> None:
    maps = [mrc.read_map(job / "run_class001.mrc")[0] for job in (one, other)]
    assert fsc.of_maps(*maps).min() > 0.99 and np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1] > correlation
    tables = [star.read_table(job / "run_data.star", "particles") for job in (one, other)]
    assert np.array_equal(tables[0]["rlnRandomSubset"], tables[1]["rlnRandomSubset"])
    angles = [np.column_stack([table[f"rlnAngle{name}"] for name in ("Rot", "Tilt", "Psi")]) for table in tables]
    turned = euler.angular_difference(*(euler.to_matrix(each) for each in angles), point_group("D2").operators)
    assert np.median(turned) < 0.01 and np.mean(turned < 1) > same
    assert np.median(np.abs(tables[0]["rlnOriginXAngst"] - tables[1]["rlnOriginXAngst"])) < 0.01


def test_under_torchrun_the_processes_find_each_other_and_the_first_alone_speaks(folder: Path, alone: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "aurefine"]
    with started([*torchrun, *command(folder, "torchrun", "--auto_iter_max", "1")], folder) as process:
        printed, errors = process.communicate(timeout=LONGEST)
    assert process.returncode == 0, errors
    assert printed.count(" Auto-refine: Iteration= 1\n") == 1 and (folder / "torchrun" / job_control.SUCCESS).is_file()
    maps = [mrc.read_map(job / "run_it001_half1_class001.mrc")[0] for job in (folder / "torchrun", alone)]
    assert np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1] > 0.999


def test_two_machines_each_keep_half_of_the_images_and_give_the_answer_of_one(folder: Path, alone: Path) -> None:
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    common["GLOO_SOCKET_IFNAME"] = "lo"
    words = [*AUREFINE, *command(folder, "machines")]
    machines = ({"RANK": "0", "AUREFINE_MACHINE": "a"}, {"RANK": "1", "AUREFINE_MACHINE": "b"})
    with started(words, folder, **common, **machines[0]) as first, started(words, folder, **common, **machines[1]) as second:
        printed, errors = first.communicate(timeout=LONGEST)
        assert second.communicate(timeout=LONGEST)[0] == ""
    assert first.returncode == second.returncode == 0, errors
    assert printed.count("Final resolution") == 1
    assert_alike(folder / "machines", alone, same=0.8, correlation=0.9998)  # the first noise spectrum is of the images of one machine


# An M-step by plain torch, as on a GPU: in it, and where sums are exchanged before it, nothing is the CPU's.
BY_DEVICE = """
import sys
from aurefine.cli.main import main
from aurefine.distributed import exchange
from aurefine.refine import devices, loop

compiled = [True]
devices.compiled = lambda device: compiled[0]

def by_device(work):
    def worked(*arguments):
        compiled[0] = False
        try:
            return work(*arguments)
        finally:
            compiled[0] = True
    return worked

exchange.add_up, loop._maximisation = by_device(exchange.add_up), by_device(loop._maximisation)
sys.exit(main(sys.argv[1:]))
"""


def test_two_processes_that_maximise_on_their_devices_give_the_answer_of_one(folder: Path) -> None:
    mrc.write_map(folder / "mask.mrc", np.array(mask.soft_edge(24, 3, 7.0, 4.0)), 9.44)
    masked = ("--solvent_mask", "mask.mrc", "--solvent_correct_fsc")
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        assert main(command(folder, "masked", *masked)) == 0
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "GLOO_SOCKET_IFNAME": "lo"}
    words = [sys.executable, "-c", BY_DEVICE, *command(folder, "by_device", *masked)]
    with started(words, folder, RANK="0", LOCAL_RANK="0", **common) as first, started(words, folder, RANK="1", LOCAL_RANK="1", **common) as second:
        _, errors = first.communicate(timeout=LONGEST)
        second.communicate(timeout=LONGEST)
    assert first.returncode == second.returncode == 0, errors
    for name in ("run_it001_half1_class001.mrc", "run_it001_half2_class001.mrc", "run_half2_class001_unfil.mrc"):
        one, other = (mrc.read_map(folder / job / name)[0].ravel() for job in ("masked", "by_device"))
        assert np.corrcoef(one, other)[0, 1] > 0.9999, name
    assert_alike(folder / "by_device", folder / "masked")


# ---------------------------------------------------------------------- when one fails
@pytest.mark.parametrize(("number", "said"), [(signal.SIGKILL, "was killed by SIGKILL"), (signal.SIGSTOP, "was stopped (SIGSTOP)")])
def test_a_worker_that_is_killed_or_stopped_ends_the_run(folder: Path, number: int, said: str) -> None:
    with started([*AUREFINE, *command(folder, f"ended{number}", "--processes", "2")], folder) as process:
        wait_for(process, "Expectation iteration 1")
        workers = {rank_of(pid): pid for pid in children_of(process.pid)}
        os.kill(workers[1], number)
        _, errors = process.communicate(timeout=LONGEST)
        assert process.returncode == 1
        told = [line for line in errors.splitlines() if line.startswith("aurefine:")]
        assert len(told) == 1 and told[0].startswith(f"aurefine: rank 1 (process {workers[1]}) {said}"), errors
        assert (folder / f"ended{number}" / job_control.FAILURE).is_file()
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers.values())


def test_without_a_common_starter_a_process_that_falls_silent_is_named(folder: Path) -> None:
    """As under srun: nobody but the processes themselves can notice."""
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "AUREFINE_SILENCE_SECONDS": "2"}
    words = [*AUREFINE, *command(folder, "silent")]
    with started(words, folder, RANK="0", **common) as first, started(words, folder, RANK="1", **common) as second:
        wait_for(first, "Expectation iteration 1")
        second.send_signal(signal.SIGSTOP)
        _, errors = first.communicate(timeout=LONGEST)
    told = [line for line in errors.splitlines() if line.startswith("aurefine:")]
    assert first.returncode == 1 and len(told) == 1
    assert told[0].startswith(f"aurefine: rank 1 (process {second.pid} on ") and "has said nothing for 2 seconds" in told[0]
    assert (folder / "silent" / job_control.FAILURE).is_file()


@pytest.mark.parametrize("cause", ["killed", "cancelled"])
def test_a_signal_to_all_is_told_from_the_death_of_one(folder: Path, cause: str) -> None:
    """srun ends all processes by SIGTERM both when the user cancels the job and when one of them has died."""
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "AUREFINE_SILENCE_SECONDS": "20"}
    words = [*AUREFINE, *command(folder, cause)]
    with started(words, folder, RANK="0", **common) as first, started(words, folder, RANK="1", **common) as second:
        wait_for(first, "Expectation iteration 2")
        second.send_signal(signal.SIGKILL if cause == "killed" else signal.SIGTERM)
        first.send_signal(signal.SIGTERM)
        _, errors = first.communicate(timeout=LONGEST)
    told = [line for line in errors.splitlines() if line.startswith("aurefine:")]
    assert len(told) == 1, errors
    state = read_status(folder / cause).state
    if cause == "killed":
        assert first.returncode == 1 and state == "failed" and (folder / cause / job_control.FAILURE).is_file()
        assert told[0].startswith(f"aurefine: rank 1 (process {second.pid} on ") and "is gone" in told[0]
    else:
        assert first.returncode == 143 and state == "interrupted" and (folder / cause / job_control.ABORTED).is_file()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def test_bad_input_is_told_once(folder: Path) -> None:
    table = (folder / "particles.star").read_text().replace("Particles/", "Missing/")
    (folder / "bad.star").write_text(table)
    words = [word if word != "particles.star" else "bad.star" for word in command(folder, "bad", "--processes", "2")]
    with started([*AUREFINE, *words], folder) as process:
        printed, errors = process.communicate(timeout=LONGEST)
    assert process.returncode == 2 and "Traceback" not in errors + printed, errors
    assert errors.count("aurefine:") == 1 and "Missing/" in errors and (folder / "bad" / job_control.FAILURE).is_file()


def test_a_job_of_several_processes_that_is_told_to_stop_stops(folder: Path) -> None:
    with started([*AUREFINE, *command(folder, "aborted", "--processes", "2")], folder) as process:
        wait_for(process, "Expectation iteration 2")
        (folder / "aborted" / job_control.ABORT_NOW).touch()
        _, errors = process.communicate(timeout=LONGEST)
    assert process.returncode == 2 and errors.count("aurefine:") == 1 and "the job was stopped" in errors
    left = {path.name for path in (folder / "aborted").iterdir()}
    assert job_control.ABORTED in left and not left & {job_control.ABORT_NOW, job_control.SUCCESS, job_control.FAILURE}
    assert "run_it001_optimiser.star" in left and not any(name.endswith(".tmp") for name in left)


# ---------------------------------------------------------------------- parts
SLURM = {"SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0", "SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "7", "SLURM_LOCALID": "1", "SLURM_NODEID": "1",
         "SLURM_STEP_TASKS_PER_NODE": "4,3", "SLURM_STEP_NODELIST": "gpu[003-004]"}  # fmt: skip
OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}


def test_every_starter_says_who_is_who() -> None:
    assert place.find({}) is None
    assert place.find({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "77"}) is None  # a batch script: srun has started nothing yet
    assert place.find({"RANK": "0", "WORLD_SIZE": "1"}) is None
    slurm = place.find(SLURM)
    assert slurm is not None and (slurm.rank, slurm.size, slurm.local_rank, slurm.local_size, slurm.host) == (5, 7, 1, 3, "gpu003")
    mpi = place.find(OPEN_MPI)
    assert mpi is not None and (mpi.rank, mpi.size, mpi.local_rank, mpi.local_size, mpi.host) == (1, 2, 1, 2, place.LOCAL)
    torchrun = place.find({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "7"})
    assert torchrun is not None and (torchrun.host, torchrun.port, torchrun.one_machine) == ("a", 7, False)
    with pytest.raises(InputError, match="set MASTER_ADDR"):
        place.find({**OPEN_MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "1"})
    with pytest.raises(InputError, match="WORLD_SIZE=many: a number was expected"):
        place.find({"RANK": "0", "WORLD_SIZE": "many"})
    with pytest.raises(InputError, match="MASTER_PORT=abc: a number was expected"):
        place.find({**OPEN_MPI, "MASTER_PORT": "abc"})
    with pytest.raises(InputError, match="MASTER_PORT=70000: the number of a port"):
        place.find({**OPEN_MPI, "MASTER_PORT": "70000"})
    with pytest.raises(InputError, match="SLURM_NODEID=x: a number was expected"):
        place.find({**SLURM, "SLURM_NODEID": "x"})


class Store:
    """Stands for the store of the processes: it keeps what it is given until it is `gone`."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.gone = False

    def set(self, name: str, value: str) -> None:
        if self.gone:
            raise RuntimeError("Broken pipe")
        self.values[name] = value

    def set_timeout(self, timeout: object) -> None:
        """Nothing takes time here."""


@pytest.mark.parametrize("seconds", ["abc", "0", "-1", "nan", "inf"])
def test_a_silence_that_is_no_time_is_one_message(monkeypatch: pytest.MonkeyPatch, seconds: str) -> None:
    monkeypatch.setenv("AUREFINE_SILENCE_SECONDS", seconds)
    with pytest.raises(InputError, match=f"AUREFINE_SILENCE_SECONDS={seconds}: seconds, more than 0, were expected"):
        watch.Watch(place.Place(0, 2, 0, 2, place.LOCAL, 1), Store, print)


def test_the_first_process_leaves_when_torchrun_and_its_store_are_gone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("AUREFINE_SILENCE_SECONDS", "0.1")
    left: list[int] = []
    monkeypatch.setattr(watch, "_leave", left.append)
    store, failures = Store(), list[str]()
    watching = watch.Watch(place.Place(0, 2, 0, 2, place.LOCAL, 1, store_elsewhere=True), lambda: store, failures.append)
    store.gone = True
    watching._live()
    told = "the program that keeps the store of the processes (torchrun) is gone: it was killed, or has died. The run ends."
    assert left == [1] and failures == [told] and capsys.readouterr().err == f"aurefine: {told}\n"


def test_memory_that_is_short_is_not_taken_for_the_loss_of_a_process() -> None:
    def failing(said: str) -> None:
        raise RuntimeError(said)

    with pytest.raises(messages.Lost):
        messages.guarded(failing, "Connection reset by peer")
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        messages.guarded(failing, "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")


@pytest.mark.parametrize(("nodes", "first"), [("gpu003", "gpu003"), ("gpu[003-005,9],x", "gpu003"), ("a,b", "a"), ("n[1,3]-ib", "n1-ib")])
def test_the_first_of_slurms_nodes(nodes: str, first: str) -> None:
    assert place.first_node(nodes) == first


@pytest.mark.parametrize(("count", "workers"), [(0, 1), (1, 3), (199, 1), (500, 1), (40_000, 4), (5_000_000, 32)])
def test_pieces_cover_all_particles_and_shrink(count: int, workers: int) -> None:
    bounds = ranks.piece_bounds(count, workers)
    sizes = np.diff(bounds)
    assert bounds[0] == 0 and bounds[-1] == count and (sizes > 0).all()
    assert (np.diff(sizes[:-1]) <= 0).all()
    if count > 10_000:
        assert sizes[0] <= count / workers / 2 and sizes.max() < 100 * sizes.min()


@pytest.mark.parametrize(
    ("beside", "threads", "halves", "helped"),
    [([0, 1], 1, 1, [0]), ([0, 1, 2], 1, 2, [0, 1]), ([0, 2], 1, 2, [0, 1]), ([0, 1], 4, 2, [0, 1])],
)
def test_half_sets_are_left_alone_by_each_other_while_sums_are_large(beside, threads, halves, helped, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless a machine's processes cannot share out both half-sets without going over, or each works on both with its threads anyway."""
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "get_world_size", lambda: len(beside))
    monkeypatch.setattr(dist, "new_group", lambda ranks: None)
    monkeypatch.setattr(ranks.exchange, "add_up", lambda sums, wire: sums)
    monkeypatch.setattr(ranks.exchange, "spread", lambda rows, updates: None)
    monkeypatch.setattr(ranks, "_WORTH", -1.0)  # going over is always worth it
    images = ranks.SharedImages(ranks.Machine(0, 1, beside), None)
    crew = ranks.Ranks(dist.HashStore(), threads, storage=images)
    assert crew.halves == halves

    def touched(large: bool) -> list[int]:
        seen: list[int] = []

        def work(half: int, pieces) -> None:
            seen.append(half)
            assert max(len(piece) for piece in pieces) <= crew.largest_piece(1000)

        crew.share_out(work, [np.arange(1000), np.arange(1000)], None, True, large)
        return sorted(seen)

    assert touched(large=True) == helped
    assert touched(large=False) == [0, 1]


@pytest.mark.parametrize("compiled", [True, False])  # elsewhere than on a CPU, plain torch does it
def test_a_sphere_is_packed_and_put_back_and_the_rest_left_out(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "compiled", lambda device: compiled)
    monkeypatch.setattr(transforms_torch, "_VOXELS", 500)  # several stretches of planes
    h, radius = 9, 6
    cube = torch.from_numpy(np.random.default_rng(1).normal(size=(2 * h + 1, 2 * h + 1, h + 1, 4)).astype(np.float32))
    packer = sphere.Sphere(h, radius)
    z, y, x = np.ogrid[-h : h + 1, -h : h + 1, : h + 1]
    inside = torch.from_numpy(x**2 + y**2 + z**2 <= (radius + 2) ** 2)
    assert packer.voxels == inside.sum() < inside.numel() / 2
    back = torch.zeros_like(cube)
    packed = torch.empty((packer.voxels, 3))
    packer.pack(cube, packed)
    assert torch.equal(packed, cube[inside][:, :3])  # all ranks list them in the same order, whatever their device
    packer.unpack(packed, back)
    assert torch.equal(back[inside][:, :3], cube[inside][:, :3]) and not back[~inside].any() and not back[..., 3].any()
    parts = torch.empty((packer.voxels, 3))  # from two cubes, as data and weights are
    packer.pack(cube[..., :2], parts[:, :2])
    packer.pack(cube[..., 2:3], parts[:, 2:])
    assert torch.equal(parts, packed)


@pytest.mark.parametrize(
    ("gpus", "wire", "backend"), [(("a", "b"), "cuda:0", "cpu:gloo,cuda:nccl"), (("a", "a"), "cpu", "gloo"), (("a", ""), "cpu", "gloo")]
)
def test_sums_travel_between_gpus_where_every_process_has_its_own(gpus, wire, backend, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    store = dist.HashStore()
    store.set("device/1", f"{place.machine_name()} {gpus[1]}")
    monkeypatch.setattr(run, "choose_interface", lambda store, place: None)
    monkeypatch.setattr(dist, "is_nccl_available", lambda: True)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **others: begun.append(backend))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=gpus[0]))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    here = place.Place(0, 2, 0, 2, place.LOCAL, 1)
    assert run._initialise(store, here, torch.device("cuda", 0)) == torch.device(wire)
    assert begun == [backend]


def test_objects_travel_with_their_arrays_and_tensors() -> None:
    large = np.arange(100_000, dtype=np.float32)
    value = {"large": large, "tensor": torch.arange(50_000.0), "small": np.ones(3), "text": "x"}
    parts = messages.pack(value)
    assert len(parts) == 3 and parts[0].nbytes < 10_000 and np.shares_memory(parts[1], large)
    back = messages.unpack([part.copy() for part in parts])
    assert np.array_equal(back["large"], large) and torch.equal(back["tensor"], value["tensor"]) and back["text"] == "x"
    back["large"][0] = 5  # what arrives may be written to


def test_one_process_for_each_gpu_unless_their_number_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    cases: list[tuple[int, tuple[int, ...] | None, int]] = [(0, None, 1), (3, None, 3), (0, (), 4), (0, (0, 2), 2), (2, (0, 1, 2, 3), 2)]
    assert [launch.workers(asked, gpus) for asked, gpus, _ in cases] == [expected for *_, expected in cases]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert launch.workers(0, (0, 1)) == 1
