"""Make a job the next one of its project, run it, and leave the pipeline saying how it ended (ALGORITHM.md 6.9)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from aurefine.errors import InputError
from aurefine.jobs.form import FILE_LABELS, JobType, flags
from aurefine.process_record import ProcessRecord
from aurefine.project import job_directory, labels, watch
from aurefine.project.job_star import JobStar
from aurefine.project.pipeline import Pipeline, Process
from aurefine.project.project import Project, check_alias
from aurefine.project.status import refresh


@dataclass(frozen=True)
class Planned:
    """A job before it has a number: its form, and either the words of its command line or none, when the form says them."""

    job: JobStar
    arguments: tuple[str, ...] | None = None
    source: str = ""  # where the form comes from, for messages

    def command(self, directory: str) -> list[str]:
        """The words after `aurefine` that run the job in its directory (with a slash)."""
        job_type = self.job.job_type
        if self.arguments is None:
            words = job_type.arguments(self.job.values, directory, self.source)
        else:
            words = _placed(job_type, self.arguments, directory)
        named = [job_type.command] if job_type.command else []
        return [*named, *words, "--pipeline_control", directory]


def add(project: Project, planned: Planned, status: str = labels.RUNNING, alias: str = "") -> tuple[Process, list[str]]:
    """Give the job the project's next number and its directory; returns it with its command line.

    The number is taken under the project's lock, so that two jobs started at once get two. Raises InputError before anything is written
    when the form or the alias is wrong.
    """
    job_type = planned.job.job_type
    planned.command(f"{job_type.name}/job000/")  # finds what is wrong before the job has a number
    shown = check_alias(alias, job_type.name) if alias else "None"
    with project.edit(f"adding a {job_type.name} job") as pipeline:
        if shown != "None" and (project.root / shown.rstrip("/")).exists():
            raise InputError(f"{shown}: there is a job of this name already; choose another --alias")
        name = _next_directory(project.root, pipeline, job_type.name)
        process = Process(name, shown, job_type.label_of(planned.job.values), status)
        pipeline.add_process(process, job_type.code)
        command = _resolved(pipeline, planned.command(name))
        _add_edges(project.root, pipeline, process, planned.job, command)
        job_directory.write_description(project.root, name, planned.job, pipeline)
        if shown != "None":
            project.link_alias(process)
        if status == labels.RUNNING:
            ProcessRecord.own().save(project.root / name)  # until the job's own process is there
        project.show_nodes(pipeline, process, status == labels.SCHEDULED)
    return process, command


def check_inputs(root: Path, job_type: JobType, command: Sequence[str]) -> None:
    """InputError for an input of the command line that is not there: before the job is touched, for then nothing has to be set right again."""
    for flag, name in _inputs(root, job_type, command):
        if not (root / name).exists():
            raise InputError(f"{flag} {name}: there is no such file; names are relative to the project's folder ({root.absolute()})")


def _inputs(root: Path, job_type: JobType, command: Sequence[str]) -> list[tuple[str, str]]:
    """The flags of a command line that name inputs, and what they name."""
    given, meant = flags(command), job_type.node_meant
    named = [(flag, meant(root, flag, given) if meant else given[flag][0]) for flag in job_type.inputs if given.get(flag)]
    return [(flag, name) for flag, name in named if name and name != "None"]


def restart(project: Project, process: Process, planned: Planned, command: Sequence[str]) -> None:
    """Set a job that is scheduled, or goes on, to Running; InputError when it runs already."""
    with project.edit(f"starting {process.name}") as pipeline:
        now = pipeline.process(process.name)
        if now is None or now.status == labels.RUNNING:
            raise InputError(f"{process.name} is running; wait for it, or stop it first (touch {process.name}RELION_JOB_ABORT_NOW)")
        pipeline.set_status(process.name, labels.RUNNING)
        job_directory.clear_exit_files(project.root / process.name)
        ProcessRecord.own().save(project.root / process.name)
        _add_edges(project.root, pipeline, process, planned.job, list(command))
        job_directory.write_description(project.root, process.name, planned.job, pipeline)


def execute(project: Project, process: Process, command: Sequence[str]) -> int:
    """Run a job that has its directory, showing what it prints, until it ends; returns its exit code (128 + signal where one ended it)."""
    folder = project.root / process.name
    job_directory.write_note(folder, shlex.join(["aurefine", *command]))
    result = watch.Result(1, False)
    try:
        result = watch.run(command, project.root, folder)
    finally:
        if job_directory.outcome(folder) is None:
            job_directory.mark(folder, _status(result))
        _finish(project, process)
    return result.code


def _finish(project: Project, process: Process) -> None:
    try:
        job_directory.report_nodes(project.root, process.name, project.read().generation)
        refresh(project)
    except InputError as error:
        print(f" Warning: the pipeline still says that {process.name} runs, `aurefine jobs` will set it right. {error}")


def _status(result: watch.Result) -> str:
    if result.stopped:
        return labels.ABORTED
    return labels.SUCCEEDED if result.code == 0 else labels.FAILED


def _next_directory(root: Path, pipeline: Pipeline, job: str) -> str:
    """The directory of the next number that is free; the counter moves on."""
    number = max([pipeline.counter, *(process.number + 1 for process in pipeline.processes)])
    while (root / job / f"job{number:03d}").exists():  # left by another project or a lost pipeline: never written into
        number += 1
    pipeline.counter = number + 1
    return f"{job}/job{number:03d}/"


def _placed(job_type: JobType, arguments: Sequence[str], directory: str) -> list[str]:
    """The user's command line with its outputs in the job's directory, first of all where they were not said."""
    given = {flag: values for flag, values in flags(arguments).items() if flag != "--pipeline_control"}
    places = {flag: [directory + ending] for flag, ending in job_type.places.items()}
    missing = {flag: values for flag, values in places.items() if flag not in given}
    return [part for flag, values in {**missing, **given}.items() for part in (flag, *places.get(flag, values))]


def _resolved(pipeline: Pipeline, command: list[str]) -> list[str]:
    """Aliases in file names become the jobs' directories, as in RELION's own command lines: aliases may change, the graph may not."""
    aliases = {process.alias: process.name for process in pipeline.processes if process.alias != "None"}
    for alias, name in aliases.items():
        command = [name + word.removeprefix(alias) if word.startswith(alias) else word for word in command]
    return command


def _add_edges(root: Path, pipeline: Pipeline, process: Process, job: JobStar, command: list[str]) -> None:
    for flag, name in _inputs(root, job.job_type, command):
        kind = job.job_type.inputs[flag] or FILE_LABELS.get(Path(name).suffix, "")
        if kind:
            pipeline.add_input(name, kind, process.name)
    for node, label in job.job_type.outputs(job.values, process.name):
        pipeline.add_output(process.name, node, label)


def check_scheduled(planned: Planned, project: Project, process: Process) -> None:
    """InputError where the job does not wait to be started; it says what can be done with the job instead."""
    if process.status == labels.SCHEDULED:
        return
    if process.status == labels.RUNNING:
        raise InputError(f"{process.name} is running; wait for it, or stop it first (touch {process.name}RELION_JOB_ABORT_NOW)")
    try:
        continued(planned, project, process)
        going_on = f"go on with it by `aurefine run --continue {process.name}`, or "
    except InputError:  # it cannot
        going_on = ""
    raise InputError(f"{process.name} is not scheduled but {process.status}; {going_on}run it again as a new job by `aurefine run {planned.source}`")


def continued(planned: Planned, project: Project, process: Process, optimiser: str = "") -> Planned:
    """The job that goes on where `process` ended, or from the `optimiser` that is named; InputError where it cannot."""
    job_type = planned.job.job_type
    if job_type.continued is None:
        raise InputError(f"{process.name}: a {job_type.name} job cannot go on; run it anew with `aurefine run {process.name}job.star`")
    values = job_type.complete(planned.job.values, planned.source)
    if "fn_cont" in values:
        last = "" if optimiser else last_optimiser(project.root, process.name)
        if process.status == labels.SUCCEEDED and last:
            raise InputError(f"{process.name} has succeeded, so there is nothing left to do; to go on from an earlier iteration all the same, "
                             f"name it: fn_cont={last}")  # fmt: skip
        values["fn_cont"] = last or _there(project.root, process.name, optimiser)
    job = replace(planned.job, values=values, is_continue=True)
    return Planned(job, tuple(job_type.continued(values, process.name)), planned.source)


def _there(root: Path, name: str, optimiser: str) -> str:
    """The file of an iteration to go on from, as it was named; InputError where it is not there, or is not of an iteration."""
    if not re.search(r"_it\d{3,}_optimiser\.star$", optimiser):
        raise InputError(f"fn_cont={optimiser}: the file of an iteration was expected, such as {last_optimiser(root, name)}")
    if not (root / optimiser).is_file():
        raise InputError(f"fn_cont={optimiser}: there is no such file; the last iteration is fn_cont={last_optimiser(root, name)}")
    return optimiser


def last_optimiser(root: Path, name: str) -> str:
    """The file of the last iteration that a refinement has finished, from which it goes on; InputError where there is none."""
    numbers = {path: re.search(r"it(\d{3,})_optimiser\.star$", path.name) for path in (root / name).glob("run_*_optimiser.star")}
    iterations = {path: int(match.group(1)) for path, match in numbers.items() if match}
    found = sorted(iterations, key=lambda path: (iterations[path], path.stat().st_mtime))
    if not found:
        raise InputError(f"{name}: no iteration was finished (no run_it*_optimiser.star), so there is nothing to go on from; "
                         f"run it anew with `aurefine run {name}job.star`")  # fmt: skip
    return name + found[-1].name
