"""Plots without matplotlib: curves where their numbers say, in PNG and PDF."""

from __future__ import annotations

import re
import zlib

import numpy as np
import pytest
from PIL import Image

from aurefine.line_plots import Curve, Plot, round_ticks, write_pdf, write_png
from aurefine.line_plots.plot import AREA, PAGE, Text, elements, text_width
from aurefine.postprocessing.figures import draw_histogram

RED, BLUE = (255, 0, 0), (0, 0, 255)


def _pixel(picture: np.ndarray, x: float, y: float) -> tuple[int, int]:
    """Row and column of a place of the axes, both from 0 to 1."""
    left, bottom, right, top = AREA
    column, row = left + x * (right - left), PAGE[1] - bottom - y * (top - bottom)
    return int(row * len(picture) / PAGE[1]), int(column * picture.shape[1] / PAGE[0])


def _plot(*curves: Curve) -> Plot:
    return Plot("title", "x", "y", curves, (0, 1), (0, 1))


def test_a_curve_passes_through_its_points_and_is_cut_off_at_the_axes(tmp_path):
    x = np.array([0.0, 0.5, np.nan, 1.0])
    write_png(_plot(Curve(x, np.array([0.0, 0.5, 0.7, 2.0]), "#ff0000", width=4)), tmp_path / "a.png")
    picture = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert picture.shape == (528, 704, 3)
    red = np.all(picture == RED, axis=2)
    for place in ((0.25, 0.25), (0.5, 0.5), (0.6, 0.8)):  # the last one on the way from (0.5, 0.5) to (1, 2)
        assert red[_pixel(picture, *place)]
    assert not red[_pixel(picture, 0.25, 0.5)]
    top, _ = _pixel(picture, 0, 1)
    assert not red[: top - 1].any()


def test_dashes_leave_gaps_and_a_surface_is_filled(tmp_path):
    x = np.linspace(0, 1, 50)
    write_png(_plot(Curve(np.array([0, 0.5, 0.5, 0]), np.array([0, 0, 0.4, 0.4]), "#0000ff", filled=True),
                    Curve(x, np.full(50, 0.8), "#ff0000", width=3, dashes=(6.0, 6.0))), tmp_path / "a.png")  # fmt: skip
    picture = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    row, first = _pixel(picture, 0, 0.8)
    drawn = np.all(picture[row, first:] == RED, axis=1)
    assert 0.35 < drawn.mean() < 0.6
    assert np.count_nonzero(np.diff(drawn.astype(int)) == 1) > 20
    assert tuple(picture[_pixel(picture, 0.25, 0.2)]) == BLUE
    assert tuple(picture[_pixel(picture, 0.75, 0.2)]) == (255, 255, 255)


def test_the_legend_is_in_the_corner_that_the_curves_leave_free():
    x = np.linspace(0, 1, 20)
    plot = _plot(Curve(x, x, "#ff0000", "up"), Curve(0.2 * x, np.full(20, 0.95), "#0000ff", "at the top on the left"))
    words = {element.words: element for element in elements(plot) if isinstance(element, Text)}
    for label in ("up", "at the top on the left"):
        assert words[label].x > 0.5 * (AREA[0] + AREA[2]) and AREA[1] < words[label].y < 0.3 * AREA[3]
        assert words[label].x + text_width(label, words[label].size) < AREA[2]


def test_a_pdf_holds_a_page_of_lines_and_words_for_each_plot(tmp_path):
    write_pdf([_plot(Curve(np.array([0, 1]), np.array([0, 1]), "#ff0000")), Plot("B = −3 Å² (fit)", "x", "y", [])], tmp_path / "a.pdf")
    content = (tmp_path / "a.pdf").read_bytes()
    assert content.startswith(b"%PDF-") and content.endswith(b"%%EOF\n") and content.count(b"/Type /Page ") == 2
    for number, offset in enumerate(re.findall(rb"(\d{10}) 00000 n ", content), start=1):
        assert content[int(offset) :].startswith(b"%d 0 obj" % number)
    first, second = (zlib.decompress(stream).decode("cp1252") for stream in re.findall(rb"stream\n(.*?)\nendstream", content, re.DOTALL))
    assert f"{AREA[0]:.2f} {AREA[1]:.2f} m {AREA[2]:.2f} {AREA[3]:.2f} l S" in first and "1.000 0.000 0.000 RG" in first
    assert r"(B = –3 Å² \(fit\)) Tj" in second


@pytest.mark.parametrize("low, high, expected", [(0, 1, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]), (-0.4, 0.013, ["−0.4", "−0.3"]),
                                                 (3.1, 11, ["4", "5"]), (0, 21000, ["0", "5000"]), (0, 0.0193, ["0.0000", "0.0025"])])  # fmt: skip
def test_ticks_are_round_numbers_within_the_axis(low, high, expected):
    ticks = round_ticks(low, high)
    assert [words for _, words in ticks][: len(expected)] == expected
    assert 4 <= len(ticks) <= 9 and all(low <= value <= high + 1e-9 for value, _ in ticks)


def test_a_histogram_stands_as_high_as_its_counts(tmp_path):
    values = np.concatenate([np.linspace(3.0, 3.9, 1000), np.linspace(4.0, 4.9, 500)])
    draw_histogram(values, str(tmp_path / "a"))
    picture = np.asarray(Image.open(tmp_path / "a_histogram.png").convert("RGB"))
    blue = np.all(np.abs(picture.astype(int) - (0, 0x72, 0xB2)) < 3, axis=2)
    columns = [_pixel(picture, x, 0)[1] for x in (0.3, 0.7)]
    first, second = (np.count_nonzero(blue[:, column]) for column in columns)
    assert first == pytest.approx(2 * second, rel=0.05)
    assert (tmp_path / "histogram.pdf").read_bytes().startswith(b"%PDF")
