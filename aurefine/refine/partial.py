"""What --resume finds beside the files of an iteration, so that it goes on exactly: numbers with all their digits, and sums within an iteration.

STAR files round; a refinement that goes on from them takes another way where decisions are close. So the newest iteration has its numbers in a
file of their own (its maps are exact). Within an iteration, for those that take hours, each process keeps what it has summed of each half-set at
the end of a chunk of particles, with the particles that are in it; state and plan are kept beside that, so that the particles still to come meet
exactly the references that those before them met. Sums may be added up by any number of processes.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
import math
import re
import secrets
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from aurefine.atomic import atomic_file, remove
from aurefine.errors import InputError
from aurefine.refine.checkpoint import OF_THE_PROCESS
from aurefine.refine.options import RefineOptions
from aurefine.refine.plan import Plan
from aurefine.refine.state import Poses, State
from aurefine.refine.stored_state import nearly_same, read_plan, read_state, written_plan, written_state

if TYPE_CHECKING:
    from aurefine.refine.crew import Crew
    from aurefine.refine.half_sums import HalfSums

_NOT_OF_THE_RUN = OF_THE_PROCESS | {"particles", "reference", "max_iterations", "initial_noise_spectrum", "initial_tau2_spectrum"}
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError)


@dataclass(eq=False)
class Part:
    """What was summed of a half-set: over the particles `rows`, whose new poses these are; `sums` are the fields of HalfSums by name."""

    rows: np.ndarray
    poses: dict[str, np.ndarray]
    sums: dict[str, Any]


class Keeper:
    """The checkpoints of one run (nothing is kept of one without output): `exact` and `begun` at its start, `start` before each E-step,
    `keep_state` before and `forget` after the files of each iteration are written."""

    def __init__(self, options: RefineOptions | None = None, warn: Callable[[str], None] = print, crew: Crew | None = None) -> None:
        """`crew`: whose sums are kept; None keeps nothing."""
        options = options or RefineOptions()
        self.root, self.warn, self.crew = options.output if crew else "", warn, crew
        self.seconds = 60 * options.checkpoint_minutes
        self.began = 0.0
        self.options = _digest({name: value for name, value in dataclasses.asdict(options).items() if name not in _NOT_OF_THE_RUN})
        self.begin: State | None = None  # what is written with the first sums
        self.claimed = False
        self.turn = threading.Lock()
        self.token = self.resumed = ""
        self.parts: list[Part | None] = [None, None]  # what is still to be put into the sums

    def _name(self, iteration: int, part: str) -> Path:
        return Path(f"{self.root}_it{iteration:03d}_{part}_checkpoint.npz")

    def keep_state(self, state: State) -> None:
        """Keep the numbers of an iteration that is about to be written; a disk that is full costs a warning."""
        if not self.root:
            return
        arrays, head = written_state(state, maps=False)
        try:
            _save(self._name(state.progress.iteration, "state"), arrays, head | {"options": self.options})
        except InputError as error:
            self.warn(f"no checkpoint of this iteration beside its STAR files: {error}")

    def exact(self, state: State) -> State:
        """The state that was read from STAR files, with all digits where they were kept (and the options are the same)."""
        if not self.root or self.crew is None:
            return state
        found = self.crew.once(lambda: self._read_exact(state))  # all go on from the same numbers
        if found is None:
            return state
        return dataclasses.replace(found, halves=tuple(map(lambda half, own: dataclasses.replace(half, map=own.map), found.halves, state.halves)))

    def _read_exact(self, state: State) -> State | None:
        """Without maps; None where there is nothing of this state."""
        path = self._name(state.progress.iteration, "state")
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as stored:
                head = json.loads(str(stored["head"]))
                found = read_state(stored, head, [np.empty(0, np.float32)] * len(state.halves))
        except _UNREADABLE as error:
            self.warn(f"{path}: this checkpoint cannot be read ({error}); the run goes on from STAR files, whose numbers are rounded")
            return None
        return found if head["options"] == self.options and nearly_same(found, state) else None

    def begun(self, state: State) -> tuple[State, Plan] | None:
        """State and plan of an iteration that was begun after `state`, the one whose particles are partly done; None where there is none."""
        if not self.root or self.crew is None:
            return None
        found = self.crew.once(lambda: self._begun_after(state))
        self.resumed = found[0] if found else ""
        return found[1:] if found else None

    def _begun_after(self, state: State) -> tuple[str, State, Plan] | None:
        """(token, state, plan); all other checkpoints but those of `state` are removed."""
        done = state.progress.iteration
        path = self._name(done + 1, "plan")
        found = self._read_begun(path, state) if path.is_file() else None
        self._remove(lambda iteration, part: not ((iteration, part) == (done, "state") or (found and iteration == done + 1 and part != "state")))
        return found

    def _read_begun(self, path: Path, before: State) -> tuple[str, State, Plan] | None:
        try:
            with np.load(path, allow_pickle=False) as stored:
                head = json.loads(str(stored["head"]))
                begun, plan = read_state(stored, head), read_plan(head["plan"])
        except _UNREADABLE as error:
            self.warn(f"{path}: this checkpoint cannot be read ({error}); its iteration is started again")
            return None
        if head["options"] != self.options or not np.array_equal(begun.random_subset, before.random_subset):
            self.warn(f"{path}: this checkpoint is of a run with other options or particles; its iteration is started again")
            return None
        return head["token"], begun, plan

    def start(self, state: State, plan: Plan, updates: Poses) -> np.ndarray:
        """The E-step of `plan` starts, anew or where `begun` found it; bool [particles]: those that are done, whose poses are in `updates` now."""
        self.plan, self.began, done = plan, time.monotonic(), np.zeros(len(state.random_subset), bool)
        self.token, self.resumed, again = self.resumed, "", bool(self.resumed)
        if not self.root or self.crew is None:
            return done
        if not again:
            self.token, self.begin, self.claimed = self.crew.once(lambda: secrets.token_hex(8)), state, False
            return done
        self.parts = self.crew.map(self._read_parts, range(2))
        for part in self.crew.everywhere([part and dataclasses.replace(part, sums={}) for part in self.parts]):
            if part is not None:
                done[part.rows] = True
                for name, values in part.poses.items():
                    getattr(updates, name)[part.rows] = values
        return done

    def _read_parts(self, number: int) -> Part | None:
        """All that was summed of a half-set, whoever did it, added up. A process that goes on from others' sums writes them once more: of two files
        that share particles, the one with more has all of them."""
        name = f"{glob.escape(Path(self.root).name)}_it{self.plan.iteration:03d}_half{number + 1}*_checkpoint.npz"
        found = [part for path in sorted(Path(self.root).parent.glob(name)) if path.is_file() and (part := self._read_part(path))]
        whole: Part | None = None
        for part in sorted(found, key=lambda part: -len(part.rows)):
            whole = part if whole is None else whole if np.isin(part.rows, whole.rows).any() else _together(whole, part)
        return whole

    def _read_part(self, path: Path) -> Part | None:
        try:
            with np.load(path, allow_pickle=False) as stored:
                head = json.loads(str(stored["head"]))
                if head.pop("token") != self.token:
                    return None
                content = head | {name: stored[name] for name in stored.files if name != "head"}
            return Part(content.pop("rows"), {name: content.pop(f"poses_{name}") for name in Poses.__dataclass_fields__}, content)
        except _UNREADABLE as error:
            self.warn(f"{path}: this checkpoint cannot be read ({error}); its particles are done again")
            return None

    def half(self, number: int) -> HalfKeeper:
        """The checkpoints of half-set `number` (0, 1)."""
        return HalfKeeper(self, number)

    def forget(self, iteration: int) -> None:
        """The iteration is complete: checkpoints of earlier ones and within it are not needed any more."""
        self._remove(lambda number, part: number < iteration or (number == iteration and part != "state"))

    def end(self) -> None:
        """The run is finished, or another one starts under its root."""
        self._remove(lambda iteration, part: True)

    def _remove(self, chosen: Callable[[int, str], bool]) -> None:
        """Remove the checkpoints of the run's root that are chosen by iteration and part."""
        if not self.root:
            return
        pattern = re.compile(re.escape(Path(self.root).name) + r"_it(\d{3,})_(plan|state|half\d(?:_rank\d+)?)_checkpoint\.npz")
        for path in Path(self.root).parent.glob("*_checkpoint.npz"):
            if (match := pattern.fullmatch(path.name)) and chosen(int(match[1]), match[2]):
                remove(path)

    def save_begin(self) -> None:
        """Write state and plan, once an iteration: the process that comes first does."""
        with self.turn:  # both halves come here
            if self.begin is None or self.crew is None:
                return
            self.claimed = self.claimed or self.crew.is_first(f"plan {self.token}")
            if self.claimed:
                arrays, head = written_state(self.begin)
                head |= {"plan": written_plan(self.plan), "token": self.token, "options": self.options}
                _save(self._name(self.plan.iteration, "plan"), arrays, head)
            self.begin = None

    def part_file(self, number: int) -> Path:
        """Where this process's sums of a half-set are."""
        rank = self.crew.rank if self.crew else 0
        return self._name(self.plan.iteration, f"half{number + 1}" + (f"_rank{rank}" if rank else ""))


class HalfKeeper:
    """What this process sums of one half-set."""

    def __init__(self, keeper: Keeper, number: int) -> None:
        self.keeper, self.number, self.last = keeper, number, keeper.began
        self.rows: list[np.ndarray] = []  # that are summed

    def restore(self, sums: HalfSums, updates: Poses) -> None:
        """Put into the new `sums` what was found by `Keeper.start`; what `keep` keeps are these, and the `updates` of particles."""
        self.sums, self.updates = sums, updates
        part, self.keeper.parts[self.number] = self.keeper.parts[self.number], None
        if part is None:
            return
        self.rows.append(part.rows)
        accumulator = torch.from_numpy(part.sums.pop("accumulator"))
        sums.accumulator.data[0] = accumulator.to(sums.accumulator.data.device)
        for name, value in part.sums.items():
            setattr(sums, name, value)

    def keep(self, rows: np.ndarray) -> None:
        """More particles are summed: keep that, if it is time to. A disk that is full costs a warning."""
        keeper, sums = self.keeper, self.sums
        self.rows.append(rows)
        waits = (keeper.root and keeper.seconds) or math.inf
        if time.monotonic() - self.last < waits or keeper.crew is None:
            return
        done = np.concatenate(self.rows)
        values = sums.small()
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        head = {name: float(value) for name, value in values.items() if name not in arrays} | {"token": keeper.token}
        arrays |= {f"poses_{name}": getattr(self.updates, name)[done] for name in Poses.__dataclass_fields__}
        arrays |= {"rows": done, "accumulator": sums.accumulator.combined().cpu().numpy()}
        try:
            keeper.save_begin()
            _save(keeper.part_file(self.number), arrays, head)
        except InputError as error:
            keeper.warn(f"no checkpoint within this iteration: {error}. The run goes on")
        self.last = time.monotonic()


def _together(one: Part, other: Part) -> Part:
    """Two parts of the same half-set added up."""
    poses = {name: np.concatenate([values, other.poses[name]]) for name, values in one.poses.items()}
    return Part(np.concatenate([one.rows, other.rows]), poses, {name: value + other.sums[name] for name, value in one.sums.items()})


def _save(path: Path, arrays: dict[str, np.ndarray], head: dict[str, Any]) -> None:
    with atomic_file(path) as handle:
        np.savez(handle, **{"head": np.array(json.dumps(head)), **arrays})  # type: ignore[arg-type]


def _digest(values: dict[str, Any]) -> str:
    """The same for the same options, but for the rounding of those that are read from a STAR file."""
    rounded = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in values.items()}
    return hashlib.sha256(json.dumps(rounded, sort_keys=True).encode()).hexdigest()
