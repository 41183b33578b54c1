"""Small half maps with known resolution, B-factor and solvent for the tests of post-processing."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aurefine import fourier, mask, mrc

BOX, PIXEL_SIZE, BFACTOR = 48, 2.0, 120.0


def random_map(seed: int, bfactor: float = 0.0, box: int = BOX, pixel_size: float = PIXEL_SIZE) -> np.ndarray:
    """White noise whose amplitudes fall by exp(-B/4 s^2)."""
    values = np.random.default_rng(seed).standard_normal((box,) * 3, dtype=np.float32)
    squared = fourier.radius_squared_3d(box) / (box * pixel_size) ** 2
    return fourier.inverse_map((fourier.transform_map(values) * np.exp(-bfactor / 4 * squared)).astype(np.complex64), box)


def protein() -> np.ndarray:
    """A ball of random density without anything outside, the same in both halves."""
    return random_map(1, BFACTOR) * mask.soft_edge(BOX, 3, 0.25 * BOX, 3)


def write_halves(folder: Path, noise: float = 0.1, stem: str = "run", box: int = BOX) -> Path:
    """Two half maps and `mask.mrc`; returns the first half's path."""
    for half in (1, 2):
        values = protein() + noise * random_map(10 + half)
        mrc.write_map(folder / f"{stem}_half{half}_class001_unfil.mrc", values, PIXEL_SIZE)
    mrc.write_map(folder / "mask.mrc", mask.soft_edge(box, 3, 0.3 * box, 4), PIXEL_SIZE)
    return folder / f"{stem}_half1_class001_unfil.mrc"
