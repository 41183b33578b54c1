"""Images that all processes of a machine share, in memory or on scratch: each reads its part of them, none holds them for itself alone.

Of several machines each keeps every so-manieth image.
"""

from __future__ import annotations

import math
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist

from aurefine.distributed import messages
from aurefine.distributed.messages import guarded
from aurefine.refine.examination import Examination
from aurefine.refine.image_stacks import ImageStack, InMemory, OnScratch
from aurefine.refine.scratch import Scratch

_MEMORY = tuple(Scratch(folder, lambda warning: None) for folder in ("/dev/shm", tempfile.gettempdir()))  # the one without room is no news
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
        size = math.prod(shape) * dtype.itemsize
        file = self._common_file(size, scratch) if size and (len(self._ranks) > 1 or scratch is not None) else None
        self._shared = file is not None or scratch is not None  # what is at its source needs to be looked at by one of all, too
        if scratch is not None:
            return None if file is None else OnScratch(file, scratch.folder, shape, dtype)
        return InMemory(torch.empty(shape, dtype=dtype) if file is None else _mapped(file, shape, dtype))

    def _common_file(self, size: int, scratch: Scratch | None) -> int | None:
        """A file without a name that all processes of the machine have open, on scratch or in memory; None where there is no room for it.

        It has a name only while it is empty: whatever ends the processes then, no room is lost.
        """
        for place in [scratch] if scratch is not None else _MEMORY:
            path = place.create() if self._number == 0 and (scratch is not None or _has_room(place.folder, size)) else ""
            try:
                name = self._from_first(path)
                file = os.open(name, os.O_RDWR | os.O_CLOEXEC) if name else -1
                guarded(dist.barrier, self._group)
            finally:
                if path:
                    os.unlink(path)
            if file >= 0:
                if self._from_first("there" if self._number == 0 and place.reserve(file, size) else ""):
                    return file
                os.close(file)
        return None

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


def _has_room(folder: str, size: int) -> bool:
    return os.path.isdir(folder) and shutil.disk_usage(folder).free >= _SPARE * size


def _mapped(file: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """The numbers in a file, which is closed here; they are there as long as somebody has them."""
    with open(file, "r+b") as handle:
        block = mmap.mmap(handle.fileno(), math.prod(shape) * dtype.itemsize)
    return torch.frombuffer(block, dtype=dtype).view(shape)


def of_this_machine(names: list[str], rank: int) -> SharedImages:
    """The images of this rank's machine; `names` are those of all ranks' machines. Every rank calls this alike."""
    machines = list(dict.fromkeys(names))
    ranks = [[number for number, name in enumerate(names) if name == machine] for machine in machines]
    groups = [guarded(dist.new_group, each) for each in ranks]
    number = machines.index(names[rank])
    return SharedImages(Machine(number, len(machines), ranks[number]), groups[number])
