"""The angular distribution as cylinders around the map: ChimeraX's BILD format (ALGORITHM.md 6.8)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aurefine import euler
from aurefine.atomic import write_bytes

_SHORTEST = 0.01  # Angstrom: shorter cylinders are left out
_HEIGHT = 0.3  # of the radius, for the most populated direction


def bild_text(pdf: np.ndarray, angles: np.ndarray, radius: float, coarse_step: float) -> str:
    """Cylinders for `pdf [d]` at directions `angles [d, 2]` (rot, tilt in degrees) on a sphere of `radius` Angstrom centred at (radius,) * 3."""
    pdf = np.asarray(pdf, dtype=np.float64)
    spread = pdf.std()
    colour = (np.clip((pdf - pdf.mean()) / spread, -1, 5) + 1) / 6 if spread > 0 else np.full(len(pdf), 1 / 6)
    width = 0.5 * np.pi * radius * coarse_step / 360
    vectors = euler.view_direction(angles[:, 0], angles[:, 1])
    outer = radius + _HEIGHT * radius * pdf / max(pdf.max(), 1e-300)
    lines = []
    for c, vector, end, p in zip(colour, vectors, outer, pdf, strict=True):
        if p <= 0 or np.all(np.abs((end - radius) * vector) <= _SHORTEST):
            continue
        ends = [f"{value:g}" for value in (*(radius * vector + radius), *(end * vector + radius))]
        lines.append(f".color {c:g} 0 {1 - c:g}\n.cylinder {' '.join(ends)} {width:g}\n")
    return "".join(lines)


def write_bild(path: str | Path, pdf: np.ndarray, angles: np.ndarray, radius: float, coarse_step: float) -> None:
    """Write `bild_text` atomically; InputError when it cannot be written."""
    write_bytes(path, bild_text(pdf, angles, radius, coarse_step).encode())
