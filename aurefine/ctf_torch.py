"""`ctf.evaluate` on a GPU, in plain torch: the same formula in the same order, float64 until the last step."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike

from aurefine import ctf

_TERMS = 1 << 25  # phases in float64 at a time


def evaluate(
    table: ctf.CtfParameters,
    indices: ArrayLike,
    optics: ctf.Optics,
    frequency_x: ArrayLike,
    frequency_y: ArrayLike,
    device: torch.device | str,
    *,
    intact_first_peak: bool = False,
    phase_flipped: bool = False,
    only_flip_phases: bool = False,
) -> torch.Tensor:
    """See `ctf.evaluate`: CTF float32 `[k, p]` on the device."""
    rows = np.asarray(indices, dtype=np.int64)
    xx, xy, yy, shared = (torch.from_numpy(np.asarray(term, float)).to(device) for term in ctf.pixel_terms(optics, frequency_x, frequency_y))
    terms = np.stack(ctf.particle_terms(table, rows, optics), 0)
    columns, enveloped = torch.from_numpy(terms).to(device)[:, :, None], bool(terms[4].any())
    out = torch.empty((len(rows), len(xx)), device=device)
    step = max(1, _TERMS // max(len(xx), 1))
    for start in range(0, len(rows), step):
        along_x, mixed, along_y, shift, envelope, scale = columns[:, start : start + step]
        gamma = along_x * xx + mixed * xy + along_y * yy + shared - shift
        values = -torch.sin(gamma)
        if intact_first_peak:
            values = torch.where(gamma.abs() < 0.5 * math.pi, 1.0, values)
        if enveloped:
            values *= torch.exp(envelope * (xx + yy))
        if phase_flipped:
            values = values.abs()
        elif only_flip_phases:
            values = torch.where(values < 0, -1.0, 1.0)
        values = values.float() * scale
        out[start : start + step] = torch.where(values >= 0, values.clamp(min=ctf.SMALLEST), values.clamp(max=-ctf.SMALLEST))
    return out
