"""The reconstruct job: a map from particles with given poses, with flags named as relion_reconstruct's."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from aurefine.errors import InputError
from aurefine.jobs.options import Option
from aurefine.jobs.outputs import OVERWRITE, free

NAME = "reconstruct"
SUMMARY = "Make a map of particles at the poses that their STAR file gives, without aligning them (relion_reconstruct)."
OPTIONS = (
    Option("input", "--i", "Particles with their orientations (_data.star)", "I/O", "", "file"),
    Option("output", "--o", "Map to write", "I/O", "relion.mrc", "file"),
    OVERWRITE,
    Option("subset", "--subset", "1 or 2: only that half-set; any other number: all particles", "I/O", -1, "int"),
    Option("class_number", "--class", "Only this class; -1: all", "I/O", -1, "int"),
    Option("symmetry", "--sym", "Point group", "Reconstruction", "C1"),
    Option("ctf_correction", "--ctf", "Correct for the CTF", "Reconstruction", False, "switch"),
    Option("ctf_intact_first_peak", "--ctf_intact_first_peak", "Leave the CTF as 1 up to its first peak", "Reconstruction", False, "switch"),
    Option("resolution", "--maxres", "Leave out what is finer than this; -1: nothing", "Reconstruction", -1.0, "float", unit="A"),
    Option("padding", "--pad", "Padding factor", "Reconstruction", 2.0, "float"),
    Option("iterations", "--iter", "Iterations of the gridding correction", "Reconstruction", 10, "int"),
    Option("skip_gridding", "--skip_gridding", "Skip them", "Reconstruction", False, "switch"),
    Option("threads", "--j", "Number of threads", "Running", 1, "int"),
)


def run(values: Mapping[str, Any], arguments: Sequence[str] = ()) -> int:
    """Write the map; returns the exit code. Raises InputError for a user's mistake."""
    given = {option.name: option.default for option in OPTIONS} | dict(values)
    if not given["input"]:
        raise InputError("aurefine reconstruct: --i is missing; give the STAR file of particles with poses")
    output = free(given["output"], given["overwrite"])
    import torch

    from aurefine import mrc, particles, reconstruction
    from aurefine.refine.console import Console

    torch.set_num_threads(max(given["threads"], min(2, os.cpu_count() or 1)))
    found = particles.load(given["input"], need_ctf=given["ctf_correction"])
    if "rlnAngleRot" not in found.table:
        raise InputError(f"{given['input']}: data_particles has no column rlnAngleRot; refined particles (_data.star) were expected")
    rows = _rows(found, given)
    with Console().progress(f" Back-projecting {len(rows)} particles ...", len(rows)) as bar:
        volume = reconstruction.from_poses(
            found, rows, given["symmetry"], use_ctf=given["ctf_correction"], padding=given["padding"], resolution=given["resolution"],
            gridding=0 if given["skip_gridding"] else given["iterations"], intact_first_peak=given["ctf_intact_first_peak"], tell=bar.update,
        )  # fmt: skip
    mrc.write_map(output, volume, found.optics[0].pixel_size)
    print(f" Written: {given['output']}")
    return 0


def _rows(found: Any, given: Mapping[str, Any]) -> Any:
    """The particles asked for; InputError when there are none."""
    import numpy as np

    wanted = np.ones(found.count, bool)
    if given["subset"] in (1, 2):
        wanted &= found.random_subset == given["subset"]
    if given["class_number"] > 0:
        wanted &= found.class_number == given["class_number"]
    if not wanted.any():
        raise InputError(f"{given['input']}: no particle has rlnRandomSubset {given['subset']} and class {given['class_number']} as asked for; "
                         "leave out --subset or --class")
    return np.flatnonzero(wanted)
