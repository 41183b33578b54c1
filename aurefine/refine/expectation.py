"""The E-step of one half-set: which poses explain each image, and the sums the M-step needs (ALGORITHM.md 4.7-4.9).

Two passes. The coarse pass scores every orientation and translation: in global searches two matrix products over the grid all particles
share, in local ones a fused kernel over each particle's short list. The fine pass looks only at the children of what was significant.
Then all significant samples are sorted by orientation, their images summed into one slice each, and every slice is inserted once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from aurefine import euler, kernels
from aurefine.fourier import PixelList, pixel_list
from aurefine.kernels import Accumulator, Volume
from aurefine.local_search import CUT_OFF
from aurefine.optics import OpticsGroup
from aurefine.particles import ParticleSet
from aurefine.refine import fine, fine_torch, select, select_torch
from aurefine.refine.images import ImageCache, Prepared, prepare
from aurefine.refine.options import RefineOptions
from aurefine.refine.plan import Grid, Plan, slice_matrices
from aurefine.refine.state import Model, Poses

_DENSE_SCORES = 12_000_000  # scores of the coarse pass held at a time (4 bytes each)
_FINE_SCORES = 12_000_000  # scores of the fine pass held at a time (8 bytes each)
_SHIFTED_PIXELS = 8_000_000  # pixels of shifted images held at a time in the fine pass (8 bytes each)
_SCREEN_MARGIN = 20.0  # log-likelihood below the best at which a rotation is dropped from a local search's coarse pass
_SCREEN_REACH = 4.0
_SMALLEST_SCREEN = 16  # pixels: below this, images are too small for a screening to pay
_CHUNK_PIXELS = 2_000_000  # Fourier pixels of prepared images held at a time (24 bytes each)


@dataclass(eq=False)
class HalfSums:
    """Everything summed over the particles of one half-set."""

    accumulator: Accumulator
    sigma2: np.ndarray  # [optics groups, shells] weighted residual power
    optics_weight: np.ndarray  # [optics groups]
    scale_cross: np.ndarray  # [groups]
    scale_power: np.ndarray  # [groups]
    group_count: np.ndarray  # [groups] particles
    direction: np.ndarray  # [directions]
    weight: float = 0.0
    norm: float = 0.0
    offset: float = 0.0
    pmax: float = 0.0
    log_likelihood: float = 0.0


@dataclass(frozen=True, eq=False)
class _Coarse:
    """Significant coarse pairs of particles `rows` of the chunk, particle by particle: ptr int64 [n + 1], rotation int64, shift int64 and
    log prior float32 of every pair."""

    rows: np.ndarray
    ptr: np.ndarray
    rotation: np.ndarray
    shift: np.ndarray
    log_prior: np.ndarray

    @classmethod
    def joined(cls, parts: list[_Coarse]) -> _Coarse:
        """One batch of consecutive ones: the more particles share a rotation, the fewer projections are made."""
        count = np.concatenate([np.diff(part.ptr) for part in parts])
        whole = lambda name: np.concatenate([getattr(part, name) for part in parts])  # noqa: E731
        ptr = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
        return cls(whole("rows"), ptr, whole("rotation"), whole("shift"), whole("log_prior"))

    def part(self, start: int, stop: int) -> _Coarse:
        """Particles start to stop."""
        pairs = slice(self.ptr[start], self.ptr[stop])
        ptr = self.ptr[start : stop + 1] - self.ptr[start]
        return _Coarse(self.rows[start:stop], ptr, self.rotation[pairs], self.shift[pairs], self.log_prior[pairs])


class Expectation:
    """One half-set's E-step: built once an iteration, then `run` over the particles of the half."""

    def __init__(
        self, plan: Plan, grid: Grid, model: Model, volume: Volume, particles: ParticleSet, cache: ImageCache, options: RefineOptions, threads: int
    ) -> None:
        self.plan, self.grid, self.model, self.volume = plan, grid, model, volume
        self.particles, self.cache, self.options = particles, cache, options
        self.device = volume.data.device
        on_cpu = self.device.type == "cpu"
        self.select: Any = select if on_cpu else select_torch  # the same functions for numpy arrays and for tensors on a GPU
        self.fine: Any = fine if on_cpu else fine_torch
        free = 0 if on_cpu else torch.cuda.mem_get_info(self.device)[0]
        self.room = max(1, free // 160 // _DENSE_SCORES)  # batches as large as a GPU's memory holds; selection takes up to 100 bytes a score
        accumulator = Accumulator.empty(volume.r_max, volume.padding, threads if on_cpu else 1, self.device)
        shells = model.box // 2 + 1
        groups = len(particles.group_names)
        self.sums = HalfSums(
            accumulator, np.zeros((len(particles.optics), shells)), np.zeros(len(particles.optics)),
            np.zeros(groups), np.zeros(groups), np.zeros(groups), np.zeros(len(grid.directions)),
        )  # fmt: skip

    def run(self, members: np.ndarray, poses: Poses, updates: Poses, progress) -> HalfSums:
        """Process particles `members`; old values come from `poses`, new ones are written into the arrays of `updates`."""
        for group, optics in enumerate(self.particles.optics):
            mine = members[self.particles.optics_index[members] == group]
            if not len(mine):
                continue
            work = _GroupPass(self, group, optics)
            chunk = max(64, self.room * _CHUNK_PIXELS // len(work.pixels))
            for start in range(0, len(mine), chunk):
                work.chunk(mine[start : start + chunk], poses, updates, progress)
        accumulator = self.sums.accumulator
        accumulator.data = accumulator.combined()[None].cpu()  # one copy, where the M-step runs
        return self.sums


class _GroupPass:
    """The E-step for the images of one optics group: one geometry, one pixel list."""

    def __init__(self, owner: Expectation, group: int, optics: OpticsGroup) -> None:
        self.owner, self.group, self.optics = owner, group, optics
        plan, model = owner.plan, owner.model
        self.pixels, self.coarse_pixels, self.fine_pixels = (pixel_list(n, optics.box, optics.pixel_size) for n in plan.image_sizes[group])
        self.coarse_rows = _rows_of(self.coarse_pixels, self.fine_pixels)
        self.fine_rows = _rows_of(self.fine_pixels, self.pixels)
        screen_size = 2 * (self.coarse_pixels.size // 4)
        self.screen_pixels = pixel_list(max(screen_size, 2), optics.box, optics.pixel_size)
        self.screen_rows = _rows_of(self.screen_pixels, self.coarse_pixels) if self._screening_pays(screen_size) else None
        self.geometry = plan.geometry[group]
        shells = _model_shells(self.pixels, self.geometry.scale, model.box)
        sigma2 = model.sigma2_noise[group][shells] * owner.options.sigma2_fudge
        self.inverse_sigma2 = np.divide(1.0, sigma2, out=np.zeros(len(sigma2)), where=sigma2 > 0).astype(np.float32)
        compared = np.zeros(len(self.pixels), bool)
        compared[self.fine_rows] = self.fine_pixels.shell > 0
        self.score_weight = torch.from_numpy(np.where(compared, self.inverse_sigma2, 0).astype(np.float32)).to(owner.device)
        self.shells = shells
        self.log_sigma2 = float(np.log(2 * np.pi * sigma2[compared & (sigma2 > 0)]).sum())
        self.strong = model.data_vs_prior[shells] > 3
        self.coarse_shift = plan.shift_radians(owner.grid.coarse_shifts, group)
        self.fine_shift = plan.shift_radians(owner.grid.fine_shifts.reshape(-1, 2), group)

    def _screening_pays(self, size: int) -> bool:
        """Whether half the frequencies can tell the rotations of a local search apart: its reach must be several times the accuracy."""
        reach = CUT_OFF * self.owner.plan.sampling.sigma_angle
        return size >= _SMALLEST_SCREEN and reach > _SCREEN_REACH * self.owner.model.accuracy_rotation

    # ------------------------------------------------------------------ one chunk
    def chunk(self, indices: np.ndarray, poses: Poses, updates: Poses, progress) -> None:
        """Prepare, align and accumulate particles `indices`."""
        owner = self.owner
        factor = owner.model.average_norm / poses.norm[indices] if owner.options.norm_correction else np.ones(len(indices))
        scale = np.clip(owner.model.group_scale[owner.particles.group_index[indices]], 1e-3, None)
        prepared = prepare(
            owner.cache, owner.particles, self.group, indices, poses.offsets[indices], factor, scale,
            owner.model.sigma2_noise[self.group], self.pixels, owner.options, owner.plan.use_ctf, owner.device,
        )  # fmt: skip
        images, power = self._weighted(prepared)
        coarse = _Coarse.joined(list(self._coarse(prepared, images, power, poses)))
        for start, stop in _batches(np.diff(coarse.ptr) * self.owner.grid.children, owner.room * _FINE_SCORES):
            self._fine(prepared, coarse.part(start, stop), images, power, scale, poses, updates)
            progress(stop - start)

    def _weighted(self, prepared: Prepared) -> tuple[torch.Tensor, torch.Tensor]:
        """Operands of every score, at the fine pass's pixels: images X model / sigma^2, powers model^2 / sigma^2; without sigma for correlations."""
        if self.owner.plan.correlation:
            doubled = np.where((self.pixels.x == 0) & (self.pixels.shell > 0), 2, 1)  # RELION sums both halves of the x = 0 column
            weight = torch.from_numpy(doubled.astype(np.float32)).to(self.owner.device)
        else:
            weight = self.score_weight
        model = prepared.model * weight
        images, power = prepared.masked * model, prepared.model * model
        if len(self.fine_rows) == len(self.pixels):
            return images, power
        rows = torch.from_numpy(self.fine_rows).to(self.owner.device)
        return images[:, rows].contiguous(), power[:, rows].contiguous()

    # ------------------------------------------------------------------ coarse pass
    def _coarse(self, prepared: Prepared, images: torch.Tensor, power: torch.Tensor, poses: Poses):
        """Yield the significant coarse samples of the chunk, batch by batch."""
        rows_in = torch.from_numpy(self.coarse_rows).to(self.owner.device)
        images, power = images[:, rows_in].contiguous(), power[:, rows_in].contiguous()
        search = self._coarse_local if self.owner.plan.sampling.local else self._coarse_global
        yield from search(prepared, images, power, poses)

    def _offset_prior(self, centre: np.ndarray) -> np.ndarray:
        """float32 [n, shifts] log prior of the coarse offsets (unperturbed), with its mean weight divided out."""
        grid, model, a = self.owner.grid, self.owner.model, self.optics.pixel_size
        total = centre[:, None, :] * a + grid.coarse_shifts_unperturbed[None]
        if self.owner.plan.relion_offset_prior:  # ALGORITHM.md 4.7, QUIRK: Angstrom added to pixels
            total = (centre[:, None, :] + grid.coarse_shifts_unperturbed[None]) * a
        ranges = np.array([self.owner.options.offset_range_x, self.owner.options.offset_range_y])
        log_prior = -(total**2 / (2 * np.where(ranges > 0, (ranges / 3) ** 2, model.sigma2_offset))).sum(-1)
        return (log_prior - np.log(np.exp(log_prior - log_prior.max(1, keepdims=True)).mean(1, keepdims=True))
                - log_prior.max(1, keepdims=True)).astype(np.float32)  # fmt: skip

    def _coarse_global(self, prepared: Prepared, images: torch.Tensor, power: torch.Tensor, poses: Poses):
        grid, plan = self.owner.grid, self.owner.plan
        projections, squares = self._coarse_projections()
        phases = kernels.shift_phases(torch.as_tensor(self.coarse_shift, device=self.owner.device), self.coarse_pixels)
        rotations, shifts = len(grid.coarse_rotations), len(phases)
        batch = max(1, self.owner.room * _DENSE_SCORES // (rotations * shifts))
        scores = torch.empty((min(batch, len(images)) * shifts, rotations), device=self.owner.device)
        log_direction = np.repeat(_log_or_never(self.owner.model.pdf_direction * len(grid.directions)), grid.n_psi)
        for start in range(0, len(images), batch):
            rows = np.arange(start, min(start + batch, len(images)))
            shifted = images[start : start + batch, None, :] * phases
            operand = torch.cat([shifted.real, shifted.imag], -1).flatten(0, 1)
            product = kernels.matrix_product(operand, projections, plan.reduced_precision, scores[: len(operand)])
            cross = product.view(len(rows), shifts, rotations)
            half_power = 0.5 * (power[start : start + batch] @ squares.T)
            log_offset = self._offset_prior(prepared.centre[rows])
            if plan.correlation:
                cross /= torch.sqrt(2 * half_power + 1e-30)[:, None, :]
            else:
                self.owner.select.add_dense_priors(_native(cross), _native(half_power), log_direction, log_offset)
            values, ptr = _native(cross).reshape(-1), np.arange(len(rows) + 1, dtype=np.int64) * rotations * shifts
            yield self._significant_pairs(rows, values, ptr, lambda k: (k % rotations, k // rotations), log_direction, log_offset)

    def _coarse_projections(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(float32 [rotations, 2 pixels] real and imaginary parts side by side, float32 [rotations, pixels] squared moduli)."""
        slices = slice_matrices(self.owner.grid.coarse_rotations, self.owner.volume, self.geometry)
        planes = kernels.project_planes(self.owner.volume, slices, self.coarse_pixels)
        return planes.flatten(1), planes.square().sum(1)

    def _coarse_local(self, prepared: Prepared, images: torch.Tensor, power: torch.Tensor, poses: Poses):
        grid, plan = self.owner.grid, self.owner.plan
        near = grid.near(poses.angles[prepared.indices])
        log_pair = near.log_prior + np.repeat(np.log(np.maximum(np.diff(near.ptr), 1)), np.diff(near.ptr)).astype(np.float32)
        shifts = len(self.coarse_shift)
        log_offset = self._offset_prior(prepared.centre)
        for start, stop in _batches(np.diff(near.ptr) * shifts, self.owner.room * _DENSE_SCORES):
            rows = np.arange(start, stop)
            pair = slice(near.ptr[start], near.ptr[stop])
            ptr, index, prior = near.ptr[start : stop + 1] - near.ptr[start], near.coarse_index[pair], log_pair[pair]
            if self.screen_rows is not None and not plan.correlation:
                ptr, kept = self._screen(images[start:stop], power[start:stop], ptr, index, prior, log_offset[rows])
                index, prior = index[kept], prior[kept]
            values, block_ptr = self._local_scores(images[start:stop], power[start:stop], ptr, index, prior, log_offset[rows], self.coarse_pixels)
            coarse = self._significant_pairs(rows, values, block_ptr, lambda k: (k // shifts, k % shifts), None, log_offset[rows])
            owner_pair = np.repeat(ptr[:-1], np.diff(coarse.ptr)) + coarse.rotation
            yield _Coarse(rows, coarse.ptr, index[owner_pair], coarse.shift, (coarse.log_prior + prior[owner_pair]).astype(np.float32))

    def _local_scores(self, images, power, ptr, index, prior, log_offset, pixels: PixelList) -> tuple[np.ndarray, np.ndarray]:
        """(log weights, block ptr) of every listed coarse rotation at every coarse shift, particle by particle."""
        shifts = len(self.coarse_shift)
        used, pair_slice = np.unique(index, return_inverse=True)
        slices = slice_matrices(self.owner.grid.rotation_of(used), self.owner.volume, self.geometry)
        values, block_ptr = kernels.score(
            self.owner.volume, slices, ptr, pair_slice.astype(np.int32), images, power, np.arange(len(ptr), dtype=np.int64) * shifts,
            np.tile(np.arange(shifts, dtype=np.int32), len(ptr) - 1), self.coarse_shift, pixels, self.owner.plan.correlation,
        )  # fmt: skip
        if not self.owner.plan.correlation:
            self.owner.select.add_block_priors(values, block_ptr, ptr, prior, log_offset)
        return values, block_ptr

    def _screen(self, images, power, ptr, index, prior, log_offset) -> tuple[np.ndarray, np.ndarray]:
        """Rotations worth the whole coarse pass: (ptr, positions kept), by their likelihood from the lower half of the frequencies.

        That likelihood is a likelihood too: the true pose falls `_SCREEN_MARGIN` below the best with a probability of about e^-20.
        """
        rows = torch.from_numpy(self.screen_rows).to(self.owner.device)
        values, block_ptr = self._local_scores(
            images[:, rows].contiguous(), power[:, rows].contiguous(), ptr, index, prior, log_offset, self.screen_pixels
        )
        best = np.asarray(values.cpu() if isinstance(values, torch.Tensor) else values).reshape(-1, len(self.coarse_shift)).max(1)
        top = np.maximum.reduceat(best, ptr[:-1])
        keep = best >= np.repeat(top, np.diff(ptr)) - _SCREEN_MARGIN
        return np.concatenate([[0], np.cumsum(keep)])[ptr].astype(np.int64), np.flatnonzero(keep)

    def _significant_pairs(self, rows, values, ptr, split, log_rotation, log_offset) -> _Coarse:
        """Reduce log weights to significant (rotation, shift) pairs, particle by particle."""
        index, pair_ptr = self.owner.select.indices(values, ptr, self._choose(values, ptr))
        rotation, shift = split(index)
        owner = np.repeat(np.arange(len(ptr) - 1), np.diff(pair_ptr))
        prior = log_offset[owner, shift] + (0 if log_rotation is None else log_rotation[rotation])
        if self.owner.plan.correlation:
            prior = np.zeros(len(rotation))
        return _Coarse(rows, pair_ptr, rotation, shift, prior.astype(np.float32))

    def _choose(self, values: np.ndarray, ptr: np.ndarray) -> select.Significant:
        """The significant samples; only the best one when scores are correlations."""
        if self.owner.plan.correlation:
            return self.owner.select.best_only(values, ptr)
        return self.owner.select.significant(values, ptr, self.owner.options.adaptive_fraction, self.owner.options.max_significant)

    # ------------------------------------------------------------------ fine pass
    def _fine(self, prepared: Prepared, coarse: _Coarse, images: torch.Tensor, power: torch.Tensor, scale, poses: Poses, updates: Poses) -> None:
        """Score the children of the coarse pairs, find the best and the significant ones, and add these to the sums."""
        owner, grid, rows = self.owner, self.owner.grid, coarse.rows
        batch = slice(rows[0], rows[-1] + 1)
        values = self._fine_scores(coarse, images[batch], power[batch])
        chosen = self._choose(values.reshape(-1), coarse.ptr * grid.children)
        pairs = fine.by_rotation(coarse.ptr, coarse.rotation, coarse.shift)
        slices = slice_matrices(grid.fine_rotations(pairs.rotation), owner.volume, self.geometry)
        samples = owner.fine.samples_of(values, pairs, chosen)
        sums = kernels.accumulate(
            owner.volume, owner.sums.accumulator, slices, samples, self.fine_shift, prepared.unmasked[batch], prepared.masked[batch],
            prepared.model[batch], self.inverse_sigma2, self.strong, self.pixels, self.optics.premultiplied,
        )  # fmt: skip
        part = prepared.part(batch)
        centre = part.centre * self.optics.pixel_size
        weight, slice_weight, offset = owner.fine.totals(samples, centre.astype(float), grid.fine_shifts.reshape(-1, 2))
        owner.sums.offset += offset
        owner.sums.weight += float(weight.sum())
        direction = np.repeat(pairs.rotation // grid.n_psi, grid.rotation_children)
        owner.sums.direction += np.bincount(direction, slice_weight, len(grid.directions))
        self._sum_noise(part, weight, sums)
        self._sum_scales(part, sums, scale[batch])
        self._update(part, coarse, chosen, weight, sums, poses, updates)

    def _fine_scores(self, coarse: _Coarse, images: torch.Tensor, power: torch.Tensor) -> np.ndarray:
        """float32 [pairs, rotation children, shift children] log weights, in the order of the pairs; as many particles at a time as fit."""
        grid, plan = self.owner.grid, self.owner.plan
        values = _native(torch.empty((len(coarse.rotation), grid.rotation_children, grid.shift_children), device=self.owner.device))
        owner = np.repeat(np.arange(len(coarse.rows)), np.diff(coarse.ptr))
        distinct = np.unique(owner * len(grid.coarse_shifts) + coarse.shift) // len(grid.coarse_shifts)
        shifted = np.bincount(distinct, minlength=len(coarse.rows)) * len(self.fine_pixels) * grid.shift_children
        for start, stop in _batches(shifted, self.owner.room * _SHIFTED_PIXELS):
            part = coarse.part(start, stop)
            pairs = fine.by_rotation(part.ptr, part.rotation, part.shift)
            scores = kernels.score_children(
                self.owner.volume, slice_matrices(grid.fine_rotations(pairs.rotation), self.owner.volume, self.geometry), grid.rotation_children,
                pairs.ptr, pairs.particle, pairs.shift, images[start:stop], power[start:stop], self.fine_shift, grid.shift_children,
                self.fine_pixels, plan.correlation,
            )  # fmt: skip
            if not plan.correlation:
                self.owner.fine.add_pair_prior(scores, part.log_prior[pairs.order])
            self.owner.fine.to_particle_order(scores, pairs.order, values[coarse.ptr[start] : coarse.ptr[stop]])
        return values

    # ------------------------------------------------------------------ sums
    def _sum_noise(self, prepared: Prepared, weight: np.ndarray, sums: kernels.Sums) -> None:
        total, shells = self.owner.sums, self.owner.model.box // 2 + 1
        # the shift does not change |X|^2, so the power needs no sum over samples
        power = (torch.from_numpy(weight.astype(np.float32)).to(self.owner.device) @ prepared.masked.abs().square()).cpu().numpy()
        residual = power - 2 * sums.pixel_cross + sums.pixel_power
        by_shell = np.bincount(self.shells, residual, shells)[:shells]
        image_shells = np.arange(len(prepared.high_shells))
        by_shell += np.bincount(self.geometry.model_shell(image_shells, shells), prepared.high_shells, shells + 1)[:shells]
        total.sigma2[self.group] += by_shell
        total.optics_weight[self.group] += weight.sum()

    def _sum_scales(self, prepared: Prepared, sums: kernels.Sums, scale: np.ndarray) -> None:
        groups = self.owner.particles.group_index[prepared.indices]
        total = self.owner.sums
        total.scale_cross += np.bincount(groups, sums.strong_cross / scale, len(total.scale_cross))
        total.group_count += np.bincount(groups, minlength=len(total.group_count))
        total.scale_power += np.bincount(groups, sums.strong_power / scale**2, len(total.scale_power))

    def _update(self, prepared: Prepared, coarse: _Coarse, chosen: select.Significant, weight, sums, poses: Poses, updates: Poses) -> None:
        """New pose, norm and likelihood of every particle of the batch."""
        owner, grid, rows = self.owner, self.owner.grid, prepared.indices
        pair, child = np.divmod(chosen.argmax, grid.children)
        pair += coarse.ptr[:-1]
        rotation = coarse.rotation[pair] * grid.rotation_children + child // grid.shift_children
        shift = coarse.shift[pair] * grid.shift_children + child % grid.shift_children
        residual = weight * prepared.power - 2 * sums.particle_cross + sums.particle_power + prepared.high_power
        norm = poses.norm[rows] / owner.model.average_norm * np.sqrt(2 * np.maximum(residual, 0))
        owner.sums.norm += float(norm.sum())
        updates.norm[rows] = norm if owner.options.norm_correction else poses.norm[rows]
        updates.angles[rows] = euler.from_matrix(grid.fine_rotations_of(rotation))
        updates.offsets[rows] = prepared.centre * self.optics.pixel_size + grid.fine_shifts.reshape(-1, 2)[shift]
        updates.significant[rows], updates.class_number[rows] = np.diff(coarse.ptr), 1
        if owner.plan.correlation:
            pmax, likelihood = np.ones(len(rows)), chosen.maximum.astype(float)
        else:
            image = (prepared.masked.abs().square() @ self.score_weight).cpu().numpy().astype(float)
            pmax = np.exp(chosen.maximum - chosen.log_sum)
            likelihood = chosen.log_sum - 0.5 * image - 0.5 * prepared.high_power - self.log_sigma2
        updates.pmax[rows], updates.log_likelihood[rows] = pmax, likelihood
        owner.sums.pmax += float(pmax.sum())
        owner.sums.log_likelihood += float(likelihood.sum())


def _native(values: torch.Tensor):
    """What `select` works on: numpy's view of a tensor on the CPU, the tensor itself on a GPU."""
    return values.numpy() if values.device.type == "cpu" else values


def _batches(sizes: np.ndarray, limit: int):
    """Yield (start, stop) of consecutive blocks whose sizes sum to at most `limit` (one block at the least)."""
    total = np.concatenate([[0], np.cumsum(sizes)])
    start = 0
    while start < len(sizes):
        stop = max(start + 1, int(np.searchsorted(total, total[start] + limit, "right")) - 1)
        yield start, stop
        start = stop


def _rows_of(part: PixelList, whole: PixelList) -> np.ndarray:
    """Positions of a smaller list's pixels in a larger one of the same box."""
    position = {key: k for k, key in enumerate(zip(whole.x.tolist(), whole.y.tolist(), strict=True))}
    return np.array([position[key] for key in zip(part.x.tolist(), part.y.tolist(), strict=True)], np.int64)


def _model_shells(pixels: PixelList, scale: float, box: int) -> np.ndarray:
    """int64 [pixels]: shell of the model that each image shell falls into (ALGORITHM.md 1.6)."""
    return np.minimum((pixels.shell / scale + 0.5).astype(np.int64), box // 2)


def _log_or_never(probability: np.ndarray) -> np.ndarray:
    """float32 logarithm with excluded entries far below everything."""
    return np.where(probability > 0, np.log(np.maximum(probability, 1e-300)), select.NEVER).astype(np.float32)
