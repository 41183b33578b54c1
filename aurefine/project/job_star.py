"""`job.star`, the options of a job as RELION's GUI keeps them: versions 3.1, 4 and 5, and the `run.job` of RELION 3.0 and before."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aurefine import star
from aurefine.errors import InputError
from aurefine.jobs import external_form
from aurefine.jobs.form import QUEUE, JobType
from aurefine.project import job_types
from aurefine.regular_files import regular, text_of
from aurefine.star import Table

_BEGINNING = 1 << 16  # characters in which the first line lies


@dataclass(frozen=True)
class JobStar:
    """A job's type and its form; `values` maps the form's keys to texts: all of the form's, and those that only other versions of RELION have."""

    job_type: JobType
    values: dict[str, str]
    is_continue: bool = False


def read(path: str | Path) -> JobStar:
    """Read a `job.star` or `run.job`; InputError for a file that is neither, a type aurefine does not run, or tomography."""
    first = _first_line(path)
    if first.startswith("job_type"):
        return _read_run_job(path)
    tables = star.read(path)
    job, options = tables.get("job"), tables.get("joboptions_values")
    if job is None or options is None:
        raise InputError(f"{path}: not a job.star (data_job and data_joboptions_values were expected); give the one in the job's directory")
    if job.value("rlnJobIsTomo", 0):
        raise InputError(f"{path}: a tomography job, which aurefine does not run; run it with RELION")
    names, values = options.columns.get("rlnJobOptionVariable"), options.columns.get("rlnJobOptionValue")
    if names is None or values is None:
        raise InputError(f"{path}: data_joboptions_values lacks _rlnJobOptionVariable or _rlnJobOptionValue; give the job.star that RELION wrote")
    form = {str(name): str(value) for name, value in zip(names, values, strict=True)}
    job_type = _type(job, path)
    found = JobStar(job_type, {**job_type.defaults(5 if "rlnJobTypeLabel" in job else 3), **form}, bool(job.value("rlnJobIsContinue", 0)))
    return _with_own_form(found)


def _with_own_form(job: JobStar) -> JobStar:
    """An External job that runs a program for which aurefine has a form of its own, as that form."""
    command = job.values.get("fn_exe", "").split()[-1:]
    own = next((each for each in _stored_as_external() if [each.command] == command), None)
    if own is None or job.job_type is not external_form.JOB_TYPE:
        return job
    try:
        values = own.complete(own.form_from(shlex.split(job.values.get("other_args", "")), ""), "job.star")
    except (ValueError, InputError):  # a quote that is not closed, a flag given twice: shown as the External job that it is
        return job
    return JobStar(own, {**values, **{row.key: job.values[row.key] for row in QUEUE if row.key in job.values}}, job.is_continue)


def _as_external(job: JobStar) -> JobStar:
    """A job whose form RELION does not know, as the External job that it is for RELION."""
    if job.job_type not in _stored_as_external():
        return job
    words = job.job_type.to_arguments({**job.job_type.defaults(), **job.values}, "")
    for place in (flag for flag in job.job_type.places if flag in words):  # where it is written, RELION says by the job's directory
        del words[words.index(place) : words.index(place) + 2]
    queue = {row.key: job.values[row.key] for row in QUEUE if row.key in job.values}
    external = external_form.JOB_TYPE
    return JobStar(external, {**external.defaults(), **queue, **external_form.form_of([job.job_type.command, *words])}, job.is_continue)


def _stored_as_external() -> list[JobType]:
    external = external_form.JOB_TYPE
    return [each for each in job_types.JOB_TYPES if each.label == external.label and each is not external]


def _type(job: Table, path: str | Path) -> JobType:
    label, code = job.value("rlnJobTypeLabel"), job.value("rlnJobType")
    if label is None and code is None:
        raise InputError(f"{path}: data_job says no type (_rlnJobTypeLabel or _rlnJobType); give the job.star that RELION wrote")
    return job_types.by_label(str(label), str(path)) if label is not None else job_types.by_code(int(str(code)), str(path))


def _first_line(path: str | Path) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", opener=regular) as file:
            return next((line.strip() for line in file.read(_BEGINNING).splitlines() if line.strip()), "")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a job.star, a job's directory or a type such as Refine3D") from error


def _read_run_job(path: str | Path) -> JobStar:
    """Lines `label == value`, with the labels of the GUI; labels that the form no longer has are left out."""
    rows: dict[str, str] = {}
    for number, line in enumerate(text_of(path, "surrogateescape").splitlines(), start=1):
        name, equals, value = line.partition("==")
        if not equals and line.strip():
            raise InputError(f"{path}, line {number}: 'label == value' was expected but {line[:40]!r} was found; give the run.job that RELION wrote")
        rows[_bare(name)] = value.strip()
    if not rows.get("job_type", "").isdecimal():
        raise InputError(f"{path}: job_type {rows.get('job_type', '')!r} is not a number; give the run.job that RELION wrote")
    job_type = job_types.by_code(int(rows["job_type"]), str(path))
    values = {field.key: rows[_bare(field.label)] for field in job_type.fields if _bare(field.label) in rows}
    return JobStar(job_type, {**job_type.defaults(3), **values}, rows.get("is_continue", "") == "true")


def _bare(label: str) -> str:
    return " ".join(label.split()).rstrip(":").rstrip()


def write(path: str | Path, job: JobStar, generation: int = 5) -> None:
    """Write a `job.star` in the layout of RELION 3 (3.1), 4 or 5; rows that this version of RELION does not have are left out."""
    job = _as_external(job)
    kind: Mapping[str, object]
    if generation == 3:
        kind = {"rlnJobType": job.job_type.code, "rlnJobIsContinue": int(job.is_continue)}
    else:
        kind = {"rlnJobTypeLabel": job.job_type.label_of(job.values), "rlnJobIsContinue": int(job.is_continue), "rlnJobIsTomo": 0}
    absent = {field.key for field in job.job_type.fields if not field.since <= generation <= field.until}
    rows = [(key, job.values[key]) for key in sorted(job.values) if key not in absent]
    tables = [Table.from_values("job", kind), Table.from_rows("joboptions_values", ("rlnJobOptionVariable", "rlnJobOptionValue"), rows)]
    star.write(path, tables, version=50001 if generation == 5 else 30001)
