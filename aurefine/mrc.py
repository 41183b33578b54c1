"""MRC maps and image stacks (MRC2014; header words numbered from 0), read lazily and written as RELION does (ALGORITHM.md 6.2)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import numpy as np

from aurefine import __version__
from aurefine.atomic import atomic_file
from aurefine.errors import InputError
from aurefine.regular_files import regular

__all__ = [
    "Header", "Stack", "StackWriter", "all_finite", "map_bytes", "read_header", "read_map", "stack_writer", "statistics", "write_map", "write_stack",
]  # fmt: skip

_HEADER_BYTES = 1024
_KINDS = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_MODE_FLOAT32, _MODE_FLOAT16 = 2, 12
_FARTHEST = 1e6  # Angstrom: an origin beyond is not one


@dataclass(frozen=True)
class Header:
    """What a reader needs of an MRC header: counts in file order, where the data start, and how they are stored."""

    path: str
    columns: int
    rows: int
    sections: int
    dtype: np.dtype
    data_offset: int  # bytes
    pixel_size: float  # Angstrom along x; 1 where the header does not say, as RELION assumes
    states_pixel_size: bool
    axes: tuple[int, int, int]  # MAPC, MAPR, MAPS: 1, 2, 3 for x, y, z
    space_group: int
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)  # Angstrom (x, y, z) of the first voxel, where programs for models place it

    @property
    def section_bytes(self) -> int:
        """Bytes of one image or slice."""
        return self.rows * self.columns * self.dtype.itemsize


def read_header(path: str | Path) -> Header:
    """Header of an MRC file of either byte order; InputError when missing, not MRC, of an unknown mode, or shorter than it claims."""
    try:
        with open(path, "rb", opener=regular) as handle:
            raw = handle.read(_HEADER_BYTES)
            size = os.fstat(handle.fileno()).st_size
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise _unreadable(path, error) from error
    header = _parse(str(path), raw)
    needed = header.data_offset + header.sections * header.section_bytes
    if size < needed:
        whole = max(0, size - header.data_offset) // header.section_bytes
        raise InputError(
            f"{path}: truncated: the header claims {header.sections} sections of {header.columns} x {header.rows} pixels ({needed} bytes) "
            f"but the file holds only {whole} whole ones ({size} bytes); copy or extract it again"
        )
    return header


def read_map(path: str | Path, finite: bool = True) -> tuple[np.ndarray, float]:
    """A whole map as float32 [z, y, x], C-contiguous whatever the file's axis order, and its pixel size in Angstrom.

    The origin and start fields are ignored, as RELION ignores them. Errors: see `read_header`; InputError for values that are not
    finite, unless `finite` is false.
    """
    header = read_header(path)
    values = _read_sections(header, 0, header.sections)
    order = [(header.axes[2], header.axes[1], header.axes[0]).index(axis) for axis in (3, 2, 1)]
    values = np.ascontiguousarray(values.transpose(order))
    if finite and not all_finite(values):
        bad = int(np.size(values) - np.isfinite(values).sum())
        raise InputError(f"{path}: {bad} of {values.size} voxels are not finite (nan or inf); repair or replace this map")
    return values, header.pixel_size


def all_finite(values: np.ndarray) -> bool:
    """Whether no value is NaN or infinite: the extremes tell, ten times sooner than a test of each value."""
    return values.size == 0 or bool(np.isfinite(values.min()) and np.isfinite(values.max()))


class Stack:
    """Images of one MRC stack, read by 0-based index when asked for. The file is opened for each read: nothing to close."""

    def __init__(self, path: str | Path) -> None:
        self.header = read_header(path)
        self.path = str(path)
        self.count, self.height, self.width = self.header.sections, self.header.rows, self.header.columns
        self.pixel_size = self.header.pixel_size

    def read(self, indices: np.ndarray | list[int] | int) -> np.ndarray:
        """Images as float32 [n, y, x] in the order asked for; InputError for an index outside the stack or a failing read."""
        wanted = np.atleast_1d(np.asarray(indices, dtype=np.int64))
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= self.count):
            number = int(wanted.max()) + 1 if wanted.max() >= self.count else int(wanted.min()) + 1
            raise InputError(f"{self.path}: image {number} was asked for, but the stack holds {self.count} images")
        runs = list(_runs(wanted))
        if len(runs) == 1:  # as for a micrograph: without a copy
            return _read_sections(self.header, int(wanted[0]), len(wanted))
        images = np.empty((len(wanted), self.height, self.width), dtype=np.float32)
        for start, stop in runs:
            images[start:stop] = _read_sections(self.header, int(wanted[start]), stop - start)
        return images


def write_map(path: str | Path, array: np.ndarray, pixel_size: float, space_group: int = 1, float16: bool = False) -> None:
    """Write a volume [z, y, x] as float32 (or float16, mode 12) with a header like RELION's; atomic, InputError when it cannot be written."""
    values = np.ascontiguousarray(array, dtype=np.float32)
    if values.ndim != 3:
        raise ValueError(f"a map needs three axes [z, y, x], not {values.shape}")
    if float16 and values.size:
        _refuse_beyond_float16(path, float(np.nanmax(np.abs(values))))
    _write(path, values, pixel_size, values.shape[0], space_group, float16)


def map_bytes(array: np.ndarray, pixel_size: float) -> bytes:
    """A volume [z, y, x] as the bytes of a float32 MRC file, whose header has its true statistics."""
    values = np.ascontiguousarray(array, dtype="<f4")
    return _header(values.shape, _MODE_FLOAT32, pixel_size, values.shape[0], 1, statistics(values)) + values.tobytes()


def write_stack(path: str | Path, images: np.ndarray, pixel_size: float, float16: bool = False) -> None:
    """Write images [n, y, x] as a stack of float32 (mode 2) or float16 (mode 12); atomic, InputError when it cannot be written."""
    values = np.ascontiguousarray(images, dtype=np.float32)
    if values.ndim != 3:
        raise ValueError(f"a stack needs three axes [n, y, x], not {values.shape}")
    if float16 and values.size:
        _refuse_beyond_float16(path, float(np.nanmax(np.abs(values))))
    _write(path, values, pixel_size, 1, 0, float16)


class StackWriter:
    """Images of a stack, appended batch by batch; see `stack_writer`."""

    def __init__(self, path: str | Path, handle: BinaryIO, count: int, sides: tuple[int, int], float16: bool) -> None:
        self._path, self._handle, self._float16 = path, handle, float16
        self._shape = (count, *sides)
        self._written = 0
        self._offset: float | None = None  # near the mean: squares of the values themselves would cancel
        self._sum = self._squares = 0.0
        self._smallest, self._largest = np.inf, -np.inf

    def append(self, images: np.ndarray) -> None:
        """Write images [k, y, x]; InputError for values that float16 cannot hold, ValueError for another shape or too many."""
        values = np.ascontiguousarray(images, dtype=np.float32)
        if values.shape[1:] != self._shape[1:] or self._written + len(values) > self._shape[0]:
            raise ValueError(f"{self._path}: images {values.shape} after {self._written} do not make a stack {self._shape}")
        for image in values:  # one image at a time stays in the processor's cache
            flat = image.ravel()
            self._smallest, self._largest = min(self._smallest, float(flat.min())), max(self._largest, float(flat.max()))
            if self._offset is None:
                self._offset = float(flat.mean())
            total, squares = _sums(flat, np.float32(self._offset))
            self._sum += total
            self._squares += squares
        if self._float16:
            _refuse_beyond_float16(self._path, max(-self._smallest, self._largest))
        self._handle.write((values.astype("<f2") if self._float16 else values.astype("<f4", copy=False)).data)
        self._written += len(values)

    def header(self, pixel_size: float) -> bytes:
        """The finished stack's header; ValueError while images are missing."""
        if self._written != self._shape[0]:
            raise ValueError(f"{self._path}: {self._written} of {self._shape[0]} images were written")
        size = float(np.prod(self._shape, dtype=np.float64))
        mean = self._sum / size
        spread = _spread(self._squares / size, mean)
        mode = _MODE_FLOAT16 if self._float16 else _MODE_FLOAT32
        return _header(self._shape, mode, pixel_size, 1, 0, (self._smallest, self._largest, mean + (self._offset or 0.0), spread))


@contextmanager
def stack_writer(
    path: str | Path, count: int, box: int | tuple[int, int], pixel_size: float, float16: bool = False
) -> Iterator[StackWriter]:
    """Write a stack of `count` images without holding them all: `with stack_writer(...) as stack: stack.append(images)`.

    `box` is the side of the images, or their (height, width). The file appears when the block ends, whole (count images) or not at all;
    errors as for `write_stack`.
    """
    sides = box if isinstance(box, tuple) else (box, box)
    _check_size(path, (count, *sides), pixel_size)
    with atomic_file(path) as handle:
        handle.write(bytes(_HEADER_BYTES))
        stack = StackWriter(path, handle, count, sides, float16)
        yield stack
        handle.seek(0)
        handle.write(stack.header(pixel_size))


def _refuse_beyond_float16(path: str | Path, largest: float) -> None:
    if largest > float(np.finfo(np.float16).max):
        raise InputError(f"{path}: values beyond 65504 cannot be stored as float16; normalise the images, or write float32")


def _unreadable(path: str | Path, error: OSError | ValueError) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path}: there is no such file; check the name, and that you are in the RELION project's folder")
    return InputError(f"{path}: cannot be read ({getattr(error, 'strerror', error)})")


def _byte_order(raw: bytes) -> str | None:
    """'<' or '>' by which the mode and the axis counts make sense; machine stamps are often wrong."""
    for order in "<>":
        columns, rows, sections, mode = np.frombuffer(raw[:16], dtype=order + "i4").tolist()
        if 0 <= mode <= 1024 and all(0 < count < 1 << 24 for count in (columns, rows, sections)):
            return order
    return None


def _parse(path: str, raw: bytes) -> Header:
    order = _byte_order(raw) if len(raw) == _HEADER_BYTES else None
    if order is None:
        raise InputError(f"{path}: not an MRC file (its first {_HEADER_BYTES} bytes are no MRC header); give a .mrc, .mrcs or .map file")
    whole = np.frombuffer(raw, dtype=order + "i4")
    real = np.frombuffer(raw, dtype=order + "f4")
    mode = int(whole[3])
    if mode not in _KINDS:
        raise InputError(f"{path}: MRC mode {mode} is not supported; convert it to float32 (mode 2), for example with relion_image_handler")
    sampling, cell = int(whole[7]), float(real[10])
    stated = sampling > 0 and np.isfinite(cell) and cell > 0
    axes = tuple(int(axis) for axis in whole[16:19])
    if sorted(axes) != [1, 2, 3]:
        axes = (1, 2, 3)  # zeros in old files
    return Header(
        path=path,
        columns=int(whole[0]),
        rows=int(whole[1]),
        sections=int(whole[2]),
        dtype=np.dtype(order + _KINDS[mode]),
        data_offset=_HEADER_BYTES + max(0, int(whole[23])),
        pixel_size=float(f"{cell / sampling:.7g}") if stated else 1.0,  # 7 digits: all that a float32 cell holds
        states_pixel_size=bool(stated),
        axes=(axes[0], axes[1], axes[2]),
        space_group=int(whole[22]),
        origin=_origin(whole, real, axes),
    )


def _origin(whole: np.ndarray, real: np.ndarray, axes: tuple[int, ...]) -> tuple[float, float, float]:
    """ORIGIN where one is stated, else NXSTART and its sisters (in file order) in voxels of their axis; zero where neither makes sense."""
    with np.errstate(invalid="ignore"):  # damaged numbers may be signalling NaN
        stated = real[49:52].astype(float)
    if np.isfinite(stated).all() and stated.any() and np.abs(stated).max() < _FARTHEST:
        return (float(stated[0]), float(stated[1]), float(stated[2]))
    found = [0.0, 0.0, 0.0]
    for place, axis in enumerate(axes):
        sampling, cell = int(whole[6 + axis]), float(real[9 + axis])
        step = cell / sampling if sampling > 0 and np.isfinite(cell) else 0.0
        start = int(whole[4 + place]) * step
        found[axis - 1] = start if abs(start) < _FARTHEST else 0.0
    return (found[0], found[1], found[2])


def _read_sections(header: Header, first: int, count: int) -> np.ndarray:
    """Sections as float32 [count, rows, columns]."""
    try:
        with open(header.path, "rb", opener=regular) as handle:
            handle.seek(header.data_offset + first * header.section_bytes)
            values = np.fromfile(handle, dtype=header.dtype, count=count * header.rows * header.columns)
    except OSError as error:
        raise _unreadable(header.path, error) from error
    if values.size != count * header.rows * header.columns:
        raise InputError(f"{header.path}: ended early while sections {first + 1} to {first + count} were read; has the file changed?")
    return values.reshape(count, header.rows, header.columns).astype(np.float32, copy=False)


def _runs(indices: np.ndarray) -> Iterator[tuple[int, int]]:
    """Stretches of consecutive indices as (start, stop) positions: one read each."""
    breaks = np.flatnonzero(np.diff(indices) != 1) + 1
    edges = [0, *breaks.tolist(), len(indices)] if len(indices) else []
    yield from zip(edges[:-1], edges[1:], strict=True)


def _header(
    shape: tuple[int, ...], mode: int, pixel_size: float, sampling_z: int, space_group: int, extremes: tuple[float, float, float, float]
) -> bytes:
    """A header; `extremes` are minimum, maximum, mean and standard deviation."""
    sections, rows, columns = shape
    words = np.zeros(256, dtype="<i4")
    real = words.view("<f4")
    words[0:4] = columns, rows, sections, mode
    words[7:10] = columns, rows, sampling_z
    real[10:13] = np.array([columns, rows, sampling_z]) * pixel_size
    real[13:16] = 90.0
    words[16:19] = 1, 2, 3
    real[19:22] = extremes[:3]
    words[22] = space_group
    words[27] = 20140  # the format's version
    words[52:54] = np.frombuffer(b"MAP \x44\x41\x00\x00", dtype="<i4")
    real[54] = extremes[3]
    words[55] = 1
    label = f"aurefine {__version__}   {datetime.now():%d-%b-%y  %H:%M:%S}".ljust(80).encode("ascii")
    words[56:76] = np.frombuffer(label[:80], dtype="<i4")
    return words.tobytes()


def _check_size(path: str | Path, shape: tuple[int, ...], pixel_size: float) -> None:
    if 0 in shape:
        raise ValueError(f"{path}: refusing to write an image file without a pixel, shape {shape}")
    if not (np.isfinite(pixel_size) and pixel_size > 0):
        raise ValueError(f"{path}: pixel size must be a positive number of Angstrom, not {pixel_size}")


def _write(
    path: str | Path, values: np.ndarray, pixel_size: float, sampling_z: int, space_group: int, float16: bool = False
) -> None:
    _check_size(path, values.shape, pixel_size)
    mode = _MODE_FLOAT16 if float16 else _MODE_FLOAT32
    dtype = np.dtype("<" + _KINDS[mode])
    with atomic_file(path) as handle:
        handle.write(_header(values.shape, mode, pixel_size, sampling_z, space_group, statistics(values)))
        for part in np.array_split(values, max(1, values.nbytes >> 26)):  # keeps the converted copy small
            handle.write(part.astype(dtype, copy=False).data)


def statistics(values: np.ndarray) -> tuple[float, float, float, float]:
    """Minimum, maximum, mean and standard deviation of float32 values."""
    flat = values.ravel()
    offset = np.float32(flat[:: max(1, flat.size >> 10)].mean(dtype=np.float64))  # near the mean: squares of the values themselves would cancel
    total, squares = _sums(flat, offset)
    mean = total / flat.size
    return float(flat.min()), float(flat.max()), mean + float(offset), _spread(squares / flat.size, mean)


def _sums(flat: np.ndarray, offset: np.float32) -> tuple[float, float]:
    """Sums of values minus an offset, and of their squares; a cache's worth of values each, added up in double precision."""
    total = squares = 0.0
    with np.errstate(invalid="ignore"):  # images that hold infinities are written as they are; their statistics are NaN
        for start in range(0, flat.size, 1 << 15):
            rest = flat[start : start + (1 << 15)] - offset
            total += float(rest.sum())
            squares += float(np.dot(rest, rest))
    return total, squares


def _spread(mean_square: float, mean: float) -> float:
    """Standard deviation; rounding may make a constant's variance negative, and NaN stays NaN."""
    variance = mean_square - mean**2
    return 0.0 if variance < 0 else math.sqrt(variance)
