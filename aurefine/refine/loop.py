"""The refinement loop: plan, expectation, maximisation, judgement, files; one iteration after the other until convergence."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import cast

import numba
import numpy as np
import torch

from aurefine import kernels
from aurefine import particles as particles_room
from aurefine.errors import InputError
from aurefine.job_control import JobControl
from aurefine.kernels import Volume
from aurefine.particles import ParticleSet
from aurefine.refine import (
    accuracy,
    crosscheck,
    devices,
    initial,
    inputs,
    lanes,
    memory,
    memory_plan,
    messages,
    outliers,
    rejection,
    schedule,
    shortage,
    transforms,
    writer,
)  # fmt: skip
from aurefine.refine.background import Background
from aurefine.refine.checks import warnings_at_end, warnings_at_start
from aurefine.refine.console import Console
from aurefine.refine.crew import Crew
from aurefine.refine.examination import Examination
from aurefine.refine.expectation import Expectation, HalfSums
from aurefine.refine.images import ImageCache
from aurefine.refine.maximisation import Masks, Maximised, maximise
from aurefine.refine.options import RefineOptions, validate_values
from aurefine.refine.partial import Keeper
from aurefine.refine.plan import Grid, Plan, current_image_size, geometry_of, image_sizes, shells_left_out, shells_with_signal
from aurefine.refine.run_monitor import RunMonitor
from aurefine.refine.shortage import Batches
from aurefine.refine.state import Model, Poses, Progress, State
from aurefine.star import Table
from aurefine.threads import thread_count

Volumes = list[Volume | None]  # projectors of both halves, where there are some


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


@dataclass(eq=False)
class Result:
    """Outcome of a refinement.

    Attributes: state: the final state (joined model when converged); history: one dict an iteration (resolution, accuracy, sampling,
    changes, seconds); resolution: Angstrom; warnings: what a careful user should read; output: root of the written files, or "";
    rejected: particles that were set aside, with the reason (refine/rejection.py), or None.
    """

    state: State
    history: list[dict] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    output: str = ""
    rejected: Table | None = None

    @property
    def resolution(self) -> float:
        """Resolution in Angstrom."""
        return 1 / self.state.progress.current_resolution

    @property
    def map(self) -> np.ndarray:
        """The final map float32 [box, box, box] (of half 1 where the run did not converge)."""
        return self.state.halves[0].map

    @property
    def half_maps(self) -> tuple[np.ndarray, ...]:
        """The two unfiltered half maps of a converged run."""
        return self.state.half_maps_unfiltered

    @property
    def fsc(self) -> np.ndarray:
        """Gold-standard FSC by shell."""
        return self.state.halves[0].fsc

    @property
    def alignment_failed(self) -> bool:
        """Whether the refinement itself doubts its orientations: see `warnings`."""
        return 0 <= self.state.progress.orientations_kept < crosscheck.LEAST_KEPT or self.state.halves[0].accuracy_rotation > messages.POOR_ACCURACY

    @property
    def poses(self) -> Poses:
        """Angles, offsets and likelihoods of all particles, in the order of the `_data.star`."""
        return self.state.poses


def refine(
    particles: ParticleSet | str | Path,
    reference: str | Path | None,
    options: RefineOptions,
    *,
    state: State | None = None,
    control: JobControl | None = None,
    console: Console | None = None,
    crew: Crew | None = None,
) -> Result:
    """Refine to convergence; the whole algorithm on one screen.

    Args: particles: a ParticleSet or the name of its STAR file; reference: name of the starting map (None with `state`); options: see
        RefineOptions, its `output` the root of the files to write ("" writes none); state: go on from here instead of starting; crew: who does
        the work (None: the threads of this process).
    Raises InputError for a user's mistake, JobAborted when the job is told to stop.
    """
    validate_values(options)
    control, console = control or JobControl(), console or Console(verbosity=options.verbosity)
    crew = crew or lanes.lanes_of(use_threads(options.threads))
    if not isinstance(particles, ParticleSet):
        particles = particles_room.load(particles, need_ctf=options.ctf_correction)
    options = _complete(options, str(reference or options.reference), particles)
    if state is None and not options.reference:
        raise InputError("No reference: give the name of a map (.mrc).")
    if state is not None and state.progress.iteration >= options.max_iterations:
        raise InputError(
            f"--auto_iter_max {options.max_iterations}: {state.progress.iteration} iterations are done already (they are counted from the "
            "very first). Give a larger number."
        )
    with RunMonitor(options, control, writes=crew.leads) as monitor, shortage.explained(options.output):
        return _iterate(*_start(particles, options, state, console, crew, monitor), options, console, control)


def _iterate(state: State, data: Data, options: RefineOptions, console: Console, control: JobControl) -> Result:
    """One iteration after the other, to the last."""
    result, monitor, keeper = Result(state, output=options.output, rejected=data.rejected), data.monitor, data.keeper
    state = keeper.exact(state) if options.resume else state
    begun = keeper.begun(state, data.order) if options.resume else None
    with Background() as background:
        while state.progress.iteration < options.max_iterations:
            started = time.perf_counter()
            monitor.phase("planning", state.progress.iteration + 1)
            state, plan, volumes = (*begun, None) if begun else _plan(state, data, options, console)
            begun = None
            background.finish()  # an iteration is on the disk before another one's long part begins
            sums, poses = _expectation(state, plan, data, options, console, control, volumes)
            maximised = _maximisation(state, plan, sums, data, options, console)
            state = _judge(state, plan, maximised, poses, options)
            result.history.append(_record(state, time.perf_counter() - started))
            if plan.final:
                state, data = _without_outliers(state, data, options, console)
            result.state, result.rejected = state, data.rejected
            background.submit(_write, state, plan, data, options)
            if plan.final:
                monitor.phase("writing")
                background.finish()
                data.crew.everywhere((None, None))  # all files are there
                _conclude(state, data, options, console)
                break
    _tell_warnings(options, console, data.crew)
    result.warnings = list(console.warnings)
    return result


def _complete(options: RefineOptions, reference: str, particles: ParticleSet) -> RefineOptions:
    """Fill in what the options leave to be found out: reference, seed, particle diameter."""
    optics = particles.optics[0]
    diameter = options.particle_diameter if options.particle_diameter > 0 else (optics.box - options.mask_edge_pixels) * optics.pixel_size
    return replace(options.seeded(), reference=reference, particle_diameter=diameter)


def _conclude(state: State, data: Data, options: RefineOptions, console: Console) -> None:
    console.lines(messages.final_lines(
        options.output, state.progress.current_resolution, state.halves[0].accuracy_rotation,
        tau2_fudge=options.tau2_fudge_used, solvent_fsc=options.solvent_correct_fsc,
    ))  # fmt: skip
    for reason in warnings_at_end(state, data.masks, options) if data.crew.leads else ():
        console.warn(reason)


def _tell_warnings(options: RefineOptions, console: Console, crew: Crew) -> None:
    """The table of all warnings, on the screen and beside the results."""
    console.lines(messages.warning_lines(console.warnings))
    if options.output and crew.leads:
        writer.write_warnings(options.output, console.warnings)


def use_threads(asked: int, sharing: int = 1) -> int:
    """Threads for torch and Numba: those asked for, or all cores when --j is left at 1 (one process stands for all of RELION's).

    `sharing` processes have these cores together: each takes its part of them.
    """
    cores = min(thread_count(0), numba.config.NUMBA_NUM_THREADS)
    threads = max(1, min(asked, cores) if asked > 1 else cores // sharing)
    memory.keep_freed()
    torch.set_num_threads(threads)
    numba.set_num_threads(threads)
    return threads


def _start(
    particles: ParticleSet, options: RefineOptions, earlier: State | None, console: Console, crew: Crew, monitor: RunMonitor | None = None
) -> tuple[State, Data]:
    """Check all that is cheap to check, read all images; a new run also estimates its noise and writes its iteration 0."""
    monitor = monitor or RunMonitor()
    for warning in particles.warnings:
        console.warn(warning)
    begin = inputs.read_inputs(particles, options, console.warn) if earlier is None else earlier
    grid = begin.halves[0] if isinstance(begin, State) else begin
    masks = inputs.read_masks(options, grid.box, grid.pixel_size)
    if options.output and crew.leads:
        writer.make_output_folder(options.output)
        monitor.open()
        inputs.check_room(options.output, grid.box, particles.count)
    devices.of_halves(options)  # a GPU that is not there is told before images are read
    if missing := devices.missing(options):
        console.warn(missing)
    sampling = begin.sampling if isinstance(begin, State) else initial.first_sampling(options, begin.pixel_size)
    batches = memory_plan.settle(particles, sampling, grid.box, options, crew, console)
    monitor.phase("reading images", particles=particles.count)
    seen = Examination(particles, options.particle_diameter)
    cache = ImageCache(particles, seen, monitor.advance, crew.storage)
    particles, begin, rejected = rejection.set_aside(particles, cache, begin, seen, options, console.warn)
    if options.output and crew.leads:
        rejection.write(options.output, particles.optics_table, rejected)
    keeper = Keeper(options, console.warn, leads=crew.writes, alone=isinstance(crew, lanes.Lanes))
    state = begin if isinstance(begin, State) else _first_state(particles, cache, begin, masks, options, console, crew, monitor)
    if options.output and crew.writes and not isinstance(begin, State):
        keeper.keep_state(state)
        writer.write_iteration(options.output, 0, state, particles, options)
    memory.give_back()
    subset, seed = state.random_subset, options.random_seed
    first, second = (inputs.processing_order(particles, subset, half, seed + half) for half in (1, 2))
    order = first[cache.holds[first]], second[cache.holds[second]]
    return state, Data(particles, cache, order, masks, crew, monitor, keeper, rejected, batches)


def _first_state(
    particles: ParticleSet, cache: ImageCache, given: inputs.Inputs, masks: Masks, options: RefineOptions, console: Console, crew: Crew,
    monitor: RunMonitor,
) -> State:  # fmt: skip
    """The state of iteration 0; beside its making the input is looked at as an expert does."""
    monitor.phase("checking the input and first noise spectra")
    if not options.initial_noise_spectrum:
        console.line(messages.noise_title(options.noise_particles if options.noise_particles > 0 else 1000))

    def look() -> tuple[list[str], State | None]:
        return warnings_at_start(particles, given, masks, options), None

    def begin() -> tuple[list[str], State | None]:
        found: list[str] = []
        state = initial.initial_state(particles, cache, given, options, found.append)
        return found, replace(state, progress=schedule.update_resolution(state.progress, state.halves[0], options, options.initial_lowpass > 0))

    (seen, _), (found, state) = crew.everywhere(crew.map(lambda work: work(), (look, begin)))
    for reason in seen + found:
        console.warn(reason)
    return cast(State, state)


def _plan(state: State, data: Data, options: RefineOptions, console: Console) -> tuple[State, Plan, Volumes]:
    """Decide sizes, sampling and whether this is the last iteration; returns (state, plan, projectors where they were made)."""
    progress = replace(state.progress, iteration=state.progress.iteration + 1)
    iteration, model = progress.iteration, state.halves[0]
    correlation = options.first_iteration_cc and iteration == 1
    sampling = state.sampling
    plan = make_plan(iteration, sampling, progress, state, data.particles, options, correlation)
    estimate: accuracy.Accuracy | None = None
    volumes: Volumes = [None, None]
    if not correlation:
        volumes = data.crew.map(lambda half: projectors((half,), plan, options)[0], state.halves)
        first = cast(Volume, volumes[0])  # whoever does what is done once has it
        given = plan, model, first, data.particles, state.poses, data.order[0], options
        estimate = data.crew.once(lambda: accuracy.estimate(*given, data.crew.side_by_side))
        progress = replace(progress, accuracy_rotation=estimate.rotation, accuracy_translation=estimate.translation)
    if iteration > 1:
        # the verdict must hold by the last two accuracies (the first of a run is of a low-passed map), and the accuracy must have come to rest
        at_rest = schedule.was_fine_enough(sampling, state.progress, options) and not schedule.accuracy_improves(state.progress, progress)
        progress = replace(progress, has_fine_enough=schedule.is_fine_enough(sampling, progress, options))
        converged = options.force_converge or (at_rest and schedule.has_converged(progress, options))
        progress = replace(progress, has_converged=converged)
        console.lines(messages.iteration_lines(iteration, progress))
        if converged:
            console.lines(messages.convergence_lines())
            if estimate is not None:
                progress = _cross_check(progress, plan, state, data, options, console)
        elif estimate is not None:
            sampling, progress = schedule.update_sampling(sampling, progress, options)
    else:
        console.lines(messages.iteration_lines(iteration, progress))
    if estimate is not None:
        console.line(messages.accuracy_title())
        console.lines(messages.accuracy_lines(iteration, estimate.rotation, estimate.translation))
    if iteration > 1:
        console.lines(messages.sampling_lines(sampling))
    halves = state.halves
    if sampling.healpix_order != state.sampling.healpix_order:
        directions = len(Grid(sampling).directions)
        halves = tuple(replace(half, pdf_direction=np.full(directions, 1 / directions)) for half in halves)
    if estimate is not None:
        halves = tuple(
            replace(h, accuracy_rotation=estimate.rotation, accuracy_translation=estimate.translation, orientability=estimate.orientability)
            for h in halves
        )
    sampling = schedule.perturbed(sampling, options.random_seed + iteration)
    state = replace(state, halves=halves, sampling=sampling, progress=progress)
    plan = make_plan(iteration, sampling, progress, state, data.particles, options, correlation)
    if estimate is not None:
        plan = plan.oversampled(*schedule.oversampling(sampling, progress))
    if plan.final:
        plan = plan.comparing(shells_with_signal(halves))
    progress, plan = data.crew.once(lambda: (replace(progress, current_size=plan.current_size), plan))
    return replace(state, progress=progress), plan, [None, None] if plan.final else volumes


def _cross_check(progress: Progress, plan: Plan, state: State, data: Data, options: RefineOptions, console: Console) -> Progress:
    """Before the halves are joined: are orientations found again in the other half's map?"""
    data.monitor.phase("alignment check")
    projector = lambda half: projectors((state.halves[half],), plan, options)[0]  # noqa: E731
    found = crosscheck.check(plan, state.halves, projector, data.order, data.particles, data.cache, state.poses, options, data.crew)
    console.line(found.line())
    return replace(progress, orientations_kept=found.share_kept)


def make_plan(iteration, sampling, progress, state: State, particles: ParticleSet, options: RefineOptions, correlation: bool) -> Plan:
    """The plan of an iteration whose sampling and progress are settled."""
    model = state.halves[0]
    box, pixel_size = model.box, model.pixel_size
    current = box if options.use_all_data else current_image_size(progress, model.average_pmax, box, pixel_size)
    geometry = tuple(geometry_of(optics, box, pixel_size) for optics in particles.optics)
    sizes = tuple(image_sizes(options, g, current, sampling.coarse_step, box, pixel_size) for g in geometry)
    use_ctf = options.ctf_correction and (options.reference_ctf_corrected or iteration > 1)
    # Correlations of a sharp map's first guesses lie closer together than a bfloat16 product tells apart.
    return Plan(iteration, sampling, current, sizes, geometry, correlation, use_ctf, progress.has_converged, reduced_precision=not correlation)


def projectors(halves: tuple[Model, ...], plan: Plan, options: RefineOptions):
    """Padded transforms of the halves' maps at the plan's size."""
    left_out = shells_left_out(options, halves[0].box * halves[0].pixel_size, plan.reference_size)
    return tuple(transforms.projector(model.map, plan.reference_size // 2, options.padding, left_out) for model in halves)


def _expectation(
    state: State, plan: Plan, data: Data, options: RefineOptions, console: Console, control: JobControl, known: Volumes | None = None
) -> tuple[tuple[HalfSums, ...], Poses]:
    """Both halves' E-step; returns (their sums, new poses). `known` are the projectors that there are already; they are large, and taken out."""
    data.monitor.phase("expectation", particles=data.particles.count)
    data.keeper.start(state, plan, data.order)
    grid = plan.grid
    console.line(messages.resolution_line(state.progress.current_resolution, options.particle_diameter))
    console.lines(messages.grid_lines(grid, _orientations(grid, state.poses, data)))
    old = state.poses
    new = Poses(*(np.array(getattr(old, name)) for name in Poses.__dataclass_fields__))
    crew, locations, known = data.crew, devices.of_halves(options), known or [None, None]
    outlying = crew.once(lambda: outliers.find(old, data.particles, plan.iteration, console.line))
    with console.progress(messages.expectation_title(plan.iteration), data.particles.count) as bar:
        turn = threading.Lock()

        def advance(count: int) -> None:
            crew.check()
            with turn:
                done = crew.finished(count)
                bar.advance(done)
                data.monitor.advance(done)
                control.check()

        def half(keeper: Keeper, members: Sequence[np.ndarray], number: int, pieces: Iterable[np.ndarray]) -> HalfSums:
            volume, known[number] = known[number], None
            if volume is None or volume.r_max != plan.reference_size // 2:
                (volume,) = projectors((state.halves[number],), plan, options)
            if keeper is not data.keeper:
                known[number] = volume  # it is needed again
            memory.make_room(volume.data.nbytes, always=plan.final)  # for the accumulator; the last iteration is the one whose peak counts
            volume = devices.use(volume, locations[number])
            work = Expectation(plan, grid, state.halves[number], volume, data.particles, data.cache, options, crew.threads_each, data.batches)
            part = keeper.half(number)
            done = part.restore(members[number], work.sums, new)
            with turn:
                bar.advance(done)
                data.monitor.advance(done, skipped=True)
            return work.run(part.rest(pieces), old, new, advance, part.keep)

        with kernels.product_precision(locations[0], plan.reduced_precision):
            used, left_out = ([members[outlying[members] == wanted] for members in data.order] for wanted in (False, True))
            if outlying.any():  # these are scored only: their sums are dropped
                unkept = Keeper()
                unkept.start(state, plan, left_out)
                crew.share_out(partial(half, unkept, left_out), left_out, new, devices.apart(locations))
            sums = crew.share_out(partial(half, data.keeper, used), used, new, devices.apart(locations))
    outliers.mark(new, outlying)
    return sums, new


def _orientations(grid: Grid, poses: Poses, data: Data) -> int:
    """Coarse orientations searched for one particle: the grid, or in local searches those near the first particle, as RELION counts."""
    if not grid.state.local:
        return grid.coarse_count
    first = next(members[0] for members in data.order if len(members))
    return int(grid.near(poses.angles[[first]]).ptr[-1])


def _maximisation(state: State, plan: Plan, sums, data: Data, options: RefineOptions, console: Console) -> Maximised:
    """Both halves' M-step, with RELION's messages."""
    data.monitor.phase("maximisation")
    if options.join_halves_resolution > 0:
        console.lines(messages.joining_lines(max(options.join_halves_resolution, 1 / state.progress.current_resolution)))
    console.line(messages.fsc_line())
    with console.progress(messages.maximisation_title(), 1) as bar:
        maximised = maximise(state.halves, sums, plan, data.masks, state.progress.current_resolution, options, data.crew)
        bar.advance(1)
    return maximised


def _judge(state: State, plan: Plan, maximised: Maximised, poses: Poses, options: RefineOptions) -> State:
    """Update counters, resolution and verdicts from what the iteration found."""
    progress = schedule.count_changes(state.progress, plan.sampling, state.poses, poses)
    progress = schedule.update_image_growth(progress, maximised.models[0].fsc, plan.current_size)
    first = maximised.models[0]
    models = maximised.models  # both halves go by the first one's spectrum and average
    models = (first, *(replace(model, data_vs_prior=first.data_vs_prior, average_pmax=first.average_pmax) for model in models[1:]))
    progress = schedule.update_resolution(progress, first, options, plan.correlation and options.initial_lowpass > 0)
    return State(models, poses, state.sampling, progress, state.random_subset, maximised.unfiltered)


def _record(state: State, seconds: float) -> dict:
    """One line of the history."""
    progress, sampling = state.progress, state.sampling
    return {
        "iteration": progress.iteration, "resolution": 1 / progress.current_resolution, "accuracy_rotation": progress.accuracy_rotation,
        "accuracy_translation": progress.accuracy_translation, "healpix_order": sampling.healpix_order, "local": sampling.local,
        "current_size": progress.current_size, "changes_angles": progress.changes_angles, "changes_offsets": progress.changes_offsets,
        "pmax": state.halves[0].average_pmax, "seconds": seconds,
    }  # fmt: skip


def _without_outliers(state: State, data: Data, options: RefineOptions, console: Console) -> tuple[State, Data]:
    """What the last iteration's sums hold; the outliers it left out join the list of what was set aside."""
    state, particles, rejected = rejection.conclude(state, data.particles, data.rejected, options.output, console.warn)
    if options.output and data.crew.leads and rejected is not data.rejected:
        rejection.write(options.output, particles.optics_table, rejected)
    return state, replace(data, particles=particles, rejected=rejected)


def _write(state: State, plan: Plan, data: Data, options: RefineOptions) -> None:
    """The files of a complete iteration, for which checkpoints make room."""
    if options.output and data.crew.writes:
        if plan.final:
            writer.write_final(options.output, state, data.particles, options)
            data.keeper.end()
        else:
            data.keeper.keep_state(state)
            writer.write_iteration(options.output, plan.iteration, state, data.particles, options)
            data.keeper.forget(plan.iteration)
