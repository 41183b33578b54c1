"""What is wrong with a form, row by row, before it is run: numbers and choices, files, their columns, and pixel sizes that contradict."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aurefine import mrc
from aurefine.errors import InputError
from aurefine.jobs.extract_form import names_an_ending
from aurefine.jobs.form import JobType
from aurefine.jobs.programs import JOBS
from aurefine.jobs.run import check_flags
from aurefine.project.job_star import JobStar
from aurefine.project.pipeline import Pipeline
from aurefine.project.runner import Planned
from aurefine.web import form_contents
from aurefine.web.folder import Folder, Outside
from aurefine.web.form_contents import Problem, StarHead, star_head
from aurefine.web.form_data import endings, kind_of


def check(
    job_type: JobType, values: Mapping[str, str], pipeline: Pipeline, folder: Folder, going_on: Callable[[], list[str]] | None = None
) -> dict[str, Any]:
    """Problems of the form, and the command line that it makes ("" where it makes none); `going_on` makes that of a job that is to go on."""

    problems = [*_wrong_values(job_type, values), *_queue(job_type, values), *_files(job_type, values, pipeline, folder)]
    command = ""
    directory = f"{job_type.name}/job{pipeline.counter:03d}/"
    try:
        new = Planned(JobStar(job_type, {**job_type.defaults(pipeline.generation), **values}), None, job_type.name)
        words = going_on() if going_on else new.command(directory)
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
        if row.key == "sym_name" or (row.key == "relax_sym" and values[row.key].strip()):
            yield from form_contents.symmetry(row.key, values[row.key].strip())
        if row.kind == "float" and row.range and values[row.key] != row.default and not row.range[0] <= float(values[row.key] or 0) <= row.range[1]:
            yield Problem(row.key, "note", f"RELION's slider goes from {row.range[0]:g} to {row.range[1]:g}.")


def _queue(job_type: JobType, values: Mapping[str, str]) -> Iterator[Problem]:
    form = {**job_type.defaults(), **values}
    if form_contents.asked(form, "do_queue", "No"):
        wanted = (("qsub", "the program that takes the script"), ("qsubscript", "the template of the script (RELION_QSUB_TEMPLATE sets a default)"))
        yield from (Problem(key, "error", f"The job is to be submitted to a queue: give {what}.") for key, what in wanted if not form[key].strip())


def _files(job_type: JobType, values: Mapping[str, str], pipeline: Pipeline, folder: Folder) -> Iterator[Problem]:
    """Files that are missing or are not what the row takes."""
    heads: dict[str, StarHead] = {}
    maps: dict[str, mrc.Header] = {}
    paths: dict[str, Path] = {}
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
        paths[row.key] = path
        takes_map = kind_of(job_type, row).startswith(("DensityMap", "Mask3D"))
        try:
            if takes_map and path.suffix == ".star":
                yield Problem(row.key, "error", "This is a STAR file; a map (.mrc) was expected.")
            elif takes_map:
                maps[row.key] = mrc.read_header(path)
            elif path.suffix == ".star" and not names_an_ending(name):
                heads[row.key] = star_head(path)
            elif path.suffix != ".star" and ".star" in endings(kind_of(job_type, row)):
                yield Problem(row.key, "error", "This is no STAR file (its name does not end with .star).")
        except InputError as error:
            yield Problem(row.key, "error", str(error).replace(f"{folder.root}/", ""))
    yield from form_contents.particles(values, heads)
    yield from form_contents.maps(values, heads, maps)
    yield from form_contents.half_maps(job_type.name, paths)
    yield from form_contents.selection(values, heads)


def _missing(key: str, name: str, pipeline: Pipeline) -> Problem:
    if name in pipeline.nodes():
        return Problem(key, "warning", "This file is still to be made by another job: schedule this one.")
    return Problem(key, "error", "There is no such file in the project.")


def _key_in(job_type: JobType, message: str) -> str:
    """The row that a message of the job's own checks speaks of; "" where it names none."""
    return next((row.key for row in job_type.fields if re.search(rf"\b{re.escape(row.key)}\b", message)), "")


def _without_source(message: str, source: str) -> str:
    return message.removeprefix(f"{source}: ")
