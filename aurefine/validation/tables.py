"""What a validation writes besides pictures: STAR tables, JSON, the printed table."""

from __future__ import annotations

import json
import os
import textwrap
from pathlib import Path

import numpy as np

from aurefine import __version__, star
from aurefine.atomic import write_bytes
from aurefine.validation.result import Validation

_MARKS = {"good": "ok", "warning": "look", "poor": "POOR", "info": "", "missing": "-"}
_WIDTH = 74  # of the words in the printed table


def write_star(path: Path, found: Validation, command_line: str) -> None:
    """`validation.star`: a table of the figures, and one a curve."""
    columns = ("valMeasure", "valLabel", "valValue", "valUnit", "valVerdict", "valText", "valSource")
    values = ["not_computed" if each.value is None else f"{each.value:.6g}" for each in found.measures]
    rows = [(each.key, each.label, value, each.unit or "none", each.verdict, each.text, each.source)
            for each, value in zip(found.measures, values, strict=True)]  # fmt: skip
    tables = [star.Table.from_rows("validation", columns, rows)]
    for name, curve in found.curves.items():
        texts = {f"val{_camel(column)}": np.array([f"{value:.6g}" for value in values], object) for column, values in curve.items()}
        tables.append(star.Table(f"validation_{name}", texts))
    star.write(path, tables, comments=[f"aurefine validate; version {__version__}", f"{command_line} "])


def _camel(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def write_json(path: Path, found: Validation, measured: str) -> None:
    """`validation.json`: the same for programs; what is not finite is null. `measured` is the half map or particle table; its place is kept
    as seen from the file's folder, by which a report of the run finds it.
    """
    measures = [{"key": each.key, "label": each.label, "value": _plain(each.value), "unit": each.unit, "verdict": each.verdict, "text": each.text,
                 "source": each.source, "shown": each.shown()} for each in found.measures]  # fmt: skip
    curves = {name: {column: [_plain(value) for value in values] for column, values in curve.items()} for name, curve in found.curves.items()}
    data = {"program": f"aurefine {__version__}", "measured": os.path.relpath(measured, path.parent), "notes": found.notes,
            "measures": measures, "curves": curves}  # fmt: skip
    write_bytes(path, json.dumps(data, indent=1, allow_nan=False).encode())


def _plain(value: float | None) -> float | None:
    return float(f"{float(value):.6g}") if value is not None and np.isfinite(value) else None


def printed(found: Validation) -> list[str]:
    """Lines of the table that the command line shows."""
    lines = [f" {name}: {text}" for name, text in found.notes.items()]
    lines += ["", f" {'measure':<30}{'value':>14}  {'':<6}what it says"]
    for each in found.measures:
        words = textwrap.wrap(each.text, _WIDTH) or [""]
        lines.append(f" {each.label:<30}{each.shown():>14}  {_MARKS[each.verdict]:<6}{words[0]}")
        lines += [f" {'':<52}{word}" for word in words[1:]]
    return lines
