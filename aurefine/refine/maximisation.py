"""The M-step: maps and their priors from the half-sets' sums, and every other parameter of a half (ALGORITHM.md 3.4-3.10, 4.10)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from aurefine import fourier, mask
from aurefine import fsc as fsc_room
from aurefine.fsc import Map
from aurefine.refine import backprojection, devices, maps_torch, memory, radial, reconstruct, transforms_torch
from aurefine.refine.backprojection import BackProjection
from aurefine.refine.crew import Crew
from aurefine.refine.half_sums import HalfSums
from aurefine.refine.maps_torch import beside, on_host
from aurefine.refine.messages import angstrom
from aurefine.refine.options import RefineOptions
from aurefine.refine.plan import Geometry, Plan
from aurefine.refine.shortage import Batches
from aurefine.refine.state import Model
from aurefine.symmetry import point_group

_LARGE = 32 << 20  # bytes of sums: smaller ones are made of blocks that the heap keeps anyway


@dataclass(frozen=True, eq=False)
class Masks:
    """Masks on the model's grid, None where the user gave none."""

    solvent: np.ndarray | None = None
    second_solvent: np.ndarray | None = None
    low_pass: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Maximised:
    """Result of an M-step: two models, or one once the halves are joined; unfiltered half maps where they were made; the FSC's story."""

    models: tuple[Model, ...]
    unfiltered: tuple[np.ndarray, ...]
    masked_fsc: fsc_room.MaskedFsc | None


def maximise(
    models: tuple[Model, ...], sums: Sequence[HalfSums], plan: Plan, masks: Masks, resolution: float, options: RefineOptions, crew: Crew,
    batches: Batches | None = None,
) -> Maximised:  # fmt: skip
    """New models from old ones and the half-sets' sums; `resolution` is the current one in 1/Angstrom, `batches` say whether memory is short."""
    batches = batches or Batches()
    box, pixel_size = models[0].box, models[0].pixel_size
    operators = point_group(plan.sampling.symmetry).operators
    if plan.final or batches.in_turn or sums[0].accumulator.data.nbytes > _LARGE:  # beside large maps, what the E-step's batches have left counts
        memory.give_back()
    devices.maximised([s.accumulator for s in sums])
    halves = crew.map(lambda s: s.taken(operators, box), sums, apart=not batches.in_turn)
    apart = lambda: tuple(crew.everywhere(batches.of_halves(crew.map, lambda half: _unregularised(half, options), halves)))  # noqa: E731
    separate = tuple(map(on_host, apart())) if plan.final else ()  # before anything is shared
    if options.join_halves_resolution > 0:
        limit = max(options.join_halves_resolution, angstrom(resolution))
        shell = math.ceil(box * pixel_size / limit - 1e-9)
        shared = crew.together(backprojection.mean, crew.map(lambda half: backprojection.low_resolution(half, shell), halves))
        crew.map(lambda half: backprojection.join_low_resolution(half, shared, shell), halves)
    unfiltered: tuple[np.ndarray, ...] = ()
    masked = None
    if options.solvent_correct_fsc and masks.solvent is not None:
        maps, solvent, seed = apart(), masks.solvent, abs(options.random_seed) + plan.iteration
        masked = crew.once(lambda: _masked_fsc(maps[0], maps[1], solvent, seed))
        unfiltered = tuple(map(on_host, maps))
        fsc = np.where(np.arange(box // 2 + 1) <= plan.current_size // 2, masked.corrected, 0.0)
    else:
        compare = lambda one, other: backprojection.gold_standard_fsc(one, other, plan.current_size // 2, box)  # noqa: E731
        fsc = crew.together(compare, crew.map(backprojection.downsampled, halves))
    updated = [update_parameters(model, s, plan, options) for model, s in zip(models, sums, strict=True)]
    if plan.final:
        joined = crew.added(halves)
        new = crew.once(lambda: _with_map(updated[0], joined, fsc, plan, options, None, joined=True))
        return Maximised((new,), separate, masked)

    def half_model(model: Model, half: BackProjection, joined: bool = False) -> Model:
        return _with_map(model, half, fsc, plan, options, masks, joined)

    if options.join_random_halves:
        joined = crew.added(halves)
        alike = crew.once(lambda: tuple(half_model(model, joined, joined=True) for model in updated))
        return Maximised(alike, unfiltered, masked)
    return Maximised(tuple(crew.everywhere(batches.of_halves(crew.map, half_model, updated, halves))), unfiltered, masked)


def _gridding(options: RefineOptions) -> int:
    """Gridding iterations of each reconstruction."""
    return 0 if options.skip_gridding else options.gridding_iterations


def _unregularised(half: BackProjection, options: RefineOptions) -> Map:
    memory.give_back()
    return reconstruct.reconstruct(half, None, 1.0, 0, _gridding(options))


def _masked_fsc(first: Map, second: Map, solvent: np.ndarray, seed: int) -> fsc_room.MaskedFsc:
    """The mask-corrected FSC, computed where the first map is; the second one may have come from another process, by the host."""
    if isinstance(first, torch.Tensor):
        return maps_torch.mask_corrected(first, torch.as_tensor(second), solvent, seed)
    return fsc_room.mask_corrected(first, on_host(second), solvent, seed=seed)


def _with_map(model: Model, half: BackProjection, fsc: np.ndarray, plan: Plan, options: RefineOptions, masks: Masks | None, joined: bool) -> Model:
    """The model with its map reconstructed, flattened where there are `masks`, and its spectra set; the map is made where the sums are.

    After a correlation iteration the initial low-pass is applied again.
    """
    if plan.final:
        memory.give_back()
    prior = reconstruct.prior_from_fsc(half, fsc, options.tau2_fudge_used, joined)
    volume = reconstruct.reconstruct(
        half, prior if options.map_regularisation else None, options.tau2_fudge_used, options.minimum_map_shells, _gridding(options)
    )
    if plan.correlation and options.initial_lowpass > 0:
        volume = _low_pass(volume, model.pixel_size, options.initial_lowpass)
        taper = _taper(len(fsc), model.box * model.pixel_size / options.initial_lowpass)
        prior = replace(prior, tau2=prior.tau2 * taper, data_vs_prior=prior.data_vs_prior * taper)
    if masks is not None:
        volume = flatten(volume, model.pixel_size, masks, options)
    return replace(
        model, map=on_host(volume), tau2=prior.tau2, data_vs_prior=prior.data_vs_prior, fsc=fsc, sigma2_reference=prior.sigma2,
        fourier_coverage=prior.coverage,
    )  # fmt: skip


def _taper(shells: int, edge: float) -> np.ndarray:
    """Squared raised cosine across edge - 1 .. edge + 1, 0 beyond."""
    return (0.5 + 0.5 * np.cos(np.pi * np.clip((np.arange(shells) - edge + 1) / 2, 0, 1))) ** 2


def _low_pass(volume: Map, pixel_size: float, resolution: float) -> Map:
    low_pass = maps_torch.low_pass if isinstance(volume, torch.Tensor) else fourier.low_pass
    return low_pass(volume, pixel_size, resolution)


def _within_sphere(volume: Map, radius: float, edge: float) -> Map:
    box = volume.shape[0]
    sphere = mask.soft_edge_by_square(box, 3, radius, edge)
    if isinstance(volume, torch.Tensor):
        return volume * transforms_torch.on_grid(sphere, box, volume.device)
    return radial.multiplied(volume, sphere)


def flatten(volume: Map, pixel_size: float, masks: Masks, options: RefineOptions) -> Map:
    """Solvent flattening: the solvent mask, or a soft sphere of the particle's diameter (ALGORITHM.md 3.10).

    `volume` is float32 [box^3], an array or a tensor on any device; so is the result.
    """
    low_passed = None
    if masks.low_pass is not None:
        low_passed = _low_pass(volume, pixel_size, options.lowpass_mask_resolution) * beside(volume, masks.low_pass)
    if masks.second_solvent is not None:
        weight = beside(volume, masks.second_solvent)
        average = float((volume * weight).sum() / max(float(weight.sum()), 1e-6))
        volume = volume * (1 - weight) + average * weight
    if options.flatten_solvent and masks.solvent is not None:
        volume = volume * beside(volume, masks.solvent)
    elif options.flatten_solvent:
        volume = _within_sphere(volume, options.particle_diameter / (2 * pixel_size), options.mask_edge_pixels)
    return volume if low_passed is None else volume + low_passed


def update_parameters(model: Model, sums: HalfSums, plan: Plan, options: RefineOptions) -> Model:
    """Norm, scales, direction prior, offset width, noise spectra, average Pmax and likelihood of one half (ALGORITHM.md 4.10)."""
    total = max(sums.weight, 1e-12)
    changes: dict = {
        "pdf_direction": sums.direction / max(sums.direction.sum(), 1e-12),
        "average_pmax": sums.pmax / total,
        "log_likelihood": sums.log_likelihood,
    }
    if options.norm_correction:
        changes["average_norm"] = sums.norm / total
    if not options.fix_sigma_offset:
        changes["sigma2_offset"] = max(sums.offset / (2 * total), options.min_sigma2_offset)
    if not plan.correlation:
        if options.scale_correction and len(model.group_scale) > 1:
            changes["group_scale"] = _scales(sums)
        if not options.fix_sigma_noise:
            changes["sigma2_noise"] = _noise(model, sums, plan.geometry)
    return replace(model, **changes)


def _scales(sums: HalfSums) -> np.ndarray:
    """Grey-scale factor of each group, within a factor 5 of the median, mean over particles 1."""
    scale = np.divide(sums.scale_cross, sums.scale_power, out=np.ones_like(sums.scale_cross), where=sums.scale_power > 0)
    median = np.sort(scale)[len(scale) // 2]
    scale = np.clip(scale, median / 5, 5 * median)
    mean = (scale * sums.group_count).sum() / max(sums.group_count.sum(), 1)
    return scale / mean if mean > 0 else np.ones_like(scale)


def _noise(model: Model, sums: HalfSums, geometry: Sequence[Geometry]) -> np.ndarray:
    sigma2 = model.sigma2_noise.copy()
    shells = sigma2.shape[1]
    for group, weight in enumerate(sums.optics_weight):
        if weight <= 0:
            continue
        pixels = geometry[group].pixels_per_model_shell(shells)  # none in some shells where images are narrower than the model
        sigma2[group] = np.divide(sums.sigma2[group], 2 * weight * pixels, out=np.zeros(shells), where=pixels > 0)
        for shell in range(1, shells):
            if sigma2[group, shell] < 1e-14:
                sigma2[group, shell] = sigma2[group, shell - 1]
    return sigma2
