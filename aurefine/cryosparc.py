"""cryoSPARC's particle files (`.cs`) as RELION's tables.

A `.cs` file is a numpy structured array; a job's `passthrough` file beside it holds further fields of the same particles (same `uid`).
Conventions, as cryoSPARC's forum and guide give them, and as pyem (csparc2star) and cryoDRGN read them:

* `alignments3D/pose` is a rotation vector v (radians) with RELION's matrix A = exp([v]x)^T, that is, the rotation by -|v| about v;
* `alignments3D/shift` is RELION's origin in pixels of `alignments3D/psize_A`;
* `alignments3D/split` 0 and 1 are the half-sets 1 and 2; `blob/idx` counts from 0; `blob/sign` times the image makes protein bright;
* beam tilt in mrad is 1000 asin(`ctf/tilt_A` / Cs); other aberrations are not read, and a note says so;
* coordinates are fractions of the micrograph, whose shape is (y, x).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

from aurefine import euler, star
from aurefine.errors import InputError
from aurefine.regular_files import regular
from aurefine.star import Table

SIGN = "cryosparcBlobSign"  # the column that says which images are dark on bright
_HEADER_BYTES = 200_000
_NEEDED = ("blob/path", "blob/idx", "blob/shape", "blob/psize_A")
_OPTICS = ("ctf/exp_group_id", "ctf/accel_kv", "ctf/cs_mm", "ctf/amp_contrast", "blob/psize_A", "blob/shape", "ctf/tilt_A")
_NOT_READ = ("ctf/trefoil_A", "ctf/tetra_A", "ctf/anisomag", "ctf/shift_A")


class _FieldError(Exception):
    """A field of another kind than expected; the reader adds the file's name."""


def is_cryosparc(path: str | Path) -> bool:
    """Whether a file's name says that it is cryoSPARC's."""
    return str(path).endswith(".cs")


def read_either(path: str | Path) -> tuple[dict[str, Table], list[str]]:
    """The tables of a `.cs` or STAR file, by its name, and notes on what could not be taken over; errors as those of `read` and `star.read`."""
    return read(path) if is_cryosparc(path) else (star.read(path), [])


def read(path: str | Path) -> tuple[dict[str, Table], list[str]]:
    """Tables `optics` and `particles` of a `.cs` file and its passthrough files, and notes on what could not be taken over.

    Raises InputError for a file that is missing, damaged, of another kind, or without images.
    """
    try:
        return _tables(path, _with_passthrough(Path(path), read_fields(path)))
    except _FieldError as error:
        raise InputError(f"{path}: {error}; is this a file of cryoSPARC 2 or later?") from error


def _tables(path: str | Path, fields: dict[str, np.ndarray]) -> tuple[dict[str, Table], list[str]]:
    missing = [name for name in _NEEDED if name not in fields]
    if missing:
        raise InputError(f"{path}: it has no {', '.join(missing)}, so these are no particle images; give the job's particles .cs file")
    if not len(fields["blob/idx"]):
        raise InputError(f"{path}: it holds no particle; was the selection that made this file empty?")
    optics, group = _optics(fields)
    columns = {**_images(fields), "rlnOpticsGroup": group, **_ctf(fields), **_poses(fields), **_places(fields)}
    return {"optics": optics, "particles": Table("particles", columns)}, _notes(fields)


def read_fields(path: str | Path) -> dict[str, np.ndarray]:
    """The fields of a `.cs` file by name; InputError where it is missing, damaged or of another format."""
    try:
        with open(path, "rb", opener=regular) as handle:
            return _fields(handle, str(path))
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file; check the name") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', error)})") from error


def _fields(handle: BinaryIO, path: str) -> dict[str, np.ndarray]:
    start = handle.read(6)
    handle.seek(0)
    if start == b"\x94CSDAT":
        raise InputError(f"{path}: this is cryoSPARC's compressed format; export the job's outputs in cryoSPARC, which writes the plain one")
    try:
        version = np.lib.format.read_magic(handle)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = reader(handle, max_header_size=_HEADER_BYTES)
    except Exception as error:  # numpy evaluates the header's text; whatever it raises, the header is damaged
        raise InputError(f"{path}: not a .cs file of cryoSPARC ({str(error)[:100] or type(error).__name__})") from error
    if kind.names is None or len(shape) != 1 or kind.hasobject or kind.itemsize == 0:
        raise InputError(f"{path}: not a .cs file of cryoSPARC: it holds an array of {str(kind)[:60]}, not rows of fields")
    count, left = shape[0], os.fstat(handle.fileno()).st_size - handle.tell()
    if count < 0 or count * kind.itemsize > left:
        raise InputError(f"{path}: truncated: it claims {count} rows of {kind.itemsize} bytes, but only {left} bytes follow; copy it again")
    rows = np.frombuffer(handle.read(count * kind.itemsize), kind)
    return {name: rows[name] for name in kind.names}


def _with_passthrough(path: Path, fields: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Adds the fields of the passthrough files in the same folder that know every particle."""
    uid = fields.get("uid")
    if uid is None or "passthrough" in path.name:
        return fields
    joined = dict(fields)
    for other in sorted(path.parent.glob("*passthrough*.cs")):
        more = read_fields(other)
        if "uid" not in more or not len(more["uid"]) or not set(more) - set(joined):
            continue
        order = np.argsort(more["uid"], kind="stable")
        place = order[np.searchsorted(more["uid"], uid, sorter=order).clip(max=len(order) - 1)]
        if np.array_equal(more["uid"][place], uid):
            joined.update({name: column[place] for name, column in more.items() if name not in joined})
    return joined


def _numbers(fields: dict[str, np.ndarray], name: str, width: int = 1) -> np.ndarray | None:
    """A field as float64 [n] or [n, width]; None where the file has no such field of this shape."""
    values = fields.get(name)
    if values is None or values.dtype.kind not in "iufb" or values.shape[1:] != (() if width == 1 else (width,)):
        return None
    return values.astype(np.float64)


def _need(fields: dict[str, np.ndarray], name: str, width: int = 1) -> np.ndarray:
    values = _numbers(fields, name, width)
    if values is None:
        raise _FieldError(f"the field {name} is not {width} number{'s' * (width > 1)} a particle")
    return values


def _texts(fields: dict[str, np.ndarray], name: str) -> np.ndarray | None:
    values = fields.get(name)
    if values is None or values.dtype.kind not in "SU" or values.ndim != 1:
        return None
    known: dict[bytes | str, str] = {}
    words = [known.setdefault(word, _plain(word)) for word in values.tolist()]
    return np.array(words, dtype=object)


def _plain(word: bytes | str) -> str:
    """A path without the `>` by which cryoSPARC marks what it did not write itself."""
    return (word.decode("utf-8", "surrogateescape") if isinstance(word, bytes) else word).removeprefix(">")


def _images(fields: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    paths = _texts(fields, "blob/path")
    if paths is None:
        raise _FieldError("the field blob/path is not a text")
    number = _need(fields, "blob/idx").astype(np.int64) + 1
    names = [f"{image:06d}@{path}" for image, path in zip(number.tolist(), paths.tolist(), strict=True)]
    columns = {"rlnImageName": np.array(names, dtype=object)}
    sign = _numbers(fields, "blob/sign")
    if sign is not None and (sign != 1).any():
        columns[SIGN] = np.where(sign < 0, -1.0, 1.0)
    if "uid" in fields:
        columns["cryosparcUid"] = np.array([str(uid) for uid in fields["uid"].tolist()], dtype=object)
    return columns


def _optics(fields: dict[str, np.ndarray]) -> tuple[Table, np.ndarray]:
    """One optics group for each distinct set of microscope values; and the group of each particle, 1-based."""
    count = len(fields["blob/idx"])
    shape, tilt = _need(fields, "blob/shape", 2), _numbers(fields, "ctf/tilt_A", 2)
    values = {name: _numbers(fields, name) for name in _OPTICS[:5]}
    values["blob/psize_A"] = _need(fields, "blob/psize_A")
    keys = np.column_stack([shape[:, 0], *(np.zeros((count, 2)) if tilt is None else tilt).T,
                            *(np.zeros(count) if column is None else column for column in values.values())])  # fmt: skip
    _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    first = first[order]
    number = np.arange(1, len(first) + 1)
    columns: dict[str, np.ndarray] = {"rlnOpticsGroup": number, "rlnOpticsGroupName": np.array([f"opticsGroup{n}" for n in number], dtype=object)}
    for label, name in (("rlnVoltage", "ctf/accel_kv"), ("rlnSphericalAberration", "ctf/cs_mm"), ("rlnAmplitudeContrast", "ctf/amp_contrast"),
                        ("rlnImagePixelSize", "blob/psize_A")):  # fmt: skip
        column = values[name]
        if column is not None:
            columns[label] = np.round(column[first], 6)  # single precision holds no more
    columns |= {"rlnImageSize": shape[first, 0].astype(np.int64), "rlnImageDimensionality": np.full(len(first), 2)}
    aberration = values["ctf/cs_mm"]
    if tilt is not None and aberration is not None and tilt.any():
        with np.errstate(divide="ignore", invalid="ignore"):
            sine = np.nan_to_num(tilt[first] * 1e-7 / aberration[first, None])
        mrad = 1000 * np.arcsin(np.clip(sine, -1, 1))
        columns |= {"rlnBeamTiltX": mrad[:, 0], "rlnBeamTiltY": mrad[:, 1]}
    return Table("optics", columns), rank[group.reshape(-1)] + 1


def _ctf(fields: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    columns = {}
    for label, name in (("rlnDefocusU", "ctf/df1_A"), ("rlnDefocusV", "ctf/df2_A")):
        column = _numbers(fields, name)
        if column is not None:
            columns[label] = column
    for label, name in (("rlnDefocusAngle", "ctf/df_angle_rad"), ("rlnPhaseShift", "ctf/phase_shift_rad")):
        column = _numbers(fields, name)
        if column is not None:
            columns[label] = np.rad2deg(column)
    return columns


def _poses(fields: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Angles, origins, half-sets and classes of the 3D alignment; of several classes the likeliest counts."""
    sets = _alignments(fields)
    if not sets:
        return {}
    posterior = [_numbers(fields, f"{name}/class_posterior") for name in sets]
    best = np.zeros(len(fields["blob/idx"]), dtype=np.int64)
    if len(sets) > 1:
        best = np.argmax(np.stack([np.zeros(len(best)) if column is None else column for column in posterior]), axis=0)
    pose, shift, size, half = (
        np.stack(columns)[best, np.arange(len(best))]
        for columns in zip(*(_alignment(fields, name) for name in sets), strict=True)
    )  # fmt: skip
    if not (np.isfinite(pose).all() and np.isfinite(shift).all() and np.isfinite(size).all()):
        raise _FieldError(f"{sets[0]} holds poses or shifts that are not finite")
    angles = euler.from_matrix(pose_matrices(pose))
    columns = {f"rlnAngle{axis}": angles[:, place] for place, axis in enumerate(("Rot", "Tilt", "Psi"))}
    columns |= {f"rlnOrigin{axis}Angst": shift[:, place] * size for place, axis in enumerate("XY")}
    if (half >= 0).all():
        if not np.isin(half, (0, 1)).all():
            raise _FieldError(f"{sets[0]}/split holds values other than 0 and 1")
        columns["rlnRandomSubset"] = half.astype(np.int64) + 1
    if len(sets) > 1:
        columns["rlnClassNumber"] = best + 1
    return columns


def pose_matrices(pose: np.ndarray) -> np.ndarray:
    """RELION's matrices A [n, 3, 3] of cryoSPARC's rotation vectors [n, 3] in radians."""
    return euler.from_rotation_vector(-np.asarray(pose, dtype=np.float64))


def _alignments(fields: dict[str, np.ndarray]) -> list[str]:
    """The sets of 3D poses: of a refinement, or one for each class of an ab-initio or heterogeneous job."""
    if "alignments3D/pose" in fields:
        return ["alignments3D"]
    names = [name.removesuffix("/pose") for name in fields if name.startswith("alignments_class_") and name.endswith("/pose")]
    return sorted(names, key=lambda name: (len(name), name))


def _alignment(fields: dict[str, np.ndarray], name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    size, half = _numbers(fields, f"{name}/psize_A"), _numbers(fields, f"{name}/split")
    if size is None or not (size > 0).all():
        size = _need(fields, "blob/psize_A")
    return _need(fields, f"{name}/pose", 3), _need(fields, f"{name}/shift", 2), size, np.full(len(size), -1.0) if half is None else half


def _places(fields: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Micrograph and coordinates, where a passthrough file tells them."""
    names = _texts(fields, "location/micrograph_path")
    if names is None or not all(names.tolist()):
        return {}
    columns = {"rlnMicrographName": names}
    x, y = _numbers(fields, "location/center_x_frac"), _numbers(fields, "location/center_y_frac")
    shape = _numbers(fields, "location/micrograph_shape", 2)
    if x is not None and y is not None and shape is not None:
        columns |= {"rlnCoordinateX": x * shape[:, 1], "rlnCoordinateY": y * shape[:, 0]}
    return columns


def _notes(fields: dict[str, np.ndarray]) -> list[str]:
    found = [name for name in _NOT_READ if name in fields and fields[name].dtype.kind in "iuf" and np.any(fields[name])]
    notes = [f"cryoSPARC's {', '.join(found)} are not taken over: estimate these aberrations again"] if found else []
    if not _alignments(fields):
        notes.append("no 3D poses (alignments3D) in this file: the refinement starts without angles")
    return notes
