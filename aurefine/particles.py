"""A set of particles: poses, CTF, groups and images, read from and written to RELION's `_data.star` (ALGORITHM.md 1.6, 2.1, 6.7)."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from aurefine import cryosparc, star
from aurefine import optics as optics_room
from aurefine.errors import InputError
from aurefine.image_source import ImageSource, normalisation_warning, open_images, split_name
from aurefine.optics import OpticsGroup
from aurefine.particle_checks import Columns, check_boxes, pixel_size_warnings

__all__ = ["SIGNAL_FIT", "CtfTable", "ImageSource", "OpticsGroup", "ParticleSet", "load", "normalisation_warning", "without_job_prefix"]

_JOB_PREFIX = re.compile(r"^(?:.*/)?[A-Za-z0-9_]+/job\d{3,}/")  # MotionCorr/job002/ and the like
SIGNAL_FIT = "aurefineSignalFit"  # column of the strength of the map's projection in each image
_SUBSET_ADVICE = "remove the column to get new random half-sets, or give every particle 1 or 2"


class PosesLike(Protocol):
    """The per-particle results that are written: see `refine.state.Poses`."""

    angles: np.ndarray
    offsets: np.ndarray
    norm: np.ndarray
    pmax: np.ndarray
    log_likelihood: np.ndarray
    significant: np.ndarray
    class_number: np.ndarray
    signal_fit: np.ndarray


@dataclass(frozen=True)
class CtfTable:
    """CTF parameters of each particle, arrays [n]: defocus in Angstrom, angles and phase shift in degrees, B-factor in Angstrom^2."""

    defocus_u: np.ndarray
    defocus_v: np.ndarray
    defocus_angle: np.ndarray
    bfactor: np.ndarray
    scale: np.ndarray
    phase_shift: np.ndarray

    def select(self, rows: np.ndarray) -> CtfTable:
        """Some particles' parameters, by mask or index array."""
        return CtfTable(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True)
class ParticleSet:
    """Particles in the order of their micrographs' names; see docs/architecture.md for the fields."""

    path: str
    table: star.Table
    optics_table: star.Table
    optics: tuple[OpticsGroup, ...]
    optics_index: np.ndarray  # [n] 0-based
    group_names: tuple[str, ...]
    group_index: np.ndarray  # [n] 0-based
    angles: np.ndarray  # [n, 3] rot, tilt, psi in degrees
    offsets: np.ndarray  # [n, 2] Angstrom
    defocus: CtfTable
    random_subset: np.ndarray  # [n] 1 or 2; 0 throughout where the file does not say
    norm: np.ndarray  # [n]
    class_number: np.ndarray  # [n]
    source_row: np.ndarray  # [n] 1-based row of the file that was read
    images: ImageSource
    reconstruct_images: ImageSource | None = None  # of rlnReconstructImageName
    warnings: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Number of particles."""
        return len(self.source_row)

    def read_images(self, indices: np.ndarray, for_reconstruction: bool = False) -> np.ndarray:
        """Images as float32 [k, box, box] in the order asked for, of optics groups with one box size.

        `for_reconstruction` takes those of rlnReconstructImageName where the file has them. InputError when a stack cannot be read.
        """
        source = self.reconstruct_images if for_reconstruction and self.reconstruct_images is not None else self.images
        return source.read(indices)

    def subset(self, rows: np.ndarray) -> ParticleSet:
        """Some particles, by mask or index array. Groups and optics groups keep their numbers, even when left without a particle."""
        arrays = ("optics_index", "group_index", "angles", "offsets", "random_subset", "norm", "class_number", "source_row")
        return replace(
            self,
            table=self.table.select(rows),
            defocus=self.defocus.select(rows),
            images=self.images.select(rows),
            reconstruct_images=None if self.reconstruct_images is None else self.reconstruct_images.select(rows),
            **{name: getattr(self, name)[rows] for name in arrays},
        )

    def write(self, path: str | Path, poses: PosesLike, random_subset: np.ndarray, scored: bool = True) -> None:
        """Write `data_optics` and `data_particles` atomically: the input's columns in their order, with the results put in place.

        `scored=False` leaves out what only an expectation step knows, as RELION does before the first iteration.
        """
        columns = {
            "rlnGroupNumber": self.group_index + 1,
            "rlnAngleRot": poses.angles[:, 0],
            "rlnAngleTilt": poses.angles[:, 1],
            "rlnAnglePsi": poses.angles[:, 2],
            "rlnOriginXAngst": poses.offsets[:, 0],
            "rlnOriginYAngst": poses.offsets[:, 1],
            "rlnClassNumber": poses.class_number,
            "rlnNormCorrection": poses.norm,
            "rlnRandomSubset": random_subset,
        }
        if scored:
            columns["rlnLogLikeliContribution"] = poses.log_likelihood
            columns["rlnMaxValueProbDistribution"] = poses.pmax
            columns["rlnNrOfSignificantSamples"] = poses.significant
            if poses.signal_fit.any():  # RELION's runs do not know it
                columns[SIGNAL_FIT] = poses.signal_fit
        star.write(path, [self.optics_table, self.table.with_columns(columns)])


def load(path: str | Path, need_ctf: bool = True) -> ParticleSet:
    """Read a particle STAR file of RELION 3.0 to 5, or a .cs file of cryoSPARC, and check it against its image stacks.

    Rows are stably sorted by micrograph name; missing columns get RELION's defaults; older files are converted (ALGORITHM.md 2.1).
    Raises InputError, naming the file, the row and the field, for anything that would end or spoil a refinement later.
    """
    optics, table, source_row, notes = _sorted_tables(str(path))
    images = open_images(table["rlnImageName"], path, "rlnImageName", source_row)
    table = _with_names_from_here(table, images)
    if cryosparc.SIGN in table:
        images = replace(images, sign=table[cryosparc.SIGN].astype(float))
    if optics is None:
        header = images.stacks[images.stack_index[0]].header
        optics, table = optics_room.from_old_columns(table, str(path), header.pixel_size if header.states_pixel_size else None)
    reader = Columns(str(path), table, source_row)
    optics_index = _optics_index(optics, reader)
    optics = _as_written(_with_box_sizes(optics, optics_index, images))
    groups = optics_room.read_groups(optics, str(path), need_ctf)
    check_boxes(groups, optics_index, images, reader)
    group_names, group_index = _groups(table)
    return ParticleSet(
        path=str(path),
        table=table,
        optics_table=optics,
        optics=groups,
        optics_index=optics_index,
        group_names=group_names,
        group_index=group_index,
        angles=np.stack([reader.floats(f"rlnAngle{axis}") for axis in ("Rot", "Tilt", "Psi")], axis=1),
        offsets=_offsets(reader, np.array([group.pixel_size for group in groups])[optics_index]),
        defocus=_ctf_table(reader, need_ctf and not all(group.ctf_corrected for group in groups)),
        random_subset=_random_subset(reader),
        norm=_norm(reader),
        class_number=reader.integers("rlnClassNumber"),
        source_row=source_row,
        images=images,
        reconstruct_images=_reconstruct_images(groups, optics_index, reader),
        warnings=(*pixel_size_warnings(groups, optics_index, images, str(path)), *notes),
    )


def _with_names_from_here(table: star.Table, images: ImageSource) -> star.Table:
    """Image names that lead from the current folder, as RELION expects of what is written, also where the images lie beside the STAR file."""
    names = table["rlnImageName"]
    given = [split_name(str(names[place]))[1] for place in np.unique(images.stack_index, return_index=True)[1]]
    if all(Path(file) == Path(stack.path) for file, stack in zip(given, images.stacks, strict=True)):
        return table
    here = Path.cwd()
    files = [str(path.relative_to(here) if path.is_relative_to(here) else path) for path in (Path(stack.path).absolute() for stack in images.stacks)]
    places = zip(images.image_index.tolist(), images.stack_index.tolist(), strict=True)
    return table.with_columns({"rlnImageName": np.array([f"{image + 1:06d}@{files[stack]}" for image, stack in places], dtype=object)})


def without_job_prefix(name: str) -> str:
    """A micrograph's name without the job's folder that it lies in: `Movies/a.mrc` of `MotionCorr/job002/Movies/a.mrc`."""
    return _JOB_PREFIX.sub("", name) or name


def _sorted_tables(path: str) -> tuple[star.Table | None, star.Table, np.ndarray, list[str]]:
    """Optics table (None in files before 3.1), particles sorted by micrograph name, their rows in the file, and notes."""
    tables, notes = cryosparc.read_either(path)
    name = next((name for name in ("particles", "images", "") if name in tables and "rlnImageName" in tables[name]), None)
    if name is None:
        blocks = ", ".join(f"data_{found}" for found in tables)
        raise InputError(f"{path}: no table of particles (data_particles with rlnImageName), only {blocks}; give the particles' STAR file")
    table = star.Table("particles", tables[name].columns)
    if table.count == 0:
        raise InputError(f"{path}: data_{name} has no particle; was the selection that made this file empty?")
    order = np.arange(table.count)
    if "rlnMicrographName" in table:
        micrograph = _numbered(table["rlnMicrographName"], sort=True)[1]
        order = np.argsort(micrograph, kind="stable")
    return tables.get("optics"), table.select(order), order + 1, notes


def _numbered(names: np.ndarray, sort: bool = False) -> tuple[tuple[str, ...], np.ndarray]:
    """Distinct names, in order of first appearance or sorted, and the number of each entry."""
    values = names.tolist()
    distinct = dict.fromkeys(values)
    ordered = tuple(sorted(distinct, key=lambda name: name.encode("utf-8", "surrogateescape")) if sort else distinct)
    number = {name: place for place, name in enumerate(ordered)}
    return ordered, np.fromiter(map(number.__getitem__, values), np.int64, len(values))


def _groups(table: star.Table) -> tuple[tuple[str, ...], np.ndarray]:
    """Grey-scale groups: rlnGroupName, else the micrograph's name without its job folder, else one group for all."""
    if "rlnGroupName" in table:
        return _numbered(table["rlnGroupName"])
    if "rlnMicrographName" not in table:
        return ("group_1",), np.zeros(table.count, dtype=np.int64)
    names, index = _numbered(table["rlnMicrographName"])
    short = np.array([without_job_prefix(name) for name in names], dtype=object)
    merged, regrouped = _numbered(short)
    return merged, regrouped[index]


def _optics_index(optics: star.Table, reader: Columns) -> np.ndarray:
    optics_room.check_numbers(optics, reader.path)
    numbers = optics["rlnOpticsGroup"]
    if "rlnOpticsGroup" not in reader.table:
        raise InputError(f"{reader.path}: data_particles lacks rlnOpticsGroup; add the number of each particle's row in data_optics")
    wanted = reader.table["rlnOpticsGroup"]
    reader.refuse(~np.isin(wanted, numbers), "rlnOpticsGroup", f"data_optics has only {sorted(numbers.tolist())}")
    order = np.argsort(numbers)
    return order[np.searchsorted(numbers[order], wanted)]


def _with_box_sizes(optics: star.Table, optics_index: np.ndarray, images: ImageSource) -> star.Table:
    """Adds rlnImageSize (and the dimensionality) from the stacks where the file does not state it."""
    if "rlnImageSize" in optics:
        return optics
    widths = np.array([stack.width for stack in images.stacks])[images.stack_index]
    boxes = np.full(optics.count, widths[0])
    boxes[optics_index[::-1]] = widths[::-1]  # the first particle of each group is written last
    return optics.with_columns({"rlnImageSize": boxes, "rlnImageDimensionality": np.full(optics.count, 2)})


def _as_written(optics: star.Table) -> star.Table:
    """A resumed run reads what the first one has written: numbers with more digits than that are rounded now, so that both see the same."""
    return optics.with_columns({label: star.as_written(column) for label, column in optics.columns.items() if column.dtype.kind == "f"})


def _offsets(reader: Columns, pixel_size: np.ndarray) -> np.ndarray:
    """Origins in Angstrom [n, 2]; converters for other programs sometimes leave only those in pixels."""
    in_pixels = "rlnOriginXAngst" not in reader.table and "rlnOriginX" in reader.table
    origins = np.stack([reader.floats(f"rlnOrigin{axis}{'' if in_pixels else 'Angst'}") for axis in "XY"], axis=1)
    return origins * pixel_size[:, None] if in_pixels else origins


def _ctf_table(reader: Columns, need_ctf: bool) -> CtfTable:
    if need_ctf and "rlnDefocusU" not in reader.table:
        raise InputError(f"{reader.path}: data_particles lacks rlnDefocusU, which CTF correction needs; estimate the CTF first")

    def column(label: str, default: float = 0.0) -> np.ndarray:
        return star.as_written(reader.floats(label, default))  # as for data_optics

    defocus_u = column("rlnDefocusU")
    if need_ctf and not defocus_u.any():
        raise InputError(f"{reader.path}: rlnDefocusU is 0 in every row, which is no CTF; estimate the CTF first, or refine without --ctf")
    return CtfTable(
        defocus_u=defocus_u,
        defocus_v=column("rlnDefocusV") if "rlnDefocusV" in reader.table else defocus_u.copy(),
        defocus_angle=column("rlnDefocusAngle"),
        bfactor=column("rlnCtfBfactor"),
        scale=column("rlnCtfScalefactor", 1.0),
        phase_shift=column("rlnPhaseShift"),
    )


def _random_subset(reader: Columns) -> np.ndarray:
    subset = reader.integers("rlnRandomSubset")
    if "rlnRandomSubset" in reader.table:
        reader.refuse(~np.isin(subset, (0, 1, 2)), "rlnRandomSubset", f"expected 1 or 2; {_SUBSET_ADVICE}")
        if subset.any():
            reader.refuse(subset == 0, "rlnRandomSubset", f"other particles have 1 or 2; {_SUBSET_ADVICE}")
    return subset


def _norm(reader: Columns) -> np.ndarray:
    norm = reader.floats("rlnNormCorrection", 1.0)
    if "rlnNormCorrection" in reader.table:
        reader.refuse(norm <= 0, "rlnNormCorrection", "expected a positive number; remove the column to start from 1")
    return norm


def _reconstruct_images(groups: tuple[optics_room.OpticsGroup, ...], optics_index: np.ndarray, reader: Columns) -> ImageSource | None:
    label = "rlnReconstructImageName"
    if label not in reader.table:
        return None
    images = open_images(reader.table[label], reader.path, label, reader.source_row)
    check_boxes(groups, optics_index, images, reader)
    return images
