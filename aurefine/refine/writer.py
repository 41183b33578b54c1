"""Writes every file of an iteration, and those of the end, under RELION's names (ALGORITHM.md 6.1); each is whole or absent."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import aurefine
from aurefine import folders, mrc, star
from aurefine import sampling as grids
from aurefine.atomic import remove, write_bytes
from aurefine.errors import InputError
from aurefine.refine.angdist import write_bild
from aurefine.refine.options import RefineOptions
from aurefine.refine.star_tables import micrograph_noise_tables, model_tables, optimiser_table, sampling_tables
from aurefine.refine.state import Model, SamplingState, State

IMITATED_VERSION = "5.0.1"  # of RELION, whose file layout this is
MOST_MICROGRAPH_SPECTRA = 500  # groups; beyond, what only RELION 3.1 reads would make most of the output


class Particles(Protocol):
    """What the writer needs of a ParticleSet."""

    @property
    def group_names(self) -> Sequence[str]: ...

    @property
    def group_index(self) -> np.ndarray: ...

    @property
    def optics_index(self) -> np.ndarray: ...

    def write(self, path: str | Path, poses: Any, random_subset: np.ndarray, scored: bool = True) -> None: ...


def make_output_folder(root: str) -> None:
    """Make the folder of the output root; InputError where that cannot be."""
    folder = folders.make(Path(root).parent)
    if not os.access(folder, os.W_OK):
        raise InputError(f"{folder}: permission denied; choose a folder you may write to with --o")


def iteration_root(root: str, iteration: int) -> str:
    """`run` and 7 to `run_it007`."""
    return f"{root}_it{iteration:03d}"


def write_iteration(root: str, iteration: int, state: State, particles: Particles, options: RefineOptions) -> str:
    """Write all files of one iteration and return the name of its optimiser file, which comes last and goes first: where it is, all are.

    `state.halves` holds two models; `state.half_maps_unfiltered` is written with a solvent-corrected FSC only, as RELION does.
    Raises InputError (from the atomic writes) when a file cannot be written.
    """
    base = iteration_root(root, iteration)
    remove(f"{base}_optimiser.star")  # of an earlier run: its files are about to be replaced
    names = {"root": root, "data": f"{base}_data.star", "sampling": f"{base}_sampling.star"}
    for half, model in enumerate(state.halves, 1):
        write_model(f"{base}_half{half}", model, state, particles, options, half)
        names["model" if half == 1 else "model2"] = f"{base}_half{half}_model.star"
    if options.solvent_correct_fsc:
        _write_unfiltered(base, state)
    star.write(names["sampling"], sampling_tables(state.sampling))
    particles.write(names["data"], state.poses, state.random_subset, scored=iteration > 0)
    optimiser = f"{base}_optimiser.star"
    star.write(optimiser, [optimiser_table(names, state, options)], comments=_comments(options))
    return optimiser


def write_final(root: str, state: State, particles: Particles, options: RefineOptions) -> str:
    """Write the files of a converged run, without `_itXXX`, and return the name of its optimiser file.

    `state.halves` holds the joined model alone, `state.half_maps_unfiltered` the two maps that post-processing takes.
    """
    if len(state.halves) != 1 or len(state.half_maps_unfiltered) != 2:
        found = len(state.halves), len(state.half_maps_unfiltered)
        raise ValueError(f"one joined model and two unfiltered half-maps were expected, not {found}")
    remove(f"{root}_optimiser.star")
    _write_unfiltered(root, state)
    write_model(root, state.halves[0], state, particles, options, half=None)
    names = {"root": root, "model": f"{root}_model.star", "data": f"{root}_data.star", "sampling": f"{root}_sampling.star"}
    star.write(names["sampling"], sampling_tables(state.sampling))
    particles.write(names["data"], state.poses, state.random_subset)
    optimiser = f"{root}_optimiser.star"
    star.write(optimiser, [optimiser_table(names, state, options, final=True)], comments=_comments(options))
    return optimiser


def write_model(base: str, model: Model, state: State, particles: Particles, options: RefineOptions, half: int | None) -> None:
    """Map, model tables and angular distribution of one half (1, 2) or of all particles (None)."""
    map_name = f"{base}_class001.mrc"
    mrc.write_map(map_name, model.map, model.pixel_size)
    counts = _counts(particles, slice(None) if half is None else state.random_subset == half, len(model.sigma2_noise))
    tables = model_tables(model, map_name, state, options, particles.group_names, counts.sum(axis=1))
    if half is not None and len(particles.group_names) <= MOST_MICROGRAPH_SPECTRA:
        tables += micrograph_noise_tables(model, counts)
    star.write(f"{base}_model.star", tables)
    _write_angular_distribution(f"{base}_class001_angdist.bild", model, state.sampling)


def _counts(particles: Particles, rows: slice | np.ndarray, optics_groups: int) -> np.ndarray:
    """Numbers of particles [groups, optics groups]."""
    counts = np.zeros((len(particles.group_names), optics_groups), dtype=np.int64)
    np.add.at(counts, (particles.group_index[rows], particles.optics_index[rows]), 1)
    return counts


def write_warnings(root: str, warnings: Sequence[str]) -> None:
    """Keep the run's warnings beside its results, in `<root>_warnings.txt`, one a line; none, no file."""
    if warnings:
        write_bytes(f"{root}_warnings.txt", "".join(f"{_in_one_line(warning)}\n" for warning in warnings).encode())
    else:
        remove(f"{root}_warnings.txt")  # of an earlier run


def read_warnings(root: str) -> list[str]:
    """What `write_warnings` has kept."""
    path = Path(f"{root}_warnings.txt")
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []


def _in_one_line(text: str) -> str:
    return " ".join(text.splitlines())


def _write_unfiltered(base: str, state: State) -> None:
    for half, volume in enumerate(state.half_maps_unfiltered, 1):
        mrc.write_map(f"{base}_half{half}_class001_unfil.mrc", volume, state.halves[0].pixel_size)


def _write_angular_distribution(path: str, model: Model, sampling: SamplingState) -> None:
    directions = grids.directions(sampling.healpix_order, sampling.grid_symmetry, sampling.limit_tilt)
    radius = 0.5 * model.box * model.pixel_size
    write_bild(path, model.pdf_direction, directions.angles, radius, sampling.coarse_step)


def _comments(options: RefineOptions) -> tuple[str, str]:
    version = f"{IMITATED_VERSION}-aurefine-{aurefine.__version__}"
    return f"RELION optimiser; version {version}", options.command_line + " "
