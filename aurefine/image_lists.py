"""Outputs of a job on images: maps, stacks written batch by batch, pictures, and the STAR list of the new images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from aurefine import mrc
from aurefine.errors import InputError
from aurefine.image_files import OLD_SCALE, ImageInput, old_pixel_size

if TYPE_CHECKING:
    from aurefine.star import Table

_BOX_LABELS = ("rlnImagePixelSize", "rlnMicrographPixelSize")
_ORIGINAL = "rlnMicrographOriginalPixelSize"  # of the movies: stays
_OLD_ORIGINS = ("rlnOriginX", "rlnOriginY", "rlnOriginZ")  # in pixels


def file_outputs(images: ImageInput, output: str) -> list[tuple[Path, str]]:
    """Where the new file of each listed file goes, and its name in the new list.

    `output` is put before each file's ending: `lp` makes `mic_lp.mrcs` of `mic.mrcs`, beside it. With a folder, as in `External/job004/lp`,
    the new files go into that folder, each under the folders that the list names (without `..`). InputError where two would be one file.
    """
    suffix, folder = Path(output).name, Path(output).parent
    if folder == Path():
        return [(_suffixed(file.path, suffix), _suffixed(file.name, suffix).as_posix()) for file in images.files]
    inside = [folder / _suffixed(_relative(file.name), suffix) for file in images.files]
    owner: dict[Path, str] = {}
    for path, file in zip(inside, images.files):
        if owner.setdefault(path, file.name) != file.name:
            raise InputError(f"{images.path}: the new images of {owner[path]} and of {file.name} would both be {path}; give --o without a folder, "
                             "which puts them beside the old ones, or with .mrcs, for one stack of all")  # fmt: skip
    return [(path, path.as_posix()) for path in inside]


def list_output(images: ImageInput, output: str) -> Path:
    """The STAR file of the new images: beside a stack of that name; or the list's own name with the text before its ending, in the folder."""
    if output.lower().endswith(".mrcs"):
        return Path(output).with_suffix(".star")
    folder, suffix = Path(output).parent, Path(output).name
    return _suffixed(images.path if folder == Path() else str(folder / Path(images.path).name), suffix)


def _relative(name: str) -> str:
    """A listed name without what would lead out of the folder that it is put into."""
    return str(PurePosixPath(*(part for part in PurePosixPath(name).parts if part not in ("..", "/", "//"))))


def _suffixed(path: str, suffix: str) -> Path:
    return Path(path).with_name(f"{Path(path).stem}_{suffix}{Path(path).suffix}")


def write_images(
    path: Path, batches: Iterator[tuple[np.ndarray, float]], count: int, is_map: bool, float16: bool, picture: Mapping[str, float]
) -> tuple[tuple[int, ...], float]:
    """Write batches of (values, pixel size) as one map, stack or picture; returns the shape of a section and the pixel size.

    Stacks are written as they come, whole or not at all. `picture`: black, white and sigma_contrast of a PNG. InputError when the images
    differ in size or pixel size, or cannot be written.
    """
    first, pixel_size = next(batches)
    shape = first.shape[1:]
    if path.suffix.lower() == ".png":
        _write_picture(path, first, is_map, picture)
    elif is_map and path.suffix.lower() != ".mrcs":
        mrc.write_map(path, first, pixel_size, float16=float16)
    elif len(first) == count or is_map:
        mrc.write_stack(path, first, pixel_size, float16)
    else:
        with mrc.stack_writer(path, count, shape, pixel_size, float16) as stack:
            for values, own in chain([(first, pixel_size)], batches):
                if values.shape[1:] != shape or abs(own - pixel_size) > 1e-3 * pixel_size:
                    raise InputError(
                        f"{path}: images of {shape[1]} x {shape[0]} pixels of {pixel_size:g} A and of {values.shape[2]} x {values.shape[1]} "
                        f"pixels of {own:g} A cannot be in one stack; give --o without .mrcs to keep the stacks apart"
                    )
                stack.append(values)
    return shape, pixel_size


def _write_picture(path: Path, values: np.ndarray, is_map: bool, picture: Mapping[str, float]) -> None:
    if is_map:
        raise InputError(f"{path}: a picture shows one image, not a map; choose an image, as in 000001@stack.mrcs")
    from matplotlib import image as matplotlib_image  # slow to import

    black, white = picture["black"], picture["white"]
    if picture["sigma_contrast"] > 0:
        half = picture["sigma_contrast"] * float(values.std())
        black, white = float(values.mean()) - half, float(values.mean()) + half
    elif black == white:
        black, white = float(values.min()), float(values.max())
    matplotlib_image.imsave(path, values[0], vmin=black, vmax=white, cmap="gray")


def renamed(images: ImageInput, targets: Sequence[str], results: Sequence[tuple[float, int]], path: Path) -> None:
    """Write the STAR list of the new images: their names, and pixel size (Angstrom) and box of their optics groups.

    `targets` and `results` hold the name, and pixel size and box, of each new file, or of the one stack of all; images are numbered in the
    order of the list's rows.
    """
    table = images.tables[images.main]
    names = table[images.label].copy()
    one_stack = len(targets) == 1 and (len(images.files) > 1 or "@" in str(names[0]))
    start = 0
    for place, file in enumerate(images.files):
        target = targets[0] if one_stack else targets[place]
        plain = not one_stack and not any("@" in str(name) for name in names[file.rows])
        names[file.rows] = [target if plain else f"{start + number:06d}@{target}" for number in range(1, len(file.rows) + 1)]
        start += len(file.rows) if one_stack else 0
    of_files = [results[0]] * len(images.files) if one_stack else results
    tables = {**images.tables, images.main: _rescaled(images, table, of_files).with_columns({images.label: names})}
    if "optics" in tables:
        tables["optics"] = _optics(images, of_files)
    from aurefine import star  # only here: see image_files.py

    star.write(path, tables)


def _rescaled(images: ImageInput, table: Table, results: Sequence[tuple[float, int]]) -> Table:
    """The rows of a RELION 3.0 list with the pixel size of their new images, and with origins counted in the new pixels."""
    if "optics" in images.tables or not all(label in table for label in OLD_SCALE):
        return table
    old = old_pixel_size(table)
    new = old.copy()
    for file, (pixel_size, _) in zip(images.files, results):
        if file.pixel_size is None or not np.isclose(pixel_size, file.pixel_size, rtol=1e-6):
            new[file.rows] = pixel_size
    changed = new != old
    columns = {"rlnDetectorPixelSize": np.where(changed, new * table["rlnMagnification"] / 10000.0, table["rlnDetectorPixelSize"])}
    columns |= {label: np.where(changed, table[label] * old / new, table[label]) for label in _OLD_ORIGINS if label in table}
    return table.with_columns(columns)


def _optics(images: ImageInput, results: Sequence[tuple[float, int]]) -> Table:
    """The optics groups with the pixel size and the box of their new images."""
    optics, table = images.tables["optics"], images.tables[images.main]
    if "rlnOpticsGroup" not in optics or "rlnOpticsGroup" not in table:
        return optics
    columns = {label: optics[label].astype(float) for label in _BOX_LABELS if label in optics}
    if not columns and any(file.pixel_size is not None or size != 1.0 for file, (size, _) in zip(images.files, results)):
        named = "rlnMicrographPixelSize" if images.label == "rlnMicrographName" else "rlnImagePixelSize"
        columns[named] = optics[_ORIGINAL].astype(float) if _ORIGINAL in optics else np.ones(optics.count)
    label = next(iter(columns), "")  # a micrograph's pixel size stays that of the micrographs when particles have their own
    boxes = optics["rlnImageSize"].copy() if "rlnImageSize" in optics else None
    for file, (pixel_size, box) in zip(images.files, results):
        for group in np.unique(table["rlnOpticsGroup"][file.rows]):
            row = optics["rlnOpticsGroup"] == group
            if label:
                columns[label][row] = pixel_size
            if boxes is not None:
                boxes[row] = box
    changed = {label: columns[label]} if label else {}
    return optics.with_columns({**changed, **({"rlnImageSize": boxes} if boxes is not None else {})})
