"""Batches, and an order of work, whose planned memory fits into what there is (or into --memory)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from aurefine.errors import InputError
from aurefine.particles import ParticleSet
from aurefine.refine import devices, memory_there, scratch, shortage
from aurefine.refine.console import Console
from aurefine.refine.crew import Crew
from aurefine.refine.gpu_plan import megabytes
from aurefine.refine.memory_plan import MemoryPlan, Workers, image_bytes, measure
from aurefine.refine.options import RefineOptions
from aurefine.refine.scratch import Scratch
from aurefine.refine.shortage import Batches
from aurefine.refine.state import SamplingState

_MARGIN = 1.1  # by which --memory is kept to: noise decides how long lists are
_IMAGES_FIRST = 3  # batches are halved so often less one before images leave memory: rereading them costs more


def settle(
    particles: ParticleSet, sampling: SamplingState, box: int, options: RefineOptions, crew: Crew, console: Console
) -> tuple[Batches, Scratch | None]:
    """Print the plan of this process; returns batches that fit, and where images are if they are not in memory.

    Arguments and errors as for `measure` and `fitted`.
    """
    gpus = tuple(dict.fromkeys(device.index or 0 for device in devices.of_halves(options) if device.type == "cuda"))
    lanes = 1 if len(gpus) == 1 else crew.count
    piece = crew.largest_piece(math.ceil(particles.count / 2))
    workers = Workers(lanes, 1 if gpus else crew.threads_each, gpus, crew.sharing, crew.leads and crew.writes, crew.halves, piece)
    size, there = image_bytes(particles), memory_there.available() // crew.sharing
    folder = crew.once(lambda: scratch.asked(options, size, console.warn))

    def fit(streams: bool | None, stores: bool = True) -> tuple[MemoryPlan, int, Batches]:
        batches = Batches(warn=console.warn)
        return *fitted(particles, sampling, box, options, workers, batches, there, streams, stores), batches

    plan, there, batches = fit(True if folder else None)
    streams = crew.once(lambda: plan.streamed > 0)  # the images are everybody's
    if streams != (plan.streamed > 0):
        plan, there, batches = fit(streams)
    if plan.stored:
        batches.folder = scratch.with_room(options, plan.stored + (size if streams else 0))
        if not batches.folder:
            plan, there, batches = fit(streams, stores=False)
    place = None
    if streams:
        place = Scratch(folder or crew.once(lambda: scratch.found(options, size, console.warn)), console.warn)
    console.lines(plan.lines(there, place.place if place else "", batches.folder))
    if there and plan.peak > there:
        console.warn(f"memory may be too short: {megabytes(plan.peak)} are planned, {megabytes(there)} are there")
    return batches, place


def fitted(
    particles: ParticleSet, sampling: SamplingState, box: int, options: RefineOptions, workers: Workers, batches: Batches, there: int,
    streams: bool | None = None, stores: bool = True,
) -> tuple[MemoryPlan, int]:  # fmt: skip
    """(the plan, bytes that are there), fitted into --memory, or without it into the bytes `there` (0: unknown).

    When it does not, the half-sets' M-steps come one after the other, and `batches` are halved until the peak fits; where sums are what is large,
    fewer threads sum at a time, the half-sets' last E-steps come one after the other, and at last finished sums are on a disk (`stores`). Images are
    read batch by batch (`streams`) or not; where that is not said, when holding them would cost more than two halvings. Raises InputError when
    --memory is less than the least that is needed.
    """
    there = int(options.memory_gb * (1 << 30)) or there
    for way in _ways(workers, streams, stores):
        batches.halved, batches.in_turn, batches.copies = way.halved, way.in_turn, way.copies
        batches.sums_in_turn, batches.stored = way.sums_in_turn, way.stored
        plan = measure(particles, sampling, box, options, workers, batches, way.reads)
        if not there or plan.peak * (_MARGIN if options.memory_gb > 0 else 1) <= there:
            break
    if options.memory_gb > 0 and plan.peak > there:
        raise InputError(
            f"--memory {options.memory_gb:g}: at least {plan.peak / (1 << 30):.2f} GB are needed for {particles.count} particles in a box of "
            f"{box} px (sums {megabytes(max(plan.sums, plan.maximisation))}). Give more, use --pad 1, or a smaller box."
        )
    return plan, there


@dataclass(frozen=True)
class _Way:
    """One way to work: fields as in Batches; reads: images are read batch by batch."""

    halved: int
    reads: bool
    in_turn: bool = True
    copies: int = 0
    sums_in_turn: bool = False
    stored: bool = False


def _ways(workers: Workers, streams: bool | None, stores: bool) -> Iterator[_Way]:
    """Ways to work, those that take more memory and less time first."""
    held = [(halved, False) for halved in range(_IMAGES_FIRST)] if not streams else []
    read = [(halved, True) for halved in range(_IMAGES_FIRST)] if streams is not False else []
    tried = held + read
    yield _Way(*tried[0], in_turn=False)
    sums = [(0, False, False)]
    if not workers.gpus:
        fewer = [workers.copies >> n for n in range(1, workers.copies.bit_length())]
        sums += [(copies, False, False) for copies in fewer]
        if workers.alone:
            sums += [(copies, True, False) for copies in fewer or [1]]
            sums += [(1, True, True)] if stores else []
    for copies, in_turn, stored in sums:
        for halved, reads in tried:
            yield _Way(halved, reads, copies=copies, sums_in_turn=in_turn, stored=stored)
    copies, in_turn, stored = sums[-1]
    for halved in range(_IMAGES_FIRST, shortage.MOST_HALVED + 1):
        yield _Way(halved, tried[-1][1], copies=copies, sums_in_turn=in_turn, stored=stored)
