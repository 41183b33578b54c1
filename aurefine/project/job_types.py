"""The jobs that run inside a RELION project: each `jobs/<job>_form.py` declares one, this is where they are found."""

from __future__ import annotations

from aurefine.errors import InputError
from aurefine.jobs import external_form, extract_form, mask_create_form, postprocess_form, refine3d_form, select_form, validate_form
from aurefine.jobs.form import JobType
from aurefine.jobs.options import nearest_names

JOB_TYPES: tuple[JobType, ...] = (
    refine3d_form.JOB_TYPE,
    extract_form.JOB_TYPE,
    mask_create_form.JOB_TYPE,
    postprocess_form.JOB_TYPE,
    select_form.JOB_TYPE,
    external_form.JOB_TYPE,
    validate_form.JOB_TYPE,  # after External, whose label it has in RELION's projects
)


def by_name(name: str) -> JobType:
    """The job type called `name`: its directory (Refine3D), its label (relion.refine3d) or aurefine's own name (refine); InputError else."""
    for job_type in JOB_TYPES:
        if name.rstrip("/").lower() in (job_type.name.lower(), job_type.label, job_type.command):
            return job_type
    names = [job_type.name for job_type in JOB_TYPES]
    near = nearest_names(name, names)
    hint = f"Did you mean {' or '.join(near)}?" if near else "Run other jobs with RELION."
    raise InputError(f"there is no job type {name!r}; aurefine runs {', '.join(names)}. {hint}")


def by_label(label: str, source: str) -> JobType:
    """The job type of a RELION 4 or 5 label, whatever its variant; InputError, naming `source`, for one that aurefine does not have."""
    base = ".".join(label.split(".")[:2])
    for job_type in JOB_TYPES:
        if base == ".".join(job_type.label.split(".")[:2]) and not label.endswith(".tomo"):
            return job_type
    known = ", ".join(each.label for each in JOB_TYPES)
    raise InputError(f"{source}: aurefine has no job of type {label}; it runs {known}. Run this one with RELION")


def by_code(code: int, source: str) -> JobType:
    """The job type of a RELION 3 number; InputError, naming `source`, for one that aurefine does not have."""
    for job_type in JOB_TYPES:
        if job_type.code == code:
            return job_type
    known = ", ".join(f"{each.code} ({each.name})" for each in JOB_TYPES)
    raise InputError(f"{source}: aurefine has no job of RELION 3's type {code}; it runs {known}. Run this one with RELION")
