"""The report's files, made in memory or written into a folder: report.html, report.pdf, methods.txt, view.cxc, and every curve in `plots/`."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aurefine import figures, folders, mrc
from aurefine.atomic import write_bytes
from aurefine.errors import InputError
from aurefine.reporting import chimerax, globes, methods, page, sheet, validation_sheet
from aurefine.reporting.facts import Facts, read_facts
from aurefine.reporting.history import find_root, iterations
from aurefine.reporting.page import Drawn
from aurefine.reporting.plots import Plot, all_plots, to_files
from aurefine.reporting.postprocess_plots import FILE, PostprocessCurves, read_curves
from aurefine.reporting.validation_plots import ValidationFound, local_resolution, read_validation
from aurefine.run_report import RunReport, read_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = {  # file -> media type
    "report.html": "text/html; charset=utf-8", "report.pdf": "application/pdf", "report.png": "image/png",
    "report_2.png": "image/png", "methods.txt": "text/plain; charset=utf-8", "view.cxc": "text/plain; charset=utf-8",
}  # fmt: skip


@dataclass(frozen=True)
class Documents:
    """The report of one run; nothing is read or drawn before it is asked for, and then once."""

    place: Path  # a job's directory, or a root of file names
    folder: Path  # where view.cxc is to lie

    @cached_property
    def facts(self) -> Facts:
        """What the run did; InputError where there is none."""
        return read_facts(self.place)

    @cached_property
    def report(self) -> RunReport:
        """Map, curves and directions; InputError where a file is missing."""
        return read_run(self.facts.root)

    @cached_property
    def postprocessed(self) -> PostprocessCurves | None:
        """The curves of the newest post-processing of the run's half maps."""
        post = self.facts.related.postprocess
        return read_curves(post.folder / FILE) if post else None

    @cached_property
    def validation(self) -> ValidationFound | None:
        """The newest validation of the run's half maps."""
        path = self.facts.related.validation
        return read_validation(path) if path else None

    def _local_resolution(self) -> Plot | None:
        """The histogram of the newest local resolutions, in the mask of the post-processing where that fits."""
        path, post = self.facts.related.local_resolution, self.facts.related.postprocess
        if path is None:
            return None
        mask = path.parent.parent.parent / post.mask if post and post.mask else None
        return local_resolution(path, mrc.read_map(mask)[0] if mask and mask.is_file() else None)

    @cached_property
    def figures(self) -> list[Drawn]:
        """Every curve of the run, and the sphere of viewing directions at the end."""
        drawn = [Drawn(plot.name, plot.title, to_files(plot)) for plot in all_plots(iterations(self.facts.root))]
        if self.postprocessed:
            drawn += [Drawn(f"postprocess_{plot.name}", f"Post-processing: {plot.title}", to_files(plot)) for plot in self.postprocessed.plots]
        further = [*([histogram] if (histogram := self._local_resolution()) else []), *(self.validation.plots if self.validation else [])]
        drawn += [Drawn(plot.name, plot.title, to_files(plot)) for plot in further]
        drawn += [Drawn(globe.name, globe.title, globes.to_files(globe)) for globe in (self.validation.globes if self.validation else [])]
        angles, symmetry = self.report.angles, self.report.symmetry
        views = {**{kind: draw_directions(angles, symmetry, kind) for kind in ("png", "pdf")}, "csv": directions_csv(angles)}
        return [*drawn, Drawn("directions", "Viewing directions of the particles and their symmetry mates, equal-area", views)]

    @cached_property
    def chimerax(self) -> str:
        """`view.cxc`; the maps are read for its contours."""
        return chimerax.commands(self.facts, self.folder)

    @cached_property
    def pages(self) -> list[Callable[[], Figure]]:
        """What draws the report's pages: the run, and where it has been validated, the validation."""
        found = self.validation
        return [lambda: sheet.draw(self.facts, self.report, self.postprocessed), *([lambda: validation_sheet.draw(found)] if found else [])]

    def make(self, name: str) -> bytes:
        """One file of KINDS; InputError where it is the second page of a report that has one only."""
        if name == "report.html":
            return self._html().encode()
        if name == "report.pdf":
            return sheet.save(self.pages)
        if name.endswith(".png"):
            shown = self.pages[1:] if name == "report_2.png" else self.pages
            if not shown:
                raise InputError(f"{self.facts.root}: the report has one page; a second one comes with a validation of the run")
            return sheet.save(shown, "png")
        return (methods.text(self.facts) if name == "methods.txt" else self.chimerax).encode()

    def _html(self) -> str:
        facts = self.facts
        return page.html(facts, self.figures, draw_sections(self.report), sheet.title(facts), self.chimerax, self.validation)


def write(place: str | Path, folder: str | Path | None = None) -> list[Path]:
    """Write the report of a run (job's directory, or root of its file names) into a folder, by default `report/` beside its files; the paths.

    InputError where there is no run, or the folder cannot be written.
    """
    root = find_root(Path(place))
    documents = Documents(root, Path(folder) if folder else root.parent / "report")
    target, _ = documents.folder, documents.facts  # no folder is made where there is no run
    folders.make(target / "plots")
    files = {name: documents.make(name) for name in KINDS if not name.endswith(".png")}
    files |= {f"plots/{drawn.name}.{kind}": data for drawn in documents.figures for kind, data in drawn.files.items()}
    for name, data in files.items():
        write_bytes(target / name, data)
    return [target / name for name in files]


def draw_sections(report: RunReport) -> bytes:
    """Central sections and projections in a row, as PNG."""
    import matplotlib.gridspec as gridspec

    figure = figures.new_figure(13.5, 2.5)
    figures.draw_sections(figure, gridspec.GridSpec(1, 1, figure=figure, left=0.01, right=0.99, top=0.9, bottom=0.02)[0], report, None)
    return _saved(figure, "png", 110)


def draw_directions(angles: np.ndarray, symmetry: str, kind: str) -> bytes:
    """The density of viewing directions (rot and tilt [n, 2], degrees) and their symmetry mates over the sphere (equal-area), as PNG or PDF."""
    figure = figures.new_figure(6.4, 4.0)
    grid = figure.add_gridspec(2, 1, height_ratios=[1, 0.05], left=0.05, right=0.95, top=0.92, bottom=0.14)
    figures.draw_orientations(figure.add_subplot(grid[0]), figure.add_subplot(grid[1]), angles, symmetry)
    return _saved(figure, kind, 110 if kind == "png" else 200)


def directions_csv(angles: np.ndarray) -> bytes:
    """Rot and tilt [n, 2] (degrees) of every particle as they are in its file, without symmetry mates."""
    return ("rot_degree,tilt_degree\n" + "".join(f"{rot:.6g},{tilt:.6g}\n" for rot, tilt in angles)).encode()


def _saved(figure: figures.Figure, kind: str, dpi: int) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format=kind, dpi=dpi)
    return out.getvalue()
