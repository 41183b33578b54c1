"""Refined particles as a source of coordinates: matched to micrographs, offsets reset or followed (ALGORITHM.md 7.2)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from aurefine import cryosparc, euler, optics, star
from aurefine.errors import InputError
from aurefine.extraction.coordinates import X, Y
from aurefine.extraction.micrographs import PIXEL_SIZES, Micrograph, MicrographSet, differ, pixel_size
from aurefine.extraction.options import ExtractOptions
from aurefine.fourier import round_half_away
from aurefine.particles import without_job_prefix

OFFSETS = ("rlnOriginXAngst", "rlnOriginYAngst")
_ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")


@dataclass(frozen=True, eq=False)
class RefinedParticles:
    """A refinement's particles: `optics` and `table` as in the file, and the rows that lie in each micrograph (by its name).

    `micrograph_group` holds, for groups whose names mean nothing in the micrographs' file (cryoSPARC's), the micrographs' own group.
    """

    path: str
    optics: star.Table
    table: star.Table
    rows: dict[str, np.ndarray]
    micrograph_group: dict[int, int] = field(default_factory=dict)


def load(options: ExtractOptions, micrographs: MicrographSet) -> tuple[RefinedParticles, list[str]]:
    """Read --reextract_data_star (or cryoSPARC's .cs) and find each particle's micrograph; warnings tell of particles without one.

    The particles' own stacks are not needed. Raises InputError for missing columns, or when no particle lies in the micrographs.
    """
    path = options.refined_particles
    tables, notes = cryosparc.read_either(path)
    name = next((name for name in ("particles", "images", "") if name in tables and X in tables[name]), None)
    if name is None:
        advice = "their places are in the job's passthrough file, which belongs beside it" if cryosparc.is_cryosparc(path) else (
            "give the _data.star or particles.star of a refinement or selection")
        raise InputError(f"{path}: no table of particles with {X}; {advice}")
    table = star.Table("particles", tables[name].columns).without([cryosparc.SIGN])  # of the former images
    groups = tables.get("optics")
    if groups is None:
        groups, table = optics.from_old_columns(table, path, None)
    optics.check_numbers(groups, path)
    _check_columns(table, path, options)
    _check_reference(groups, path, options)
    rows, warnings = _match(table, path, micrographs)
    homes = _homes(groups, table, rows, micrographs, options) if cryosparc.is_cryosparc(path) or options.keep_micrograph_ctfs else {}
    return RefinedParticles(path, groups, table, rows, homes), notes + warnings


def _homes(
    groups: star.Table, table: star.Table, rows: dict[str, np.ndarray], micrographs: MicrographSet, options: ExtractOptions
) -> dict[int, int]:
    """The optics group of the first micrograph that has particles of each of their groups; not of a STAR file's groups that the micrographs have."""
    known = set() if cryosparc.is_cryosparc(options.refined_particles) else _names(micrographs)
    named = {int(groups["rlnOpticsGroup"][row]) for row in range(groups.count) if group_name(groups, row) in known}
    homes: dict[int, int] = {}
    for micrograph in micrographs.micrographs:
        if micrograph.name in rows:
            for number in np.unique(table["rlnOpticsGroup"][rows[micrograph.name]]).tolist():
                homes.setdefault(number, micrograph.group)
    return {number: group for number, group in homes.items() if number not in named}


def _names(micrographs: MicrographSet) -> set[str]:
    return {group_name(micrographs.optics, row) for row in range(micrographs.optics.count)}


def _check_columns(table: star.Table, path: str, options: ExtractOptions) -> None:
    needed = [X, Y, "rlnMicrographName", "rlnOpticsGroup"]
    if options.recenter:
        needed += [*OFFSETS, *(_ANGLES if _centre(options).any() else ())]
    for label in needed:
        if label not in table:
            raise InputError(f"{path}: data_particles lacks {label}, which extracting again needs; give the refinement's own _data.star")
        if table[label].dtype.kind == "f":
            bad = np.flatnonzero(~np.isfinite(table[label]))
            if len(bad):
                raise InputError(f"{path}, row {bad[0] + 1}: {label} is {table[label][bad[0]]}; expected a number")


def _check_reference(groups: star.Table, path: str, options: ExtractOptions) -> None:
    """The centre is stated in pixels of the reference; with several pixel sizes it must be said which."""
    sizes = optics.pixel_sizes(groups, path)
    if options.recenter and _centre(options).any() and options.reference_pixel_size <= 0 and any(differ(sizes[0], size) for size in sizes):
        raise InputError(f"{path}: its optics groups have pixel sizes {', '.join(f'{size:g}' for size in sizes)} A; say by --ref_angpix in which "
                         "pixels --recenter_x, _y, _z are counted")  # fmt: skip


def _centre(options: ExtractOptions) -> np.ndarray:
    return np.array([options.recenter_x, options.recenter_y, options.recenter_z])


def _match(table: star.Table, path: str, micrographs: MicrographSet) -> tuple[dict[str, np.ndarray], list[str]]:
    """Rows of each micrograph, found by its name without its job's folder, or else by the end of its path."""
    short = {without_job_prefix(micrograph.name): micrograph.name for micrograph in micrographs.micrographs}
    names = table["rlnMicrographName"].tolist()
    keys = {name: without_job_prefix(name) for name in dict.fromkeys(names)}
    ends = {} if all(key in short for key in keys.values()) else _ends(short)
    home = {name: short.get(key) or ends.get(key) for name, key in keys.items()}
    lost = [name for name, found in home.items() if found is None]
    if len(lost) == len(home):
        raise InputError(f"{path}: no particle lies in a micrograph of {micrographs.path}; particles say {lost[0]}, micrographs are called "
                         f"{micrographs.micrographs[0].name}: give the micrographs that these particles come from")  # fmt: skip
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        found = home[name]
        if found is not None:
            rows.setdefault(found, []).append(row)
    warnings = []
    if lost:
        missing = set(lost)
        count = sum(name in missing for name in names)
        warnings = [f"{count} particles of {len(lost)} micrographs, such as {lost[0]}, are left out: {micrographs.path} lacks their micrographs"]
    return {name: np.array(found) for name, found in rows.items()}, warnings


def _ends(short: dict[str, str]) -> dict[str, str | None]:
    """The micrograph of each end of a path after one of its slashes; None for an end that several have."""
    ends: dict[str, str | None] = {}
    for path, name in short.items():
        for slash in re.finditer("/", path):
            end = path[slash.end() :]
            ends[end] = None if end in ends else name
    return ends


def source(options: ExtractOptions, refined: RefinedParticles, micrographs: MicrographSet) -> Callable[[Micrograph], star.Table | None]:
    """A function that gives a micrograph's particles with their new coordinates and offsets; None where there are none."""

    def particles(micrograph: Micrograph) -> star.Table | None:
        if micrograph.name not in refined.rows:
            return None
        table = refined.table.select(refined.rows[micrograph.name])
        particle_pixel, micrograph_pixel = _pixel_sizes(refined, table, micrographs, micrograph)
        table = moved(table, particle_pixel, micrograph_pixel, options)
        if options.bias_x or options.bias_y:
            table = table.with_columns({X: table[X] + options.bias_x, Y: table[Y] + options.bias_y})
        return table

    return particles


def _pixel_sizes(
    refined: RefinedParticles, table: star.Table, micrographs: MicrographSet, micrograph: Micrograph
) -> tuple[np.ndarray, np.ndarray]:
    """Angstrom per pixel of each particle's image and of its micrograph; InputError for a missing group or sizes that contradict."""
    numbers = refined.optics["rlnOpticsGroup"].tolist()
    sizes = optics.pixel_sizes(refined.optics, refined.path)
    of_group: dict[int, tuple[float, float]] = {}
    for number in np.unique(table["rlnOpticsGroup"]).tolist():
        if number not in numbers:
            raise InputError(f"{refined.path}: particles of {micrograph.name} have rlnOpticsGroup {number}, which data_optics lacks")
        row = numbers.index(number)
        size = micrograph_pixel_size(refined, row, micrographs)
        own = micrographs.pixel_size_of(micrograph.group)
        if differ(size, own):
            raise InputError(f"{micrograph.name}: its pixel size is {own:g} A in {micrographs.path}, but {size:g} A for the optics group of its "
                             f"particles (rlnOpticsGroup {number} of {refined.path})")  # fmt: skip
        of_group[number] = (float(sizes[row]), size)
    values = np.array([of_group[number] for number in table["rlnOpticsGroup"].tolist()])
    return values[:, 0], values[:, 1]


def micrograph_pixel_size(refined: RefinedParticles, row: int, micrographs: MicrographSet) -> float:
    """Pixel size of the micrographs of one of the particles' optics groups, found by the group's name, or else by where its particles lie.

    InputError where the micrographs lack that group, or where both files state a micrograph pixel size and differ: the coordinates
    would then be counted in other pixels.
    """
    groups, path = refined.optics, refined.path
    number = int(groups["rlnOpticsGroup"][row])
    if number in refined.micrograph_group:
        return micrographs.pixel_size_of(refined.micrograph_group[number])
    name = group_name(groups, row)
    names = [group_name(micrographs.optics, other) for other in range(micrographs.optics.count)]
    if name not in names:
        raise InputError(f"{micrographs.path}: there is no optics group '{name}', to which particles of {path} belong; it has {', '.join(names)}")
    other = names.index(name)
    for label in PIXEL_SIZES:
        if label in groups and label in micrographs.optics and differ(float(groups[label][row]), float(micrographs.optics[label][other])):
            raise InputError(f"optics group '{name}': {label} is {float(groups[label][row]):g} A in {path}, but "
                             f"{float(micrographs.optics[label][other]):g} A in {micrographs.path}; coordinates in the one are not those in "
                             "the other: give the micrographs that the particles were picked in, or correct the number")  # fmt: skip
    return pixel_size(micrographs.optics, other, micrographs.path)


def group_name(groups: star.Table, row: int) -> str:
    """Name of an optics group; RELION's own where the table has none."""
    return str(groups["rlnOpticsGroupName"][row]) if "rlnOpticsGroupName" in groups else f"opticsGroup{int(groups['rlnOpticsGroup'][row])}"


def moved(table: star.Table, particle_pixel: np.ndarray, micrograph_pixel: np.ndarray, options: ExtractOptions) -> star.Table:
    """The particles with coordinates (pixels of the micrograph) and offsets (Angstrom) as the options ask (ALGORITHM.md 7.2).

    Re-centring moves coordinates by whole pixels to where the refined offsets, and the projected point `recenter_x, _y, _z`, say the
    centre is; the rest stays as the offset. Pixel sizes are arrays [n] in Angstrom.
    """
    if options.reset_offsets:
        return table.with_columns({label: np.zeros(table.count) for label in OFFSETS})
    if not options.recenter:
        return table
    offsets = np.stack([table[label] for label in OFFSETS], axis=1) / particle_pixel[:, None]  # pixels of the particle
    centre = _centre(options)
    if centre.any():
        rotations = euler.to_matrix(np.stack([table[label] for label in _ANGLES], axis=1))
        scale = options.reference_pixel_size / particle_pixel if options.reference_pixel_size > 0 else np.ones(table.count)
        offsets = offsets - (rotations @ centre)[:, :2] * scale[:, None]
    offsets = offsets * (particle_pixel / micrograph_pixel)[:, None]
    whole = round_half_away(offsets)
    rest = (offsets - whole) * micrograph_pixel[:, None]
    return table.with_columns({X: table[X] - whole[:, 0], Y: table[Y] - whole[:, 1], OFFSETS[0]: rest[:, 0], OFFSETS[1]: rest[:, 1]})
