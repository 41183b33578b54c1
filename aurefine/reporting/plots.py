"""Every curve of the live view as one description: the page draws it, and it is written as PNG, PDF or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aurefine.colours import BLUE, GREEN, GREY, ORANGE, PINK
from aurefine.reporting.history import Iteration, ModelSummary, Number, crossing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = {"png": "image/png", "pdf": "application/pdf", "csv": "text/csv; charset=utf-8"}


@dataclass(frozen=True)
class Series:
    """One curve; None leaves a gap."""

    label: str
    x: list[float]
    y: list[Number]
    color: str
    width: float = 1.8
    dashed: bool = False
    markers: bool = False


@dataclass(frozen=True)
class Plot:
    """`x_kind` is iteration, frequency (1/Angstrom, labelled by resolution) or linear; `y_kind` linear, log, or frequency."""

    name: str
    title: str
    x_label: str
    y_label: str
    x_kind: str
    y_kind: str
    series: list[Series]
    lines: list[tuple[float, str]] = field(default_factory=list)  # horizontal lines with their labels
    y_range: tuple[float, float] | None = None

    def data(self) -> dict[str, Any]:
        """For the page. Curves are not copied as `dataclasses.asdict` would, number by number."""
        return {**vars(self), "series": [vars(each) for each in self.series]}


def all_plots(found: Sequence[Iteration]) -> list[Plot]:
    """The plots of a refinement in the order of the page; none before its first iteration."""
    if not found:
        return []
    return [_fsc(found), _resolution(found), _angles(found), _offsets(found), _changes(found), _pmax(found), _spectra(found[-1])]


def _fsc(found: Sequence[Iteration]) -> Plot:
    curves = [each for each in found if sum(value is not None and value > 0 for value in each.model.fsc) > 2]
    series = [
        Series(_name(each), _frequencies(each.model), each.model.fsc, ORANGE if each is curves[-1] else _shade(index, len(curves)),
               2.4 if each is curves[-1] else 1.1)
        for index, each in enumerate(curves)
    ]  # fmt: skip
    return Plot("fsc", "Gold-standard FSC of every iteration", "resolution (Å)", "FSC", "frequency", "linear", series,
                [(0.143, "0.143"), (0.5, "0.5")], (-0.08, 1.04))  # fmt: skip


def _resolution(found: Sequence[Iteration]) -> Plot:
    inverse = [1 / each.model.resolution if each.model.resolution else None for each in found]
    nyquist = 1 / (2 * found[-1].model.pixel_size)
    series = [Series("as reported", _x(found), inverse, BLUE, markers=True)]
    for threshold, colour in ((0.143, GREEN), (0.5, ORANGE)):
        places = [crossing(each.model, threshold) for each in found]
        series.append(Series(f"FSC {threshold:g}", _x(found), [1 / place if place else None for place in places], colour, 1.4, dashed=True))
    return Plot("resolution", "Resolution", "iteration", "resolution (Å)", "iteration", "frequency", series,
                [(nyquist, f"Nyquist {1 / nyquist:.2f} Å")], (0, 1.12 * nyquist))  # fmt: skip


def _angles(found: Sequence[Iteration]) -> Plot:
    series = [
        Series("angular step", _x(found), [each.step for each in found], GREEN, markers=True),
        Series("estimated accuracy", _x(found), [each.model.accuracy_angles for each in found], PINK, dashed=True, markers=True),
    ]
    return Plot("angles", "Angular sampling and accuracy", "iteration", "degrees", "iteration", "log", series)


def _offsets(found: Sequence[Iteration]) -> Plot:
    series = [
        Series("search range", _x(found), [each.offset_range for each in found], BLUE, markers=True),
        Series("offset step", _x(found), [each.offset_step for each in found], GREEN, markers=True),
        Series("estimated accuracy", _x(found), [each.model.accuracy_offsets for each in found], PINK, dashed=True, markers=True),
    ]
    return Plot("offsets", "Offset sampling and accuracy", "iteration", "Å", "iteration", "log", series)


def _changes(found: Sequence[Iteration]) -> Plot:
    def of(value: Number) -> Number:
        return value if value else None  # none is no change to draw on a logarithmic axis

    series = [
        Series("angles (degrees)", _x(found), [of(each.changes_angles) for each in found], BLUE, markers=True),
        Series("offsets (Å)", _x(found), [of(each.changes_offsets) for each in found], ORANGE, dashed=True, markers=True),
    ]
    return Plot("changes", "Changes since the iteration before", "iteration", "mean change", "iteration", "log", series)


def _pmax(found: Sequence[Iteration]) -> Plot:
    series = [Series("average Pmax", _x(found), [each.model.pmax for each in found], BLUE, markers=True)]
    return Plot("pmax", "Average Pmax", "iteration", "Pmax", "iteration", "linear", series, [], (0, 1.02))


def _spectra(last: Iteration) -> Plot:
    model, x = last.model, _frequencies(last.model)

    def positive(values: Sequence[Number]) -> list[Number]:
        return [value if value and value > 0 else None for value in values]

    series = [Series("signal (tau2)", x, positive(model.tau2), ORANGE)]
    for index, noise in enumerate(model.noise):
        label = f"noise (sigma2) {index + 1}" if len(model.noise) > 1 else "noise (sigma2)"
        series.append(Series(label, x[: len(noise)], positive(noise), BLUE, 1.4, index > 0))
    ratio = [None if value and value > 900 else value for value in positive(model.ssnr)]  # 999: more than can be told
    series.append(Series("signal-to-noise", x, ratio, GREEN, dashed=True))
    return Plot("spectra", f"Noise and signal spectra, {_name(last)}", "resolution (Å)", "power", "frequency", "log", series)


def _name(iteration: Iteration) -> str:
    return f"iteration {iteration.number}" if iteration.number >= 0 else "final"


def _x(found: Sequence[Iteration]) -> list[float]:
    """The final iteration follows the last numbered one."""
    return [float(each.number if each.number >= 0 else found[index - 1].number + 1 if index else 0) for index, each in enumerate(found)]


def _frequencies(model: ModelSummary) -> list[float]:
    step = 1 / (model.box * model.pixel_size) if model.box else 1.0
    return [index * step for index in range(len(model.fsc))]


def _shade(index: int, count: int) -> str:
    """From light to dark blue, the newest the darkest; the lightest has a contrast of 2 with white."""
    part = index / max(count - 1, 1)
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in zip((150, 190, 225), (0, 60, 110), strict=True))


def to_csv(plot: Plot) -> bytes:
    """One row an x value and series, in columns that any program reads."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    x_name = {"frequency": "spatial_frequency_per_angstrom", "iteration": "iteration"}.get(plot.x_kind, "x")
    y_name = "spatial_frequency_per_angstrom" if plot.y_kind == "frequency" else "value"
    writer.writerow(["series", x_name, *(["resolution_angstrom"] if "frequency" in (plot.x_kind, plot.y_kind) else []), y_name])
    for series in plot.series:
        for x, y in zip(series.x, series.y, strict=False):
            frequency = x if plot.x_kind == "frequency" else y
            resolution = [f"{1 / frequency:.6g}" if frequency else ""] if "frequency" in (plot.x_kind, plot.y_kind) else []
            writer.writerow([series.label, f"{x:.8g}", *resolution, "" if y is None else f"{y:.8g}"])
    return out.getvalue().encode()


def _label_decades(axes: Axes) -> None:
    """Plain numbers at 1, 2 and 5 where the axis spans few decades: one power of ten alone would say little."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axes.get_ylim()
    if high < 200 * low:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())


def to_files(plot: Plot, kinds: Iterable[str] = FORMATS) -> dict[str, bytes]:
    """The plot as files of some kinds: PNG (200 dots per inch) and PDF, drawn by matplotlib, and CSV."""
    files = {}
    figure = _drawn(plot) if set(kinds) - {"csv"} else None
    for kind in kinds:
        out = io.BytesIO()
        if figure is not None and kind != "csv":
            figure.savefig(out, format=kind, dpi=200)
        files[kind] = to_csv(plot) if kind == "csv" else out.getvalue()
    return files


def _drawn(plot: Plot) -> Figure:
    from aurefine.figures import label_resolutions, new_figure, tidy

    figure = new_figure(6.4, 4.2)
    axes = figure.add_subplot()
    figure.subplots_adjust(left=0.12, right=0.97, top=0.92, bottom=0.12)  # a layout engine would cost more than the drawing
    for series in plot.series:
        count = min(len(series.x), len(series.y))
        values = [float("nan") if value is None else value for value in series.y[:count]]
        axes.plot(series.x[:count], values, color=series.color, linewidth=series.width, linestyle="--" if series.dashed else "-",
                  marker="o" if series.markers else "", markersize=4, label=series.label)  # fmt: skip
    for height, label in plot.lines:
        axes.axhline(height, color=GREY, linewidth=0.8, linestyle=":")
        axes.text(0.01, height, label, color=GREY, fontsize=8, va="bottom", transform=axes.get_yaxis_transform())
    axes.set(xlabel=plot.x_label, ylabel=plot.y_label, title=plot.title)
    if plot.y_kind == "log":
        axes.set_yscale("log")
        _label_decades(axes)
    if plot.y_range:
        axes.set_ylim(*plot.y_range)
    if plot.x_kind == "frequency":
        axes.set_xlim(left=0)
        label_resolutions(axes, axes.get_xlim()[1])
    if plot.y_kind == "frequency":
        label_resolutions(axes, axes.get_ylim()[1], vertical=True)
    axes.legend(fontsize=7, frameon=False, ncols=2 if len(plot.series) > 8 else 1)
    tidy(axes, whole_iterations=plot.x_kind == "iteration")
    return figure
