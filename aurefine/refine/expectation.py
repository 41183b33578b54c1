"""The E-step of one half-set: which poses explain each image, and the sums the M-step needs (ALGORITHM.md 4.7-4.9).

Two passes. The coarse pass scores every orientation and translation: in global searches two matrix products over the grid all particles
share, in local ones a fused kernel over each particle's short list. The fine pass looks only at the children of what was significant.
Then all significant samples are sorted by orientation, their images summed into one slice each, and every slice is inserted once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from aurefine import euler, kernels, sampling
from aurefine.fourier import PixelList, pixel_list
from aurefine.kernels import Accumulator, Samples, Volume
from aurefine.optics import OpticsGroup
from aurefine.particles import ParticleSet
from aurefine.refine import select
from aurefine.refine.images import ImageCache, Prepared, prepare
from aurefine.refine.options import RefineOptions
from aurefine.refine.plan import Grid, Plan, slice_matrices
from aurefine.refine.state import Model, Poses

_DENSE_SCORES = 24_000_000  # scores held at a time in the coarse and fine passes (4 bytes each)
_CHUNK_PIXELS = 24_000_000  # Fourier pixels of prepared images held at a time (24 bytes each)


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
    """Significant coarse samples of a batch, particle by particle and rotation by rotation: int64 ptr, rotation, shift; per pair log prior."""

    ptr: np.ndarray
    rotation: np.ndarray
    shift: np.ndarray
    log_prior: np.ndarray
    count: np.ndarray


@dataclass(frozen=True, eq=False)
class _Fine:
    """Significant fine samples of a batch: particle row, fine rotation (coarse index * children + child), shift row, normalised weight."""

    particle: np.ndarray
    rotation: np.ndarray
    shift: np.ndarray
    weight: np.ndarray


class Expectation:
    """One half-set's E-step: built once an iteration, then `run` over the particles of the half."""

    def __init__(
        self, plan: Plan, grid: Grid, model: Model, volume: Volume, particles: ParticleSet, cache: ImageCache, options: RefineOptions, threads: int
    ) -> None:
        self.plan, self.grid, self.model, self.volume = plan, grid, model, volume
        self.particles, self.cache, self.options = particles, cache, options
        accumulator = Accumulator.empty(volume.r_max, volume.padding, threads)
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
            chunk = max(64, _CHUNK_PIXELS // len(work.pixels))
            for start in range(0, len(mine), chunk):
                work.chunk(mine[start : start + chunk], poses, updates, progress)
        return self.sums


class _GroupPass:
    """The E-step for the images of one optics group: one geometry, one pixel list."""

    def __init__(self, owner: Expectation, group: int, optics: OpticsGroup) -> None:
        self.owner, self.group, self.optics = owner, group, optics
        plan, model = owner.plan, owner.model
        size, coarse_size = plan.image_sizes[group]
        self.pixels = pixel_list(size, optics.box, optics.pixel_size)
        self.coarse_pixels = pixel_list(coarse_size, optics.box, optics.pixel_size)
        self.coarse_rows = _rows_of(self.coarse_pixels, self.pixels)
        self.geometry = plan.geometry[group]
        shells = _model_shells(self.pixels, self.geometry.scale, model.box)
        sigma2 = model.sigma2_noise[group][shells] * owner.options.sigma2_fudge
        self.inverse_sigma2 = np.divide(1.0, sigma2, out=np.zeros(len(sigma2)), where=sigma2 > 0).astype(np.float32)
        self.score_weight = torch.from_numpy(np.where(self.pixels.shell > 0, self.inverse_sigma2, 0).astype(np.float32))
        self.shells = shells
        self.log_sigma2 = float(np.log(2 * np.pi * sigma2[(self.pixels.shell > 0) & (sigma2 > 0)]).sum())
        self.strong = (model.data_vs_prior[shells] > 3) & (self.pixels.shell > 0)
        self.coarse_shift = plan.shift_radians(owner.grid.coarse_shifts, group)
        self.fine_shift = plan.shift_radians(owner.grid.fine_shifts.reshape(-1, 2), group)

    # ------------------------------------------------------------------ one chunk
    def chunk(self, indices: np.ndarray, poses: Poses, updates: Poses, progress) -> None:
        """Prepare, align and accumulate particles `indices`."""
        owner = self.owner
        factor = owner.model.average_norm / poses.norm[indices] if owner.options.norm_correction else np.ones(len(indices))
        scale = np.clip(owner.model.group_scale[owner.particles.group_index[indices]], 1e-3, None)
        prepared = prepare(
            owner.cache, owner.particles, self.group, indices, poses.offsets[indices], factor, scale,
            owner.model.sigma2_noise[self.group], self.pixels, owner.options, owner.plan.use_ctf,
        )  # fmt: skip
        images, power = self._weighted(prepared)
        parts, stats = [], []
        for rows, coarse in self._coarse(prepared, images, power, poses):
            for part, fine, stat in self._fine(prepared, rows, coarse, images, power):
                parts.append(fine)
                stats.append(stat)
                progress(len(part))
        fine = _Fine(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("particle", "rotation", "shift", "weight")))
        stat = {name: np.concatenate([s[name] for s in stats]) for name in stats[0]}
        self._store(prepared, fine, stat, scale, poses, updates)

    def _weighted(self, prepared: Prepared) -> tuple[torch.Tensor, torch.Tensor]:
        """Operands of every score: images X model / sigma^2 and powers model^2 / sigma^2; plain X model and model^2 for correlations."""
        if self.owner.plan.correlation:
            doubled = np.where((self.pixels.x == 0) & (self.pixels.shell > 0), 2, 1)  # RELION sums both halves of the x = 0 column
            weight = torch.from_numpy(doubled.astype(np.float32))
        else:
            weight = self.score_weight
        model = prepared.model * weight
        return prepared.masked * model, prepared.model * model

    # ------------------------------------------------------------------ coarse pass
    def _coarse(self, prepared: Prepared, images: torch.Tensor, power: torch.Tensor, poses: Poses):
        """Yield (rows of the chunk, their significant coarse samples) batch by batch."""
        rows_in = torch.from_numpy(self.coarse_rows)
        images, power = images[:, rows_in].contiguous(), power[:, rows_in].contiguous()
        search = self._coarse_local if self.owner.plan.sampling.local else self._coarse_global
        yield from search(prepared, images, power, poses)

    def _offset_prior(self, centre: np.ndarray) -> np.ndarray:
        """float32 [n, shifts] log prior of the coarse offsets (unperturbed), with its mean weight divided out."""
        grid, model, a = self.owner.grid, self.owner.model, self.optics.pixel_size
        total = centre[:, None, :] * a + grid.coarse_shifts_unperturbed[None]
        square = (total**2).sum(-1)
        if self.owner.plan.relion_offset_prior:  # ALGORITHM.md 4.7, QUIRK: Angstrom added to pixels
            square = ((centre[:, None, :] + grid.coarse_shifts_unperturbed[None]) ** 2).sum(-1) * a * a
        log_prior = -square / (2 * model.sigma2_offset)
        return (log_prior - np.log(np.exp(log_prior - log_prior.max(1, keepdims=True)).mean(1, keepdims=True))
                - log_prior.max(1, keepdims=True)).astype(np.float32)  # fmt: skip

    def _coarse_global(self, prepared: Prepared, images: torch.Tensor, power: torch.Tensor, poses: Poses):
        grid, plan = self.owner.grid, self.owner.plan
        projections, squares = self._coarse_projections()
        phases = kernels.shift_phases(self.coarse_shift, self.coarse_pixels)
        rotations, shifts = len(grid.coarse_rotations), len(phases)
        batch = max(1, _DENSE_SCORES // (rotations * shifts))
        log_direction = np.repeat(_log_or_never(self.owner.model.pdf_direction * len(grid.directions)), grid.n_psi)
        for start in range(0, len(images), batch):
            rows = np.arange(start, min(start + batch, len(images)))
            shifted = images[start : start + batch, None, :] * phases
            operand = torch.cat([shifted.real, shifted.imag], -1).flatten(0, 1)
            cross = kernels.matrix_product(operand, projections, plan.reduced_precision).view(len(rows), shifts, rotations)
            half_power = 0.5 * (power[start : start + batch] @ squares.T)
            log_offset = self._offset_prior(prepared.centre[rows])
            if plan.correlation:
                cross /= torch.sqrt(2 * half_power + 1e-30)[:, None, :]
            else:
                select.add_dense_priors(cross.numpy(), half_power.numpy(), log_direction, log_offset)
            values, ptr = cross.numpy().reshape(-1), np.arange(len(rows) + 1, dtype=np.int64) * rotations * shifts
            yield rows, self._significant_pairs(values, ptr, lambda k: (k % rotations, k // rotations), log_direction, log_offset)

    def _coarse_projections(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(float32 [rotations, 2 pixels] real and imaginary parts side by side, float32 [rotations, pixels] squared moduli)."""
        slices = slice_matrices(self.owner.grid.coarse_rotations, self.owner.volume, self.geometry)
        planes = kernels.project_planes(self.owner.volume, slices, self.coarse_pixels)
        return planes.flatten(1), planes.square().sum(1)

    def _coarse_local(self, prepared: Prepared, images: torch.Tensor, power: torch.Tensor, poses: Poses):
        grid, plan = self.owner.grid, self.owner.plan
        near = sampling.local_candidates(
            poses.angles[prepared.indices], grid.directions, grid.group, plan.sampling.healpix_order, plan.sampling.sigma_angle
        )
        shifts = len(self.coarse_shift)
        every_shift = np.arange(shifts, dtype=np.int32)
        log_pair = near.log_prior + np.repeat(np.log(np.maximum(np.diff(near.ptr), 1)), np.diff(near.ptr)).astype(np.float32)
        for start, stop in _batches(np.diff(near.ptr) * shifts, _DENSE_SCORES):
            rows = np.arange(start, stop)
            pair = slice(near.ptr[start], near.ptr[stop])
            pair_ptr = near.ptr[start : stop + 1] - near.ptr[start]
            used, pair_slice = np.unique(near.coarse_index[pair], return_inverse=True)
            slices = slice_matrices(grid.rotation_of(used), self.owner.volume, self.geometry)
            values, ptr = kernels.score(
                self.owner.volume, slices, pair_ptr, pair_slice.astype(np.int32), images[start:stop], power[start:stop],
                np.arange(len(rows) + 1, dtype=np.int64) * shifts, np.tile(every_shift, len(rows)), self.coarse_shift, self.coarse_pixels,
                plan.correlation,
            )  # fmt: skip
            log_offset = self._offset_prior(prepared.centre[rows])
            if not plan.correlation:
                select.add_block_priors(values, ptr, pair_ptr, log_pair[pair], log_offset)
            coarse = self._significant_pairs(values, ptr, lambda k: (k // shifts, k % shifts), None, log_offset)
            owner_pair = np.repeat(pair_ptr[:-1], np.diff(coarse.ptr)) + coarse.rotation
            prior = coarse.log_prior + log_pair[pair][owner_pair]
            yield rows, _Coarse(coarse.ptr, near.coarse_index[pair][owner_pair], coarse.shift, prior.astype(np.float32), coarse.count)

    def _significant_pairs(self, values, ptr, split, log_rotation, log_offset) -> _Coarse:
        """Reduce log weights to significant (rotation, shift) pairs, sorted by rotation within each particle."""
        chosen = self._choose(values, ptr)
        index, pair_ptr = select.indices(values, ptr, chosen)
        rotation, shift = split(index)
        owner = np.repeat(np.arange(len(ptr) - 1), np.diff(pair_ptr))
        order = np.lexsort((shift, rotation, owner))
        rotation, shift = rotation[order], shift[order]
        prior = log_offset[owner, shift] + (0 if log_rotation is None else log_rotation[rotation])
        if self.owner.plan.correlation:
            prior = np.zeros(len(rotation))
        return _Coarse(pair_ptr, rotation, shift, prior.astype(np.float32), chosen.count)

    def _choose(self, values: np.ndarray, ptr: np.ndarray) -> select.Significant:
        """The significant samples; only the best one when scores are correlations."""
        if self.owner.plan.correlation:
            return select.best_only(values, ptr)
        return select.significant(values, ptr, self.owner.options.adaptive_fraction, self.owner.options.max_significant)

    # ------------------------------------------------------------------ fine pass
    def _fine(self, prepared: Prepared, rows: np.ndarray, coarse: _Coarse, images: torch.Tensor, power: torch.Tensor):
        """Yield (rows, significant fine samples, statistics per particle) of the children of the coarse samples."""
        blocks = _Blocks.of(coarse, len(self.owner.grid.coarse_shifts))
        size = np.diff(blocks.rotation_ptr) * np.diff(blocks.shift_ptr) * self.owner.grid.children
        for start, stop in _batches(size, _DENSE_SCORES):
            part = rows[start:stop]
            yield part, *self._fine_batch(prepared, part, start, stop, coarse, blocks, images, power)

    def _fine_batch(self, prepared, rows, start, stop, coarse: _Coarse, blocks: _Blocks, images, power):
        grid, plan = self.owner.grid, self.owner.plan
        n_rot, n_shift = grid.rotation_children, grid.shift_children
        rotation_ptr, rotation = _cut(blocks.rotation_ptr, blocks.rotation, start, stop)
        shift_ptr, shift = _cut(blocks.shift_ptr, blocks.shift, start, stop)
        used, where = np.unique(rotation, return_inverse=True)
        slices = slice_matrices(grid.fine_rotations(used), self.owner.volume, self.geometry)
        scores, block_ptr = kernels.score(
            self.owner.volume, slices, rotation_ptr * n_rot, _children(where, n_rot).astype(np.int32),
            images[rows[0] : rows[-1] + 1], power[rows[0] : rows[-1] + 1],
            shift_ptr * n_shift, _children(shift, n_shift).astype(np.int32), self.fine_shift, self.pixels, plan.correlation,
        )  # fmt: skip
        pairs = slice(coarse.ptr[start], coarse.ptr[stop])
        pair_ptr = coarse.ptr[start : stop + 1] - coarse.ptr[start]
        values = np.empty((pair_ptr[-1], n_rot, n_shift), np.float32)
        select.fine_weights(
            scores, block_ptr, pair_ptr, blocks.row[pairs], blocks.column[pairs], np.diff(shift_ptr), n_rot, n_shift, coarse.log_prior[pairs], values
        )
        ptr = pair_ptr * n_rot * n_shift
        chosen = self._choose(values.reshape(-1), ptr)
        index, sample_ptr = select.indices(values.reshape(-1), ptr, chosen)
        particle = np.repeat(np.arange(len(rows)), np.diff(sample_ptr))
        flat = ptr[particle] + index
        weight = np.exp(values.reshape(-1)[flat] - chosen.log_sum[particle]) if not plan.correlation else np.ones(len(flat))
        pair = flat // (n_rot * n_shift) + pairs.start
        fine_rotation = coarse.rotation[pair] * n_rot + flat // n_shift % n_rot
        fine_shift = coarse.shift[pair] * n_shift + flat % n_shift
        best = chosen.argmax + ptr[:-1]
        best_pair = best // (n_rot * n_shift) + pairs.start
        stat = {
            "rotation": coarse.rotation[best_pair] * n_rot + best // n_shift % n_rot,
            "shift": coarse.shift[best_pair] * n_shift + best % n_shift,
            "log_sum": chosen.log_sum if not plan.correlation else chosen.maximum.astype(np.float64),
            "pmax": np.exp(chosen.maximum - chosen.log_sum) if not plan.correlation else np.ones(len(rows)),
            "significant": coarse.count[start:stop],
        }
        return _Fine(rows[particle].astype(np.int32), fine_rotation, fine_shift.astype(np.int32), weight.astype(np.float32)), stat

    # ------------------------------------------------------------------ sums
    def _store(self, prepared: Prepared, fine: _Fine, stat: dict, scale: np.ndarray, poses: Poses, updates: Poses) -> None:
        owner = self.owner
        samples, used = _sorted_samples(fine)
        slices = slice_matrices(owner.grid.fine_rotations_of(used), owner.volume, self.geometry)
        sums = kernels.accumulate(
            owner.volume, owner.sums.accumulator, slices, samples, self.fine_shift, prepared.unmasked, prepared.masked, prepared.model,
            self.inverse_sigma2, self.strong, self.pixels, self.optics.premultiplied,
        )  # fmt: skip
        self._sum_noise(prepared, fine, sums)
        self._sum_pose_statistics(prepared, fine, stat)
        self._sum_scales(prepared, sums, scale)
        self._update(prepared, fine, stat, sums, poses, updates)

    def _sum_noise(self, prepared: Prepared, fine: _Fine, sums: kernels.Sums) -> None:
        total, shells = self.owner.sums, self.owner.model.box // 2 + 1
        weight = np.bincount(fine.particle, fine.weight, len(prepared.indices))
        # the shift does not change |X|^2, and the weights of a particle sum to nearly 1, so the power needs no sum over samples
        residual = prepared.pixel_power * weight.mean() - 2 * sums.pixel_cross + sums.pixel_power
        by_shell = np.bincount(self.shells, residual, shells)[:shells]
        image_shells = np.arange(len(prepared.high_shells))
        by_shell += np.bincount(self.geometry.model_shell(image_shells, shells), prepared.high_shells, shells + 1)[:shells]
        total.sigma2[self.group] += by_shell
        total.optics_weight[self.group] += weight.sum()

    def _sum_pose_statistics(self, prepared: Prepared, fine: _Fine, stat: dict) -> None:
        total, grid = self.owner.sums, self.owner.grid
        offset = prepared.centre[fine.particle] * self.optics.pixel_size + grid.fine_shifts.reshape(-1, 2)[fine.shift]
        total.offset += float((fine.weight * (offset**2).sum(1)).sum())
        direction = fine.rotation // grid.rotation_children // grid.n_psi
        total.direction += np.bincount(direction, fine.weight, len(grid.directions))
        total.weight += float(fine.weight.sum(dtype=np.float64))
        total.pmax += float(stat["pmax"].sum())

    def _sum_scales(self, prepared: Prepared, sums: kernels.Sums, scale: np.ndarray) -> None:
        groups = self.owner.particles.group_index[prepared.indices]
        total = self.owner.sums
        total.scale_cross += np.bincount(groups, sums.strong_cross / scale, len(total.scale_cross))
        total.group_count += np.bincount(groups, minlength=len(total.group_count))
        total.scale_power += np.bincount(groups, sums.strong_power / scale**2, len(total.scale_power))

    def _update(self, prepared: Prepared, fine: _Fine, stat: dict, sums: kernels.Sums, poses: Poses, updates: Poses) -> None:
        owner, rows = self.owner, prepared.indices
        weight = np.bincount(fine.particle, fine.weight, len(rows))
        residual = weight * prepared.power - 2 * sums.particle_cross + sums.particle_power + prepared.high_power
        norm = poses.norm[rows] / owner.model.average_norm * np.sqrt(2 * np.maximum(residual, 0))
        owner.sums.norm += float(norm.sum())
        updates.norm[rows] = norm if owner.options.norm_correction else poses.norm[rows]
        updates.angles[rows] = euler.from_matrix(owner.grid.fine_rotations_of(stat["rotation"]))
        shift = owner.grid.fine_shifts.reshape(-1, 2)[stat["shift"]]
        updates.offsets[rows] = prepared.centre * self.optics.pixel_size + shift
        updates.pmax[rows], updates.significant[rows], updates.class_number[rows] = stat["pmax"], stat["significant"], 1
        likelihood = stat["log_sum"]
        if not owner.plan.correlation:
            image = (prepared.masked.real**2 + prepared.masked.imag**2) @ self.score_weight
            likelihood = likelihood - 0.5 * image.numpy().astype(np.float64) - 0.5 * prepared.high_power - self.log_sigma2
        updates.log_likelihood[rows] = likelihood
        owner.sums.log_likelihood += float(likelihood.sum())


@dataclass(frozen=True, eq=False)
class _Blocks:
    """Distinct rotations and shifts of each particle's coarse pairs: scores are dense over their product; row, column locate a pair."""

    rotation_ptr: np.ndarray
    rotation: np.ndarray
    row: np.ndarray
    shift_ptr: np.ndarray
    shift: np.ndarray
    column: np.ndarray

    @classmethod
    def of(cls, coarse: _Coarse, n_shifts: int) -> _Blocks:
        n = len(coarse.ptr) - 1
        owner = np.repeat(np.arange(n), np.diff(coarse.ptr))
        new = np.ones(len(owner), bool)  # pairs are sorted by particle and rotation
        new[1:] = (owner[1:] != owner[:-1]) | (coarse.rotation[1:] != coarse.rotation[:-1])
        rotation_ptr = np.concatenate([[0], np.cumsum(np.bincount(owner[new], minlength=n))])
        row = np.cumsum(new) - 1 - rotation_ptr[owner]
        used = np.zeros((n, n_shifts), bool)
        used[owner, coarse.shift] = True
        shift_ptr = np.concatenate([[0], np.cumsum(used.sum(1))])
        column = (np.cumsum(used, 1) - 1)[owner, coarse.shift]
        return cls(rotation_ptr, coarse.rotation[new], row, shift_ptr, np.nonzero(used)[1], column)


def _sorted_samples(fine: _Fine) -> tuple[Samples, np.ndarray]:
    """Samples sorted by rotation and particle, as runs; and the distinct fine rotations in that order."""
    order = np.lexsort((fine.particle, fine.rotation))
    rotation, particle = fine.rotation[order], fine.particle[order]
    new_rotation = np.ones(len(order), bool)
    new_rotation[1:] = rotation[1:] != rotation[:-1]
    new_run = new_rotation.copy()
    new_run[1:] |= particle[1:] != particle[:-1]
    first = np.flatnonzero(new_run)
    slice_ptr = np.concatenate([np.flatnonzero(new_rotation[first]), [len(first)]]).astype(np.int64)
    run_ptr = np.concatenate([first, [len(order)]]).astype(np.int64)
    return Samples(slice_ptr, particle[first], run_ptr, fine.shift[order], fine.weight[order]), rotation[new_rotation]


def _children(index: np.ndarray, count: int) -> np.ndarray:
    """index * count + (0 .. count - 1), flattened."""
    return (index[:, None] * count + np.arange(count)).reshape(-1)


def _cut(ptr: np.ndarray, values: np.ndarray, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Blocks start..stop of a ragged array, their ptr counted from 0."""
    return ptr[start : stop + 1] - ptr[start], values[ptr[start] : ptr[stop]]


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
