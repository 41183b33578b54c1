"""The flags that `aurefine select` and `aurefine star` share, as `relion_star_handler` has them, and what they do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurefine.errors import InputError
from aurefine.jobs.options import Option
from aurefine.jobs.outputs import OVERWRITE, free

if TYPE_CHECKING:
    from aurefine.job_control import JobControl
    from aurefine.star_document import Document

INPUT_OUTPUT = (
    OVERWRITE,
    Option("pipeline_control", "--pipeline_control", "Directory of the files that tell RELION's pipeliner how the job ended", "I/O", "", "file"),
)
SUBSETS = (
    Option("select", "--select", "Column of numbers to select on, such as rlnCtfMaxResolution", "Subsets", ""),
    Option("smallest", "--minval", "Smallest value that is kept", "Subsets", -99999999.0, "float"),
    Option("largest", "--maxval", "Largest value that is kept", "Subsets", 99999999.0, "float"),
    Option("select_by_text", "--select_by_str", "Column of texts to select on, such as rlnMicrographName", "Subsets", ""),
    Option("include", "--select_include", "Keep rows that contain this text", "Subsets", ""),
    Option("exclude", "--select_exclude", "Leave out rows that contain this text", "Subsets", ""),
    Option("discard_on_stats", "--discard_on_stats", "Leave out images whose average or deviation is unlike the others'", "Subsets", False, "switch"),
    Option("discard_label", "--discard_label", "Column that names the images", "Subsets", "rlnImageName"),
    Option("discard_sigma", "--discard_sigma", "This many standard deviations are too many", "Subsets", 4.0, "float"),
    Option("split", "--split", "Split into several files: <output>_split1.star, ...", "Subsets", False, "switch"),
    Option("random_order", "--random_order", "In random order", "Subsets", False, "switch"),
    Option("random_seed", "--random_seed", "Seed of the random order; negative: from the clock", "Subsets", -1, "int"),
    Option("nr_split", "--nr_split", "Number of files", "Subsets", -1, "int"),
    Option("size_split", "--size_split", "Rows of a file", "Subsets", -1, "int"),
)
DUPLICATES = (
    Option("distance", "--remove_duplicates", "Leave out particles nearer than this to another; negative: off", "Duplicates", -1.0,
           "float", unit="A"),
    Option("image_pixel_size", "--image_angpix", "Pixel size of the micrographs, where particles were extracted at another", "Duplicates", -1.0,
           "float", unit="A"),
)  # fmt: skip


def defaults(options: tuple[Option, ...], values: Mapping[str, Any]) -> dict[str, Any]:
    """The given values over the table's defaults."""
    return {option.name: option.default for option in options if option.effect == "used"} | dict(values)


def select(document: Document, given: Mapping[str, Any], output: Path, control: JobControl) -> Document:
    """Apply the selections that were asked for, one after the other, each with a line on the screen."""
    if given["select"]:
        document = _by_value(document, given)
    if given["select_by_text"]:
        document = _by_text(document, given)
    if given["discard_on_stats"]:
        document = _by_statistics(document, given, control)
    if given["distance"] >= 0:
        document = _without_duplicates(document, given, output)
    return document


def kept(document: Document, mask: Any, what: str) -> Document:
    """The rows of a mask, with a line that says how many; InputError when none is left."""
    count = int(mask.sum())
    if not count:
        raise InputError(f"{document.path}: no row is left after selecting {what}; nothing was written")
    print(f" Kept {count} of {len(mask)} rows: {what}.")
    return document.select(mask)


def _by_value(document: Document, given: Mapping[str, Any]) -> Document:
    from aurefine import selection

    label = document.label(given["select"])
    column = document.column(label, numeric=True)
    mask = selection.in_range(column, given["smallest"], given["largest"])
    span = f" (its values go from {column.min():g} to {column.max():g})" if not mask.any() and len(column) else ""
    return kept(document, mask, f"{label} from {given['smallest']:g} to {given['largest']:g}{span}")


def _by_text(document: Document, given: Mapping[str, Any]) -> Document:
    from aurefine import selection

    include, exclude = given["include"], given["exclude"]
    if bool(include) == bool(exclude):
        raise InputError("--select_by_str: give one of --select_include and --select_exclude")
    label = document.label(given["select_by_text"])
    column = document.column(label)
    if column.dtype != object:
        raise InputError(f"{document.path}: {label} holds numbers; select on them with --select {label} --minval --maxval")
    mask = selection.containing(column, include or exclude)
    return kept(document, mask if include else ~mask, f"{label} {'with' if include else 'without'} '{include or exclude}'")


def _by_statistics(document: Document, given: Mapping[str, Any], control: JobControl) -> Document:
    import numpy as np

    from aurefine import selection
    from aurefine.image_source import open_images

    if given["discard_sigma"] <= 0:
        raise InputError(f"--discard_sigma {given['discard_sigma']:g}: a positive number was expected")
    label = document.label(given["discard_label"])
    names = document.column(label)
    if names.dtype != object:
        raise InputError(f"{document.path}: {label} does not name images; --discard_label rlnImageName or rlnMicrographName is meant")
    images = open_images(names, document.path, label, np.arange(1, len(names) + 1))
    mean, spread = selection.image_statistics(images, lambda done: control.check())
    print(f" Average of the images: {np.nanmean(mean):.6g} +- {np.nanstd(mean):.6g}; "
          f"their standard deviation: {np.nanmean(spread):.6g} +- {np.nanstd(spread):.6g}.")  # fmt: skip
    bad = selection.outliers(mean, spread, given["discard_sigma"])
    return kept(document, ~bad, f"images within {given['discard_sigma']:g} sigma of the others")


def _without_duplicates(document: Document, given: Mapping[str, Any], output: Path) -> Document:
    import numpy as np

    from aurefine import selection, star

    size = _micrograph_pixel_size(document, given["image_pixel_size"])
    position = np.stack([document.column(f"rlnCoordinate{axis}", numeric=True) for axis in "XY"], axis=1).astype(float) * size
    if any(f"rlnOrigin{axis}Angst" in document.rows for axis in "XY"):  # freshly extracted particles have no origins yet
        position -= np.stack([document.column(f"rlnOrigin{axis}Angst", numeric=True) for axis in "XY"], axis=1)
    if not np.isfinite(position).all():
        row = int(np.flatnonzero(~np.isfinite(position).all(axis=1))[0])
        raise InputError(f"{document.path}, row {row + 1}: the coordinate or the origin is not finite")
    mask = selection.duplicates(selection.numbered(document.column("rlnMicrographName").tolist()), position, given["distance"])
    removed = free(output.with_name(f"{output.stem}_removed.star"), given["overwrite"])
    if mask.any():
        star.write(removed, document.select(mask).tables)
        print(f" The rows that were left out: {removed}")
    return kept(document, ~mask, f"no other particle within {given['distance']:g} A (micrograph pixels of {size:g} A)")


def _micrograph_pixel_size(document: Document, given: float) -> float:
    """Of the micrographs in which the coordinates count; without --image_angpix that of the images, as RELION takes it."""
    import numpy as np

    from aurefine import optics

    if given > 0:
        return given
    if document.optics is None:
        raise InputError(f"{document.path}: no optics groups tell the pixel size; give that of the micrographs with --image_angpix")
    sizes = np.unique(np.round(optics.pixel_sizes(document.optics, document.path), 6))
    if len(sizes) > 1:
        raise InputError(f"{document.path}: the images have pixels of {', '.join(f'{size:g}' for size in sizes)} A; give the pixel size of the "
                         "micrographs with --image_angpix, or split the file by optics group")  # fmt: skip
    size, original = float(sizes[0]), float(document.optics.columns.get("rlnMicrographOriginalPixelSize", sizes)[0])
    if 0 < original < 0.99 * size:
        print(f" Note: the images' pixels of {size:g} A are taken for the micrographs', as RELION does; those had {original:g} A at first. If the "
              f"images were scaled down when they were extracted, distances come out {size / original:.3g} times too long: give "
              f"--image_angpix {original:g}.")  # fmt: skip
    return size


def write(document: Document, given: Mapping[str, Any], output: Path) -> None:
    """Write the rows to `output`, or split over several files beside it."""
    from aurefine import star

    if not given["split"]:
        star.write(free(output, given["overwrite"]), document.tables)
        print(f" Written: {output} ({document.rows.count} rows)")
        return
    import numpy as np

    from aurefine import selection

    seed = given["random_seed"]
    order = np.random.default_rng(seed if seed >= 0 else None).permutation(document.rows.count) if given["random_order"] else None
    parts = selection.split(document.rows.count, given["nr_split"], given["size_split"], order)
    names = [free(output.with_name(f"{output.stem}_split{part}.star"), given["overwrite"]) for part in range(1, len(parts) + 1)]
    for name, rows in zip(names, parts, strict=True):
        star.write(name, document.select(rows).tables)
        print(f" Written: {name} ({len(rows)} rows)")
    left = document.rows.count - sum(map(len, parts))
    if left:
        print(f" Note: {left} rows are in none of the files (--nr_split {given['nr_split']} times --size_split {given['size_split']}).")
