"""The project and its jobs as the page shows them: table, graph, and one job with its files, notes and what can be done with it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from aurefine import star
from aurefine.errors import InputError
from aurefine.file_cache import FileCache, stamp
from aurefine.jobs.list_jobs import place, started
from aurefine.process_record import ProcessRecord
from aurefine.project import job_directory, job_star, labels, runner
from aurefine.project.pipeline import Pipeline, Process
from aurefine.project.project import Project
from aurefine.project.status import refresh
from aurefine.refine.run_status import DIED, read_status
from aurefine.regular_files import regular
from aurefine.reporting.postprocess_plots import FILE as POSTPROCESS
from aurefine.reporting.validation_plots import FILE as VALIDATION
from aurefine.web.folder import Folder, Missing, Outside
from aurefine.web.starting import START_LOG

MAX_TAIL_BYTES = 64 << 10
_MESSAGES = ("aurefine", "Traceback")  # what a mistake that ended a job begins with in its run.err; warnings do not
KILLED = "The job ended without saying why: it was killed, as for its memory or by the batch system, or its machine went down."
_MODEL = "*_half1_model.star"
_FORMS: FileCache[job_star.JobStar] = FileCache(job_star.read, 50)


def processes(project: Project) -> list[Process]:
    """All jobs after a look at which have ended; somebody else's project, which cannot be written to, is shown as it says."""
    try:
        return refresh(project)
    except (InputError, OSError):
        return project.read().processes


def overview(project: Project) -> dict[str, Any]:
    """Jobs and the edges between them."""
    shown = processes(project)
    pipeline = project.read()
    made_by = {node: process.name for process in shown for node in pipeline.outputs(process.name)}
    edges = {(made_by[node], process.name) for process in shown for node in pipeline.inputs(process.name) if node in made_by}
    return {
        "name": project.root.resolve().name, "generation": pipeline.generation, "nextJob": pipeline.counter,
        "jobs": [job_row(project, process) for process in shown], "edges": sorted(edges),
    }  # fmt: skip


def job_row(project: Project, process: Process) -> dict[str, Any]:
    """A line of the table of jobs."""
    folder = project.root / process.name
    return {
        "name": process.name.rstrip("/"), "alias": _alias(process),
        "type": process.name.split("/")[0], "label": process.type, "status": process.status, "started": started(folder),
        "place": place(folder, process.status),
    }  # fmt: skip


def _alias(process: Process) -> str:
    return "" if process.alias == "None" else process.alias.rstrip("/").split("/")[-1]


def find(project: Project, name: str) -> Process:
    """The job of a directory or alias; Missing where the project has none of that name."""
    process = project.read().process(name)
    if process is None:
        raise Missing(name)
    return process


def job(project: Project, folder: Folder, process: Process) -> dict[str, Any]:
    """One job: its row, form, inputs and outputs with the jobs at their other ends, files and notes."""
    pipeline = project.read()
    form, problem = _form(project.root / process.name, pipeline.generation)
    directory = folder.path(process.name.rstrip("/"))
    return {
        **job_row(project, process), "form": form, "problem": problem, "inputs": _nodes(pipeline, pipeline.inputs(process.name), folder),
        "outputs": _nodes(pipeline, pipeline.outputs(process.name), folder), "files": _files(folder, process.name.rstrip("/")),
        "note": tail(directory / job_directory.NOTE, 0)["text"], "startLog": _start_log(directory, process.status),
        "dependents": [each.rstrip("/") for each in pipeline.dependents(process.name)], "isRefinement": _is_refinement(directory),
        "maps": _shown(folder, directory, (".mrc",)), "pictures": _pictures(folder, directory), "hasCurves": _has_curves(directory),
        "hasValidation": (directory / VALIDATION).is_file(),
        "can": _actions(process, form), "lastOptimiser": _last_optimiser(project, process),
    }  # fmt: skip


def _last_optimiser(project: Project, process: Process) -> str:
    """Where a refinement that ended early goes on; "" for other jobs."""
    try:
        return runner.last_optimiser(project.root, process.name) if process.status in (labels.FAILED, labels.ABORTED) else ""
    except InputError:
        return ""


def state(project: Project, folder: Folder, process: Process) -> dict[str, Any]:
    """What may change of a job while its page is open: asked for every few seconds, so the job's files are only counted."""
    if process.status == labels.RUNNING:
        process = next((each for each in processes(project) if each.name == process.name), process)
    directory = folder.path(process.name.rstrip("/"))
    names = [entry.name for entry in os.scandir(directory)] if directory.is_dir() else []
    job_file = directory / job_directory.JOB
    try:
        form = {"canContinue": _FORMS.get(job_file if job_file.is_file() else directory / "run.job").job_type.continued is not None}
    except InputError:
        form = None
    return {
        "status": process.status, "alias": _alias(process), "place": place(project.root / process.name, process.status),
        "can": _actions(process, form), "startLog": _start_log(directory, process.status),
        "isRefinement": any(fnmatch(name, _MODEL) for name in names),
        "hasValidation": VALIDATION in names, "shown": sum(name.endswith((".mrc", ".png")) for name in names),
    }  # fmt: skip


def _actions(process: Process, form: dict[str, Any] | None) -> dict[str, bool]:
    ended_early = process.status in (labels.FAILED, labels.ABORTED)
    return {
        "abort": process.status == labels.RUNNING, "start": process.status == labels.SCHEDULED and form is not None, "clone": form is not None,
        "continue": form is not None and form["canContinue"] and (ended_early or process.status == labels.SUCCEEDED),
        "delete": process.status != labels.RUNNING, "alias": True, "note": True,
    }  # fmt: skip


def _form(directory: Path, generation: int) -> tuple[dict[str, Any] | None, str]:
    """The job's form with the rows that it has in a project of RELION `generation`, and why there is none."""
    path = directory / job_directory.JOB
    try:
        found = job_star.read(path if path.is_file() else directory / "run.job")
    except InputError as error:
        return None, str(error).replace(f"{directory.parent.parent}/", "")
    rows = [{"key": row.key, "label": row.label, "tab": row.tab, "value": found.values.get(row.key, ""), "default": row.default}
            for row in found.job_type.fields if row.since <= generation <= row.until]  # fmt: skip
    return {"type": found.job_type.name, "canContinue": found.job_type.continued is not None, "rows": rows, "values": found.values}, ""


def _nodes(pipeline: Pipeline, names: Sequence[str], folder: Folder) -> list[dict[str, Any]]:
    kinds = pipeline.nodes()
    makers = {node: process.name for process in pipeline.processes for node in pipeline.outputs(process.name)}
    users: dict[str, list[str]] = {}
    for process in pipeline.processes:
        for node in pipeline.inputs(process.name):
            users.setdefault(node, []).append(process.name.rstrip("/"))
    return [
        {"name": name, "kind": _kind(kinds.get(name, "")), "from": makers.get(name, "").rstrip("/"), "to": users.get(name, []),
         "exists": _exists(folder, name)}
        for name in names
    ]  # fmt: skip


def _kind(label: str) -> str:
    """In words, also where RELION 3 wrote a number."""
    return labels.node_label(int(label)) if label.isdecimal() else label


def _exists(folder: Folder, name: str) -> bool:
    try:
        return folder.path(name).exists()
    except Outside:
        return False


def _files(folder: Folder, name: str) -> list[dict[str, Any]]:
    try:
        found = folder.entries(name)
    except (Missing, Outside):
        return []
    return [{"name": each, "folder": is_folder, "bytes": size} for each, is_folder, size in found]


def _is_refinement(directory: Path) -> bool:
    return next(directory.glob(_MODEL), None) is not None


def _has_curves(directory: Path) -> bool:
    return (directory / POSTPROCESS).is_file() or next(directory.glob("*_locres.mrc"), None) is not None


def _shown(folder: Folder, directory: Path, suffixes: tuple[str, ...]) -> list[dict[str, str]]:
    """Files of a kind that lie in the job's folder itself, the newest last."""
    found = [path for path in directory.glob("*") if path.suffix in suffixes and path.is_file() and not path.is_symlink()]
    chosen = sorted(found, key=lambda path: path.stat().st_mtime_ns)[-40:]
    return [{"name": folder.name(path), "stamp": f"{stamp(path)[0]:x}"} for path in chosen]


def _pictures(folder: Folder, directory: Path) -> list[dict[str, str]]:
    """Pictures that a job has made; those that the page draws from their numbers are left out."""
    drawn = ("_fsc.png", "_guinier.png") if (directory / POSTPROCESS).is_file() else ()
    drawn = (*drawn, "validation.png") if (directory / VALIDATION).is_file() else drawn
    return [each for each in _shown(folder, directory, (".png",)) if not each["name"].endswith(drawn)]


def _start_log(directory: Path, status: str) -> str:
    """Why a job did not start, in the words of `aurefine run`, or why it failed: the message that ends its run.err, else that there is none."""
    if status not in (labels.SCHEDULED, labels.FAILED):
        return ""
    if not (directory / job_directory.OUT).is_file():
        return tail(directory / START_LOG, 0)["text"]
    if status == labels.SCHEDULED or ProcessRecord.load(directory) is None:  # RELION's own jobs say it in their own words
        return ""
    lines = tail(directory / job_directory.ERR, 0)["text"].splitlines()
    said = max((number for number, line in enumerate(lines) if line.startswith(_MESSAGES)), default=None)
    return KILLED if said is None or _died(directory) else "\n".join(lines[said:])


def _died(directory: Path) -> bool:
    """Whether a refinement is gone that by its status still runs: what its run.err says is of an earlier run."""
    try:
        return read_status(directory).verdict() == DIED
    except InputError:
        return False


def tail(path: Path, position: int) -> dict[str, Any]:
    """What a text file holds from byte `position` on, at most its last 64 kB; progress bars only as they last stood.

    `position` is the end of the file, `line` where its last line begins: who asks from there on gets a bar that still grows anew.
    """
    try:
        with open(path, "rb", opener=regular) as file:
            end = file.seek(0, 2)
            start = position if 0 <= position <= end else 0
            start = max(start, end - MAX_TAIL_BYTES)
            file.seek(start)
            data = file.read(end - start)
    except OSError:
        return {"text": "", "position": 0, "line": 0, "start": 0}
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in data.decode("utf-8", "replace").split("\n")]
    return {"text": "\n".join(lines), "position": end, "line": start + data.rfind(b"\n") + 1, "start": start}


def star_table(path: Path, name: str, first: int, count: int) -> dict[str, Any]:
    """Some rows of a table of a STAR file, as texts; and which tables there are."""
    tables = star.read(path)
    shown = name if name in tables else next(iter(tables), "")
    if not shown:
        return {"tables": [], "name": "", "labels": [], "rows": [], "count": 0}
    table = tables[shown]
    columns = [column[first : first + count].tolist() for column in table.columns.values()]
    rows = [[f"{value:.6g}" if isinstance(value, float) else str(value) for value in row] for row in zip(*columns, strict=True)]
    return {"tables": list(tables), "name": shown, "labels": list(table.columns), "rows": rows, "count": table.count}
