"""Who does the work of both half-sets: the threads of one process (lanes.py), or many processes (aurefine/distributed).

The loop is the same for all: each of its steps says which part of it belongs to a half-set, which needs both, and which is decided once. With
many processes every one of them runs the loop. What steers it is decided by the first and told to the others, so that all take the same turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

if TYPE_CHECKING:
    from aurefine.refine.backprojection import BackProjection
    from aurefine.refine.half_sums import HalfSums
    from aurefine.refine.image_cache import Storage
    from aurefine.refine.state import Poses

Result = TypeVar("Result")
HalfWork = Callable[[int, Iterable[np.ndarray]], "HalfSums"]  # (number of the half-set from 0, its particles piece by piece) -> its sums


class Crew(Protocol):
    """Those who work on a refinement, as one of its processes sees them."""

    @property
    def leads(self) -> bool:
        """Whether this process prints, and does what is done `once`: one of all does."""
        ...

    @property
    def writes(self) -> bool:
        """Whether this process writes the files of the iterations: one of all does, not the one that leads if there are several."""
        ...

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        ...

    @property
    def storage(self) -> Storage:
        """Who keeps the images."""
        ...

    @property
    def count(self) -> int:
        """Half-sets that this process works on side by side: 1 or 2."""
        ...

    @property
    def sharing(self) -> int:
        """Processes that share this machine's memory."""
        ...

    @property
    def halves(self) -> int:
        """Half-sets whose references and sums this process has while they are large: 1 or 2."""
        ...

    def largest_piece(self, count: int) -> int:
        """Of `count` particles of a half-set, how many this process works on as one piece, at the most."""
        ...

    @property
    def threads_each(self) -> int:
        """Threads of whoever works on a half-set."""
        ...

    def map(self, work: Callable[..., Result], *arguments: Iterable[Any], apart: bool = True) -> list[Result]:
        """[work(a, b, ...) of each half's arguments]. Of half-sets that are another process's the result is None, here.

        Where they are not to be `apart` a process that has both works on one after the other.
        """
        ...

    def side_by_side(self, work: Callable[..., Result], *arguments: Iterable[Any]) -> list[Result]:
        """[work(a, b, ...) of two sets of arguments], in this process's threads: for what is done once."""
        ...

    def everywhere(self, values: Sequence[Result]) -> list[Result]:
        """What `map` returned, of both half-sets in every process; nobody goes on before both are done."""
        ...

    def together(self, work: Callable[..., Result], values: Sequence[Any]) -> Result:
        """work(value of half-set 1, value of half-set 2), of what `map` returned: done once, its result known to all."""
        ...

    def added(self, halves: Sequence[BackProjection]) -> BackProjection:
        """The sum of both halves, put in the place of the first, for work that is done `once`: nothing needs them apart any more."""
        ...

    def once(self, work: Callable[[], Result]) -> Result:
        """work(), done once, its result known to all."""
        ...

    def share_out(self, work: HalfWork, members: Sequence[np.ndarray], updates: Poses, apart: bool, large: bool) -> tuple[HalfSums, HalfSums]:
        """The E-step of both half-sets: `work` over their `members` (those whose images this machine keeps), piece by piece where several help.

        The accumulators are whole where `map` works on that half-set, all other sums and the arrays of `updates` are whole everywhere.
        Where the half-sets are not to be `apart` (both on one GPU) a process works on one after the other. Where references and sums are `large`
        it has those of no more half-sets than `halves`.
        """
        ...

    def finished(self, count: int) -> int:
        """Told by the work that `count` more particles are done; returns how many more are done by all, to be shown by a progress bar."""
        ...

    def heard(self, reasons: Sequence[str]) -> list[str]:
        """Called by all alike with what each has warned of: for the one that leads, what the others alone have, and who; else nothing."""
        ...

    def is_first(self, name: str) -> bool:
        """Whether nobody has asked for this name before: who is first does what somebody has to do."""
        ...

    def check(self) -> None:
        """Called by the work, batch by batch: leaves it when somebody else has failed."""
        ...
