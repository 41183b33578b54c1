"""The picture of a validation: curves, maps over the sphere of directions, and the figures in words. Panels without data say why."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aurefine.atomic import write_bytes
from aurefine.colours import BLUE, GREEN, GREY, ORANGE, PINK
from aurefine.figures import draw_globe, label_resolutions, new_figure, tidy
from aurefine.validation.result import Validation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {"good": GREEN, "warning": "#B87700", "poor": ORANGE, "info": "black", "missing": GREY}
_PER_COLUMN = 8  # rows of the table in the picture


def draw(found: Validation, *paths: Path) -> None:
    """Write the picture to every path (PNG, PDF by its ending)."""
    figure = new_figure(13.5, 9.4)
    grid = figure.add_gridspec(3, 4, left=0.05, right=0.985, top=0.9, bottom=0.02, hspace=0.42, wspace=0.28, height_ratios=[1, 1, 0.72])
    figure.text(0.05, 0.955, f"Validation of {found.notes.get('Run', '')}", fontsize=15, fontweight="bold")
    facts = [f"{name.lower()}: {found.notes[name]}" for name in ("Particles", "Symmetry", "Half maps", "Mask") if name in found.notes]
    figure.text(0.05, 0.93, ", ".join(facts), fontsize=10, color="#333333")
    panels = [figure.add_subplot(grid[row, column]) for row in (0, 1) for column in range(4)]
    draws = (draw_fsc, draw_cones, draw_directions, draw_model, draw_sampling, draw_efficiency, draw_reslog, draw_substitution)
    for axes, panel in zip(panels, draws, strict=True):
        panel(axes, found)
    table = figure.add_subplot(grid[2, :])
    _draw_table(table, found)
    for path in paths:
        out = io.BytesIO()
        figure.savefig(out, format=path.suffix[1:], dpi=130)
        write_bytes(path, out.getvalue())


def draw_fsc(axes: Axes, found: Validation) -> None:
    """Half-map FSC: whole, masked, with randomised phases, corrected."""
    lines = (("unmasked", GREEN, "--", "unmasked"), ("masked", ORANGE, "--", "masked"), ("randomised", PINK, ":", "phases randomised"),
             ("corrected", BLUE, "-", "corrected"))  # fmt: skip
    _curves(axes, found, "fsc", lines, 0.143, "Half maps", "fsc_unmasked")


def draw_model(axes: Axes, found: Validation) -> None:
    """The map and both half maps against the atomic model, and what the half maps lead to expect."""
    lines = (("model_half1", GREEN, "--", "half map 1"), ("model_half2", PINK, ":", "half map 2"), ("expected", GREY, "-", "expected of half maps"),
             ("model", BLUE, "-", "map"))  # fmt: skip
    _curves(axes, found, "model_fsc", lines, 0.5, "Against the model", "model_fsc")


def draw_cones(axes: Axes, found: Validation) -> None:
    """The band of all conical FSCs, and how many directions reach which resolution."""
    curve = found.curves.get("conical_fsc")
    if curve is None:
        _absent(axes, found, "Directional FSC", "cfar")
        return
    x = np.asarray(curve["frequency"])
    axes.fill_between(x, curve["fsc_minimum"], curve["fsc_maximum"], color=BLUE, alpha=0.15, linewidth=0, label="range over directions")
    mean, deviation = np.asarray(curve["fsc_mean"]), np.asarray(curve["fsc_deviation"])
    axes.fill_between(x, mean - deviation, mean + deviation, color=BLUE, alpha=0.3, linewidth=0, label="mean ± sd")
    axes.plot(x, curve["fsc"], color="black", linewidth=1.4, label="all directions")
    conical = found.arrays.get("conical")
    if conical is not None:
        counts, edges = np.histogram(conical.crossings(0.143) * x[1], bins=30, range=(0, x[-1]), weights=conical.grid.area)
        axes.bar(edges[:-1], 0.5 * counts / max(counts.max(), 1e-9), np.diff(edges), align="edge", color=ORANGE, alpha=0.5,
                 label="directions at 0.143")  # fmt: skip
    axes.axhline(0.143, color=GREY, linewidth=0.8, linestyle=":")
    title = f"Directional FSC, cFAR {_value(found, 'cfar')}, sphericity {_value(found, 'sphericity')}"
    axes.set(xlim=(0, x[-1]), ylim=(-0.1, 1.04), xlabel="resolution (Å)", title=title)
    label_resolutions(axes, x[-1])
    axes.legend(loc="lower left", fontsize=7, frameon=False)
    tidy(axes)


def draw_directions(axes: Axes, found: Validation) -> None:
    """Resolution at FSC 0.143 by direction."""
    conical = found.arrays.get("conical")
    if conical is None:
        _absent(axes, found, "Resolution by direction", "cfar")
        return
    # A picture of resolution would be ruled by single bad directions: that of frequency is even.
    frequency = conical.crossings(0.143) * found.curves["conical_fsc"]["frequency"][1]
    draw_globe(axes, conical.grid.directions, frequency, "Resolution by direction (FSC 0.143)", "Å", inverse=True)


def draw_sampling(axes: Axes, found: Validation) -> None:
    """Views that see each direction of Fourier space, over their mean."""
    sampling = found.arrays.get("sampling")
    if sampling is None:
        _absent(axes, found, "Sampling of Fourier space", "scf")
        return
    mean = max(float(sampling.grid.area @ sampling.counts), 1e-9)
    title = f"Sampling of Fourier space, SCF* {_value(found, 'scf')}"
    draw_globe(axes, sampling.grid.directions, sampling.counts / mean, title, "times the mean", 0.0)


def draw_efficiency(axes: Axes, found: Validation) -> None:
    """Resolution that the views allow by direction, relative to even views."""
    even = found.arrays.get("efficiency")
    if even is None:
        _absent(axes, found, "Resolution of the views alone", "efficiency")
        return
    title = f"Width of the views' PSF, E_od {_value(found, 'efficiency')}"
    draw_globe(axes, even.grid.directions, np.minimum(even.relative, 3), title, "times that of even views")


def draw_substitution(axes: Axes, found: Validation) -> None:
    """Half maps of the particles and of those with random phases."""
    lines = (("found", ORANGE, "--", "found"), ("substituted", PINK, ":", "phases of images random"), ("true", BLUE, "-", "true"))
    _curves(axes, found, "noise_substitution", lines, 0.143, "Noise substitution", "noise_substitution")


def draw_reslog(axes: Axes, found: Validation) -> None:
    """Squared inverse resolution over the logarithm of the number of particles, and the fitted line."""
    curve = found.curves.get("reslog")
    if curve is None:
        _absent(axes, found, "ResLog", "reslog_bfactor")
        return
    number, inverse = np.asarray(curve["particles"], float), 1 / np.asarray(curve["resolution"]) ** 2
    axes.plot(number, inverse, color=BLUE, marker="o", markersize=4, linewidth=1.2, label="subsets at the final poses")
    used = np.asarray(curve["fitted"]) > 0
    if used.any():
        axes.plot(number, 1 / np.asarray(curve["line"]) ** 2, color=ORANGE, linewidth=1.2, linestyle="--", label="fit")
        axes.plot(number[used], inverse[used], color=ORANGE, marker="o", markersize=5, linestyle="none")
    axes.set_xscale("log")
    low, high = max(0.0, 0.8 * inverse.min()), 1.1 * inverse.max()
    axes.set(ylim=(low, high), xlabel="particles", ylabel="resolution (Å)", title=f"ResLog, B-factor {_value(found, 'reslog_bfactor', 0)} Å²")
    ticks = np.linspace(low, high, 6)[1:-1]
    axes.set_yticks(ticks, labels=[f"{value**-0.5:.3g}" for value in ticks])
    axes.legend(loc="lower right", fontsize=7, frameon=False)
    tidy(axes)


def _curves(axes: Axes, found: Validation, table: str, lines: tuple, threshold: float, title: str, key: str) -> None:
    curve = found.curves.get(table)
    if curve is None:
        _absent(axes, found, title, key)
        return
    x = np.asarray(curve["frequency"])
    for column, colour, style, label in lines:
        if column in curve:
            axes.plot(x, curve[column], color=colour, linestyle=style, linewidth=1.6, label=label)
    axes.axhline(threshold, color=GREY, linewidth=0.8, linestyle=":")
    axes.axhline(0, color=GREY, linewidth=0.5)
    axes.set(xlim=(0, x[-1]), ylim=(-0.1, 1.04), xlabel="resolution (Å)", ylabel="FSC", title=title)
    label_resolutions(axes, x[-1])
    axes.legend(loc="lower left", fontsize=7, frameon=False)
    tidy(axes)


def _absent(axes: Axes, found: Validation, title: str, key: str) -> None:
    """An empty panel with the reason."""
    import textwrap

    reason = next((f"not computed: {each.text}" for each in found.measures if each.key == key), "not asked for")
    words = "\n".join(textwrap.wrap(reason, 34))
    axes.text(0.5, 0.5, words, ha="center", va="center", fontsize=8, color=GREY, transform=axes.transAxes)
    axes.set_title(title, fontsize=10)
    axes.set_axis_off()


def _value(found: Validation, key: str, digits: int = 2) -> str:
    value = found.value(key)
    return "–" if value is None else f"{value:.{digits}f}"


def _draw_table(axes: Axes, found: Validation) -> None:
    """Label and value of every measure, coloured by its verdict."""
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    for place, each in enumerate(found.measures):
        column, row = divmod(place, _PER_COLUMN)
        x, y = column * 0.36, 0.95 - row * 0.95 / _PER_COLUMN
        graded, colour = each.verdict in ("good", "warning", "poor"), _COLOURS[each.verdict]
        value = each.shown().replace("A^2", "Å²").replace(" A", " Å")
        axes.text(x, y, each.label, fontsize=9, va="top")
        axes.text(x + 0.2, y, value, fontsize=9, va="top", color=colour, fontweight="bold" if graded else "normal")
        axes.text(x + 0.28, y, each.verdict if graded else "", fontsize=9, va="top", color=colour)
