"""Start own workers of a command line on this machine, and end them all when one fails: `--processes 4`, or `--gpu 0:1:2:3`."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from aurefine.distributed.place import LIFELINE, LISTENER, LOCAL, QUIET
from aurefine.errors import AlreadyTold
from aurefine.job_control import JobControl

_POLL_SECONDS = 0.05
_LOOKS = 10  # polls between two looks at files (the request to stop, what the kernel says of the workers): those cost a percent of a core
_STOPPED_SECONDS = 3.0  # a worker that is stopped (SIGSTOP) for so long, while we are not, is not coming back
_GRACE_SECONDS = 3.0  # in which the first process may leave by itself
_CAUSE_SECONDS = 20.0  # in which the process that has told the error ends, once another one has left because of it


def workers(processes: int, gpus: Sequence[int] | None) -> int:
    """How many processes a run on this machine has: those asked for, else one for each GPU (an empty list: all there are), else one."""
    if processes > 0 or gpus is None:
        return max(1, processes)
    return max(1, min(len(gpus) or gpus_here(), gpus_here()))


def gpus_here() -> int:
    """NVIDIA GPUs that this process may use, without asking torch, which takes seconds to load."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() and name.strip() != "-1"])
    return len([path for path in Path("/dev").glob("nvidia[0-9]*") if path.name[6:].isdigit()])


def launch(command: Sequence[str], count: int, control: JobControl) -> None:
    """Run `aurefine <command>` in `count` processes until all have ended well; only the first one prints.

    Raises JobAborted where the job is told to stop, AlreadyTold when a worker has failed.
    """
    with socket.create_server((LOCAL, 0)) as listener:
        ours, theirs = os.pipe()
        try:
            running = [_start(command, rank, count, listener, ours) for rank in range(count)]
        finally:
            os.close(ours)
    try:
        _watch(running, control)
    finally:
        _end(running)
        os.close(theirs)


def _start(command: Sequence[str], rank: int, count: int, listener: socket.socket, lifeline: int) -> subprocess.Popen[bytes]:
    """One worker: it finds its place in the environment, as one of torchrun's does."""
    environment = {
        **os.environ, "RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": LOCAL, "MASTER_PORT": str(listener.getsockname()[1]), LIFELINE: str(lifeline),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }  # fmt: skip
    given = [lifeline]
    if rank == 0:
        environment[LISTENER] = str(listener.fileno())
        given.append(listener.fileno())
    return subprocess.Popen(
        [sys.executable, "-m", "aurefine", *command], stdin=subprocess.DEVNULL, stdout=None if rank == 0 else subprocess.DEVNULL, env=environment,
        pass_fds=given, start_new_session=True,  # a Ctrl-C comes once: here
    )  # fmt: skip


def _watch(running: Sequence[subprocess.Popen[bytes]], control: JobControl) -> None:
    """Until all have ended: raises when one has failed, or is stopped for good."""
    stopped_since: dict[int, int] = {}
    for poll in itertools.count():
        codes = [worker.poll() for worker in running]
        if any(codes):
            _failed(running)
        if None not in codes:
            return
        if poll % _LOOKS == 0:
            control.check()
            for rank, worker in enumerate(running):
                stopped_since[rank] = stopped_since.get(rank, 0) + 1 if _is_stopped(worker) else 0
                if stopped_since[rank] * _LOOKS * _POLL_SECONDS > _STOPPED_SECONDS:
                    _tell(f"rank {rank} (process {worker.pid}) was stopped (SIGSTOP) and does not go on. The run ends.")
        time.sleep(_POLL_SECONDS)


def _failed(running: Sequence[subprocess.Popen[bytes]]) -> None:
    """One has ended with an error: the one that is not the consequence of another's is the cause, which it has told itself unless it was killed."""
    end = time.monotonic() + _CAUSE_SECONDS
    while time.monotonic() < end and {worker.poll() for worker in running} <= {None, 0, QUIET}:
        time.sleep(_POLL_SECONDS)
    for rank, worker in sorted(enumerate(running), key=lambda each: each[1].returncode in (0, QUIET)):
        code = worker.returncode
        if code is None or code == 0:
            continue
        if code < 0:
            reason = " Was there too little memory?" if code == -signal.SIGKILL else ""
            _tell(f"rank {rank} (process {worker.pid}) was killed by {signal.Signals(-code).name}.{reason} The run ends.")
        if rank or code == QUIET:
            _tell(f"rank {rank} (process {worker.pid}) ended with exit code {code}. The run ends.")
        raise AlreadyTold(code)


def _tell(message: str) -> None:
    print(f"aurefine: {message}", file=sys.stderr, flush=True)
    raise AlreadyTold(1)


def _is_stopped(worker: subprocess.Popen[bytes]) -> bool:
    """Whether the kernel says so (Linux; elsewhere the workers' own watch notices)."""
    try:
        return Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except (OSError, IndexError):
        return False


def _end(running: Sequence[subprocess.Popen[bytes]]) -> None:
    """End what still runs: the first one, which writes, is asked to, so that it leaves its files as they are to be; what is there is whole anyway."""
    first = running[0]
    if first.poll() is None:
        first.terminate()
        with suppress(subprocess.TimeoutExpired):
            first.wait(_GRACE_SECONDS)
    for worker in running:
        if worker.poll() is None:
            worker.kill()
            worker.wait()
