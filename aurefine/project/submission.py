"""Scripts for batch systems: RELION's placeholders filled in, ours for Slurm, and handing them over."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aurefine.errors import InputError
from aurefine.regular_files import text_of
from aurefine.shell_words import words_of

SCRIPT = "run_submit.script"
_SAFE = re.compile(r"[\w.@:/+,=-]*")
_PLACEHOLDER = re.compile(r"XXX[A-Za-z]\w*?XXX")
_TIMEOUT_SECONDS = 60

SLURM = """#!/bin/bash
#SBATCH --job-name=XXXnameXXX
#SBATCH --partition=XXXqueueXXX
#SBATCH --nodes=XXXnodesXXX
#SBATCH --ntasks=XXXmpinodesXXX
#SBATCH --cpus-per-task=XXXthreadsXXX
#SBATCH --gpus-per-node=XXXgpusXXX
#SBATCH --output=XXXoutfileXXX
#SBATCH --error=XXXerrfileXXX
#SBATCH --open-mode=append

srun --ntasks=XXXmpinodesXXX --cpus-per-task=XXXthreadsXXX --kill-on-bad-exit=1 XXXcommandXXX
"""


@dataclass(frozen=True)
class Request:
    """What a job asks a batch system for.

    name: the job's directory, with a slash; command: the words that run it; processes and gpus: of each of the `nodes`; dedicated: cores of a
    node that are the job's alone, 0 for those it uses; extras: of XXXextra1XXX and those after it.
    """

    name: str
    command: tuple[str, ...]
    queue: str = ""
    nodes: int = 1
    processes: int = 1
    threads: int = 1
    gpus: int = 0
    dedicated: int = 0
    extras: tuple[str, ...] = ()

    def fillings(self) -> dict[str, str]:
        """Text of each placeholder."""
        processes = self.nodes * self.processes
        numbers = {
            "mpinodes": processes, "threads": self.threads, "cores": processes * self.threads, "nodes": self.nodes, "gpus": self.gpus,
            "dedicated": self.dedicated or self.processes * self.threads,
        }  # fmt: skip
        texts = {"name": self.name, "outfile": f"{self.name}run.out", "errfile": f"{self.name}run.err", "queue": self.queue}
        texts |= {f"extra{number}": text for number, text in enumerate(self.extras, 1)}
        return {f"XXX{name}XXX": str(value) for name, value in (numbers | texts).items()} | {"XXXcommandXXX": shlex.join(self.command)}


def slurm_script(request: Request) -> str:
    """Our own template, without the lines about what is not asked for."""
    left_out = [name for name, wanted in (("XXXqueueXXX", request.queue), ("XXXgpusXXX", request.gpus)) if not wanted]
    lines = [line for line in SLURM.splitlines(keepends=True) if not any(name in line for name in left_out)]
    extras = [f"#SBATCH XXXextra{number}XXX\n" for number in range(1, len(request.extras) + 1)]
    return filled("".join(lines[:-2] + extras + lines[-2:]), request.fillings())


def filled(text: str, fillings: Mapping[str, str]) -> str:
    """A template with its placeholders replaced. InputError for a value that a shell may take for something else, and for one nobody fills in."""
    for name, value in fillings.items():
        if name != "XXXcommandXXX" and name in text and not _SAFE.fullmatch(value):  # the batch system's shell reads the script
            raise InputError(f"{value!r} may not go into a submission script; use letters, digits and ._-/:,+=@")
        text = text.replace(name, value)
    return text


def read_template(path: str | Path) -> str:
    """The text of a template; InputError where it cannot be read."""
    try:
        return text_of(path)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the submission script {path} cannot be read ({error}); give one that can") from error


def unfilled(text: str) -> list[str]:
    """Placeholders that nobody has filled in."""
    return sorted(set(_PLACEHOLDER.findall(text)))


def hand_over(program: str, script: str, folder: Path) -> str:
    """Give a script to a batch system's `program` (such as sbatch), run in `folder`; what it answers. InputError where it refuses."""
    words = [*words_of(program, "the command that submits"), script]
    if len(words) == 1:  # the script would run here
        raise InputError("the command that submits (qsub) is empty; give the batch system's, such as sbatch")
    try:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"{shlex.join(words)} failed: {error}") from error
    if done.returncode:
        raise InputError(f"{shlex.join(words)} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()
