"""Joining STAR files: optics groups by name, columns that all files have (what `relion_star_handler --combine` does)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from aurefine.errors import InputError
from aurefine.star import Table
from aurefine.star_document import Document

_OPTICS_DEFAULTS: dict[str, object] = {  # what a file that does not speak of them means
    "rlnBeamTiltX": 0.0, "rlnBeamTiltY": 0.0,
    "rlnOddZernike": "[0,0,0,0,0,0]", "rlnEvenZernike": "[0,0,0,0,0,0,0,0,0]",
    "rlnMagMat00": 1.0, "rlnMagMat01": 0.0, "rlnMagMat10": 0.0, "rlnMagMat11": 1.0,
    "rlnCtfDataAreCtfPremultiplied": False,
}  # fmt: skip
_TOGETHER = (("rlnBeamTiltX", "rlnBeamTiltY"), ("rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11"))


def combine(documents: Sequence[Document], ignore_optics: bool = False) -> tuple[Document, list[str]]:
    """One document of all rows, and notes on what was left out or joined.

    Optics groups of one name become one, numbered anew; columns that are not in every file are left out, and so is rlnGroupNumber
    (numbers of different files mean different groups). With `ignore_optics` the rows stay as they are, and their optics table is kept
    only where all files have the same one. Raises InputError where groups of one name contradict each other, or where files of
    different kinds, or optics tables alone, are joined.
    """
    _same_kind(documents, ignore_optics)
    notes: list[str] = []
    tables: dict[str, Table] = {}
    numbers: list[np.ndarray] = []
    if ignore_optics:
        tables = _common_optics(documents, notes)
    elif documents[0].optics is not None:
        tables["optics"], numbers = _combine_optics(documents, notes)
    parts = [_prepared(document, numbers[place] if numbers else None, place == 0) for place, document in enumerate(documents)]
    name = documents[0].main
    tables[name] = _append(parts, [document.path for document in documents], name, notes)
    return Document(documents[0].path, tables, name), notes


def repeated(column: np.ndarray) -> list[str]:
    """Texts that occur more than once, in order of first appearance."""
    return [text for text, times in Counter(column.tolist()).items() if times > 1]


def _same_kind(documents: Sequence[Document], ignore_optics: bool) -> None:
    first = documents[0]
    if first.main == "optics":
        raise InputError(f"{first.path}: optics groups are joined together with the particles that they number: leave out --i_tablename optics")
    for other in documents[1:]:
        if other.main != first.main:
            raise InputError(f"{other.path} is about data_{other.main}, {first.path} about data_{first.main}: join files of one kind")
        if (other.optics is None) != (first.optics is None) and not ignore_optics:
            without = other if other.optics is None else first
            raise InputError(f"{without.path} has no optics groups, the others do; use --ignore_optics to join the tables as they are")


def _common_optics(documents: Sequence[Document], notes: list[str]) -> dict[str, Table]:
    """The optics table that all files have; none, with a note, where a number may mean another group in another file."""
    groups = [document.optics for document in documents]
    first = groups[0]
    if first is not None and all(other is not None and _same_table(first, other) for other in groups[1:]):
        return {"optics": first}
    if any(other is not None for other in groups):
        notes.append("data_optics is left out: the files have different ones, and --ignore_optics leaves the numbers of their groups as they are")
    return {}


def _same_table(one: Table, other: Table) -> bool:
    return one.columns.keys() == other.columns.keys() and all(one[label].tolist() == other[label].tolist() for label in one.columns)


def _filled(documents: Sequence[Document]) -> list[Table]:
    """Optics tables, with defaults for aberrations that only some files have."""
    groups = [document.optics for document in documents if document.optics is not None]
    used = {label for table in groups for label in table.columns} & _OPTICS_DEFAULTS.keys()
    used |= {label for together in _TOGETHER if used & set(together) for label in together}
    missing = [[label for label in _OPTICS_DEFAULTS if label in used and label not in table] for table in groups]
    return [table.with_columns({label: _constant(_OPTICS_DEFAULTS[label], table.count) for label in labels})
            for table, labels in zip(groups, missing, strict=True)]  # fmt: skip


def _constant(value: object, count: int) -> np.ndarray:
    return np.full(count, value, dtype=object if isinstance(value, str) else None)


def _combine_optics(documents: Sequence[Document], notes: list[str]) -> tuple[Table, list[np.ndarray]]:
    """The joint optics table, and for each document the new number of each of its groups."""
    tables = _filled(documents)
    paths = [document.path for document in documents]
    joint = _append(tables, paths, "optics", notes)
    starts = np.cumsum([0, *(table.count for table in tables)])
    kept: dict[str, int] = {}  # name -> row of the joint table that stands for it
    number: dict[str, int] = {}
    new = np.empty(joint.count, dtype=np.int64)
    for row, name in enumerate(_group_names(joint)):
        if name in kept:
            _refuse_conflict(joint, kept[name], row, name, [paths[np.searchsorted(starts, r, side="right") - 1] for r in (kept[name], row)])
        else:
            kept[name] = row
        new[row] = number.setdefault(name, len(number) + 1)
    if len(kept) < joint.count:
        notes.append(f"optics groups of the same name were joined: {', '.join(repeated(np.array(_group_names(joint), dtype=object)))}")
    rows = np.array(list(kept.values()), dtype=np.int64)
    groups = joint.select(rows).with_columns({"rlnOpticsGroup": np.arange(1, len(rows) + 1)})
    return groups, [new[start:stop] for start, stop in zip(starts[:-1], starts[1:], strict=True)]


def _group_names(optics: Table) -> list[str]:
    if "rlnOpticsGroupName" not in optics:
        raise InputError("the optics groups have no rlnOpticsGroupName in every file; groups are joined by name")
    return [str(name) for name in optics["rlnOpticsGroupName"].tolist()]


def _refuse_conflict(optics: Table, first: int, second: int, name: str, paths: list[str]) -> None:
    for label, column in optics.columns.items():
        if label == "rlnOpticsGroup":
            continue
        one, other = column[first], column[second]
        same = np.isclose(one, other, rtol=1e-5, atol=1e-9, equal_nan=True) if column.dtype.kind == "f" else one == other
        if not same:
            raise InputError(
                f"optics group '{name}': {label} is {one} in {paths[0]} but {other} in {paths[1]}; give one of the groups another "
                f"rlnOpticsGroupName, or make the values equal (--i_tablename optics --operate {label} --set_to VALUE)"
            )


def _prepared(document: Document, numbers: np.ndarray | None, is_first: bool) -> Table:
    """Rows with the new optics groups; group names of all files but the first are marked with their optics group, as RELION does."""
    rows = document.rows.without(["rlnGroupNumber"]) if numbers is not None else document.rows
    if numbers is None or document.optics is None:
        return rows
    if "rlnOpticsGroup" not in rows:
        raise InputError(f"{document.path}: data_{document.main} has no rlnOpticsGroup; each row needs its optics group's number")
    group = rows["rlnOpticsGroup"]
    outside = (group < 1) | (group > len(numbers))
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        raise InputError(f"{document.path}, row {row + 1}: rlnOpticsGroup is {group[row]}; data_optics has {len(numbers)} groups")
    new = numbers[group - 1]
    columns: dict[str, np.ndarray] = {"rlnOpticsGroup": new}
    if "rlnGroupName" in rows and not is_first:
        named = [f"optics{number}_{name}" for number, name in zip(new.tolist(), rows["rlnGroupName"].tolist(), strict=True)]
        columns["rlnGroupName"] = np.array(named, dtype=object)
    return rows.with_columns(columns)


def _append(tables: Sequence[Table], paths: Sequence[str], name: str, notes: list[str]) -> Table:
    """Rows of all tables, with the columns that every one has."""
    labels = [label for label in tables[0].columns if all(label in table for table in tables)]
    for path, table in zip(paths, tables, strict=True):
        dropped = [label for label in table.columns if label not in labels]
        if dropped:
            notes.append(f"left out of {path}, because not every file has them: {', '.join(dropped)}")
    if not labels:
        raise InputError(f"{' and '.join(paths)} have no column of data_{name} in common")
    return Table(name, {label: np.concatenate([table[label] for table in tables]) for label in labels})
