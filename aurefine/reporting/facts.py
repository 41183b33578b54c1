"""What a refinement did, by its own files: the facts that a methods section needs. What the files do not say is None or empty, never guessed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aurefine import star
from aurefine.errors import InputError
from aurefine.fsc import first_below
from aurefine.reporting.history import Iteration, Number, crossing, find_root, iterations, newest, particles_of, roots_of, warnings_of
from aurefine.reporting.related import Related, related
from aurefine.star import Table

_OURS = re.compile(r"-aurefine-(\S+)$")


@dataclass(frozen=True)
class Optics:
    """One optics group of the particles, with the number of its particles."""

    name: str
    particles: int
    voltage: Number  # kV
    spherical_aberration: Number  # mm
    amplitude_contrast: Number
    pixel_size: Number  # Angstrom
    box: int  # pixels; 0 where the table does not say


@dataclass(frozen=True)
class Facts:
    """A run's facts; lengths in Angstrom, angles in degrees."""

    root: Path  # of the newest file names, Refine3D/job001/run
    program: str  # "RELION 5.0.1", "aurefine 0.1.0", "" where no file says
    command: tuple[str, ...]  # words of the run's first command line, without the program
    continued: bool
    finished: bool
    last: Iteration  # the final one of a finished run
    rounds: int  # numbered iterations after the start
    local_from: int | None  # first iteration of local searches
    particles: int  # 0 where there is no particle file
    halves: tuple[int, int]  # numbers of particles in them; zeros where they are not told
    micrographs: int
    optics: tuple[Optics, ...]
    unusable: int  # particles set aside for their images: not finite, constant, scaled unlike the others, duplicated
    without_signal: int  # set aside because the map was hardly found in them
    settings: Mapping[str, Any]  # of the first _optimiser.star, by RELION's labels
    warnings: tuple[str, ...]  # of the run, one line each
    related: Related  # what other jobs of the project made of it

    @property
    def job(self) -> str:
        """Refine3D/job001, or the folder's name."""
        return "/".join(self.root.resolve().parent.parts[-2:])

    def flag(self, name: str) -> str | None:
        """The value of a flag of the command line; "" of one without a value, None where it was not given."""
        if name not in self.command:
            return None
        after = self.command[self.command.index(name) + 1 :]
        return after[0] if after and not re.match(r"--?[a-zA-Z]", after[0]) else ""

    def number(self, name: str) -> Number:
        """The number that a flag of the command line was given."""
        try:
            return float(self.flag(name) or "")
        except ValueError:
            return None

    def setting(self, label: str) -> Number:
        """A number of the optimiser's table."""
        value = self.settings.get(label)
        return float(value) if isinstance(value, int | float) and np.isfinite(value) else None

    def file(self, label: str) -> str:
        """A file named in the optimiser's table; "" where there is none."""
        value = str(self.settings.get(label, "None"))
        return "" if value in ("None", "") else value

    @property
    def resolution(self) -> Number:
        """As the program reports it: of the last shell before the half maps' FSC falls below 0.143."""
        return self.last.model.resolution

    @property
    def fsc143(self) -> Number:
        """Where the same curve crosses 0.143, between shells."""
        return crossing(self.last.model, 0.143)

    @property
    def is_nyquist(self) -> bool:
        """Whether the curve never falls below 0.143: the pixel size, not the data, limits the resolution."""
        curve = np.array([np.nan if value is None else value for value in self.last.model.fsc])
        return len(curve) > 2 and first_below(np.nan_to_num(curve), 0.143) < 0


def read_facts(place: str | Path) -> Facts:
    """The facts of the run in a job's directory, or under a root of file names; InputError where there is no iteration of a 3D auto-refine."""
    root = find_root(Path(place))
    found = iterations(root)
    if not found:
        raise InputError(f"{root}: no finished iteration ({root.name}_it000_half1_model.star) there; expected the directory of a 3D auto-refine job")
    numbered = [each for each in found if each.number >= 0]
    first = _optimiser(root, numbered[0].number if numbered else -1)
    last = _optimiser(root, found[-1].number)
    comments = star.leading_comments(first) if first else []
    table = _list(last)
    settings = {label: table.value(label) for label in table.columns}
    counts = _particles(root) | _rejected(root)
    return Facts(
        root=root, program=_program(star.leading_comments(last) if last else []), command=_words(comments), continued=len(roots_of(root)) > 1,
        finished=found[-1].number < 0, last=found[-1], rounds=max((each.number for each in numbered), default=0),
        local_from=next((each.number for each in numbered if each.model.local), None), settings=settings, warnings=tuple(warnings_of(root)),
        related=related(root), **counts,
    )  # fmt: skip


def _optimiser(root: Path, number: int) -> Path | None:
    """The optimiser's file of an iteration, whichever root it was written under."""
    stem = f"_it{number:03d}" if number >= 0 else ""
    return next((path for each in roots_of(root) if (path := each.with_name(f"{each.name}{stem}_optimiser.star")).is_file()), None)


def _list(path: Path | None) -> Table:
    return star.read_table(path, "optimiser_general") if path else Table("")


def _program(comments: list[str]) -> str:
    """Of "RELION optimiser; version 5.0.1-commit-73f0a3", as both write it; ours has its own version at the end."""
    version = comments[0].partition("version ")[2].strip() if comments else ""
    ours = _OURS.search(version)
    return f"aurefine {ours.group(1)}" if ours else f"RELION {version}" if version else ""


def _words(comments: list[str]) -> tuple[str, ...]:
    if len(comments) < 2:
        return ()
    try:
        return tuple(shlex.split(comments[1]))
    except ValueError:  # RELION writes no quotes: words are what blanks separate
        return tuple(comments[1].split())


def _particles(root: Path) -> dict[str, Any]:
    """Numbers of particles, halves and micrographs, and the optics groups, from the newest particle file."""
    path = particles_of(root)
    if path is None:
        return {"particles": 0, "halves": (0, 0), "micrographs": 0, "optics": ()}
    tables = star.read(path)
    table = tables.get("particles") or next(iter(tables.values()), Table(""))
    halves = np.bincount(table["rlnRandomSubset"].astype(int), minlength=3) if "rlnRandomSubset" in table else np.zeros(3, int)
    micrographs = len(set(table["rlnMicrographName"].tolist())) if "rlnMicrographName" in table else 0
    groups = table["rlnOpticsGroup"].astype(int) if "rlnOpticsGroup" in table else np.ones(table.count, int)
    optics = tables.get("optics")
    return {"particles": table.count, "halves": (int(halves[1]), int(halves[2])), "micrographs": micrographs,
            "optics": tuple(_optics(optics, row, groups) for row in range(optics.count)) if optics else ()}  # fmt: skip


def _rejected(root: Path) -> dict[str, int]:
    """Numbers of particles that were set aside, by the newest list of them."""
    path = newest(root, "rejected.star")
    reasons = star.read_table(path, "particles").columns.get("aurefineRejectionReason", np.array([])) if path else np.array([])
    without = sum(str(reason).startswith("likelihood") for reason in reasons)
    return {"unusable": len(reasons) - without, "without_signal": without}


def _optics(table: Table, row: int, groups: np.ndarray) -> Optics:
    def number(label: str) -> Number:
        return float(table[label][row]) if label in table else None

    group = int(table["rlnOpticsGroup"][row]) if "rlnOpticsGroup" in table else row + 1
    return Optics(
        name=str(table["rlnOpticsGroupName"][row]) if "rlnOpticsGroupName" in table else str(group), particles=int((groups == group).sum()),
        voltage=number("rlnVoltage"), spherical_aberration=number("rlnSphericalAberration"), amplitude_contrast=number("rlnAmplitudeContrast"),
        pixel_size=number("rlnImagePixelSize"), box=int(number("rlnImageSize") or 0),
    )  # fmt: skip
