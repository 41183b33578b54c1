"""The curves of a post-processing job, RELION's or ours, from its `postprocess.star`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aurefine import star
from aurefine.colours import BLUE, GREEN, GREY, ORANGE, PINK
from aurefine.errors import InputError
from aurefine.reporting.history import Number
from aurefine.reporting.plots import Plot, Series
from aurefine.star import Table

FILE = "postprocess.star"
CORRECTED = "rlnFourierShellCorrelationCorrected"
_FSC = (
    (CORRECTED, "corrected", BLUE, 2.4, False),
    ("rlnFourierShellCorrelationMaskedMaps", "masked", ORANGE, 1.4, True),
    ("rlnFourierShellCorrelationUnmaskedMaps", "unmasked", GREEN, 1.4, True),
    ("rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps", "masked, phases randomised", PINK, 1.4, True),
)
_GUINIER = (("Original", "original", GREY), ("MTFCorrected", "MTF-corrected", PINK), ("Weighted", "FSC-weighted", ORANGE),
            ("Sharpened", "sharpened", BLUE))  # fmt: skip
_NO_AMPLITUDE = -90  # RELION writes -99 where there is nothing


@dataclass(frozen=True)
class PostprocessCurves:
    """Facts (name, text) and plots of one job."""

    facts: list[tuple[str, str]]
    plots: list[Plot]
    frequency: np.ndarray  # [shells] 1/Angstrom
    corrected: np.ndarray  # [shells] FSC of the masked half maps, corrected for the mask; empty where the file has none


def read_curves(path: Path) -> PostprocessCurves:
    """What a `postprocess.star` holds; InputError where it is none."""
    tables = star.read(path)
    fsc, general = tables.get("fsc"), tables.get("general")
    if fsc is None or general is None or "rlnResolution" not in fsc:
        raise InputError(f"{path}: data_general or data_fsc is missing; expected the postprocess.star of a post-processing job")
    frequency = np.asarray(fsc["rlnResolution"], dtype=float)
    frequency = np.where(np.arange(len(frequency)) == 0, 0.0, frequency)  # RELION writes 999 Angstrom for the first shell
    resolution = general.value("rlnFinalResolution")
    title = f"FSC of the half maps, {resolution:.2f} Å" if isinstance(resolution, int | float) else "FSC of the half maps"
    series = [Series(label, frequency.tolist(), _numbers(fsc, column), colour, width, dashed)
              for column, label, colour, width, dashed in _FSC if column in fsc]  # fmt: skip
    plots = [Plot("fsc", title, "resolution (Å)", "FSC", "frequency", "linear", series, [(0.143, "0.143"), (0.5, "0.5")], (-0.1, 1.04))]
    guinier = tables.get("guinier")
    if guinier is not None and "rlnResolutionSquared" in guinier:
        plots.append(_guinier(guinier, general))
    corrected = np.asarray(fsc[CORRECTED], dtype=float) if CORRECTED in fsc else np.zeros(0)
    return PostprocessCurves(_facts(general), plots, frequency, corrected)


def _guinier(table: Table, general: Table) -> Plot:
    x = np.asarray(table["rlnResolutionSquared"], dtype=float)
    series = []
    for name, label, colour in _GUINIER:
        if f"rlnLogAmplitudes{name}" in table:
            values = [value if value is not None and value > _NO_AMPLITUDE else None for value in _numbers(table, f"rlnLogAmplitudes{name}")]
            series.append(Series(label, x.tolist(), values, colour))
    slope, intercept = general.value("rlnFittedSlopeGuinierPlot"), general.value("rlnFittedInterceptGuinierPlot")
    if isinstance(slope, float) and isinstance(intercept, float) and slope:
        fitted = x >= 0.01 if (x >= 0.01).any() else x >= 0  # from 10 A, where a fit begins unless another limit was asked for
        series.append(Series("fit", x[fitted].tolist(), (intercept + slope * x[fitted]).tolist(), "#000000", 1.0, True))
    return Plot("guinier", "Guinier plot", "1 / resolution² (1/Å²)", "ln(amplitude)", "linear", "linear", series)


def _facts(general: Table) -> list[tuple[str, str]]:
    rows = (("Resolution", "rlnFinalResolution", "{:.2f} Å"), ("B-factor", "rlnBfactorUsedForSharpening", "{:.1f} Å²"),
            ("Mask", "rlnMaskName", "{}"), ("Phases randomised from", "rlnRandomiseFrom", "{:.1f} Å"))  # fmt: skip
    found = [(name, general.value(label), text) for name, label, text in rows]
    return [(name, text.format(value)) for name, value, text in found if isinstance(value, int | float if ":" in text else str)]


def _numbers(table: Table, column: str) -> list[Number]:
    return [float(value) if np.isfinite(value) else None for value in np.asarray(table[column], dtype=float)]
