"""A validation's table and curves, from its `validation.json`; and the histogram of a map of local resolutions."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aurefine import mrc
from aurefine.colours import BLUE, GREEN, GREY, ORANGE, PINK
from aurefine.errors import InputError
from aurefine.regular_files import text_of
from aurefine.reporting.globes import Globe, globes
from aurefine.reporting.history import Number
from aurefine.reporting.plots import Plot, Series
from aurefine.reporting.related import VALIDATION as FILE

WORDS = {"good": "ok", "warning": "look", "poor": "POOR", "info": "", "missing": ""}
_FILES = ("validation.pdf", "validation.png", "validation.star", FILE, "3dfsc.mrc", "model_fitted.cif")
_LARGEST = 50_000_000  # bytes; a validation writes less than two million
_BINS = 50
_COARSEST = 1e6  # Angstrom
Curve = Mapping[str, Sequence[Number]]


@dataclass(frozen=True)
class Row:
    """One line of the table: label, value, verdict (good, warning, poor, info, missing), what it says, and where the measure comes from."""

    label: str
    value: str
    verdict: str
    text: str
    source: str
    key: str = ""

    @property
    def word(self) -> str:
        """The verdict as the page shows it."""
        return WORDS.get(self.verdict, "")


@dataclass(frozen=True)
class ValidationFound:
    """What one validation found; `files` are those that are there."""

    folder: Path
    notes: dict[str, str]
    rows: list[Row]
    plots: list[Plot]
    globes: list[Globe]
    files: list[Path]

    @property
    def drawn(self) -> list[Plot | Globe]:
        """All that can be had as files of their own."""
        return [*self.plots, *self.globes]


def read_validation(path: Path) -> ValidationFound:
    """What a `validation.json` holds; InputError where it is none."""
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"{path.stat().st_size} bytes")
        data = json.loads(text_of(path))
        rows = [_row(each) for each in data["measures"]]
        plots = _plots(data["curves"])
        over_sphere = globes(data["curves"], {row.key: row.value for row in rows})
        notes = {str(name): _with_angstrom(str(text)) for name, text in data["notes"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise InputError(f"{path}: not the validation.json of `aurefine validate` ({error})") from error
    files = [each for name in _FILES if (each := path.with_name(name)).is_file()]
    return ValidationFound(path.parent, notes, rows, plots, over_sphere, files)


def _row(each: Mapping[str, object]) -> Row:
    shown, text = (_with_angstrom(str(each[name])) for name in ("shown", "text"))
    return Row(str(each["label"]), shown, str(each["verdict"]), text, str(each["source"]), str(each.get("key", "")))


def _with_angstrom(text: str) -> str:
    """Terminals get plain letters, pages the field's own."""
    return re.sub(r"(?<=[\d/] )A(?=\b)|(?<=/)A\b", "Å", text.replace(" A^2", " Å²"))


_CURVES = {  # table: title, threshold, and its columns with their labels and colours
    "fsc": ("Half maps", 0.143, (("corrected", "corrected", BLUE, False), ("masked", "masked", ORANGE, True), ("unmasked", "unmasked", GREEN, True),
                                 ("randomised", "phases of the maps randomised", PINK, True))),
    "noise_substitution": ("Noise substitution", 0.143, (("true", "true", BLUE, False), ("found", "found", ORANGE, True),
                                                          ("substituted", "phases of the images random", PINK, True))),
    "model_fsc": ("Map and model", 0.5, (("model", "map", BLUE, False), ("model_half1", "half map 1", GREEN, True),
                                         ("model_half2", "half map 2", PINK, True), ("expected", "expected of the half maps", GREY, False))),
    "conical_fsc": ("Directional FSC", 0.143, (("fsc", "all directions", BLUE, False), ("fsc_minimum", "worst at each shell", ORANGE, True),
                                               ("fsc_mean", "mean", GREY, False), ("fsc_maximum", "best at each shell", GREEN, True))),
}  # fmt: skip


_EVENNESS = {"sampling": ("Sampling of Fourier space by the views (SCF*)", "views that see a direction, times their mean"),
             "efficiency": ("Width of the views' PSF by direction (E_od)", "times that of even views")}  # fmt: skip


def _plots(curves: Mapping[str, Curve]) -> list[Plot]:
    found = [_fsc(name, curves[name]) for name in _CURVES if name in curves]
    if "directions" in curves:
        found.append(_directions(curves["directions"]))
    found += [_evenness(name, curves[name]) for name in _EVENNESS if name in curves]
    if "reslog" in curves:
        found.append(_reslog(curves["reslog"]))
    return found


def _fsc(name: str, curve: Curve) -> Plot:
    title, threshold, columns = _CURVES[name]
    x = [value or 0.0 for value in _numbers(curve["frequency"])]
    there = [each for each in columns if each[0] in curve]
    series = [Series(label, x, _numbers(curve[column]), colour, 1.4 if dashed else 2.2, dashed) for column, label, colour, dashed in there]
    return Plot(f"validation_{name}", title, "resolution (Å)", "FSC", "frequency", "linear", series, [(threshold, f"{threshold:g}")], (-0.15, 1.04))


def _directions(curve: Curve) -> Plot:
    """How many directions reach which resolution."""
    values = np.array([value for value in _numbers(curve["resolution_0143"]) if value and 0 < value < _COARSEST], float)
    return _histogram("validation_directions", "Resolution by direction, FSC 0.143", values, "share of directions")


def _evenness(name: str, curve: Curve) -> Plot:
    """How many directions are how far from what even views would give them."""
    values = np.array([value for value in _numbers(curve["times_even"]) if value is not None], float)
    title, label = _EVENNESS[name]
    return _histogram(f"validation_{name}", title, values, "share of directions", label, "")


def _reslog(curve: Curve) -> Plot:
    x = [math.log10(value) if value and value > 0 else 0.0 for value in _numbers(curve["particles"])]
    series = [Series("subsets at the final poses", x, _inverse_squares(curve["resolution"]), BLUE, markers=True)]
    if "line" in curve:
        series.append(Series("fit", x, _inverse_squares(curve["line"]), ORANGE, 1.4, True))
    return Plot("validation_reslog", "ResLog", "log10(particles)", "1 / resolution² (1/Å²)", "linear", "linear", series)


def _numbers(values: Sequence[Number]) -> list[Number]:
    """Finite numbers, and None for a gap; TypeError or ValueError for what is none."""
    return [float(value) if value is not None and math.isfinite(value) else None for value in values]


def _inverse_squares(values: Sequence[Number]) -> list[Number]:
    return [1 / value**2 if value and 1e-3 < value < _COARSEST else None for value in _numbers(values)]


def local_resolution(path: Path, mask: np.ndarray | None = None) -> Plot:
    """Histogram of a map of local resolutions (Angstrom, 0 where it was not measured), inside a mask [z, y, x] where it is above 0.5.

    InputError for a map that holds no resolution.
    """
    values, _ = mrc.read_map(path)
    inside = values > 0
    if mask is not None and mask.shape == values.shape:
        inside &= mask > 0.5
    if not inside.any():
        raise InputError(f"{path}: no voxel holds a resolution; the map of local resolutions of a post-processing was expected")
    return _histogram("local_resolution", "Local resolution" + (" in the mask" if mask is not None else ""), values[inside], "share of voxels")


def _histogram(name: str, title: str, values: np.ndarray, what: str, x_label: str = "resolution (Å)", unit: str = " Å") -> Plot:
    """Steps over the values between the 0.1th and 99.9th percentile; those beyond count in the last bins."""
    low, high = (float(value) for value in np.percentile(values, [0.1, 99.9])) if len(values) else (0.0, 1.0)
    edges = np.linspace(low, max(high, low + 0.1), _BINS + 1)
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    share = counts / max(len(values), 1)
    x, y = np.repeat(edges, 2), np.concatenate([[0], np.repeat(share, 2), [0]])
    median = f"median {np.median(values):.2f}{unit}" if len(values) else "no directions"
    series = [Series(median, x.tolist(), y.tolist(), BLUE)]
    return Plot(name, title, x_label, what, "linear", "linear", series, [], (0.0, float(1.05 * max(share.max(), 1e-6))))
