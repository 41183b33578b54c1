"""The FSC and Guinier plots of a post-processing job and the histogram of local resolutions, as PNG and PDF."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aurefine.colours import BLUE, GREEN, GREY, ORANGE, PINK, resolution_ticks
from aurefine.line_plots import Curve, Plot, round_ticks, write_pdf, write_png
from aurefine.postprocessing.options import PostprocessOptions
from aurefine.star import Table

if TYPE_CHECKING:
    from aurefine.postprocessing.run import PostprocessResult

_DASHED, _DOTTED = (6.5, 3.0), (1.8, 3.0)
_CURVES: tuple[tuple[str, str, tuple[float, ...], str], ...] = (  # column, colour, dashes, label
    ("rlnFourierShellCorrelationUnmaskedMaps", GREEN, _DASHED, "unmasked maps"),
    ("rlnFourierShellCorrelationMaskedMaps", ORANGE, _DASHED, "masked maps"),
    ("rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps", PINK, _DOTTED, "phases randomised, masked"),
    ("rlnFourierShellCorrelationCorrected", BLUE, (), "corrected"),
)
_STEPS = (
    ("Original", GREY, "original"),
    ("MTFCorrected", PINK, "MTF-corrected"),
    ("Weighted", ORANGE, "FSC-weighted"),
    ("Sharpened", BLUE, "sharpened"),
)
_FSC_LIMITS = (-0.1, 1.04)


def draw(result: PostprocessResult, table: Table, options: PostprocessOptions) -> None:
    """`<output>_fsc.png`, `<output>_guinier.png`, and both as pages of `logfile.pdf` in the same folder."""
    fsc, guinier = fsc_plot(table, result.resolution), guinier_plot(result, options)
    root = options.output
    write_png(fsc, f"{root}_fsc.png")
    write_png(guinier, f"{root}_guinier.png")
    write_pdf([fsc, guinier], Path(root).parent / "logfile.pdf")


def fsc_plot(table: Table, resolution: float) -> Plot:
    """Every FSC of the table over spatial frequency (1/Angstrom), and where the one that counts crosses 0.143."""
    frequency = np.asarray(table["rlnResolution"], dtype=np.float64)
    ends, crossing = np.array([0, frequency[-1]]), np.full(2, 1 / resolution)
    curves = [Curve(ends, np.zeros(2), GREY, width=0.6), Curve(ends, np.full(2, 0.143), GREY, width=0.8, dashes=(0.8, 1.6)),
              Curve(crossing, np.array(_FSC_LIMITS), GREY, width=0.8, dashes=(0.8, 1.6))]  # fmt: skip
    curves += [Curve(frequency, table[column], colour, label, dashes=dashes) for column, colour, dashes, label in _CURVES if column in table]
    ticks = [(1 / value, f"{value:g}") for value in resolution_ticks(frequency[-1])]
    return Plot(f"Final resolution {resolution:.2f} Å (FSC 0.143)", "resolution (Å)", "Fourier shell correlation", curves, (0, frequency[-1]),
                _FSC_LIMITS, ticks, round_ticks(0, 1))  # fmt: skip


def guinier_plot(result: PostprocessResult, options: PostprocessOptions) -> Plot:
    """Logarithmic amplitudes over squared frequency after each step, and the fitted line."""
    shown = result.guinier
    squared = shown.resolution_squared
    curves = []
    for name, colour, label in _STEPS:
        if name in shown.steps:
            there = shown.steps[name] > -99
            curves.append(Curve(squared[there], shown.steps[name][there], colour, label, width=1.6))
    if shown.fitted and shown.slope:
        part = squared[squared >= 1 / options.auto_lowres**2]
        curves.append(Curve(part, shown.intercept + shown.slope * part, label=f"fit: B = {result.bfactor:.1f} Å²", width=1, dashes=(4, 2)))
    return Plot(f"Guinier plot, B-factor {result.bfactor:.1f} Å²", "1 / resolution² (1/Å²)", "ln(amplitude)", curves)


def draw_histogram(values: np.ndarray, root: str) -> None:
    """Local resolutions inside the mask (Angstrom): `<root>_histogram.png` and `histogram.pdf` in the same folder."""
    edges = histogram_edges(values)
    counts, _ = np.histogram(values, edges)
    rim = np.concatenate([[0], np.repeat(counts, 2), [0]])
    median, top = float(np.median(values)), 1.05 * float(max(counts.max(), 1))
    curves = [Curve(np.repeat(edges, 2), rim, BLUE, filled=True),
              Curve(np.full(2, median), np.array([0, top]), ORANGE, f"median {median:.2f} Å", width=1.2, dashes=_DASHED)]  # fmt: skip
    plot = Plot("Local resolution inside the mask", "local resolution (Å)", "voxels", curves, y_limits=(0, top))
    write_png(plot, f"{root}_histogram.png")
    write_pdf([plot], Path(root).parent / "histogram.pdf")


def histogram_edges(values: np.ndarray) -> np.ndarray:
    """Edges of at most 200 bins (Freedman and Diaconis 1981)."""
    edges = np.histogram_bin_edges(values, bins="fd")
    return edges if len(edges) <= 201 else np.linspace(edges[0], edges[-1], 201)
