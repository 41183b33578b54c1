"""Torch twins of `fine` for scores that live on a GPU: pairs, scores and samples stay on the device."""

from __future__ import annotations

import numpy as np
import torch

from aurefine.kernels import Samples
from aurefine.refine.fine import PairOrder
from aurefine.refine.select import Significant

__all__ = ["PairOrder", "add_pair_prior", "by_direction", "by_rotation", "samples_of", "to_particle_order", "totals"]


def _on(array: np.ndarray | torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(array).to(like.device, non_blocking=True)


def by_rotation(particle_ptr: np.ndarray, rotation: torch.Tensor, shift: torch.Tensor) -> PairOrder:
    """See `fine.by_rotation`, always in the grid's order; the fields are tensors on the device."""
    particles = torch.arange(len(particle_ptr) - 1, dtype=torch.int32, device=rotation.device)
    particle = torch.repeat_interleave(particles, _on(particle_ptr, rotation).diff(), output_size=len(rotation))
    ordered, order = torch.sort(rotation, stable=True)
    used, count = torch.unique_consecutive(ordered, return_counts=True)
    ptr = torch.cat([count.new_zeros(1), torch.cumsum(count, 0)])
    return PairOrder(order, used, ptr, particle[order], shift[order].int())  # type: ignore[arg-type]


def by_direction(pairs: PairOrder, weight: torch.Tensor, n_psi: int, directions: int) -> np.ndarray:
    """See `fine.by_direction`, as numpy."""
    direction = torch.div(_on(pairs.rotation, weight), n_psi, rounding_mode="floor")
    by_rotation = weight.view(len(direction), -1).sum(1)
    return torch.zeros(directions, dtype=torch.float64, device=weight.device).index_add_(0, direction, by_rotation).cpu().numpy()


def add_pair_prior(values: torch.Tensor, log_prior: np.ndarray | torch.Tensor) -> None:
    """See `fine.add_pair_prior`: in place, values[pair, :, :] += log_prior[pair]."""
    values += _on(log_prior, values)[:, None, None]


def to_particle_order(values: torch.Tensor, order: np.ndarray, out: torch.Tensor) -> None:
    """See `fine.to_particle_order`: out[order[pair]] = values[pair]."""
    out[_on(order, values)] = values


def _pointers(first: torch.Tensor, count: int) -> torch.Tensor:
    """int64 [count + 1] from the block number of every entry, in rising order."""
    return torch.searchsorted(first, torch.arange(count + 1, device=first.device))


def samples_of(values: torch.Tensor, pairs: PairOrder, chosen: Significant) -> Samples:
    """See `fine.samples_of`; the fields are tensors on the device, ready for `kernels.accumulate`."""
    n_pairs, children, shifts = values.shape
    order, particle, shift = _on(pairs.order, values), _on(pairs.particle, values), _on(pairs.shift, values)
    log_sum = _on(chosen.log_sum, values)
    threshold = torch.empty(n_pairs, device=values.device)
    threshold[order] = _on(chosen.threshold, values)[particle.long()]
    place = torch.nonzero((values >= threshold[:, None, None]).flatten()).squeeze(1)
    in_rotation_order = torch.empty_like(order).scatter_(0, order, torch.arange(n_pairs, device=values.device))
    pair, child = in_rotation_order[place // (children * shifts)], place // shifts % children
    rotation = torch.searchsorted(_on(pairs.ptr, values), pair, right=True) - 1
    key, sorting = torch.sort((rotation * children + child) * n_pairs + pair, stable=True)
    place, pair = place[sorting], pair[sorting]
    of_slice, owner = key // max(n_pairs, 1), particle[pair]
    new_run = torch.ones(len(place), dtype=torch.bool, device=values.device)
    new_run[1:] = (of_slice[1:] != of_slice[:-1]) | (owner[1:] != owner[:-1])
    first = torch.nonzero(new_run).squeeze(1)
    slice_ptr = _pointers(of_slice[first], (len(pairs.ptr) - 1) * children)
    run_ptr = torch.cat([first, torch.tensor([len(place)], device=values.device)])
    weight = torch.exp(values.flatten()[place].double() - log_sum[owner.long()]).float()
    fields = slice_ptr, owner[first], run_ptr, (shift[pair] * shifts + place % shifts).int(), weight
    return Samples(*fields)  # type: ignore[arg-type]


def totals(samples: Samples, centre: np.ndarray, shifts: np.ndarray) -> tuple[np.ndarray, torch.Tensor, float]:
    """See `fine.totals`: (weight by particle, numpy; weight by slice, on the device; sum of weight times squared offset)."""
    slice_ptr, run_particle, run_ptr, shift, weight = (getattr(samples, name) for name in samples.__dataclass_fields__)
    weight = weight.double()
    slices = len(slice_ptr) - 1
    run = torch.repeat_interleave(torch.arange(len(run_particle), device=weight.device), run_ptr.diff(), output_size=len(weight))
    particle = run_particle[run].long()
    of_slice = torch.searchsorted(slice_ptr, run, right=True) - 1
    offset = _on(centre, weight)[particle] + _on(shifts, weight)[shift.long()]
    by_particle = torch.zeros(len(centre), dtype=torch.float64, device=weight.device).index_add_(0, particle, weight)
    by_slice = torch.zeros(slices, dtype=torch.float64, device=weight.device).index_add_(0, of_slice, weight)
    square = (weight * offset.square().sum(1)).sum()
    return by_particle.cpu().numpy(), by_slice, float(square)
