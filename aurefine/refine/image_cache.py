"""Particle images kept between iterations: in memory or on scratch, by this process or by those of a machine together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np
import torch

from aurefine.particles import ParticleSet
from aurefine.refine import devices
from aurefine.refine.examination import Examination
from aurefine.refine.image_stacks import AtSource, ImageStack, InMemory, OnScratch, at_a_time
from aurefine.refine.scratch import Scratch

_MOST_OF_FLOAT16 = 1e4


class Storage(Protocol):
    """Who keeps the images of an `ImageCache`: this process for itself, or those of a machine together, each of which reads its part."""

    def part(self, members: np.ndarray) -> np.ndarray:
        """Which particles are kept on this machine."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype, scratch: Scratch | None) -> ImageStack | None:
        """Room for images: in memory, or without it on `scratch`; None where there is none on scratch either."""
        ...

    def chunks(self, count: int, size: int) -> Iterable[slice]:
        """Which of `count` images this process reads, so many at a time."""
        ...

    def all_fit(self, fits: bool) -> bool:
        """Whether everybody's images fit; all have been read then."""
        ...

    def tell(self, seen: Examination) -> None:
        """Tell the others what was seen of the images that this process has read, and hear of theirs."""
        ...


class Private:
    """This process for itself."""

    def part(self, members: np.ndarray) -> np.ndarray:
        """All."""
        return members

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype, scratch: Scratch | None) -> ImageStack | None:
        """Memory of this process, or a file of its own."""
        if scratch is None:
            return InMemory(torch.empty(shape, dtype=dtype))
        file = scratch.opened(math.prod(shape) * dtype.itemsize)
        return None if file is None else OnScratch(file, scratch.folder, shape, dtype)

    def chunks(self, count: int, size: int) -> Iterable[slice]:
        """All of them."""
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]

    def all_fit(self, fits: bool) -> bool:
        """As this process has found."""
        return fits

    def tell(self, seen: Examination) -> None:
        """There is nobody."""


class ImageCache:
    """The images of a particle set, float16 where their range allows it; box sizes may differ between optics groups.

    All of them, or of several machines each a part: `holds` [n] says which. They are in memory, or with `scratch` read again from there batch by
    batch; the numbers are the same.

    `examination` looks at each image on its way; what it finds unusable is blank here, and `keep` then leaves it out. `progress` is told how
    many more images are read.
    """

    def __init__(
        self, particles: ParticleSet, examination: Examination | None = None, progress: Callable[[int], None] = lambda count: None,
        storage: Storage | None = None, scratch: Scratch | None = None,
    ) -> None:  # fmt: skip
        self.row = np.full(particles.count, -1)
        self.stacks: list[ImageStack] = []
        self._copies: dict[tuple[int, torch.device], torch.Tensor | None] = {}
        storage = storage or Private()
        for group in range(len(particles.optics)):
            members = storage.part(np.flatnonzero(particles.optics_index == group))
            self.row[members] = np.arange(len(members))
            stack = _stack(storage, particles, members, group, torch.float16, scratch)
            if not storage.all_fit(_fill(stack, storage, particles, members, examination, progress)):
                stack = _stack(storage, particles, members, group, torch.float32, scratch)  # far off the usual unit variance: keep all digits
                storage.all_fit(_fill(stack, storage, particles, members, examination, lambda count: None))
            self.stacks.append(stack)
        if examination is not None:
            storage.tell(examination)

    @property
    def holds(self) -> np.ndarray:
        """bool [n]: whose images are here."""
        return self.row >= 0

    def keep(self, rows: np.ndarray) -> None:
        """Serve particles `rows` alone, numbered anew from 0."""
        self.row = self.row[rows]

    def read(self, group: int, indices: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
        """float32 [k, box, box] images of particles `indices`, all of optics group `group`; they travel as they are stored."""
        rows, copy = self.row[indices], self.on(group, torch.device(device))
        if copy is None:
            return self.stacks[group].read(rows).to(device).to(torch.float32)
        return copy[torch.from_numpy(rows).to(copy.device)].to(torch.float32)

    def on(self, group: int, device: torch.device) -> torch.Tensor | None:
        """A group's images as they are stored, on a GPU that has room for them all; None elsewhere."""
        if device.type == "cpu":
            return None
        if (group, device) not in self._copies:
            stack = self.stacks[group]
            size = math.prod(stack.shape) * stack.dtype.itemsize
            self._copies[group, device] = _copied(stack, device) if devices.has_room(device, size) else None
        return self._copies[group, device]

    def ahead(self, group: int, indices: np.ndarray) -> None:
        """Particles `indices`, of optics group `group`, will be read soon: images that are on a disk begin to come."""
        self.stacks[group].ahead(self.row[indices])


def _copied(stack: ImageStack, device: torch.device) -> torch.Tensor:
    """All images of a stack on a device; they go there some at a time, as they may be on a disk."""
    images = torch.empty(stack.shape, dtype=stack.dtype, device=device)
    together = at_a_time(stack.shape[1])
    for start in range(0, len(images), together):
        rows = np.arange(start, min(start + together, len(images)))
        images[start : start + together] = stack.read(rows).to(device)
    return images


def _stack(
    storage: Storage, particles: ParticleSet, members: np.ndarray, group: int, dtype: torch.dtype, scratch: Scratch | None
) -> ImageStack:
    """Room for the images of particles `members`, all of one optics group."""
    box = particles.optics[group].box
    shape = len(members), box, box
    return storage.empty(shape, dtype, scratch) or AtSource(particles.read_images, members, shape, dtype)


def _fill(
    stack: ImageStack, storage: Storage, particles: ParticleSet, members: np.ndarray, examination: Examination | None,
    progress: Callable[[int], None],
) -> bool:  # fmt: skip
    """Read this process's part of the images into `stack`; False as soon as one does not fit into its numbers."""
    largest = max(optics.box for optics in particles.optics)
    for part in storage.chunks(len(members), at_a_time(largest)):
        images = particles.read_images(members[part])
        if examination is not None:
            images[examination.look(members[part], images)] = 0
        if stack.dtype == torch.float16 and np.abs(images).max() > _MOST_OF_FLOAT16:
            return False
        stack.write(part, images)
        progress(len(images))
    return True
