"""The report's second page where the refinement has been validated: the validation's figures, and its measures with their verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurefine import figures
from aurefine.colours import GREEN, ORANGE
from aurefine.reporting import sheet
from aurefine.reporting.validation_plots import Row, ValidationFound

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PLACES = (sheet.LEFT, 0.24, 0.335, 0.4)  # of measure, value, verdict and text
_INKS = {"good": GREEN, "warning": "#7A4D00", "poor": ORANGE}
_LINE = sheet.SMALL * 1.42 / (sheet.A4[1] * 72)
_LOWEST = 0.04


def draw(found: ValidationFound) -> Figure:
    """The page. The pictures are those of `validation.png`; without it the measures stand alone."""
    figure = figures.new_figure(*sheet.A4)
    figure.text(sheet.LEFT, 0.963, "Validation", fontsize=15, fontweight="bold", va="bottom")
    notes = "; ".join(f"{name.lower()}: {text}" for name, text in found.notes.items())
    top = sheet.text(figure, f"Measured by aurefine validate in {found.folder.parent.name}/{found.folder.name}. {notes}.", 0.957, sheet.SMALL)
    picture = next((path for path in found.files if path.suffix == ".png"), None)
    if picture:
        top = _picture(figure, picture.read_bytes(), top - 0.008)
    _measures(figure, found.rows, top - 0.012)
    return figure


def _picture(figure: Figure, data: bytes, top: float) -> float:
    """Across the page; returns where it ends."""
    import io

    from PIL import Image

    image = Image.open(io.BytesIO(data)).convert("RGB")
    width = sheet.RIGHT - sheet.LEFT
    height = width * sheet.A4[0] / sheet.A4[1] * image.height / image.width
    axes = figure.add_axes((sheet.LEFT, top - height, width, height))
    axes.imshow(image, aspect="auto", interpolation="none")
    axes.set_axis_off()
    return top - height


def _measures(figure: Figure, rows: list[Row], top: float) -> None:
    """One below the other, with what each says; those for which there is no room are counted."""
    for place, name in zip(_PLACES, ("Measure", "Value", "Verdict", "What it says"), strict=True):
        figure.text(place, top, name, fontsize=sheet.SMALL, fontweight="bold", va="top")
    top -= 1.3 * _LINE
    for number, row in enumerate(rows):
        lines = sheet.wrapped(row.text, (sheet.RIGHT - _PLACES[3]) * sheet.A4[0] * 72, sheet.SMALL)
        if top - len(lines) * _LINE < _LOWEST:
            figure.text(sheet.LEFT, top, f"... and {len(rows) - number} more, in report.html", fontsize=sheet.SMALL, va="top")
            return
        ink = _INKS.get(row.verdict, "black")
        for place, words in zip(_PLACES, (row.label, row.value, row.word), strict=False):
            figure.text(place, top, words, parse_math=False, fontsize=sheet.SMALL, va="top", color=ink if place == _PLACES[2] else "black")
        for line, words in enumerate(lines):
            figure.text(_PLACES[3], top - line * _LINE, words, parse_math=False, fontsize=sheet.SMALL, va="top")
        top -= (len(lines) + 0.25) * _LINE
