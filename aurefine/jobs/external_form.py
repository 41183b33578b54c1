"""Jobs of aurefine that RELION's GUI has no form for, such as image_handler: shown as its External jobs (ALGORITHM.md 6.9)."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath

from aurefine.errors import InputError
from aurefine.jobs.form import FILE_LABELS, NR_THREADS, OTHER_ARGS, QUEUE, Form, JobType, checked_words, flags
from aurefine.jobs.options import FormField, Option
from aurefine.jobs.programs import options_of
from aurefine.shell_words import words_of

_INPUTS = {  # row of RELION's form -> what it is called there, and the flag with which RELION hands it to a program
    "in_mov": ("Input movies:", "--in_movies"), "in_mic": ("Input micrographs:", "--in_mics"), "in_part": ("Input particles:", "--in_parts"),
    "in_coords": ("Input coordinates:", "--in_coords"), "in_3dref": ("Input 3D reference:", "--in_3dref"), "in_mask": ("Input 3D mask:", "--in_mask"),
}  # fmt: skip
_PARAMS = tuple((f"param{i}_label", f"param{i}_value") for i in range(1, 11))
_NAMES = {"reconstruct": "reconstruction.mrc"}  # outputs of another kind than their input
FORM = (
    FormField("fn_exe", "External executable:", "Input", "", "file", required=True),
    *(FormField(key, label, "Input", "", "file") for key, (label, _) in _INPUTS.items()),
    *(FormField(key, f"{key.capitalize().replace('_', ' ')}:", "Params", "") for pair in _PARAMS for key in pair),
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
    threads = _threads(words[0])
    if threads is not None:
        form["nr_threads"] = (given.get("--j") or [str(threads.default)])[0]
    return form


def arguments_from_form(form: Form, directory: str) -> list[str]:
    """The words after `aurefine`, `--o` in the job's directory; the params are flags, the threads `--j` where the flags do not say them.

    Raises InputError for a program that is not aurefine's, for flags that are refused, and for a row that the program has no use for.
    """
    program = words_of(form["fn_exe"], "fn_exe")
    if len(program) != 2 or PurePosixPath(program[0]).name != "aurefine":
        raise InputError(f"fn_exe is {form['fn_exe']!r}: aurefine only runs its own jobs (`aurefine image_handler`); run this one with RELION")
    words = [word for label, value in _PARAMS for word in _param(form, label, value, directory)]
    given = flags([*words, *checked_words(words_of(form["other_args"], "other_args"), directory)])
    _check_inputs(form, program[1], given)
    if "--j" not in given:
        given |= _thread_flag(form["nr_threads"], program[1])
    given["--o"] = [directory + _result(program[1], given)]
    given.pop("--pipeline_control", None)
    return [program[1], *(part for flag, values in given.items() for part in (flag, *values))]


def _param(form: Form, label: str, value: str, directory: str) -> list[str]:
    """The flag and the value, one word as it stands, of a row of RELION's Params."""
    name = form[label].strip()
    if not name:
        if form[value]:
            raise InputError(f"{value} is {form[value]!r}, but {label}, the name of its flag, is empty; give both or none")
        return []
    return checked_words([f"--{name}", *([form[value]] if form[value] else [])], directory, row=label)


def _check_inputs(form: Form, program: str, given: Mapping[str, list[str]]) -> None:
    """InputError for an input that no flag names: aurefine's jobs do not have the flags by which RELION would hand it on."""
    named = {value for values in given.values() for value in values}
    for key, (label, flag) in _INPUTS.items():
        if form[key] and form[key] not in named:
            raise InputError(f"{key} ({label.rstrip(':')}) is {form[key]}, but `aurefine {program}` has no flag {flag}; name the file with the flag "
                             f"that takes it, such as --i {form[key]} in other_args, or leave the row empty")  # fmt: skip


def _thread_flag(number: str, program: str) -> dict[str, list[str]]:
    if _threads(program) is not None:
        return {"--j": [number]}
    if float(number) > 1:
        raise InputError(f"nr_threads (Number of threads) is {number}, but `aurefine {program}` has no threads to set (no --j); leave it at 1")
    return {}


def _threads(program: str) -> Option | None:
    """The option by which a job of ours is told its threads; None where it has none."""
    option = options_of(program).get("--j")
    return option if option and option.effect == "used" else None


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
    inputs={"--i": "", "--mask": "Mask3D.mrc"},
)  # fmt: skip
