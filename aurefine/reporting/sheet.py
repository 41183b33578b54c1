"""The report's first page of A4: sections of the map, curves, parameters, methods, command, versions; and the pages as one document."""

from __future__ import annotations

import io
import platform
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from aurefine import __version__, figures
from aurefine.reporting import methods
from aurefine.reporting.facts import Facts
from aurefine.reporting.postprocess_plots import PostprocessCurves
from aurefine.run_report import RunReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

A4 = (8.27, 11.69)  # inches
LEFT, RIGHT = 0.065, 0.965  # of the page's width
SMALL, _TINY = 7.4, 6.4  # points
_KEEP = {"pdf": {"Creator": f"aurefine {__version__}"}, "png": {"Software": f"aurefine {__version__}"}}


def save(pages: Sequence[Callable[[], Figure]], kind: str = "pdf") -> bytes:
    """What draws the pages -> all of them as PDF (text stays text), or the first as PNG."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_pdf import PdfPages

    out = io.BytesIO()
    with rc_context({"pdf.fonttype": 42, "font.size": 8, "axes.titlesize": 9, "axes.labelsize": 8}):
        if kind == "pdf":
            with PdfPages(out, metadata=_KEEP[kind]) as file:
                for draw_page in pages:
                    file.savefig(draw_page(), dpi=200)
        else:
            pages[0]().savefig(out, format=kind, dpi=150, metadata=_KEEP[kind])
    return out.getvalue()


def draw(facts: Facts, report: RunReport, post: PostprocessCurves | None) -> Figure:
    """The page; `post` is the newest post-processing of the run's half maps."""
    figure = figures.new_figure(*A4)
    figure.text(LEFT, 0.963, title(facts), parse_math=False, fontsize=15, fontweight="bold", va="bottom")
    figure.text(LEFT, 0.957, _subtitle(facts), parse_math=False, fontsize=8.5, color="#333333", va="top")
    _pictures(figure, report)
    _curves(figure, report, post)
    bottom = _table(figure, methods.parameters(facts), 0.408)
    bottom = _heading(figure, "Methods", bottom - 0.012)
    bottom = text(figure, methods.paragraph(facts), bottom, SMALL)
    if facts.warnings:
        bottom = _heading(figure, "Warnings of the run", bottom - 0.012)
        bottom = text(figure, "  •  ".join(facts.warnings), bottom, SMALL, lowest=0.1)
    if facts.command:
        bottom = _heading(figure, "Command line of the run", bottom - 0.012)
        bottom = text(figure, methods.command_line(facts), bottom, _TINY, lowest=0.045, family="monospace")
    figure.text(LEFT, 0.022, versions(facts), fontsize=_TINY, color="#555555", va="bottom")
    return figure


def versions(facts: Facts) -> str:
    """Programs of the run and of the report, and when it was made."""
    import matplotlib
    import numpy

    run = f"Run: {facts.program}. " if facts.program else ""
    tools = f"Python {platform.python_version()}, numpy {numpy.__version__}, matplotlib {matplotlib.__version__}"
    return f"{run}Report: aurefine {__version__}, {tools}; {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def title(facts: Facts) -> str:
    """The job and its resolution."""
    resolution = f"{facts.resolution:.2f} Å" if facts.resolution else "no resolution yet"
    return f"{_shortened(facts.job, 45)}: {resolution}"


def _subtitle(facts: Facts) -> str:
    state = f"converged after {facts.rounds} iterations" if facts.finished else f"not finished: iteration {facts.last.number}"
    post = facts.related.postprocess
    masked = f"; {post.resolution:.2f} Å after post-processing ({post.folder.parent.name}/{post.folder.name})" if post else ""
    return f"3D auto-refine, {state}. FSC 0.143 of the half maps{masked}"


def _pictures(figure: Figure, report: RunReport) -> None:
    """The map's central sections and projections, in a row."""
    import matplotlib.gridspec as gridspec

    place = gridspec.GridSpec(1, 1, figure=figure, left=LEFT, right=RIGHT, top=0.925, bottom=0.805)
    figures.draw_sections(figure, place[0], report, None)


def _curves(figure: Figure, report: RunReport, post: PostprocessCurves | None) -> None:
    """FSC, resolution, angular search and viewing directions, two by two."""
    import matplotlib.gridspec as gridspec

    grid = gridspec.GridSpec(2, 2, figure=figure, left=LEFT + 0.035, right=RIGHT, top=0.775, bottom=0.455, hspace=0.5, wspace=0.22)
    fsc = figure.add_subplot(grid[0, 0])
    figures.draw_fsc(fsc, report)
    if post and len(post.corrected):
        fsc.plot(post.frequency, post.corrected, color=figures.ORANGE, linewidth=1.8, linestyle="--", label="masked and corrected (0.143)")
        fsc.legend(loc="lower left", frameon=False)
    figures.draw_resolution(figure.add_subplot(grid[0, 1]), report)
    figures.draw_angles(figure.add_subplot(grid[1, 0]), report)
    corner = grid[1, 1].subgridspec(2, 1, height_ratios=[1, 0.06], hspace=0.12)
    figures.draw_orientations(figure.add_subplot(corner[0]), figure.add_subplot(corner[1]), report.angles, report.symmetry)
    for axes in figure.axes:  # a page's letters are smaller than a screen's
        axes.title.set_fontsize(8.5)
        axes.tick_params(labelsize=7)
        legend = axes.get_legend()
        for letters in (axes.xaxis.label, axes.yaxis.label, *axes.texts, *(legend.get_texts() if legend else ())):
            letters.set_fontsize(7)


def _table(figure: Figure, rows: Sequence[tuple[str, str]], top: float) -> float:
    """Parameters in two columns; returns where they end, as all that writes text here does."""
    half = (len(rows) + 1) // 2
    for column, part in enumerate((rows[:half], rows[half:])):
        left = LEFT + column * (RIGHT - LEFT) / 2
        for row, (name, value) in enumerate(part):
            y = top - row * 0.0128 - SMALL / (A4[1] * 72)  # lines stand on their baseline, whatever is above their letters
            figure.text(left, y, name, parse_math=False, fontsize=SMALL, color="#555555", va="baseline")
            figure.text(left + 0.13, y, _shortened(value, 50), parse_math=False, fontsize=SMALL, va="baseline")
    return top - half * 0.0128


def _heading(figure: Figure, text: str, top: float) -> float:
    figure.text(LEFT, top, text, fontsize=9.5, fontweight="bold", va="top")
    return top - 0.016


def text(figure: Figure, words: str, top: float, size: float, lowest: float = 0.0, **style: Any) -> float:
    """A paragraph wrapped to the page's width; lines that would fall below `lowest` are left out, and it says so."""
    lines = wrapped(words, (RIGHT - LEFT) * A4[0] * 72, size, **style)
    height = size * 1.42 / (A4[1] * 72)
    room = int((top - lowest) / height) if lowest else len(lines)
    if len(lines) > room:
        lines = [*lines[: max(room - 1, 0)], "... (the whole of it is in report.html and methods.txt)"]
    for number, line in enumerate(lines):
        baseline = top - number * height - size / (A4[1] * 72)
        figure.text(LEFT, baseline, line, parse_math=False, fontsize=size, va="baseline", **style)
    return top - len(lines) * height


def wrapped(text: str, width: float, size: float, **style: Any) -> list[str]:
    """Lines of at most `width` points, broken at blanks, as wide as the letters really are."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath  # measures without a page

    font = FontProperties(size=size, **style)

    def reach(letters: str) -> float:
        return float(TextPath((0, 0), letters, prop=font).vertices[:, 0].max())

    @cache
    def length(word: str) -> float:
        """With the room at both ends of a word, which its outline does not show; a $ would begin a formula."""
        return reach(f"n{word.replace('$', 'S')}n") - reach("nn")

    blank = length(" ")
    lines, filled = [""], 0.0
    for word in text.split():
        if lines[-1] and filled + blank + length(word) > width:
            lines, filled = [*lines, word], length(word)
        else:
            filled += length(word) + (blank if lines[-1] else 0.0)
            lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return lines


def _shortened(text: str, longest: int) -> str:
    """The end of a long name says more than its beginning."""
    return text if len(text) <= longest else f"...{text[3 - longest :]}"
