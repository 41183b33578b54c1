"""Readers of STAR files and lists: tables, both parsers of rows, particles, chores, coordinates, micrographs, detectors."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from aurefine import mtf, particles, selection, star, star_combine, star_document, star_operations, star_read
from aurefine.errors import InputError
from aurefine.extraction import coordinates, micrographs
from aurefine.image_files import open_input
from aurefine.jobs import star_tools
from fuzzing.place import Workplace
from fuzzing.star_seeds import LIST_SEED, MTF_SEED, OLD_SEED, STAR_SEED

ROW_SEEDS = (b"0\n000001@a.mrcs 1 2.5 1\n2@b.mrcs 2 -1e3 0\n", b"1\n12000.5 1 a\n1e4 2 b\n", b"2\n1 \"a b\" 3\n2 '' 4\n# no\n\n3 c 5\n")
BLOCK_SEEDS = (b"data_a\n_rlnPixelSize 1.5\n_b 'x y'\n", b"data_\nloop_\n_rlnImageName #1\n_rlnDefocusU #2\n1@a 1e4\n2@a 2\n",
               b"# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroup\n_n\n1 \"a b\"\n\ndata_x\n_rlnBeamTiltX 0 # no\n")  # fmt: skip
_LABELS = (("rlnImageName", "rlnOpticsGroup", "rlnAngleRot", "rlnCtfDataAreCtfPremultiplied"), ("rlnDefocusU", "rlnClassNumber", "unknown"),
           ("rlnGroupNumber", "rlnMicrographName", "rlnCoordinateX"), ("rlnAngleTilt",), ("rlnImageName",),
           ("rlnRandomSubset", "rlnAngleRot"))  # fmt: skip


def star_target(place: Workplace, data: bytes) -> None:
    """Every table, written and read back."""
    tables = star.read(place.put("a.star", data))
    for table in tables.values():
        for label in table.columns:
            table.value(label)
    star.write(place.root / "written.star", tables)
    again = star.read(place.root / "written.star")
    assert {name: table.count for name, table in again.items()} == {name: table.count for name, table in tables.items()}


def blocks_target(place: Workplace, data: bytes) -> None:
    """Every block of a short file that is in memory already: the quickest target."""
    for _, columns, _ in star_read.blocks_of(data.replace(b"\r", b"\n"), "a.star"):
        assert len({len(column) for column in columns.values()}) < 2


def rows_target(place: Workplace, data: bytes) -> None:
    """Rows by both parsers, Python's and the compiled one: where the compiled one reads them, Python's reads the same."""
    which, _, rows = data.replace(b"\r", b"\n").partition(b"\n")
    labels = list(_LABELS[(which or b"\0")[0] % len(_LABELS)])
    fast = star_read._fast_columns(labels, rows)
    try:
        slow = star_read._BlockReader("a.star", rows, "particles", 0, len(rows))._loop_columns(labels, 0)
    except InputError:
        assert fast is None, "compiled code read what Python refuses"
        raise
    if fast is None:
        return
    for label, one, other in zip(labels, fast, slow.values(), strict=True):
        assert one.dtype == other.dtype, (label, one.dtype, other.dtype)
        same = one.tolist() == other.tolist() if one.dtype == object else np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
        assert same, (label, one, other)


def particles_target(place: Workplace, data: bytes) -> None:
    """Particles with their images."""
    loaded = particles.load(place.put("a.star", data))
    with contextlib.suppress(ValueError):  # images of different sizes, which callers ask for by optics group
        loaded.read_images(np.arange(min(loaded.count, 4)))


def chores_target(place: Workplace, data: bytes) -> None:
    """What `aurefine star` and `aurefine select` do with a table."""
    document = star_document.load(place.put("a.star", data))
    count = document.rows.count

    def duplicates() -> object:
        places = np.stack([document.column(f"rlnCoordinate{axis}", numeric=True) for axis in "XY"], axis=1).astype(float)
        return selection.duplicates(np.zeros(count, int), places, 50.0) if np.isfinite(places).all() else None

    chores: tuple[Callable[[], object], ...] = (
        lambda: star_combine.combine([document, document]),
        lambda: star_operations.centre(document, (1.0, 2.0, 3.0)),
        lambda: star_operations.operate(document, ["rlnClassNumber"], None, 2.0, 1.0),
        lambda: star_operations.add_column(document, "rlnRandomSubset", None, "rlnDefocusU"),
        lambda: star_operations.compare(document, document, ["rlnCoordinateX", "rlnCoordinateY"], 1.0),
        lambda: star_operations.histogram(document.column("rlnDefocusU", numeric=True)),
        lambda: selection.in_range(document.column("rlnDefocusU", numeric=True), 0.0, 1.0),
        lambda: selection.regroup(selection.numbered(document.column("rlnMicrographName").tolist()), np.ones(9999), np.ones(count, int), 2),
        duplicates,
        lambda: star_tools._describe(document.path, ""),
        lambda: star_tools._print(document, ""),
    )
    for chore in chores:
        with contextlib.suppress(InputError), contextlib.redirect_stdout(io.StringIO()):
            chore()


def coordinates_target(place: Workplace, data: bytes) -> None:
    """Picks as STAR, list and EMAN boxes."""
    for name in ("a.star", "a.txt", "a.box"):
        with contextlib.suppress(InputError):
            coordinates.read(place.put(name, data))


def micrographs_target(place: Workplace, data: bytes) -> None:
    """Micrographs to extract from: every output lies inside the output folder."""
    found = micrographs.load(place.put("a.star", data), "Particles/", 1.5)
    for micrograph in found.micrographs:
        parts = Path(micrograph.root).parts
        assert parts[0] == "Particles" and ".." not in parts, micrograph.root


def mtf_target(place: Workplace, data: bytes) -> None:
    """A detector's MTF, and a STAR list of images as image_handler's operand."""
    for read in (mtf.read, open_input):
        with contextlib.suppress(InputError):
            read(place.put("a.star", data))


TARGETS = {
    "star": star_target, "blocks": blocks_target, "rows": rows_target, "particles": particles_target, "chores": chores_target,
    "coordinates": coordinates_target, "micrographs": micrographs_target, "mtf": mtf_target,
}  # fmt: skip


def seeds(name: str, place: Workplace, shared: Path | None) -> list[bytes]:
    """Files made here, and short ones of other programs where the shared data are."""
    if name == "rows":
        return list(ROW_SEEDS)
    if name == "blocks":
        return list(BLOCK_SEEDS)
    if name == "mtf":
        return [MTF_SEED, STAR_SEED]
    own = {"coordinates": [LIST_SEED], "micrographs": [_micrographs()]}.get(name, [])
    return own + [STAR_SEED, OLD_SEED] + shared_stars(shared)


def shared_stars(folder: Path | None) -> list[bytes]:
    """The first lines of the STAR files of other programs."""
    paths = sorted((folder / "star").rglob("*.star")) if folder else []
    return [path.read_bytes()[:2000].rsplit(b"\n", 1)[0] + b"\n" for path in paths]


def _micrographs() -> bytes:
    return (STAR_SEED.replace(b"data_particles", b"data_micrographs").replace(b"_rlnImageName", b"_rlnCtfImage")
            .replace(b"_rlnImagePixelSize", b"_rlnMicrographPixelSize").replace(b"job002/mic1.mrc 2", b"job002/../../mic3.mrc 2"))  # fmt: skip
