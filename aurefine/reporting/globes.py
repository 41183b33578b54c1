"""Maps over the sphere of directions that a validation has made: each can be had by itself, as PNG, PDF or CSV like the curves."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aurefine.reporting.history import Number
from aurefine.reporting.plots import FORMATS

_CLIPPED = 3.0  # times that of even views: what is above is drawn alike
_KINDS = {  # table: key of its figure, column, title, unit, name of the column in the CSV file
    "directions": ("", "resolution_0143", "Resolution by direction (FSC 0.143)", "Å", "resolution_angstrom"),
    "sampling": ("scf", "times_even", "Sampling of Fourier space, SCF*", "times the mean", "times_mean"),
    "efficiency": ("efficiency", "times_even", "Width of the views' PSF, E_od", "times that of even views", "times_even"),
}


@dataclass(frozen=True)
class Globe:
    """A function of the direction: `directions` [c, 3] are unit vectors (x, y, z), of which the opposite ones have the same value [c]."""

    name: str
    title: str
    unit: str
    column: str
    directions: np.ndarray
    values: np.ndarray

    def data(self) -> dict[str, str]:
        """For the page, which shows the PNG file."""
        return {"name": self.name, "title": self.title, "unit": self.unit}


def globes(curves: Mapping[str, Mapping[str, Sequence[Number]]], shown: Mapping[str, str]) -> list[Globe]:
    """Those of a validation's tables; `shown` are the figures' values by their keys. ValueError or KeyError where a table is none."""
    found = []
    for table, (key, column, title, unit, name) in _KINDS.items():
        if column not in curves.get(table, {}) or "x" not in curves[table]:
            continue
        rows = np.array([curves[table][each] for each in ("x", "y", "z", column)], float).T  # null becomes nan
        rows = rows[np.isfinite(rows[:, :3]).all(axis=1)]
        if len(rows):
            found.append(Globe(f"validation_{table}_map", f"{title} {shown[key]}" if key in shown else title, unit, name, rows[:, :3], rows[:, 3]))
    return found


def to_files(globe: Globe, kinds: Iterable[str] = FORMATS) -> dict[str, bytes]:
    """The map as files of some kinds: PNG (200 dots per inch) and PDF in an equal-area projection, and CSV with the direction of every value."""
    files = {}
    for kind in kinds:
        files[kind] = _csv(globe) if kind == "csv" else _drawn(globe, kind)
    return files


def _drawn(globe: Globe, kind: str) -> bytes:
    from aurefine.figures import draw_globe, new_figure

    figure = new_figure(6.4, 4.2)
    axes = figure.add_axes((0.03, 0.12, 0.94, 0.78))
    if globe.unit == "Å":  # a picture of resolution would be ruled by single bad directions: that of frequency is even
        frequency = np.where(globe.values > 0, 1 / np.maximum(globe.values, 1e-6), 0.0)
        draw_globe(axes, globe.directions, frequency, globe.title, globe.unit, inverse=True)
    else:
        lowest = 0.0 if globe.column == "times_mean" else None
        draw_globe(axes, globe.directions, np.minimum(globe.values, _CLIPPED), globe.title, globe.unit, lowest)
    out = io.BytesIO()
    figure.savefig(out, format=kind, dpi=200)
    return out.getvalue()


def _csv(globe: Globe) -> bytes:
    rows = (",".join(f"{number:.6g}" if np.isfinite(number) else "" for number in (*direction, value))
            for direction, value in zip(globe.directions, globe.values, strict=True))  # fmt: skip
    return "\n".join([f"x,y,z,{globe.column}", *rows, ""]).encode()
