"""Readers of images: MRC maps and stacks, TIFF, names of images, cryoSPARC's tables."""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path

import numpy as np

from aurefine import cryosparc, image_source, mrc
from aurefine.errors import InputError
from aurefine.extraction import micrographs
from aurefine.image_files import open_input
from fuzzing.place import Workplace


def mrc_target(place: Workplace, data: bytes) -> None:
    """A map, and a stack's last image."""
    path = place.put("a.mrc", data)
    with contextlib.suppress(InputError):
        mrc.read_map(path)
    stack = mrc.Stack(path)
    stack.read(np.array([stack.count - 1]))


def header_target(place: Workplace, data: bytes) -> None:
    """The header of an MRC file, in memory: the quickest target. What it says is whole or refused."""
    header = mrc._parse("a.mrc", data[:1024])
    assert header.columns > 0 and header.rows > 0 and header.sections > 0 and header.data_offset >= 1024
    assert np.isfinite(header.pixel_size) and np.isfinite(header.origin).all() and sorted(header.axes) == [1, 2, 3]


def cryosparc_target(place: Workplace, data: bytes) -> None:
    """A .cs file's tables."""
    tables, _ = cryosparc.read(place.put("a.cs", data))
    assert tables["particles"].count > 0


def image_target(place: Workplace, data: bytes) -> None:
    """The operands of image_handler, by name; and a micrograph as TIFF."""
    with contextlib.suppress(InputError):
        open_input(data.decode("utf-8", "surrogateescape"))
    with contextlib.suppress(InputError):
        micrographs.read_image(place.put("a.tif", data))


def names_target(place: Workplace, data: bytes) -> None:
    """Image names, one a line."""
    names = np.array(data.decode("utf-8", "surrogateescape").split("\n"), dtype=object)
    source = image_source.open_images(names, place.root / "a.star", "rlnImageName", np.arange(1, len(names) + 1))
    with contextlib.suppress(ValueError):
        source.read(np.arange(min(4, source.count)))


TARGETS = {"mrc": mrc_target, "header": header_target, "cryosparc": cryosparc_target, "image": image_target, "names": names_target}


def seeds(name: str, place: Workplace, shared: Path | None) -> list[bytes]:
    """Files made here, and cryoSPARC's own where the shared data are."""
    if name in ("mrc", "header"):
        return [(place.root / file).read_bytes() for file in ("map.mrc", "stack.mrcs")] + [float16_stack(place)]
    if name == "cryosparc":
        paths = sorted((shared / "star").rglob("*.cs")) if shared else []
        return [cryosparc_seed(), *(path.read_bytes() for path in paths)]
    if name == "image":
        return [b"stack.mrcs", b"2@stack.mrcs:mrcs", b"map.mrc:map", tiff_seed()]
    return [b"1@stack.mrcs\n000002@stack.mrcs\nmap.mrc", b"../job/stack.mrcs\n3@../../project/job/stack.mrcs", b"1@link/../stack.mrcs"]


def float16_stack(place: Workplace) -> bytes:
    """A stack of 16-bit floats."""
    mrc.write_stack(place.root / "half.mrcs", np.ones((2, 4, 6), np.float32), 1.0, float16=True)
    return (place.root / "half.mrcs").read_bytes()


def tiff_seed() -> bytes:
    """A small TIFF image."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it tells of every odd tag

    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.arange(64, dtype=np.float32).reshape(8, 8))
    return buffer.getvalue()


def cryosparc_seed() -> bytes:
    """Three particles as cryoSPARC writes them."""
    kind = [("uid", "<u8"), ("blob/path", "S12"), ("blob/idx", "<u4"), ("blob/shape", "<u4", (2,)), ("blob/psize_A", "<f4"), ("blob/sign", "<f4"),
            ("ctf/accel_kv", "<f4"), ("ctf/cs_mm", "<f4"), ("ctf/df1_A", "<f4"), ("ctf/tilt_A", "<f4", (2,)), ("alignments3D/pose", "<f4", (3,)),
            ("alignments3D/shift", "<f4", (2,)), ("alignments3D/split", "<u4")]  # fmt: skip
    rows = np.zeros(3, dtype=kind)
    rows["blob/path"], rows["blob/idx"], rows["blob/shape"], rows["blob/psize_A"] = b">stack.mrcs", [0, 1, 2], 8, 1.5
    rows["uid"], rows["ctf/cs_mm"], rows["alignments3D/pose"] = [7, 8, 9], 2.7, np.eye(3)
    buffer = io.BytesIO()
    np.save(buffer, rows)
    return buffer.getvalue()
