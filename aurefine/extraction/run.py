"""An extraction: micrographs in parallel, one joint table at the end; what goes wrong with one micrograph does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aurefine import folders, mrc, star
from aurefine.errors import InputError
from aurefine.extraction import coordinates, refined, tables
from aurefine.extraction import micrographs as micrograph_room
from aurefine.extraction.micrographs import Micrograph, MicrographSet
from aurefine.extraction.options import ExtractOptions, validate
from aurefine.extraction.worker import Worker
from aurefine.job_control import JobControl
from aurefine.refine.console import Console

if TYPE_CHECKING:
    from concurrent.futures import Future

_POLL = 0.5  # seconds between looks for the request to stop


@dataclass(frozen=True)
class Extraction:
    """What was extracted: the joint table's path, and how many particles of how many micrographs it holds."""

    particles_star: str
    particles: int
    micrographs: int


@dataclass(frozen=True)
class Outcome:
    """One micrograph's end: its particles, or what is wrong with it; neither where it has no particles."""

    table: star.Table | None = None
    failure: str = ""
    flat: int = 0


def extract(options: ExtractOptions, control: JobControl | None = None, console: Console | None = None) -> Extraction:
    """Extract particles as `options` say; returns what was written.

    Raises InputError at once for what concerns the whole job, and at the end, when the other micrographs are done and joined, if some
    micrographs could not be extracted. JobAborted (from `control`) keeps the finished micrographs for --only_do_unfinished.
    """
    control, console = control or JobControl(), console or Console()
    options, notes = validate(options)
    console.lines(f" Note: {note}." for note in notes)
    micrographs = micrograph_room.load(options.micrographs, options.output_folder, options.pixel_size)
    worker, warnings = _worker(options, micrographs)
    optics = tables.output_optics(options, micrographs, worker.refined)
    for warning in warnings + _header_warnings(micrographs):
        console.warn(warning)
    _describe(options, console)
    _make_folders(options)
    finished = _finished(options, micrographs.micrographs)
    outcomes = _run(worker, finished, control, console)
    return _conclude(options, micrographs.micrographs, outcomes, optics, console)


def _worker(options: ExtractOptions, micrographs: MicrographSet) -> tuple[Worker, list[str]]:
    if options.refined_particles:
        particles, warnings = refined.load(options, micrographs)
        return Worker(options, micrographs, particles, refined.source(options, particles, micrographs)), warnings
    files, warnings = coordinates.find(options, micrographs)
    return Worker(options, micrographs, None, coordinates.source(options, files)), warnings


def _make_folders(options: ExtractOptions) -> None:
    """Before anything is extracted: InputError for a place where nothing can be written."""
    folders.make(options.output_folder, "--part_dir")
    folders.make(Path(options.particles_star).parent, "--part_star")
    if options.pick_star:
        folders.make(Path(options.pick_star).parent, "--pick_star")


def _header_warnings(micrographs: MicrographSet) -> list[str]:
    sizes: dict[int, float] = {}
    expected = {}
    for micrograph in micrographs.micrographs:
        try:
            size = sizes.setdefault(micrograph.group, micrographs.pixel_size_of(micrograph.group))
        except InputError:  # said when this micrograph's turn comes
            continue
        expected[micrograph.name] = size
    return micrograph_room.header_pixel_sizes(expected)


def _describe(options: ExtractOptions, console: Console) -> None:
    if not options.refined_particles:
        return
    console.line(f" + Re-extracting particles based on coordinates from input _data.star file \n + {options.refined_particles}")
    if options.recenter:
        console.line(" + And re-centering particles based on refined coordinates in the _data.star file.")


def _finished(options: ExtractOptions, micrographs: Sequence[Micrograph]) -> dict[str, star.Table]:
    """Tables of the micrographs that an earlier run finished, if they are to be kept.

    Raises InputError where files would be overwritten silently, or where finished stacks have another box.
    """
    results = [options.particles_star, *([options.pick_star] if options.pick_star else [])]
    there = [name for name in results if Path(name).exists()]
    done = [micrograph for micrograph in micrographs if Path(f"{micrograph.root}_extract.star").exists()]
    if options.overwrite:
        for name in (*there, *(f"{micrograph.root}_extract.star" for micrograph in done)):
            Path(name).unlink()  # so that a run that is stopped leaves no table of stacks that are no more
        return {}
    if options.only_unfinished:
        kept = {micrograph.name: _kept(micrograph, options) for micrograph in done}
        return {name: table for name, table in kept.items() if table is not None}
    there += [f"{micrograph.root}.mrcs" for micrograph in micrographs if Path(f"{micrograph.root}.mrcs").exists()]
    if there:
        others = f" and {len(there) - 1} other files" if len(there) > 1 else ""
        raise InputError(f"{there[0]}{others} exist already; go on with --only_do_unfinished, replace them with --overwrite, "
                         "or name another folder with --part_dir and --part_star")  # fmt: skip
    return {}


def _kept(micrograph: Micrograph, options: ExtractOptions) -> star.Table | None:
    """The table of a finished micrograph; None where its stack is not what the table says, so that it is done again."""
    try:
        found = star.read(f"{micrograph.root}_extract.star")
        header = mrc.read_header(f"{micrograph.root}.mrcs")
    except InputError:  # lost or damaged since
        return None
    table = next((table for table in found.values() if "rlnImageName" in table), None)
    if header.columns != options.final_box:
        raise InputError(f"{micrograph.root}.mrcs: finished with boxes of {header.columns} pixels, but now {options.final_box} are asked for; "
                         "go on with the same options, replace everything with --overwrite, or name another folder with --part_dir")  # fmt: skip
    return table if table is not None and header.sections == table.count else None


def _run(worker: Worker, finished: dict[str, star.Table], control: JobControl, console: Console) -> list[Outcome]:
    """Extract from every micrograph that is not finished; outcomes in the micrographs' order."""
    micrographs = worker.micrographs.micrographs
    outcomes = [Outcome(finished.get(micrograph.name)) for micrograph in micrographs]
    todo = [place for place, micrograph in enumerate(micrographs) if micrograph.name not in finished]
    if finished:
        console.line(f" Skipping {len(finished)} micrographs that were finished before ...")
    threads = max(1, min(worker.options.workers, len(todo)))
    with console.progress(f" Extracting particles from {len(todo)} micrographs ...", len(todo)) as bar:
        if threads > 1:
            _side_by_side(worker, todo, outcomes, threads, control, bar.advance)
        else:
            for place in todo:
                control.check()
                outcomes[place] = _one(worker, micrographs[place])
                bar.advance()
    for outcome in outcomes:
        if outcome.failure:
            console.warn(outcome.failure)
    flat = sum(outcome.flat for outcome in outcomes)
    if flat:
        console.warn(f"{flat} particles have a background without any variation; they could not be normalised and hold no signal")
    return outcomes


def _side_by_side(
    worker: Worker, todo: Sequence[int], outcomes: list[Outcome], threads: int, control: JobControl, advance: Callable[[], None]
) -> None:
    from concurrent.futures import ThreadPoolExecutor  # slow to import, and a single micrograph does not need it

    with ThreadPoolExecutor(threads) as pool:
        futures = {pool.submit(_one, worker, worker.micrographs.micrographs[place]): place for place in todo}
        try:
            _gather(futures, outcomes, control, advance)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _gather(futures: dict[Future[Outcome], int], outcomes: list[Outcome], control: JobControl, advance: Callable[[], None]) -> None:
    from concurrent.futures import FIRST_COMPLETED, wait

    pending = set(futures)
    while pending:
        control.check()
        done, pending = wait(pending, timeout=_POLL, return_when=FIRST_COMPLETED)
        for future in done:
            outcomes[futures[future]] = future.result()
            advance()


def _one(worker: Worker, micrograph: Micrograph) -> Outcome:
    try:
        task = worker.read(micrograph)
    except InputError as error:
        return Outcome(failure=str(error))
    return Outcome() if task is None else Outcome(*_written(task.write()))


def _written(result: tuple[star.Table, int]) -> tuple[star.Table, str, int]:
    return result[0], "", result[1]


def _conclude(
    options: ExtractOptions, micrographs: Sequence[Micrograph], outcomes: Sequence[Outcome], optics: star.Table, console: Console
) -> Extraction:
    """Write the joint tables; InputError where micrographs failed, or nothing was extracted."""
    failures = [outcome.failure for outcome in outcomes if outcome.failure]
    done = [(micrograph, outcome.table) for micrograph, outcome in zip(micrographs, outcomes, strict=True) if outcome.table is not None]
    if not done:
        why = failures[0] if failures else f"{options.micrographs}: there is no particle in any micrograph; look at the coordinates"
        raise InputError(why if len(failures) < 2 else f"none of {len(failures)} micrographs could be extracted; the first: {why}")
    joint = tables.join([table for _, table in done], "particles")
    console.line(f" Joining metadata of all particles from {len(done)} micrographs in one STAR file...")
    _write_tables(options, optics, joint, done, console)
    if failures:
        raise InputError(
            f"{len(failures)} of {len(failures) + len(done)} micrographs with particles could not be extracted; {options.particles_star} "
            f"holds the {joint.count} particles of the others, and when the cause is removed, --only_do_unfinished adds the rest. "
            f"The first: {failures[0]}"
        )
    console.line(" Done preprocessing!")
    return Extraction(options.particles_star, joint.count, len(done))


def _write_tables(
    options: ExtractOptions, optics: star.Table, joint: star.Table, done: Sequence[tuple[Micrograph, star.Table]], console: Console
) -> None:
    for number, size in zip(optics["rlnOpticsGroup"].tolist(), optics["rlnImagePixelSize"].tolist(), strict=True):
        if np.any(joint["rlnOpticsGroup"] == number):
            console.line(f" The pixel size of the extracted particles in optics group {number} is {size:g} Angstrom/pixel.")
    star.write(options.particles_star, [optics, joint])
    console.line(f" Written out STAR file with {joint.count} particles in {options.particles_star}")
    if options.pick_star:
        rows = [(micrograph.name, f"{micrograph.root}_extract.star") for micrograph, _ in done]
        star.write(options.pick_star, [star.Table.from_rows("coordinate_files", ("rlnMicrographName", "rlnMicrographCoordinates"), rows)])
