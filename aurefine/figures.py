"""One picture of a refinement: sections, FSC, resolution by iteration, angular search and distribution (see run_report.py)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aurefine.colours import BLUE, GREEN, GREY, ORANGE, PINK, resolution_ticks
from aurefine.run_report import RunReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_report(report: RunReport, output: str | Path, truth: np.ndarray | None = None, fsc_truth: np.ndarray | None = None,
                notes: Sequence[str] = ()) -> Path:  # fmt: skip
    """Draw the picture of a run and write it to `output` (PNG, PDF or SVG by its ending); return the path.

    `truth` is a map like the report's ([z, y, x], same box and frame), `fsc_truth` the FSC [shells] of the map against it;
    `notes` are up to four short lines (under 50 characters) for the lower right corner.
    """
    import matplotlib.gridspec as gridspec
    figure = new_figure(13.5, 7.7)
    outer = gridspec.GridSpec(2, 1, figure=figure, height_ratios=[1.0, 1.3], left=0.055, right=0.985, top=0.865, bottom=0.075, hspace=0.17)
    _title(figure, report)
    draw_sections(figure, outer[0], report, truth)
    panels = outer[1].subgridspec(1, 4, wspace=0.3, width_ratios=[1.1, 0.95, 0.95, 1.35])
    curves = [figure.add_subplot(panels[0, column]) for column in range(3)]
    draw_fsc(curves[0], report, fsc_truth)
    draw_resolution(curves[1], report)
    draw_angles(curves[2], report)
    corner = panels[0, 3].subgridspec(3, 1, height_ratios=[1.0, 0.05, 0.42], hspace=0.22)
    directions, bar, text = (figure.add_subplot(corner[row, 0]) for row in range(3))
    draw_orientations(directions, bar, report.angles, report.symmetry)
    text.text(0.0, -0.42, "\n".join(notes), fontsize=9, va="bottom", linespacing=1.45)
    text.set_axis_off()
    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path


def new_figure(width: float, height: float) -> Figure:
    """A white figure of that size in inches that needs no screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def draw_fsc(axes: Axes, report: RunReport, fsc_truth: np.ndarray | None = None) -> None:
    """Half-map FSC, and the FSC against the truth where it is known, over spatial frequency (1/Angstrom)."""
    frequency = _frequency(len(report.fsc), report)
    # Half-map 0.143 and map-against-truth 0.5 mark the same signal-to-noise ratio (Rosenthal and Henderson 2003).
    axes.axhline(0.143, color=BLUE, linewidth=0.8, linestyle=":")
    axes.plot(frequency, report.fsc, color=BLUE, linewidth=1.8, label="half maps (0.143)")
    if fsc_truth is not None:
        axes.axhline(0.5, color=ORANGE, linewidth=0.8, linestyle=":")
        axes.plot(_frequency(len(fsc_truth), report), fsc_truth, color=ORANGE, linewidth=1.8, linestyle="--", label="map and truth (0.5)")
    axes.set(xlim=(0, frequency[-1]), ylim=(-0.08, 1.04), xlabel="resolution (Å)", title="Fourier shell correlation")
    label_resolutions(axes, frequency[-1])
    axes.legend(loc="lower left", fontsize=8, frameon=False)
    tidy(axes)


def draw_resolution(axes: Axes, report: RunReport) -> None:
    """Resolution by iteration: finer is higher, as on the scale of 1/resolution on which shells are even."""
    known = np.isfinite(report.resolution) & (report.resolution > 0)
    iterations, resolution = report.iterations[known], report.resolution[known]
    axes.plot(iterations, 1 / resolution, color=BLUE, linewidth=1.8, marker="o", markersize=4, label="each iteration")
    last = int(iterations[-1]) if len(iterations) else 0
    if report.finished:
        axes.plot([last + 1], [1 / report.final_resolution], color=ORANGE, marker="D", markersize=7, linestyle="none", label="final, all particles")
        last += 1
    nyquist = 1 / (2 * report.pixel_size)
    axes.axhline(nyquist, color=GREY, linewidth=0.8, linestyle="--")
    axes.text(0.02, nyquist, f"Nyquist {1 / nyquist:.1f} Å", color=GREY, fontsize=8, va="bottom", transform=axes.get_yaxis_transform())
    axes.set(xlim=(-0.4, max(last, 1) + 0.6), ylim=(0, 1.12 * nyquist), xlabel="iteration", ylabel="resolution (Å)", title="Resolution by iteration")
    label_resolutions(axes, nyquist, vertical=True)
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    tidy(axes, whole_iterations=True)


def draw_angles(axes: Axes, report: RunReport) -> None:
    """Angular step of the search, after oversampling, and the accuracy that the data allow, degrees, by iteration."""
    axes.step(report.iterations, report.step, where="mid", color=GREEN, linewidth=1.8, label="search step")
    known = np.isfinite(report.accuracy) & (report.accuracy > 0)
    axes.plot(report.iterations[known], report.accuracy[known], color=PINK, linewidth=1.8, linestyle="--", marker="s", markersize=4,
              label="estimated accuracy")  # fmt: skip
    axes.set_yscale("log", base=2)
    axes.set_xlim(-0.4, max([1, *report.iterations]) + 0.6)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set(xlabel="iteration", ylabel="angle (°)", title="Angular search")
    axes.legend(loc="upper right", fontsize=8, frameon=False)
    axes.margins(y=0.18)
    tidy(axes, whole_iterations=True)


def draw_orientations(axes: Axes, colour_bar: Axes, angles: np.ndarray, symmetry: str) -> None:
    """Density of the viewing directions (rot and tilt [n, 2], degrees) and their symmetry mates, in Mollweide's equal-area projection."""
    rot, tilt = _symmetry_mates(angles, symmetry)
    # Cells even in rot and in cos(tilt) have equal areas on the sphere, and the projection keeps them so.
    rot_edges, cosine_edges = np.linspace(-180, 180, 37), np.linspace(-1, 1, 19)
    counts, _, _ = np.histogram2d(np.cos(np.radians(tilt)), rot, bins=(cosine_edges, rot_edges))
    fine = 8  # strips a cell, so that straight edges follow the outline near the poles
    longitude, latitude = np.meshgrid(np.clip(rot_edges, -180, 179.9999), np.degrees(np.arcsin(np.linspace(-1, 1, 18 * fine + 1))))
    x, y = mollweide(longitude, latitude)
    density = counts / max(float(counts.mean()), 1e-9)
    cells = axes.pcolormesh(x, y, np.repeat(density, fine, axis=0), cmap="cividis", vmin=0, vmax=max(2.0, float(np.percentile(density, 99.5))),
                            rasterized=True)  # fmt: skip
    _draw_graticule(axes)
    bar = axes.figure.colorbar(cells, cax=colour_bar, orientation="horizontal", extend="max")
    bar.set_label("density, times that of a uniform distribution", fontsize=8.5)
    bar.ax.tick_params(labelsize=8)
    axes.set_title(f"Viewing directions ({symmetry or 'C1'})", fontsize=10)
    axes.text(-2.83, 1.42, "tilt 0° on top", fontsize=8, color=GREY, va="top", ha="left")
    axes.set_aspect("equal")
    axes.set_axis_off()


def draw_globe(axes: Axes, directions: np.ndarray, values: np.ndarray, title: str, unit: str, lowest: float | None = None,
               inverse: bool = False) -> None:  # fmt: skip
    """A function of the direction in Mollweide's equal-area projection, z on top: at each place the value [c] of the nearest of `directions`
    [c, 3] or their opposites. `inverse` labels 1 / value.
    """
    from scipy.spatial import KDTree

    longitude, latitude = np.meshgrid(np.linspace(-180, 179.999, 181), np.linspace(-90, 90, 91))
    lam, phi = np.radians(0.5 * (longitude[1:, 1:] + longitude[1:, :-1])), np.radians(0.5 * (latitude[1:, 1:] + latitude[:-1, 1:]))
    vectors = np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)
    _, nearest = KDTree(np.concatenate([directions, -directions])).query(vectors)
    shown = values[nearest % len(values)]
    low, high = (float(value) for value in np.nanpercentile(shown, [2, 98])) if np.isfinite(shown).any() else (0.0, 1.0)
    low = low if lowest is None else lowest
    x, y = mollweide(longitude, latitude)
    cells = axes.pcolormesh(x, y, shown, cmap="cividis", vmin=low, vmax=max(high, low * 1.02 + 1e-6), rasterized=True)
    names = (lambda value, _: f"{1 / max(value, 1e-6):.3g}") if inverse else None
    bar = axes.figure.colorbar(cells, ax=axes, orientation="horizontal", fraction=0.07, pad=0.06, format=names)
    bar.set_label(unit, fontsize=8)
    bar.ax.tick_params(labelsize=8)
    axes.set_title(title, fontsize=10)
    axes.set_aspect("equal")
    axes.set_axis_off()


def mollweide(longitude: np.ndarray, latitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Equal-area coordinates (x within 2 sqrt 2, y within sqrt 2) of longitudes and latitudes in degrees (Snyder 1987, p. 251)."""
    lam = np.radians((np.asarray(longitude, dtype=float) + 180.0) % 360.0 - 180.0)
    phi = np.radians(np.asarray(latitude, dtype=float))
    # Solved by a fine table instead of Newton's steps, which fail at the poles: theta -> latitude is monotonic.
    theta_table = np.linspace(-np.pi / 2, np.pi / 2, 4001)
    sine = np.clip((2 * theta_table + np.sin(2 * theta_table)) / np.pi, -1, 1)
    theta = np.interp(np.sin(phi), sine, theta_table)
    return 2 * np.sqrt(2) / np.pi * lam * np.cos(theta), np.sqrt(2) * np.sin(theta)


def _symmetry_mates(angles: np.ndarray, symmetry: str) -> tuple[np.ndarray, np.ndarray]:
    """Rot and tilt (degrees) of every particle's viewing direction under every operator of the point group."""
    from aurefine.symmetry import point_group

    rot, tilt = np.radians(angles.T)
    views = np.stack([np.sin(tilt) * np.cos(rot), np.sin(tilt) * np.sin(rot), np.cos(tilt)], axis=-1)
    mates = np.einsum("ni,kij->knj", views, np.asarray(point_group(symmetry or "C1").operators)).reshape(-1, 3)
    return np.degrees(np.arctan2(mates[:, 1], mates[:, 0])), np.degrees(np.arccos(np.clip(mates[:, 2], -1, 1)))


def _draw_graticule(axes: Axes) -> None:
    """Thin meridians and parallels every 30 and 60 degrees, and the outline."""
    along = np.linspace(-180, 179.999, 181)
    for latitude in (-60, -30, 0, 30, 60):
        axes.plot(*mollweide(along, np.full_like(along, latitude)), color="black", linewidth=0.3, alpha=0.35)
    up = np.linspace(-90, 90, 121)
    for longitude in (-180.0, -120.0, -60.0, 0.0, 60.0, 120.0, 179.999):
        edge = abs(longitude) > 179
        axes.plot(*mollweide(np.full_like(up, longitude), up), color="black", linewidth=0.8 if edge else 0.3, alpha=0.8 if edge else 0.35)


def draw_sections(figure: Figure, place: Any, report: RunReport, truth: np.ndarray | None) -> None:
    """In a place of a grid: three central sections of the map; beside them those of the truth, or the map's projections where no truth is known."""
    names = ("xy", "xz", "yz")
    left = [(f"map, {name}", _section(report.map, name)) for name in names]
    if truth is not None:
        right = [(f"truth, {name}", _section(truth, name)) for name in names]
    else:
        right = [(f"projection on {name}", report.map.sum(axis={"xy": 0, "xz": 1, "yz": 2}[name])) for name in names]
    grid = place.subgridspec(1, 7, wspace=0.05, width_ratios=[1, 1, 1, 0.12, 1, 1, 1])
    for column, (title, image) in zip((0, 1, 2, 4, 5, 6), left + right, strict=True):
        axes = figure.add_subplot(grid[0, column])
        low, high = np.percentile(image, [1.0, 99.7])
        axes.imshow(image, cmap="gray", origin="lower", vmin=low, vmax=max(high, low + 1e-12), interpolation="bicubic")
        axes.set_title(title, fontsize=10)
        axes.set_axis_off()
        if column == 0:
            _scale_bar(axes, image.shape[0], report.pixel_size)


def _section(volume: np.ndarray, plane: str) -> np.ndarray:
    """The central section of a map [z, y, x], its first-named axis across."""
    middle = volume.shape[0] // 2
    return {"xy": volume[middle], "xz": volume[:, middle], "yz": volume[:, :, middle]}[plane]


def _scale_bar(axes: Axes, box: int, pixel_size: float) -> None:
    """A bar of a round length near a quarter of the box."""
    wanted = box * pixel_size / 4
    length = max((step for step in (10, 20, 50, 100, 200, 500, 1000) if step <= wanted), default=wanted)
    start = 0.05 * box
    axes.plot([start, start + length / pixel_size], [0.06 * box] * 2, color="white", linewidth=3, solid_capstyle="butt")
    axes.text(start + length / pixel_size / 2, 0.085 * box, f"{length:g} Å", color="white", fontsize=9, ha="center", va="bottom")


def _title(figure: Figure, report: RunReport) -> None:
    """Two lines: the run with its resolution; the data and the verdict."""
    last = report.iterations[-1] if len(report.iterations) else "?"
    state = f"converged after iteration {last}" if report.finished else f"not finished, iteration {last}"
    resolution = f"{report.final_resolution:.2f} Å" if np.isfinite(report.final_resolution) else "resolution not known yet"
    figure.text(0.055, 0.95, f"{report.name}: {resolution}", fontsize=15, fontweight="bold")
    line = f"{len(report.angles):,} particles, {report.symmetry or 'C1'}, box of {report.map.shape[0]} px at {report.pixel_size:g} Å, {state}"
    figure.text(0.055, 0.917, line, fontsize=10.5, color="#333333")


def label_resolutions(axes: Axes, highest: float, vertical: bool = False) -> None:
    """Ticks at round resolutions (Angstrom) on an axis of spatial frequency, none closer than a ninth of the axis."""
    ticks = resolution_ticks(highest)
    axis = axes.yaxis if vertical else axes.xaxis
    axis.set_ticks([1 / value for value in ticks], labels=[f"{value:g}" for value in ticks])


def tidy(axes: Axes, whole_iterations: bool = False) -> None:
    """The house style of axes: two spines, small letters."""
    from matplotlib.ticker import MaxNLocator

    axes.spines[["top", "right"]].set_visible(False)
    axes.title.set_fontsize(10)
    axes.tick_params(labelsize=9)
    if whole_iterations:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _frequency(shells: int, report: RunReport) -> np.ndarray:
    """Spatial frequency of each shell, 1/Angstrom."""
    return np.arange(shells) / (report.map.shape[0] * report.pixel_size)
