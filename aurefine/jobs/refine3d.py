"""The 3D auto-refine job: its command line and the run itself; RELION's form is in refine3d_form.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurefine.jobs.options import parse
from aurefine.jobs.outputs import cleaned
from aurefine.jobs.refine3d_flags import FLAGS
from aurefine.jobs.refine3d_form import FORM, arguments_from_form
from aurefine.refine.options import RefineOptions, notes, validate

if TYPE_CHECKING:
    from aurefine.job_control import JobControl

__all__ = ["FORM", "NAME", "OPTIONS", "SUMMARY", "arguments_from_form", "build", "run"]

NAME = "refine"
SUMMARY = "Refine a 3D map to convergence from single particles, with RELION's own options and files."
OPTIONS = FLAGS

def build(values: Mapping[str, Any], arguments: Sequence[str] = ()) -> RefineOptions:
    """RefineOptions of a new run from parsed values (names of its fields), checked; raises InputError."""
    return validate(replace(RefineOptions(), **cleaned(values), command_line=" ".join(arguments)))


def _stored_values(arguments: list[str]) -> Mapping[str, Any]:
    return cleaned(parse(NAME, SUMMARY, OPTIONS, arguments)[0])


def run(values: Mapping[str, Any], arguments: Sequence[str] = ()) -> int:
    """Run the refinement that `values` describe; returns the exit code. Raises InputError for a user's mistake.

    With --pipeline_control the job's directory says how it ended, whatever happens.
    """
    from aurefine.job_control import job_control

    with job_control(values.get("pipeline_control", "")) as control:
        if values.get("continue_from"):
            _continue(values, arguments, control)
        else:
            _start(build(values, arguments).seeded(), control)
    return 0


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
    earlier = checkpoint.load(given["continue_from"], _stored_values)
    options, kept = checkpoint.continued_options(earlier, {**given, "command_line": " ".join(arguments)})
    for note in kept + notes(options):
        print(f" Note: {note}.")
    state = checkpoint.continued_state(earlier, options, given)
    refine(particles.load(options.particles, need_ctf=options.ctf_correction), None, options.seeded(), state=state, control=control)
