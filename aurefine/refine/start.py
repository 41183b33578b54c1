"""Before the first iteration: the input is checked, images are read, and what stays the same through a run is put together."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import cast

import numba
import numpy as np
import torch

from aurefine import large_arrays, mtf
from aurefine.particles import ParticleSet
from aurefine.refine import devices, initial, inputs, memory, memory_fit, messages, rejection, resume, schedule, writer
from aurefine.refine.checks import warnings_at_start
from aurefine.refine.console import Console
from aurefine.refine.crew import Crew
from aurefine.refine.examination import Examination
from aurefine.refine.image_cache import ImageCache
from aurefine.refine.maximisation import Masks
from aurefine.refine.options import RefineOptions
from aurefine.refine.partial import Keeper
from aurefine.refine.run_monitor import RunMonitor
from aurefine.refine.shortage import Batches
from aurefine.refine.state import State
from aurefine.star import Table
from aurefine.threads import thread_count


@dataclass(frozen=True, eq=False)
class Data:
    """What stays the same through a run: particles, their images, the order of each half, masks, who works, watches and keeps checkpoints."""

    particles: ParticleSet
    cache: ImageCache
    order: tuple[np.ndarray, np.ndarray]
    masks: Masks
    crew: Crew
    monitor: RunMonitor = field(default_factory=RunMonitor)
    keeper: Keeper = field(default_factory=Keeper)
    rejected: Table | None = None  # rows that were set aside before the first iteration
    batches: Batches = field(default_factory=Batches)


def use_threads(asked: int, sharing: int = 1) -> int:
    """Threads for torch and Numba: those asked for, or all cores when --j is left at 1 (one process stands for all of RELION's).

    `sharing` processes have these cores together: each takes its part of them.
    """
    cores = min(thread_count(0), numba.config.NUMBA_NUM_THREADS)
    threads = max(1, min(asked, cores) if asked > 1 else cores // sharing)
    large_arrays.keep_freed()
    memory.keep_few_products()
    torch.set_num_threads(threads)
    numba.set_num_threads(threads)
    return threads


def start(
    particles: ParticleSet, options: RefineOptions, earlier: State | None, console: Console, crew: Crew, monitor: RunMonitor | None = None
) -> tuple[State, Data]:
    """Check all that is cheap to check, read all images; a new run also estimates its noise and writes its iteration 0."""
    monitor, anew = monitor or RunMonitor(), earlier is None or not (options.resume and options.output)
    told = [] if anew else crew.once(lambda: writer.read_warnings(options.output))
    for warning in (*told, *particles.warnings, *mtf.warnings(particles.optics), *_corrected(particles, options)):
        console.warn(warning)
    begin = inputs.read_inputs(particles, options, console.warn) if earlier is None else earlier
    grid = begin.halves[0] if isinstance(begin, State) else begin
    masks = inputs.read_masks(options, grid.box, grid.pixel_size)
    if options.output and crew.leads:
        writer.make_output_folder(options.output)
        resume.remove_unfinished(options.output)
        monitor.open(anew)
        inputs.check_room(options.output, grid.box, particles.count)
    devices.of_halves(options)  # a GPU that is not there is told before images are read
    if missing := devices.missing(options):
        console.warn(missing)
    sampling = begin.sampling if isinstance(begin, State) else initial.first_sampling(options, begin.pixel_size)
    batches, scratch = memory_fit.settle(particles, sampling, grid.box, options, crew, console)
    monitor.phase("reading images", particles=particles.count)
    seen = Examination(particles, options.particle_diameter)
    cache = ImageCache(particles, seen, monitor.advance, crew.storage, scratch)
    particles, begin, rejected = rejection.set_aside(particles, cache, begin, seen, options, console.warn)
    if options.output and crew.leads:
        rejection.write(options.output, particles.optics_table, rejected)
    keeper = Keeper(options, console.warn, crew)
    if options.output and anew:  # all input has proved to be good

        def take_over() -> None:
            resume.remove_earlier(options.output, begin.progress.iteration + 1 if isinstance(begin, State) else 0)
            keeper.end()
            monitor.takes_over()

        crew.once(take_over)
    state = begin if isinstance(begin, State) else _first_state(particles, cache, begin, masks, options, console, crew, monitor)
    if options.output and crew.leads:
        writer.write_warnings(options.output, console.warnings)
    if options.output and crew.writes and not isinstance(begin, State):
        keeper.keep_state(state)
        writer.write_iteration(options.output, 0, state, particles, options)
    memory.give_back()
    subset, seed = state.random_subset, options.random_seed
    first, second = (inputs.processing_order(particles, subset, half, seed + half) for half in (1, 2))
    order = first[cache.holds[first]], second[cache.holds[second]]
    return state, Data(particles, cache, order, masks, crew, monitor, keeper, rejected, batches)


def _corrected(particles: ParticleSet, options: RefineOptions) -> list[str]:
    """A warning where CTF correction is asked for, but images of some optics groups have no CTF any more."""
    numbers = [str(group.number) for group in particles.optics if group.ctf_corrected] if options.ctf_correction else []
    return [f"rlnCtfDataAreCtfCorrected is set in optics group {', '.join(numbers)}: no CTF is applied to its images"] if numbers else []


def _first_state(
    particles: ParticleSet, cache: ImageCache, given: inputs.Inputs, masks: Masks, options: RefineOptions, console: Console, crew: Crew,
    monitor: RunMonitor,
) -> State:  # fmt: skip
    """The state of iteration 0; beside its making the input is looked at as an expert does."""
    monitor.phase("checking the input and first noise spectra")
    if not options.initial_noise_spectrum:
        console.line(messages.noise_title(options.noise_particles if options.noise_particles > 0 else 1000))
    sigma2 = initial.first_noise(particles, cache, given, options, console.warn, crew)

    def look() -> tuple[list[str], State | None]:
        return warnings_at_start(particles, given, masks, options), None

    def begin() -> tuple[list[str], State | None]:
        state = initial.initial_state(particles, given, options, sigma2)
        return [], replace(state, progress=schedule.update_resolution(state.progress, state.halves[0], options, options.initial_lowpass > 0))

    (seen, _), (_, state) = crew.everywhere(crew.map(lambda work: work(), (look, begin)))
    for reason in seen:
        console.warn(reason)
    return cast(State, state)
