"""Do the pixel sizes of particles and micrographs go together?"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aurefine import mrc
from aurefine.errors import InputError
from aurefine.optics import OpticsGroup
from aurefine.particles import ParticleSet

_SAME, _CALIBRATED = 0.002, 0.1  # relative differences: rounding; another calibration
_MICROGRAPH = ("rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize")


def check(particles: ParticleSet) -> list[str]:
    """Warnings about optics groups whose images are finer than their micrographs, or whose pixel sizes contradict each other."""
    warnings = []
    for row, group in enumerate(particles.optics):
        known = _stated(particles, row)
        for label, size in known.items():
            warnings += _compare(particles.path, group, label, size)
        micrograph = _header(particles, row)
        size = next((known[label] for label in _MICROGRAPH if label in known), 0.0)
        if micrograph and size > 0 and abs(np.log(micrograph[1] / size)) > 5 * _SAME:
            warnings.append(f"{particles.path}: the micrographs of optics group {group.number} have {size:g} A per pixel, but {micrograph[0]} says "
                            f"{micrograph[1]:g}: which is the calibrated one? A wrong pixel size spoils CTF and resolution.")  # fmt: skip
    return warnings


def _stated(particles: ParticleSet, row: int) -> dict[str, float]:
    """The micrographs' pixel sizes (Angstrom) that the tables state for an optics group, by label."""
    optics, table = particles.optics_table, particles.table
    known = {label: float(optics[label][row]) for label in _MICROGRAPH if label in optics}
    for source in (optics, table):
        if "rlnDetectorPixelSize" in source and "rlnMagnification" in source:
            place = row if source is optics else _first(particles, row)
            if place is not None and float(source["rlnMagnification"][place]) > 0:
                micrometres = float(source["rlnDetectorPixelSize"][place])
                known["rlnDetectorPixelSize/rlnMagnification"] = 1e4 * micrometres / float(source["rlnMagnification"][place])
    return {label: size for label, size in known.items() if np.isfinite(size) and size > 0}


def _first(particles: ParticleSet, row: int) -> int | None:
    rows = np.flatnonzero(particles.optics_index == row)
    return int(rows[0]) if len(rows) else None


def _compare(path: str, group: OpticsGroup, label: str, size: float) -> list[str]:
    """Images are as fine as their micrograph, or binned; nearly as fine is a calibration that reached one of the two."""
    difference = np.log(group.pixel_size / size)
    if abs(difference) < _SAME or difference > _CALIBRATED:
        return []
    said = f"{path}: optics group {group.number} has {group.pixel_size:g} A per pixel, its micrographs {size:g} ({label})"
    if difference < -_CALIBRATED:
        return [f"{said}: particle images cannot be finer than their micrographs, unless they were enlarged. Is rlnImagePixelSize right?"]
    return [f"{said}: they differ by {100 * abs(difference):.1f} %. Use the calibrated value in both places; a wrong one spoils CTF and resolution."]


def _header(particles: ParticleSet, row: int) -> tuple[str, float] | None:
    """Name and pixel size of the first micrograph of an optics group, where its file is there and says one."""
    first = _first(particles, row)
    if first is None or "rlnMicrographName" not in particles.table:
        return None
    name = str(particles.table["rlnMicrographName"][first])
    if not name.endswith((".mrc", ".mrcs")) or not Path(name).is_file():
        return None
    try:
        header = mrc.read_header(name)
    except InputError:
        return None  # not an MRC file: it tells nothing here, and no refinement reads it
    return (name, header.pixel_size) if header.states_pixel_size and abs(header.pixel_size - 1) > 1e-4 else None  # 1: many programs' blank
