"""The files by which RELION's pipeliner and GUI follow a job: how it ended, and the request to stop it (ALGORITHM.md 6.9)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aurefine.atomic import write_bytes
from aurefine.errors import InputError

SUCCESS, FAILURE, ABORTED = "RELION_JOB_EXIT_SUCCESS", "RELION_JOB_EXIT_FAILURE", "RELION_JOB_EXIT_ABORTED"
ABORT_NOW = "RELION_JOB_ABORT_NOW"


class JobAborted(InputError):
    """The user asked for the job to stop (the GUI wrote RELION_JOB_ABORT_NOW)."""


class JobControl:
    """Polls for the request to stop; without a job directory it never comes."""

    def __init__(self, directory: str = "", advice: str = "") -> None:
        self._directory = Path(directory) if directory else None
        self._advice = advice or "go on with --continue and the last _optimiser.star."

    @property
    def in_project(self) -> bool:
        """Whether the job has a directory, where its success is told: by then its files must be on the disk."""
        return self._directory is not None

    def check(self) -> None:
        """Raise JobAborted when the job is to stop; cheap enough for every batch."""
        if self._directory is not None and (self._directory / ABORT_NOW).exists():
            (self._directory / ABORT_NOW).unlink(missing_ok=True)
            raise JobAborted(f"the job was stopped: {ABORT_NOW} appeared in {self._directory}. What is finished is kept: {self._advice}")


@contextmanager
def job_control(directory: str = "", advice: str = "") -> Iterator[JobControl]:
    """Remove what an earlier run left in the job's directory, and leave RELION_JOB_EXIT_... there when the block ends.

    An empty `directory` (no --pipeline_control) writes nothing. `advice` says how a stopped job goes on. Errors pass through.
    """
    if not directory:
        yield JobControl()
        return
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    for name in (SUCCESS, FAILURE, ABORTED, ABORT_NOW):
        (folder / name).unlink(missing_ok=True)
    outcome = FAILURE
    try:
        yield JobControl(directory, advice)
        outcome = SUCCESS
    except (JobAborted, KeyboardInterrupt):
        outcome = ABORTED
        raise
    finally:
        write_bytes(folder / outcome, b"")
