"""Torch twins of `select` for scores that live on a GPU: the same functions, names and results.

Arrays with one entry a score or a significant sample stay on the scores' device; what has one entry a particle is numpy, as in `select`.
`ptr` arrays and priors may be numpy. A call waits for the device a few times (the number of samples has to be known), never once a particle.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from aurefine.refine.select import Significant

__all__ = ["Significant", "add_block_priors", "best_only", "dense_scores", "indices", "pairs", "picked", "significant", "spread"]


def _on(array: np.ndarray | torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(array).to(like.device, non_blocking=True)


def _spread(per_block: torch.Tensor, lengths: torch.Tensor, total: int) -> torch.Tensor:
    """Each block's number, once for every entry of the block."""
    return torch.repeat_interleave(per_block, lengths, output_size=total)


def _block_maximum(values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return torch.segment_reduce(values, "max", lengths=lengths, unsafe=True)


def _first_of_each(owner: torch.Tensor, position: torch.Tensor, blocks: int) -> torch.Tensor:
    """Smallest position of every owner, int64 [blocks]."""
    start = torch.full((blocks,), torch.iinfo(torch.int64).max, device=owner.device)
    return start.scatter_reduce_(0, owner, position, "amin")


def _falling(values: torch.Tensor, near: torch.Tensor, owner: torch.Tensor, top: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights exp(value - top) float64 and owners of the entries `near`, block by block and falling within each.

    One sort of 64-bit keys does it: the owner above, the bits of the non-negative float32 (top - value) below, which order like the number.
    """
    depth = (top[owner] - values[near]).contiguous().view(torch.int32).to(torch.int64)
    key = torch.sort((owner << 32) | depth).values
    depth = (key & 0xFFFFFFFF).to(torch.int32).view(torch.float32)
    return torch.exp(-depth.double()), key >> 32


def significant(values: torch.Tensor, ptr: np.ndarray | torch.Tensor, fraction: float, largest: int = -1) -> Significant:
    """See `select.significant`: the smallest set of each block whose weights exceed `fraction` of the block's sum."""
    bounds = _on(ptr, values)
    lengths, blocks = bounds.diff(), len(bounds) - 1
    top = _block_maximum(values, lengths)
    floor = top - (torch.log(lengths.double()) + 12.0).float()  # see `select`: what lies below adds less than 1e-5 of the sum
    near = torch.nonzero(values > _spread(floor, lengths, len(values))).squeeze(1)
    owner = torch.searchsorted(bounds, near, right=True) - 1
    is_top = values[near] == top[owner]
    argmax = _first_of_each(owner[is_top], (near - bounds[owner])[is_top], blocks)
    weights, owner = _falling(values, near, owner, top)
    cumulative = torch.cumsum(weights, 0)
    start = torch.searchsorted(owner, torch.arange(blocks, device=owner.device))
    stop = torch.cat([start[1:], torch.tensor([len(owner)], device=owner.device)])
    before = torch.where(start > 0, cumulative[(start - 1).clamp(min=0)], 0.0)
    total = cumulative[stop - 1] - before
    short = torch.cumsum(cumulative - before[owner] <= fraction * total[owner], 0)  # no atomic sums: all samples of a block would meet in one number
    short = short[stop - 1] - torch.where(start > 0, short[(start - 1).clamp(min=0)], 0)
    last = torch.minimum(start + short, stop - 1)
    if largest > 0:
        last = torch.minimum(last, start + largest - 1)
    threshold = top + torch.log(weights[last]).float() - 1e-6 * top.abs()
    above = torch.nonzero(values >= _spread(threshold, lengths, len(values))).squeeze(1)
    count = torch.searchsorted(above, bounds).diff()
    return _to_host(top, argmax, top.double() + torch.log(total), threshold, count)


def _to_host(maximum, argmax, log_sum, threshold, count) -> Significant:
    """One copy for all: float64 holds float32 and indices up to 2^53 exactly."""
    table = torch.stack([x.double() for x in (maximum, argmax, log_sum, threshold, count)]).cpu().numpy()
    return Significant(table[0].astype(np.float32), table[1].astype(np.int64), table[2], table[3].astype(np.float32), table[4].astype(np.int64))


def best_only(values: torch.Tensor, ptr: np.ndarray | torch.Tensor) -> Significant:
    """See `select.best_only`: the winner of each block and its exact ties."""
    bounds = _on(ptr, values)
    lengths, blocks = bounds.diff(), len(bounds) - 1
    top = _block_maximum(values, lengths)
    winner = torch.nonzero(values == _spread(top, lengths, len(values))).squeeze(1)
    owner = torch.searchsorted(bounds, winner, right=True) - 1
    argmax = _first_of_each(owner, winner - bounds[owner], blocks)
    return _to_host(top, argmax, top, top, torch.searchsorted(winner, bounds).diff())  # the log sum makes every winner weigh 1


def indices(values: torch.Tensor, ptr: np.ndarray | torch.Tensor, chosen: Significant) -> tuple[torch.Tensor, np.ndarray]:
    """See `select.indices`: (index within its block, on the device; ptr, numpy) of every significant sample."""
    place, owner, pair_ptr = _reached(values, ptr, chosen)
    return place - _on(ptr, values)[owner], pair_ptr


def _reached(values: torch.Tensor, ptr, chosen: Significant) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Flat places and blocks of the significant samples, and where each block's begin."""
    bounds = _on(ptr, values)
    place = torch.nonzero(values >= _spread(_on(chosen.threshold, values), bounds.diff(), len(values))).squeeze(1)
    return place, torch.searchsorted(bounds, place, right=True) - 1, np.concatenate([[0], np.cumsum(chosen.count)]).astype(np.int64)


def pairs(
    values: torch.Tensor, ptr: np.ndarray, chosen: Significant, split: Callable, log_rotation: np.ndarray | None, log_offset: np.ndarray
) -> tuple[np.ndarray, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """See `select.pairs`: all but the ptr are on the device."""
    place, particle, pair_ptr = _reached(values, ptr, chosen)
    rotation, shift = split(place - _on(ptr, values)[particle])
    prior = _on(log_offset, values)[particle, shift]
    if log_rotation is not None:
        prior = prior + _on(log_rotation, values)[rotation]
    return pair_ptr, rotation, shift, prior, values[place]


def spread(per_block: np.ndarray, count: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """See `select.spread`."""
    return _spread(_on(per_block, like), _on(count, like), len(like))


def picked(array: torch.Tensor, rows: np.ndarray) -> np.ndarray:
    """See `select.picked`."""
    return array[_on(rows, array)].cpu().numpy()


def dense_scores(products: torch.Tensor, half_power: torch.Tensor, log_rotation, log_offset, half: int, correlation: bool = False) -> torch.Tensor:
    """See `select.dense_scores`."""
    particles, shifts = log_offset.shape
    same, crossed = products.view(2, particles, shifts, -1, half)
    out = torch.stack([same + crossed, same - crossed], 3)
    norm = half_power.view(particles, 1, -1, 1, half)
    if correlation:
        out /= torch.sqrt(2 * norm + 1e-30)
    else:
        out += _on(log_rotation, products).view(-1, 2, half) - norm
        out += _on(log_offset, products)[:, :, None, None, None]
    return out.view(particles, shifts, -1)


def add_block_priors(values: torch.Tensor, ptr, pair_ptr, log_pair, log_offset) -> None:
    """See `select.add_block_priors`: in place, log_pair[pair] + log_offset[i, t] for block i of shape [pairs of i, shifts]."""
    pairs, offset = _on(pair_ptr, values).diff(), _on(log_offset, values)
    log_pair = _on(log_pair, values)
    owner = _spread(torch.arange(len(pairs), device=values.device), pairs, len(log_pair))
    values.view(len(log_pair), offset.shape[1]).add_(log_pair[:, None]).add_(offset[owner])
