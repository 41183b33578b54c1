"""Particle images scattered over MRC stacks: found, checked once, and read by particle in parallel."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from aurefine.errors import InputError
from aurefine.mrc import Stack
from aurefine.threads import in_order

_THREADS = 8  # enough to keep a disk or a network file system busy; decoding is cheap
_IMAGES_AT_A_TIME = 512  # so that one large stack is read in parallel too
_MOST_DIGITS = 18  # of an image's number: a 64-bit integer holds it


@dataclass(frozen=True)
class ImageSource:
    """Where the image of each particle lies: `stacks[stack_index[i]]`, image `image_index[i]` (0-based)."""

    stacks: tuple[Stack, ...]
    stack_index: np.ndarray  # [n]
    image_index: np.ndarray  # [n]
    sign: np.ndarray | None = None  # [n] 1, or -1 for images that are to be inverted

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.image_index)

    def select(self, rows: np.ndarray) -> ImageSource:
        """The images of some particles, by mask or index array."""
        sign = None if self.sign is None else self.sign[rows]
        return replace(self, stack_index=self.stack_index[rows], image_index=self.image_index[rows], sign=sign)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Images as float32 [k, y, x] in the order asked for, all of one size; stacks are read in parallel.

        Raises InputError when a file can no longer be read, ValueError when the images differ in size.
        """
        rows = np.atleast_1d(np.asarray(indices, dtype=np.int64))
        stack, image = self.stack_index[rows], self.image_index[rows]
        order = np.lexsort((image, stack))
        edges = np.union1d(np.flatnonzero(np.diff(stack[order], prepend=-1, append=-1)), np.arange(0, len(rows), _IMAGES_AT_A_TIME))
        shapes = {(self.stacks[number].height, self.stacks[number].width) for number in np.unique(stack)}
        if len(shapes) > 1:
            raise ValueError(f"images of different sizes were asked for together: {sorted(shapes)}; read one optics group at a time")
        images = np.empty((len(rows), *next(iter(shapes), (0, 0))), dtype=np.float32)

        def fill(start: int, stop: int) -> None:
            places = order[start:stop]
            images[places] = self.stacks[stack[places[0]]].read(image[places])

        if len(edges) <= 2:
            if len(rows):
                fill(0, len(rows))
        else:
            from concurrent.futures import ThreadPoolExecutor  # slow to import

            with ThreadPoolExecutor(min(_THREADS, len(edges) - 1)) as pool:
                list(pool.map(fill, edges[:-1].tolist(), edges[1:].tolist()))
        if self.sign is not None:
            images *= self.sign[rows, None, None].astype(np.float32)
        return images


def split_name(name: str) -> tuple[str, str]:
    """Number (as text, empty where there is none) and file of an image's name such as `000001@stack.mrcs`: parted at the first @, as in RELION."""
    number, at, file = name.partition("@")
    return (number, file) if at else ("", name)


def open_images(names: np.ndarray, star_path: str | Path, label: str, rows: np.ndarray) -> ImageSource:
    """Find and check the stacks of image names such as `000001@Extract/job009/mic.mrcs`.

    A relative name is looked for from the current folder (a RELION project), then from the STAR file's folder and its parents.
    `rows` are the file's row numbers (1-based), for messages. Raises InputError for a bad name, a missing or truncated stack,
    or an image number beyond its stack.
    """
    files: dict[str, int] = {}
    stack_index = np.empty(len(names), dtype=np.int64)
    image_index = np.empty(len(names), dtype=np.int64)
    for place, name in enumerate(names.tolist()):
        number, file = split_name(name) if "@" in name else ("1", name)
        if not (number.isascii() and number.isdigit()) or number.strip("0") == "" or len(number) > _MOST_DIGITS or not file:
            raise InputError(f"{star_path}, row {rows[place]}: {label} is '{name}'; expected a name such as 000001@folder/stack.mrcs")
        stack_index[place] = files.setdefault(file, len(files))
        image_index[place] = int(number) - 1
    found = _Finder(star_path).find(list(files), label, rows[_first_places(stack_index, len(files))])
    stacks = tuple(in_order(Stack, ((path,) for path in found), min(_THREADS, len(found))))
    counts = np.array([stack.count for stack in stacks])
    beyond = np.flatnonzero(image_index >= counts[stack_index])
    if len(beyond):
        place = beyond[0]
        raise InputError(
            f"{star_path}, row {rows[place]}: {label} is '{names[place]}', but that stack holds only {counts[stack_index[place]]} images "
            f"({len(beyond)} rows ask for images beyond their stack); the STAR file and the stacks do not belong together"
        )
    return ImageSource(stacks, stack_index, image_index)


def located(names: Iterable[str], star_path: str | Path) -> list[str]:
    """Image names with the whole path of their file, where `open_images` would find it; else with the file as it is named."""
    finder, paths = _Finder(star_path), dict[str, str]()
    result = []
    for name in names:
        number, file = split_name(name)
        if file not in paths:
            found = finder.find_one(file)
            paths[file] = str(found.resolve()) if found else file
        result.append(f"{number.lstrip('0')}@{paths[file]}")
    return result


def normalisation_warning(images: np.ndarray, radius: float, names: Sequence[str] | np.ndarray = ()) -> str | None:
    """What looks un-normalised about the background outside `radius` (pixels) of images [n, y, x], or None (ALGORITHM.md 2.3).

    `names` [n] lets the message name the first such image.
    RELION expects a background of mean 0 and standard deviation 1; it warns at |mean / sd| > 0.5 or sd outside 0.5 to 2.
    """
    height, width = images.shape[1:]
    y, x = np.ogrid[:height, :width]
    outside = (x - width // 2) ** 2 + (y - height // 2) ** 2 > radius**2
    if not outside.any():
        return None
    flat, weight = images.reshape(len(images), -1), (outside / outside.sum()).ravel().astype(np.float32)
    mean = flat @ weight
    spread = np.sqrt(np.maximum(np.square(flat) @ weight - mean**2, 0))
    bad = np.flatnonzero((np.abs(mean) > 0.5 * spread) | (spread < 0.5) | (spread > 2))
    if not len(bad):
        return None
    first = bad[0]
    return (
        f"{len(bad)} of {len(images)} images do not look normalised: background mean {mean[first]:.3g} and standard deviation {spread[first]:.3g} "
        f"in {names[first] if len(names) else 'the first of them'}, where 0 and 1 are expected; extract the particles again with normalisation"
    )


class _Finder:
    """Looks for files from several folders, first where the last one was found."""

    def __init__(self, star_path: str | Path) -> None:
        self.star_path = star_path
        home = Path(star_path).resolve().parent
        self.folders = [Path(), home, *home.parents]

    def find(self, files: list[str], label: str, rows: np.ndarray) -> list[Path]:
        found = [self.find_one(file) for file in files]
        missing = [place for place, path in enumerate(found) if path is None]
        if missing:
            place = missing[0]
            others = f" (and {len(missing) - 1} other stacks are missing)" if len(missing) > 1 else ""
            raise InputError(
                f"{self.star_path}, row {rows[place]}: {label} names {files[place]}, which is not there{others}; looked from the current folder "
                f"({os.getcwd()}) and from the STAR file's folder upwards; run in the RELION project's folder"
            )
        return [path for path in found if path is not None]

    def find_one(self, file: str) -> Path | None:
        for place, folder in enumerate(self.folders):
            path = folder / file
            try:
                found = path.is_file()
            except OSError:  # a name longer than file systems allow
                return None
            if found:
                self.folders.insert(0, self.folders.pop(place))
                return path
        return None


def _first_places(stack_index: np.ndarray, count: int) -> np.ndarray:
    """Position of the first particle of each stack."""
    places = np.full(count, len(stack_index))
    np.minimum.at(places, stack_index, np.arange(len(stack_index)))
    return places
