"""The tables that an extraction writes: CTF columns, optics groups, and all micrographs' particles joined (ALGORITHM.md 7)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aurefine import star
from aurefine.errors import InputError
from aurefine.extraction.micrographs import MicrographSet
from aurefine.extraction.options import ExtractOptions
from aurefine.extraction.refined import RefinedParticles, micrograph_pixel_size
from aurefine.optics import OpticsGroup, read_groups
from aurefine.particles import CtfTable

_QUALITY = ("rlnCtfMaxResolution", "rlnCtfFigureOfMerit")  # of the CTF's fit; only where the micrographs have them


def with_micrograph_ctf(table: star.Table, micrographs: MicrographSet, row: int) -> star.Table:
    """The particles with the CTF of their micrograph (0-based `row`) in RELION's columns; unchanged where that has no defocus."""
    source = micrographs.table
    if "rlnDefocusU" not in source:
        return table
    defocus_u = float(source["rlnDefocusU"][row])
    defaults = {
        "rlnDefocusU": defocus_u,
        "rlnDefocusV": defocus_u,
        "rlnDefocusAngle": 0.0,
        "rlnCtfBfactor": 0.0,
        "rlnCtfScalefactor": 1.0,
        "rlnPhaseShift": 0.0,
    }
    values = {label: float(source[label][row]) for label in _QUALITY if label in source}
    values |= {label: float(source[label][row]) if label in source else default for label, default in defaults.items()}
    return table.with_columns({label: np.full(table.count, value) for label, value in values.items()})


def ctf_of(table: star.Table, where: str) -> CtfTable:
    """CTF parameters of particles; InputError where there is no defocus. `where` names them in the message."""
    if "rlnDefocusU" not in table:
        raise InputError(f"{where}: there is no rlnDefocusU, which --premultiply_ctf and --phase_flip need; give micrographs with their CTF")

    def column(label: str, default: float) -> np.ndarray:
        return table[label].astype(np.float64) if label in table else np.full(table.count, default)

    defocus_u = column("rlnDefocusU", 0.0)
    defocus_v = column("rlnDefocusV", 0.0) if "rlnDefocusV" in table else defocus_u
    others = (("rlnDefocusAngle", 0.0), ("rlnCtfBfactor", 0.0), ("rlnCtfScalefactor", 1.0), ("rlnPhaseShift", 0.0))
    return CtfTable(defocus_u, defocus_v, *(column(label, default) for label, default in others))


def microscope(optics: star.Table, number: int, path: str, pixel_size: float, box: int) -> OpticsGroup:
    """One optics group as a microscope for windows of `box` pixels of `pixel_size` (Angstrom) in the micrograph."""
    group = optics.select(optics["rlnOpticsGroup"] == number)
    if group.count == 0:
        raise InputError(f"{path}: data_optics has no row for rlnOpticsGroup {number}")
    image = {"rlnImagePixelSize": np.array([pixel_size]), "rlnImageSize": np.array([box]), "rlnImageDimensionality": np.array([2])}
    return read_groups(group.with_columns(image), path, need_ctf=True)[0]


def output_optics(options: ExtractOptions, micrographs: MicrographSet, refined: RefinedParticles | None) -> star.Table:
    """`data_optics` of the extracted particles: the micrographs' groups, or the refined particles' own, with the new images.

    Groups of refined particles that the micrographs lack are left out: none of their particles can have been extracted.
    """
    if refined is None or options.keep_micrograph_ctfs:
        optics = micrographs.optics
        sizes = [micrographs.pixel_size_of(int(number)) for number in optics["rlnOpticsGroup"].tolist()]
        if refined is None:
            optics = optics.without(["rlnMicrographPixelSize"])
    else:
        optics, sizes = _refined_optics(refined, micrographs)
    scale = options.box / options.scaled_box
    images = {
        "rlnImagePixelSize": np.array(sizes) * scale,
        "rlnImageSize": np.full(optics.count, options.final_box),
        "rlnImageDimensionality": np.full(optics.count, 2),
        "rlnCtfDataAreCtfPremultiplied": np.full(optics.count, options.premultiply_ctf),
    }
    return star.Table("optics", optics.with_columns(images).columns)


def _refined_optics(refined: RefinedParticles, micrographs: MicrographSet) -> tuple[star.Table, list[float]]:
    kept, sizes = [], []
    for row in range(refined.optics.count):
        try:
            sizes.append(micrograph_pixel_size(refined, row, micrographs))
        except InputError:  # said for each micrograph whose particles belong to this group
            continue
        kept.append(row)
    return refined.optics.select(np.array(kept, dtype=np.int64)), sizes


def join(tables: Sequence[star.Table], name: str) -> star.Table:
    """All rows under each other; a column that some tables lack is filled with 0, or `None` where it holds text."""
    labels = dict.fromkeys(label for table in tables for label in table.columns)
    columns: dict[str, np.ndarray] = {}
    for label in labels:
        example = next(table[label] for table in tables if label in table)
        empty: object = "None" if example.dtype == object else example.dtype.type(0)
        parts = [table[label] if label in table else np.full(table.count, empty, dtype=example.dtype) for table in tables]
        columns[label] = np.concatenate(parts)
    return star.Table(name, columns)
