"""Where a run that ended early goes on: the newest iteration that it has finished (--resume), and words that say so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aurefine.errors import InputError
from aurefine.job_control import JobAborted
from aurefine.refine import checkpoint
from aurefine.refine.checkpoint import Checkpoint, CommandLineReader
from aurefine.refine.options import RefineOptions
from aurefine.refine.state import State


@dataclass(frozen=True)
class Kept:
    """What a run has finished.

    Attributes: optimisers: of its complete iterations, oldest first; final: that of the finished run, "" where it is not finished;
    foreign: newer iterations by number that an earlier run of the same root left.
    """

    optimisers: tuple[str, ...]
    final: str
    foreign: tuple[str, ...]


def kept(root: str) -> Kept:
    """The complete iterations of the newest run with that output root.

    An optimiser file is written last, and removed before the files of its iteration are replaced: where it is, its iteration is complete.
    Each is younger than the one before it; one that is older is of an earlier run of the same root.
    """
    folder, name = Path(root).parent, Path(root).name
    pattern = re.compile(re.escape(name) + r"_it(\d{3,})_optimiser\.star")
    found = sorted((int(match.group(1)), path) for path in _listed(folder) if (match := pattern.fullmatch(path.name)))
    chain: list[Path] = []
    newest = 0
    for _, path in found:
        time = path.stat().st_mtime_ns
        if time < newest:
            break
        chain.append(path)
        newest = time
    final = Path(f"{root}_optimiser.star")
    finished = final.is_file() and final.stat().st_mtime_ns >= newest
    return Kept(tuple(map(str, chain)), str(final) if finished else "", tuple(str(path) for _, path in found[len(chain) :]))


def _listed(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def remove_unfinished(root: str) -> None:
    """Remove what a killed run of that root was writing (temporary files)."""
    folder, name = Path(root).parent, Path(root).name
    pattern = re.compile(r"\." + re.escape(name) + r"_.*\.\d+\.tmp")
    for path in _listed(folder):
        if pattern.fullmatch(path.name):
            path.unlink(missing_ok=True)


def advice(root: str) -> str:
    """What is kept of a run that is ended now, and how to go on."""
    found = kept(root) if root else Kept((), "", ())
    if found.final:
        return f"The run is finished: {found.final}."
    if not found.optimisers:
        return "No iteration is finished: start again."
    last = found.optimisers[-1]
    number = int(last[: -len("_optimiser.star")].rpartition("_it")[2])
    return f"Iteration {number} is kept ({last}): go on with the same command line and --resume."


@contextmanager
def told_what_is_kept(root: str) -> Iterator[None]:
    """An error that ends a run on its way says, too, what is kept and how to go on (InputError)."""
    try:
        yield
    except JobAborted:
        raise
    except InputError as error:
        raise InputError(f"{str(error).rstrip('.')}. {advice(root)}") from error


@dataclass(frozen=True)
class Resumed:
    """A run to go on with."""

    options: RefineOptions
    state: State
    optimiser: str


def resume(root: str, given: Mapping[str, Any], read: CommandLineReader, note: Callable[[str], None]) -> Resumed | None:
    """The newest iteration under `root` that can be read, with the options of this command line; None where there is none.

    Args: given: the command line's values, which must be those that the run was started with; read: as for checkpoint.load; note: is told
        what was passed over.
    Raises InputError when the command line is not the one that the run was started with.
    """
    found = kept(root)
    if found.foreign:
        note(f"{found.foreign[0]} and later ones are older than the iteration before them: of an earlier run, they are not used")
    for optimiser in reversed(found.optimisers):
        try:
            earlier = checkpoint.load(optimiser, read)
        except InputError as error:
            note(f"this iteration cannot be used, the one before it is: {error}")
            continue
        _refuse_another_run(earlier, given, read)
        if given.get("continue_from"):  # what only the first run's command line holds
            earlier = replace(earlier, stored={**checkpoint.stored_command_line(given["continue_from"], read), **earlier.stored})
        options, _ = checkpoint.continued_options(earlier, given)
        return Resumed(replace(options, output=root), checkpoint.continued_state(earlier, options, {}), optimiser)
    return None


def _refuse_another_run(earlier: Checkpoint, given: Mapping[str, Any], read: CommandLineReader) -> None:
    """Raise InputError for a setting that a run cannot change on its way and that is not the one it was started with."""
    told = checkpoint.stored_command_line(earlier.path, read)
    fixed = [name for name in given if name in told and name not in checkpoint.RE_READ]
    changed = [f"{name} was {told[name]} and is {given[name]} now" for name in fixed if told[name] != given[name]]
    if changed:
        raise InputError(
            f"--resume: {earlier.path} is of a run with other settings: {'; '.join(changed)}. Give the same command line as before; "
            "without --resume, and with another --o, this one starts anew."
        )
