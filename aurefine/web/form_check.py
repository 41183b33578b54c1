"""What is wrong with a form, row by row, before it is run: numbers and choices, files, their columns, and pixel sizes that contradict."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aurefine import mrc
from aurefine.errors import InputError
from aurefine.jobs.form import YES, JobType
from aurefine.jobs.run import check_flags
from aurefine.project.job_star import JobStar
from aurefine.project.pipeline import Pipeline
from aurefine.project.runner import Planned
from aurefine.web.folder import Folder, Outside
from aurefine.web.form_data import kind_of

_HEAD_BYTES = 1 << 18  # of a STAR file: all labels and the optics groups lie there


@dataclass(frozen=True)
class Problem:
    """`level` is error (the job would not run), warning, or note; `key` is the row, "" for the form as a whole."""

    key: str
    level: str
    text: str


@dataclass(frozen=True)
class StarHead:
    """Labels and the first pixel size and box of a particle STAR file."""

    labels: frozenset[str]
    pixel_size: float | None
    box: int | None


def check(job_type: JobType, values: Mapping[str, str], pipeline: Pipeline, folder: Folder) -> dict[str, Any]:
    """Problems of the form, and the command line that it makes ("" where it makes none)."""
    from aurefine.cli.main import JOBS

    problems = [*_wrong_values(job_type, values), *_files(job_type, values, pipeline, folder)]
    command = ""
    directory = f"{job_type.name}/job{pipeline.counter:03d}/"
    try:
        words = Planned(JobStar(job_type, {**job_type.defaults(pipeline.generation), **values}), None, job_type.name).command(directory)
        command = shlex.join(["aurefine", *words])
        check_flags(words, JOBS)
    except (InputError, ValueError) as error:
        if not any(problem.level == "error" for problem in problems):
            problems.append(Problem(_key_in(job_type, str(error)), "error", _without_source(str(error), job_type.name)))
    return {"problems": [asdict(problem) for problem in problems], "command": command, "directory": directory}


def _wrong_values(job_type: JobType, values: Mapping[str, str]) -> Iterator[Problem]:
    for row in job_type.fields:
        if row.key not in values:
            continue
        if row.required and not values[row.key].strip():
            yield Problem(row.key, "error", "A value is needed here.")
            continue
        try:
            job_type.complete({row.key: values[row.key]}, "form")
        except InputError as error:
            yield Problem(row.key, "error", str(error).partition(" is ")[2].join(("It is ", ".")))
            continue
        if row.kind == "float" and row.range and not row.range[0] <= float(values[row.key] or 0) <= row.range[1]:
            yield Problem(row.key, "note", f"RELION's slider goes from {row.range[0]:g} to {row.range[1]:g}.")


def _files(job_type: JobType, values: Mapping[str, str], pipeline: Pipeline, folder: Folder) -> Iterator[Problem]:
    """Files that are missing or are not what the row takes."""
    heads: dict[str, StarHead] = {}
    maps: dict[str, mrc.Header] = {}
    for row in job_type.fields:
        name = values.get(row.key, "").strip()
        if row.kind != "file" or not name or name == "None" or row.key in ("qsubscript", "scratch_dir", "fn_exe"):
            continue
        try:
            path = folder.path(name)
        except Outside:
            yield Problem(row.key, "warning", "This file is outside the project: the page does not look there, the job will.")
            continue
        if not path.exists():
            yield _missing(row.key, name, pipeline)
            continue
        try:
            if path.suffix == ".star":
                heads[row.key] = star_head(path)
            elif kind_of(job_type, row).startswith(("DensityMap", "Mask3D")):
                maps[row.key] = mrc.read_header(path)
        except InputError as error:
            yield Problem(row.key, "error", str(error).replace(f"{folder.root}/", ""))
    yield from _particles(values, heads)
    yield from _maps(heads, maps)


def _missing(key: str, name: str, pipeline: Pipeline) -> Problem:
    if name in pipeline.nodes():
        return Problem(key, "warning", "This file is still to be made by another job: schedule this one.")
    return Problem(key, "error", "There is no such file in the project.")


def _particles(values: Mapping[str, str], heads: Mapping[str, StarHead]) -> Iterator[Problem]:
    head = heads.get("fn_img")
    if head is None:
        return
    if "rlnImageName" not in head.labels:
        yield Problem("fn_img", "error", "This STAR file has no particles (no column _rlnImageName).")
        return
    asked = values.get("do_ctf_correction", "Yes").lower() in YES
    if asked and not {"rlnDefocusU", "rlnDefocusV"} <= head.labels:
        yield Problem("fn_img", "error", "It has no CTF columns (_rlnDefocusU, _rlnDefocusV): set CTF-correction to No, or give particles with CTFs.")
    elif head.pixel_size and head.box:
        yield Problem("fn_img", "note", f"{head.box} px boxes at {head.pixel_size:g} Å/px, with CTF columns.")


def _maps(heads: Mapping[str, StarHead], maps: Mapping[str, mrc.Header]) -> Iterator[Problem]:
    """Sizes of the reference against the particles, of a mask against its map."""
    particles, reference = heads.get("fn_img"), maps.get("fn_ref")
    if particles and reference and particles.pixel_size and particles.box:
        same = abs(reference.pixel_size / particles.pixel_size - 1) < 0.001
        if not same or reference.columns != particles.box:
            yield Problem("fn_ref", "warning", f"The reference has {_size(reference)}, the particles {particles.box} px at "
                          f"{particles.pixel_size:g} Å: it will be resized, if \"Resize reference if needed?\" is Yes.")  # fmt: skip
        else:
            yield Problem("fn_ref", "note", f"{_size(reference)}, as the particles.")
    base, mask = maps.get("fn_ref") or maps.get("fn_in"), maps.get("fn_mask")
    if base and mask and (base.columns != mask.columns or abs(base.pixel_size / mask.pixel_size - 1) > 0.001):
        yield Problem("fn_mask", "warning", f"The mask has {_size(mask)}, the map {_size(base)}.")


def _size(header: mrc.Header) -> str:
    return f"{header.columns} px at {header.pixel_size:g} Å"


def star_head(path: Path) -> StarHead:
    """Labels of all blocks, and pixel size and box of the first optics group, from the beginning of the file. InputError for no STAR file."""
    try:
        with open(path, "rb") as file:
            text = file.read(_HEAD_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if not re.search(r"^data_", text, re.MULTILINE):
        raise InputError(f"{path}: this is not a STAR file (no data_ block)")
    labels = frozenset(re.findall(r"^_(\w+)", text, re.MULTILINE))
    optics = re.search(r"^data_optics\s+(.*?)(?=^data_|\Z)", text, re.MULTILINE | re.DOTALL)
    first = _first_row(optics.group(1)) if optics else {}
    return StarHead(labels, _number(first.get("rlnImagePixelSize")), int(_number(first.get("rlnImageSize")) or 0) or None)


def _first_row(block: str) -> dict[str, str]:
    names = re.findall(r"^_(\w+)", block, re.MULTILINE)
    rows = [line.split() for line in block.splitlines() if line.strip() and not line.lstrip().startswith(("_", "#", "loop_"))]
    return dict(zip(names, rows[0], strict=False)) if rows else {}


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _key_in(job_type: JobType, message: str) -> str:
    """The row that a message of the job's own checks speaks of; "" where it names none."""
    return next((row.key for row in job_type.fields if re.search(rf"\b{re.escape(row.key)}\b", message)), "")


def _without_source(message: str, source: str) -> str:
    return message.removeprefix(f"{source}: ")
