"""What a validation is given: the files of a run found by any of their names, its half maps, mask and particle table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aurefine import mask as mask_room
from aurefine import particles, star
from aurefine.errors import InputError
from aurefine.particles import ParticleSet
from aurefine.postprocessing.inputs import HalfMaps, read_half_maps, read_mask
from aurefine.postprocessing.options import PostprocessOptions
from aurefine.reporting.facts import read_facts
from aurefine.reporting.history import find_root, number_in
from aurefine.validation.options import ValidateOptions

_ENDS = ("_data.star", "_optimiser.star", "_model.star", "_sampling.star", "_half1_class001_unfil.mrc", "_half2_class001_unfil.mrc", "_class001.mrc")
_EDGE, _LEAST_EDGE = 6.0, 2.0  # pixels of the sphere's soft edge


@dataclass(frozen=True)
class RunFiles:
    """Files of a refinement, each "" where it is not there; point group, particle diameter (Angstrom, 0: not known) and whether
    the CTF was corrected for, by its STAR files.
    """

    name: str
    half1: str
    half2: str
    data: str
    symmetry: str
    diameter: float
    ctf: bool = True


@dataclass(frozen=True)
class Given:
    """All that the measures share. `halves` is None without half maps; `mask` [n, n, n] is ones where there is none; `masked_by` names it."""

    files: RunFiles
    halves: HalfMaps | None
    mask: np.ndarray | None
    masked_by: str
    angles: np.ndarray | None  # [n, 3] rot, tilt, psi in degrees
    symmetry: str

    @property
    def masked(self) -> tuple[np.ndarray, np.ndarray]:
        """Both half maps under the mask; only with half maps."""
        assert self.halves is not None and self.mask is not None
        return self.halves.one * self.mask, self.halves.two * self.mask


def find(options: ValidateOptions) -> RunFiles:
    """The files of the run that `options.run` names; InputError where there is neither a half map nor a particle table."""
    path = Path(options.run)
    half2 = options.half2
    if path.suffix == ".mrc" and not path.name.endswith(_ENDS):
        half1, root = str(path), path.with_name(path.name.replace("half1", "").replace("half2", "").removesuffix(".mrc"))
        half2 = PostprocessOptions(half1=half1, half2=half2).second_half
    else:
        root = _root(path)
        first = root.with_name(f"{root.name}_half1_class001_unfil.mrc")
        half1 = str(first) if first.is_file() else ""
        half2 = half2 or (str(root.with_name(f"{root.name}_half2_class001_unfil.mrc")) if half1 else "")
    data = options.data or _existing(root, "_data.star")
    if not half1 and not data:
        raise InputError(f"{options.run}: neither {root.name}_half1_class001_unfil.mrc nor {root.name}_data.star is there; give the directory of a "
                         "finished refinement, or one of its two unfiltered half maps")  # fmt: skip
    optimiser, sampling = (star.single_values(root.with_name(f"{root.name}{end}")) for end in ("_optimiser.star", "_sampling.star"))
    symmetry, diameter = str(sampling.value("rlnSymmetryGroup", "")), number_in(optimiser, "rlnParticleDiameter") or 0.0
    return RunFiles("/".join(root.parts[-3:]), half1, half2, data, symmetry, diameter, bool(optimiser.value("rlnDoCorrectCtf", True)))


def _root(path: Path) -> Path:
    """The root of the run's names: of a directory, of any of its files, or the path itself."""
    if path.is_dir():
        maps = sorted(path.glob("*_half1_class001_unfil.mrc"))
        if maps:
            return path / maps[0].name.removesuffix("_half1_class001_unfil.mrc")
        try:
            return find_root(path)
        except InputError:
            raise InputError(f"{path}: no *_half1_class001_unfil.mrc and no *_model.star in this directory; the directory of a 3D auto-refine job "
                             "was expected") from None  # fmt: skip
    for end in _ENDS:
        if path.name.endswith(end):
            if not path.is_file():
                raise InputError(f"{path}: there is no such file; names are relative to {Path.cwd()}")
            return path.with_name(path.name.removesuffix(end))
    return path


def _existing(root: Path, end: str) -> str:
    path = root.with_name(f"{root.name}{end}")
    return str(path) if path.is_file() else ""


def read(options: ValidateOptions) -> Given:
    """Find and read what there is; InputError for files that are there and are wrong."""
    files = find(options)
    shared = PostprocessOptions(half1=files.half1, half2=files.half2, pixel_size=options.pixel_size, mask=options.mask)
    halves = read_half_maps(shared) if files.half1 else None
    values, by = _mask(shared, halves, files.diameter) if halves is not None else (None, "no half maps")
    if halves is not None and halves.box % 2:
        raise InputError(f"{halves.names[0]}: its box is {halves.box} pixels wide, but an even number was expected; window it with image_handler")
    symmetry = options.symmetry or files.symmetry or "C1"
    return Given(files, halves, values, by, _angles(files.data) if files.data else None, symmetry)


def refined_particles(given: Given) -> ParticleSet:
    """The refined particles with their images; InputError where the table or its stacks are not there."""
    if not given.files.data:
        raise InputError(f"there is no particle table beside {given.files.name}; give the refined particles with --data")
    return particles.load(given.files.data, need_ctf=given.files.ctf)


def first_command(given: Given) -> list[str]:
    """Words of the refinement's first command line, without the program; InputError where its files do not say."""
    path = Path(given.files.data or given.files.half1)
    words = read_facts(path.parent).command
    if not words:
        raise InputError(f"{path.parent}: no _optimiser.star there says with which command the refinement was run")
    return list(words)


def _mask(options: PostprocessOptions, halves: HalfMaps, diameter: float) -> tuple[np.ndarray, str]:
    """The mask that was given, else a sphere of the particle's diameter, else none: the mask and its name."""
    given = read_mask(options, halves)
    if given is not None:
        return given.values, given.name
    radius = diameter / 2 / halves.pixel_size
    room = halves.box / 2 - radius
    if diameter > 0 and room >= _LEAST_EDGE:
        return mask_room.soft_edge(halves.box, 3, radius, min(_EDGE, room)), f"sphere of {diameter:g} A"
    return np.ones((halves.box,) * 3, np.float32), "none"


def _angles(path: str) -> np.ndarray:
    tables = star.read(path)
    table = tables.get("particles") or next((each for each in tables.values() if not each.is_list and "rlnAngleRot" in each), None)
    if table is None or not {"rlnAngleRot", "rlnAngleTilt"} <= set(table.columns) or not table.count:
        raise InputError(f"{path}: no table of particles with rlnAngleRot and rlnAngleTilt; refined particles (_data.star) were expected")
    psi = table.columns.get("rlnAnglePsi", np.zeros(table.count))
    angles = np.stack([np.asarray(each, np.float64) for each in (table["rlnAngleRot"], table["rlnAngleTilt"], psi)], axis=1)
    bad = np.flatnonzero(~np.isfinite(angles).all(axis=1))
    if len(bad):
        raise InputError(f"{path}, row {bad[0] + 1}: the angles are {angles[bad[0]]}; finite numbers were expected, remove the row")
    return angles
