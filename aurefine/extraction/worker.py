"""One micrograph's particles, from its image to its stack (ALGORITHM.md 7.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from zlib import crc32

import numpy as np

from aurefine import fft, folders, maps, mrc, star
from aurefine.errors import InputError
from aurefine.extraction import tables, windows
from aurefine.extraction.coordinates import X, Y
from aurefine.extraction.micrographs import Micrograph, MicrographSet, read_image
from aurefine.extraction.normalise import Background, background, normalise, remove_dust
from aurefine.extraction.options import ExtractOptions
from aurefine.extraction.refined import RefinedParticles
from aurefine.fourier import frequencies
from aurefine.optics import OpticsGroup
from aurefine.particles import CtfTable

_BATCH_PIXELS = 1 << 19  # of windows in work at a time: a few images, so that they stay in the processor's cache
_CTF_LOCK = Lock()  # the compiled CTF runs on every core by itself and may not be entered twice


@dataclass(frozen=True, eq=False)
class Worker:
    """What is the same for every micrograph of an extraction."""

    options: ExtractOptions
    micrographs: MicrographSet
    refined: RefinedParticles | None
    particles: Callable[[Micrograph], star.Table | None]

    def read(self, micrograph: Micrograph) -> Task | None:
        """Everything a micrograph's stack is made of, checked; None without particles.

        Raises InputError for what is wrong with this micrograph alone: its image, its coordinates, its optics group.
        """
        table = self.particles(micrograph)
        if table is None or table.count == 0:
            return None
        pixel_size = self.micrographs.pixel_size_of(micrograph.group)
        table = self._with_names(table, micrograph)
        if not Path(micrograph.name).is_file():
            raise InputError(f"{micrograph.name}: there is no such micrograph, but it has {table.count} particles; run in the project's folder")
        image = read_image(micrograph.name)
        position = windows.positions(table[X], table[Y])
        self._refuse_outside(table, position, image.shape, micrograph)
        task = Task(micrograph, self.options, image, table, position, pixel_size)
        return self._with_ctf(task) if self.options.changes_ctf else task

    def _with_names(self, table: star.Table, micrograph: Micrograph) -> star.Table:
        """Image, micrograph and optics group of each particle, and its CTF."""
        names = np.array([f"{number:06d}@{micrograph.root}.mrcs" for number in range(1, table.count + 1)], dtype=object)
        columns = {"rlnImageName": names, "rlnMicrographName": np.full(table.count, micrograph.name, dtype=object)}
        own_ctf = self.refined is not None and not self.options.keep_micrograph_ctfs
        if not own_ctf:
            columns["rlnOpticsGroup"] = np.full(table.count, micrograph.group)
        table = table.with_columns(columns)
        return table if own_ctf else tables.with_micrograph_ctf(table, self.micrographs, micrograph.row)

    def _refuse_outside(self, table: star.Table, position: np.ndarray, shape: tuple[int, ...], micrograph: Micrograph) -> None:
        bad = np.flatnonzero(windows.outside(position, self.options.box, (shape[0], shape[1])))
        if len(bad):
            raise InputError(f"{micrograph.name}: {len(bad)} of {table.count} particles lie outside the micrograph of {shape[1]} x {shape[0]} "
                             f"pixels, such as number {bad[0] + 1} at {table[X][bad[0]]:g}, {table[Y][bad[0]]:g}; coordinates are counted in "
                             "pixels of the micrograph: were they made with another binning?")  # fmt: skip

    def _with_ctf(self, task: Task) -> Task:
        """The task with the microscope of each particle, for the CTF."""
        parameters = tables.ctf_of(task.table, task.micrograph.name)
        own = None if self.options.keep_micrograph_ctfs else self.refined
        optics, path = (self.micrographs.optics, self.micrographs.path) if own is None else (own.optics, own.path)
        groups = {
            number: tables.microscope(optics, number, path, task.pixel_size, self.options.ctf_box)
            for number in np.unique(task.table["rlnOpticsGroup"]).tolist()
        }
        return replace(task, ctf=parameters, microscopes=groups)


@dataclass(frozen=True, eq=False)
class Task:
    """One micrograph's image and particles, ready to be written."""

    micrograph: Micrograph
    options: ExtractOptions
    image: np.ndarray  # [rows, columns]
    table: star.Table
    position: np.ndarray  # [n, 2] pixels (x, y)
    pixel_size: float  # Angstrom, of the micrograph
    ctf: CtfTable | None = None
    microscopes: dict[int, OpticsGroup] | None = None

    def write(self) -> tuple[star.Table, int]:
        """Write the stack, then its table `_extract.star`: where that is, the stack is whole.

        Returns the table and the number of images with a flat background. InputError when a file cannot be written.
        """
        options = self.options
        root = Path(self.micrograph.root)
        folders.make(root.parent, "--part_dir")
        where = background(options.final_box, options.background_radius, options.ramp) if options.normalise else None
        flat = 0
        batch = max(1, _BATCH_PIXELS // options.ctf_box**2)
        pixel_size = self.pixel_size * options.box / options.scaled_box
        with mrc.stack_writer(f"{root}.mrcs", self.table.count, options.final_box, pixel_size, options.float16) as stack:
            for start in range(0, self.table.count, batch):
                images, blank = self._images(np.arange(start, min(start + batch, self.table.count)), where)
                stack.append(images)
                flat += blank
        star.write(f"{root}_extract.star", [star.Table("images", self.table.columns)])
        return self.table, flat

    def _images(self, rows: np.ndarray, where: Background | None) -> tuple[np.ndarray, int]:
        """Finished images of some particles, and how many of them have a flat background."""
        options = self.options
        images = self._ctf_windows(rows) if options.changes_ctf else windows.cut(self.image, self.position[rows], options.box)
        images = windows.rescale(images, options.scaled_box)
        if options.window > 0:
            images = centred(images, options.final_box)
        sign = -1.0 if options.invert_contrast else 1.0
        if where is None:
            return images * np.float32(sign), 0
        if options.white_dust > 0 or options.black_dust > 0:
            seed = [crc32(self.micrograph.name.encode()), int(rows[0])]  # the same noise whichever thread comes first
            remove_dust(images, where, options.white_dust, options.black_dust, np.random.default_rng(seed))
        return images, normalise(images, where, sign)

    def _ctf_windows(self, rows: np.ndarray) -> np.ndarray:
        """Windows multiplied by their CTF or its sign: outside the micrograph its mean is seen, and edges are repeated afterwards."""
        box, big = self.options.box, self.options.ctf_box
        position = self.position[rows]
        seen = windows.cut(self.image, position, big, fill=self.mean)
        seen = fft.irfftn(fft.rfftn(seen, axes=(1, 2)) * self._ctf(rows, big), (big, big), axes=(1, 2))
        seen = centred(seen, box)
        windows.repeat_edges(seen, position, (self.image.shape[0], self.image.shape[1]))
        return seen

    @cached_property
    def mean(self) -> float:
        """Mean grey value of the micrograph."""
        return float(self.image.mean(dtype=np.float64))

    def _ctf(self, rows: np.ndarray, box: int) -> np.ndarray:
        """float32 [k, box, box/2+1]."""
        from aurefine import ctf  # numba takes a third of a second to load, which other extractions need not wait for

        assert self.ctf is not None and self.microscopes is not None
        flip, intact = self.options.phase_flip, self.options.ctf_intact_first_peak
        values = np.empty((len(rows), box, box // 2 + 1), dtype=np.float32)
        step = 1 / (box * self.pixel_size)
        x, y = np.meshgrid(np.arange(box // 2 + 1) * step, frequencies(box) * step)
        numbers = self.table["rlnOpticsGroup"][rows]
        for number, microscope in self.microscopes.items():
            of_group = np.flatnonzero(numbers == number)
            if len(of_group):
                with _CTF_LOCK:
                    found = ctf.evaluate(self.ctf, rows[of_group], microscope, x.ravel(), y.ravel(), intact_first_peak=intact, only_flip_phases=flip)
                values[of_group] = found.reshape(-1, *x.shape)
        return values


def centred(images: np.ndarray, box: int) -> np.ndarray:
    """Images [n, old, old] cropped or padded with zeros about their centre to `box` pixels."""
    return images if images.shape[-1] == box else np.ascontiguousarray(maps.window(images, box, images=True))
