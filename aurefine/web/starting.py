"""Start jobs as processes of their own, which live on when the page ends. Lists of words only: no shell reads what a user typed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace

from aurefine.errors import InputError
from aurefine.jobs.form import YES, JobType
from aurefine.project import job_star, labels, runner, submission
from aurefine.project.job_star import JobStar
from aurefine.project.pipeline import Process
from aurefine.project.project import Project
from aurefine.project.runner import Planned
from aurefine.regular_files import text_of

START_LOG = "aurefine_start.txt"
LONGEST_START = 30.0  # seconds; a busy machine takes some to start Python


class Starter:
    """Starts jobs of one project, and collects those that have ended."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._running: list[subprocess.Popen[bytes]] = []

    def add(self, job_type: JobType, values: Mapping[str, str], alias: str, waits: bool) -> Process:
        """A new job, scheduled; InputError where the form or the alias is wrong, and for a missing input unless the job `waits` to be started."""
        generation = self.project.read().generation
        planned = Planned(JobStar(job_type, {**job_type.defaults(generation), **values}), None, job_type.name)
        if not waits:  # else each attempt to run it would leave a scheduled job
            runner.check_inputs(self.project.root, job_type, planned.command(f"{job_type.name}/job000/"))
        process, _ = runner.add(self.project, planned, labels.SCHEDULED, alias)
        return process

    def start(self, process: Process) -> str:
        """Run a scheduled job, here or by its queue; what the queue answered, "" for one that runs here. InputError where it does not start."""
        source = process.name + "job.star"
        job = job_star.read(self.project.root / source)
        planned = Planned(job, None, source)
        runner.check_scheduled(planned, self.project, process)
        runner.check_inputs(self.project.root, job.job_type, planned.command(process.name))
        words = [sys.executable, "-m", "aurefine", "run", process.name]
        if _queued(job.values):
            return self._submit(process, job.values, words)
        self._spawn(words, process)
        return ""

    def going_on(self, process: Process, settings: Mapping[str, str]) -> list[str]:
        """The words after `aurefine` with which a job that ended early goes on, with changed rows of its form; InputError where it cannot."""
        return self._continued(process, settings).command(process.name)

    def _continued(self, process: Process, settings: Mapping[str, str]) -> Planned:
        source = process.name + "job.star"
        job = job_star.read(self.project.root / source)
        values = job.job_type.override(job.values, [f"{key}={value}" for key, value in settings.items()], source)
        job.job_type.check_changes(job.values, values, source)
        optimiser = settings.get("fn_cont", "")
        planned = runner.continued(Planned(replace(job, values=values), None, source), self.project, process, optimiser)
        runner.check_inputs(self.project.root, job.job_type, planned.command(process.name))
        return planned

    def go_on(self, process: Process, settings: Mapping[str, str]) -> str:
        """Continue a job that ended early, here or by its queue; what the queue answered. InputError where it does not go on.

        It is waited for until the project says that the job runs: it would be shown as stopped, to be continued once more.
        """
        values = self._continued(process, settings).job.values
        changed = [f"{key}={value}" for key, value in settings.items() if value or key != "fn_cont"]  # without one, from the last iteration
        words = [sys.executable, "-m", "aurefine", "run", "--continue", process.name, *changed]
        if _queued(values):
            return self._submit(process, values, words)
        child = self._spawn(words, process)
        end = time.monotonic() + LONGEST_START
        while child.poll() is None and time.monotonic() < end:
            now = self.project.read().process(process.name)
            if now is None or now.status == labels.RUNNING:
                break
            time.sleep(0.05)
        if child.poll():
            said = text_of(self.project.root / process.name / START_LOG, "replace").strip()
            raise InputError(f"{process.name} does not go on: {said or 'its run.err says why'}")
        return ""

    def collect(self) -> None:
        """Take note of processes that have ended, so that none is left as a zombie."""
        self._running = [each for each in self._running if each.poll() is None]

    def _spawn(self, words: list[str], process: Process) -> subprocess.Popen[bytes]:
        self.collect()
        folder = self.project.root / process.name
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        with open(folder / START_LOG, "wb") as log:
            child = subprocess.Popen(
                words, cwd=self.project.root, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, env=environment,
                start_new_session=True,
            )  # fmt: skip
        self._running.append(child)
        return child

    def _submit(self, process: Process, values: Mapping[str, str], words: list[str]) -> str:
        """Fill in the submission script as RELION does and hand it to the queue; InputError where that fails."""
        folder = self.project.root / process.name
        try:
            template = submission.read_template(self.project.root / os.path.expandvars(values.get("qsubscript", "")))
            (folder / submission.SCRIPT).write_text(submission.filled(template, _fillings(values, process.name, words)))
            return submission.hand_over(values.get("qsub", "qsub"), process.name + submission.SCRIPT, self.project.root)
        except InputError as error:
            raise InputError(f"{process.name} is {process.status.lower()}, but {error}") from error


def _queued(values: Mapping[str, str]) -> bool:
    return values.get("do_queue", "No").lower() in YES


def _fillings(values: Mapping[str, str], directory: str, words: list[str]) -> dict[str, str]:
    """RELION's placeholders; the command is `aurefine run`, which sets the job's state when it starts and ends."""
    threads = values.get("nr_threads", "1") or "1"
    request = submission.Request(directory, tuple(words), values.get("queuename", ""))
    return {**request.fillings(), "XXXthreadsXXX": threads, "XXXcoresXXX": threads, "XXXdedicatedXXX": values.get("min_dedicated", "1")}
