"""What a plot of curves shows, and where on the page each of its lines and words goes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

PAGE = (460.8, 345.6)  # width and height in points: 6.4 x 4.8 inches
AREA = (52.0, 38.0, 447.0, 318.0)  # left, bottom, right and top of the axes; y runs upwards
_TITLE, _LABEL, _TICK, _LEGEND = 10.0, 10.0, 9.0, 8.0  # letters, in points
_MARGIN = 0.05  # of the data's range, beyond it
_SAMPLE, _ROW, _GAP = 20.0, 12.5, 6.0  # of a legend: length of a line, height of a row, distance from the axes, in points
_CORNERS = (("left", "bottom"), ("right", "top"), ("left", "top"), ("right", "bottom"))  # of the legend, the first that is free
_BLACK = "#000000"
# Widths of Helvetica's letters from space to ~, thousandths of the size (Adobe's metrics of the 14 standard fonts).
_WIDTHS = (
    278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278, *[556] * 10, 278, 278, 584, 584, 584, 556,
    1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833, 722, 778, 667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611,
    278, 278, 278, 469, 556, 333, 556, 556, 500, 556, 556, 278, 556, 556, 222, 222, 500, 222, 833, 556, 556, 556, 556, 333, 500, 278, 556, 500,
    722, 500, 500, 500, 334, 260, 334, 584,
)  # fmt: skip
_OTHER_WIDTHS = {"Å": 667, "²": 333, "−": 556}

Ticks = Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Curve:
    """A line through points (what is not finite is left out), `width` points thick; with a label it is in the legend.

    `dashes` are lengths of strokes and gaps in points. A `filled` curve is the rim of a surface.
    """

    x: np.ndarray
    y: np.ndarray
    colour: str = _BLACK  # #rrggbb
    label: str = ""
    width: float = 1.8
    dashes: tuple[float, ...] = ()
    filled: bool = False


@dataclass(frozen=True)
class Plot:
    """Curves over one pair of axes. Limits and ticks that are not given follow from the data."""

    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    x_limits: tuple[float, float] | None = None
    y_limits: tuple[float, float] | None = None
    x_ticks: Ticks | None = None
    y_ticks: Ticks | None = None


@dataclass(frozen=True)
class Line:
    """A line on the page through points [n, 2]; `inside`: what lies outside the axes is cut off."""

    points: np.ndarray
    colour: str = _BLACK
    width: float = 0.8
    dashes: tuple[float, ...] = ()
    inside: bool = False
    filled: bool = False


@dataclass(frozen=True)
class Text:
    """Words whose baseline starts, is centred or ends (`align`: left, centre, right) at a place of the page; `upright`: read from below."""

    x: float
    y: float
    words: str
    size: float
    align: str = "centre"
    upright: bool = False


def elements(plot: Plot) -> Iterator[Line | Text]:
    """Everything on the page of a plot, from back to front."""
    x_limits, y_limits = (given or _limits([getattr(curve, axis) for curve in plot.curves])
                          for given, axis in ((plot.x_limits, "x"), (plot.y_limits, "y")))  # fmt: skip
    left, bottom, right, top = AREA
    lines = []
    for curve in plot.curves:
        x, y = (np.asarray(values, dtype=np.float64) for values in (curve.x, curve.y))
        known = np.isfinite(x) & np.isfinite(y)
        points = np.column_stack([_place(x[known], x_limits, left, right), _place(y[known], y_limits, bottom, top)])
        lines.append(Line(points, curve.colour, curve.width, curve.dashes, True, curve.filled))
    yield from lines
    yield Line(np.array([[left, top], [left, bottom], [right, bottom]]))
    for value, words in plot.x_ticks if plot.x_ticks is not None else round_ticks(*x_limits):
        across = float(_place(np.array(value), x_limits, left, right))
        yield Line(np.array([[across, bottom], [across, bottom - 3.5]]))
        yield Text(across, bottom - 13, words, _TICK)
    for value, words in plot.y_ticks if plot.y_ticks is not None else round_ticks(*y_limits):
        up = float(_place(np.array(value), y_limits, bottom, top))
        yield Line(np.array([[left, up], [left - 3.5, up]]))
        yield Text(left - 6, up - 0.35 * _TICK, words, _TICK, "right")
    yield Text((left + right) / 2, 8, plot.x_label, _LABEL)
    yield Text(13, (bottom + top) / 2, plot.y_label, _LABEL, upright=True)
    yield Text((left + right) / 2, top + 7, plot.title, _TITLE)
    yield from _legend(plot.curves, lines)


def _legend(curves: Sequence[Curve], lines: Sequence[Line]) -> Iterator[Line | Text]:
    """A line and a name for each curve that has one, in the corner where the fewest points of curves are."""
    named = [curve for curve in curves if curve.label]
    if not named:
        return
    width = _SAMPLE + 6 + 1.15 * max(text_width(curve.label, _LEGEND) for curve in named)  # a PNG's letters are wider than Helvetica's
    height = _ROW * len(named)
    left, bottom, right, top = AREA
    corners = {(side, end): (left + _GAP if side == "left" else right - _GAP - width, bottom + _GAP if end == "bottom" else top - _GAP - height)
               for side, end in _CORNERS}  # fmt: skip
    points = np.concatenate([_dense(line.points) for line in lines])
    x, y = min(corners.values(), key=lambda place: _count_within(points, place, (width, height)))
    for row, curve in enumerate(named):
        middle = y + height - (row + 0.5) * _ROW
        yield Line(np.array([[x, middle], [x + _SAMPLE, middle]]), curve.colour, 6.0 if curve.filled else curve.width, curve.dashes)
        yield Text(x + _SAMPLE + 6, middle - 0.35 * _LEGEND, curve.label, _LEGEND, "left")


def _count_within(points: np.ndarray, corner: tuple[float, float], size: tuple[float, float]) -> int:
    """How many of the points [n, 2] lie in a rectangle, given by its lower left corner and its width and height."""
    return int(np.count_nonzero(np.all((points >= corner) & (points <= np.add(corner, size)), axis=1)))


def _dense(points: np.ndarray) -> np.ndarray:
    """Points and three between each two of them: a long stretch crosses a legend too."""
    between = [points[:-1] + part * np.diff(points, axis=0) for part in (0.25, 0.5, 0.75)]
    return np.concatenate([points, *between])


def text_width(words: str, size: float) -> float:
    """Width of words in Helvetica, points."""
    return size / 1000 * sum(_WIDTHS[ord(letter) - 32] if " " <= letter <= "~" else _OTHER_WIDTHS.get(letter, 556) for letter in words)


def _place(values: np.ndarray, limits: tuple[float, float], first: float, last: float) -> np.ndarray:
    result: np.ndarray = first + (values - limits[0]) / (limits[1] - limits[0]) * (last - first)
    return result


def _limits(values: Sequence[np.ndarray]) -> tuple[float, float]:
    """The range of all finite values and a little more; 0 to 1 where there are none."""
    every = np.concatenate([np.asarray(each, dtype=np.float64).ravel() for each in values]) if values else np.zeros(0)
    every = every[np.isfinite(every)]
    if not len(every):
        return 0.0, 1.0
    low, high = float(every.min()), float(every.max())
    margin = _MARGIN * (high - low) or 0.5
    return low - margin, high + margin


def round_ticks(low: float, high: float, most: int = 8) -> list[tuple[float, str]]:
    """Round numbers (steps of 1, 2, 2.5 or 5 of a power of ten) from low to high, at most `most` steps, and how they are written."""
    power = math.floor(math.log10((high - low) / most))
    factor = next(factor for factor in (1, 2, 2.5, 5, 10, 20) if factor * 10.0**power * most >= high - low)
    step = factor * 10.0**power
    decimals = max(0, -math.floor(math.log10(step) + 1e-9) + (factor == 2.5))
    numbers = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return [(number * step, f"{number * step:.{decimals}f}".replace("-", "−")) for number in numbers]
