"""Jobs of aurefine that RELION's GUI has no form for, such as image_handler: shown as its External jobs (ALGORITHM.md 6.9)."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath

from aurefine.errors import InputError
from aurefine.jobs.form import FILE_LABELS, NR_THREADS, OTHER_ARGS, QUEUE, Form, JobType, checked_words, flags
from aurefine.jobs.options import FormField
from aurefine.shell_words import words_of

_INPUTS = {  # row of RELION's form -> what it is called there
    "in_mov": "Input movies:", "in_mic": "Input micrographs:", "in_part": "Input particles:", "in_coords": "Input coordinates:",
    "in_3dref": "Input 3D reference:", "in_mask": "Input 3D mask:",
}  # fmt: skip
_NAMES = {"reconstruct": "reconstruction.mrc"}  # outputs of another kind than their input
FORM = (
    FormField("fn_exe", "External executable:", "Input", "", "file", required=True),
    *(FormField(key, label, "Input", "", "file") for key, label in _INPUTS.items()),
    *(FormField(f"param{i}_{part}", f"Param{i} {part}:", "Params", "") for i in range(1, 11) for part in ("label", "value")),
    NR_THREADS,
    *QUEUE,
    OTHER_ARGS,
)


def form_of(words: list[str]) -> dict[str, str]:
    """The form of an External job that runs `aurefine <words>`; its `--o` is only the name of the file, the job's directory is put before."""
    given = flags(words[1:])
    source = (given.get("--i") or [""])[0]
    form = {"fn_exe": f"aurefine {words[0]}", "other_args": shlex.join(words[1:])}
    if source.endswith((".mrc", ".map")):
        form["in_3dref"] = source
    elif source.endswith(".star"):
        form["in_part"] = source
    return form


def arguments_from_form(form: Form, directory: str) -> list[str]:
    """The words after `aurefine`, `--o` in the job's directory; InputError for a program that is not aurefine's, and for flags that are refused."""
    program = words_of(form["fn_exe"], "fn_exe")
    if len(program) != 2 or PurePosixPath(program[0]).name != "aurefine":
        raise InputError(f"fn_exe is {form['fn_exe']!r}: aurefine only runs its own jobs (`aurefine image_handler`); run this one with RELION")
    given = flags(checked_words(words_of(form["other_args"], "other_args"), directory))
    given["--o"] = [directory + _result(program[1], given)]
    given.pop("--pipeline_control", None)
    return [program[1], *(part for flag, values in given.items() for part in (flag, *values))]


def _result(job: str, given: Mapping[str, list[str]]) -> str:
    """Name of the output file: that of --o, or of the input."""
    named = (given.get("--o") or [_NAMES.get(job, "")])[0] or (given.get("--i") or [""])[0]
    name = PurePosixPath(named).name
    return "" if named.endswith("/") or name == ".." else name


def _outputs(form: Form, directory: str) -> list[tuple[str, str]]:
    name = PurePosixPath(flags(arguments_from_form(form, directory))["--o"][0])
    label = FILE_LABELS.get(name.suffix)
    return [(str(name), f"{label}.relion.external")] if label else []


JOB_TYPE = JobType(
    name="External", label="relion.external", code=99, command="", fields=FORM, to_arguments=arguments_from_form, outputs=_outputs,
    inputs={"--i": ""},
)  # fmt: skip
