"""What --resume finds beside the files of an iteration, so that it goes on exactly: numbers with all their digits, and sums within an iteration.

STAR files round; a refinement that goes on from them takes another way where decisions are close. So the newest iteration has its numbers in a
file of their own (its maps are exact). Within an iteration, for those that take hours, each half-set keeps its sums at the end of a chunk of
particles; state and plan are kept beside them, so that the particles still to come meet exactly the references that those before them met.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import secrets
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from aurefine.atomic import atomic_file
from aurefine.errors import InputError
from aurefine.refine.checkpoint import OF_THE_PROCESS
from aurefine.refine.options import RefineOptions
from aurefine.refine.plan import Plan
from aurefine.refine.state import Poses, State
from aurefine.refine.stored_state import nearly_same, read_plan, read_state, written_plan, written_state

if TYPE_CHECKING:
    from aurefine.refine.expectation import HalfSums

_NOT_OF_THE_RUN = OF_THE_PROCESS | {"particles", "reference", "max_iterations", "initial_noise_spectrum", "initial_tau2_spectrum"}
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError)


class Keeper:
    """The checkpoints of one run (nothing is kept of one without output): `exact` and `begun` at its start, `start` before each E-step,
    `keep_state` before and `forget` after the files of each iteration are written."""

    def __init__(
        self, options: RefineOptions | None = None, warn: Callable[[str], None] = print, *, leads: bool = True, alone: bool = True
    ) -> None:
        """`leads`: this process writes; `alone`: there is no other (many share the particles out anew in each iteration, no part is kept then)."""
        options = options or RefineOptions()
        self.root, self.warn, self.leads, self.alone = options.output, warn, leads, alone
        self.seconds = 60 * options.checkpoint_minutes if alone else 0.0
        self.began = 0.0
        self.options = _digest({name: value for name, value in dataclasses.asdict(options).items() if name not in _NOT_OF_THE_RUN})
        self.begin: State | None = None  # what is written with the first half's sums
        self.turn = threading.Lock()
        self.token = ""
        if not options.resume:
            self._remove_all()

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
        path = self._name(state.progress.iteration, "state")
        if not self.root or not path.exists():
            return state
        try:
            with np.load(path, allow_pickle=False) as stored:
                head = json.loads(str(stored["head"]))
                found = read_state(stored, head, [half.map for half in state.halves])
        except _UNREADABLE as error:
            self.warn(f"{path}: this checkpoint cannot be read ({error}); the run goes on from STAR files, whose numbers are rounded")
            return state
        return found if head["options"] == self.options and nearly_same(found, state) else state

    def begun(self, state: State, order: Sequence[np.ndarray]) -> tuple[State, Plan] | None:
        """State and plan of an iteration that was begun after `state`, the one whose particles are partly done; None where there is none."""
        path = self._name(state.progress.iteration + 1, "plan")
        found = self._read_begun(path, order) if self.root and self.alone and path.exists() else None
        if found is None:
            self._remove_all(but=self._name(state.progress.iteration, "state"))
        return found

    def _read_begun(self, path: Path, order: Sequence[np.ndarray]) -> tuple[State, Plan] | None:
        try:
            with np.load(path, allow_pickle=False) as stored:
                head = json.loads(str(stored["head"]))
                if head["options"] != self.options or head["order"] != _order_digest(order):
                    self.warn(f"{path}: this checkpoint is of a run with other options or particles; its iteration is started again")
                    return None
                begun, plan = read_state(stored, head), read_plan(head["plan"])
        except _UNREADABLE as error:
            self.warn(f"{path}: this checkpoint cannot be read ({error}); its iteration is started again")
            return None
        self.token = head["token"]
        return begun, plan

    def start(self, state: State, plan: Plan, order: Sequence[np.ndarray]) -> None:
        """The E-step of `plan` starts, anew or where `begun` found it."""
        self.plan, self.began = plan, time.monotonic()
        self.order = order
        if not self.token:
            self.token = secrets.token_hex(8)
            self.begin = state

    def half(self, number: int) -> HalfKeeper:
        """The checkpoints of half-set `number` (0, 1)."""
        return HalfKeeper(self, number)

    def forget(self, iteration: int) -> None:
        """The iteration is complete: checkpoints of earlier ones and within it are not needed any more."""
        self.token, self.begin = "", None
        self._remove_all(but=self._name(iteration, "state"))

    def end(self) -> None:
        """The run is finished."""
        self._remove_all()

    def _remove_all(self, but: Path | None = None) -> None:
        """Remove every checkpoint of the run's root `but` one: there is one iteration at a time."""
        if not self.root or not self.leads:
            return
        pattern = re.compile(re.escape(Path(self.root).name) + r"_it\d{3,}_(plan|state|half\d)_checkpoint\.npz")
        for path in Path(self.root).parent.glob("*_checkpoint.npz"):
            if pattern.fullmatch(path.name) and (but is None or path.name != but.name):
                path.unlink(missing_ok=True)

    def save_begin(self) -> None:
        """Write state and plan, once an iteration."""
        with self.turn:  # both halves come here
            if self.begin is None:
                return
            arrays, head = written_state(self.begin)
            head |= {"plan": written_plan(self.plan), "token": self.token, "options": self.options, "order": _order_digest(self.order)}
            _save(self._name(self.plan.iteration, "plan"), arrays, head)
            self.begin = None

    def half_file(self, number: int) -> Path:
        """Where a half's sums are."""
        return self._name(self.plan.iteration, f"half{number + 1}")


class HalfKeeper:
    """One half-set's part."""

    def __init__(self, keeper: Keeper, number: int) -> None:
        self.keeper, self.path, self.last = keeper, keeper.half_file(number), keeper.began

    def restore(self, members: np.ndarray, sums: HalfSums, updates: Poses) -> int:
        """Fill `sums` and `updates` with what is done; returns how many of `members` (all of the half-set), from the first on, that are.

        What `keep` keeps are those, too.
        """
        self.members, self.sums, self.updates = members, sums, updates
        self.done = self._restored() if self.path.exists() else 0
        return self.done

    def rest(self, pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The members still to be done, of all of them piece by piece."""
        skipped = self.done
        for piece in pieces:
            yield piece[skipped:]
            skipped = max(0, skipped - len(piece))

    def _restored(self) -> int:
        members, sums, updates = self.members, self.sums, self.updates
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                head = json.loads(str(stored["head"]))
                if head["token"] != self.keeper.token:
                    return 0
                content = {name: stored[name] for name in stored.files if name != "head"}
            accumulator = torch.from_numpy(content["accumulator"])
            if accumulator.shape != sums.accumulator.data.shape[1:]:
                return 0
        except _UNREADABLE as error:
            self.keeper.warn(f"{self.path}: this checkpoint cannot be read ({error}); its half-set is started again")
            return 0
        sums.accumulator.data[0] = accumulator.to(sums.accumulator.data.device)
        for name in _but_the_accumulator(sums):
            setattr(sums, name, content[name] if name in content else head[name])
        rows = members[: head["done"]]
        for name in Poses.__dataclass_fields__:
            getattr(updates, name)[rows] = content[f"poses_{name}"]
        return int(head["done"])

    def keep(self, count: int) -> None:
        """So many more particles are summed: keep that, if it is time to. A disk that is full costs a warning."""
        self.done += count
        members, done, sums, updates = self.members, self.done, self.sums, self.updates
        waits = (self.keeper.root and self.keeper.seconds) or math.inf
        if time.monotonic() - self.last < waits or done == len(members):
            return
        values = _but_the_accumulator(sums)
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        arrays |= {f"poses_{name}": getattr(updates, name)[members[:done]] for name in Poses.__dataclass_fields__}
        arrays["accumulator"] = sums.accumulator.combined().cpu().numpy()
        head = {name: float(value) for name, value in values.items() if name not in arrays} | {"token": self.keeper.token, "done": done}
        try:
            self.keeper.save_begin()
            _save(self.path, arrays, head)
        except InputError as error:
            self.keeper.warn(f"no checkpoint within this iteration: {error}. The run goes on")
        self.last = time.monotonic()


def _but_the_accumulator(sums: HalfSums) -> dict[str, Any]:
    return {field.name: getattr(sums, field.name) for field in dataclasses.fields(sums) if field.name != "accumulator"}


def _save(path: Path, arrays: dict[str, np.ndarray], head: dict[str, Any]) -> None:
    with atomic_file(path) as handle:
        np.savez(handle, **{"head": np.array(json.dumps(head)), **arrays})  # type: ignore[arg-type]


def _digest(values: dict[str, Any]) -> str:
    """The same for the same options, but for the rounding of those that are read from a STAR file."""
    rounded = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in values.items()}
    return hashlib.sha256(json.dumps(rounded, sort_keys=True).encode()).hexdigest()


def _order_digest(order: Sequence[np.ndarray]) -> str:
    return hashlib.sha256(b"".join(np.asarray(members, np.int64).tobytes() + b"|" for members in order)).hexdigest()
