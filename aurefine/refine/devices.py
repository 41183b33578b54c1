"""Which GPUs a refinement uses."""

from __future__ import annotations

import torch

from aurefine.errors import InputError
from aurefine.kernels import Volume
from aurefine.refine.options import RefineOptions


def of_halves(options: RefineOptions) -> tuple[torch.device, torch.device]:
    """The device of each half's E-step: the CPU without --gpu, else the first GPU named, and the second one for half 2 where there is one.

    Raises InputError when a GPU is asked for that is not there.
    """
    numbers = options.gpu_numbers
    if numbers is None:
        return torch.device("cpu"), torch.device("cpu")
    count = torch.cuda.device_count()
    if count == 0:
        raise InputError("--gpu: no CUDA GPU was found (or torch was installed without CUDA). Leave --gpu out to use the CPU.")
    missing = [number for number in numbers if number >= count]
    if missing:
        raise InputError(f"--gpu {options.gpu}: this machine has GPUs 0 to {count - 1}, there is no GPU {missing[0]}.")
    numbers = numbers or tuple(range(count))
    return torch.device("cuda", numbers[0]), torch.device("cuda", numbers[1 % len(numbers)])


def use(volume: Volume, device: torch.device) -> Volume:
    """The volume on the device, which also becomes the one that kernels are started on."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return volume.to(device)
