"""Plots as the pages of a PDF file: lines and letters, nothing rasterised (ISO 32000-1)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from aurefine.atomic import write_bytes
from aurefine.line_plots.plot import AREA, PAGE, Line, Plot, Text, elements, text_width

_ESCAPES = str.maketrans({"(": r"\(", ")": r"\)", "\\": r"\\", "−": "–"})  # the minus sign is not among Windows' letters


def write_pdf(plots: Sequence[Plot], path: str | Path) -> None:
    """Write each plot as a page. InputError when the file cannot be written."""
    pages = [f"{4 + 2 * number} 0 R" for number in range(len(plots))]
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", f"<< /Type /Pages /Kids [{' '.join(pages)}] /Count {len(plots)} >>".encode("ascii"),
               b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"]  # fmt: skip
    for number, plot in enumerate(plots):
        content = zlib.compress("\n".join(_commands(plot)).encode("cp1252", "replace"))
        page = (f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {PAGE[0]:g} {PAGE[1]:g}] /Resources << /Font << /F1 3 0 R >> >> "
                f"/Contents {5 + 2 * number} 0 R >>")  # fmt: skip
        objects += [page.encode("ascii"), b"<< /Length %d /Filter /FlateDecode >>\nstream\n" % len(content) + content + b"\nendstream"]
    write_bytes(Path(path), _file(objects))


def _file(objects: Sequence[bytes]) -> bytes:
    """The objects under their numbers from 1 on, and the table of where they are."""
    result, offsets = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n"), []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(result))
        result += b"%d 0 obj\n" % number + content + b"\nendobj\n"
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    end = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, len(result))
    return bytes(result) + b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1) + table + end


def _commands(plot: Plot) -> Iterator[str]:
    left, bottom, right, top = AREA
    yield "1 J 1 j"  # round ends and corners
    for element in elements(plot):
        if isinstance(element, Text):
            yield _written(element)
        elif len(element.points):
            inside = f"{left} {bottom} {right - left} {top - bottom} re W n " if element.inside else ""
            yield f"q {inside}{_stroke(element)} Q"


def _stroke(line: Line) -> str:
    colour = " ".join(f"{int(line.colour[place : place + 2], 16) / 255:.3f}" for place in (1, 3, 5))
    path = " ".join(f"{x:.2f} {y:.2f} {'l' if number else 'm'}" for number, (x, y) in enumerate(np.asarray(line.points).tolist()))
    if line.filled:
        return f"{colour} rg {path} f"
    dashes = f"0 J [{' '.join(f'{length:g}' for length in line.dashes)}] 0 d " if line.dashes else ""
    return f"{colour} RG {line.width:g} w {dashes}{path} S"


def _written(text: Text) -> str:
    back = {"left": 0.0, "centre": 0.5, "right": 1.0}[text.align] * text_width(text.words, text.size)
    place = f"0 1 -1 0 {text.x:.2f} {text.y - back:.2f}" if text.upright else f"1 0 0 1 {text.x - back:.2f} {text.y:.2f}"
    return f"BT /F1 {text.size:g} Tf {place} Tm ({text.words.translate(_ESCAPES)}) Tj ET"
