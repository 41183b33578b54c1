"""The compare job: a refinement's poses and map against the truth of simulated particles."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aurefine.errors import InputError
from aurefine.jobs.options import Option
from aurefine.jobs.outputs import OVERWRITE, free

NAME = "compare"
SUMMARY = "Compare a refinement's poses (--i, --truth) and its map (--map, --truth_map) with the truth."
OPTIONS = (
    Option("poses", "--i", "Refined particles (_data.star)", "Poses", "", "file"),
    Option("truth", "--truth", "True poses (truth.star; also that of micrographs)", "Poses", "", "file"),
    Option("true_poses", "--write_truth", "File to write the particles of --i with their true poses to, and no more", "Poses", "", "file"),
    OVERWRITE,
    Option("symmetry", "--sym", "Point group", "Poses", "C1"),
    Option("half_map", "--half_map", "One unfiltered half map of that run: is it as good as true poses allow?", "Poses", "", "file"),
    Option("mask", "--mask", "Soft mask for that", "Poses", "", "file"),
    Option("map", "--map", "Refined map (.mrc)", "Map", "", "file"),
    Option("truth_map", "--truth_map", "True map (truth.mrc)", "Map", "", "file"),
    Option("mask_diameter", "--mask_diameter", "Diameter of the sphere that maps are masked with; 0 means no mask", "Map", 0.0, "float", unit="A"),
    Option("align", "--no_align", "Do not turn and move the map to fit the truth", "Map", True, "switch", value=False),
    Option("output", "--json", "File to write the numbers and the FSC curve to", "Output", "", "file"),
)


def run(values: Mapping[str, Any], arguments: Sequence[str] = ()) -> int:
    """Print, and write if asked to, the errors; returns the exit code. Raises InputError for a user's mistake."""
    given = {option.name: option.default for option in OPTIONS} | dict(values)
    for one, other, flags in (("poses", "truth", "--i and --truth"), ("map", "truth_map", "--map and --truth_map")):
        if bool(given[one]) != bool(given[other]):
            raise InputError(f"aurefine compare: {flags} belong together; one of them is missing")
    for name, flag in (("true_poses", "--write_truth"), ("half_map", "--half_map")):
        if given[name] and not given["poses"]:
            raise InputError(f"aurefine compare: {flag} needs the particles (--i) and the truth (--truth)")
    if not given["poses"] and not given["map"]:
        raise InputError("aurefine compare: nothing to compare; give --i with --truth, or --map with --truth_map, or all four")
    result = compare(given)
    if given["output"]:
        Path(given["output"]).write_text(json.dumps(result, indent=1) + "\n")
    return 0


def compare(given: Mapping[str, Any]) -> dict[str, Any]:
    """Errors as {"poses": ..., "map": ...} (those asked for), printed on the way."""
    from aurefine.compare import map_file_fsc, pose_errors

    result: dict[str, Any] = {}
    if given["true_poses"]:
        from aurefine.truth import write_true_poses

        result["true_poses"] = count = write_true_poses(given["poses"], given["truth"], free(given["true_poses"], given["overwrite"]))
        print(f" True poses of {count} particles: {given['true_poses']}")
    elif given["poses"]:
        poses = result["poses"] = pose_errors(given["poses"], given["truth"], given["symmetry"])
        print(f" Poses of {poses['particles']:.0f} particles, modulo {given['symmetry']} and a common motion of {poses['frame_angle']:.2f} degrees, "
              f"{poses['frame_shift']:.2f} A:\n   angles: median {poses['angle_median']:.2f}, 90 % within {poses['angle_p90']:.2f} degrees\n"
              f"   shifts: median {poses['shift_median']:.2f}, 90 % within {poses['shift_p90']:.2f} A")
    if given["half_map"]:
        result["attainable"] = _attainable(given)
    if given["map"]:
        found = map_file_fsc(given["map"], given["truth_map"], given["mask_diameter"] / 2 or None, given["align"])
        result["map"] = found.summary() | {"fsc": [round(float(value), 5) for value in found.curve]}
        hand = "" if found.mirror_mean_fsc <= found.mean_fsc else " The mirror image fits better: the hand is wrong."
        print(f" Map (aligned by {found.angle:.2f} degrees, {found.shift:.2f} A): FSC 0.5 at {found.resolution_half:.2f} A, "
              f"0.143 at {found.resolution_0143:.2f} A, mean {found.mean_fsc:.3f}.{hand}")
    return result


def _attainable(given: Mapping[str, Any]) -> dict[str, float]:
    from aurefine.attainable import attainable

    found = attainable(given["poses"], given["truth"], given["half_map"], given["symmetry"], given["mask"])
    print(f" Half maps, FSC 0.143: {found.refined:.2f} A; with the true poses {found.true:.2f} A")
    if found.refined_masked is not None:
        print(f"   within the mask: {found.refined_masked:.2f} A; with the true poses {found.true_masked:.2f} A")
    return found.summary()
