"""Plots as PNG: lines drawn three times too large and averaged, letters of the font that matplotlib brings."""

from __future__ import annotations

import importlib.util
import struct
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from aurefine.atomic import write_bytes
from aurefine.line_plots.plot import AREA, PAGE, Line, Plot, Text, elements

_DPI = 110
_FINE = 3  # dots drawn for one of the picture, along each axis
_ANCHORS = {"left": "ls", "centre": "ms", "right": "rs"}  # on the baseline


def write_png(plot: Plot, path: str | Path) -> None:
    """Write a plot. InputError when the file cannot be written."""
    width, height = (round(length * _DPI / 72) for length in PAGE)
    every = list(elements(plot))
    picture = _lines([line for line in every if isinstance(line, Line)], width, height)
    draw = ImageDraw.Draw(picture)
    for text in every:
        if isinstance(text, Text):
            _write(picture, draw, text)
    write_bytes(Path(path), _encoded(np.asarray(picture)))


def _lines(lines: list[Line], width: int, height: int) -> Image.Image:
    """The picture without words. What must not leave the axes is drawn on a sheet of their size, and put in its place."""
    scale = _FINE * _DPI / 72
    page = Image.new("RGB", (width * _FINE, height * _FINE), "white")
    left, top = round(AREA[0] * scale), round((PAGE[1] - AREA[3]) * scale)
    axes = Image.new("RGB", (round((AREA[2] - AREA[0]) * scale), round((AREA[3] - AREA[1]) * scale)), "white")
    for inside, sheet, corner in ((True, axes, (left, top)), (False, page, (0, 0))):
        draw = ImageDraw.Draw(sheet)
        for line in lines:
            if line.inside == inside and len(line.points) > 1:
                dots = np.column_stack([line.points[:, 0], PAGE[1] - line.points[:, 1]]) * scale - corner
                _draw(draw, dots, line, scale)
        if inside:
            page.paste(axes, (left, top))
    return page.reduce(_FINE)


def _draw(draw: ImageDraw.ImageDraw, dots: np.ndarray, line: Line, scale: float) -> None:
    if line.filled:
        draw.polygon(dots.ravel().tolist(), fill=line.colour)
        return
    for stroke in _strokes(dots, [length * scale for length in line.dashes]):
        draw.line(stroke.ravel().tolist(), fill=line.colour, width=max(1, round(line.width * scale)), joint="curve")


def _strokes(dots: np.ndarray, dashes: list[float]) -> Iterator[np.ndarray]:
    """The line [n, 2], or the strokes of a dashed one."""
    if not dashes:
        yield dots
        return
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(dots, axis=0).T))])
    edges = np.cumsum([0.0, *dashes * (int(along[-1] / sum(dashes)) + 1)])
    edges = np.minimum(edges[: 2 * np.count_nonzero(edges[::2] < along[-1])], along[-1])  # start and end of each stroke
    ends = np.column_stack([np.interp(edges, along, dots[:, axis]) for axis in (0, 1)])
    first, last = np.searchsorted(along, edges[::2], "right").tolist(), np.searchsorted(along, edges[1::2], "left").tolist()
    for place, corners in enumerate(map(slice, first, last)):
        yield np.concatenate([ends[2 * place : 2 * place + 1], dots[corners], ends[2 * place + 1 : 2 * place + 2]])


@lru_cache(maxsize=8)
def _font(size: float) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, found without importing matplotlib."""
    found = importlib.util.find_spec("matplotlib")
    folder = Path(found.submodule_search_locations[0]) if found and found.submodule_search_locations else Path()
    return ImageFont.truetype(folder / "mpl-data/fonts/ttf/DejaVuSans.ttf", size * _DPI / 72)


def _write(picture: Image.Image, draw: ImageDraw.ImageDraw, text: Text) -> None:
    x, y, font = text.x * _DPI / 72, (PAGE[1] - text.y) * _DPI / 72, _font(text.size)
    if not text.upright:
        draw.text((x, y), text.words, fill="black", font=font, anchor=_ANCHORS[text.align])
        return
    left, top, right, bottom = font.getbbox(text.words, anchor="ls")
    mask = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2))
    ImageDraw.Draw(mask).text((1 - left, 1 - top), text.words, fill=255, font=font, anchor="ls")
    mask = mask.transpose(Image.Transpose.ROTATE_90)
    back = {"left": 1.0, "centre": 0.5, "right": 0.0}[text.align] * mask.height
    picture.paste("black", (round(x + top), round(y - back)), mask)


def _encoded(pixels: np.ndarray) -> bytes:
    """A PNG file of pixels [height, width, 3] (uint8)."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), dtype=np.uint8)  # each row behind the number of its filter: none
    rows[:, 1:] = pixels.reshape(height, -1)
    per_metre = round(_DPI / 0.0254)
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"pHYs", struct.pack(">IIB", per_metre, per_metre, 1)),
              (b"IDAT", zlib.compress(rows.tobytes(), 1)), (b"IEND", b""))  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content)) for name, content in chunks
    )
