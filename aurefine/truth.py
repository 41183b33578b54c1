"""True poses of particles that were extracted from simulated micrographs: found by where they were extracted, not by image name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from aurefine import star
from aurefine.errors import InputError

_ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
_ORIGINS = ("rlnOriginXAngst", "rlnOriginYAngst")


def has_places(truth: star.Table) -> bool:
    """Whether a truth table is one of micrographs: places, but no images."""
    return "rlnImageName" not in truth and "rlnCoordinateX" in truth


def at_places(particles: star.Table, truth_file: str | Path, source: str | Path) -> star.Table:
    """The rows of `particles` that show a true particle, with its angles and with the origins that centre it in this image.

    `truth_file` is the truth.star of simulated micrographs, `source` names the particles' file in messages. A particle's image is centred on
    its whole-pixel coordinates (ALGORITHM.md 7.1), whatever was picked or refined before. It belongs to the nearest true particle of its
    micrograph, if that is nearer than half the smallest distance of two of them; false picks are left out. Raises InputError when none does.
    """
    for label in ("rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY"):
        if label not in particles:
            raise InputError(f"{source}: data_particles has no column {label}; particles extracted from micrographs were expected.")
    truth, pixel_size = _read_truth(truth_file)
    middle = np.trunc(np.stack([particles["rlnCoordinateX"], particles["rlnCoordinateY"]], axis=1).astype(float))
    row = np.full(particles.count, -1)
    places, rows = _places(truth, pixel_size), _rows_by_name(truth["rlnMicrographName"])
    for micrograph, here in _rows_by_name(particles["rlnMicrographName"]).items():
        if micrograph in rows:
            there = rows[micrograph]
            row[here] = _nearest(middle[here], places[there], there)
    found = np.flatnonzero((row >= 0) & (truth["rlnClassNumber"][row] == 1))
    if not len(found):
        raise InputError(f"{source}: none of its particles lies where {truth_file} has one; give the truth file of the same micrographs.")
    true = truth.select(row[found])
    origins = (middle[found] - _places(true, pixel_size[row[found]])) * pixel_size[row[found], None]
    return particles.select(found).with_columns({label: true[label] for label in _ANGLES} | dict(zip(_ORIGINS, origins.T)))


def write_true_poses(particles_file: str | Path, truth_file: str | Path, output: str | Path) -> int:
    """Write `particles_file` with true poses (only its true particles), for a reconstruction without refinement; returns how many."""
    tables = star.read(particles_file)
    tables["particles"] = at_places(star.read_table(particles_file, "particles"), truth_file, particles_file)
    star.write(output, tables)
    return tables["particles"].count


def _read_truth(path: str | Path) -> tuple[star.Table, np.ndarray]:
    """All picks with their truth, and the pixel size [n] of each one's micrograph."""
    truth, optics = star.read_table(path, "particles"), star.read_table(path, "optics")
    size_of = dict(zip(optics["rlnOpticsGroup"].tolist(), optics["rlnMicrographPixelSize"].tolist()))
    return truth, np.array([size_of[group] for group in truth["rlnOpticsGroup"].tolist()])


def _rows_by_name(names: np.ndarray) -> dict[str, np.ndarray]:
    known: dict[str, int] = {}
    number = np.array([known.setdefault(name, len(known)) for name in names.tolist()], dtype=np.int64)
    parts = np.split(np.argsort(number, kind="stable"), np.cumsum(np.bincount(number))[:-1])
    return dict(zip(known, parts))


def _places(truth: star.Table, pixel_size: np.ndarray) -> np.ndarray:
    """True places [n, 2] in pixels."""
    picked = np.stack([truth["rlnCoordinateX"], truth["rlnCoordinateY"]], axis=1)
    return picked - np.stack([truth[label] for label in _ORIGINS], axis=1) / pixel_size[:, None]


def _nearest(middle: np.ndarray, places: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The row of the true particle at each place, -1 where there is none."""
    tree = cKDTree(places)
    apart = tree.query(places, k=2)[0][:, 1].min() if len(places) > 1 else np.inf
    distance, index = tree.query(middle)
    return np.where(distance < apart / 2, rows[index], -1)
