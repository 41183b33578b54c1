"""Reading back what a refinement wrote: the history of its iterations, its newest map, spectra and poses.

It reads nothing but RELION's own files, so it serves a run of RELION just as well as one of ours, finished or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aurefine import mrc, star
from aurefine.errors import InputError
from aurefine.reporting.history import find_root, map_path, newest, number_in, numbers_of, particles_of, stem_of
from aurefine.sampling import angular_step


@dataclass(frozen=True)
class RunReport:
    """What the picture needs of a run; arrays over iterations have one entry an iteration that has a model file."""

    name: str
    finished: bool
    map: np.ndarray  # [z, y, x]
    pixel_size: float  # Angstrom
    fsc: np.ndarray  # [shells] gold-standard FSC of the newest model
    iterations: np.ndarray  # [k] iteration numbers
    resolution: np.ndarray  # [k] Angstrom
    accuracy: np.ndarray  # [k] degrees, NaN where it has not been estimated
    step: np.ndarray  # [k] degrees, after oversampling
    final_resolution: float  # Angstrom, of the joined model when there is one
    symmetry: str
    angles: np.ndarray  # [n, 2] rot and tilt of every particle, degrees


def read_run(root: str | Path) -> RunReport:
    """Read a run from the root of its file names (`Refine3D/job001/run`), or from its job directory.

    Raises InputError when no model file starts with that root.
    """
    root = find_root(Path(root))
    stems = [stem_of(root, number) for number in numbers_of(root, "half1_model.star")]
    models = [stem.with_name(f"{stem.name}_half1_model.star") for stem in stems]
    final = root.with_name(f"{root.name}_model.star")
    if not models and not final.is_file():
        raise InputError(f"{root}: no file {root.name}_it*_half1_model.star there; expected the value that --o had in the refinement")
    history = [_read_iteration(path) for path in models]
    newest = final if final.is_file() else models[-1]
    tables = star.read(newest)
    shells = _columns(tables, "model_class_1", newest)
    resolution = float(_value(tables, "model_general", "rlnCurrentResolution", newest))
    volume, pixel_size = mrc.read_map(_newest_map(root, final.is_file()))
    rows = np.array(history, dtype=float).reshape(len(history), 4)
    symmetry, angles = _orientations(root)
    return RunReport(
        name="/".join(root.parts[-3:]), finished=final.is_file(), map=volume, pixel_size=pixel_size,
        fsc=np.asarray(shells["rlnGoldStandardFsc"], dtype=float),
        iterations=rows[:, 0].astype(int), resolution=rows[:, 1], accuracy=rows[:, 2], step=rows[:, 3],
        final_resolution=resolution, symmetry=symmetry, angles=angles,
    )  # fmt: skip


def _read_iteration(path: Path) -> tuple[float, float, float, float]:
    """Number, resolution (Angstrom), angular accuracy and search step (degrees) of one iteration's half-1 model."""
    number = int(path.name.split("_it")[-1][:3])
    tables = star.read(path)
    resolution = float(_value(tables, "model_general", "rlnCurrentResolution", path))
    accuracy = float(_value(tables, "model_classes", "rlnAccuracyRotations", path))
    sampling = path.with_name(path.name.replace("_half1_model.star", "_sampling.star"))
    step = np.nan
    if sampling.is_file():
        order = int(_value(star.read(sampling), "sampling_general", "rlnHealpixOrder", sampling))
        optimiser = path.with_name(path.name.replace("_half1_model.star", "_optimiser.star"))
        oversampling = int(number_in(star.single_values(optimiser), "rlnAdaptiveOversampleOrder") or 0)
        step = angular_step(min(max(order, 0), 30), min(max(oversampling, 0), 30))
    return number, resolution, accuracy if 0 < accuracy < 180 else np.nan, step


def _newest_map(root: Path, finished: bool) -> Path:
    """The joined map of a finished run, else half map 1 of its newest iteration."""
    final = root.with_name(f"{root.name}_class001.mrc")
    if finished and final.is_file():
        return final
    numbers = numbers_of(root, "half1_class001.mrc")
    if not numbers:
        raise InputError(f"{root}: no map {root.name}_class001.mrc or {root.name}_it*_half1_class001.mrc there; was it moved or deleted?")
    return map_path(root, numbers[-1], "half1")


def _orientations(root: Path) -> tuple[str, np.ndarray]:
    """Point group, and rot and tilt [n, 2] of the newest particle table (none when there is no such file)."""
    sampling = newest(root, "sampling.star")
    symmetry = str(_value(star.read(sampling), "sampling_general", "rlnSymmetryGroup", sampling)) if sampling else ""
    particles = particles_of(root)
    if particles is None:
        return symmetry, np.zeros((0, 2))
    columns = _columns(star.read(particles), "particles", particles)
    if "rlnAngleRot" not in columns or "rlnAngleTilt" not in columns:
        return symmetry, np.zeros((0, 2))
    return symmetry, np.stack([columns["rlnAngleRot"], columns["rlnAngleTilt"]], axis=-1).astype(float)


def _columns(tables: Mapping[str, star.Table], name: str, path: Path) -> star.Table:
    """The columns of one table of a STAR file, or an InputError that names file and table."""
    if name not in tables:
        raise InputError(f"{path}: the table data_{name} is missing; expected a file of a 3D auto-refine job, has it been cut short?")
    return tables[name]


def _value(tables: Mapping[str, Any], name: str, label: str, path: Path) -> Any:
    """One value of a list table, or an InputError that names file, table and label."""
    columns = _columns(tables, name, path)
    if label not in columns:
        raise InputError(f"{path}: _{label} is missing in data_{name}; expected a file of a 3D auto-refine job")
    values = np.atleast_1d(columns[label])
    if not len(values):
        raise InputError(f"{path}: data_{name} has no row; expected a file of a 3D auto-refine job, has it been cut short?")
    return values[0]
