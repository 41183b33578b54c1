"""Join the other processes of a run, and leave them: in peace, or with one message when something fails."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from aurefine import job_control
from aurefine.distributed.messages import Lost, guarded
from aurefine.distributed.network import choose_interface
from aurefine.distributed.place import QUIET, Place, keeps_exit_files, machine_name
from aurefine.distributed.ranks import Ranks
from aurefine.distributed.shared_images import of_this_machine
from aurefine.distributed.watch import Watch
from aurefine.errors import AlreadyTold, InputError
from aurefine.refine import devices, run_status, shortage
from aurefine.refine.console import Console
from aurefine.refine.options import RefineOptions
from aurefine.refine.start import use_threads
from aurefine.threads import thread_count

_MEETING = timedelta(minutes=10)  # until all processes have started
_FOREVER = timedelta(days=30)  # the watch ends a run that waits in vain


@dataclass(frozen=True)
class Member:
    """This process as one of many: its crew, the options as they are for it, and where it prints."""

    crew: Ranks
    place: Place

    def options(self, options: RefineOptions) -> RefineOptions:
        """The same for all, but for the GPU and the exit files."""
        seed = self.crew.once(lambda: options.seeded().random_seed)
        control = options.pipeline_control if keeps_exit_files() else ""
        return replace(options, random_seed=seed, gpu=own_gpu(options, self.place), pipeline_control=control)

    def console(self, options: RefineOptions) -> Console:
        """Only the first process prints."""
        return Console(verbosity=options.verbosity) if self.place.leads else Console(errors=io.StringIO(), verbosity=0)


def own_gpu(options: RefineOptions, place: Place) -> str | None:
    """The GPU of this process among those named (all, where none is), by its number on the machine; None without any."""
    count = torch.cuda.device_count()
    if options.gpu_numbers is None or count == 0:
        return options.gpu
    numbers = options.gpu_numbers if count > 1 and options.gpu_numbers else tuple(range(count))  # a batch system may show each only its own
    return str(numbers[place.local_rank % len(numbers)])


@contextmanager
def joined(place: Place, options: RefineOptions, directory: str, folder: Path) -> Iterator[Member]:
    """Work as one of many inside the block. `directory`: of the job's exit files, "" where another process keeps them; `folder`: of status.json.

    An error of the first process is raised, and ends the others; one of another process is told by the first.
    Raises AlreadyTold where there is nothing left to say.
    """
    meet = lambda master: dist.TCPStore(  # noqa: E731
        place.host, place.port, place.size, master, _MEETING, wait_for_workers=False,
        master_listen_fd=place.listener if master and place.listener >= 0 else None,
    )  # fmt: skip
    try:
        store = guarded(meet, place.leads and not place.store_elsewhere)

        def failed(message: str) -> None:
            if directory and not place.launched:  # else our starter does this
                job_control.leave_failure(directory)
            run_status.correct_last_status(folder, run_status.FAILED, message, ended=True)

        watch = Watch(place, lambda: meet(False), failed)
        sharing = _sharing(store, place)
    except (Lost, RuntimeError) as error:
        said = error.detail if isinstance(error, Lost) else str(error).splitlines()[0]
        raise InputError(
            f"rank {place.rank} of {place.size}: the processes did not meet at {place.host}, port {place.port} ({said}). "
            "Does every one of them run this program, and may they reach that machine? MASTER_ADDR and MASTER_PORT name another place."
        ) from error
    watch.start()
    try:
        threads = use_threads(options.threads, sharing)
        with shortage.explained(options.output):
            device = devices.of_halves(replace(options, gpu=own_gpu(options, place)))[0]
            wire = _initialise(store, place, device)
            names = [store.get(f"device/{rank}").decode().split()[0] for rank in range(place.size)]
            member = Member(Ranks(store, threads, wire, of_this_machine(names, place.rank), place.local_size), place)
        yield member
    except Lost as lost:
        watch.wait_for_verdict()
        print(f"aurefine: rank {place.rank} has lost the others: {lost.detail}", file=sys.stderr)
        raise AlreadyTold(1 if place.leads else QUIET) from lost
    except BaseException as error:
        interrupted, known = isinstance(error, KeyboardInterrupt), isinstance(error, InputError)
        if place.leads:
            if place.launched and interrupted:
                watch.ending(1)
                raise AlreadyTold(QUIET) from error  # our starter tells it
            reason = watch.lost() if interrupted else ""
            watch.ending(1)
            if reason:
                print(f"aurefine: {reason}", file=sys.stderr, flush=True)
                failed(reason)
                raise AlreadyTold(1) from error
            raise
        if not known and not interrupted:
            traceback.print_exc()
        watch.report(str(error) if known else f"{type(error).__name__}: {error}", 2 if known else 1, wait=not interrupted)
        raise AlreadyTold(QUIET) from error
    watch.leave()
    dist.destroy_process_group()


def _sharing(store: dist.Store, place: Place) -> int:
    """How many processes share the cores of this one: those on the same machine that may use the same cores."""
    mine = f"{machine_name()} {sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else thread_count(0)}"
    store.set(f"cores/{place.rank}", mine)
    return [store.get(f"cores/{rank}").decode() for rank in range(place.size)].count(mine)


def _initialise(store: dist.Store, place: Place, device: torch.device) -> torch.device:
    """gloo between CPUs; NCCL, too, where every process has a GPU of its own. Returns the device between which large sums travel."""
    choose_interface(store, place)
    backend, wire = "gloo", torch.device("cpu")
    gpu = torch.cuda.get_device_properties(device).uuid if device.type == "cuda" else ""
    store.set(f"device/{place.rank}", f"{machine_name()} {gpu}")
    every = [store.get(f"device/{rank}").decode() for rank in range(place.size)]
    if gpu:
        devices.share(device, every.count(every[place.rank]))
    if dist.is_nccl_available() and all(each.split()[1:] for each in every) and len(set(every)) == len(every):
        torch.cuda.set_device(device)
        backend, wire = "cpu:gloo,cuda:nccl", device
    begin = lambda: dist.init_process_group(  # noqa: E731
        backend, store=dist.PrefixStore("group", store), rank=place.rank, world_size=place.size, timeout=_FOREVER
    )
    try:
        guarded(begin)
    except Lost as error:
        raise InputError(
            f"rank {place.rank} of {place.size}: the processes have met, but no connection from one to the other can be made "
            f"({error.detail}). Does a firewall close ports? GLOO_SOCKET_IFNAME={os.environ.get('GLOO_SOCKET_IFNAME', '')} names the "
            "network interface that is used; set it to another one on each machine."
        ) from error
    return wire
