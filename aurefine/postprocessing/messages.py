"""The lines that RELION's post-processing prints, as functions of what they tell (ALGORITHM.md 9.2)."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

Say = Callable[[str], None]


def speaker(verbosity: int) -> Say:
    """Prints lines at once, or nothing at verbosity 0."""

    def say(line: str) -> None:
        if verbosity > 0:
            print(line, flush=True)

    return say


def warn(line: str) -> None:
    """A warning on the error stream, whatever the verbosity."""
    print(f"WARNING: {line}", file=sys.stderr, flush=True)


def field(name: str, value: object) -> str:
    """`  + name:` padded to 35 characters, then the value; floats with six digits."""
    return f"{f'  + {name}: ':<35}{f'{value:g}' if isinstance(value, float) else value}"


def reading(names: tuple[str, str]) -> list[str]:
    """What is read."""
    return ["== Reading input half-reconstructions: ", field("half1-map", names[0]), field("half2-map", names[1])]


def mask_lines(name: str, fraction: float, molecular_weight: float) -> list[str]:
    """What the mask holds; the weight in Dalton."""
    return ["== Using a user-provided mask ... ", field("input mask", name), field("fraction f (solvent mask based)", fraction),
            field("molecular weight inside protein mask", molecular_weight)]  # fmt: skip


def weight_lines(molecular_weight: float, fraction: float) -> list[str]:
    """The particle's weight that was given (kDa)."""
    return [field("ordered molecular weight (kDa)", molecular_weight), field("fraction f (molweight based)", fraction)]


def randomised_from(resolution: float) -> str:
    """Where randomised phases begin."""
    return field("randomize phases beyond", f"{resolution:g} Angstroms")


def mtf_lines(name: str) -> list[str]:
    """The MTF that the map is divided by."""
    return ["== Dividing map by the MTF of the detector ...", field("mtf STAR-file", name)]


def fit_lines(lowres: float, highres: float, slope: float, intercept: float, correlation: float, bfactor: float) -> list[str]:
    """The line through the Guinier plot."""
    lines = ["== Fitting straight line through Guinier plot to find B-factor ...", field("fit from resolution", lowres),
             field("fit until resolution", highres), field("slope of fit", slope), field("intercept of fit", intercept),
             field("correlation of fit", correlation)]  # fmt: skip
    return lines + ([field("apply b-factor of", bfactor)] if bfactor != 0 else [])


def sharpening_lines(bfactor: float) -> list[str]:
    """A B-factor given by the user."""
    return ["== Using a user-provided (ad-hoc) B-factor ...", field("apply b-factor of", bfactor)]


WEIGHTING = "== Applying sqrt(2*FSC/(FSC+1)) weighting (as in Rosenthal & Henderson, 2003) ..."
MASKING = "== Masking input maps ..."
NO_MASK = "== Not performing any masking ... "
WRITING = "== Writing output files ..."
HALVES = "== Writing half maps after applying same sharpening and low-pass filter"


def filter_lines(resolution: float) -> list[str]:
    """The low-pass filter of the final map."""
    return ["== Low-pass filtering final map ... ", field("filter frequency", resolution)]


def assumed_mtf_pixel(pixel_size: float) -> str:
    """Where the detector's pixel size was not given."""
    return f" + --mtf_angpix was not provided, assuming pixel size in raw micrographs is the same as in particles, {pixel_size:g} A/px."


def histogram_lines(values: np.ndarray, edges: np.ndarray) -> list[str]:
    """Statistics of the local resolutions inside the mask, and their counts between the edges."""
    low, first, median, third, high = np.percentile(values, [0, 25, 50, 75, 100])
    lines = [f"Number of items: {len(values)}", f"Min: {low:g} Q1: {first:g} Median: {median:g} Q3: {third:g} Max: {high:g}",
             f"Mean: {values.mean(dtype=float):g} Std: {values.std(dtype=float):g}",
             f"Bin size: {len(edges) - 1} width: {edges[1] - edges[0]:g}"]  # fmt: skip
    counts, _ = np.histogram(values, edges)
    return lines + [f"[{a:g}, {b:g}): {count}" for a, b, count in zip(edges[:-1], edges[1:], counts, strict=True)]
