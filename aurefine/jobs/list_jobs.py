"""`aurefine jobs`: the jobs of the RELION project in this folder, and how they stand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aurefine.errors import InputError
from aurefine.jobs.options import Option, help_text, parse
from aurefine.process_record import ProcessRecord
from aurefine.project import job_directory, labels
from aurefine.project.pipeline import Process
from aurefine.project.project import Project
from aurefine.project.status import refresh
from aurefine.regular_files import text_of

SUMMARY = "List the jobs of the RELION project in this folder, after looking which have ended."
OPTIONS = (Option("unfinished", "--unfinished", "Only jobs that have not succeeded", "List", False, "switch"),)


def command_line(arguments: Sequence[str], jobs: object = None) -> int:
    """Run `aurefine jobs`; InputError where there is no project."""
    if arguments and arguments[0] in ("-h", "--help"):
        print(help_text("aurefine jobs", SUMMARY, OPTIONS))
        return 0
    given, _ = parse("aurefine jobs", SUMMARY, OPTIONS, arguments)
    project = Project.open(".")
    try:
        processes = refresh(project)
    except InputError as error:  # somebody else's project can be looked at
        print(f" Note: {error}")
        processes = project.read().processes
    print(table([each for each in processes if each.status != labels.SUCCEEDED or not given.get("unfinished")], project.root))
    return 0


def table(processes: Sequence[Process], root: Path) -> str:
    """One line a job: directory, alias, state, when it last started, and where it runs."""
    rows = [("job", "alias", "state", "started", "")]
    for process in processes:
        alias = "" if process.alias == "None" else process.alias
        rows.append((process.name, alias, process.status, started(root / process.name), place(root / process.name, process.status)))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(" " + "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[4]]).rstrip() for row in rows)


def started(folder: Path) -> str:
    """The time of the last command in `note.txt`; "" where there is none."""
    try:
        notes = text_of(folder / job_directory.NOTE, "replace")
    except OSError:
        return ""
    lines = [line for line in notes.splitlines() if "Executing new job on" in line]
    return lines[-1].rpartition(" on ")[2].strip() if lines else ""


def place(folder: Path, status: str) -> str:
    """Where a running job runs; "" for one that does not."""
    if status != labels.RUNNING:
        return ""
    record = ProcessRecord.load(folder)
    return f"process {record.pid} on {record.host}" if record else "not started by aurefine"
