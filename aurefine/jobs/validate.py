"""The validation job: resolution, model, hand, anisotropy and orientation sampling of a refinement, in one table and picture."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from aurefine.jobs.options import Option
from aurefine.jobs.outputs import OVERWRITE, with_own_directory
from aurefine.jobs.refine3d import stored_values
from aurefine.validation.options import ValidateOptions

NAME = "validate"
SUMMARY = "Validate a refinement, aurefine's or RELION's: directional FSC, sampling by views, model, hand, noise substitution."

_DEFAULT = ValidateOptions()


def _option(flag: str, name: str, label: str, tab: str, kind: Any, help: str, unit: str = "") -> Option:
    return Option(name, flag, label, tab, getattr(_DEFAULT, name), kind, help, unit=unit)


OPTIONS = (
    _option("--i", "run", "Refinement", "I/O", "file",
            "Directory of a refinement, the root of its names, one of its STAR files, or an unfiltered half map"),
    _option("--o", "output", "Output folder", "I/O", "text", "Folder for validation.star, .json, .png, .pdf and 3dfsc.mrc"),
    _option("--i2", "half2", "Other half map", "I/O", "file", "The other half map, where its name is not that of --i with half1 for half2"),
    _option("--data", "data", "Particles", "I/O", "file", "Refined particles (_data.star), where they do not lie beside the half maps"),
    _option("--mask", "mask", "Solvent mask", "I/O", "file", "Solvent mask; without one a sphere of the particle's diameter"),
    _option("--model", "model", "Atomic model", "I/O", "file", "Atomic model (mmCIF or PDB): map-model FSC and hand"),
    _option("--reference_map", "reference_map", "Reference map", "I/O", "file", "Map of the same molecule with a hand that is known, for the hand"),
    OVERWRITE,
    _option("--angpix", "pixel_size", "Pixel size", "Measures", "float", "Calibrated pixel size; negative: that of the header", "A"),
    _option("--sym", "symmetry", "Point group", "Measures", "text", "Point group; empty: that of the refinement"),
    _option("--cone", "cone", "Cone", "Measures", "float", "Half-angle of the cones of the directional FSC", "deg"),
    _option("--fourier_radius", "fourier_radius", "Fourier radius", "Measures", "int", "Shell on which the sampling by the views is counted"),
    _option("--skip_reslog", "skip_reslog", "Skip ResLog", "Measures", "switch", "No reconstructions of subsets of the particles"),
    _option("--fit_model", "fit_model", "Fit the model", "Measures", "switch",
            "Move the model to where it fits before its FSC is taken, and write model_fitted.cif"),
    _option("--skip_hand", "skip_hand", "Skip the hand", "Measures", "switch", "No search with both hands of the model or reference map"),
    _option("--noise_substitution", "noise_substitution", "Noise substitution", "Measures", "switch",
            "Refine again with random phases beyond a resolution: what agrees there was made of noise (Chen et al. 2013)"),
    _option("--substitute_from", "substitute_from", "Random phases from", "Measures", "float",
            "Resolution beyond which phases are random; 0: where the masked FSC falls below 0.8", "A"),
    _option("--substitute_from_start", "substitute_from_start", "From the start", "Measures", "switch",
            "Substitution: the whole refinement again, not only its local searches from the poses found"),
    _option("--random_seed", "random_seed", "Random seed", "Running", "int", "Seed of random phases and random subsets; negative: from the clock"),
    _option("--j", "threads", "Threads", "Running", "int", "Threads; 0: all cores"),
    Option("pipeline_control", "--pipeline_control", "Job directory", "Running", "", "text", "Directory where the job says how it ended"),
)  # fmt: skip


def build(values: Mapping[str, Any], arguments: Sequence[str] = ()) -> ValidateOptions:
    """ValidateOptions from parsed values. A job with a directory of its own may replace its own files."""
    return replace(_DEFAULT, **with_own_directory(values), command_line=shlex.join(arguments), read_command_line=stored_values)


def run(values: Mapping[str, Any], arguments: Sequence[str] = ()) -> int:
    """Validate what `values` describe; returns the exit code. Raises InputError for a user's mistake."""
    from aurefine.job_control import job_control
    from aurefine.validation import validate
    from aurefine.validation.tables import printed

    with job_control(values.get("pipeline_control", ""), "start it again.") as control:
        options = build(values, arguments)
        found = validate(options, control)
        print("\n".join(printed(found)))
        print(f"\n Written: {options.path('validation.png')}, .pdf, .star, .json")
    return 0
