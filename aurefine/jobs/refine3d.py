"""The 3D auto-refine job: its command line and the run itself; RELION's form is in refine3d_form.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurefine.errors import InputError
from aurefine.jobs.options import parse
from aurefine.jobs.outputs import cleaned
from aurefine.jobs.refine3d_flags import FLAGS
from aurefine.jobs.refine3d_form import FORM, arguments_from_form
from aurefine.refine.options import RefineOptions, notes, validate

if TYPE_CHECKING:
    from aurefine.job_control import JobControl

__all__ = ["FORM", "NAME", "OPTIONS", "SUMMARY", "arguments_from_form", "build", "run", "stored_values"]

NAME = "refine"
SUMMARY = "Refine a 3D map to convergence from single particles, with RELION's own options and files."
OPTIONS = FLAGS

def build(values: Mapping[str, Any], arguments: Sequence[str] = ()) -> RefineOptions:
    """RefineOptions of a new run from parsed values (names of its fields), checked; raises InputError."""
    return validate(replace(RefineOptions(), **cleaned(values), command_line=" ".join(arguments)))


def stored_values(arguments: list[str]) -> Mapping[str, Any]:
    """The values (names of RefineOptions' fields) of an earlier run's words; InputError for what is no flag of a refinement."""
    return cleaned(parse(NAME, SUMMARY, OPTIONS, arguments)[0])


def run(values: Mapping[str, Any], arguments: Sequence[str] = ()) -> int:
    """Run the refinement that `values` describe; returns the exit code. Raises InputError for a user's mistake.

    With --pipeline_control the job's directory says how it ended, whatever happens.
    """
    from aurefine.job_control import ABORT_NOW, JobAborted, job_control, stopped_by_signals

    with job_control(values.get("pipeline_control", "")) as control, stopped_by_signals():
        try:
            if not (values.get("resume") and _resume(values, arguments, control)):
                _begin(values, arguments, control)
        except JobAborted as stop:
            raise JobAborted(f"the job was stopped by {ABORT_NOW}. {_kept(values)}") from stop
        except KeyboardInterrupt as stop:
            raise type(stop)(f"interrupted. {_kept(values)}") from stop
    return 0


def _begin(values: Mapping[str, Any], arguments: Sequence[str], control: JobControl) -> None:
    if values.get("continue_from"):
        _continue(values, arguments, control)
    else:
        _start(build(values, arguments).seeded(), control)


def _kept(values: Mapping[str, Any]) -> str:
    from aurefine.refine import resume

    return resume.advice(_root(cleaned(values)))


def _root(given: Mapping[str, Any]) -> str:
    """The output root of this command line; "" where it cannot be told."""
    from aurefine.refine import checkpoint

    if not given.get("continue_from"):
        return str(given.get("output", ""))
    try:
        return checkpoint.continued_root(checkpoint.load(given["continue_from"]), str(given.get("output", "")))
    except InputError:
        return ""


def _resume(values: Mapping[str, Any], arguments: Sequence[str], control: JobControl) -> bool:
    """Go on where an earlier run of this command line ended; False where it has left nothing to go on from."""
    from aurefine import particles
    from aurefine.refine import resume
    from aurefine.refine.loop import refine

    given = cleaned(values) | {"command_line": " ".join(arguments)}
    root = _root(given)
    if not root:
        return False  # the command line is wrong, and is told so there
    found = resume.kept(root)
    if found.final:
        print(f" This run is finished ({found.final}): nothing is left to do.")
        return True
    resume.remove_unfinished(root)
    going_on = resume.resume(root, given, stored_values, lambda text: print(f" Note: {text}."))
    if going_on is None:
        print(f" Nothing is there to resume under {root}: the run starts.")
        return False
    options = going_on.options
    print(f" Resuming after {Path(going_on.optimiser).name} ...", flush=True)
    refine(particles.load(options.particles, need_ctf=options.ctf_correction), None, options.seeded(), state=going_on.state, control=control)
    return True


def _start(options: RefineOptions, control: JobControl) -> None:
    from aurefine import particles
    from aurefine.refine.loop import refine  # torch is only imported for a real run

    for note in notes(options):
        print(f" Note: {note}.")
    refine(particles.load(options.particles, need_ctf=options.ctf_correction), options.reference, options, control=control)


def _continue(values: Mapping[str, Any], arguments: Sequence[str], control: JobControl) -> None:
    from aurefine import particles
    from aurefine.refine import checkpoint
    from aurefine.refine.loop import refine

    given = cleaned(values)
    print(f" Reading in {Path(given['continue_from']).name} ...")
    earlier = checkpoint.load(given["continue_from"], stored_values)
    options, kept = checkpoint.continued_options(earlier, {**given, "command_line": " ".join(arguments)})
    for note in kept + notes(options):
        print(f" Note: {note}.")
    state = checkpoint.continued_state(earlier, options, given)
    refine(particles.load(options.particles, need_ctf=options.ctf_correction), None, options.seeded(), state=state, control=control)
