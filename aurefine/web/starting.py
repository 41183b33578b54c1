"""Start jobs as processes of their own, which live on when the page ends. Lists of words only: no shell reads what a user typed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from aurefine.errors import InputError
from aurefine.jobs.form import YES, JobType
from aurefine.project import job_star, labels, runner
from aurefine.project.job_directory import ERR, OUT
from aurefine.project.job_star import JobStar
from aurefine.project.pipeline import Process
from aurefine.project.project import Project
from aurefine.project.runner import Planned

START_LOG = "aurefine_start.txt"
SCRIPT = "run_submit.script"


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

    def go_on(self, process: Process, settings: Mapping[str, str]) -> None:
        """Continue a job that ended early, with changed rows of its form; InputError where it cannot go on."""
        source = process.name + "job.star"
        job = job_star.read(self.project.root / source)
        values = job.job_type.override(job.values, [f"{key}={value}" for key, value in settings.items()], source)
        optimiser = settings.get("fn_cont", "")
        runner.continued(Planned(replace(job, values=values), None, source), self.project, process, optimiser)
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
        template = Path(os.path.expandvars(values.get("qsubscript", "")))
        try:
            text = (self.project.root / template).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{process.name} is scheduled, but its submission script {template} cannot be read ({error}); clone the job and "
                             "give one that can") from error  # fmt: skip
        (folder / SCRIPT).write_text(_filled(text, values, process.name))
        words = [*shlex.split(values.get("qsub", "qsub")), process.name + SCRIPT]
        try:
            done = subprocess.run(words, cwd=self.project.root, capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InputError(f"{process.name} is scheduled, but {shlex.join(words)} failed: {error}") from error
        if done.returncode:
            raise InputError(f"{process.name} is scheduled, but {shlex.join(words)} failed: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout.strip()


def _filled(text: str, values: Mapping[str, str], directory: str) -> str:
    """RELION's placeholders; the command is `aurefine run <job>`, which sets the job's state when it starts and ends."""
    threads = values.get("nr_threads", "1") or "1"
    fillings = {
        "XXXmpinodesXXX": "1", "XXXthreadsXXX": threads, "XXXcoresXXX": threads, "XXXnodesXXX": "1",
        "XXXdedicatedXXX": values.get("min_dedicated", "1"), "XXXnameXXX": directory,
        "XXXoutfileXXX": directory + OUT, "XXXerrfileXXX": directory + ERR, "XXXqueueXXX": values.get("queuename", ""),
        "XXXcommandXXX": shlex.join([sys.executable, "-m", "aurefine", "run", directory]),
    }  # fmt: skip
    for name, value in fillings.items():
        if name != "XXXcommandXXX" and not re.fullmatch(r"[\w.@:/+,=-]*", value):  # the batch system's shell reads the script
            raise InputError(f"{directory} is scheduled, but {value!r} may not go into a submission script; use letters, digits and ._-/:,+=@")
        text = text.replace(name, value)
    return text
