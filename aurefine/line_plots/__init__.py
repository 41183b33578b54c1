"""Plots of curves as PNG and PDF for jobs that take less time than matplotlib's import.

Post-processing of a small map is done in 0.1 s, matplotlib takes a second to start and to draw two pictures. Pictures with anything but curves, and
all of those that a person waits for by itself (`aurefine report`, `aurefine star --plot`), are matplotlib's.
"""

from aurefine.line_plots.pdf import write_pdf
from aurefine.line_plots.plot import Curve, Plot, round_ticks
from aurefine.line_plots.png import write_png

__all__ = ["Curve", "Plot", "round_ticks", "write_pdf", "write_png"]
