"""How much memory a refinement will take, told before it starts.

The peak is that of four moments: the first iterations, whose whole grids and flat likelihoods make long lists; the last global search, over the
finest whole grid; the E-step of the last iteration, at full size; and its M-step. What is counted is what is resident on the CPU; the factors are
measured (docs/faults.md). Of GPUs, `gpu_plan` counts what they take off the host.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from aurefine.particles import ParticleSet
from aurefine.refine import gpu_plan, run_status, screen
from aurefine.refine.gpu_plan import REFERENCE, SUMS, OnGpu, megabytes
from aurefine.refine.images import MORE_ON_A_GPU
from aurefine.refine.options import RefineOptions
from aurefine.refine.plan import Geometry, Grid, image_sizes
from aurefine.refine.shortage import Batches
from aurefine.refine.state import SamplingState
from aurefine.sampling import angular_step

_LOADED = 75 << 20  # bytes: code and compiled kernels that are loaded on the way
_HOLES, _HOLES_OF_A_CHUNK, _CHUNKS = 15 << 20, 20 << 20, 5  # bytes of a half-set's holes in the heap, which grow with its first chunks of particles
_PREPARED = 50  # bytes a Fourier pixel: transforms and operands of the images of a chunk, and copies for the sums
_TRANSFORMED = 30  # bytes a pixel of the whole images that are transformed at a time
_SCORED = 10  # bytes a score of the coarse pass
_PAIR, _JOINED = 34, 17  # bytes a significant pair of the coarse pass, while lists are joined and afterwards
_FINE = 10  # bytes a score of the fine pass, and what is made of it
_KEPT = 32 << 20  # bytes: smaller blocks stay with the heap when they are freed (memory.py)
_SIGNIFICANT = 0.06  # share of the whole grid that is significant while the likelihood is flat (C1, first iterations)
_PLANES = 6  # bytes a pixel of a screening's slices: half of the grid's rotations, real and imaginary, and their squares
_SURVIVING = 3  # bytes a rotation of the finest whole grid and image of a chunk: lists of the tenth or so that a screening leaves
_PAIRS_AT_END = 100  # significant pairs of a particle in the last iterations
_COLLECTED = 12  # bytes a voxel of the padded half transform: a half-set's collected sums
_EXCHANGED = 7  # the same, of sums on their way between processes: three numbers of a voxel in the sphere
_COMPARED = 3  # maps' worth of memory: both half-sets' averages without padding, and their shells, while the FSC is computed


@dataclass(frozen=True)
class Workers:
    """Half-sets that are worked on side by side, copies of an accumulator (one a thread), numbers of the GPUs in use, processes that share the
    images, whether this process is `alone` (others on other machines count, too), half-sets whose references and sums it has while they are
    large, and particles of a half-set that it works on as one piece (0: all)."""

    lanes: int = 1
    copies: int = 1
    gpus: tuple[int, ...] = ()
    sharing: int = 1
    alone: bool = True
    halves: int = 2
    piece: int = 0


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of one process by what they are for; `lanes` half-sets are worked on side by side.

    Attributes: program: the process as it is, tables included, and what it will load; images, state: held throughout; first, searches, last:
    batches of one half-set in the first iterations, in the last global search, and in the last iteration; sums, maximisation: of the half-sets that
    this process has in the last iteration, as far as they are on the host; kept: of these what stays with the heap when it is freed, because blocks
    are small; gpus: what each GPU takes, where the E-step runs then; halved: how often batches are halved; streamed: bytes of images that are read
    batch by batch, not held; in_turn: the half-sets' M-steps come one after the other; sums_in_turn: their last E-steps, too; stored: bytes of sums
    that are on a disk then; copies: of each half-set's sums (threads).
    """

    program: int
    images: int
    state: int
    first: int
    searches: int
    last: int
    sums: int
    maximisation: int
    kept: int
    lanes: int
    gpus: tuple[OnGpu, ...]
    halved: int
    streamed: int = 0
    in_turn: bool = False
    sums_in_turn: bool = False
    stored: int = 0
    copies: int = 0

    @property
    def held(self) -> int:
        """What is there throughout."""
        return self.program + self.images + self.state

    @property
    def peak(self) -> int:
        """The largest of all moments."""
        batches = self.kept + self.lanes * max(self.first, self.searches, self.last)
        return self.held + max(batches, self.sums + (1 if self.sums_in_turn else self.lanes) * self.last, self.maximisation)

    def lines(self, there: int, place: str = "", folder: str = "") -> list[str]:
        """For the user: each part and the peak; `there` bytes are there for this process, images that are not held are in `place`, stored sums
        in `folder`."""
        parts = [
            ("program and tables", self.program), ("images", self.images), ("maps and poses", self.state),
            (f"batches of the first iterations, {self.lanes} x", self.first),
            (f"batches of the finest global search, {self.lanes} x", self.searches), (f"batches of the last iteration, {self.lanes} x", self.last),
            ("references and sums of the last E-step", self.sums), ("last M-step", self.maximisation),
        ]  # fmt: skip
        lines = [" Memory planned for this process:", *(f"  {name:<46}{megabytes(size):>9}" for name, size in parts if size)]
        lines.append(f"  {'peak, of ' + megabytes(there) + ' that are there' if there else 'peak':<46}{megabytes(self.peak):>9}")
        lines += [gpu.line() for gpu in self.gpus]
        if self.streamed:
            lines.append(f"  Images ({megabytes(self.streamed)}) are not held: they are read batch by batch from {place}")
        if self.in_turn:
            lines.append("  The last maps of the half-sets are made one after the other, to fit")
        if self.sums_in_turn:
            lines.append("  So are their sums while they are large, to fit")
        if self.stored:
            lines.append(f"  Those that are finished ({megabytes(self.stored)}) are in a file in {folder}, to fit")
        if self.copies:
            lines.append(f"  Only {self.copies} thread(s) of a half-set sum at a time, to fit: each has sums of its own")
        if self.halved:
            lines.append(f"  Batches are {2**self.halved} times smaller than usual, to fit")
        return lines


def measure(
    particles: ParticleSet, sampling: SamplingState, box: int, options: RefineOptions, workers: Workers, batches: Batches, streams: bool = False
) -> MemoryPlan:
    """The plan with these batches.

    Args: sampling: the first iteration's; box: of the model; streams: whether images are read batch by batch instead of held.
    """
    lanes, gpus = workers.lanes, workers.gpus
    half = workers.piece or math.ceil(particles.count / 2)
    largest = max(optics.box for optics in particles.optics)
    chunk = batches.chunk(int(math.pi / 8 * largest**2))
    images = image_bytes(particles)
    held = 0 if streams else images // workers.sharing
    h = int(options.padding * (box // 2) + 0.5) + 1
    voxels = (2 * h + 1) ** 2 * (h + 1)
    maps = 4 * box**3
    state = 2 * maps + particles.count * 2 * 8 * 12
    extent = box * particles.optics[0].pixel_size
    shells = (extent / options.initial_lowpass if options.initial_lowpass > 0 else box / 2) + options.increment_size
    small = min(largest, 2 * int(shells))
    grid = Grid(sampling)
    children = grid.children
    points = grid.coarse_count * len(grid.coarse_shifts) if not sampling.local else 10_000
    first = _batch(half, small, largest, batches, points, points * _SIGNIFICANT, children)
    last = _batch(half, largest, largest, batches, 0, _PAIRS_AT_END, children)
    searches = _searches(grid, extent, largest, options, min(half, chunk)) + last if not sampling.local else 0
    copies = min(workers.copies * (workers.lanes if batches.sums_in_turn else 1), batches.copies or workers.copies * workers.lanes)
    own, collected = SUMS * copies * voxels, _COLLECTED * voxels if not batches.stored else 0
    sums = collected + own + REFERENCE * voxels if batches.sums_in_turn else workers.halves * (own + REFERENCE * voxels)
    rows, exchanged = 8 * (2 * h + 1) * (h + 1) * box, 0
    if workers.alone:
        made, at_once = 2, 1 if batches.in_turn else 2 if gpus else lanes
        collecting = own + 2 * collected if batches.sums_in_turn else 2 * own + (1 if batches.in_turn else 2) * collected
    else:  # sums are added up by those who have worked on a half-set, and maps made by one process of each
        made, at_once, exchanged = 1, 1, _EXCHANGED * voxels
        collecting = workers.halves * own + max(collected, exchanged)
    maximisation = max(collecting, made * (collected + maps) + exchanged + max(at_once * rows, _COMPARED * maps))
    halves = workers.halves if len(gpus) == 1 else 1
    on_gpus = tuple(gpu_plan.measure(number, images, voxels, halves, halves if workers.alone else 1) for number in gpus)
    if gpus:  # where the batches are, and the M-step if there is room
        read = 2 * min(half, batches.images(largest, MORE_ON_A_GPU)) * largest**2
        first, searches, last = 0, 0, 0 if all(gpu.images for gpu in on_gpus) else read
        there = all(gpu.maximises for gpu in on_gpus)
        sums = 2 * SUMS * voxels if not there else 0 if workers.alone else _EXCHANGED * voxels
        maximisation = 0 if there else maximisation
    holes = _HOLES + (_HOLES_OF_A_CHUNK * min(math.ceil(half / chunk), _CHUNKS) >> batches.halved)
    program = run_status.memory_in_use()[0] + _LOADED + lanes * holes
    kept = sums + maximisation if SUMS * voxels < _KEPT else 0
    return MemoryPlan(
        program, held, state, first, searches, last, sums, maximisation, kept, lanes, on_gpus, batches.halved, images - held if streams else 0,
        batches.in_turn, batches.sums_in_turn, 2 * _COLLECTED * voxels if batches.stored else 0, batches.copies,
    )  # fmt: skip


def image_bytes(particles: ParticleSet) -> int:
    """Bytes of all images, as they are kept."""
    return sum(2 * int((particles.optics_index == number).sum()) * optics.box**2 for number, optics in enumerate(particles.optics))


def _batch(half: int, size: int, box: int, batches: Batches, scores: int, pairs: float, children: int) -> int:
    """Bytes of one half-set's batches: images of `size` compared, coarse `scores` and `pairs` for each, and `children` of a pair."""
    pixels = int(math.pi / 8 * size**2)
    images = min(half, batches.chunk(pixels))
    together = min(images, batches.images(box))
    listed = min(images * pairs, batches.pairs())
    coarse = min(images * scores, batches.dense()) * _SCORED + listed * _PAIR
    fine = listed * _JOINED + min(listed * children, batches.fine()) * _FINE
    return int(images * pixels * _PREPARED + max(together * box**2 * _TRANSFORMED, coarse, fine))


def _searches(grid: Grid, extent: float, box: int, options: RefineOptions, images: int) -> int:
    """Bytes of one half-set for the whole grid of the last global search: slices that the `images` of a chunk are screened with, what that leaves.

    `extent` (Angstrom) is the box's side.
    """
    order = max(grid.state.healpix_order, options.local_healpix_order - 1)
    rotations = grid.coarse_count * 8 ** (order - grid.state.healpix_order)
    (_, coarse, _) = image_sizes(options, Geometry(box, extent / box, 1.0, np.eye(2)), box, angular_step(order), box, extent / box)
    return int(rotations * (math.pi / 8 * (screen.FREQUENCIES * coarse) ** 2 * _PLANES + images * _SURVIVING))
