"""Where the images of an optics group are between batches: in memory, in a file on scratch, or where they came from."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from aurefine.errors import InputError

_AHEAD = 64 << 20  # bytes that are asked for before they are needed, at a time
_ASKED_AT_ONCE = 128 << 10  # bytes: of a longer piece Linux reads no more ahead than this in one request


def at_a_time(box: int) -> int:
    """Images that are read and looked at together: at most 64 MB of them as float32."""
    return max(1, min(512, (16 << 20) // box**2))


class ImageStack(Protocol):
    """Images [n, y, x] of one kind of number; several threads may read at once."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    def write(self, part: slice, images: np.ndarray) -> None:
        """Keep float32 `images` as numbers `part` of the stack."""
        ...

    def read(self, rows: np.ndarray) -> torch.Tensor:
        """The images numbered `rows`, in that order."""
        ...

    def ahead(self, rows: np.ndarray) -> None:
        """These will be read soon: returns at once."""
        ...


class InMemory:
    """Images in a tensor [n, y, x], which processes may share."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images, self.shape, self.dtype = images, tuple(images.shape), images.dtype

    def write(self, part: slice, images: np.ndarray) -> None:
        """Keep `images`."""
        self.images[part] = torch.from_numpy(images)

    def read(self, rows: np.ndarray) -> torch.Tensor:
        """Copies of some."""
        return self.images[torch.from_numpy(rows)]

    def ahead(self, rows: np.ndarray) -> None:
        """They are there."""


class OnScratch:
    """Images in an open file in `folder`, which is closed with this.

    They are read, not mapped: what the system keeps of the file is not this process's memory, does not count for `ulimit -v`, and goes first
    where memory is wanted; and a disk that fails is an error that can be told, not a signal that kills.
    """

    def __init__(self, file: int, folder: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.shape, self.dtype, self._folder, self._file = shape, dtype, folder, file
        self._bytes = shape[1] * shape[2] * dtype.itemsize
        weakref.finalize(self, os.close, self._file)

    def write(self, part: slice, images: np.ndarray) -> None:
        """Write `images`; InputError when the disk fails."""
        left, place = torch.from_numpy(images).to(self.dtype).numpy().data.cast("B"), part.start * self._bytes
        try:
            while left:
                written = os.pwrite(self._file, left, place)
                left, place = left[written:], place + written
        except OSError as error:
            raise self._failed("write", error.strerror) from error

    def read(self, rows: np.ndarray) -> torch.Tensor:
        """Read some, in the order of the file; InputError when the disk fails."""
        images = torch.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        if not len(rows):
            return images
        room = images.numpy().data.cast("B")
        try:
            for number in np.argsort(rows):
                if os.preadv(self._file, [room[number * self._bytes : (number + 1) * self._bytes]], int(rows[number]) * self._bytes) < self._bytes:
                    raise self._failed("read", "the file is too short")
        except OSError as error:
            raise self._failed("read", error.strerror) from error
        return images

    def ahead(self, rows: np.ndarray) -> None:
        """Ask the system to read them; it does so beside what this process does next."""
        if not hasattr(os, "posix_fadvise"):
            return
        for row in np.sort(rows[: max(1, _AHEAD // self._bytes)]):
            for start in range(0, self._bytes, _ASKED_AT_ONCE):
                size = min(_ASKED_AT_ONCE, self._bytes - start)
                os.posix_fadvise(self._file, int(row) * self._bytes + start, size, os.POSIX_FADV_WILLNEED)

    def _failed(self, what: str, why: str | None) -> InputError:
        return InputError(f"cannot {what} the images that are on scratch in {self._folder}: {why}. Choose another folder with --scratch_dir.")


class AtSource:
    """Images that are read from their own files again whenever they are needed: `read_images(numbers) -> float32 images`."""

    def __init__(self, read_images: Callable[[np.ndarray], np.ndarray], members: np.ndarray, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.shape, self.dtype, self._read, self._members = shape, dtype, read_images, members

    def write(self, part: slice, images: np.ndarray) -> None:
        """Nothing: they are where they came from."""

    def read(self, rows: np.ndarray) -> torch.Tensor:
        """Read some, as the numbers that they would be kept as."""
        return torch.from_numpy(self._read(self._members[rows])).to(self.dtype)

    def ahead(self, rows: np.ndarray) -> None:
        """Nothing: which file holds which is not known here."""
