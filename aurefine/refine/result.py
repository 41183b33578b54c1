"""What a refinement returns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from aurefine.refine import crosscheck, messages
from aurefine.refine.state import Poses, State
from aurefine.star import Table


@dataclass(eq=False)
class Result:
    """Outcome of a refinement.

    Attributes: state: the final state (joined model when converged); history: one dict an iteration (resolution, accuracy, sampling,
    changes, seconds); resolution: Angstrom; warnings: what a careful user should read; output: root of the written files, or "";
    rejected: particles that were set aside, with the reason (refine/rejection.py), or None.
    """

    state: State
    history: list[dict] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    output: str = ""
    rejected: Table | None = None

    @property
    def resolution(self) -> float:
        """Resolution in Angstrom."""
        return 1 / self.state.progress.current_resolution

    @property
    def map(self) -> np.ndarray:
        """The final map float32 [box, box, box] (of half 1 where the run did not converge)."""
        return self.state.halves[0].map

    @property
    def half_maps(self) -> tuple[np.ndarray, ...]:
        """The two unfiltered half maps of a converged run."""
        return self.state.half_maps_unfiltered

    @property
    def fsc(self) -> np.ndarray:
        """Gold-standard FSC by shell."""
        return self.state.halves[0].fsc

    @property
    def alignment_failed(self) -> bool:
        """Whether the refinement itself doubts its orientations: see `warnings`."""
        return 0 <= self.state.progress.orientations_kept < crosscheck.LEAST_KEPT or self.state.halves[0].accuracy_rotation > messages.POOR_ACCURACY

    @property
    def poses(self) -> Poses:
        """Angles, offsets and likelihoods of all particles, in the order of the `_data.star`."""
        return self.state.poses


def record(state: State, seconds: float) -> dict:
    """One line of the history."""
    progress, sampling = state.progress, state.sampling
    return {
        "iteration": progress.iteration, "resolution": 1 / progress.current_resolution, "accuracy_rotation": progress.accuracy_rotation,
        "accuracy_translation": progress.accuracy_translation, "healpix_order": sampling.healpix_order, "local": sampling.local,
        "current_size": progress.current_size, "changes_angles": progress.changes_angles, "changes_offsets": progress.changes_offsets,
        "pmax": state.halves[0].average_pmax, "seconds": seconds,
    }  # fmt: skip
