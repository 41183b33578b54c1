"""The micrographs to extract from: their table, where their output goes, their pixel sizes, and their images (MRC and TIFF)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from aurefine import mrc, star
from aurefine.errors import InputError
from aurefine.optics import check_numbers, from_old_columns
from aurefine.particles import without_job_prefix

if TYPE_CHECKING:
    from tifffile import TiffPage

PIXEL_SIZES = ("rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize")
_TIFF = (".tif", ".tiff")
_DIFFERENT = 1e-3  # relative difference at which pixel sizes contradict each other
_KINDS_OF_PILLOW = ("uint8", "uint16", "int16", "float32")  # those that it reads as what they are
_ZERO_IS_BLACK = 1  # TIFF's number of that photometric interpretation
_MOST_BYTES_EXPANDED = 400  # bytes that a byte of a compressed TIFF may stand for, by far
_HEADERS = 16  # micrographs whose headers are compared with the STAR file: a wrong pixel size is wrong in all of them


@dataclass(frozen=True)
class Micrograph:
    """One row of the micrographs' table."""

    name: str  # as the table says it
    root: str  # output folder and name, without an ending
    row: int  # of the table, 0-based
    group: int  # rlnOpticsGroup


@dataclass(frozen=True)
class MicrographSet:
    """The micrographs' STAR file: `optics` has one row an optics group, `table` one a micrograph."""

    path: str
    optics: star.Table
    table: star.Table
    micrographs: tuple[Micrograph, ...]

    def pixel_size_of(self, group: int) -> float:
        """Angstrom per pixel of an optics group's micrographs; InputError where there is no such group, or it does not say."""
        rows = np.flatnonzero(self.optics["rlnOpticsGroup"] == group)
        if not len(rows):
            known = ", ".join(str(number) for number in self.optics["rlnOpticsGroup"].tolist())
            raise InputError(f"{self.path}: rlnOpticsGroup {group} has no row in data_optics, which has {known}; add it, or correct the number")
        return pixel_size(self.optics, int(rows[0]), self.path)


def pixel_size(optics: star.Table, row: int, path: str) -> float:
    """Micrograph pixel size of one row of an optics table, Angstrom; InputError where it is missing or no length."""
    label = next((label for label in PIXEL_SIZES if label in optics), None)
    if label is None:
        raise InputError(f"{path}: data_optics lacks rlnMicrographPixelSize; add it, or give the micrographs' pixel size with --angpix")
    size = float(optics[label][row])
    if not (np.isfinite(size) and size > 0):
        raise InputError(f"{path}: optics group {int(optics['rlnOpticsGroup'][row])}: {label} is {size}; expected a positive number of Angstrom")
    return size


def differ(one: float, other: float) -> bool:
    """Whether two pixel sizes contradict each other."""
    return abs(one - other) > _DIFFERENT * max(abs(one), abs(other))


def load(path: str, output_folder: str, angpix: float = -1.0) -> MicrographSet:
    """Read a micrographs' STAR file of RELION 3.0 to 5; `angpix` (Angstrom, if positive) is the pixel size where it does not say.

    Raises InputError for a table without micrographs, a pixel size that contradicts `angpix`, or two micrographs with one output.
    """
    tables = star.read(path)
    name = next((name for name in ("micrographs", "") if name in tables and "rlnMicrographName" in tables[name]), None)
    if name is None:
        blocks = ", ".join(f"data_{found}" for found in tables)
        raise InputError(f"{path}: no table of micrographs (data_micrographs with rlnMicrographName), only {blocks}; give the micrographs' STAR file")
    table = star.Table("micrographs", tables[name].columns)
    if table.count == 0:
        raise InputError(f"{path}: data_{name} has no micrograph")
    if "optics" in tables:
        optics = tables["optics"]
        check_numbers(optics, path)
    else:
        optics, table = _without_optics(table, path, angpix)
    optics = _with_pixel_size(optics, path, angpix)
    return MicrographSet(path, optics, table, _micrographs(table, path, output_folder))


def _without_optics(table: star.Table, path: str, angpix: float) -> tuple[star.Table, star.Table]:
    """RELION 3.0 and older, or a bare list: one optics group per microscope setting."""
    if angpix <= 0 and not all(label in table for label in ("rlnMagnification", "rlnDetectorPixelSize")):
        raise InputError(f"{path}: there is no data_optics and no pixel size; give the micrographs' pixel size in Angstrom with --angpix")
    optics, table = from_old_columns(table, path, angpix)
    columns = {PIXEL_SIZES[1] if label == "rlnImagePixelSize" else label: column for label, column in optics.columns.items()}
    return star.Table("optics", columns), star.Table("micrographs", table.columns)


def _with_pixel_size(optics: star.Table, path: str, angpix: float) -> star.Table:
    if angpix <= 0:
        return optics
    if not any(label in optics for label in PIXEL_SIZES):
        return optics.with_columns({PIXEL_SIZES[0]: np.full(optics.count, angpix)})
    for row in range(optics.count):
        stated = pixel_size(optics, row, path)
        if differ(stated, angpix):
            raise InputError(f"--angpix {angpix:g} contradicts {path}, whose optics group {int(optics['rlnOpticsGroup'][row])} says {stated:g} A; "
                             "leave --angpix out, or correct the file")  # fmt: skip
    return optics


def _micrographs(table: star.Table, path: str, output_folder: str) -> tuple[Micrograph, ...]:
    if "rlnOpticsGroup" not in table:
        raise InputError(f"{path}: data_micrographs lacks rlnOpticsGroup; add the number of each micrograph's row in data_optics")
    names = table["rlnMicrographName"].tolist()
    for row, name in enumerate(names):
        if not PurePosixPath(name).name.strip("."):
            raise InputError(f"{path}, row {row + 1}: rlnMicrographName is '{name}'; expected the name of a file")
    roots = [output_folder + _inside(without_job_prefix(name)) for name in names]
    first: dict[str, int] = {}
    for row, root in enumerate(roots):
        if root in first:
            raise InputError(f"{path}, row {row + 1}: {names[row]} and {names[first[root]]} (row {first[root] + 1}) would both be extracted to "
                             f"{root}.mrcs; take one of them out, or extract them into different folders")  # fmt: skip
        first[root] = row
    groups = table["rlnOpticsGroup"].tolist()
    return tuple(Micrograph(name, root, row, int(group)) for row, (name, root, group) in enumerate(zip(names, roots, groups, strict=True)))


def _inside(name: str) -> str:
    """A relative path without its ending that stays inside the output folder."""
    parts = [part for part in PurePosixPath(name).parts if part not in ("..", ".", "/")]
    return str(PurePosixPath(*parts).with_suffix(""))


def read_image(path: str) -> np.ndarray:
    """A micrograph as float32 [rows, columns]; TIFF rows are counted from the bottom, as RELION and IMOD do.

    Raises InputError when the file is missing, unreadable, a movie, or holds values that are not finite.
    """
    image = _read_tiff(path) if Path(path).suffix.lower() in _TIFF else _read_mrc(path)
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(image.sum(dtype=np.float32))
    if not np.isfinite(total) and not np.isfinite(image).all():
        raise InputError(f"{path}: {int(image.size - np.isfinite(image).sum())} pixels are not finite (nan or inf); correct this micrograph again")
    return image


def _read_mrc(path: str) -> np.ndarray:
    stack = mrc.Stack(path)
    if stack.count != 1:
        raise InputError(f"{path}: holds {stack.count} images; one micrograph was expected (a movie must be motion-corrected first)")
    return stack.read(0)[0]


def _read_tiff(path: str) -> np.ndarray:
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            if len(tiff.pages) != 1:
                raise InputError(f"{path}: holds {len(tiff.pages)} images; one micrograph was expected (a movie must be motion-corrected first)")
            page = tiff.pages.first
            if page.nbytes > _MOST_BYTES_EXPANDED * max(os.path.getsize(path), 1 << 16):
                raise InputError(f"{path}: damaged: its header claims an image of shape {page.shape}, far more than the file can hold")
            image = _decoded(page, path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file; check the name, and that you are in the RELION project's folder") from error
    except InputError:
        raise
    except Exception as error:  # of a damaged file tifffile raises whatever it stumbles over
        raise InputError(f"{path}: cannot be read as TIFF ({error}); if the compression is unknown, `pip install imagecodecs` adds it") from error
    if image.ndim != 2 or image.dtype.kind not in "iuf":
        raise InputError(f"{path}: a grey-scale image was expected, not {image.dtype} of shape {image.shape}")
    return np.ascontiguousarray(image[::-1], dtype=np.float32)


def _decoded(page: TiffPage, path: str) -> np.ndarray:
    """The page's pixels; what tifffile lacks a codec for without imagecodecs, LZW above all, Pillow's libtiff may decode."""
    try:
        return page.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error) or page.dtype not in _KINDS_OF_PILLOW or page.photometric != _ZERO_IS_BLACK:
            raise
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # a large detector's image is more than Pillow believes; its size was compared with the file's
    with Image.open(path) as picture:
        image = np.asarray(picture)
    if image.shape != page.shape or image.dtype.kind not in "iuf":
        raise ValueError(f"an image of {image.dtype} {image.shape} where the header says {page.dtype} {page.shape}")
    return image


def header_pixel_sizes(names: Mapping[str, float]) -> list[str]:
    """A warning where an MRC micrograph's header states another pixel size than `names` (name -> Angstrom); missing files are passed over."""
    wrong = []
    pictures = [name for name in names if Path(name).suffix.lower() not in _TIFF]
    for name in pictures[:: max(1, len(pictures) // _HEADERS)]:
        expected = names[name]
        try:
            header = mrc.read_header(name)
        except InputError:  # the extraction itself says what is wrong with this file
            continue
        if header.states_pixel_size and header.pixel_size not in (0.0, 1.0) and differ(header.pixel_size, expected):
            wrong.append((name, header.pixel_size, expected))
    if not wrong:
        return []
    name, stated, expected = wrong[0]
    others = f" (and {len(wrong) - 1} others)" if len(wrong) > 1 else ""
    return [f"{name}{others}: the header says {stated:g} A/pixel; {expected:g} of the STAR file or --angpix is used"]
