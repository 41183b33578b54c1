"""`_model.star`, `_sampling.star` and `_data.star` back into the refinement's state; RELION 3.1 to 5, and our own (ALGORITHM.md 6.5-6.7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from aurefine import mrc, star
from aurefine.errors import InputError
from aurefine.particles import SIGNAL_FIT
from aurefine.refine.state import Model, Poses, SamplingState
from aurefine.sampling import angular_step
from aurefine.star import Table
from aurefine.star_document import named_file

Tables = Mapping[str, Table]
_LONGEST, _SHORTEST_PIXEL = 1e9, 1e-3  # Angstrom; beyond these a number is damage
_FINEST_ORDER = 15  # of a HEALPix grid; no refinement comes near it


def need(table: Table, label: str, path: str) -> Any:
    """The value of a label that a refinement cannot go on without."""
    if label not in table:
        raise InputError(f"{path}: data_{table.name} has no {label}: is it the file of a 3D auto-refine by RELION 3.1 or later?")
    value = table.value(label)
    if value is None:
        raise InputError(f"{path}: data_{table.name} has no row under {label}; restore or repair this file")
    return value


def number(table: Table, label: str, default: float) -> float:
    """The value of a label that older versions do not write; `default` also where it is no number (nan, inf)."""
    value = float(table.value(label, default))  # type: ignore[arg-type]
    return value if np.isfinite(value) else default


def need_length(table: Table, label: str, path: str, smallest: float = 0.0) -> float:
    """A length in Angstrom that a refinement cannot go on without; InputError where it is none."""
    value = float(need(table, label, path))
    if not smallest <= value < _LONGEST:
        raise InputError(f"{path}: data_{table.name}: {label} is {value:g}; expected a length in Angstrom; restore or repair this file")
    return value


def block(tables: Tables, name: str, path: str) -> Table:
    """A table that has to be there."""
    if name not in tables:
        raise InputError(f"{path}: there is no data_{name}: is it the file of a 3D auto-refine by RELION 3.1 or later?")
    return tables[name]


def read_model(path: str, particles: Table | None) -> tuple[Model, Table]:
    """One half's model with its map, and its `model_general`; `particles` serves RELION 3.1, which has noise spectra by micrograph group."""
    tables = star.read(path)
    general, classes = block(tables, "model_general", path), block(tables, "model_classes", path)
    shells, groups = block(tables, "model_class_1", path), block(tables, "model_groups", path)
    volume, _ = mrc.read_map(named_file(str(need(classes, "rlnReferenceImage", path)), path))
    count = int(need(general, "rlnOriginalImageSize", path)) // 2 + 1
    if volume.shape[0] != 2 * (count - 1) or shells.count != count:
        raise InputError(f"{path}: the map's box of {volume.shape[0]} and {shells.count} shells do not go with a box of {2 * (count - 1)}.")
    model = Model(
        map=volume,
        pixel_size=need_length(general, "rlnPixelSize", path, _SHORTEST_PIXEL),
        sigma2_noise=_noise_spectra(tables, count, particles, path),
        group_scale=np.asarray(groups.columns.get("rlnGroupScaleCorrection", np.ones(groups.count)), dtype=np.float64),
        pdf_direction=np.asarray(block(tables, "model_pdf_orient_class_1", path)["rlnOrientationDistribution"], dtype=np.float64),
        average_norm=float(need(general, "rlnNormCorrectionAverage", path)),
        sigma2_offset=need_length(general, "rlnSigmaOffsetsAngst", path) ** 2,
        average_pmax=number(general, "rlnAveragePmax", 0.0),
        log_likelihood=number(general, "rlnLogLikelihood", 0.0),
        accuracy_rotation=number(classes, "rlnAccuracyRotations", 999.0),
        accuracy_translation=number(classes, "rlnAccuracyTranslationsAngst", 999.0),
        **_shell_columns(shells, path),
    )
    return model, general


_SHELL_LABELS = {
    "tau2": "rlnReferenceTau2",
    "data_vs_prior": "rlnSsnrMap",
    "fsc": "rlnGoldStandardFsc",
    "sigma2_reference": "rlnReferenceSigma2",
    "fourier_coverage": "rlnFourierCompleteness",
    "orientability": "rlnSpectralOrientabilityContribution",
}
_REQUIRED = ("tau2", "data_vs_prior")


def _shell_columns(shells: Table, path: str) -> dict[str, np.ndarray]:
    for name in _REQUIRED:
        need(shells, _SHELL_LABELS[name], path)
    zeros = np.zeros(shells.count)
    return {name: np.asarray(shells.columns.get(label, zeros), dtype=np.float64) for name, label in _SHELL_LABELS.items()}


def _noise_spectra(tables: Tables, shells: int, particles: Table | None, path: str) -> np.ndarray:
    """[optics groups, shells]"""
    by_optics = _numbered(tables, "model_optics_group_", shells)
    if len(by_optics):
        return by_optics
    by_micrograph = _numbered(tables, "model_group_", shells)
    if not len(by_micrograph):
        raise InputError(f"{path}: no noise spectrum (data_model_optics_group_1): is it the model file of a refinement?")
    return _by_optics_group(by_micrograph, particles)


def _numbered(tables: Tables, prefix: str, shells: int) -> np.ndarray:
    spectra: list[np.ndarray] = []
    while f"{prefix}{len(spectra) + 1}" in tables:
        spectra.append(_spectrum(tables[f"{prefix}{len(spectra) + 1}"], shells))
    return np.array(spectra)


def _spectrum(table: Table, shells: int) -> np.ndarray:
    """A noise spectrum; shells that the table leaves out take the value of the shell before (the first ones: after)."""
    index = table["rlnSpectralIndex"].astype(int)
    values = table["rlnSigma2Noise"].astype(np.float64)
    inside = (index >= 0) & (index < shells) & (values > 0)
    index, values = index[inside], values[inside]
    if not len(index):
        return np.ones(shells)
    return values[np.clip(np.searchsorted(index, np.arange(shells), side="right") - 1, 0, None)]


def _by_optics_group(spectra: np.ndarray, particles: Table | None) -> np.ndarray:
    """RELION 3.1's spectra of micrograph groups, averaged over the particles of each optics group."""
    if particles is None or "rlnOpticsGroup" not in particles or "rlnGroupNumber" not in particles:
        return spectra.mean(axis=0, keepdims=True)
    optics = particles["rlnOpticsGroup"].astype(int)
    groups = np.clip(particles["rlnGroupNumber"].astype(int) - 1, 0, len(spectra) - 1)
    counts = np.zeros((optics.max(), len(spectra)))
    np.add.at(counts, (optics - 1, groups), 1)
    counts[counts.sum(axis=1) == 0] = 1  # an optics group without particles
    return counts @ spectra / counts.sum(axis=1, keepdims=True)


def read_noise(path: str, groups: int, shells: int) -> np.ndarray:
    """Noise spectra [groups, shells] of a STAR file: its model_optics_group_N where there is one a group, else its first spectrum for all.

    Raises InputError for a file without a spectrum of positive numbers.
    """
    tables = star.read(path)
    spectra = [_spectrum(table, shells) for table in _with_columns(tables, path, "rlnSigma2Noise")]
    own = _numbered(tables, "model_optics_group_", shells)
    return own if len(own) == groups else np.repeat(spectra[0][None], groups, 0)


def read_signal(path: str, shells: int) -> np.ndarray:
    """Signal spectrum tau2 [shells] of a STAR file; 0 for shells that it leaves out. Raises InputError for a file without one."""
    table = _with_columns(star.read(path), path, "rlnReferenceTau2")[0]
    index, out = table["rlnSpectralIndex"].astype(int), np.zeros(shells)
    inside = (index >= 0) & (index < shells)
    out[index[inside]] = table["rlnReferenceTau2"].astype(np.float64)[inside]
    return out


def _with_columns(tables: Tables, path: str, label: str) -> list[Table]:
    """The tables that hold a spectrum with positive values."""
    columns = [table for table in tables.values() if "rlnSpectralIndex" in table and label in table]
    found = [table for table in columns if (table[label].astype(np.float64) > 0).any()]
    if not found:
        raise InputError(f"{path}: no spectrum: a table with rlnSpectralIndex and positive {label} was expected, as in a _model.star.")
    return found


def read_sampling(path: str, oversampling: int, general: Table) -> SamplingState:
    """The sampling of a `_sampling.star`; `general` is a `model_general`, which says whether searches are local."""
    table = block(star.read(path), "sampling_general", path)
    order = int(need(table, "rlnHealpixOrder", path))
    if not 0 <= order <= _FINEST_ORDER:
        raise InputError(f"{path}: rlnHealpixOrder is {order}; expected a number from 0 to {_FINEST_ORDER}; restore or repair this file")
    psi_step = number(table, "rlnPsiStep", angular_step(order))
    offset_range, offset_step = (need_length(table, label, path) for label in ("rlnOffsetRange", "rlnOffsetStep"))
    return SamplingState(
        healpix_order=order,
        symmetry=str(need(table, "rlnSymmetryGroup", path)),
        offset_range=offset_range,
        offset_step=offset_step,
        perturbation=number(table, "rlnSamplingPerturbInstance", 0.0),
        perturbation_factor=number(table, "rlnSamplingPerturbFactor", 0.5),
        oversampling=oversampling,
        psi_step=0.0 if abs(psi_step - angular_step(order)) < 1e-3 else psi_step,
        limit_tilt=number(table, "rlnTiltAngleLimit", -91.0),
        local=int(number(general, "rlnOrientationalPriorMode", 0)) > 0,
        sigma_angle=number(general, "rlnSigmaPriorRotAngle", 0.0),
        healpix_order_original=int(number(table, "rlnHealpixOrderOriginal", order)),
        offset_range_original=number(table, "rlnOffsetRangeOriginal", offset_range),
        offset_step_original=number(table, "rlnOffsetStepOriginal", offset_step),
    )


def read_particle_table(path: str) -> Table:
    """`data_particles`, stably sorted by micrograph name as `particles.load` sorts it."""
    table = block(star.read(path), "particles", path)
    if "rlnMicrographName" not in table:
        return table
    return table.select(np.argsort(table["rlnMicrographName"], kind="stable"))


def poses_of(table: Table) -> Poses:
    """The per-particle variables of a `data_particles`; those of an expectation are 0 where there has been none."""
    return Poses(
        angles=_stack(table, "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"),
        offsets=_stack(table, "rlnOriginXAngst", "rlnOriginYAngst"),
        norm=_column(table, "rlnNormCorrection", 1.0),
        pmax=_column(table, "rlnMaxValueProbDistribution"),
        log_likelihood=_column(table, "rlnLogLikeliContribution"),
        significant=_column(table, "rlnNrOfSignificantSamples").astype(np.int64),
        class_number=_column(table, "rlnClassNumber").astype(np.int64),
        signal_fit=_column(table, SIGNAL_FIT),
    )


def _stack(table: Table, *labels: str) -> np.ndarray:
    return np.stack([_column(table, label) for label in labels], axis=1)


def _column(table: Table, label: str, default: float = 0.0) -> np.ndarray:
    return np.asarray(table.columns.get(label, np.full(table.count, default)), dtype=np.float64)
