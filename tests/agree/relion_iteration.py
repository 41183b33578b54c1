"""One of our iterations on top of one of RELION's: its state n, its perturbation of n + 1, and what it found in n + 1."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from aurefine import euler, fsc, mrc, particles, star
from aurefine.job_control import JobControl
from aurefine.jobs import refine3d
from aurefine.local_search import LocalCandidates
from aurefine.refine import checkpoint, loop, planning, start
from aurefine.refine.console import Console
from aurefine.refine.image_cache import ImageCache
from aurefine.refine.lanes import lanes_of
from aurefine.refine.maximisation import Masks, Maximised, maximise
from aurefine.refine.model_reader import read_sampling
from aurefine.refine.plan import Grid, Plan
from aurefine.refine.state import Model, Poses
from aurefine.sampling import Directions
from aurefine.symmetry import PointGroup, point_group

PARTICLES = "particles_ctffixed_goodclasses.star"


@dataclass(frozen=True, eq=False)
class Iteration:
    """Our iteration: its plan, models and poses; `subset [n]` says which half each particle is in."""

    plan: Plan
    maximised: Maximised
    poses: Poses
    subset: np.ndarray


def link_images(data: Path, folder: Path) -> None:
    """Make `folder` a place from which the real particles can be read: their image names are relative, and `data` may be read-only."""
    for path in (data / "betagal_10204").iterdir():
        (folder / path.name).symlink_to(path)


def ours(run: Path, n: int, as_relion: bool) -> Iteration:
    """Our iteration n + 1 from RELION's iteration n; `as_relion` takes over its unit of the offset prior and its late coarse image size.

    Iteration 1 is by cross-correlation, as in the run. Must be called in the folder that the particles' image names are relative to.
    """
    stored = checkpoint.load(run / f"run_it{n:03d}_optimiser.star", refine3d.stored_values)
    given = {"continue_from": stored.path, "ignore_angle_changes": True, "sampling_from_resolution": True}
    options, _ = checkpoint.continued_options(stored, given)
    loaded, state = particles.load(PARTICLES), stored.state
    general = star.read(run / f"run_it{n + 1:03d}_half1_model.star")["model_general"]
    sampling = read_sampling(str(run / f"run_it{n + 1:03d}_sampling.star"), 1, general)
    progress = replace(state.progress, iteration=n + 1)
    plan = planning.make_plan(n + 1, sampling, progress, state, loaded, options, n == 0)
    if as_relion:
        stale = planning.make_plan(n + 1, state.sampling, progress, state, loaded, options, n == 0)
        plan = replace(plan, image_sizes=stale.image_sizes, relion_offset_prior=True, least_share=0.0, reduced_precision=False)
    if sampling.healpix_order != state.sampling.healpix_order:
        directions = len(Grid(sampling).directions)
        flat = np.full(directions, 1 / directions)
        state = replace(state, halves=tuple(replace(half, pdf_direction=flat) for half in state.halves))
    order = np.flatnonzero(state.random_subset == 1), np.flatnonzero(state.random_subset == 2)
    data = start.Data(loaded, ImageCache(loaded), order, Masks(), lanes_of(start.use_threads(2)))
    sums, poses = loop._expectation(state, plan, data, options, Console(verbosity=0), JobControl())
    maximised = maximise(state.halves, sums, plan, Masks(), progress.current_resolution, options, data.crew)
    return Iteration(plan, maximised, poses, state.random_subset)


def differences(run: Path, n: int, iteration: Iteration) -> dict[str, float]:
    """How far our iteration n + 1 is from RELION's: the largest of both halves, over the shells below its resolution and image size."""
    found: dict[str, float] = {}
    for half, model in zip((1, 2), iteration.maximised.models, strict=True):
        for name, value in _of_half(run / f"run_it{n + 1:03d}_half{half}", iteration.plan, model).items():
            found[name] = max(found.get(name, value), value)
    general = star.read(run / f"run_it{n + 1:03d}_half1_model.star")["model_general"]
    found["Pmax"] = abs(iteration.maximised.models[0].average_pmax - float(general.value("rlnAveragePmax")))  # RELION's half 2 holds that of half 1
    return found | _of_particles(run / f"run_it{n + 1:03d}_data.star", iteration)


def _of_half(root: Path, plan: Plan, model: Model) -> dict[str, float]:
    tables = star.read(f"{root}_model.star")
    general, shells, noise = tables["model_general"], tables["model_class_1"], tables["model_optics_group_1"]["rlnSigma2Noise"]
    edge = plan.current_size // 2
    resolved = slice(1, 1 + round(model.box * model.pixel_size / float(general.value("rlnCurrentResolution"))))
    # Of shell edge + 1 RELION leaves the rows y = +-(edge + 1) out of its sum, but not out of the number of pixels.
    counted = np.delete(np.arange(len(noise)), [edge + 1] if edge + 1 < len(noise) else [])
    off = lambda mine, theirs, where: float(np.abs(mine[where] / theirs[where] - 1).max())  # noqa: E731
    theirs, _ = mrc.read_map(f"{root}_class001.mrc")
    return {
        "noise": off(model.sigma2_noise[0], noise, counted),
        "tau2": off(model.tau2, shells["rlnReferenceTau2"], resolved),
        "map noise": off(model.sigma2_reference, shells["rlnReferenceSigma2"], resolved),
        "FSC": float(np.abs(model.fsc - shells["rlnGoldStandardFsc"])[1:edge].max()),
        "offset width": abs(model.sigma2_offset**0.5 / float(general.value("rlnSigmaOffsetsAngst")) - 1),
        "group scales": off(model.group_scale, tables["model_groups"]["rlnGroupScaleCorrection"], slice(None)),
        "map": 1 - float(fsc.of_maps(theirs, model.map)[resolved].min()),
    }


def _of_particles(path: Path, iteration: Iteration) -> dict[str, float]:
    table, poses = star.read(path)["particles"], iteration.poses
    angles = np.stack([table[f"rlnAngle{name}"] for name in ("Rot", "Tilt", "Psi")], 1)
    operators = point_group(iteration.plan.sampling.symmetry).operators
    apart = euler.angular_difference(euler.to_matrix(poses.angles), euler.to_matrix(angles), operators)
    offsets = np.stack([table["rlnOriginXAngst"], table["rlnOriginYAngst"]], 1)
    other = (apart > 0.01) | (np.abs(poses.offsets - offsets).max(1) > 0.01)
    likelihood = poses.log_likelihood - table["rlnLogLikeliContribution"]
    return {
        "other poses": float(other.mean()),
        "Pmax of particles": float(np.abs(poses.pmax - table["rlnMaxValueProbDistribution"]).mean()),
        "likelihood, mean": float(likelihood.mean()),
        "likelihood, spread": float(likelihood.std()),
    }


def candidates_of_relion(
    angles: np.ndarray, grid: Directions, group: PointGroup, order: int, sigma_deg: float, n_psi: int | None = None
) -> LocalCandidates:
    """RELION's local search: directions near the pose or a mate of it, but psi compared as it stands (ALGORITHM.md 4.7)."""
    views = euler.view_direction(*grid.angles.T)
    mates = np.einsum("nij,kjl->nkil", euler.to_matrix(angles), group.operators)[:, :, 2]
    tilt = np.rad2deg(np.arccos(np.clip(np.einsum("nkj,dj->nkd", mates, views), -1, 1))).min(1)
    turns = n_psi or 6 * 2**order
    psi = np.arange(turns) * (360 / turns)
    turn = np.abs((psi[None] - angles[:, 2:] + 180) % 360 - 180)
    log_prior = _gaussian(tilt, sigma_deg)[:, :, None] + _gaussian(turn, sigma_deg)[:, None, :]
    log_prior = log_prior.reshape(len(angles), -1)
    particle, index = np.nonzero(np.isfinite(log_prior))
    ptr = np.concatenate([[0], np.cumsum(np.bincount(particle, minlength=len(angles)))]).astype(np.int64)
    return LocalCandidates(ptr, index.astype(np.int64), log_prior[particle, index].astype(np.float32))


def _gaussian(distance: np.ndarray, sigma: float) -> np.ndarray:
    """Log weights [n, m] that sum to 1: Gaussian within 3 sigma, minus infinity beyond; the nearest alone where none is that near."""
    weight = np.where(distance < 3 * sigma, np.exp(-(distance**2) / (2 * sigma**2)), 0)
    lonely = np.flatnonzero(weight.sum(1) == 0)
    weight[lonely, distance[lonely].argmin(1)] = 1
    with np.errstate(divide="ignore"):
        return np.log(weight / weight.sum(1, keepdims=True))
