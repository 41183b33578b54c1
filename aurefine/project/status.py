"""Bring the pipeline up to date with what the jobs' directories say, as RELION's GUI does when it looks (ALGORITHM.md 6.9)."""

from __future__ import annotations

import os

from aurefine.project import job_directory, labels
from aurefine.project.pipeline import Pipeline, Process
from aurefine.project.project import Project

_LONGEST_PART, _LONGEST_NAME = 255, 4000  # bytes: what file systems take of a name between slashes, and in all below the project's folder
_told: set[str] = set()  # by this process: the page looks every few seconds


def refresh(project: Project) -> list[Process]:
    """All jobs of the project, after those that have ended, or died, since the last look are written down as such.

    What is wrong with one job's directory is told once, and the others are gone on with. Raises InputError where the pipeline cannot be
    read, locked or written.
    """
    processes = project.read().processes
    if not any(_ended(project, process) for process in processes):
        return processes
    with project.edit("looking which jobs have ended") as pipeline:
        for process in pipeline.processes:
            status = _ended(project, process)  # asked again: while we waited for the lock it may have been started anew
            if status is None:
                continue
            pipeline.set_status(process.name, status)
            try:
                _write_down(project, pipeline, process, status)
            except OSError as error:
                _tell(process, _reason(error))
        return pipeline.processes


def _write_down(project: Project, pipeline: Pipeline, process: Process, status: str) -> None:
    """The exit file, where the job could not leave one, and the files that the job itself reports."""
    folder = project.root / process.name
    if job_directory.outcome(folder) is None:
        job_directory.mark(folder, status)
    for node, label in job_directory.extra_nodes(folder):
        if not _fits(f"{label}/{node}"):
            _tell(process, f"{job_directory.OUTPUT_NODES} names a file that no file system takes, {node[:60]!r} ({label[:60]!r}), which is left out")
            continue
        pipeline.add_output(process.name, node, label)
    project.show_nodes(pipeline, process)


def _ended(project: Project, process: Process) -> str | None:
    """How a job has ended that the pipeline believes to run; None for one that runs, for all others, and where it cannot be told."""
    if process.status != labels.RUNNING:
        return None
    folder = project.root / process.name
    try:
        status = job_directory.outcome(folder) if folder.is_dir() else None
        if status is None and folder.is_dir() and job_directory.has_died(folder):
            status = job_directory.outcome(folder) or labels.FAILED  # it may have ended properly between the two looks
        return status
    except OSError as error:
        _tell(process, f"{_reason(error)}, so that it is not known whether it has ended")
        return None


def _fits(name: str) -> bool:
    parts = [len(os.fsencode(part)) for part in name.split("/")]
    return max(parts) <= _LONGEST_PART and sum(parts) + len(parts) <= _LONGEST_NAME


def _reason(error: OSError) -> str:
    return f"{error.strerror} ({str(error.filename)[:100]})"


def _tell(process: Process, problem: str) -> None:
    text = f" Warning: {process.name[:100]}: {problem}."
    if text not in _told:
        _told.add(text)
        print(text, flush=True)
