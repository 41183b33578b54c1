"""Small particle STAR files made up for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aurefine import star

MICROSCOPE = {"rlnVoltage": 300.0, "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.1, "rlnImagePixelSize": 1.5, "rlnImageSize": 64}


def particle_rows(count: int, groups: Sequence[int], folder: str, seed: int = 0) -> star.Table:
    """Particles in micrographs of five, with optics groups in turns."""
    rng = np.random.default_rng(seed)
    micrograph = [f"{folder}/mic{row // 5:03d}" for row in range(count)]
    return star.Table("particles", {
        "rlnCoordinateX": np.round(rng.uniform(0, 400, count), 6),
        "rlnCoordinateY": np.round(rng.uniform(0, 400, count), 6),
        "rlnMicrographName": np.array([f"{name}.mrc" for name in micrograph], dtype=object),
        "rlnImageName": np.array([f"{row % 5 + 1:06d}@{name}.mrcs" for row, name in enumerate(micrograph)], dtype=object),
        "rlnOpticsGroup": np.resize(groups, count),
        "rlnAngleRot": rng.uniform(-180, 180, count),
        "rlnAngleTilt": rng.uniform(0, 180, count),
        "rlnAnglePsi": rng.uniform(-180, 180, count),
        "rlnOriginXAngst": rng.normal(0, 5, count),
        "rlnOriginYAngst": rng.normal(0, 5, count),
        "rlnDefocusU": rng.uniform(8000, 20000, count),
        "rlnGroupNumber": np.arange(count) // 5 + 1,
        "rlnClassNumber": rng.integers(1, 4, count),
    })  # fmt: skip


def optics(names: Sequence[str], numbers: Sequence[int] | None = None, **changes: object) -> star.Table:
    """Optics groups of one microscope, but for `changes`."""
    values = {**MICROSCOPE, "rlnImageDimensionality": 2, **changes}
    rows = [[number, name, *values.values()] for number, name in zip(numbers or range(1, len(names) + 1), names)]
    return star.Table.from_rows("optics", ["rlnOpticsGroup", "rlnOpticsGroupName", *values], rows)


def write(path: Path, groups: star.Table, rows: star.Table) -> str:
    """Write a file of both tables; returns its name."""
    star.write(path, [groups, rows])
    return str(path)
