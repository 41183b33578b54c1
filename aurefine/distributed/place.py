"""Which of how many processes this is, as the program that started it says: aurefine itself, torchrun, Slurm's srun, Open MPI or MPICH.

No torch here: the command line asks before it imports anything large.
"""

from __future__ import annotations

import os
import platform
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass

from aurefine.errors import AlreadyTold, InputError

LISTENER = "AUREFINE_LISTENER"  # descriptor of the socket that rank 0 of our own workers listens to
LIFELINE = "AUREFINE_LIFELINE"  # descriptor of a pipe that closes when the process that started the workers is gone
LOCAL = "127.0.0.1"
QUIET = 75  # exit code of a process that was ended because of another one
_FIRST_PORT, _PORTS = 20000, 12000


@dataclass(frozen=True)
class Place:
    """This process among all: its number and their count, the same on its machine, and where rank 0 is to be met.

    listener, lifeline: descriptors (see above), -1 where the workers are not our own; store_elsewhere: the meeting point is kept by whoever
    started the processes (torchrun).
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    host: str
    port: int
    listener: int = -1
    lifeline: int = -1
    store_elsewhere: bool = False

    @property
    def launched(self) -> bool:
        """Whether aurefine started this process itself: then that one shows how the job ended."""
        return self.lifeline >= 0

    @property
    def leads(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    @property
    def one_machine(self) -> bool:
        """Whether all processes are on this machine."""
        return self.local_size == self.size


# rank, number of processes, rank on the machine, number on the machine; of Slurm only what srun sets, for a batch script has SLURM_NTASKS, too
_STARTERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
)


def find(environment: Mapping[str, str] = os.environ) -> Place | None:
    """The place of this process; None where it is alone. InputError when it cannot be told where rank 0 is."""
    for names in _STARTERS:
        if names[0] in environment and names[1] in environment:
            rank, size = (_number(environment, name) for name in names[:2])
            if size <= 1:
                return None
            local_rank = _number(environment, names[2]) if names[2] in environment else rank
            local_size = _on_this_machine(environment, names[3], size)
            host, port = _meeting_point(environment, size, local_size)
            listener, lifeline = (int(environment.get(name, -1)) for name in (LISTENER, LIFELINE))
            elsewhere = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
            return Place(rank, size, local_rank, local_size, host, port, listener, lifeline, elsewhere)
    return None


def _number(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment[name])
    except ValueError as error:
        raise InputError(f"{name}={environment[name]}: a number was expected in this variable of the environment, which says who works together") \
            from error  # fmt: skip


def _on_this_machine(environment: Mapping[str, str], name: str, size: int) -> int:
    """Processes on this machine; Slurm lists those of every node as `4(x2),3`."""
    text = environment.get(name, str(size))
    counts = [int(count) for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text) for _ in range(int(times or 1))]
    node = _number(environment, "SLURM_NODEID") if name.startswith("SLURM") and "SLURM_NODEID" in environment else 0
    return counts[node] if node < len(counts) else size


def _meeting_point(environment: Mapping[str, str], size: int, local_size: int) -> tuple[str, int]:
    """Host and port of rank 0: MASTER_ADDR and MASTER_PORT, or the first node of a Slurm job, or this machine where it has all processes."""
    job = environment.get("SLURM_JOB_ID", "") + environment.get("SLURM_STEP_ID", "") or environment.get("PMIX_NAMESPACE", "")
    job = job or environment.get("OMPI_MCA_ess_base_jobid", "") or environment.get("PMI_JOBID", "") or str(os.getppid())
    port = _number(environment, "MASTER_PORT") if "MASTER_PORT" in environment else _FIRST_PORT + zlib.crc32(job.encode()) % _PORTS
    if not 0 < port < 1 << 16:
        raise InputError(f"MASTER_PORT={port}: the number of a port, 1 to 65535, was expected in this variable of the environment")
    if "MASTER_ADDR" in environment:
        return environment["MASTER_ADDR"], port
    if size == local_size:
        return LOCAL, port
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    if not nodes:
        raise InputError("Several machines work together, but none says where the first process is: set MASTER_ADDR to the name of its machine.")
    return first_node(nodes), port


def first_node(nodes: str) -> str:
    """The first name of Slurm's list of nodes: `gpu[003-005,9],login1` to `gpu003`."""
    found = re.match(r"([^\[,]*)(?:\[([^\]]*)\]([^,]*))?", nodes)
    if found is None:
        return nodes
    prefix, numbers, suffix = found.groups()
    return prefix + (re.split(r"[-,]", numbers)[0] + suffix if numbers else "")


def machine_name() -> str:
    """The name of this machine: processes with the same one share their images. AUREFINE_MACHINE is another one, such as that of a NUMA node."""
    return os.environ.get("AUREFINE_MACHINE") or platform.node()


@contextmanager
def only_the_first_speaks(shared: bool) -> Iterator[None]:
    """Inside, a process that is not the first of a `shared` job prints nothing: mistakes in the input, too, are told by the first."""
    place = find() if shared else None
    if place is None or place.leads:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        try:
            yield
        except InputError as error:
            raise AlreadyTold(QUIET) from error


def keeps_exit_files() -> bool:
    """Whether it is this process that leaves RELION_JOB_EXIT_...: not a worker that aurefine itself has started."""
    place = find()
    return place is None or (place.leads and not place.launched)
