"""`aurefine refine ... --submit`: the command line as a script for a batch system, shown or handed over."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aurefine import folders
from aurefine.atomic import write_bytes
from aurefine.errors import InputError
from aurefine.jobs.options import Option
from aurefine.project.submission import SCRIPT, Request, filled, hand_over, read_template, slurm_script, unfilled
from aurefine.shell_words import words_of

_TAB = "Submission"
FLAGS = (
    Option("submit", "--submit", "Submission script", _TAB, None, "optional_text",
           "Do not run here: write a script for a batch system from this template with RELION's XXX...XXX, or from ours for Slurm, and submit it"),
    Option("dry_run", "--dry_run", "Only show the script", _TAB, False, "switch", "With --submit: print the script, write and submit nothing"),
    Option("submit_with", "--qsub", "Queue submit command", _TAB, "sbatch", "text", "With --submit: the program that takes the script"),
    Option("queue", "--queue", "Queue name", _TAB, "", "text", "With --submit: queue or partition (XXXqueueXXX)"),
    Option("nodes", "--nodes", "Nodes", _TAB, 1, "int", "With --submit: machines; --processes, --j and --gpu are those of each"),
    Option("dedicated", "--min_dedicated", "Minimum dedicated cores per node", _TAB, 0, "int",
           "With --submit: cores of a node for this job alone (XXXdedicatedXXX); 0: those it uses"),
    Option("extras", "--qsub_extra", "Further settings", _TAB, "", "text",
           'With --submit: texts of XXXextra1XXX and so on, separated by blanks; lines after #SBATCH of our template, such as "--time=2-0 --mem=0"'),
)  # fmt: skip
NAMES = frozenset(option.name for option in FLAGS)


def submit(job: str, values: Mapping[str, Any], arguments: Sequence[str], processes: int) -> int:
    """Write the script of `aurefine <job> <arguments>` beside its output and hand it over, or show it; returns the exit code.

    processes: of each node. Raises InputError for a template or a value that cannot be used, and where the batch system refuses.
    """
    folder = Path(values["output"]).parent
    request = Request(
        f"{folder}/", (sys.executable, "-m", "aurefine", job, *without_flags(arguments)), values.get("queue", ""),
        int(values.get("nodes", 1)), processes, int(values.get("threads", 1)), _gpus(values, processes), int(values.get("dedicated", 0)),
        tuple(words_of(values["extras"], "--qsub_extra")) if "extras" in values else _usual_extras(),
    )  # fmt: skip
    if request.nodes < 1:
        raise InputError(f"--nodes {request.nodes}: a number of machines from 1 was expected")
    template = values["submit"]
    text = filled(read_template(template), request.fillings()) if template else slurm_script(request)
    if left := unfilled(text):
        raise InputError(f"{template}: nothing is known of {', '.join(left)}; give the texts of XXXextra1XXX and so on with --qsub_extra")
    if values.get("dry_run"):
        print(text, end="")
        return 0
    folders.make(folder)
    script = folder / SCRIPT
    write_bytes(script, text.encode())
    print(f" Written {script}")
    print(f" {hand_over(values.get('submit_with', 'sbatch'), str(script), Path())}")
    return 0


def _usual_extras() -> tuple[str, ...]:
    """The texts that RELION's GUI starts with."""
    count = int(os.environ.get("RELION_QSUB_EXTRA_COUNT", "0") or 0)
    return tuple(os.environ.get(f"RELION_QSUB_EXTRA{number}_DEFAULT", "") for number in range(1, count + 1))


def _gpus(values: Mapping[str, Any], processes: int) -> int:
    """GPUs of a node: those named, or one for each process."""
    if values.get("gpu") is None:
        return 0
    return len([number for number in values["gpu"].replace(":", ",").split(",") if number]) or processes


def submits(arguments: Sequence[str]) -> bool:
    """Whether the command line is to be handed over, not run."""
    return any(word.split("=")[0] == "--submit" for word in arguments)


def without_flags(arguments: Sequence[str]) -> list[str]:
    """The command line without what is only about submitting it."""
    kinds = {option.flag: option.kind for option in FLAGS}
    left: list[str] = []
    before = ""  # the kind of a flag whose value may come next
    for word in arguments:
        flag, joined, _ = word.partition("=")
        if before in ("text", "int") or (before == "optional_text" and not word.startswith("--")):
            before = ""
        elif flag in kinds:
            before = "" if joined else kinds[flag]
        else:
            before = ""
            left.append(word)
    return left
