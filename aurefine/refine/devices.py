"""Which GPUs a refinement uses."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from aurefine.errors import InputError
from aurefine.kernels import Accumulator
from aurefine.refine.options import RefineOptions

_SPARE = 0.3  # share of a GPU's free memory that images may take
_SHARING: dict[int, int] = {}  # processes on each GPU, where it is not this one alone
_MAXIMISING = 16  # bytes beside each number of an accumulator: collected sums, and the transforms of a reconstruction and of a masked FSC


def of_halves(options: RefineOptions) -> tuple[torch.device, torch.device]:
    """The device of each half's E-step: the CPU without --gpu, else the first GPU named, and the second one for half 2 where there is one.

    A machine without any GPU takes the CPU, so that command lines from another machine run: `missing` says so.
    Raises InputError when there are GPUs, but not the ones that are named.
    """
    numbers, count = options.gpu_numbers, torch.cuda.device_count()
    if numbers is None or count == 0:
        return torch.device("cpu"), torch.device("cpu")
    absent = [number for number in numbers if number >= count]
    if absent:
        raise InputError(f"--gpu {options.gpu}: this machine has GPUs 0 to {count - 1}, there is no GPU {absent[0]}.")
    numbers = numbers or tuple(range(count))
    return torch.device("cuda", numbers[0]), torch.device("cuda", numbers[1 % len(numbers)])


def apart(devices: Sequence[torch.device]) -> bool:
    """Whether halves on these devices can be worked on at once: not on one GPU, whose memory is planned for one of them."""
    return len(set(devices)) == len(devices) or all(device.type == "cpu" for device in devices)


def compiled(device: torch.device) -> bool:
    """Whether the passes compiled for the CPU work there; elsewhere plain torch does. It does so on any device: tests take that way on the CPU."""
    return device.type == "cpu"


def missing(options: RefineOptions) -> str | None:
    """What to tell a user who asks for a GPU where there is none."""
    if options.gpu_numbers is None or torch.cuda.device_count() > 0:
        return None
    return "--gpu: no CUDA GPU was found (or torch was installed without CUDA): the CPU does the work"


def share(device: torch.device, processes: int) -> None:
    """So many processes work on that GPU, this one among them: it takes no more than its part of the memory."""
    _SHARING[device.index or 0] = processes


def free_memory(device: torch.device) -> int:
    """Bytes of a GPU that can be had by this process, those included that torch keeps for later; 0 for a CPU."""
    if device.type != "cuda":
        return 0
    free, whole = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device)
    part = whole // _SHARING.get(device.index or 0, 1) - reserved  # what the others have not taken yet is theirs all the same
    return max(0, min(free, part)) + reserved - torch.cuda.memory_allocated(device)


def has_room(device: torch.device, size: int) -> bool:
    """Whether a GPU has `size` bytes to spare for what need not be there: most of its memory is for batches."""
    return is_small(size, free_memory(device))


def is_small(size: int, free: int) -> bool:
    """Whether so many bytes are few of those that are free on a GPU."""
    return size < _SPARE * free


def maximising(numbers: int) -> int:
    """Bytes that an M-step takes, at most, beside sums of so many numbers."""
    return _MAXIMISING * numbers


def maximised(accumulators: Sequence[Accumulator]) -> None:
    """See that an M-step finds room: sums stay on their GPUs where it has that, and come to the host where one has not."""
    gpus = {each.data.device for each in accumulators if each.data.device.type == "cuda"}
    for gpu in gpus:
        here = [each.data for each in accumulators if each.data.device == gpu]
        if free_memory(gpu) < maximising(sum(values.numel() for values in here)):
            for each in accumulators:
                each.data = each.data.cpu()
            return
