"""The plan of an iteration: its sizes and sampling, and whether it is the last one (ALGORITHM.md 5)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
import torch

from aurefine.kernels import Volume
from aurefine.particles import ParticleSet
from aurefine.refine import accuracy, crosscheck, devices, messages, schedule, transforms, transforms_torch
from aurefine.refine.console import Console
from aurefine.refine.options import RefineOptions
from aurefine.refine.plan import Grid, Plan, current_image_size, geometry_of, image_sizes, shells_left_out, shells_with_signal
from aurefine.refine.start import Data
from aurefine.refine.state import Model, Progress, State

_CPU = torch.device("cpu")
Volumes = list[Volume | None]  # projectors of both halves, where there are some


def plan_iteration(state: State, data: Data, options: RefineOptions, console: Console) -> tuple[State, Plan, Volumes]:
    """Decide sizes, sampling and whether this is the last iteration; returns (state, plan, projectors where they were made)."""
    progress = replace(state.progress, iteration=state.progress.iteration + 1)
    iteration, model = progress.iteration, state.halves[0]
    correlation = options.first_iteration_cc and iteration == 1
    sampling = state.sampling
    plan = make_plan(iteration, sampling, progress, state, data.particles, options, correlation)
    estimate: accuracy.Accuracy | None = None
    volumes: Volumes = [None, None]
    if not correlation:
        volumes = data.crew.map(lambda half, where: projectors((half,), plan, options, where)[0], state.halves, devices.of_halves(options))
        first = cast(Volume, volumes[0])  # whoever does what is done once has it
        given = plan, model, first, data.particles, state.poses, data.order[0], options
        estimate = data.crew.once(lambda: accuracy.estimate(*given, data.crew.side_by_side))
        progress = replace(progress, accuracy_rotation=estimate.rotation, accuracy_translation=estimate.translation)
    if iteration > 1:
        # the verdict must hold by the last two accuracies (the first of a run is of a low-passed map), and the accuracy must have come to rest
        at_rest = schedule.was_fine_enough(sampling, state.progress, options) and not schedule.accuracy_improves(state.progress, progress)
        progress = replace(progress, has_fine_enough=schedule.is_fine_enough(sampling, progress, options))
        converged = options.force_converge or (at_rest and schedule.has_converged(progress, options))
        console.lines(messages.iteration_lines(iteration, progress))
        if estimate is not None and not converged:
            converged = schedule.ends_on_next_step(sampling, progress, options)
            sampling, progress = schedule.update_sampling(sampling, progress, options)
        progress = replace(progress, has_converged=converged)
        if converged:
            console.lines(messages.convergence_lines())
            if estimate is not None:
                progress = _cross_check(progress, plan, volumes, state, data, options, console)
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
        plan = plan.comparing(shells_with_signal(halves, devices.of_halves(options)[0]))
    progress, plan = data.crew.once(lambda: (replace(progress, current_size=plan.current_size), plan))
    return replace(state, progress=progress), plan, [None, None] if plan.final else volumes


def _cross_check(
    progress: Progress, plan: Plan, volumes: Volumes, state: State, data: Data, options: RefineOptions, console: Console
) -> Progress:
    """Before the halves are joined: are orientations found again in the other half's map? `volumes` are the plan's projectors that are here."""
    data.monitor.phase("alignment check")

    def projector(half: int) -> Volume:
        return volumes[half] or projectors((state.halves[half],), plan, options, devices.of_halves(options)[half])[0]

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
    with_ctf = options.ctf_correction and not options.reference_ctf_corrected and iteration == 1
    # Correlations of a sharp map's first guesses lie closer together than a bfloat16 product tells apart.
    reduced = not (correlation or options.full_precision)
    return Plan(
        iteration, sampling, current, sizes, geometry, correlation, with_ctf, progress.has_converged,
        reduced_precision=reduced,
    )  # fmt: skip


def projectors(halves: tuple[Model, ...], plan: Plan, options: RefineOptions, device: torch.device = _CPU) -> tuple[Volume, ...]:
    """Padded transforms of the halves' maps at the plan's size, on a device."""
    left_out = shells_left_out(options, halves[0].box * halves[0].pixel_size, plan.reference_size)
    make = transforms.projector if devices.compiled(device) else partial(transforms_torch.projector, device=device)
    return tuple(make(model.map, plan.reference_size // 2, options.padding, left_out) for model in halves)
