"""Where a run that ended early goes on: the newest iteration that it has finished (--resume), and words that say so."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from aurefine.atomic import remove
from aurefine.errors import InputError
from aurefine.job_control import JobAborted
from aurefine.process_record import remove_abandoned
from aurefine.refine import checkpoint, run_status
from aurefine.refine.checkpoint import CommandLineReader
from aurefine.refine.options import RefineOptions
from aurefine.refine.run_status import RunStatus
from aurefine.refine.state import State

_LISTEN = 0.2  # seconds between two looks at the heartbeat of a run on another machine
_FINAL = r"(half\d_class001_unfil|class001|class001_angdist|model|data|sampling|optimiser|rejected|warnings)\.\w+"  # what stands for a finished run


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
    Each is younger than the one before it; one that is older is of an earlier run of the same root. So are all that were there already when the
    newest run was ended before it had written anything.
    """
    found = _optimisers(root)
    chain: list[Path] = []
    newest = _begun_anew(root)
    for path in found:
        time = path.stat().st_mtime_ns
        if time < newest:
            break
        chain.append(path)
        newest = time
    final = Path(f"{root}_optimiser.star")
    finished = final.is_file() and final.stat().st_mtime_ns >= newest
    return Kept(tuple(map(str, chain)), str(final) if finished else "", tuple(map(str, found[len(chain) :])))


def _optimisers(root: str, least: int = 0) -> list[Path]:
    """Of all iterations under that root from the number `least` on, by number."""
    folder, pattern = Path(root).parent, re.compile(re.escape(Path(root).name) + r"_it(\d{3,})_optimiser\.star")
    matches = [pattern.fullmatch(path.name) for path in folder.iterdir()] if folder.is_dir() else []
    found = sorted((int(match[1]), match[0]) for match in matches if match)
    return [folder / name for number, name in found if number >= least]


def _last_status(root: str) -> RunStatus | None:
    """What the newest run of that root says of itself, where it does."""
    try:
        status = run_status.read_status(Path(root).parent)
    except InputError:
        return None
    return status if Path(status.output).name == Path(root).name else None


def _begun_anew(root: str) -> int:
    """Until when (st_mtime_ns) the newest run of that root, started anew, had written nothing; 0 where it has written, or there is none."""
    status = _last_status(root)
    return (Path(root).parent / run_status.NAME).stat().st_mtime_ns if status and status.nothing_written else 0


def remove_earlier(root: str, from_iteration: int = 0) -> None:
    """A run starts anew under that root, at `from_iteration`: later iterations and the end of an earlier run are not taken for its own."""
    for path in (Path(f"{root}_optimiser.star"), *reversed(_optimisers(root, from_iteration))):
        remove(path)


def remove_unfinished(root: str) -> None:
    """Remove what a killed run of that root was writing (temporary files)."""
    names = rf"{re.escape(Path(root).name)}_(it\d{{3,}}_.+|{_FINAL})|{re.escape(run_status.NAME)}"
    remove_abandoned(Path(root).parent, re.compile(names))


def refuse_living(root: str, note: Callable[[str], None]) -> None:
    """Raise InputError where a run of that root is at work. Where it may be, on another machine, its heart is listened to for half a minute."""
    status = _last_status(root)
    if status is None or status.state != run_status.RUNNING:
        return
    where, alive, heard = f"process {status.process.pid} of {status.process.host}", status.process.alive(), status.heartbeat
    if alive is None and status.verdict() == run_status.RUNNING:
        note(f"the run with this output root may still be at work ({where}): waiting for its next heartbeat, or for its lack")
    while alive is None and status.verdict() == run_status.RUNNING:
        time.sleep(_LISTEN)
        status = _last_status(root) or status
        alive = status.heartbeat != heard or None
    if alive and status.state == run_status.RUNNING:
        said = f"{Path(root).parent / run_status.NAME}: {where}"
        raise InputError(f"A run with this output root is at work ({said}). Wait for its end, stop it, or give another root with --o.")


def advice(root: str, began: float = 0.0) -> str:
    """What is kept of a run that is ended now, and how to go on. `began`: when this process did (time.time()), if it was to start the run anew."""
    status = _last_status(root) if root else None
    if status and status.started < began:
        return "Nothing was written."
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


def resume(root: str, given: Mapping[str, Any], read: CommandLineReader, note: Callable[[str], None]) -> Resumed | str | None:
    """The newest iteration under `root` that can be read, with the options of this command line; where all is done, words that say so; None where
    there is nothing.

    Args: given: the command line's values, which must be those that the run was started with; read: as for checkpoint.load; note: is told
        what was passed over.
    Raises InputError when the command line is not the one that the run was started with, or the run is still at work.
    """
    refuse_living(root, note)
    found = kept(root)
    if found.final:
        _refuse_another_run(found.final, given, read)
        return _finished(root, f"This run is finished ({found.final})")
    if found.foreign:
        other_way = "" if found.optimisers else f"; --continue {found.foreign[-1]} would go on from them"
        note(f"{found.foreign[0]} and later ones are of an earlier run with this output root: they are not used{other_way}")
    for optimiser in reversed(found.optimisers):
        try:
            earlier = checkpoint.load(optimiser, read)
        except InputError as error:
            note(f"this iteration cannot be used, the one before it is: {error}")
            continue
        fixed = _refuse_another_run(optimiser, given, read)
        if given.get("continue_from"):  # what only the first run's command line holds
            earlier = replace(earlier, stored={**checkpoint.stored_command_line(given["continue_from"], read), **earlier.stored})
        options, notes = checkpoint.continued_options(earlier, {name: value for name, value in given.items() if name not in fixed})
        for text in notes:
            note(text)
        if earlier.state.progress.iteration >= options.max_iterations:
            return _finished(root, f"--auto_iter_max {options.max_iterations}: so many iterations are done ({optimiser})")
        return Resumed(replace(options, output=root), checkpoint.continued_state(earlier, options, {}), optimiser)
    return None


def _finished(root: str, words: str) -> str:
    """The words; status.json says so, too, also where the run was killed after its last file."""
    status = _last_status(root)
    if status and status.state != run_status.FINISHED:
        run_status.write_last_status(Path(root).parent / run_status.NAME, replace(status, state=run_status.FINISHED, message=""))
    return words


def _refuse_another_run(optimiser: str, given: Mapping[str, Any], read: CommandLineReader) -> set[str]:
    """Raise InputError for a setting that a run cannot change on its way and that is not the one it was started with; returns those it cannot change
    (none where what the run was started with cannot be told)."""
    told = checkpoint.told(optimiser, read)
    fixed = {field.name: field.default for field in fields(RefineOptions) if field.name not in checkpoint.RE_READ} if told else {}
    pairs = {name: (told.get(name, default), given.get(name, default)) for name, default in fixed.items()}
    changed = [f"{name} was {_shown(old)} and is {_shown(new)} now" for name, (old, new) in pairs.items() if old != new]
    if changed:
        raise InputError(
            f"--resume: {optimiser} is of a run with other settings: {'; '.join(changed)}. Give the same command line as before; "
            "without --resume, and with another --o, this one starts anew."
        )
    return set(fixed)


def _shown(value: Any) -> str:
    return "not set" if value in ("", None) else str(value)
