"""Start jobs as processes of their own, which live on when the page ends. Lists of words only: no shell reads what a user typed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace

from aurefine.errors import InputError
from aurefine.jobs.form import YES, JobType
from aurefine.project import job_star, labels, runner, submission
from aurefine.project.job_star import JobStar
from aurefine.project.pipeline import Process
from aurefine.project.project import Project
from aurefine.project.runner import Planned

START_LOG = "aurefine_start.txt"


class Starter:
    """Starts jobs of one project, and collects those that have ended."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._running: list[subprocess.Popen[bytes]] = []

    def add(self, job_type: JobType, values: Mapping[str, str], alias: str) -> Process:
        """A new job, scheduled; InputError where the form or the alias is wrong."""
        generation = self.project.read().generation
        complete = {**job_type.defaults(generation), **values}
        process, _ = runner.add(self.project, Planned(JobStar(job_type, complete), None, job_type.name), labels.SCHEDULED, alias)
        return process

    def start(self, process: Process) -> str:
        """Run a scheduled job, here or by its queue; what the queue answered, "" for one that runs here."""
        job = job_star.read(self.project.root / process.name / "job.star")
        if job.values.get("do_queue", "No").lower() in YES:
            return self._submit(process, job)
        self._spawn([sys.executable, "-m", "aurefine", "run", process.name], process)
        return ""

    def going_on(self, process: Process, settings: Mapping[str, str]) -> list[str]:
        """The words after `aurefine` with which a job that ended early goes on, with changed rows of its form; InputError where it cannot."""
        source = process.name + "job.star"
        job = job_star.read(self.project.root / source)
        values = job.job_type.override(job.values, [f"{key}={value}" for key, value in settings.items()], source)
        optimiser = settings.get("fn_cont", "")
        return runner.continued(Planned(replace(job, values=values), None, source), self.project, process, optimiser).command(process.name)

    def go_on(self, process: Process, settings: Mapping[str, str]) -> None:
        """Continue a job that ended early; InputError where it cannot go on."""
        self.going_on(process, settings)
        words = [f"{key}={value}" for key, value in settings.items() if value]
        self._spawn([sys.executable, "-m", "aurefine", "run", "--continue", process.name, *words], process)

    def collect(self) -> None:
        """Take note of processes that have ended, so that none is left as a zombie."""
        self._running = [each for each in self._running if each.poll() is None]

    def _spawn(self, words: list[str], process: Process) -> None:
        self.collect()
        folder = self.project.root / process.name
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        with open(folder / START_LOG, "wb") as log:
            self._running.append(subprocess.Popen(
                words, cwd=self.project.root, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, env=environment,
                start_new_session=True,
            ))  # fmt: skip

    def _submit(self, process: Process, job: JobStar) -> str:
        """Fill in the submission script as RELION does and hand it to the queue; InputError where that fails."""
        values, folder = job.values, self.project.root / process.name
        try:
            template = submission.read_template(self.project.root / os.path.expandvars(values.get("qsubscript", "")))
            (folder / submission.SCRIPT).write_text(submission.filled(template, _fillings(values, process.name)))
            return submission.hand_over(values.get("qsub", "qsub"), process.name + submission.SCRIPT, self.project.root)
        except InputError as error:
            raise InputError(f"{process.name} is scheduled, but {error}") from error


def _fillings(values: Mapping[str, str], directory: str) -> dict[str, str]:
    """RELION's placeholders; the command is `aurefine run <job>`, which sets the job's state when it starts and ends."""
    threads = values.get("nr_threads", "1") or "1"
    request = submission.Request(directory, (sys.executable, "-m", "aurefine", "run", directory), values.get("queuename", ""))
    return {**request.fillings(), "XXXthreadsXXX": threads, "XXXcoresXXX": threads, "XXXdedicatedXXX": values.get("min_dedicated", "1")}
