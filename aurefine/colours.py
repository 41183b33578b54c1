"""The colours of all pictures, and the round numbers on axes of resolution."""

from __future__ import annotations

# Okabe and Ito's palette: told apart by the colour-blind, and by their grey values on paper.
BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#666666"
_ROUND = (100, 50, 30, 20, 15, 12, 10, 9, 8, 7, 6, 5, 4.5, 4, 3.5, 3, 2.5, 2.2, 2, 1.8, 1.6, 1.5, 1.4, 1.3, 1.2, 1.1, 1.0)


def resolution_ticks(highest: float) -> list[float]:
    """Round resolutions (Angstrom) for an axis of spatial frequency from 0 to `highest` (1/Angstrom), none closer than a ninth of it."""
    ticks: list[float] = []
    for value in _ROUND:
        if 1 / value <= highest * 1.001 and (not ticks or 1 / value - 1 / ticks[-1] >= highest / 9):
            ticks.append(value)
    return ticks
