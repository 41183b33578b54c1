"""A small made-up refinement, and particles that can be written: for the tests of files and of continuing."""

from __future__ import annotations

import numpy as np

from aurefine import particles, star
from aurefine import sampling as grids
from aurefine.refine.options import RefineOptions
from aurefine.refine.state import Model, Poses, Progress, SamplingState, State

BOX, PIXEL_SIZE, COUNT = 16, 2.5, 12
EXTENT = BOX * PIXEL_SIZE


def small_options() -> RefineOptions:
    return RefineOptions(
        particles="particles.star", output="run", reference="ref.mrc", particle_diameter=30.0, initial_lowpass=20.0, symmetry="C2", zero_mask=True,
        ctf_correction=True, flatten_solvent=True, norm_correction=True, scale_correction=True, join_halves_resolution=40.0, random_seed=7,
        offset_range_pixels=5.0, offset_step_pixels=2.0, healpix_order=1, command_line="--i particles.star --o run --ref ref.mrc --sym C2",
    )  # fmt: skip


def small_model(seed: int, directions: int) -> Model:
    rng = np.random.default_rng(seed)
    shells = BOX // 2 + 1
    return Model(
        map=rng.normal(size=(BOX, BOX, BOX)).astype(np.float32), pixel_size=PIXEL_SIZE, sigma2_noise=rng.uniform(1e-5, 1, (2, shells)),
        tau2=rng.uniform(1e-7, 1e-2, shells), data_vs_prior=np.linspace(999, 0.001, shells), fsc=np.linspace(1, 0, shells),
        sigma2_reference=rng.uniform(1e-7, 1e-5, shells), fourier_coverage=np.linspace(1, 0.1, shells), orientability=rng.uniform(0, 1, shells),
        group_scale=rng.uniform(0.8, 1.2, 3), pdf_direction=rng.dirichlet(np.ones(directions)), average_norm=0.8, sigma2_offset=9.5,
        average_pmax=0.4, log_likelihood=-3.25e7, accuracy_rotation=4.5, accuracy_translation=1.25,
    )  # fmt: skip


def small_state(iteration: int = 4, halves: int = 2) -> State:
    rng = np.random.default_rng(1)
    directions = len(grids.directions(2, "C2"))
    poses = Poses(
        angles=rng.uniform(-180, 180, (COUNT, 3)), offsets=rng.normal(size=(COUNT, 2)), norm=rng.uniform(0.5, 1.5, COUNT),
        pmax=rng.uniform(0, 1, COUNT), log_likelihood=rng.uniform(1e3, 1e6, COUNT), significant=rng.integers(1, 99, COUNT),
        class_number=np.ones(COUNT, dtype=np.int64), signal_fit=rng.uniform(0.5, 1.5, COUNT),
    )  # fmt: skip
    sampling = SamplingState(2, "C2", 12.5, 3.0, -0.25, 0.5, local=True, sigma_angle=15.0, healpix_order_original=1,
                             offset_range_original=12.5, offset_step_original=5.0)  # fmt: skip
    progress = Progress(
        iteration=iteration, current_resolution=5 / EXTENT, best_resolution=6 / EXTENT, current_size=14, iterations_without_resolution_gain=1,
        iterations_without_large_changes=2, changes_angles=1.5, changes_offsets=0.75, changes_classes=0.0, smallest_changes_angles=1.25,
        smallest_changes_offsets=0.5, smallest_changes_classes=0, has_high_fsc_at_limit=True, increment_size=12, accuracy_rotation=4.5,
        accuracy_translation=1.25,
    )  # fmt: skip
    models = tuple(small_model(seed, directions) for seed in range(halves))
    return State(models, poses, sampling, progress, random_subset=1 + np.arange(COUNT) % 2)


class SmallParticles:
    """Twelve particles of three micrographs and two optics groups, without images."""

    group_names = ("mic1", "mic2", "mic3")
    group_index = np.repeat([0, 1, 2], 4)
    optics_index = np.tile([0, 1], COUNT // 2)

    def __init__(self, state: State) -> None:
        self._optics = star.Table("optics", {"rlnOpticsGroup": np.array([1, 2]), "rlnImagePixelSize": np.full(2, PIXEL_SIZE)})

    def write(self, path, poses, random_subset, scored=True) -> None:
        columns = {
            "rlnMicrographName": np.array([self.group_names[group] for group in self.group_index], dtype=object),
            "rlnOpticsGroup": self.optics_index + 1,
            "rlnGroupNumber": self.group_index + 1,
        }
        for column, label in enumerate(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")):
            columns[label] = poses.angles[:, column]
        columns |= {"rlnOriginXAngst": poses.offsets[:, 0], "rlnOriginYAngst": poses.offsets[:, 1], "rlnClassNumber": poses.class_number,
                    "rlnNormCorrection": poses.norm, "rlnRandomSubset": random_subset}  # fmt: skip
        if scored:
            columns |= {"rlnLogLikeliContribution": poses.log_likelihood, "rlnMaxValueProbDistribution": poses.pmax,
                        "rlnNrOfSignificantSamples": poses.significant, particles.SIGNAL_FIT: poses.signal_fit}  # fmt: skip
        star.write(path, [self._optics, star.Table("particles", columns)])
