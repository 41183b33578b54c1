"""What RELION's GUI does with jobs that are there: stop, name, annotate and delete them (ALGORITHM.md 6.9)."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from aurefine import job_control
from aurefine.errors import InputError
from aurefine.project import job_directory, labels
from aurefine.project.pipeline import Pipeline, Process
from aurefine.project.project import NODES, Project, check_alias

TRASH = "Trash"


def abort(project: Project, process: Process) -> None:
    """Ask a running job to stop, as RELION's GUI does; InputError for one that does not run."""
    if process.status != labels.RUNNING:
        raise InputError(f"{process.name} is not running but {process.status}: there is nothing to stop")
    (project.root / process.name / job_control.ABORT_NOW).touch()


def set_alias(project: Project, name: str, alias: str) -> None:
    """Give a job another name to be shown by, or none (""); InputError for a name that RELION refuses or that is taken."""
    with project.edit(f"naming {name}") as pipeline:
        process = _process(pipeline, name)
        shown = check_alias(alias, process.name.split("/")[0]) if alias else "None"
        if shown == process.alias:
            return
        if shown != "None":
            project.link_alias(replace(process, alias=shown))
        _unlink(project.root, process.alias)
        pipeline.set_alias(process.name, shown)
        project.show_nodes(pipeline, replace(process, alias=shown), process.status == labels.SCHEDULED)


def add_note(project: Project, process: Process, text: str) -> None:
    """Append a remark to the job's `note.txt`."""
    with open(project.root / process.name / job_directory.NOTE, "a", encoding="utf-8") as note:
        note.write(f"\n ++++ Note of {time.ctime()}\n{text.rstrip()}\n ++++ \n")


def move_to_trash(project: Project, name: str, expected: Sequence[str]) -> list[str]:
    """Move a job and all that depend on it to `Trash/`, and take them out of the pipeline; returns their names.

    `expected` are the dependents that the user has agreed to lose too. InputError where there are others by now, or where one runs.
    """
    with project.edit(f"deleting {name}") as pipeline:
        process = _process(pipeline, name)
        others = pipeline.dependents(process.name)
        if set(others) - set(expected):
            raise InputError(f"{process.name}: {', '.join(others)} take what it made and would be deleted too; agree to that, or keep it")
        going = [_process(pipeline, each) for each in (process.name, *others)]
        for each in going:
            if each.status == labels.RUNNING:
                raise InputError(f"{each.name} is running; stop it before it is deleted")
        for each in reversed(going):
            _move(project, pipeline, each)
    return [each.name for each in going]


def _move(project: Project, pipeline: Pipeline, process: Process) -> None:
    _hide_nodes(project, pipeline, process)
    source, target = project.root / process.name.rstrip("/"), _free(project.root / TRASH / process.name.rstrip("/"))
    if source.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(str(source), str(target))
    _unlink(project.root, process.alias)
    pipeline.remove(process.name)


def _hide_nodes(project: Project, pipeline: Pipeline, process: Process) -> None:
    """Take the job's files out of the folder that RELION's file browser reads."""
    kinds = pipeline.nodes()
    for node in pipeline.outputs(process.name):
        for shown in {node, *([process.alias + node.removeprefix(process.name)] if process.alias != "None" else [])}:
            relative = os.path.normpath(os.path.join(kinds.get(node, ""), shown))
            if not relative.startswith(("..", "/")):
                (project.root / NODES / relative).unlink(missing_ok=True)


def _free(path: Path) -> Path:
    """A job of that name may be in the Trash already."""
    candidates = (path, *(path.with_name(f"{path.name}_{number}") for number in range(2, 1000)))
    return next(each for each in candidates if not each.exists())


def _unlink(root: Path, alias: str) -> None:
    link = root / alias.rstrip("/")
    if alias != "None" and link.is_symlink():
        link.unlink()


def _process(pipeline: Pipeline, name: str) -> Process:
    process = pipeline.process(name)
    if process is None:
        raise InputError(f"{name}: there is no such job in this project")
    return process
