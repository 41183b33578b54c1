"""Pictures of STAR columns: histograms and curves, as PNG, PDF or SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aurefine.colours import BLUE, ORANGE
from aurefine.errors import InputError
from aurefine.star_operations import Histogram

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ENDINGS = (".png", ".pdf", ".svg", ".eps")


def picture_names(output: str | Path) -> list[Path]:
    """Where pictures go: `output` itself when it ends as a picture does, else the same name as .png and as .pdf."""
    path = Path(output)
    if path.suffix.lower() in _ENDINGS:
        return [path]
    root = path.with_suffix("") if path.suffix == ".star" else path
    return [root.with_name(root.name + ending) for ending in (".png", ".pdf")]


def draw_histogram(histogram: Histogram, label: str, outputs: Sequence[Path], in_percent: bool = False, cumulative: bool = False) -> None:
    """Bars of the counts (or percent of all rows), and the cumulative share beside them when asked for."""
    total = histogram.counts.sum() + histogram.below + histogram.above
    heights = histogram.counts * (100.0 / total) if in_percent else histogram.counts
    with _Picture(outputs) as axes:
        axes.bar(histogram.edges[:-1], heights, np.diff(histogram.edges), align="edge", color=BLUE, edgecolor="white", linewidth=0.4)
        axes.set_xlabel(label)
        axes.set_ylabel("percent" if in_percent else "count")
        if cumulative:
            share = (np.cumsum(histogram.counts) + histogram.below) * (100.0 / total)
            other = axes.twinx()
            other.plot(histogram.edges[1:], share, color=ORANGE, linewidth=1.6)
            other.set_ylim(0, 102)
            other.set_ylabel("cumulative percent", color=ORANGE)


def draw_curves(x: np.ndarray, curves: dict[str, np.ndarray], x_label: str, outputs: Sequence[Path]) -> None:
    """One or several columns [n] over `x` [n]; points where x is in no order, lines where it is."""
    ordered = bool((np.diff(x) >= 0).all() or (np.diff(x) <= 0).all())
    with _Picture(outputs) as axes:
        for name, values in curves.items():
            axes.plot(x, values, linestyle="-" if ordered else "none", marker="" if ordered else ".", markersize=2.5, label=name)
        axes.set_xlabel(x_label)
        if len(curves) > 1:
            axes.legend(frameon=False)
        else:
            axes.set_ylabel(next(iter(curves)))


class _Picture:
    """An empty pair of axes that is written to every output at the end."""

    def __init__(self, outputs: Sequence[Path]) -> None:
        self.outputs = outputs

    def __enter__(self) -> Axes:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=(6.4, 4.2), facecolor="white", layout="constrained")
        FigureCanvasAgg(self.figure)
        axes = self.figure.add_subplot()
        axes.spines[["top"]].set_visible(False)
        return axes

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            return
        for path in self.outputs:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self.figure.savefig(path, dpi=150)
            except OSError as error:
                raise InputError(f"cannot write {path}: {error.strerror}") from error
