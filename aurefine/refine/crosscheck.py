"""Has the alignment worked? Each particle is searched again, everywhere, against the map of the half-set it does not belong to.

The gold-standard FSC cannot tell: when orientations are wrong in both half-sets alike (a shell that looks the same from everywhere, a
reference that leads both halves astray), two wrong maps agree and the claimed resolution is far too good. But a particle whose
orientation is right finds it again in the other half's map, and one whose orientation only fits the noise it was averaged from does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from aurefine import euler, kernels
from aurefine.kernels import Volume
from aurefine.particles import ParticleSet
from aurefine.refine import devices
from aurefine.refine.crew import Crew
from aurefine.refine.expectation import Expectation
from aurefine.refine.image_cache import ImageCache
from aurefine.refine.options import RefineOptions
from aurefine.refine.plan import Grid, Plan, image_sizes
from aurefine.refine.state import Model, Poses, SamplingState
from aurefine.symmetry import point_group

_PARTICLES = 100  # of each half-set
_ORDER = 2  # coarse HEALPix order of the search: 15 degrees, 7.5 after oversampling
_SAME = 15.0  # degrees: two steps of that search
LEAST_KEPT = 0.5  # share of particles that must find their orientation again


@dataclass(frozen=True)
class CrossCheck:
    """Share of the examined particles that keep their orientation in the other half's map, and the median difference in degrees."""

    share_kept: float
    median_difference: float
    particles: int

    def line(self) -> str:
        """One line for the log."""
        return (
            f" Alignment check: {100 * self.share_kept:.0f} % of {self.particles} particles find their orientation again in the other "
            f"half-set's map (median difference {self.median_difference:.1f} degrees)"
        )


def check(
    plan: Plan, halves: Sequence[Model], projector: Callable[[int], Volume], members: Sequence[np.ndarray], particles: ParticleSet, cache: ImageCache,
    poses: Poses, options: RefineOptions, crew: Crew,
) -> CrossCheck:  # fmt: skip
    """Search some particles of both half-sets globally against the other half's projector.

    Args: plan: of the iteration about to run, whose image size is used; projector: of a half's map, by its number from 0; members: particles of each.
    """
    search = _global_plan(plan, halves[0], options)
    grid = Grid(search.sampling)
    found = poses.copied()
    flat = np.full(len(grid.directions), 1 / len(grid.directions))
    chosen = [mine[:: max(1, len(mine) // _PARTICLES)][:_PARTICLES] for mine in members]

    def half(mine: np.ndarray, other: int) -> tuple[np.ndarray, np.ndarray]:
        model = replace(halves[other], pdf_direction=flat)
        work = Expectation(search, grid, model, projector(other), particles, cache, options, copies=0)
        work.run([np.sort(mine)], poses, found, lambda count: crew.check())
        return mine, found.angles[mine]

    locations = devices.of_halves(options)
    with kernels.product_precision(locations[0], search.rounds_products):
        searched = crew.everywhere(crew.map(half, chosen, (1, 0), apart=devices.apart(locations)))
    rows, angles = (np.concatenate(both) for both in zip(*searched, strict=True))
    before, after = euler.to_matrix(poses.angles[rows]), euler.to_matrix(angles)
    difference = euler.angular_difference(before, after, point_group(plan.sampling.symmetry).operators)
    return CrossCheck(float((difference < _SAME).mean()), float(np.median(difference)), len(rows))


def _global_plan(plan: Plan, model: Model, options: RefineOptions) -> Plan:
    """The same iteration with a global search of moderate fineness, without perturbation, over the offsets in use."""
    now = plan.sampling
    sampling = SamplingState(_ORDER, now.symmetry, max(now.offset_range, now.offset_step), now.offset_step, limit_tilt=now.limit_tilt, oversampling=1)
    sizes = tuple(image_sizes(options, geometry, plan.current_size, sampling.coarse_step, model.box, model.pixel_size) for geometry in plan.geometry)
    return replace(plan, sampling=sampling, image_sizes=sizes, correlation=False, final=False)
