"""Optics groups: read from RELION 3.1 to 5 tables, or made from the columns of older files (ALGORITHM.md 1.6, 1.7)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from aurefine.errors import InputError
from aurefine.star import Table

_PIXEL_SIZES = ("rlnImagePixelSize", "rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize")
_MICROSCOPE = {"rlnVoltage": "kV", "rlnSphericalAberration": "mm", "rlnAmplitudeContrast": "a fraction such as 0.1"}
_OLD_SCALE = ("rlnMagnification", "rlnDetectorPixelSize")
_OLD_COLUMNS = ("rlnAmplitudeContrast", "rlnSphericalAberration", "rlnVoltage", *_OLD_SCALE, "rlnBeamTiltX", "rlnBeamTiltY")
_OLD_LENGTHS = {  # pixels in files before 3.1, Angstrom since
    "rlnOriginX": "rlnOriginXAngst",
    "rlnOriginY": "rlnOriginYAngst",
    "rlnOriginXPrior": "rlnOriginXPriorAngst",
    "rlnOriginYPrior": "rlnOriginYPriorAngst",
}


@dataclass(frozen=True)
class OpticsGroup:
    """One row of `data_optics`: kV, mm, fraction, Angstrom, pixels, mrad; Zernike coefficients as in ALGORITHM.md 1.7."""

    name: str
    number: int  # as in the file
    voltage: float
    spherical_aberration: float
    amplitude_contrast: float
    pixel_size: float
    box: int
    beam_tilt: tuple[float, float] = (0.0, 0.0)
    even_zernike: tuple[float, ...] = ()
    odd_zernike: tuple[float, ...] = ()
    magnification: np.ndarray = field(default_factory=lambda: np.eye(2))  # [2, 2]
    premultiplied: bool = False  # images were multiplied by their CTF
    ctf_corrected: bool = False  # images need no CTF at all
    mtf_file: str = ""
    original_pixel_size: float = 0.0  # of the micrographs before binning: the scale of the MTF


def read_groups(optics: Table, path: str, need_ctf: bool) -> tuple[OpticsGroup, ...]:
    """The rows of a complete optics table (numbers checked, box sizes filled in); InputError naming the group and the field that is wrong."""
    return tuple(_group(optics, row, path, need_ctf) for row in range(optics.count))


def check_numbers(optics: Table, path: str) -> None:
    """InputError where the groups are not numbered one by one, so that particles cannot name them."""
    if optics.count == 0:
        raise InputError(f"{path}: data_optics has no row; every particle needs the optics group it belongs to")
    if "rlnOpticsGroup" not in optics:
        raise InputError(f"{path}: data_optics lacks rlnOpticsGroup, the number by which particles name their group")
    numbers, counts = np.unique(optics["rlnOpticsGroup"], return_counts=True)
    doubles = numbers[counts > 1]
    if len(doubles):
        raise InputError(f"{path}: data_optics has several rows with rlnOpticsGroup {doubles[0]}; give each its own number")


def pixel_sizes(optics: Table, path: str) -> np.ndarray:
    """Pixel size of each group's images in Angstrom, from the first of the three labels that the table has."""
    label = next((label for label in _PIXEL_SIZES if label in optics), None)
    if label is None:
        raise InputError(f"{path}: data_optics lacks rlnImagePixelSize; add the pixel size of the particle images in Angstrom")
    sizes = optics[label].astype(float)
    for number, size in zip(optics["rlnOpticsGroup"].tolist(), sizes.tolist(), strict=True):
        if not (np.isfinite(size) and size > 0):
            raise InputError(f"{path}: optics group {number}: {label} is {size}; expected a positive number of Angstrom")
    return sizes


def from_old_columns(particles: Table, path: str, image_pixel_size: float | None) -> tuple[Table, Table]:
    """RELION 3.0 and older: one optics group per distinct kV, Cs, Q0, pixel size and beam tilt; origins from pixels to Angstrom.

    `image_pixel_size` (Angstrom, from the image headers if they say) stands in where the file has no magnification and detector
    pixel size; InputError when neither is known. Returns the optics table (without box sizes), and the particles with rlnOpticsGroup
    and without the moved columns.
    """
    if image_pixel_size is None and not all(label in particles for label in _OLD_SCALE):
        raise InputError(f"{path}: no pixel size: neither data_optics, nor {' and '.join(_OLD_SCALE)}, nor the images' headers give one")
    used = [label for label in _OLD_COLUMNS if label in particles]
    keys = np.stack([particles[label].astype(float) for label in used], axis=1) if used else np.zeros((particles.count, 1))
    rows, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)  # groups in order of first appearance
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    group = rank[inverse.reshape(-1)]
    columns = {label: rows[order, index] for index, label in enumerate(used)}
    pixel = _old_pixel_size(columns, len(rows), image_pixel_size or 0.0)
    optics = Table("optics", _old_optics(columns, pixel))
    changed = {"rlnOpticsGroup": group + 1}
    for old, new in _OLD_LENGTHS.items():
        if old in particles and new not in particles:
            changed[new] = particles[old].astype(float) * pixel[group]
    moved = [*_OLD_COLUMNS, *_OLD_LENGTHS]
    return optics, Table("particles", particles.without(moved).with_columns(changed).columns)


def _old_pixel_size(columns: dict[str, np.ndarray], count: int, image_pixel_size: float) -> np.ndarray:
    if all(label in columns for label in _OLD_SCALE):
        with np.errstate(divide="ignore", invalid="ignore"):
            return 10000.0 * columns["rlnDetectorPixelSize"] / columns["rlnMagnification"]  # micrometres to Angstrom
    return np.full(count, image_pixel_size)


def _old_optics(columns: dict[str, np.ndarray], pixel: np.ndarray) -> dict[str, np.ndarray]:
    numbers = np.arange(1, len(pixel) + 1)
    kept = {label: column for label, column in columns.items() if label not in _OLD_SCALE}
    return {
        "rlnOpticsGroup": numbers,
        "rlnOpticsGroupName": np.array([f"opticsGroup{number}" for number in numbers], dtype=object),
        **kept,
        "rlnImagePixelSize": pixel,
    }


def _group(optics: Table, row: int, path: str, need_ctf: bool) -> OpticsGroup:
    number = int(optics["rlnOpticsGroup"][row])

    def entry(label: str, default: float) -> float:
        value = float(optics[label][row]) if label in optics else default
        if not np.isfinite(value):
            raise InputError(f"{path}: optics group {number}: {label} is {value}; expected a number")
        return value

    corrected = bool(entry("rlnCtfDataAreCtfCorrected", 0.0))
    if need_ctf and not corrected:
        _check_microscope(optics, row, path)
    if int(entry("rlnImageDimensionality", 2)) != 2:
        raise InputError(f"{path}: optics group {number}: rlnImageDimensionality is not 2; only 2D particle images can be refined")
    return OpticsGroup(
        name=str(optics["rlnOpticsGroupName"][row]) if "rlnOpticsGroupName" in optics else f"opticsGroup{number}",
        number=number,
        voltage=entry("rlnVoltage", 300.0),
        spherical_aberration=entry("rlnSphericalAberration", 0.0),
        amplitude_contrast=entry("rlnAmplitudeContrast", 0.0),
        pixel_size=float(pixel_sizes(optics, path)[row]),
        box=int(optics["rlnImageSize"][row]),
        beam_tilt=(entry("rlnBeamTiltX", 0.0), entry("rlnBeamTiltY", 0.0)),
        even_zernike=_numbers(optics, "rlnEvenZernike", row, path),
        odd_zernike=_numbers(optics, "rlnOddZernike", row, path),
        magnification=np.array([[entry(f"rlnMagMat{i}{j}", float(i == j)) for j in (0, 1)] for i in (0, 1)]),
        premultiplied=bool(entry("rlnCtfDataAreCtfPremultiplied", 0.0)),
        ctf_corrected=corrected,
        mtf_file=str(optics["rlnMtfFileName"][row]) if "rlnMtfFileName" in optics else "",
        original_pixel_size=entry("rlnMicrographOriginalPixelSize", 0.0),
    )


def _check_microscope(optics: Table, row: int, path: str) -> None:
    number = int(optics["rlnOpticsGroup"][row])
    for label, unit in _MICROSCOPE.items():
        if label not in optics:
            raise InputError(f"{path}: optics group {number}: {label} is missing; CTF correction needs it, in {unit}")
    voltage, contrast = float(optics["rlnVoltage"][row]), float(optics["rlnAmplitudeContrast"][row])
    if not 10 <= voltage <= 3000:
        raise InputError(f"{path}: optics group {number}: rlnVoltage is {voltage}; expected kV, such as 300")
    if not 0 <= contrast < 1:
        raise InputError(f"{path}: optics group {number}: rlnAmplitudeContrast is {contrast}; expected a fraction from 0 to 1, such as 0.1")


def _numbers(optics: Table, label: str, row: int, path: str) -> tuple[float, ...]:
    """A bracketed list such as [0.1,0,2]."""
    if label not in optics:
        return ()
    text = str(optics[label][row]).strip()
    if text in ("", "None"):
        return ()
    try:
        values = tuple(float(word) for word in text.strip("[]").split(",") if word.strip())
    except ValueError:
        values = (np.nan,)
    if not np.isfinite(values).all():
        raise InputError(f"{path}: optics group {int(optics['rlnOpticsGroup'][row])}: {label} is '{text}'; expected numbers such as [0.1,0,2.5]")
    return values
