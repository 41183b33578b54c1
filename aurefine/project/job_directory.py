"""What lies in a job's directory besides its results: options, notes, logs, and the files that say how it ended (ALGORITHM.md 6.9)."""

from __future__ import annotations

import time
from pathlib import Path

from aurefine import job_control, star
from aurefine.errors import InputError
from aurefine.process_record import FILE as RECORD
from aurefine.process_record import ProcessRecord
from aurefine.project import job_star, labels
from aurefine.project.job_star import JobStar
from aurefine.project.pipeline import FILE as PIPELINE
from aurefine.project.pipeline import Pipeline

JOB, GRAPH, NOTE, OUT, ERR = "job.star", "job_pipeline.star", "note.txt", "run.out", "run.err"
OUTPUT_NODES = "RELION_OUTPUT_NODES.star"
_OUTCOMES = {
    job_control.FAILURE: labels.FAILED,
    job_control.ABORTED: labels.ABORTED,
    job_control.SUCCESS: labels.SUCCEEDED,
}


def write_description(root: Path, name: str, job: JobStar, pipeline: Pipeline) -> None:
    """`job.star`, `job_pipeline.star` and a copy of the pipeline as it is now, in `root/name`, which is made where it is not there."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    job_star.write(folder / JOB, job, pipeline.generation)
    pipeline.part(name).write(folder / GRAPH)
    pipeline.write(folder / PIPELINE)


def clear_exit_files(folder: Path) -> None:
    """Remove what an earlier run left that would be taken for this one's end."""
    for name in (*_OUTCOMES, job_control.ABORT_NOW, OUTPUT_NODES, RECORD):
        (folder / name).unlink(missing_ok=True)


def write_note(folder: Path, command: str) -> None:
    """Append the command to `note.txt`, in RELION's words, and begin `run.out` and `run.err`, which the job appends to."""
    with open(folder / NOTE, "a", encoding="utf-8") as note:
        note.write(f"\n ++++ Executing new job on {time.ctime()}\n ++++ with the following command(s): \n{command}\n ++++ \n")
    for name in (OUT, ERR):
        (folder / name).touch()


def outcome(folder: Path) -> str | None:
    """How the job ended, by its exit file; None while it runs, and where it died without one."""
    return next((status for name, status in _OUTCOMES.items() if (folder / name).exists()), None)


def mark(folder: Path, status: str) -> None:
    """Leave the exit file of a job that could not do so itself."""
    name = next(name for name, each in _OUTCOMES.items() if each == status)
    (folder / name).touch()


def has_died(folder: Path) -> bool:
    """Whether the process that ran the job on this machine is gone; False for one that RELION or another machine runs."""
    record = ProcessRecord.load(folder)
    return record is not None and record.alive() is False


def report_nodes(root: Path, name: str, generation: int) -> None:
    """Write RELION_OUTPUT_NODES.star for files that only the end of the job showed, so that RELION's GUI finds them too."""
    job = job_star.read(root / name / JOB)
    if job.job_type.found is None or (root / name / OUTPUT_NODES).exists():
        return
    found = job.job_type.found(job.values, root / name)
    rows: list[tuple[object, ...]] = [(name + file, label if generation > 3 else labels.node_code(label)) for file, label in found]
    kind = "rlnPipeLineNodeTypeLabel" if generation > 3 else "rlnPipeLineNodeType"
    if rows:
        table = star.Table.from_rows("output_nodes", ("rlnPipeLineNodeName", kind), rows)
        star.write(root / name / OUTPUT_NODES, [table], version=50001 if generation == 5 else 30001)


def extra_nodes(folder: Path) -> list[tuple[str, str]]:
    """Names and labels of the files that the job itself reports in RELION_OUTPUT_NODES.star; none where it is not there or not readable."""
    if not (folder / OUTPUT_NODES).is_file():
        return []
    try:
        table = star.read_table(folder / OUTPUT_NODES, "output_nodes")
    except InputError:
        return []
    names, kinds = table.columns.get("rlnPipeLineNodeName"), table.columns.get("rlnPipeLineNodeTypeLabel")
    if names is None:
        return []
    if kinds is not None:
        return list(zip(names.tolist(), kinds.tolist(), strict=True))
    return [(name, labels.node_label(int(code))) for name, code in zip(names, table.columns.get("rlnPipeLineNodeType", []), strict=False)]
