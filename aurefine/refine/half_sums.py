"""What an E-step sums over the particles of a half-set, for the M-step."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from aurefine.kernels import Accumulator
from aurefine.refine import backprojection
from aurefine.refine.backprojection import BackProjection


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
    collected: BackProjection | None = None  # what was made of the accumulator, which is empty then

    def collect(self, operators: np.ndarray, box: int, folder: str = "") -> None:
        """Make the symmetrised sums for maps of this box, in memory or in a file in a folder, of the accumulator."""
        self.collected = backprojection.collect(self.accumulator, operators, box, folder)

    def taken(self, operators: np.ndarray, box: int) -> BackProjection:
        """The symmetrised sums, which are not kept here: they are large."""
        found, self.collected = self.collected, None
        return found or backprojection.collect(self.accumulator, operators, box)

    def small(self) -> dict[str, Any]:
        """All fields but the volumes."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in ("accumulator", "collected")}
