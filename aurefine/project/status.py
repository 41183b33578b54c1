"""Bring the pipeline up to date with what the jobs' directories say, as RELION's GUI does when it looks (ALGORITHM.md 6.9)."""

from __future__ import annotations

from aurefine.project import job_directory, labels
from aurefine.project.pipeline import Process
from aurefine.project.project import Project


def refresh(project: Project) -> list[Process]:
    """All jobs of the project, after those that have ended, or died, since the last look are written down as such."""
    ended = _ended(project)
    if not ended:
        return project.read().processes
    with project.edit("looking which jobs have ended") as pipeline:
        for process in pipeline.processes:
            status = ended.get(process.name)
            if status is None or process.status != labels.RUNNING:
                continue
            folder = project.root / process.name
            if job_directory.outcome(folder) is None:
                job_directory.mark(folder, status)
            for node, label in job_directory.extra_nodes(folder):
                pipeline.add_output(process.name, node, label)
            pipeline.set_status(process.name, status)
            project.show_nodes(pipeline, process)
        return pipeline.processes


def _ended(project: Project) -> dict[str, str]:
    """Job -> how it ended, of the jobs that the pipeline believes to run."""
    found: dict[str, str] = {}
    for process in project.read().processes:
        folder = project.root / process.name
        if process.status == labels.RUNNING and folder.is_dir():
            status = job_directory.outcome(folder)
            if status is None and job_directory.has_died(folder):
                status = job_directory.outcome(folder) or labels.FAILED  # it may have ended properly between the two looks
            if status is not None:
                found[process.name] = status
    return found
