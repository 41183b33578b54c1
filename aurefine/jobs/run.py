"""`aurefine run`: run a job as the next one of a RELION project, with its directory, its logs and its place in the pipeline."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from typing import Any

from aurefine.errors import InputError
from aurefine.jobs import external_form, submit
from aurefine.jobs.form import YES, JobType
from aurefine.jobs.options import Option, help_text, parse
from aurefine.project import job_directory, job_star, job_types, labels, runner, watch
from aurefine.project.job_star import JobStar
from aurefine.project.pipeline import Process
from aurefine.project.project import Project
from aurefine.project.runner import Planned
from aurefine.project.status import refresh

SUMMARY = "Run a job as the next one of the RELION project in this folder."
OPTIONS = (
    Option("go_on", "--continue", "Go on with a job that ended early: aurefine run --continue Refine3D/job019", "Run", False, "switch"),
    Option("schedule", "--schedule", "Only add the job; `aurefine run Refine3D/job019` or RELION runs it later", "Run", False, "switch"),
    Option("alias", "--alias", "Name under which RELION's GUI shows the job", "Run", ""),
    Option("show", "--show", "Print the command line of the job, and do nothing", "Run", False, "switch"),
    Option("new_project", "--new_project", "Start a project here, for the GUI of RELION 3.1, 4 or 5", "Run", ""),
)
_USAGE = """
usage: aurefine run [options] Refine3D --i particles.star --ref map.mrc ...     a job's own flags; --o is set
       aurefine run [options] Refine3D fn_img=particles.star sym_name=D2 ...    the options of RELION's form, the others at their defaults
       aurefine run [options] job.star [KEY=VALUE ...]                          a job.star of RELION 3.1, 4 or 5, or its run.job
       aurefine run [options] image_handler --i map.mrc --new_box 256           another job of aurefine's, as an External job
       aurefine run Refine3D/job019                                             a scheduled job
       aurefine run --continue Refine3D/job019 [flags]                          a job that ended early

The types of jobs are {types}.
""".rstrip()


Jobs = Mapping[str, tuple[str, str]]


def command_line(arguments: Sequence[str], jobs: Jobs) -> int:
    """Run `aurefine run <arguments>`; returns the job's exit code. Raises InputError before anything is written for a user's mistake.

    `jobs` is the command line's table: name -> (module, what it does).
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        usage = _USAGE.format(types=", ".join(each.name for each in job_types.JOB_TYPES))
        print(help_text("aurefine run", SUMMARY, OPTIONS) + usage)
        return 0 if arguments else 2
    with watch.closed_output_ignored():
        return _run(arguments, jobs)


def _run(arguments: Sequence[str], jobs: Jobs) -> int:
    own, what, rest = _split(arguments)
    if "--help" in rest or "-h" in rest:
        print(_form_help(job_types.by_name(what)))
        return 0
    given, _ = parse("aurefine run", SUMMARY, OPTIONS, own)
    if given.get("new_project"):
        Project.create(".", given["new_project"])
    project = Project.open(".")
    refresh(project)
    if what.endswith((".star", ".job")):
        return _run_new(project, _from_file(what, rest), given, jobs)
    if _is_directory_of_job(what):
        return _run_existing(project, what, rest, given, jobs)
    if given.get("go_on"):
        raise InputError(f"--continue {what}: the directory of a job was expected, such as Refine3D/job019")
    return _run_new(project, _from_words(what, rest, jobs, project.read().generation), given, jobs)


def _form_help(job_type: JobType) -> str:
    """The rows of RELION's form, by its tabs."""
    lines = [f"aurefine run {job_type.name} KEY=VALUE ...: the rows of RELION's form, with their defaults"]
    tab = ""
    for row in job_type.fields:
        lines += [f"\n{row.tab}:"] if row.tab != tab else []
        tab = row.tab
        choices = f" ({', '.join(row.choices)})" if row.choices else ""
        lines.append(f"  {row.key + '=' + row.default:<36}{row.label.rstrip(':')}{choices}")
    return "\n".join([*lines, f"\nOr with the flags of `aurefine {job_type.command}`." if job_type.command else ""])


def _split(arguments: Sequence[str]) -> tuple[list[str], str, list[str]]:
    """Our own options, the job, and what belongs to the job."""
    takes_value = {option.flag for option in OPTIONS if option.kind != "switch"}
    position = 0
    while position < len(arguments) and arguments[position].startswith("--"):
        position += 2 if arguments[position] in takes_value else 1
    if position >= len(arguments):
        raise InputError("aurefine run: which job? Give a type such as Refine3D, a job.star, or the directory of a job; `aurefine run --help`")
    return list(arguments[:position]), arguments[position], list(arguments[position + 1 :])


def _is_directory_of_job(what: str) -> bool:
    return "/" in what.rstrip("/") or (Path(what) / job_directory.JOB).is_file()


def _from_words(what: str, rest: Sequence[str], jobs: Jobs, generation: int) -> Planned:
    """A type of job and either its own flags, or KEY=VALUE of its form (flags that follow go to the form's additional arguments)."""
    settings = list(takewhile(lambda word: not word.startswith("--"), rest))
    own_flags = list(rest[len(settings) :])
    if submit.submits(own_flags):
        raise InputError("--submit: the job would be shown as finished as soon as it is submitted; submit `aurefine run` itself, or leave `run` out")
    if what.lower() == "external" and settings and "=" not in settings[0]:
        what, settings = settings[0], settings[1:]
    if _is_other_job(what, jobs):
        if settings:
            raise InputError(f"aurefine run {what}: {settings[0]!r} does not follow a flag; `aurefine {what} --help` lists them")
        external = external_form.JOB_TYPE
        return Planned(JobStar(external, {**external.defaults(), **external_form.form_of([what, *own_flags])}), None, f"aurefine run {what}")
    job_type = job_types.by_name(what)
    source = f"aurefine run {job_type.name}"
    if own_flags and not settings:
        form = job_type.form_from(own_flags, f"{job_type.name}/job000/")
        return Planned(JobStar(job_type, form), tuple(own_flags), source)
    return Planned(JobStar(job_type, _with(job_type.defaults(generation), settings, own_flags, source, job_type)), None, source)


def _is_other_job(name: str, jobs: Jobs) -> bool:
    """Whether aurefine has a job of this name that RELION's GUI has no form for."""
    return name in jobs and name not in {each.command for each in job_types.JOB_TYPES} | {"run", "jobs"}


def _from_file(path: str, rest: Sequence[str]) -> Planned:
    job = job_star.read(path)
    settings = list(takewhile(lambda word: not word.startswith("--"), rest))
    values = _with(job.values, settings, rest[len(settings) :], path, job.job_type)
    if job.is_continue:
        print(f" Note: {path} is of a job that was continued; a new job starts from the beginning.")
        values = {**values, "fn_cont": ""} if "fn_cont" in values else values
    if values.get("do_blush", "No").lower() in YES:
        print(f" Note: {path} asks for Blush regularisation (do_blush), whose network is RELION's own; the job runs without it.")
        values = {**values, "do_blush": "No"}
    return Planned(JobStar(job.job_type, values), None, path)


def _with(values: Mapping[str, str], settings: Sequence[str], own_flags: Sequence[str], source: str, job_type: JobType) -> dict[str, str]:
    changed: dict[str, str] = job_type.override(values, settings, source)
    if own_flags:
        changed["other_args"] = f"{changed.get('other_args', '')} {shlex.join(own_flags)}".strip()
    return changed


def _run_new(project: Project, planned: Planned, given: Mapping[str, Any], jobs: Jobs) -> int:
    if given.get("go_on"):
        raise InputError("--continue: give the directory of the job that is to go on, such as Refine3D/job019")
    command = planned.command(f"{planned.job.job_type.name}/job000/")
    check_flags(command, jobs)
    if given.get("show"):
        return _show(planned, f"{planned.job.job_type.name}/job{project.read().counter:03d}/")
    status = labels.SCHEDULED if given.get("schedule") else labels.RUNNING
    if status == labels.RUNNING:  # a scheduled job may wait for files that are still to be made
        runner.check_inputs(project.root, planned.job.job_type, command)
    _say_what_is_left_out(planned)
    process, resolved = runner.add(project, planned, status, given.get("alias", ""))
    if status == labels.SCHEDULED:
        print(f" Scheduled {process.name}; run it with `aurefine run {process.name}`.")
        return 0
    return _execute(project, process, resolved)


def _run_existing(project: Project, what: str, rest: Sequence[str], given: Mapping[str, Any], jobs: Jobs) -> int:
    process = project.read().process(what)
    if process is None or not (project.root / process.name / job_directory.JOB).is_file():
        raise InputError(f"{what}: there is no such job in this project; `aurefine jobs` lists them")
    path = process.name + job_directory.JOB
    planned = _from_directory(path, rest)
    if given.get("go_on"):
        planned.job.job_type.check_changes(job_star.read(path).values, planned.job.values, path)
        named = [word.removeprefix("fn_cont=") for word in rest if word.startswith("fn_cont=")]
        planned = runner.continued(planned, project, process, named[-1] if named else "")
    else:
        runner.check_scheduled(planned, project, process)
    command = planned.command(process.name)
    check_flags(command, jobs)
    if given.get("show"):
        return _show(planned, process.name)
    runner.check_inputs(project.root, planned.job.job_type, command)
    runner.restart(project, process, planned, command)
    return _execute(project, process, command)


def _from_directory(path: str, rest: Sequence[str]) -> Planned:
    job = job_star.read(path)
    settings = list(takewhile(lambda word: not word.startswith("--"), rest))
    values = _with(job.values, settings, rest[len(settings) :], path, job.job_type)
    return Planned(replace(job, values=values), None, path)


def _execute(project: Project, process: Process, command: Sequence[str]) -> int:
    print(f" Running {process.name}; what it prints is also in {process.name}run.out and run.err.", flush=True)
    code = runner.execute(project, process, command)
    now = project.read().process(process.name)
    print(f" {process.name} {(now.status if now else 'ended').lower()}.")
    return code


def _show(planned: Planned, directory: str) -> int:
    print(shlex.join(["aurefine", *planned.command(directory)]))
    return 0


def check_flags(command: Sequence[str], jobs: Jobs) -> None:
    """Find wrong flags before the job has a number and a directory; InputError. `command` ends with --pipeline_control and its directory."""
    name, *words = command
    if name not in jobs:
        raise InputError(f"there is no job {name!r} in this version of aurefine; it has {', '.join(jobs)}")
    job = import_module(jobs[name][0])
    if name not in {each.command for each in job_types.JOB_TYPES} and all(option.flag != "--o" for option in job.OPTIONS):
        raise InputError(f"{name} has no --o to write into a job's directory with, so it cannot be a job of a project; run `aurefine {name}` itself")
    parse(f"aurefine {name}", job.SUMMARY, job.OPTIONS, words[:-2])  # without --pipeline_control, which every job takes


def _say_what_is_left_out(planned: Planned) -> None:
    """What RELION's Running tab asks for and aurefine does otherwise; and an --o that was given."""
    values = planned.job.values
    if values.get("do_queue", "No").lower() in YES:
        print(" Note: do_queue is Yes, but the job runs here: submit `aurefine run` itself to the queue.")
    if values.get("nr_mpi", "1") not in ("", "1"):
        print(f" Note: nr_mpi is {values['nr_mpi']}, but one process of aurefine does the work of all; --processes starts several.")
    if planned.arguments is not None:
        for flag in planned.job.job_type.places:
            if flag in planned.arguments:
                print(f" Note: {flag} is set to the job's own directory.")
