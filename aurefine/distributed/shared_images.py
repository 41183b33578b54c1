"""Images that all processes of a machine share, in memory or on scratch: each reads its part of them, none holds them for itself alone.

Of several machines each keeps every so-manieth image.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from aurefine.distributed import messages
from aurefine.distributed.messages import guarded
from aurefine.refine.examination import Examination
from aurefine.refine.image_stacks import ImageStack, InMemory, OnScratch
from aurefine.refine.scratch import Scratch

_PLACES = ("/dev/shm", tempfile.gettempdir())
_SPARE = 1.1  # so many times the size must be free


@dataclass(frozen=True)
class Machine:
    """One of `count` machines, with the ranks of its processes."""

    number: int
    count: int
    ranks: list[int]


class SharedImages:
    """Where `ImageCache` keeps its images: files in memory, mapped by the processes of this `machine`, which are one `group`, or files on scratch.

    Where neither /dev/shm nor the folder for temporary files has room, every process keeps its machine's part for itself; where scratch has none,
    images are read from where they came from.
    """

    def __init__(self, machine: Machine, group: dist.ProcessGroup) -> None:
        self.machine, self._ranks, self._group = machine, machine.ranks, group
        self._number = machine.ranks.index(dist.get_rank())
        self._shared = True

    def part(self, members: np.ndarray) -> np.ndarray:
        """The particles that this machine keeps."""
        return members[self.machine.number :: self.machine.count]

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype, scratch: Scratch | None) -> ImageStack | None:
        """A stack that is the same in all processes; called by all of them alike."""
        size, create = math.prod(shape) * dtype.itemsize, _create if scratch is None else scratch.create
        wanted = size and self._number == 0 and (len(self._ranks) > 1 or scratch is not None)
        path = self._from_first(create(size) if wanted else "")
        self._shared = bool(path) or scratch is not None  # what is at its source needs to be looked at by one of all, too
        if not path:
            return InMemory(torch.empty(shape, dtype=dtype)) if scratch is None else None
        stack: ImageStack
        if scratch is None:
            stack = InMemory(torch.from_file(path, shared=True, size=math.prod(shape), dtype=dtype).view(shape))
        else:
            stack = OnScratch(path, shape, dtype)
        guarded(dist.barrier, self._group)
        if self._number == 0:
            os.unlink(path)  # its contents are there as long as somebody has it open, however that process ends
        return stack

    def chunks(self, count: int, size: int) -> Iterable[slice]:
        """This process's part of `count` images."""
        starts = range(0, count, size)
        return [slice(start, min(start + size, count)) for start in (starts[self._number :: len(self._ranks)] if self._shared else starts)]

    def all_fit(self, fits: bool) -> bool:
        """Whether all images fit into the numbers they are kept as; when this returns, all have been read."""
        answer = torch.tensor([0 if fits else 1])
        guarded(dist.all_reduce, answer, dist.ReduceOp.SUM, self._group)
        return int(answer[0]) == 0

    def tell(self, seen: Examination) -> None:
        """What each process has seen of its images, to all."""
        for rank in range(dist.get_world_size()):
            mine = rank == dist.get_rank()
            found = messages.broadcast(seen.found() if mine else None, rank)
            if not mine:
                seen.add(found)

    def _from_first(self, text: str) -> str:
        return messages.broadcast(text, self._ranks[0], self._group)


def _create(size: int) -> str:
    """A file of that size in memory, or else on disk; "" where there is no room."""
    for place in _PLACES:
        if not os.path.isdir(place) or shutil.disk_usage(place).free < _SPARE * size:
            continue
        handle, path = tempfile.mkstemp(prefix="aurefine_", dir=place)
        try:
            os.posix_fallocate(handle, 0, max(size, 1))  # asked for now: later, a page that is missing would end the process
            return path
        except OSError:
            Path(path).unlink()
        finally:
            os.close(handle)
    return ""


def of_this_machine(names: list[str], rank: int) -> SharedImages:
    """The images of this rank's machine; `names` are those of all ranks' machines. Every rank calls this alike."""
    machines = list(dict.fromkeys(names))
    ranks = [[number for number, name in enumerate(names) if name == machine] for machine in machines]
    groups = [guarded(dist.new_group, each) for each in ranks]
    number = machines.index(names[rank])
    return SharedImages(Machine(number, len(machines), ranks[number]), groups[number])
