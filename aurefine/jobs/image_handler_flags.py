"""Every flag of RELION's image handler, and what the values ask for (ALGORITHM.md 8)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from aurefine.errors import InputError
from aurefine.image_files import ImageInput, open_input, read_volume
from aurefine.image_operations import Operations
from aurefine.jobs.options import Option
from aurefine.jobs.outputs import OVERWRITE
from aurefine.mrc import read_header

_MOVIES = "movies are summed by motion correction (RELION's, MotionCor2 or another)"
_COLOURS = "PNG pictures are grey here"


def _refused(flag: str, why: str, default: Any = "", takes_value: bool = True) -> Option:
    return Option(flag, flag, flag, "Without effect", default, "text", why, effect="unsupported", takes_value=takes_value)


_IO = (
    Option("input", "--i", "Map or image (.mrc), stack (.mrcs) or STAR list of them", "General options", "", "file"),
    Option("output", "--o", "Output name; for a STAR list: a text put before each file's ending, or one stack (.mrcs) for all images",
           "General options", "", "file"),
    replace(OVERWRITE, tab="General options"),
    Option("float16", "--float16", "Write 16-bit floats (MRC mode 12)", "General options", False, "switch"),
    Option("threads", "--j", "Threads; 0: all cores", "General options", 0, "int"),
    Option("pipeline_control", "--pipeline_control", "Job directory for exit and abort files", "General options", "", "file"),
)  # fmt: skip
_ARITHMETIC = (
    Option("multiply_constant", "--multiply_constant", "Multiply by this constant", "image-by-constant operations", 1.0, "float"),
    Option("divide_constant", "--divide_constant", "Divide by this constant", "image-by-constant operations", 1.0, "float"),
    Option("add_constant", "--add_constant", "Add this constant", "image-by-constant operations", 0.0, "float"),
    Option("subtract_constant", "--subtract_constant", "Subtract this constant", "image-by-constant operations", 0.0, "float"),
    Option("threshold_above", "--threshold_above", "Lower all values above this one to it", "image-by-constant operations", None, "float"),
    Option("threshold_below", "--threshold_below", "Raise all values below this one to it", "image-by-constant operations", None, "float"),
    Option("multiply", "--multiply", "Multiply by this image or map", "image-by-image operations", "", "file"),
    Option("divide", "--divide", "Divide by this image or map; 0 where it is 0", "image-by-image operations", "", "file"),
    Option("add", "--add", "Add this image or map", "image-by-image operations", "", "file"),
    Option("subtract", "--subtract", "Subtract this image or map", "image-by-image operations", "", "file"),
    Option("optimise_scale", "--optimise_scale_subtract", "Scale what is subtracted for the smallest rest",
           "image-by-image operations", False, "switch"),
    Option("optimise_mask", "--mask_optimise_subtract", "Find that scale inside this mask", "image-by-image operations", "", "file"),
    Option("adjust_power", "--adjust_power", "Give each shell the mean amplitude that it has in this image or map",
           "image-by-image operations", "", "file"),
    Option("fourier_filter", "--fourier_filter", "Multiply the Fourier transform by this image or map (frequency 0 at its centre)",
           "image-by-image operations", "", "file"),
    Option("fsc", "--fsc", "Print the FSC with this image or map", "image-by-image operations", "", "file"),
    Option("power", "--power", "Print the power spectrum |F|^2", "image-by-image operations", False, "switch"),
)  # fmt: skip
_PER_IMAGE = (
    Option("stats", "--stats", "Print sizes, average, standard deviation, smallest and largest value", "per-image operations", False, "switch"),
    Option("com", "--com", "Print the centre of mass of the positive density", "per-image operations", False, "switch"),
    Option("bfactor", "--bfactor", "Apply a B-factor; negative sharpens", "per-image operations", 0.0, "float", unit="A^2"),
    Option("lowpass", "--lowpass", "Low-pass filter; negative: none", "per-image operations", -1.0, "float", unit="A"),
    Option("highpass", "--highpass", "High-pass filter; negative: none", "per-image operations", -1.0, "float", unit="A"),
    Option("directional", "--directional", "Low-pass along X, Y or Z only", "per-image operations", ""),
    Option("laplacian_diameter", "--LoG", "Laplacian of Gaussian that answers best to blobs of this diameter", "per-image operations", -1.0,
           "float", unit="A"),
    Option("edge_width", "--filter_edge_width", "Width of the filters' raised-cosine edge in shells", "per-image operations", 2, "int"),
    Option("pixel_size", "--angpix", "Pixel size of the input; negative: its header's", "per-image operations", -1.0, "float", unit="A"),
    Option("rescale_pixel_size", "--rescale_angpix", "Resample to this pixel size (even box; the header says the true one)",
           "per-image operations", -1.0, "float", unit="A"),
    Option("header_pixel_size", "--force_header_angpix", "Pixel size to write into the header, whatever else is done", "per-image operations",
           -1.0, "float", unit="A"),
    Option("new_box", "--new_box", "Cut, or pad with zeros, to this box", "per-image operations", -1, "int", unit="px"),
    Option("flip_x", "--flipX", "Mirror in x", "per-image operations", False, "switch"),
    Option("flip_y", "--flipY", "Mirror in y", "per-image operations", False, "switch"),
    Option("flip_z", "--flipZ", "Mirror in z (maps)", "per-image operations", False, "switch"),
    Option("invert_hand", "--invert_hand", "Mirror in x about the centre pixel: keeps the origin of symmetry",
           "per-image operations", False, "switch"),
    Option("shift_com", "--shift_com", "Move the centre of mass of the positive density to the centre", "per-image operations", False, "switch"),
    Option("shift_x", "--shift_x", "Move by this many pixels in x", "per-image operations", 0.0, "float", unit="px"),
    Option("shift_y", "--shift_y", "Move by this many pixels in y", "per-image operations", 0.0, "float", unit="px"),
    Option("shift_z", "--shift_z", "Move by this many pixels in z", "per-image operations", 0.0, "float", unit="px"),
    Option("average_amplitude", "--avg_ampl", "Write the average amplitude of all images' transforms", "per-image operations", False, "switch"),
    Option("average_power", "--avg_ampl2", "Write the average squared amplitude of all images' transforms", "per-image operations", False, "switch"),
    Option("average", "--average", "Write the average of all images", "per-image operations", False, "switch"),
    Option("remove_nan", "--remove_nan", "Replace values that are no finite numbers", "per-image operations", False, "switch"),
    Option("replace_nan", "--replace_nan", "What to replace them by", "per-image operations", 0.0, "float"),
    Option("phase_randomise", "--phase_randomise", "Randomise phases beyond this resolution", "per-image operations", -1.0, "float", unit="A"),
    Option("seed", "--random_seed", "Seed of the random phases; negative: from the clock", "per-image operations", 0, "int"),
    Option("symmetry", "--sym", "Average a map over this point group", "3D operations", ""),
    Option("flip_xy", "--flipXY", "Exchange x and y (images)", "2D operations", False, "switch"),
    Option("flip_minus_xy", "--flipmXY", "Mirror on the other diagonal (images)", "2D operations", False, "switch"),
    Option("black", "--black", "Value that is black in a PNG picture", "PNG options", 0.0, "float"),
    Option("white", "--white", "Value that is white", "PNG options", 0.0, "float"),
    Option("sigma_contrast", "--sigma_contrast", "Black and white lie this many standard deviations from the mean", "PNG options", 0.0, "float"),
)  # fmt: skip
_WITHOUT_EFFECT = (
    _refused("--optimise_bfactor_subtract", "filter the map first with --bfactor, then --optimise_scale_subtract finds its scale", 0.0),
    _refused("--avg_ampl2_ali", "reconstruct or classify aligned images instead", takes_value=False),
    _refused("--correct_avg_ampl", "divide by an amplitude spectrum with --fourier_filter"),
    _refused("--minr_ampl_corr", "it belongs to --correct_avg_ampl", 0.0),
    _refused("--add_edge", "crop the micrographs with --new_box", takes_value=False),
    *(_refused(flag, "it belongs to --add_edge") for flag in ("--edge_x0", "--edge_y0", "--edge_xF", "--edge_yF")),
    *(_refused(flag, _MOVIES, -1.0) for flag in ("--avg_bin", "--avg_first", "--avg_last")),
    _refused("--average_all_movie_frames", _MOVIES, takes_value=False),
    *(_refused(f"--colour_{name}", _COLOURS, takes_value=False) for name in ("fire", "ice", "fire-n-ice", "rainbow", "difference")),
)  # fmt: skip
OPTIONS = (*_IO, *_ARITHMETIC, *_PER_IMAGE, *_WITHOUT_EFFECT)

_FLIPS = {"flip_x": "X", "flip_y": "Y", "flip_z": "Z", "invert_hand": "hand", "flip_xy": "XY", "flip_minus_xy": "mXY"}
_OPERANDS = ("multiply", "divide", "add", "subtract", "optimise_mask", "adjust_power", "fourier_filter")
_CONSTANTS = {"multiply_constant": 1.0, "divide_constant": 1.0, "add_constant": 0.0, "subtract_constant": 0.0}
_EXCLUSIVE = ("multiply", "divide", "add", "subtract", "adjust_power", "fourier_filter")
_FLAGS = {option.name: option.flag for option in OPTIONS}
_DEFAULTS = {option.name: option.default for option in OPTIONS}


def check(given: Mapping[str, Any]) -> None:
    """InputError for values that make no sense whatever the images are."""
    if not given["input"]:
        raise InputError("aurefine image_handler: --i is missing; give a map, an image, a stack or a STAR list of images")
    for name in ("lowpass", "highpass", "laplacian_diameter", "pixel_size", "rescale_pixel_size", "header_pixel_size", "phase_randomise"):
        if given[name] == 0:
            raise InputError(f"{_FLAGS[name]} is 0; a length in Angstrom was expected (negative: off)")
    if given["new_box"] != -1 and given["new_box"] < 1:
        raise InputError(f"--new_box is {given['new_box']}; a number of pixels above 0 was expected")
    if given["divide_constant"] == 0:
        raise InputError("--divide_constant is 0; divide by another number")
    if given["directional"] and given["directional"].upper() not in ("X", "Y", "Z"):
        raise InputError(f"--directional is {given['directional']!r}; X, Y or Z was expected")
    if given["directional"] and given["lowpass"] < 0:
        raise InputError("--directional belongs to --lowpass, which is missing")
    if (given["optimise_scale"] or given["optimise_mask"]) and not given["subtract"]:
        raise InputError("--optimise_scale_subtract and --mask_optimise_subtract belong to --subtract, which is missing")
    if given["shift_com"] and (given["shift_x"] or given["shift_y"] or given["shift_z"]):
        raise InputError("--shift_com goes to the centre of mass, --shift_x, --shift_y and --shift_z elsewhere; give one or the other")
    low, high = given["threshold_below"], given["threshold_above"]
    if low is not None and high is not None and low > high:
        raise InputError(f"--threshold_below {low:g} is larger than --threshold_above {high:g}; exchange them")


def notes(given: Mapping[str, Any]) -> list[str]:
    """Where all of several operations are done of which RELION 3.1 does the first alone: flips, then constants, then operands."""
    flips = [name for name in _FLIPS if given[name]]
    asked = flips + [name for name, neutral in _CONSTANTS.items() if given[name] != neutral]
    asked += [name for name in _EXCLUSIVE if given[name]]
    if flips:
        asked += [name for name in ("bfactor", "laplacian_diameter", "lowpass", "highpass") if given[name] != _DEFAULTS[name]]
    if len(asked) < 2:
        return []
    return [f"{', '.join(_FLAGS[name] for name in asked)} are all done here; RELION 3.1 does {_FLAGS[asked[0]]} alone"]


def operations(given: Mapping[str, Any], images: ImageInput) -> Operations:
    """What to do to each map or image, operands read; InputError where it does not fit the input."""
    is_map = images.files[0].is_map
    _check_dimensions(given, images, is_map)
    operands: dict[str, Any] = {name: read_operand(given[name], _FLAGS[name], images) for name in _OPERANDS if given[name]}
    lengths = ("lowpass", "highpass", "laplacian_diameter", "rescale_pixel_size")
    positive: dict[str, Any] = {name: given[name] if given[name] > 0 else None for name in lengths}
    return Operations(
        **{name: given[name] for name in _CONSTANTS}, **operands, **positive,
        optimise_scale=given["optimise_scale"] or bool(given["optimise_mask"]), bfactor=given["bfactor"],
        directional=given["directional"].upper(), edge_width=given["edge_width"],
        flips=tuple(name for key, name in _FLIPS.items() if given[key]), shift=(given["shift_x"], given["shift_y"], given["shift_z"]),
        shift_to_centre_of_mass=given["shift_com"], new_box=given["new_box"] if given["new_box"] > 0 else None, symmetry=given["symmetry"],
        randomise_from=given["phase_randomise"] if given["phase_randomise"] > 0 else None,
        seed=given["seed"] if given["seed"] >= 0 else time.time_ns(),
        threshold_above=given["threshold_above"], threshold_below=given["threshold_below"],
    )  # fmt: skip


def needs_pixel_size(given: Mapping[str, Any]) -> bool:
    """Whether an operation in Angstrom is asked for."""
    lengths = ("lowpass", "highpass", "laplacian_diameter", "rescale_pixel_size", "phase_randomise")
    return given["bfactor"] != 0 or given["power"] or bool(given["fsc"]) or any(given[name] > 0 for name in lengths)


def _check_dimensions(given: Mapping[str, Any], images: ImageInput, is_map: bool) -> None:
    if any(file.is_map != is_map for file in images.files):
        raise InputError(f"{images.path}: maps and images stand in one list; make a list of each")
    for name in ("flip_z", "symmetry", "shift_z") if not is_map else ("flip_xy", "flip_minus_xy"):
        if given[name]:
            what, wanted = ("images", "a map") if not is_map else ("a map", "images")
            raise InputError(f"{_FLAGS[name]} needs {wanted}, but {images.path} holds {what}; a stack's name ends in .mrcs, a map's in .mrc")
    if not is_map and given["directional"].upper() == "Z":
        raise InputError(f"--directional Z needs a map, but {images.path} holds images")


def read_operand(path: str, flag: str, images: ImageInput) -> np.ndarray:
    """The map [z, y, x] or image [1, y, x] of an operation, of the input's size; InputError naming both sizes when they differ."""
    first = images.files[0]
    own = read_volume(path) if first.is_map else next(open_input(path).files[0].batches(1))[0]
    header = read_header(first.path)
    shape = (header.sections if first.is_map else 1, header.rows, header.columns)
    if own.shape != shape:
        raise InputError(f"{path} ({flag}) has {size_text(own.shape)} pixels, but {first.name} has {size_text(shape)}; bring one to the other's "
                         "size first with --rescale_angpix and --new_box")  # fmt: skip
    if not np.isfinite(own).all():
        raise InputError(f"{path} ({flag}) holds values that are not finite; repair it first with --remove_nan")
    return own


def size_text(shape: tuple[int, ...]) -> str:
    """Lengths along x, y and z, as in "64 x 64 x 64"."""
    return " x ".join(str(length) for length in shape[::-1])
