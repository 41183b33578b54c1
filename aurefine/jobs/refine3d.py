"""The 3D auto-refine job: its command line and the run itself; RELION's form is in refine3d_form.py."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from aurefine.errors import AlreadyTold, InputError
from aurefine.jobs import submit
from aurefine.jobs.options import parse
from aurefine.jobs.outputs import cleaned
from aurefine.jobs.refine3d_flags import FLAGS
from aurefine.jobs.refine3d_form import FORM, arguments_from_form
from aurefine.refine.options import RefineOptions, notes, validate, validate_values

if TYPE_CHECKING:
    from aurefine.distributed.run import Member
    from aurefine.job_control import JobControl
    from aurefine.refine.state import State

Result = TypeVar("Result")

__all__ = ["FORM", "NAME", "OPTIONS", "SUMMARY", "arguments_from_form", "build", "run", "stored_values", "submits"]

NAME = "refine"
SUMMARY = "Refine a 3D map to convergence from single particles, with RELION's own options and files."
OPTIONS = (*FLAGS, *submit.FLAGS)
SHARED = True  # several processes may be one job
submits = submit.submits


def build(values: Mapping[str, Any], arguments: Sequence[str] = ()) -> RefineOptions:
    """RefineOptions of a new run from parsed values (names of its fields), checked; raises InputError."""
    given = {name: value for name, value in cleaned(values).items() if name not in submit.NAMES}
    return validate(replace(RefineOptions(), **given, command_line=shlex.join(arguments)))


def stored_values(arguments: list[str]) -> Mapping[str, Any]:
    """The values (names of RefineOptions' fields) of an earlier run's words; InputError for what is no flag of a refinement."""
    return cleaned(parse(NAME, SUMMARY, OPTIONS, arguments)[0])


def run(values: Mapping[str, Any], arguments: Sequence[str] = ()) -> int:
    """Run the refinement that `values` describe; returns the exit code. Raises InputError for a user's mistake.

    With --pipeline_control the job's directory says how it ended, whatever happens. As one of several processes (torchrun, srun, mpirun) it
    joins them; with --processes or several GPUs it starts them.
    """
    if values.get("submit") is not None:
        return _submit(values, arguments)
    from aurefine.distributed import place
    from aurefine.job_control import ABORT_NOW, JobAborted, job_control, stopped_by_signals

    began = 0.0 if values.get("resume") else time.time()
    directory = values.get("pipeline_control", "") if place.keeps_exit_files() else ""
    with job_control(directory) as control, stopped_by_signals():
        try:
            _by_all(values, arguments, control, directory)
        except JobAborted as stop:
            raise JobAborted(f"the job was stopped by {ABORT_NOW}. {_kept(values, began)}") from stop
        except KeyboardInterrupt as stop:
            raise type(stop)(f"interrupted. {_kept(values, began)}") from stop
    return 0


def _submit(values: Mapping[str, Any], arguments: Sequence[str]) -> int:
    """Hand the command line to a batch system; mistakes in it are told now, not when its turn comes."""
    given = cleaned(values)
    if given.get("continue_from"):
        given["output"] = _root(given)
    else:
        build(values, arguments)
    numbers = _of_the_machine(values).gpu_numbers
    return submit.submit(NAME, given, arguments, max(1, values.get("processes", 0) or len(numbers or ())))


def _by_all(values: Mapping[str, Any], arguments: Sequence[str], control: JobControl, directory: str) -> None:
    """Refine in this process, as one of several, or in own workers; `directory`: of the exit files that this process keeps, if any."""
    from aurefine.distributed import launch, place

    here, machine = place.find(), _of_the_machine(values)
    if here is not None:
        from aurefine.distributed.run import joined  # torch is only imported for a real run

        with joined(here, machine, directory, Path(_root(cleaned(values))).parent) as member:
            _refine(values, arguments, control, member)
    elif (count := launch.workers(machine.processes, machine.gpu_numbers)) > 1:
        if not values.get("continue_from"):
            build(values, arguments)  # mistakes in the command line are told before anything is started
        _launch(values, arguments, count, control)
    else:
        _refine(values, arguments, control, None)


def _launch(values: Mapping[str, Any], arguments: Sequence[str], count: int, control: JobControl) -> None:
    """Run in own workers, and see that status.json says how that ended."""
    from aurefine.distributed import launch
    from aurefine.job_control import JobAborted
    from aurefine.refine import run_status

    folder = Path(_root(cleaned(values))).parent
    try:
        launch.launch([NAME, *arguments], count, control)
    except JobAborted:
        run_status.correct_last_status(folder, run_status.ABORTED, run_status.ABORT_MESSAGE)
        raise
    except KeyboardInterrupt:
        run_status.correct_last_status(folder, run_status.INTERRUPTED, run_status.SIGNAL_MESSAGE)
        raise
    except AlreadyTold:
        run_status.correct_last_status(folder, run_status.FAILED, "a process of this run has failed: standard error (run.err) says which")
        raise


def _of_the_machine(values: Mapping[str, Any]) -> RefineOptions:
    """What the options say of processes, threads and GPUs."""
    options = RefineOptions(**{name: values[name] for name in ("processes", "threads", "gpu") if name in values})
    validate_values(options)
    return options


def _refine(values: Mapping[str, Any], arguments: Sequence[str], control: JobControl, member: Member | None) -> None:
    if values.get("resume") and _resume(values, arguments, control, member):
        return
    if values.get("continue_from"):
        _continue(values, arguments, control, member)
    else:
        _start(build(values, arguments), control, member)


def _kept(values: Mapping[str, Any], began: float) -> str:
    from aurefine.refine import resume

    return resume.advice(_root(cleaned(values)), began)


def _root(given: Mapping[str, Any]) -> str:
    """The output root of this command line; "" where it cannot be told."""
    if not given.get("continue_from"):
        return str(given.get("output", ""))
    from aurefine.refine import checkpoint  # Numba and SciPy take a third of a second to load, which those who only start others need not wait for

    try:
        return checkpoint.continued_root(checkpoint.load(given["continue_from"]), str(given.get("output", "")))
    except InputError:
        return ""


def _once(member: Member | None, work: Callable[[], Result]) -> Result:
    """work(), done by one process for all."""
    return member.crew.once(work) if member else work()


def _note(text: str) -> None:
    print(f" Note: {text}.", flush=True)


def _resume(values: Mapping[str, Any], arguments: Sequence[str], control: JobControl, member: Member | None) -> bool:
    """Go on where an earlier run of this command line ended; False where it has left nothing to go on from."""
    from aurefine.refine import resume

    given = cleaned(values) | {"command_line": shlex.join(arguments)}
    root = _root(given)
    if not root:
        return False  # the command line is wrong, and is told so there

    going_on = _once(member, lambda: resume.resume(root, given, stored_values, _note))  # one process looks: soon there are new files
    if isinstance(going_on, str):
        print(f" {going_on}: nothing is left to do.")
        return True
    if going_on is None:
        print(f" Nothing is there to resume under {root}: the run starts.")
        return False
    print(f" Resuming after {Path(going_on.optimiser).name} ...", flush=True)
    _go(going_on.options, going_on.state, control, member)
    return True


def _start(options: RefineOptions, control: JobControl, member: Member | None) -> None:
    for note in notes(options):
        _note(note)
    _go(options, None, control, member)


def _continue(values: Mapping[str, Any], arguments: Sequence[str], control: JobControl, member: Member | None) -> None:
    from aurefine.refine import checkpoint

    given = cleaned(values)
    print(f" Reading in {Path(given['continue_from']).name} ...")
    earlier = checkpoint.load(given["continue_from"], stored_values)
    options, kept = checkpoint.continued_options(earlier, {**given, "command_line": shlex.join(arguments)})
    for note in kept + notes(options):
        _note(note)
    _go(options, checkpoint.continued_state(earlier, options, given), control, member)


def _go(options: RefineOptions, state: State | None, control: JobControl, member: Member | None) -> None:
    from aurefine import particles
    from aurefine.refine import resume
    from aurefine.refine.loop import refine

    if options.output:
        _once(member, lambda: resume.refuse_living(options.output, _note))
    options = member.options(options) if member else options.seeded()
    crew, console = (member.crew, member.console(options)) if member else (None, None)
    loaded = particles.load(options.particles, need_ctf=options.ctf_correction)
    refine(loaded, None if state else options.reference, options, state=state, control=control, console=console, crew=crew)
