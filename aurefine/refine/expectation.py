"""The E-step of one half-set: which poses explain each image, and the sums the M-step needs (ALGORITHM.md 4.7-4.9).

Two passes. The coarse pass scores every orientation and translation: in global searches two matrix products over the grid all particles
share, in local ones a fused kernel over each particle's short list. The fine pass looks only at the children of what was significant.
Then all significant samples are sorted by orientation, their images summed into one slice each, and every slice is inserted once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from aurefine import euler, kernels
from aurefine.fourier import pixel_list
from aurefine.kernels import Accumulator, Volume
from aurefine.optics import OpticsGroup
from aurefine.particles import ParticleSet
from aurefine.refine import devices, fine, fine_torch, memory, select, select_torch, shortage, thinning
from aurefine.refine.coarse import Coarse, CoarsePass, batches, joined, rows_of
from aurefine.refine.grid_torch import DeviceGrid
from aurefine.refine.half_sums import HalfSums
from aurefine.refine.image_cache import ImageCache
from aurefine.refine.images import Prepared, prepare, squares, weighted
from aurefine.refine.options import RefineOptions
from aurefine.refine.plan import Geometry, Grid, Plan, slice_matrices
from aurefine.refine.select import Significant
from aurefine.refine.shortage import Attempt, Batches
from aurefine.refine.state import Model, Poses


class Expectation:
    """One half-set's E-step: built once an iteration, then `run` over the particles of the half."""

    def __init__(
        self, plan: Plan, grid: Grid, model: Model, volume: Volume, particles: ParticleSet, cache: ImageCache, options: RefineOptions, copies: int,
        batches: Batches | None = None,
    ) -> None:  # fmt: skip
        self.batches = batches or Batches()
        self.plan, self.grid, self.model, self.volume = plan, grid, model, volume
        self.particles, self.cache, self.options = particles, cache, options
        self.device = volume.data.device
        self.compiled = devices.compiled(self.device)
        self.select: Any = select if self.compiled else select_torch  # the same functions for numpy arrays and for tensors on a GPU
        self.fine: Any = fine if self.compiled else fine_torch
        self.native: Any = torch.Tensor.numpy if self.compiled else lambda values: values  # what those functions work on
        self.turned = None if self.compiled else DeviceGrid(grid, self.device)
        self.sums_up = copies > 0
        copies = min(copies, 1) if not self.compiled else copies
        accumulator = Accumulator.empty(plan.current_size // 2, volume.padding, copies, self.device)
        for group in range(len(particles.optics)):
            cache.on(group, self.device)  # before what is left is shared out
        free = devices.free_memory(self.device)
        self.room = max(1, free // 160 // self.batches.dense())  # batches as large as a GPU's memory holds; selection takes up to 100 bytes a score
        shells = model.box // 2 + 1
        groups = len(particles.group_names)
        self.sums = HalfSums(
            accumulator, np.zeros((len(particles.optics), shells)), np.zeros(len(particles.optics)),
            np.zeros(groups), np.zeros(groups), np.zeros(groups), np.zeros(len(grid.directions)),
        )  # fmt: skip

    def run(
        self, pieces: Iterable[np.ndarray], poses: Poses, updates: Poses, progress, keep: Callable[[np.ndarray], None] = lambda rows: None
    ) -> HalfSums:
        """Process particles, piece by piece; old values come from `poses`, new ones are written into the arrays of `updates`.

        `keep` is told which of them are in the sums by now, too.
        """
        work: _GroupPass | None = None
        tidying = memory.Tidying()
        for members in pieces:
            for group in np.unique(self.particles.optics_index[members]):
                mine = members[self.particles.optics_index[members] == group]
                if work is None or work.group != group:
                    work = _GroupPass(self, int(group), self.particles.optics[group])
                start = 0
                while start < len(mine):
                    some = mine[start : start + self.batches.chunk(len(work.pixels), self.room)]
                    self.cache.ahead(int(group), mine[start + len(some) : start + 2 * len(some)])
                    work.chunk(some, poses, updates, progress)
                    keep(some)
                    start += len(some)
                    tidying.chunk_done()
        self.sums.accumulator.combine()
        return self.sums

    def near(self, angles: np.ndarray) -> tuple[np.ndarray, Any, Any]:
        """(ptr int64 [n + 1], coarse index int64, log prior float32) of the coarse rotations near poses; the latter two on the device."""
        return self.turned.near(angles) if self.turned else self.grid.near(angles)

    def slices(self, coarse: Any, oversampling: int, geometry: Geometry) -> Any:
        """float32 [k * 8^oversampling, 3, 2]: slice matrices of the children of coarse rotations, on the device."""
        if self.turned:
            return self.turned.slices(coarse, oversampling, geometry.stretch(self.volume))
        rotations = self.grid.fine_rotations(coarse) if oversampling else self.grid.rotation_of(coarse)
        return slice_matrices(rotations, self.volume, geometry)

    def slices_below_half_a_turn(self, geometry: Geometry) -> Any:
        """The same of the whole coarse grid at in-plane angles below 180 degrees."""
        if self.turned:
            return self.slices(self.turned.below_half_a_turn(), 0, geometry)
        below = self.grid.coarse_rotations.reshape(-1, self.grid.n_psi, 3, 3)[:, : self.grid.n_psi // 2]
        return slice_matrices(below.reshape(-1, 3, 3), self.volume, geometry)

    def choose(self, values, ptr: np.ndarray) -> Significant:
        """The significant samples of every block; only the best one when scores are correlations."""
        if self.plan.correlation:
            return self.select.best_only(values, ptr)
        return self.select.significant(values, ptr, self.options.adaptive_fraction, self.options.max_significant)


class _GroupPass:
    """The E-step for the images of one optics group: one geometry, one pixel list."""

    def __init__(self, owner: Expectation, group: int, optics: OpticsGroup) -> None:
        self.owner, self.group, self.optics = owner, group, optics
        plan, model = owner.plan, owner.model
        current, coarse, aligned = plan.image_sizes[group]
        sizes = (current, plan.compared(coarse, group), plan.compared(aligned, group))
        self.pixels, self.coarse_pixels, self.fine_pixels = (pixel_list(n, optics.box, optics.pixel_size) for n in sizes)
        self.coarse = CoarsePass(owner, group, optics, self.coarse_pixels)
        self.coarse_rows = rows_of(self.coarse_pixels, self.fine_pixels)
        self.fine_rows = rows_of(self.fine_pixels, self.pixels)
        self.geometry = plan.geometry[group]
        shells = self.geometry.model_shell(self.pixels.shell, model.box // 2)
        sigma2 = model.sigma2_noise[group][shells] * owner.options.sigma2_fudge
        self.inverse_sigma2 = np.divide(1.0, sigma2, out=np.zeros(len(sigma2)), where=sigma2 > 0).astype(np.float32)
        self.map_weight = self.inverse_sigma2 if owner.options.map_regularisation else np.ones_like(self.inverse_sigma2)
        compared = (self.pixels.shell > 0) & (self.pixels.shell <= aligned // 2)  # also where references are empty: likelihoods stay comparable
        self.score_weight = torch.from_numpy(np.where(compared, self.inverse_sigma2, 0).astype(np.float32)).to(owner.device)
        self.shells = shells
        self.log_sigma2 = float(np.log(2 * np.pi * sigma2[compared & (sigma2 > 0)]).sum())
        self.strong = model.data_vs_prior[shells] > 3
        self.fine_shift = plan.shift_radians(owner.grid.fine_shifts.reshape(-1, 2), group)

    # ------------------------------------------------------------------ one chunk
    def chunk(self, indices: np.ndarray, poses: Poses, updates: Poses, progress) -> None:
        """Prepare, align and accumulate particles `indices`, as many at a time as memory allows."""
        shortage.in_parts(lambda some, attempt: self._chunk(some, poses, updates, progress, attempt), indices, self.owner.batches)

    def _chunk(self, indices: np.ndarray, poses: Poses, updates: Poses, progress, attempt: Attempt) -> None:
        owner = self.owner
        factor = owner.model.average_norm / poses.norm[indices] if owner.options.norm_correction else np.ones(len(indices))
        scale = np.clip(owner.model.group_scale[owner.particles.group_index[indices]], 1e-3, None)
        prepared = prepare(
            owner.cache, owner.particles, self.group, indices, poses.offsets[indices], factor, scale,
            owner.model.sigma2_noise[self.group], self.pixels, owner.options, owner.plan, owner.device, owner.batches, owner.room,
        )  # fmt: skip
        images, power = self._weighted(prepared, self.fine_rows)
        at_coarse = self._weighted(prepared, self.fine_rows[self.coarse_rows])
        for coarse in joined(self.coarse.run(prepared, *at_coarse, poses), owner.batches.pairs(owner.room)):
            for start, stop in batches(np.diff(coarse.ptr) * self.owner.grid.children, owner.batches.fine(owner.room)):
                self._fine(prepared, coarse.part(start, stop), images, power, scale, poses, updates, attempt)
                attempt.done, attempt.summing = int(coarse.rows[stop - 1]) + 1, False
                progress(stop - start)
            del coarse  # before more of them are looked for

    def _weighted(self, prepared: Prepared, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Operands of every score, at some rows of the pixels: images X model / sigma^2, powers model^2 / sigma^2; without sigma for correlations."""
        if self.owner.plan.correlation:
            doubled = np.where((self.pixels.x == 0) & (self.pixels.shell > 0), 2, 1)  # RELION sums both halves of the x = 0 column
            weight = torch.from_numpy(doubled.astype(np.float32)).to(self.owner.device)
        else:
            weight = self.score_weight
        return weighted(prepared.masked, prepared.model, weight, rows)

    # ------------------------------------------------------------------ fine pass
    def _fine(
        self, prepared: Prepared, coarse: Coarse, images: torch.Tensor, power: torch.Tensor, scale, poses: Poses, updates: Poses, attempt: Attempt
    ) -> None:
        """Score the children of the coarse pairs, find the best and the significant ones, and add these to the sums."""
        owner, grid, rows = self.owner, self.owner.grid, coarse.rows
        batch = slice(rows[0], rows[-1] + 1)
        values = self._fine_scores(coarse, images[batch], power[batch])
        chosen = self.owner.choose(values.reshape(-1), coarse.ptr * grid.children)
        if not owner.sums_up:
            self._turn(prepared.indices[batch], prepared.centre[batch], coarse, chosen, updates)
            return
        pairs = owner.fine.by_rotation(coarse.ptr, coarse.rotation, coarse.shift)
        slices = owner.slices(pairs.rotation, grid.rotation_oversampling, self.geometry)
        samples = owner.fine.samples_of(values, pairs, chosen)
        if owner.compiled and owner.plan.least_share > 0:  # a GPU sums faster than it would draw
            samples = thinning.thinned(samples, thinning.lots(prepared.indices[batch], owner.plan.iteration), owner.plan.least_share)
        attempt.summing = True
        part = prepared.part(batch)
        sums = self._accumulate(part, slices, samples)
        centre = part.centre * self.optics.pixel_size
        weight, slice_weight, offset = owner.fine.totals(samples, centre.astype(float), grid.fine_shifts.reshape(-1, 2))
        owner.sums.offset += offset
        owner.sums.weight += float(weight.sum())
        owner.sums.direction += owner.fine.by_direction(pairs, slice_weight, grid.n_psi, len(grid.directions))
        squared = squares(part.masked)
        self._sum_noise(part, squared, weight, sums)
        self._sum_scales(part, sums, scale[batch])
        self._update(part, squared, coarse, chosen, weight, sums, poses, updates)

    def _fine_scores(self, coarse: Coarse, images: torch.Tensor, power: torch.Tensor) -> np.ndarray:
        """float32 [pairs, rotation children, shift children] log weights, in the order of the pairs."""
        grid, plan, volume = self.owner.grid, self.owner.plan, self.owner.volume
        if grid.children == 1 and len(self.coarse_rows) == len(self.fine_rows):  # nothing to look at more finely
            return coarse.log_weight.reshape(-1, 1, 1)
        pairs = self.owner.fine.by_rotation(coarse.ptr, coarse.rotation, coarse.shift)
        scores = kernels.score_children(
            volume, self.owner.slices(pairs.rotation, grid.rotation_oversampling, self.geometry), grid.rotation_children, pairs.ptr, pairs.particle,
            pairs.shift, images, power, self.fine_shift, grid.shift_children, self.fine_pixels, plan.correlation,
        )  # fmt: skip
        if not plan.correlation:
            self.owner.fine.add_pair_prior(scores, coarse.log_prior[pairs.order])
        values = self.owner.native(torch.empty((len(coarse.rotation), grid.rotation_children, grid.shift_children), device=self.owner.device))
        self.owner.fine.to_particle_order(scores, pairs.order, values)
        return values

    # ------------------------------------------------------------------ sums
    def _accumulate(self, prepared: Prepared, slices: Any, samples: Any) -> kernels.Sums:
        """Add the particles of a batch to the map's sums; returns the small sums over the comparison of images and projections."""
        volume, target = self.owner.volume, self.owner.sums.accumulator

        def add(into: kernels.Accumulator, model: torch.Tensor) -> kernels.Sums:
            return kernels.accumulate(
                volume, into, slices, samples, self.fine_shift, prepared.unmasked, prepared.masked, model, self.map_weight, self.strong, self.pixels,
                self.optics.premultiplied,
            )  # fmt: skip

        if not self.owner.plan.reference_has_ctf:
            return add(target, prepared.model)
        add(target, prepared.inserted)
        return add(kernels.Accumulator.empty(1, volume.padding, len(target.data), self.owner.device), prepared.model)

    def _sum_noise(self, prepared: Prepared, squared: torch.Tensor, weight: np.ndarray, sums: kernels.Sums) -> None:
        total, shells = self.owner.sums, self.owner.model.box // 2 + 1
        # the shift does not change |X|^2, so the power needs no sum over samples
        weights = torch.from_numpy(weight.astype(np.float32)).to(self.owner.device)
        power = torch.mv(squared.T, weights).cpu().numpy()  # with a vector on the left it would be a product of matrices, rounded on a GPU
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

    def _turn(self, rows: np.ndarray, centre: np.ndarray, coarse: Coarse, chosen: Significant, updates: Poses) -> None:
        """New orientation and offset of every particle of the batch: those of its best sample."""
        grid, picked = self.owner.grid, self.owner.select.picked
        pair, child = np.divmod(chosen.argmax, grid.children)
        pair += coarse.ptr[:-1]
        rotation = picked(coarse.rotation, pair) * grid.rotation_children + child // grid.shift_children
        shift = picked(coarse.shift, pair) * grid.shift_children + child % grid.shift_children
        updates.angles[rows] = euler.from_matrix(grid.fine_rotations_of(rotation))
        updates.offsets[rows] = centre * self.optics.pixel_size + grid.fine_shifts.reshape(-1, 2)[shift]

    def _update(self, prepared: Prepared, squared: torch.Tensor, coarse: Coarse, chosen: Significant, weight, sums, poses, updates) -> None:
        """New pose, norm and likelihood of every particle of the batch."""
        owner, rows = self.owner, prepared.indices
        self._turn(rows, prepared.centre, coarse, chosen, updates)
        residual = weight * prepared.power - 2 * sums.particle_cross + sums.particle_power + prepared.high_power
        norm = poses.norm[rows] / owner.model.average_norm * np.sqrt(2 * np.maximum(residual, 0))
        owner.sums.norm += float(norm.sum())
        updates.norm[rows] = norm if owner.options.norm_correction else poses.norm[rows]
        updates.significant[rows], updates.class_number[rows] = np.diff(coarse.ptr), 1
        updates.signal_fit[rows] = sums.particle_cross / np.maximum(sums.particle_power, 1e-30)
        if owner.plan.correlation:
            pmax, likelihood = np.ones(len(rows)), chosen.maximum.astype(float)
        else:
            image = (squared @ self.score_weight).cpu().numpy().astype(float)
            pmax = np.exp(chosen.maximum - chosen.log_sum)
            likelihood = chosen.log_sum - 0.5 * image - 0.5 * prepared.high_power - self.log_sigma2
        updates.pmax[rows], updates.log_likelihood[rows] = pmax, likelihood
        owner.sums.pmax += float(pmax.sum())
        owner.sums.log_likelihood += float(likelihood.sum())
