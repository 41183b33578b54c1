"""The refinement loop: plan, expectation, maximisation, judgement, files; one iteration after the other until convergence."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from aurefine import kernels
from aurefine import particles as particles_room
from aurefine.errors import InputError
from aurefine.job_control import JobControl
from aurefine.particles import ParticleSet
from aurefine.refine import devices, lanes, memory, messages, outliers, rejection, resume, schedule, shortage, writer
from aurefine.refine.background import Background
from aurefine.refine.checks import warnings_at_end
from aurefine.refine.console import Console
from aurefine.refine.crew import Crew
from aurefine.refine.expectation import Expectation
from aurefine.refine.half_sums import HalfSums
from aurefine.refine.maximisation import Maximised, maximise
from aurefine.refine.options import RefineOptions, validate_values
from aurefine.refine.partial import Keeper
from aurefine.refine.plan import Grid, Plan
from aurefine.refine.planning import Volumes, plan_iteration, projectors
from aurefine.refine.result import Result, record
from aurefine.refine.run_monitor import RunMonitor
from aurefine.refine.start import Data, start, use_threads
from aurefine.refine.state import Poses, State
from aurefine.symmetry import point_group

_LARGE = 0.79  # of the box: with references smaller than that, both half-sets' references and sums take no more room than whole ones of one
_NEARLY_WHOLE = 0.9  # of the box: with references smaller than that, both half-sets' sums side by side take no more room than whole ones in turn


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
        begun = start(particles, options, state, console, crew, monitor)
        with resume.told_what_is_kept(options.output):
            return _iterate(*begun, options, console, control)


def _iterate(state: State, data: Data, options: RefineOptions, console: Console, control: JobControl) -> Result:
    """One iteration after the other, to the last."""
    result, monitor, keeper = Result(state, output=options.output, rejected=data.rejected), data.monitor, data.keeper
    state = keeper.exact(state) if options.resume else state
    begun = keeper.begun(state) if options.resume else None
    known = len(console.warnings)  # all processes have these
    with Background() as background:
        while state.progress.iteration < options.max_iterations:
            started = time.perf_counter()
            monitor.phase("planning", state.progress.iteration + 1)
            state, plan, volumes = (*begun, None) if begun else plan_iteration(state, data, options, console)
            begun = None
            background.finish()  # an iteration is on the disk before another one's long part begins
            sums, poses = _expectation(state, plan, data, options, console, control, volumes)
            maximised = _maximisation(state, plan, sums, data, options, console)
            state = _judge(state, plan, maximised, poses, options)
            known = _hear(data.crew, console, known, options.output)
            result.history.append(record(state, time.perf_counter() - started))
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
    _hear(data.crew, console, known, options.output)
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
        tau2_fudge=options.tau2_fudge_used, solvent_fsc=options.solvent_correct_fsc, other_images=data.particles.reconstruct_images is not None,
    ))  # fmt: skip
    for reason in warnings_at_end(state, data.masks, options) if data.crew.leads else ():
        console.warn(reason)


def _hear(crew: Crew, console: Console, known: int, root: str) -> int:
    """What another process has warned of since there were so many warnings is told here, too, and all are kept; returns how many there are now."""
    for reason in crew.heard(console.warnings[known:]):
        console.warn(reason)
    if root and crew.leads and len(console.warnings) > known:
        with suppress(InputError):  # a disk that is full has been warned of, and may have room again at the end
            writer.write_warnings(root, console.warnings)
    return len(console.warnings)


def _tell_warnings(options: RefineOptions, console: Console, crew: Crew) -> None:
    """The table of all warnings, on the screen and beside the results."""
    console.lines(messages.warning_lines(console.warnings))
    if options.output and crew.leads:
        writer.write_warnings(options.output, console.warnings)


def _expectation(
    state: State, plan: Plan, data: Data, options: RefineOptions, console: Console, control: JobControl, known: Volumes | None = None
) -> tuple[tuple[HalfSums, ...], Poses]:
    """Both halves' E-step; returns (their sums, new poses). `known` are the projectors that there are already; they are large, and taken out."""
    data.monitor.phase("expectation", particles=data.particles.count)
    grid = plan.grid
    console.line(messages.resolution_line(state.progress.current_resolution, options.particle_diameter))
    console.lines(messages.grid_lines(grid, _orientations(grid, state.poses, data)))
    old = state.poses
    new = old.copied()
    crew, locations, known = data.crew, devices.of_halves(options), known or [None, None]
    filled = plan.reference_size / state.halves[0].box
    in_turn, large = data.batches.sums_in_turn and filled > _NEARLY_WHOLE, filled > _LARGE
    apart = devices.apart(locations) and not in_turn
    if in_turn:
        known[:] = [None, None]  # one reference at a time
    kept = data.keeper.start(state, plan, new)
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

        def half(keeper: Keeper, number: int, pieces: Iterable[np.ndarray]) -> HalfSums:
            volume, known[number] = known[number], None
            if volume is None or volume.r_max != plan.reference_size // 2:
                (volume,) = projectors((state.halves[number],), plan, options, locations[number])
            if keeper is not data.keeper and not in_turn:
                known[number] = volume  # it is needed again
            memory.make_room(volume.data.nbytes, always=plan.final)  # for the accumulator; the last iteration is the one whose peak counts
            volume = volume.to(locations[number])
            threads = crew.threads_each if apart else crew.threads_each * crew.count
            copies = min(threads, data.batches.copies or threads)
            work = Expectation(plan, grid, state.halves[number], volume, data.particles, data.cache, options, copies, data.batches)
            part = keeper.half(number)
            part.restore(work.sums, new)
            sums = work.run(pieces, old, new, advance, part.keep)
            del work, volume  # the reference
            if in_turn and keeper is data.keeper:
                sums.collect(point_group(plan.sampling.symmetry).operators, state.halves[number].box, data.batches.folder)
            elif in_turn:
                sums.accumulator.data = torch.empty(0)
            return sums

        bar.advance(int(kept.sum()))
        data.monitor.advance(int(kept.sum()), skipped=True)
        with kernels.product_precision(locations[0], plan.rounds_products):
            used, left_out = ([members[chosen[members]] for members in data.order] for chosen in (~outlying & ~kept, outlying))
            if outlying.any():  # these are scored only: their sums are dropped
                crew.share_out(partial(half, Keeper()), left_out, new, apart, large)
            sums = crew.share_out(partial(half, data.keeper), used, new, apart, large)
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
        console.lines(messages.joining_lines(max(options.join_halves_resolution, messages.angstrom(state.progress.current_resolution))))
    console.line(messages.fsc_line())
    with console.progress(messages.maximisation_title(), 1) as bar:
        maximised = maximise(state.halves, sums, plan, data.masks, state.progress.current_resolution, options, data.crew, data.batches)
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
