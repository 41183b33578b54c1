"""One picture of what examples/tutorial.sh made: micrograph, particles, maps and FSC.  python examples/tutorial_picture.py [FOLDER]"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter

from aurefine import mrc, star

MAPS = (
    ("reference.mrc", "start"),
    ("Refine3D/job002/run_class001.mrc", "first refinement"),
    ("Refine3D/job004/run_class001.mrc", "auto-refine"),
    ("PostProcess/job006/postprocess_masked.mrc", "post-processed"),
    ("truth.mrc", "truth"),
)
COLUMNS = (
    ("rlnFourierShellCorrelationCorrected", "corrected"),
    ("rlnFourierShellCorrelationUnmaskedMaps", "unmasked"),
    ("rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps", "random phases"),
)


def main(folder: Path) -> Path:
    """Draw `folder`/tutorial.png and return its path."""
    figure = plt.figure(figsize=(15, 9.6), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(1.25, 1))
    top, bottom = grid[0].subgridspec(1, 3, width_ratios=(1, 1, 0.8)), grid[1].subgridspec(2, len(MAPS))
    draw_micrograph(figure.add_subplot(top[0]), folder)
    draw_particles(figure.add_subplot(top[1]), folder)
    draw_fsc(figure.add_subplot(top[2]), folder)
    for column, (name, title) in enumerate(MAPS):
        volume, pixel_size = mrc.read_map(folder / name)
        middle = volume.shape[0] // 2
        for row, section in enumerate((volume[middle], volume[:, middle])):
            axes = figure.add_subplot(bottom[row, column])
            axes.imshow(trimmed(section, pixel_size), cmap="gray", vmin=np.quantile(volume, 0.02), vmax=np.quantile(volume, 0.9995))
            axes.set_axis_off()
            axes.set_title(title if row == 0 else "")
    figure.savefig(folder / "tutorial.png", dpi=80)
    return folder / "tutorial.png"


def trimmed(section: np.ndarray, pixel_size: float, width: float = 220.0) -> np.ndarray:
    """The middle `width` Angstrom of a section."""
    middle, half = section.shape[0] // 2, int(width / 2 / pixel_size)
    return section[middle - half : middle + half, middle - half : middle + half]


def draw_micrograph(axes, folder: Path) -> None:
    """The first micrograph, smoothed, with the picked particles."""
    picks = star.read_table(folder / "autopick.star", "coordinate_files")
    stack = mrc.Stack(folder / picks["rlnMicrographName"][0])
    smooth = gaussian_filter(stack.read([0])[0], 5 / stack.pixel_size)
    places = star.read(folder / picks["rlnMicrographCoordinates"][0])[""]
    axes.imshow(smooth, cmap="gray", vmin=np.quantile(smooth, 0.005), vmax=np.quantile(smooth, 0.995))
    axes.scatter(places["rlnCoordinateX"], places["rlnCoordinateY"], s=250, facecolors="none", edgecolors="#7fbf5f", linewidths=0.8)
    axes.set_title("a micrograph and its picks")
    axes.set_axis_off()


def draw_particles(axes, folder: Path, side: int = 6) -> None:
    """Extracted particles, smoothed: protein is bright now."""
    table = star.read_table(folder / "Extract/job001/particles.star", "particles")
    stack = mrc.Stack(folder / table["rlnImageName"][0].split("@")[1])
    images = gaussian_filter(stack.read(np.arange(side * side) % stack.count), (0, 1, 1))
    tiles = images.reshape(side, side, stack.height, stack.width).transpose(0, 2, 1, 3).reshape(side * stack.height, -1)
    axes.imshow(tiles, cmap="gray", vmin=np.quantile(tiles, 0.01), vmax=np.quantile(tiles, 0.999))
    axes.set_title(f"extracted at {stack.pixel_size:.2f} Å per pixel")
    axes.set_axis_off()


def draw_fsc(axes, folder: Path) -> None:
    """The curves of post-processing."""
    tables = star.read(folder / "PostProcess/job006/postprocess.star")
    for label, name in COLUMNS:
        axes.plot(tables["fsc"]["rlnResolution"], tables["fsc"][label], label=name)
    axes.axhline(0.143, color="gray", lw=0.8)
    resolution = tables["general"].value("rlnFinalResolution")
    axes.set(title=f"FSC of the half maps: {resolution:.2f} Å", xlabel="1 / Å", ylim=(-0.1, 1.05))
    axes.legend(frameon=False)


if __name__ == "__main__":
    print(main(Path(sys.argv[1] if len(sys.argv) > 1 else "tutorial_output")))
