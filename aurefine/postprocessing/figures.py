"""The FSC and Guinier plots of a post-processing job and the histogram of local resolutions, as PNG and PDF."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aurefine.figures import BLUE, GREEN, GREY, ORANGE, PINK, label_resolutions, tidy
from aurefine.postprocessing.options import PostprocessOptions
from aurefine.star import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from aurefine.postprocessing.run import PostprocessResult

_CURVES = (  # column, colour, line, label
    ("rlnFourierShellCorrelationUnmaskedMaps", GREEN, "--", "unmasked maps"),
    ("rlnFourierShellCorrelationMaskedMaps", ORANGE, "--", "masked maps"),
    ("rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps", PINK, ":", "phases randomised, masked"),
    ("rlnFourierShellCorrelationCorrected", BLUE, "-", "corrected"),
)
_STEPS = (
    ("Original", GREY, "original"),
    ("MTFCorrected", PINK, "MTF-corrected"),
    ("Weighted", ORANGE, "FSC-weighted"),
    ("Sharpened", BLUE, "sharpened"),
)


def draw(result: PostprocessResult, table: Table, options: PostprocessOptions) -> None:
    """`<output>_fsc.png`, `<output>_guinier.png`, and both as pages of `logfile.pdf` in the same folder."""
    fsc, guinier = _figure(), _figure()
    draw_fsc(fsc.add_subplot(), table, result.resolution)
    draw_guinier(guinier.add_subplot(), result, options)
    root = options.output
    write(fsc, f"{root}_fsc.png")
    write(guinier, f"{root}_guinier.png")
    write_pages([fsc, guinier], Path(root).parent / "logfile.pdf")


def _figure() -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.8), facecolor="white")
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.11, right=0.97, top=0.92, bottom=0.11)  # a layout engine would cost more than the drawing
    return figure


def write(figure: Figure, path: str) -> None:
    """A picture as PNG."""
    figure.savefig(path, dpi=110)


def write_pages(figures: list[Figure], path: Path) -> None:
    """Pictures as the pages of one PDF file."""
    from matplotlib.backends.backend_pdf import PdfPages

    with PdfPages(path) as pages:
        for figure in figures:
            pages.savefig(figure)


def draw_fsc(axes: Axes, table: Table, resolution: float) -> None:
    """Every FSC of the table over spatial frequency (1/Angstrom), and where the one that counts crosses 0.143."""
    frequency = np.asarray(table["rlnResolution"])
    for column, colour, line, label in _CURVES:
        if column in table:
            axes.plot(frequency, table[column], color=colour, linestyle=line, linewidth=1.8, label=label)
    axes.axhline(0, color=GREY, linewidth=0.6)
    axes.axhline(0.143, color=GREY, linewidth=0.8, linestyle=":")
    axes.axvline(1 / resolution, color=GREY, linewidth=0.8, linestyle=":")
    axes.set(xlim=(0, frequency[-1]), ylim=(-0.1, 1.04), xlabel="resolution (Å)", ylabel="Fourier shell correlation",
             title=f"Final resolution {resolution:.2f} Å (FSC 0.143)")  # fmt: skip
    label_resolutions(axes, frequency[-1])
    axes.legend(loc="lower left", fontsize=8, frameon=False)
    tidy(axes)


def draw_guinier(axes: Axes, result: PostprocessResult, options: PostprocessOptions) -> None:
    """Logarithmic amplitudes over squared frequency after each step, and the fitted line."""
    plot = result.guinier
    squared = plot.resolution_squared
    for name, colour, label in _STEPS:
        if name in plot.steps:
            there = plot.steps[name] > -99
            axes.plot(squared[there], plot.steps[name][there], color=colour, linewidth=1.6, label=label)
    if plot.fitted and plot.slope:
        part = squared[squared >= 1 / options.auto_lowres**2]
        axes.plot(part, plot.intercept + plot.slope * part, color="black", linewidth=1, linestyle="--", label=f"fit: B = {result.bfactor:.1f} Å²")
    axes.set(xlabel="1 / resolution² (1/Å²)", ylabel="ln(amplitude)", title=f"Guinier plot, B-factor {result.bfactor:.1f} Å²")
    axes.legend(loc="best", fontsize=8, frameon=False)
    tidy(axes)


def draw_histogram(values: np.ndarray, root: str) -> None:
    """Local resolutions inside the mask (Angstrom): `<root>_histogram.png` and `histogram.pdf` in the same folder."""
    figure = _figure()
    axes = figure.add_subplot()
    axes.hist(values, bins=histogram_edges(values).tolist(), color=BLUE)
    axes.axvline(float(np.median(values)), color=ORANGE, linewidth=1.2, linestyle="--", label=f"median {np.median(values):.2f} Å")
    axes.set(xlabel="local resolution (Å)", ylabel="voxels", title="Local resolution inside the mask")
    axes.legend(loc="upper right", fontsize=8, frameon=False)
    tidy(axes)
    write(figure, f"{root}_histogram.png")
    write_pages([figure], Path(root).parent / "histogram.pdf")


def histogram_edges(values: np.ndarray) -> np.ndarray:
    """Edges of at most 200 bins (Freedman and Diaconis 1981)."""
    edges = np.histogram_bin_edges(values, bins="fd")
    return edges if len(edges) <= 201 else np.linspace(edges[0], edges[-1], 201)


