"""Torch twins of `fine` for scores that live on a GPU: pairs are ordered on the host, scores and samples stay on the device."""

from __future__ import annotations

import numpy as np
import torch

from aurefine.kernels import Samples
from aurefine.refine.fine import PairOrder, by_rotation
from aurefine.refine.select import Significant

__all__ = ["PairOrder", "add_pair_prior", "by_rotation", "samples_of", "to_particle_order", "totals"]


def _on(array: np.ndarray | torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(array).to(like.device, non_blocking=True)


def add_pair_prior(values: torch.Tensor, log_prior: np.ndarray) -> None:
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


def totals(samples: Samples, centre: np.ndarray, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """See `fine.totals`: (weight by particle, weight by slice, sum of weight times squared offset), as numpy."""
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
    return by_particle.cpu().numpy(), by_slice.cpu().numpy(), float(square)
