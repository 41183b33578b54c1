"""What RELION's GUI knows of a job: its form, the command line made of it and back, its directory, label and nodes (ALGORITHM.md 6.9, 10).

A job module `jobs/<job>_form.py` declares a `JOB_TYPE`; `aurefine/project/job_types.py` lists them all.
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aurefine.errors import InputError
from aurefine.jobs import submit
from aurefine.jobs.options import FormField, nearest_names
from aurefine.shell_words import words_of

Form = Mapping[str, str]
YES = ("yes", "true", "1")
FILE_LABELS = {".mrc": "DensityMap.mrc", ".mrcs": "Image2DStack.mrc", ".star": "ParticleGroupMetadata.star"}  # nodes by their extension

# The rows that end every job's form; aurefine is one process, so the first ones are kept for RELION's GUI only.
QUEUE = (
    FormField("do_queue", "Submit to queue?", "Running", "No", "bool"),
    FormField("queuename", "Queue name:", "Running", "openmpi"),
    FormField("qsub", "Queue submit command:", "Running", "qsub", variable="RELION_QSUB_COMMAND"),
    FormField("qsubscript", "Standard submission script:", "Running", "", "file", variable="RELION_QSUB_TEMPLATE"),
    FormField("min_dedicated", "Minimum dedicated cores per node:", "Running", "1", "float", (1, 64, 1)),
)
NR_MPI = FormField("nr_mpi", "Number of MPI procs:", "Running", "1", "float", (1, 64, 1))
NR_THREADS = FormField("nr_threads", "Number of threads:", "Running", "1", "float", (1, 64, 1), flag="--j")
OTHER_ARGS = FormField("other_args", "Additional arguments:", "Running", "")


@dataclass(frozen=True)
class JobType:
    """A kind of job in a RELION project.

    `to_arguments(form, directory)` is the command line, without the program's name, that RELION's GUI makes of a complete form;
    `directory` ends in a slash. `outputs(form, directory)` gives name and RELION 5 label of each output node. `places` are the flags by
    which the job is told where to write, and what follows the directory in their values. `inputs` maps flags to the label of the node
    that they name ("": by the file's extension). `continued(form, directory)` is the command line that goes on; None where a job cannot.
    Only the `changeable` rows may then differ from what the job began with.
    """

    name: str  # the directory of its jobs
    label: str  # RELION 4 and 5
    code: int  # RELION 3
    command: str  # `aurefine <command>` runs it
    fields: tuple[FormField, ...]
    to_arguments: Callable[[Form, str], list[str]]
    outputs: Callable[[Form, str], list[tuple[str, str]]]
    places: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    full_label: Callable[[Form], str] | None = None
    continued: Callable[[Form, str], list[str]] | None = None
    changeable: frozenset[str] = frozenset()  # rows that may change when a job goes on
    changeable_flags: frozenset[str] | None = None  # and the flags that may in other_args; None: all
    found: Callable[[Form, Path], list[tuple[str, str]]] | None = None  # files, in the job's folder, that only its end shows
    node_meant: Callable[[Path, str, Mapping[str, list[str]]], str] | None = None  # of a flag, where its value is no node itself, as a directory
    read_back: Callable[[dict[str, list[str]], Form], Form] | None = None  # rows that take more than one flag to find

    def label_of(self, form: Form) -> str:
        """The label that RELION 4 and 5 give this job, which may depend on its options."""
        return self.full_label(form) if self.full_label else self.label

    def defaults(self, generation: int = 5) -> dict[str, str]:
        """The form as RELION's GUI first shows it; what RELION `generation` (3, 4 or 5) did not have yet is off."""
        return {row.key: "No" if row.kind == "bool" and row.since > generation else _default(row) for row in self.fields}

    def complete(self, values: Form, source: str) -> dict[str, str]:
        """`values` over the defaults, checked; rows of other RELION versions are kept. InputError names `source` and the row."""
        form = {**self.defaults(), **values}
        for row in self.fields:
            if row not in QUEUE:  # what others fill in there does not matter here
                form[row.key] = _checked(row, form[row.key].strip(), source)
        return form

    def arguments(self, values: Form, directory: str, source: str = "") -> list[str]:
        """The command line of `values` (missing keys take their default), checked; InputError for a row that is empty or wrong."""
        form = self.complete(values, source)
        for row in self.fields:
            if row.required and not form[row.key]:
                raise InputError(f"{source}: {row.key} ({row.label.rstrip(':')}) is empty; give a value, as in {row.key}=...")
        expanded = {key: os.path.expandvars(value) for key, value in form.items()}  # a shell does so for RELION's own jobs
        return self.to_arguments(expanded, directory)

    def override(self, values: Form, settings: Sequence[str], source: str) -> dict[str, str]:
        """`values` changed by texts like `sym_name=D2`; InputError for a key that the form lacks."""
        changed = dict(values)
        known = [row.key for row in self.fields]
        for setting in settings:
            key, equals, value = setting.partition("=")
            if not equals or key not in {*known, *values}:
                near = nearest_names(key, known)
                hint = f"did you mean {' or '.join(near)}?" if near else f"the options of {self.name} are {', '.join(known)}"
                raise InputError(f"{source}: {setting!r} is not an option of the form ({self.name}, KEY=VALUE); {hint}")
            changed[key] = value
        return changed

    def check_changes(self, before: Form, after: Form, source: str) -> None:
        """InputError for a row that may not change when a job goes on: what is there already was made with its old value."""
        defaults = self.defaults()
        for row in self.fields:
            old, new = (form.get(row.key, defaults[row.key]).strip() for form in (before, after))
            if old != new and self.continued is not None and row.key not in self.changeable:
                raise InputError(f"{source}: {row.key} ({row.label.rstrip(':')}) is {new!r}, but the job began with {old!r} and goes on with it; "
                                 "to change it, run a new job")  # fmt: skip
        if self.changeable_flags is not None:
            old_flags, new_flags = (flags(words_of(form.get("other_args", ""), "other_args")) for form in (before, after))
            for flag in {**old_flags, **new_flags}:
                if flag not in self.changeable_flags and old_flags.get(flag) != new_flags.get(flag):
                    raise InputError(f"{source}: other_args ({OTHER_ARGS.label.rstrip(':')}) changes {flag}, but the job goes on as it began; only "
                                     f"{', '.join(sorted(self.changeable_flags))} may change; to change others, run a new job")  # fmt: skip

    def form_from(self, arguments: Sequence[str], directory: str) -> dict[str, str]:
        """The form that shows this command line in RELION's GUI; flags that the form cannot say go to `other_args`."""
        given = {flag: words for flag, words in flags(arguments).items() if flag != "--pipeline_control"}
        form = self.defaults()
        form.update({row.key: _row_from(row, given) for row in self.fields if row.flag})
        form.update(self.read_back(given, form) if self.read_back else {})
        try:
            said = flags(self.to_arguments(form, directory))
        except (InputError, ValueError):
            said = {row.flag: [] for row in self.fields}
        extra = [part for flag, values in given.items() if flag not in said and flag not in self.places for part in (flag, *values)]
        if "other_args" in form:
            form["other_args"] = shlex.join(extra)
        return form


_OF_THE_JOB = ("--o", "--part_dir", "--part_star", "--pick_star", "--pipeline_control")  # where a job writes
_OF_THE_QUEUE = frozenset(option.flag for option in submit.FLAGS)  # --qsub names a program
_FURTHER_OUTPUTS = ("--fn_imgs", "--json", "--write_truth")  # files that a job writes beside its --o


def yes(form: Form, key: str) -> bool:
    """Whether a Yes/No row is Yes."""
    return form[key].strip().lower() in YES


def other_arguments(form: Form, directory: str) -> list[str]:
    """The words of "Additional arguments", further outputs in the job's `directory`; InputError for an open quote, and from `checked_words`."""
    return checked_words(words_of(form["other_args"], "other_args"), directory, _OF_THE_JOB)


def checked_words(words: Sequence[str], directory: str, refused: Sequence[str] = (), row: str = "other_args") -> list[str]:
    """The words of the flags in a form's `row`, which may be somebody else's, with further outputs in the job's `directory` (with a slash).

    Raises InputError for `refused` flags, for those that hand the job to a queue, and for an output that is not the plain name of a file.
    """
    checked, flag = [], ""
    for word in words:
        value = "" if word.startswith("--") else word
        if word.startswith("--"):
            flag, _, value = word.partition("=")
        if flag in refused:
            raise InputError(f"{row}: {flag} may not be given here: a job of a project writes into its own directory; leave it out")
        if flag in _OF_THE_QUEUE:
            raise InputError(f"{row}: {flag} may not be given here: it starts another program; leave it out, and submit `aurefine run` itself")
        if flag in _FURTHER_OUTPUTS and value:
            if "/" in value or value in (".", ".."):
                raise InputError(f"{row}: {flag} {value}: a job of a project writes into its own directory; give the name of the file alone")
            word = f"{word.removesuffix(value)}{directory}{value}"
        checked.append(word)
    return checked


def flags(arguments: Sequence[str]) -> dict[str, list[str]]:
    """Flag -> the words that follow it; a negative number is no flag, `--flag=value` is taken apart."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for argument in arguments:
        if argument.startswith("--"):
            flag, equals, value = argument.partition("=")
            current = found.setdefault(flag, [])
            current += [value] if equals else []
        else:
            current.append(argument)
    return found


def _default(row: FormField) -> str:
    return (os.environ.get(row.variable, "") if row.variable else "") or row.default


def _row_from(row: FormField, given: Mapping[str, list[str]]) -> str:
    there = row.flag in given
    text = " ".join(given.get(row.flag, ()))
    if there and row.from_flag:
        return row.from_flag(text)
    if row.kind == "bool":
        return "Yes" if there != row.inverted else (row.absent or "No")
    if not there:
        return row.default if row.absent is None else row.absent
    return text


def _checked(row: FormField, text: str, source: str) -> str:
    where = f"{source}: {row.key} ({row.label.rstrip(':')})"
    if text.startswith("--") and row.key != "other_args":
        raise InputError(f"{where} is {text!r}, which would be taken for a flag")
    if row.kind == "bool" and text.lower() not in (*YES, "no", "false", "0"):
        raise InputError(f"{where} is {text!r}, but Yes or No was expected")
    if row.kind == "choice" and text not in row.choices:
        raise InputError(f"{where} is {text!r}, but one of {', '.join(row.choices)} was expected")
    if row.kind == "float":
        try:
            finite = math.isfinite(float(text))
        except ValueError:
            finite = False
        if not finite:
            raise InputError(f"{where} is {text!r}, but a number was expected")
    return text
