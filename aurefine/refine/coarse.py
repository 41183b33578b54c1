"""The coarse pass of the E-step: which coarse orientations and shifts explain each image well enough to be looked at more finely.

Three ways lead there, and all end in the same list of significant pairs (ALGORITHM.md 4.8):
* dense: every image against the whole grid, two matrix products (global searches);
* listed: every image against its own list of orientations, a fused kernel (local searches), which drops orientations that fall far behind
  after each band of frequencies;
* screened: the whole grid at half the frequencies (screen.py), and lists of those near the best one. RELION's own idea of two passes, once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from aurefine import kernels
from aurefine.fourier import PixelList, pixel_list
from aurefine.kernels import NEVER
from aurefine.optics import OpticsGroup
from aurefine.refine import screen
from aurefine.refine.images import Prepared
from aurefine.refine.state import Poses

if TYPE_CHECKING:
    from aurefine.refine.expectation import Expectation

_SMALLEST_SCREEN = 16  # pixels: below this, images are too small for a screening to tell anything
_BANDS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # of the frequencies: after each, what has fallen far behind is dropped
_MARGIN, _SHARE = 26.0, 0.3  # see kernels.Screening; measured: no pose changes (at 20, 0.4 % of them; at 14, 4 %)
_ALIGNED = 4  # numbers: a GPU's tensor cores are fed by 16 bytes
_TOGETHER = 4096  # slices that are squared at a time
_SMALLEST_SIGMA2_OFFSET = 1e-4  # Angstrom^2, for --offset 0: only the shift nearest to the prior's middle is left then (ALGORITHM.md 4.7: delta)
_LISTED_COST = 4  # how many times dearer an orientation is in a list than in the matrix product


@dataclass(frozen=True, eq=False)
class Coarse:
    """Significant coarse pairs of particles `rows` of the chunk, particle by particle: ptr int64 [n + 1]; rotation int64, shift int64, log
    prior float32 and log weight float32 (with the prior) of every pair: tensors there under --gpu."""

    rows: np.ndarray
    ptr: np.ndarray
    rotation: Any
    shift: Any
    log_prior: Any
    log_weight: Any

    @classmethod
    def joined(cls, parts: list[Coarse]) -> Coarse:
        """One batch of consecutive ones: the more particles share a rotation, the fewer projections are made."""
        count = np.concatenate([np.diff(part.ptr) for part in parts])
        join = lambda arrays: np.concatenate(arrays) if isinstance(arrays[0], np.ndarray) else torch.cat(arrays)  # noqa: E731
        whole: Callable[[str], Any] = lambda name: join([getattr(part, name) for part in parts])  # noqa: E731
        ptr = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
        return cls(whole("rows"), ptr, whole("rotation"), whole("shift"), whole("log_prior"), whole("log_weight"))

    def part(self, start: int, stop: int) -> Coarse:
        """Particles start to stop."""
        pairs = slice(self.ptr[start], self.ptr[stop])
        ptr = self.ptr[start : stop + 1] - self.ptr[start]
        return Coarse(self.rows[start:stop], ptr, self.rotation[pairs], self.shift[pairs], self.log_prior[pairs], self.log_weight[pairs])


class _Listed(NamedTuple):
    """Orientations to look at, particle by particle: ptr int64 [n + 1], coarse rotation int64 and log prior float32 of each (tensors on a GPU)."""

    ptr: np.ndarray
    rotation: Any
    log_prior: Any

    def part(self, start: int, stop: int) -> _Listed:
        """Particles start to stop."""
        mine = slice(self.ptr[start], self.ptr[stop])
        return _Listed(self.ptr[start : stop + 1] - self.ptr[start], self.rotation[mine], self.log_prior[mine])


class CoarsePass:
    """The coarse pass for the images of one optics group; `run` takes operands at the pixels `pixels`."""

    def __init__(self, owner: Expectation, group: int, optics: OpticsGroup, pixels: PixelList) -> None:
        self.owner, self.grid, self.plan, self.model = owner, owner.grid, owner.plan, owner.model
        self.group, self.optics, self.pixels = group, optics, pixels
        self.geometry = owner.plan.geometry[group]
        self.shifts = owner.plan.shift_radians(owner.grid.coarse_shifts, group)
        size = 2 * int(0.5 * screen.FREQUENCIES * pixels.size)
        self.screened = size >= _SMALLEST_SCREEN and not owner.plan.correlation
        self.screen_pixels = pixel_list(max(size, 2), optics.box, optics.pixel_size)
        self.screen_shifts = screen.every_second(owner.grid.coarse_shifts_unperturbed, owner.grid.state.offset_step)
        self.screen_rows = torch.from_numpy(rows_of(self.screen_pixels, pixels)).to(owner.device)

    def run(self, prepared: Prepared, images: torch.Tensor, power: torch.Tensor, poses: Poses) -> Iterator[Coarse]:
        """Yield the significant coarse pairs of the chunk, batch by batch; images complex64, power float32 [particles, pixels]."""
        log_offset = self._offset_prior(prepared.centre)
        if self.plan.sampling.local:
            ptr, index, log_prior = self.owner.near(poses.angles[prepared.indices])
            count = np.diff(ptr)
            prior = log_prior + self.owner.select.spread(np.log(np.maximum(count, 1)).astype(np.float32), count, log_prior)
            yield from self._listed(_Listed(ptr, index, prior), images, power, log_offset)
            return
        log_rotation = np.repeat(_log_or_never(self.model.pdf_direction * len(self.grid.directions)), self.grid.n_psi)
        if self.screened and self.owner.compiled:  # a GPU's matrix product is faster than what comes after a screening
            listed = self._survivors_of_all(images, power, log_rotation, log_offset)
            if len(listed.rotation) * _LISTED_COST < len(images) * self.grid.coarse_count:
                yield from self._listed(listed, images, power, log_offset)
                return
        yield from self._dense(images, power, log_rotation, log_offset)

    def _offset_prior(self, centre: np.ndarray) -> np.ndarray:
        """float32 [n, shifts] log prior of the coarse offsets (unperturbed), with its mean weight divided out."""
        grid, model, a = self.grid, self.model, self.optics.pixel_size
        total = centre[:, None, :] * a + grid.coarse_shifts_unperturbed[None]
        if self.plan.relion_offset_prior:  # ALGORITHM.md 4.7, QUIRK: Angstrom added to pixels
            total = (centre[:, None, :] + grid.coarse_shifts_unperturbed[None]) * a
        ranges = np.array([self.owner.options.offset_range_x, self.owner.options.offset_range_y])
        sigma2 = np.maximum(np.where(ranges > 0, (ranges / 3) ** 2, model.sigma2_offset), _SMALLEST_SIGMA2_OFFSET)
        log_prior = -(total**2 / (2 * sigma2)).sum(-1)
        return (log_prior - np.log(np.exp(log_prior - log_prior.max(1, keepdims=True)).mean(1, keepdims=True))
                - log_prior.max(1, keepdims=True)).astype(np.float32)  # fmt: skip

    # ------------------------------------------------------------------ the whole grid
    def _dense(self, images: torch.Tensor, power: torch.Tensor, log_rotation: np.ndarray, log_offset: np.ndarray) -> Iterator[Coarse]:
        rotations, native = self.grid.coarse_count, self.owner.native
        split = lambda k: (k % rotations, k // rotations)  # noqa: E731
        for rows, products, half_power in self._products(images, power, self.pixels, self.shifts):
            values = self.owner.select.dense_scores(
                native(products), native(half_power), log_rotation, log_offset[rows], self.grid.n_psi // 2, self.plan.correlation
            )
            ptr = np.arange(len(rows) + 1, dtype=np.int64) * rotations * len(self.shifts)
            coarse = self._significant_pairs(rows, values.reshape(-1), ptr, split, log_rotation, log_offset[rows])
            del values  # the fine pass, which comes in between, needs the room
            yield coarse
            del coarse

    def _products(self, images: torch.Tensor, power: torch.Tensor, pixels: PixelList, shifts: np.ndarray, rough: bool = False):
        """Yield (rows, products of real and of imaginary parts [2, rows * shifts, slices], half the weighted power of the slices [rows, slices]).

        Slices are those at in-plane angles below 180 degrees: `select.dense_scores` makes both scores of each product. float32; the products
        bfloat16 if `rough`.
        """
        volume, device = self.owner.volume, self.owner.device
        below = self.owner.slices_below_half_a_turn(self.geometry)
        planes = kernels.project_planes(volume, below, pixels)
        squares = _power(planes)
        phases = kernels.shift_phases(torch.as_tensor(shifts, device=device), pixels)
        batch = max(1, self.owner.batches.dense(self.owner.room) // (2 * len(below) * len(phases)))
        kind = torch.bfloat16 if rough else torch.float32
        margin = 0 if self.owner.compiled else -planes.shape[2] % _ALIGNED
        planes = torch.nn.functional.pad(planes, (0, margin)) if margin else planes.to(kind)
        products = torch.empty((2, min(batch, len(images)) * len(phases), len(below)), device=device, dtype=kind)
        for start in range(0, len(images), batch):
            rows = np.arange(start, min(start + batch, len(images)))
            shifted = (images[start : start + batch, None, :] * phases).flatten(0, 1)
            some = products[:, : len(shifted)]
            for part, values in enumerate((shifted.real, shifted.imag)):
                values = torch.nn.functional.pad(values, (0, margin)) if margin else values.to(kind).contiguous()
                kernels.matrix_product(values, planes[:, part], some[part])
            half_power = power.new_empty((len(rows), len(below)))
            kernels.matrix_product(power[start : start + batch], squares, half_power)
            yield rows, some, half_power.mul_(0.5)

    # ------------------------------------------------------------------ each particle's own list
    def _listed(self, listed: _Listed, images: torch.Tensor, power: torch.Tensor, log_offset: np.ndarray) -> Iterator[Coarse]:
        shifts = len(self.shifts)
        split = lambda k: (k // shifts, k % shifts)  # noqa: E731
        for start, stop in batches(np.diff(listed.ptr) * shifts, self.owner.batches.dense(self.owner.room)):
            rows, part = np.arange(start, stop), listed.part(start, stop)
            screening = None
            if self.screened:
                shells = tuple(int(share * self.pixels.size / 2) for share in _BANDS)
                screening = kernels.Screening(shells, _MARGIN, _SHARE, part.log_prior, log_offset[rows])
            values, block_ptr = self._scores(part.ptr, part.rotation, images[start:stop], power[start:stop], self.shifts, self.pixels, screening)
            if not self.plan.correlation:
                self.owner.select.add_block_priors(values, block_ptr, part.ptr, part.log_prior, log_offset[rows])
            coarse = self._significant_pairs(rows, values, block_ptr, split, None, log_offset[rows])
            place = self.owner.select.spread(part.ptr[:-1], np.diff(coarse.ptr), coarse.rotation) + coarse.rotation
            prior = coarse.log_prior + part.log_prior[place]
            found = Coarse(rows, coarse.ptr, part.rotation[place], coarse.shift, prior, coarse.log_weight)
            del values, coarse, place, prior  # the fine pass, which comes in between, needs the room
            yield found
            del found

    def _scores(
        self, ptr: np.ndarray, rotation: Any, images: torch.Tensor, power: torch.Tensor, shifts: np.ndarray, pixels: PixelList,
        screening: kernels.Screening | None = None,
    ) -> tuple[Any, np.ndarray]:  # fmt: skip
        """(log-likelihoods, block ptr) of every listed rotation at every shift, particle by particle: i's rotations are those from ptr[i] on."""
        used, pair_slice = screen.distinct(rotation) if isinstance(rotation, np.ndarray) else torch.unique(rotation, return_inverse=True)
        slices, count, particles = self.owner.slices(used, 0, self.geometry), len(shifts), len(images)
        return kernels.score(
            self.owner.volume, slices, ptr, pair_slice, images, power, np.arange(particles + 1, dtype=np.int64) * count,
            np.tile(np.arange(count, dtype=np.int32), particles), shifts, pixels, self.plan.correlation, screening,
        )  # fmt: skip

    # ------------------------------------------------------------------ screening
    def _at_half(self, values: torch.Tensor) -> torch.Tensor:
        return values[:, self.screen_rows].contiguous()

    def _survivors_of_all(self, images: torch.Tensor, power: torch.Tensor, log_rotation: np.ndarray, log_offset: np.ndarray) -> _Listed:
        """The rotations of the whole grid that are near each particle's best one."""
        rotations, parts, count = self.grid.coarse_count, [], [np.zeros(1, np.int64)]
        rough = self.plan.reduced_precision and kernels.fast_bfloat16()
        shifts, log_offset = self.shifts[self.screen_shifts], log_offset[:, self.screen_shifts]
        images, power = self._at_half(images), self._at_half(power)
        for rows, products, half_power in self._products(images, power, self.screen_pixels, shifts, rough):
            best, error = screen.best_over_shifts(products, half_power.numpy(), log_rotation, log_offset[rows], self.grid.n_psi // 2)
            for of_floor in (False, True) if rough else ():
                listed = screen.doubtful(best, error, of_floor)
                self._score_again(best, *listed, rows[0], images, power, shifts, log_rotation, log_offset)
            ptr, kept = screen.near_best(best.reshape(-1), np.arange(len(rows) + 1, dtype=np.int64) * rotations)
            parts.append(kept % rotations)
            count.append(np.diff(ptr))
        rotation = np.concatenate(parts)
        return _Listed(np.cumsum(np.concatenate(count)), rotation, log_rotation[rotation])

    def _score_again(self, best, ptr, rotation, first: int, images: torch.Tensor, power: torch.Tensor, shifts, log_rotation, log_offset) -> None:
        """Put scores in float32 into `best` [b, rotations], of the rotations listed for the particles from `first` on."""
        for start, stop in batches(np.diff(ptr) * len(shifts), self.owner.batches.dense(self.owner.room)):
            mine, some = rotation[ptr[start] : ptr[stop]], slice(first + start, first + stop)
            if not len(mine):  # nothing of few particles lies near the floor
                continue
            own = ptr[start : stop + 1] - ptr[start]
            values, block_ptr = self._scores(own, mine, images[some], power[some], shifts, self.screen_pixels)
            screen.put_best(values, block_ptr, own, mine, log_rotation, log_offset[some], best[start:stop])

    # ------------------------------------------------------------------ what is significant
    def _significant_pairs(self, rows, values, ptr, split, log_rotation, log_offset) -> Coarse:
        """Reduce log weights to significant (rotation, shift) pairs, particle by particle."""
        ptr, rotation, shift, prior, weight = self.owner.select.pairs(values, ptr, self.owner.choose(values, ptr), split, log_rotation, log_offset)
        return Coarse(rows, ptr, rotation, shift, prior * 0 if self.plan.correlation else prior, weight)


def joined(parts: Iterator[Coarse], limit: int) -> Iterator[Coarse]:
    """Consecutive batches as one, as long as they have no more than `limit` pairs together: noisy images have many."""
    waiting: list[Coarse] = []
    count = 0
    for part in parts:
        if waiting and count + len(part.rotation) > limit:
            yield _emptied(waiting)
            count = 0
        waiting.append(part)
        count += len(part.rotation)
        del part
    if waiting:
        yield _emptied(waiting)


def _power(planes: torch.Tensor) -> torch.Tensor:
    """float32 [n, pixels]: squares of slices float32 [n, 2, pixels], some slices at a time: grids are large."""
    power = planes.new_empty((len(planes), planes.shape[2]))
    for some, out in zip(planes.split(_TOGETHER), power.split(_TOGETHER), strict=True):
        torch.sum(some.square(), 1, out=out)
    return power


def _emptied(waiting: list[Coarse]) -> Coarse:
    """All of them as one; the list lets go of them, so that they are not there twice in the fine pass."""
    whole = waiting[0] if len(waiting) == 1 else Coarse.joined(waiting)
    waiting.clear()
    return whole


def batches(sizes: np.ndarray, limit: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of consecutive blocks whose sizes sum to at most `limit` (one block at the least)."""
    total = np.concatenate([[0], np.cumsum(sizes)])
    start = 0
    while start < len(sizes):
        stop = max(start + 1, int(np.searchsorted(total, total[start] + limit, "right")) - 1)
        yield start, stop
        start = stop


def rows_of(part: PixelList, whole: PixelList) -> np.ndarray:
    """Positions of a smaller list's pixels in a larger one of the same box."""
    position = {key: k for k, key in enumerate(zip(whole.x.tolist(), whole.y.tolist(), strict=True))}
    return np.array([position[key] for key in zip(part.x.tolist(), part.y.tolist(), strict=True)], np.int64)


def _log_or_never(probability: np.ndarray) -> np.ndarray:
    """float32 logarithm with excluded entries far below everything."""
    return np.where(probability > 0, np.log(np.maximum(probability, 1e-300)), NEVER).astype(np.float32)
