"""What a refinement will take of a GPU's memory, as a part of its plan (memory_plan)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from aurefine.refine import devices

SUMS, REFERENCE = 16, 8  # bytes a voxel of the padded half transform
_NUMBERS = 4  # of a voxel in an accumulator
MB = 1 << 20


@dataclass(frozen=True)
class OnGpu:
    """Bytes of one GPU.

    Attributes: free: before the start; images: where they stay there; held: references and sums of the last E-step, beside batches; maximisation:
    the last M-step at most, its sums included.
    """

    name: str
    free: int
    images: int
    held: int
    maximisation: int

    @property
    def maximises(self) -> bool:
        """Whether there is room for the M-step, which is the host's otherwise (`devices.maximised` decides when it is time)."""
        return self.images + self.maximisation <= self.free

    def line(self) -> str:
        """For the user."""
        images = f"images {megabytes(self.images)}, " if self.images else ""
        last = f"last M-step {megabytes(self.maximisation)} at most"
        there = last if self.maximises else f"the last M-step is done on the host: it would take {megabytes(self.maximisation)}"
        return f"  {self.name}, {megabytes(self.free)} free: {images}references and sums {megabytes(self.held)}, batches in what is left; {there}"


def megabytes(size: int) -> str:
    """For the user."""
    return f"{size / MB:.0f} MB"


def measure(number: int, images: int, voxels: int, scored: int, maximised: int) -> OnGpu:
    """The plan for GPU `number`.

    Args: images: bytes of all images that could stay there; voxels: of a padded half transform; scored, maximised: how many half-sets' sums are
        there in the E-step and in the M-step.
    """
    free = devices.free_memory(torch.device("cuda", number))
    kept = images if devices.is_small(images, free) else 0
    maximisation = maximised * (SUMS * voxels + devices.maximising(_NUMBERS * voxels))
    return OnGpu(_name(number), free, kept, scored * (SUMS + REFERENCE) * voxels, maximisation)


def _name(number: int) -> str:
    return f"GPU {number} ({torch.cuda.get_device_name(number)})"
