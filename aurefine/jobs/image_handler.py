"""The image handler job: filter, resample, move, mirror, average, compare and measure maps and images (ALGORITHM.md 8)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from aurefine import large_arrays
from aurefine.atomic import without_waiting_for_the_disk
from aurefine.errors import InputError
from aurefine.image_files import ImageFile, ImageInput, open_input
from aurefine.image_lists import file_outputs, list_output, renamed, write_images
from aurefine.image_operations import Operations, apply
from aurefine.job_control import JobControl, job_control
from aurefine.jobs import image_handler_reports as reports
from aurefine.jobs.image_handler_flags import OPTIONS, check, needs_pixel_size, notes, operations
from aurefine.jobs.outputs import free
from aurefine.mrc import all_finite
from aurefine.threads import in_order, thread_count, use_threads

NAME = "image_handler"
SUMMARY = "Filter, resample, cut, move, mirror, symmetrise, combine and measure maps, images, stacks and STAR lists of them."
_ENDINGS = (".mrc", ".mrcs", ".map", ".st", ".png")

__all__ = ["NAME", "OPTIONS", "SUMMARY", "run"]


def run(values: Mapping[str, Any], arguments: Sequence[str] = ()) -> int:
    """Do what `values` ask for; returns the exit code. Raises InputError for a user's mistake."""
    given = {option.name: option.default for option in OPTIONS if option.effect == "used"} | dict(values)
    threads = thread_count(given["threads"])
    large_arrays.keep_freed()
    with job_control(given["pipeline_control"], "run it again.") as control, use_threads(threads):
        check(given)
        for note in notes(given):
            print(f" Note: {note}.")
        with without_waiting_for_the_disk(not control.in_project):
            _handle(given, control)
    return 0


def _handle(given: Mapping[str, Any], control: JobControl) -> None:
    images = open_input(given["input"])
    pixel_sizes = _pixel_sizes(images, given)
    if given["stats"] or given["com"] or given["power"] or given["fsc"]:
        reports.show(images, pixel_sizes, given, control)
        return
    if not given["output"]:
        raise InputError("aurefine image_handler: --o is missing; name the output")
    if given["average"] or given["average_amplitude"] or given["average_power"]:
        reports.write_average(images, pixel_sizes[0], given, control)
        return
    asked = operations(given, images)
    if images.is_list:
        _handle_list(images, pixel_sizes, asked, given, control)
    else:
        _handle_file(images.files[0], pixel_sizes[0], asked, given, control)


def _pixel_sizes(images: ImageInput, given: Mapping[str, Any]) -> list[float]:
    """Pixel size of each file in Angstrom: as given, or as its header says."""
    if given["pixel_size"] > 0:
        return [given["pixel_size"]] * len(images.files)
    unknown = [file.path for file in images.files if file.pixel_size is None]
    if unknown and needs_pixel_size(given):
        raise InputError(f"{unknown[0]}: the header does not say the pixel size; give it with --angpix")
    sizes = [file.pixel_size or 1.0 for file in images.files]
    if needs_pixel_size(given):
        print(f" The pixel size in the image header, {sizes[0]:g} A, is used; --angpix would say otherwise.")
    return sizes


def _handle_file(file: ImageFile, pixel_size: float, asked: Operations, given: Mapping[str, Any], control: JobControl) -> None:
    if not given["output"].lower().endswith(_ENDINGS):
        raise InputError(f"--o {given['output']}: the name of a map (.mrc) or a stack (.mrcs) was expected")
    if len(file.sections) > 1 and not file.is_map and given["output"].lower().endswith((".mrc", ".map", ".png")):
        raise InputError(f"--o {given['output']}: {file.name} is a stack of images, whose name must end in .mrcs")
    _write(free(given["output"], given["overwrite"]), [(file, pixel_size)], asked, given, control)
    print(f" Written out: {given['output']}")


def _handle_list(images: ImageInput, pixel_sizes: list[float], asked: Operations, given: Mapping[str, Any], control: JobControl) -> None:
    """Every file of a STAR list, and the list of the new ones."""
    one_stack = given["output"].lower().endswith(".mrcs")
    star_path = free(list_output(images, given["output"]), given["overwrite"])
    targets = [(Path(given["output"]), given["output"])] if one_stack else file_outputs(images, given["output"])
    for output, _ in targets:
        free(output, given["overwrite"])
    pairs = list(zip(images.files, pixel_sizes))
    jobs = [pairs] if one_stack else [[pair] for pair in pairs]
    results = []
    for number, ((output, _), job) in enumerate(zip(targets, jobs), 1):
        results.append(_write(output, job, asked, given, control))
        if len(jobs) <= 20 or number % (len(jobs) // 20) == 0 or number == len(jobs):
            print(f" + {number}/{len(jobs)}: {output}", flush=True)
    renamed(images, [name for _, name in targets], results, star_path)
    print(f" Written out new STAR file: {star_path}")


def _write(
    output: Path, sources: list[tuple[ImageFile, float]], asked: Operations, given: Mapping[str, Any], control: JobControl
) -> tuple[float, int]:
    """Do the operations on the files, in one output; returns its pixel size (Angstrom) and box (pixels in x)."""
    header = given["header_pixel_size"] if given["header_pixel_size"] > 0 else None

    def work(file: ImageFile, pixel_size: float, values: np.ndarray, labels: list[str], number: int) -> tuple[np.ndarray, float]:
        own = file.pixel_size or pixel_size  # --angpix tells the operations; without resampling it leaves the header alone, as in RELION
        result, new = _apply(_finite(values, labels, given), pixel_size, replace(asked, seed=asked.seed + number), file)
        return result, header or (new if asked.rescale_pixel_size else own)

    def tasks() -> Iterator[tuple[ImageFile, float, np.ndarray, list[str], int]]:
        batches = ((file, pixel_size, *batch) for file, pixel_size in sources for batch in file.batches())
        for number, batch in enumerate(batches):
            control.check()
            yield (*batch, number)

    processed = (work(*task) for task in tasks()) if sources[0][0].is_map else in_order(work, tasks(), thread_count(given["threads"]))
    count = 1 if sources[0][0].is_map else sum(len(file.sections) for file, _ in sources)
    picture = {name: given[name] for name in ("black", "white", "sigma_contrast")}
    shape, pixel_size = write_images(output, processed, count, sources[0][0].is_map, given["float16"], picture)
    _report(pixel_size, asked, header)
    return pixel_size, shape[-1]


def _apply(values: np.ndarray, pixel_size: float, asked: Operations, file: ImageFile) -> tuple[np.ndarray, float]:
    try:
        return apply(values, pixel_size, asked, images=not file.is_map)
    except InputError as error:
        raise InputError(f"{file.path}: {error}") from error


def _finite(values: np.ndarray, labels: list[str], given: Mapping[str, Any]) -> np.ndarray:
    """Values that are no finite numbers replaced, or refused by name."""
    if given["remove_nan"]:
        return np.where(np.isfinite(values), values, np.float32(given["replace_nan"]))
    if not all_finite(values):
        bad = 0 if len(labels) == 1 else int(np.argmin(np.isfinite(values).all(axis=(1, 2))))
        raise InputError(f"{labels[bad]}: it holds values that are not finite (nan or inf); replace them with --remove_nan")
    return values


def _report(pixel_size: float, asked: Operations, header: float | None) -> None:
    """Tell of a pixel size that is not the one asked for."""
    wanted = asked.rescale_pixel_size
    if header is not None:
        print(f" As requested by --force_header_angpix, the pixel size in the image header is set to {header:g} A/px.")
    elif wanted is not None and abs(pixel_size - wanted) > 1e-3 * wanted:
        print(f" Note: the pixel size becomes {pixel_size:g} A, not {wanted:g} A: the box is rounded to an even number of pixels. The header "
              "says the true one; --force_header_angpix would say another.")
