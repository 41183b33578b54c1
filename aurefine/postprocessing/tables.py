"""The tables of a post-processing job: `postprocess.star` and `postprocess_fsc.xml` as RELION lays them out (ALGORITHM.md 9.2)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from aurefine import __version__, star
from aurefine.atomic import atomic_file, write_bytes
from aurefine.postprocessing import curves as curve_room
from aurefine.postprocessing.curves import Curves
from aurefine.postprocessing.inputs import HalfMaps, Mask, fraction_of_weight
from aurefine.postprocessing.options import PostprocessOptions
from aurefine.postprocessing.sharpen import Guinier
from aurefine.star_write import table_text

_FIRST = 999.0  # Angstrom, of shell 0


def resolutions(halves: HalfMaps) -> np.ndarray:
    """Angstrom of each shell 0 .. n/2."""
    shell = np.arange(halves.box // 2 + 1)
    return np.divide(halves.box * halves.pixel_size, shell, out=np.full(len(shell), _FIRST), where=shell > 0)


def general(halves: HalfMaps, mask: Mask | None, curves: Curves, guinier: Guinier, bfactor: float, options: PostprocessOptions) -> star.Table:
    """The list `data_general`."""
    values: dict[str, object] = {
        "rlnFinalResolution": curve_room.resolution_of(curve_room.last_shell(curves.corrected), halves),
        "rlnBfactorUsedForSharpening": bfactor,
        "rlnUnfilteredMapHalf1": halves.names[0],
        "rlnUnfilteredMapHalf2": halves.names[1],
    }
    if options.molecular_weight > 0:
        values["rlnMolecularWeight"] = options.molecular_weight
        values["rlnParticleBoxFractionMolecularWeight"] = fraction_of_weight(halves.box, halves.pixel_size, options.molecular_weight)
    if mask is not None:
        values["rlnParticleBoxFractionSolventMask"] = mask.fraction()
        values["rlnMaskName"] = mask.name
        values["rlnRandomiseFrom"] = curve_room.resolution_of(curves.randomised_from, halves)
    if guinier.fitted:
        values["rlnFittedSlopeGuinierPlot"] = guinier.slope
        values["rlnFittedInterceptGuinierPlot"] = guinier.intercept
        values["rlnCorrelationFitGuinierPlot"] = guinier.correlation
    return star.Table.from_values("general", values)


def spectral_columns(halves: HalfMaps) -> dict[str, np.ndarray]:
    """The first three columns of every FSC table."""
    angstrom = resolutions(halves)
    return {"rlnSpectralIndex": np.arange(len(angstrom)), "rlnResolution": 1 / angstrom, "rlnAngstromResolution": angstrom}


def fsc_table(halves: HalfMaps, mask: Mask | None, curves: Curves, options: PostprocessOptions) -> star.Table:
    """The loop `data_fsc`; only the unmasked curve where there is no mask."""
    columns = spectral_columns(halves)
    if mask is not None:
        columns["rlnFourierShellCorrelationCorrected"] = curves.corrected
        columns["rlnFourierShellCorrelationParticleMaskFraction"] = curve_room.of_particle(curves.unmasked, mask.fraction())
    if options.molecular_weight > 0:
        fraction = fraction_of_weight(halves.box, halves.pixel_size, options.molecular_weight)
        columns["rlnFourierShellCorrelationParticleMolWeight"] = curve_room.of_particle(curves.unmasked, fraction)
    columns["rlnFourierShellCorrelationUnmaskedMaps"] = curves.unmasked
    if curves.masked is not None and curves.randomised is not None:
        columns["rlnFourierShellCorrelationMaskedMaps"] = curves.masked
        columns["rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps"] = curves.randomised
    return star.Table("fsc", columns)


def guinier_table(guinier: Guinier) -> star.Table:
    """The loop `data_guinier`."""
    columns = {"rlnResolutionSquared": guinier.resolution_squared}
    columns |= {f"rlnLogAmplitudes{name}": values for name, values in guinier.steps.items()}
    if guinier.fitted:
        columns["rlnLogAmplitudesIntercept"] = np.full(len(guinier.resolution_squared), guinier.intercept)
    return star.Table("guinier", columns)


def write_star(path: Path, tables: Sequence[star.Table], command_line: str) -> None:
    """Write the tables under two comment lines, as RELION does."""
    star.write(path, list(tables), comments=[f"aurefine postprocess; version {__version__}", f"{command_line} "])


def write_xml(path: Path, resolution: np.ndarray, curve: np.ndarray) -> None:
    """The FSC in the form that the EMDB takes; `resolution` in Angstrom."""
    lines = ['<fsc title="RELION masked-corrected FSC" xaxis="Resolution (A-1)" yaxis="Correlation Coefficient">']
    for x, y in zip(1 / resolution, curve, strict=True):
        lines += ["  <coordinate>", f"    <x>{x:g}</x>", f"    <y>{y:g}</y>", "  </coordinate>"]
    write_bytes(path, ("\n".join([*lines, "</fsc>"]) + "\n").encode("ascii"))


class LocalFscFile:
    """`_locres_fscs.star`, a table a sampling point, written as the points come; whole or absent."""

    def __init__(self, path: Path, halves: HalfMaps, unmasked: np.ndarray) -> None:
        self._path, self._columns, self._unmasked = path, spectral_columns(halves), unmasked
        self._stack = ExitStack()

    def __enter__(self) -> LocalFscFile:
        self._handle = self._stack.enter_context(atomic_file(self._path))
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def add(self, point: tuple[int, int, int], masked: np.ndarray, randomised: np.ndarray, corrected: np.ndarray, resolution: float) -> None:
        """One point (x, y, z): its curves, and its resolution in a comment (RELION's line there is no STAR)."""
        x, y, z = point
        columns = self._columns | {
            "rlnFourierShellCorrelationCorrected": corrected,
            "rlnFourierShellCorrelationUnmaskedMaps": self._unmasked,
            "rlnFourierShellCorrelationMaskedMaps": masked,
            "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps": randomised,
        }
        text = "".join(table_text(f"fsc_{x:05d}_{y:05d}_{z:05d}", columns, is_list=False, version=50001))
        self._handle.write(f"{text}\n# kk= {x} ii= {y} jj= {z} local resolution= {resolution:g}\n".encode("ascii"))
