"""The mask creation job: a soft solvent mask from a map, or of given radii (ALGORITHM.md 9.1, 10.5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aurefine import mask_create, mrc
from aurefine.atomic import without_waiting_for_the_disk
from aurefine.errors import InputError
from aurefine.image_operations import bandpass_gain, filter_radial
from aurefine.job_control import JobControl, job_control
from aurefine.jobs.image_handler_flags import size_text
from aurefine.jobs.options import Option
from aurefine.jobs.outputs import OVERWRITE, free
from aurefine.mask_threshold import Threshold, find_threshold
from aurefine.threads import thread_count, use_threads

NAME = "mask_create"
SUMMARY = "Make a soft solvent mask: from a map (with a threshold found by itself where none is given), or of given radii."
_COMBINATIONS = ("and", "or", "and_not", "or_not")
OPTIONS = (
    Option("input", "--i", "Input 3D map:", "I/O", "", "file"),
    Option("output", "--o", "Output mask", "I/O", "mask.mrc", "file"),
    OVERWRITE,
    Option("pipeline_control", "--pipeline_control", "Job directory for exit and abort files", "I/O", "", "file"),
    Option("lowpass", "--lowpass", "Lowpass filter map (A):", "Mask", -1.0, "float", "Low-pass filter before binarisation; negative: none, but "
           "15 A (or 4 pixels, where that is coarser) when the threshold is to be found", (10, 100, 5), unit="A"),
    Option("pixel_size", "--angpix", "Pixel size (A):", "Mask", -1.0, "float", "Pixel size; negative: the header's", (0.3, 5, 0.1), unit="A"),
    Option("threshold", "--ini_threshold", "Initial binarisation threshold:", "Mask", None, "float",
           "Voxels at or above it make the initial mask; left out, it is found from the map and printed", (0, 0.5, 0.01)),
    Option("extend", "--extend_inimask", "Extend binary map this many pixels:", "Mask", 0.0, "float",
           "Grow the initial mask by this many pixels; negative: shrink it", (0, 20, 1), unit="px"),
    Option("edge", "--width_soft_edge", "Add a soft-edge of this many pixels:", "Mask", 0.0, "float", "Width of the soft edge outside the mask",
           (0, 20, 1), unit="px"),
    Option("and", "--and", "And this map", "Mask", "", "file", "The initial mask is where the input AND this map reach the threshold"),
    Option("or", "--or", "Or this map", "Mask", "", "file", "... the input OR this map"),
    Option("and_not", "--and_not", "And not this map", "Mask", "", "file", "... the input AND NOT this map"),
    Option("or_not", "--or_not", "Or not this map", "Mask", "", "file", "... the input OR NOT this map"),
    Option("invert", "--invert", "Invert the mask", "Mask", False, "switch", "Invert the finished mask"),
    Option("helix", "--helix", "Mask a 3D helix?", "Helix", False, "switch", "Keep only the centre of the z axis"),
    Option("z_fraction", "--z_percentage", "Central Z length (%):", "Helix", 0.3, "float", "That part of the box along z, as a fraction"),
    Option("denovo", "--denovo", "Create a mask de novo", "De novo", False, "switch", "Make a (hollow) sphere instead, without a map"),
    Option("box", "--box_size", "Box", "De novo", -1, "int", "Box of that mask", unit="px"),
    Option("inner_radius", "--inner_radius", "Inner radius", "De novo", 0.0, "float", unit="px"),
    Option("outer_radius", "--outer_radius", "Outer radius", "De novo", 99999.0, "float", unit="px"),
    Option("centre_x", "--center_x", "Centre in x, from the box's centre", "De novo", 0.0, "float", unit="px"),
    Option("centre_y", "--center_y", "Centre in y", "De novo", 0.0, "float", unit="px"),
    Option("centre_z", "--center_z", "Centre in z", "De novo", 0.0, "float", unit="px"),
    Option("threads", "--j", "Number of threads:", "Running", 0, "int", "Threads; 0: all cores"),
)  # fmt: skip
_DALTON_ANGSTROM3 = 1.21  # volume of protein
_AUTOMATIC_LOWPASS, _AUTOMATIC_PIXELS = 15.0, 4.0


def run(values: Mapping[str, Any], arguments: Sequence[str] = ()) -> int:
    """Write the mask that `values` ask for; returns the exit code. Raises InputError for a user's mistake."""
    given = {option.name: option.default for option in OPTIONS} | dict(values)
    with job_control(given["pipeline_control"], "run it again.") as control:
        _check(given)
        output = free(given["output"], given["overwrite"])
        threads = thread_count(given["threads"])
        with use_threads(threads):
            mask, pixel_size = _denovo(given) if given["denovo"] else _from_map(given, threads, control)
        if given["invert"]:
            mask = np.subtract(1, mask, out=mask)
        if not mask.any():
            inverted = " once inverted" if given["invert"] else ""
            raise InputError(f"the mask is empty{inverted}, so nothing is written; change the options that shape it")
        with without_waiting_for_the_disk(not control.in_project):
            mrc.write_map(output, mask, pixel_size)
        print(f" The mask covers {100 * mask.mean(dtype=np.float64):.2f} % of the box.\n Done creating mask! Written out: {output}")
    return 0


def _check(given: Mapping[str, Any]) -> None:
    if bool(given["input"]) == given["denovo"]:
        raise InputError("aurefine mask_create: give either --i, a map to make the mask from, or --denovo for a sphere")
    if given["denovo"] and given["box"] < 1:
        raise InputError(f"--box_size is {given['box']}; --denovo needs the box of the mask in pixels")
    if given["denovo"] and given["inner_radius"] >= given["outer_radius"]:
        raise InputError(f"--inner_radius {given['inner_radius']:g} is not below --outer_radius {given['outer_radius']:g}: nothing would be left")
    if given["edge"] < 0:
        raise InputError(f"--width_soft_edge is {given['edge']:g}; a number of pixels was expected, 0 for no edge")
    if given["helix"] and not 0 < given["z_fraction"] <= 1:
        raise InputError(f"--z_percentage is {given['z_fraction']:g}; a fraction of the box above 0 was expected, such as 0.3 for 30 %")
    if not given["output"].lower().endswith((".mrc", ".map")):
        raise InputError(f"--o {given['output']}: the name of a map was expected, ending in .mrc")


def _denovo(given: Mapping[str, Any]) -> tuple[np.ndarray, float]:
    centre = (given["centre_x"], given["centre_y"], given["centre_z"])
    mask = mask_create.shell(given["box"], given["inner_radius"], given["outer_radius"], centre, given["edge"])
    if given["pixel_size"] <= 0:
        print(" Note: --angpix was not given; the mask's header says 1 A per pixel.")
    return mask, given["pixel_size"] if given["pixel_size"] > 0 else 1.0


def _from_map(given: Mapping[str, Any], threads: int, control: JobControl) -> tuple[np.ndarray, float]:
    """The mask [z, y, x] float32 and its pixel size in Angstrom."""
    volume, header_size = mrc.read_map(given["input"])
    pixel_size = given["pixel_size"] if given["pixel_size"] > 0 else header_size
    lowpass = given["lowpass"]
    if given["threshold"] is None and lowpass <= 0:
        lowpass = max(_AUTOMATIC_LOWPASS, _AUTOMATIC_PIXELS * pixel_size)
    volume = _filtered(volume, lowpass, pixel_size)
    threshold = given["threshold"]
    if threshold is None:
        threshold = _found(volume, lowpass, pixel_size, given["input"])
    binary = volume >= np.float32(threshold)
    if not binary.any():
        raise InputError(f"{given['input']}: no voxel reaches --ini_threshold {threshold:g}; the densities{_after(lowpass)} are "
                         f"{volume.min():.4g} to {volume.max():.4g}. Lower it, or leave it out to have it found")  # fmt: skip
    del volume
    for how in _COMBINATIONS:
        if given[how]:
            binary = _combined(binary, given[how], how, threshold, lowpass, pixel_size)
            if not binary.any():
                raise InputError(f"{given[how]} (--{how}) leaves nothing of the mask; look at both maps, or change --ini_threshold")
    control.check()
    _describe(binary, threshold, pixel_size)
    binary = mask_create.extend(binary, given["extend"], threads)
    if not binary.any():
        raise InputError(f"--extend_inimask {given['extend']:g} shrinks the mask until nothing is left; give a number nearer to 0")
    control.check()
    mask = mask_create.soften(binary, given["edge"], threads)
    if not given["helix"] and any(mask.take(side, axis).any() for axis in range(3) for side in (0, -1)):
        print(" WARNING: the mask reaches the edge of the box; the box is too small for the particle, or the threshold too low.")
    return (mask_create.central_part(mask, given["z_fraction"], given["edge"]) if given["helix"] else mask), pixel_size


def _filtered(volume: np.ndarray, lowpass: float, pixel_size: float) -> np.ndarray:
    return filter_radial(volume, bandpass_gain(volume.shape[-1], pixel_size, lowpass)) if lowpass > 0 else volume


def _after(lowpass: float) -> str:
    return f" after low-pass filtering to {lowpass:g} A" if lowpass > 0 else ""


def _combined(binary: np.ndarray, path: str, how: str, threshold: float, lowpass: float, pixel_size: float) -> np.ndarray:
    other, _ = mrc.read_map(path)
    if other.shape != binary.shape:
        raise InputError(f"{path} (--{how}) has {size_text(other.shape)} voxels, but the input has {size_text(binary.shape)}; bring it to "
                         "that size first with aurefine image_handler --rescale_angpix and --new_box")  # fmt: skip
    return mask_create.combine(binary, _filtered(other, lowpass, pixel_size) >= np.float32(threshold), how)


def _found(volume: np.ndarray, lowpass: float, pixel_size: float, path: str) -> float:
    """A threshold found from the filtered map, explained on the screen."""
    try:
        found = find_threshold(volume)
    except ValueError as error:
        raise InputError(f"{path}: {error}; there is nothing to make a mask of") from error
    print(f" No --ini_threshold was given; it was found from the map, low-pass filtered to {lowpass:g} A:\n"
          f"   density of the solvent  {found.solvent:.4g} +- {found.noise:.4g}\n"
          f"   density of the particle {found.particle:.4g}, {found.separation:.0f} times the solvent's noise above it\n"
          f"   threshold               {found.value:.4g}, {_where(found)}\n"
          f" The same mask comes of --lowpass {lowpass:g} --ini_threshold {found.value:.6g}")  # fmt: skip
    if not found.is_clear:
        print(" WARNING: particle and solvent are hardly told apart in this map. Look at the mask, and give --ini_threshold if it is wrong.")
    return found.value if found.value == 0 else float(f"{found.value:.6g}")  # what was printed gives the same mask


def _where(found: Threshold) -> str:
    share = (found.value - found.solvent) / (found.particle - found.solvent)
    return f"{100 * share:.0f} % of the way from the one to the other ({(found.value - found.solvent) / max(found.noise, 1e-30):.1f} times the noise)"


def _describe(binary: np.ndarray, threshold: float, pixel_size: float) -> None:
    count = int(np.count_nonzero(binary))
    volume = count * pixel_size**3
    print(f" {count} voxels ({100 * count / binary.size:.2f} % of the box) reach the threshold {threshold:.6g}: {volume:.3g} A^3, as much as "
          f"{volume / _DALTON_ANGSTROM3 / 1000:.0f} kDa of protein fill.")  # fmt: skip
    if count == binary.size:
        print(" WARNING: that is the whole box; the threshold is too low.")
