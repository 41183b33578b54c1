"""The rows of the table on anisotropy: of the half maps (cones) and of the views alone (sampling, efficiency)."""

from __future__ import annotations

import numpy as np

from aurefine.job_control import JobControl
from aurefine.postprocessing.inputs import HalfMaps
from aurefine.validation import cones, efficiency, sampling
from aurefine.validation.inputs import Given
from aurefine.validation.options import ValidateOptions
from aurefine.validation.result import Measure, Validation, graded

CFAR = "cryoSPARC, Orientation Diagnostics; Baldwin & Lyumkis 2021"
TAN = "Tan et al. 2017; Aiyer et al. 2021"
SCF = "Baldwin & Lyumkis 2020, 2021"
EOD = "Naydenova & Russo 2017"


def of_maps(found: Validation, given: Given, options: ValidateOptions, control: JobControl) -> None:
    """Conical FSC, cFAR, 3D FSC and its sphericity."""
    if given.halves is None:
        for label, key, source in (("cFAR", "cfar", CFAR), ("3D FSC sphericity", "sphericity", TAN)):
            found.missing(label, key, f"{given.files.name}: there are no unfiltered half maps (the refinement has not finished)", source)
        return
    conical = cones.measure(*given.masked, options.cone)
    _keep(found, conical, given.halves)
    ratio, ball = conical.area_ratio(), conical.sphericity()
    best, most, worst = cones.resolutions(conical, 0.143, given.halves.box, given.halves.pixel_size)
    found.add(
        Measure("cfar", "cFAR", ratio, "", graded(ratio, 0.5, 0.5), _told(ratio, 0.5, "no sign of preferred orientation in the map",
                "the map is anisotropic: preferred orientation, or particles that add nothing") + " (threshold 0.5)", CFAR),
        Measure("sphericity", "3D FSC sphericity", ball, "", graded(ball, 0.9, 0.8),
                _told(ball, 0.9, "close to a sphere", "resolution depends on the direction") + " (at FSC 0.5; marked below 0.9)", TAN),
        Measure("worst_direction", "Worst direction, FSC 0.143", worst, "A", "info",
                f"best direction {best:.2f} A; 95 % of directions reach {most:.2f} A (cones of {options.cone:g} degrees)", TAN),
    )  # fmt: skip
    found.arrays["conical"] = conical


def _keep(found: Validation, conical: cones.ConicalFsc, halves: HalfMaps) -> None:
    frequency = np.arange(halves.box // 2 + 1) / (halves.box * halves.pixel_size)
    bounds = conical.bounds()
    found.curves["conical_fsc"] = {"frequency": frequency, "fsc": conical.whole, **{f"fsc_{name}": curve for name, curve in bounds.items()}}
    directions = conical.grid.directions
    found.curves["directions"] = {
        "x": directions[:, 0], "y": directions[:, 1], "z": directions[:, 2], "area_under_fsc": conical.areas() / (halves.box * halves.pixel_size),
        "resolution_0143": halves.box * halves.pixel_size / conical.crossings(0.143).clip(min=1e-6),
    }  # fmt: skip


def of_views(found: Validation, given: Given, options: ValidateOptions, control: JobControl) -> None:
    """SCF* and E_od."""
    if given.angles is None:
        for label, key, source in (("SCF*", "scf", SCF), ("Efficiency E_od", "efficiency", EOD)):
            found.missing(label, key, f"there is no particle table beside {given.files.name}; give the refined particles with --data", source)
        return
    views = sampling.views_of(given.angles, given.symmetry)
    seen = sampling.measure(views, options.fourier_radius)
    resolution = found.value("fsc_masked") or found.value("fsc_unmasked") or 0
    ratio = given.files.diameter / resolution if resolution and given.files.diameter else 30.0
    even = efficiency.measure(views, ratio)
    found.add(
        Measure("scf", "SCF*", seen.scf, "", graded(seen.scf, sampling.SIDE_VIEWS, 0.5), _told(
            seen.scf, sampling.SIDE_VIEWS, "views sample Fourier space at least as evenly as side views do", "views leave directions thinly sampled")
            + f" (threshold 0.81; {100 * seen.empty:.1f} % of shell {seen.radius} empty)", SCF),
        Measure("efficiency", "Efficiency E_od", even.value, "", graded(even.value, 0.8, 0.5),
                f"resolution by direction {even.relative.min():.2f} to {even.relative.max():.2f} times that of even views (marked below 0.8)", EOD),
    )  # fmt: skip
    found.arrays |= {"sampling": seen, "efficiency": even}
    mean = max(float(seen.grid.area @ seen.counts), 1e-9)
    for name, grid, values in (("sampling", seen.grid, seen.counts / mean), ("efficiency", even.grid, even.relative)):
        found.curves[name] = {axis: grid.directions[:, column] for column, axis in enumerate("xyz")} | {"times_even": np.asarray(values, float)}


def _told(value: float, threshold: float, good: str, bad: str) -> str:
    return good if value >= threshold else bad
