"""The resolution that the true poses allow: half maps of a refinement beside half maps of the same images at their true poses."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aurefine import fsc, mrc, particles, reconstruction, truth
from aurefine.errors import InputError
from aurefine.refine.inputs import half_map_name


@dataclass(frozen=True)
class Attainable:
    """Resolutions in Angstrom, FSC 0.143: of the refinement's half maps and of those at the true poses; within the mask where one is given."""

    refined: float
    true: float
    refined_masked: float | None = None
    true_masked: float | None = None

    def summary(self) -> dict[str, float]:
        """The numbers that there are."""
        return {name: value for name, value in vars(self).items() if value is not None}


def attainable(refined: str | Path, truth_file: str | Path, half_map: str | Path, point_group: str, mask: str | Path = "") -> Attainable:
    """Compare the half maps of a refinement (`half_map` names one, unfiltered) with those that its particles make at their true poses.

    `refined`: the run's _data.star, whose rlnRandomSubset says which particle belongs to which half; `mask`: a soft mask, for an FSC corrected
    by phase randomisation. Raises InputError for particles without half-sets, or maps and masks that do not fit.
    """
    names = [half_map_name(str(half_map), half) for half in (1, 2)]
    (first, pixel_size), (second, _) = (mrc.read_map(name) for name in names)
    halves = _true_halves(refined, truth_file, point_group)
    if halves[0].shape != first.shape or first.shape != second.shape:
        raise InputError(f"{half_map}: {first.shape[0]} voxels wide, the particles' images {halves[0].shape[0]}; give the half maps of {refined}.")
    pairs = ((first, second), halves)
    plain = [_resolution(fsc.of_maps(*pair), pixel_size) for pair in pairs]
    if not mask:
        return Attainable(*plain)
    soft, _ = mrc.read_map(mask)
    if soft.shape != first.shape:
        raise InputError(f"{mask}: {soft.shape[0]} voxels wide, the half maps {first.shape[0]}; make the mask from a map of the same box.")
    masked = [_resolution(fsc.mask_corrected(*pair, soft).corrected, pixel_size) for pair in pairs]
    return Attainable(*plain, *masked)


def _true_halves(refined: str | Path, truth_file: str | Path, point_group: str) -> tuple[np.ndarray, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "true.star"
        truth.write_true_poses(refined, truth_file, path)
        found = particles.load(path)
    rows = [np.flatnonzero(found.random_subset == half) for half in (1, 2)]
    if not min(map(len, rows)):
        raise InputError(f"{refined}: rlnRandomSubset does not tell two halves apart; give the run_data.star of an auto-refinement.")
    one, other = (reconstruction.from_poses(found, half, point_group, gridding=0) for half in rows)
    return one, other


def _resolution(curve: np.ndarray, pixel_size: float) -> float:
    return fsc.resolution_at(curve, 0.143, 2 * (len(curve) - 1), pixel_size)
