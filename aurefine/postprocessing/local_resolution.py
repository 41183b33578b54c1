"""Local resolution: FSC inside soft spheres on a grid of points, and the map filtered by it (ALGORITHM.md 9.2; Kucukelbir et al. 2014)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aurefine import fourier, mrc
from aurefine.errors import InputError
from aurefine.job_control import JobControl
from aurefine.mtf import Mtf
from aurefine.postprocessing import curves as curve_room
from aurefine.postprocessing import messages, tables
from aurefine.postprocessing.inputs import HalfMaps, Mask
from aurefine.postprocessing.options import PostprocessOptions
from aurefine.postprocessing.random_phases import CRandom, randomise
from aurefine.postprocessing.run import prepare
from aurefine.postprocessing.sharpen import Spectrum, fsc_weights
from aurefine.threads import thread_count

_MEMORY = 6e9  # bytes for the transforms of all threads


@dataclass(frozen=True)
class LocalResolution:
    """Local resolution in Angstrom [z, y, x] (0 outside the measured sphere) and the map filtered by it, on the scale of both halves' sum."""

    resolution: np.ndarray
    filtered: np.ndarray
    points: int


@dataclass(frozen=True)
class Grid:
    """Where the resolution is measured: points (x, y, z) from the box's centre, and the spheres about them, in pixels."""

    points: list[tuple[int, int, int]]
    radius: int
    edge: int
    expected: int  # RELION's estimate of the number of points


@dataclass(frozen=True)
class Sample:
    """What was found at one point: its window of the box, the mask in it, the map filtered, the curves and the resolution."""

    point: tuple[int, int, int]
    window: tuple[slice, ...]
    mask: np.ndarray
    filtered: np.ndarray
    masked: np.ndarray
    randomised: np.ndarray
    corrected: np.ndarray
    resolution: float


def grid_of(halves: HalfMaps, options: PostprocessOptions) -> Grid:
    """The sampling points; InputError when none fits into the box."""

    def pixels(length: float) -> int:
        return int(fourier.round_half_away(length / halves.pixel_size))

    sampling = options.local_sampling
    step = max(1, pixels(sampling))
    radius = pixels(options.local_mask_radius if options.local_mask_radius > 0 else 0.5 * sampling)
    edge = pixels(options.local_edge_width if options.local_edge_width > 0 else sampling)
    reach = halves.box // 2 - radius
    axis = range(-(halves.box // 2), halves.box - halves.box // 2, step)
    points = [(x, y, z) for x in axis for y in axis for z in axis if reach > 0 and x * x + y * y + z * z < reach * reach]
    if not points:
        raise InputError(f"--locres: no point of a grid of {sampling:g} A (--locres_sampling) with spheres of {radius * halves.pixel_size:g} A "
                         f"(--locres_maskrad) fits into the box of {halves.box * halves.pixel_size:g} A; choose smaller ones")  # fmt: skip
    return Grid(points, radius, edge, int(fourier.round_half_away(4 * np.pi / 3 * (reach / step) ** 3)))


def sphere(point: tuple[int, int, int], grid: Grid, box: int) -> tuple[tuple[slice, ...], np.ndarray]:
    """The window (z, y, x) of the box that a point's soft sphere reaches into, and the sphere in it."""
    reach, centre = grid.radius + grid.edge, box // 2
    window = tuple(slice(max(0, c + centre - reach), min(box, c + centre + reach + 1)) for c in reversed(point))
    z, y, x = (np.arange(s.start, s.stop) - centre - c for s, c in zip(window, reversed(point), strict=True))
    distance = np.sqrt(z[:, None, None] ** 2 + y[None, :, None] ** 2 + x**2)
    return window, (0.5 + 0.5 * np.cos(np.pi * np.clip((distance - grid.radius) / max(grid.edge, 1e-6), 0, 1))).astype(np.float32)


class Sampler:
    """Measures one point at a time; safe to be used by several threads."""

    def __init__(self, halves: HalfMaps, grid: Grid, mtf: Mtf | None, options: PostprocessOptions) -> None:
        from aurefine.postprocessing import local_windows  # compiles; not needed for --help

        self._rooms = local_windows
        self._halves, self._grid, self._options = halves, grid, options
        transforms = [fourier.transform_map(values) for values in (halves.one, halves.two)]
        spectrum = Spectrum(transforms[0] + transforms[1], halves.pixel_size)  # the sum, not the mean: RELION's scale
        self.unmasked = curve_room.correlate(*transforms)
        self.start = curve_room.shell_before(options.local_randomise_at, halves)
        random = CRandom(options.random_seed)
        self._maps = [halves.one, halves.two, *randomise(transforms, self.start, random)]
        if mtf is not None:
            spectrum.divide_by_mtf(mtf, options.mtf_pixel_size if options.mtf_pixel_size > 0 else halves.pixel_size)
        spectrum.apply_bfactor(options.adhoc_bfactor)
        self._columns = local_windows.columns_of(halves.box)
        self._spectrum = local_windows.gather(spectrum.values, self._columns)

    def measure(self, point: tuple[int, int, int]) -> Sample:
        """FSC, resolution and filtered map about one point."""
        window, mask = sphere(point, self._grid, self._halves.box)
        masked, randomised = self._rooms.correlations(np.stack([values[window] * mask for values in self._maps]), self._columns)
        corrected = curve_room.correct(masked, randomised, self.start)
        resolution = min(curve_room.resolution_of(curve_room.last_shell(corrected), self._halves), self._options.local_worst)
        middle = float(fourier.round_half_away(self._halves.box * self._halves.pixel_size / resolution))
        edge = fourier.edge(middle, self._options.filter_edge_width)
        filtered = self._rooms.filtered_window(self._spectrum, self._columns, fsc_weights(corrected), edge, window)
        return Sample(point, window, mask, filtered, masked, randomised, corrected, resolution)


def local_resolution(options: PostprocessOptions, control: JobControl | None = None) -> LocalResolution:
    """Measure and write `<output>_locres.mrc`, `_locres_filtered.mrc`, `_locres_fscs.star`, and with a mask a histogram.

    InputError for a mistake in the input, before anything is written.
    """
    control = control or JobControl()
    say = messages.speaker(options.verbosity)
    halves, mask, mtf = prepare(options, say)
    if mask is not None:
        messages.warn("--mask is used only to make a histogram of local resolutions; it is not used for local resolution calculation itself.")
    if mtf is not None:
        for line in messages.mtf_lines(mtf.name):
            say(line)
    grid = grid_of(halves, options)
    sampler = Sampler(halves, grid, mtf, options)
    say(messages.randomised_from(curve_room.resolution_of(sampler.start, halves)))
    say(messages.field("Metadata output file", f"{options.output}_locres_fscs.star"))
    say(f" Calculating local resolution in {len(grid.points)} sampling points ...")
    result = _collect(sampler, grid, halves, options, control, say)
    _write(result, halves, mask, options, say)
    return result


def _collect(sampler: Sampler, grid: Grid, halves: HalfMaps, options: PostprocessOptions, control: JobControl, say: messages.Say) -> LocalResolution:
    """Weighted means over all spheres: of the inverse resolution, and of the filtered maps."""
    shape = halves.one.shape
    weight, inverse, filtered = np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    with tables.LocalFscFile(Path(f"{options.output}_locres_fscs.star"), halves, sampler.unmasked) as curves:
        for sample in _measured(sampler, grid, halves.box, options, control, say):
            weight[sample.window] += sample.mask
            inverse[sample.window] += sample.mask / sample.resolution
            filtered[sample.window] += sample.mask * sample.filtered
            curves.add(sample.point, sample.masked, sample.randomised, sample.corrected, sample.resolution)
    measured = weight > 0
    resolution = np.divide(weight, inverse, out=np.zeros_like(weight), where=measured)
    return LocalResolution(resolution, np.divide(filtered, weight, out=np.zeros_like(weight), where=measured), len(grid.points))


def _measured(sampler: Sampler, grid: Grid, box: int, options: PostprocessOptions, control: JobControl, say: messages.Say) -> Iterator[Sample]:
    """All samples in the grid's order, measured by several threads; tells how far it is about ten times."""
    threads = _threads(grid, box, options)
    started, count = time.monotonic(), len(grid.points)
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, count, 4 * threads):  # a few at a time: samples hold maps
            control.check()
            yield from pool.map(sampler.measure, grid.points[start : start + 4 * threads])
            done = min(start + 4 * threads, count)
            if done * 10 // count > start * 10 // count:
                left = (time.monotonic() - started) * (count - done) / done
                say(f"   {done} of {count} points, about {left:.0f} s left")


def _threads(grid: Grid, box: int, options: PostprocessOptions) -> int:
    """As asked for, or one a core as long as their transforms stay within some gigabytes."""
    if options.threads > 0:
        return options.threads
    planes = min(box, 2 * (grid.radius + grid.edge) + 1)
    each = 8 * 8 * planes * box * (box // 2 + 1)  # four windows transformed along two axes, 8 bytes a number, and as much for what passes
    return max(1, min(thread_count(0), int(_MEMORY / each)))


def _write(result: LocalResolution, halves: HalfMaps, mask: Mask | None, options: PostprocessOptions, say: messages.Say) -> None:
    mrc.write_map(f"{options.output}_locres.mrc", result.resolution, halves.pixel_size)
    mrc.write_map(f"{options.output}_locres_filtered.mrc", result.filtered, halves.pixel_size)
    say(messages.field("Local resolution map", f"{options.output}_locres.mrc"))
    say(messages.field("Locally filtered map", f"{options.output}_locres_filtered.mrc"))
    inside = result.resolution[(mask.values > 0.5) & (result.resolution > 0)] if mask is not None else np.empty(0)
    if len(inside):
        from aurefine.postprocessing import figures

        for line in messages.histogram_lines(inside, figures.histogram_edges(inside)):
            say(line)
        figures.draw_histogram(inside, options.output)
        say(f"Written the histogram to {Path(options.output).parent / 'histogram.pdf'}")
    say(" done! ")
