"""Particles that cannot be used are set aside, and named with the reason in `<root>_rejected.star`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aurefine import star
from aurefine.atomic import remove
from aurefine.errors import InputError
from aurefine.particles import ParticleSet
from aurefine.refine import examination, outliers
from aurefine.refine.examination import Examination
from aurefine.refine.inputs import Inputs
from aurefine.refine.options import RefineOptions
from aurefine.refine.state import State
from aurefine.star import Table

if TYPE_CHECKING:
    from aurefine.refine.image_cache import ImageCache

REASON = "aurefineRejectionReason"
MOST_REJECTED = 0.10  # share of the particles; when more are bad the file is
_NAMED = 3


def set_aside(
    particles: ParticleSet, cache: ImageCache, begin: Inputs | State, seen: Examination, options: RefineOptions, warn: Callable[[str], None]
) -> tuple[ParticleSet, Inputs | State, Table | None]:
    """Leave out what `seen` holds to be unusable: (the other particles, inputs or state of those alone, the table of what was left out).

    A continued run keeps all images that can be used at all: its first start has compared them. Particles that were set aside then are still
    in the table. Raises InputError where so many are bad that it is no accident.
    """
    continued = isinstance(begin, State)
    reasons = seen.reasons(compare=not continued)
    bad = np.flatnonzero(reasons != "")
    _refuse_many(particles, reasons, bad)
    before = _earlier(options)
    if before is not None:
        listed_in = f"; listed in {options.output}_rejected.star" if options.output else ""
        warn(f"{before.count} particles were set aside before this run was continued{listed_in}")
    for line in summary(particles, reasons, options.output) + ([] if continued else many_copies(particles, seen)):
        warn(line)
    if not len(bad):
        return particles, begin, before
    rejected = _joined([before, listed(particles, reasons)])
    kept = np.flatnonzero(reasons == "")
    cache.keep(kept)
    particles, groups = _regrouped(particles.subset(kept))
    return particles, _selected(begin, kept, groups, particles.path), rejected


def summary(particles: ParticleSet, reasons: np.ndarray, root: str, done: str = "set aside") -> list[str]:
    """One line for each kind of reason [n] ("" for good particles); `root` names the list of them, or is empty."""
    lines, bad = [], np.flatnonzero(reasons != "")
    for kind, what in examination.KINDS.items():
        rows = bad[[reason.startswith(kind) for reason in reasons[bad]]]
        if len(rows):
            lines.append(_line(particles, rows, what, root, done))
    return lines


def listed(particles: ParticleSet, reasons: np.ndarray) -> Table:
    """The rows of the particles with a reason [n], and these."""
    bad = np.flatnonzero(reasons != "")
    return particles.table.select(bad).with_columns({REASON: reasons[bad]})


def many_copies(particles: ParticleSet, seen: Examination) -> list[str]:
    """A line where so many images are there twice that they stay."""
    again = seen.duplicates()
    if again <= examination.MOST_DUPLICATES * particles.count:
        return []
    return [f"{particles.path}: {again} of {particles.count} particles have the image of an earlier row, too many to be set aside as a mistake. "
            "Unless all copies of an image are in one half-set (rlnRandomSubset), the FSC is far too good."]  # fmt: skip


def write(root: str, optics: Table, rejected: Table | None) -> None:
    """Write `<root>_rejected.star` with the optics table and all columns of the particles; without any, an old file is removed."""
    path = Path(f"{root}_rejected.star")
    if rejected is None or not rejected.count:
        remove(path)
        return
    star.write(path, [optics, rejected])


def conclude(
    state: State, particles: ParticleSet, rejected: Table | None, root: str, warn: Callable[[str], None]
) -> tuple[State, ParticleSet, Table | None]:
    """State and particles of a converged run without the outliers of its last iteration, and the rejected ones with them (None: there are none)."""
    left_out = outliers.are_marked(state.poses)
    if not left_out.any():
        return state, particles, rejected
    rows = np.flatnonzero(left_out)
    rejected = _joined([rejected, particles.table.select(rows).with_columns({REASON: np.full(len(rows), outliers.REASON, object)})])
    warn(_line(particles, rows, "hardly any signal of the map in them", root))
    kept = np.flatnonzero(~left_out)
    return replace(state, poses=state.poses.of(kept), random_subset=state.random_subset[kept]), particles.subset(kept), rejected


def _refuse_many(particles: ParticleSet, reasons: np.ndarray, bad: np.ndarray) -> None:
    if len(bad) <= MOST_REJECTED * particles.count:
        return
    listed = "; ".join(f"{_place(particles, row)}: {reasons[row]}" for row in bad[:_NAMED])
    raise InputError(
        f"{particles.path}: {len(bad)} of {particles.count} images cannot be used: {listed}{' ...' if len(bad) > _NAMED else ''}. "
        f"Up to {100 * MOST_REJECTED:.0f} % would be set aside; so many are no accident. Extract the particles again, or remove these rows."
    )


def _place(particles: ParticleSet, row: int) -> str:
    return f"row {particles.source_row[row]} ({particles.table['rlnImageName'][row]})"


def _line(particles: ParticleSet, rows: np.ndarray, what: str, root: str, done: str = "set aside") -> str:
    others = " and others" if len(rows) > 1 else ""
    listed = f"; listed in {root}_rejected.star" if root else ""
    return f"{len(rows)} of {particles.count} particles {done}: {what}, {_place(particles, rows[0])}{others}{listed}"


def _earlier(options: RefineOptions) -> Table | None:
    """What the run that is continued had set aside for good: particles that are not in its `_data.star`."""
    if not options.continue_from:
        return None
    path = Path(re.sub(r"(_it\d+)?_optimiser\.star$", "_rejected.star", options.continue_from))
    if path == Path(options.continue_from) or not path.is_file():
        return None
    table = star.read_table(path, "particles")
    for_good = table[REASON] != outliers.REASON
    return table.select(for_good) if for_good.any() else None


def _joined(tables: list[Table | None]) -> Table:
    """Rows of all tables, with the columns that all have."""
    parts = [table for table in tables if table is not None]
    labels = [label for label in parts[0].columns if all(label in part for part in parts)]
    return Table("particles", {label: np.concatenate([part[label] for part in parts]) for label in labels})


def _regrouped(particles: ParticleSet) -> tuple[ParticleSet, np.ndarray]:
    """Groups numbered as when the remaining particles are read from a file, and the old number of each."""
    numbers, first = np.unique(particles.group_index, return_index=True)
    old = numbers[np.argsort(first, kind="stable")]
    new = np.zeros(len(particles.group_names), np.int64)
    new[old] = np.arange(len(old))
    names = tuple(particles.group_names[number] for number in old)
    return replace(particles, group_names=names, group_index=new[particles.group_index]), old


def _selected(begin: Inputs | State, kept: np.ndarray, groups: np.ndarray, path: str) -> Inputs | State:
    """The same for the kept particles alone; `groups` are the old numbers of their groups."""
    subset = begin.random_subset[kept]
    for half in (1, 2):
        if not (subset == half).any():
            raise InputError(f"{path}: all particles of half-set {half} had to be set aside (rlnRandomSubset). Extract them again.")
    if isinstance(begin, Inputs):
        return replace(begin, random_subset=subset)
    halves = tuple(replace(model, group_scale=model.group_scale[groups]) for model in begin.halves)
    return replace(begin, random_subset=subset, poses=begin.poses.of(kept), halves=halves)
