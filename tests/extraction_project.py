"""A small RELION project of simulated micrographs, and picks in them, for the tests of extraction."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aurefine import mrc, star

ROWS, COLUMNS, PIXEL_SIZE = 300, 360, 0.885
PICKS = np.array([[100.7, 110.2], [50.3, 200.9], [200.0, 150.0], [10.0, 290.0], [355.5, 3.2], [280.99, 201.49]])  # the last but two cross edges


def micrograph(seed: int) -> np.ndarray:
    """Noise on a ramp, float32 [rows, columns]."""
    y, x = np.ogrid[:ROWS, :COLUMNS]
    return (np.random.default_rng(seed).normal(10, 2, (ROWS, COLUMNS)) + 0.004 * x + 0.006 * y).astype(np.float32)


def texts(*values: str) -> np.ndarray:
    return np.array(values, dtype=object)


def optics() -> star.Table:
    return star.Table("optics", {
        "rlnOpticsGroupName": texts("og1", "og2"), "rlnOpticsGroup": np.array([1, 2]), "rlnMicrographPixelSize": np.full(2, PIXEL_SIZE),
        "rlnVoltage": np.array([200.0, 300.0]), "rlnSphericalAberration": np.array([1.4, 2.7]), "rlnAmplitudeContrast": np.array([0.1, 0.07]),
        "rlnMicrographOriginalPixelSize": np.full(2, PIXEL_SIZE)})  # fmt: skip


def name(number: int) -> str:
    return f"MotionCorr/job002/Movies/mic{number}.mrc"


def write_picks(path: Path, coordinates: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count = len(coordinates)
    star.write(path, [star.Table("", {
        "rlnCoordinateX": coordinates[:, 0], "rlnCoordinateY": coordinates[:, 1], "rlnAutopickFigureOfMerit": np.linspace(0.1, 0.6, count),
        "rlnClassNumber": np.zeros(count, int), "rlnAnglePsi": np.linspace(0, 50, count)})], version=30001)  # fmt: skip


def make_project(folder: Path) -> None:
    """Three micrographs in two optics groups with CTF and picks, `ctf.star`, `autopick.star`, all relative to `folder`."""
    (folder / "MotionCorr/job002/Movies").mkdir(parents=True)
    for number in range(3):
        mrc.write_stack(folder / name(number), micrograph(number)[None], PIXEL_SIZE)
        write_picks(folder / f"AutoPick/job004/Movies/mic{number}_pick.star", PICKS + number)
    star.write(folder / "ctf.star", [optics(), star.Table("micrographs", {
        "rlnMicrographName": texts(*map(name, range(3))), "rlnOpticsGroup": np.array([1, 2, 1]),
        "rlnDefocusU": np.array([10000.0, 12000.0, 15000.0]), "rlnDefocusV": np.array([9900.0, 11500.0, 14000.0]),
        "rlnDefocusAngle": np.array([10.0, 40.0, -30.0]), "rlnCtfFigureOfMerit": np.array([0.1, 0.2, 0.3]),
        "rlnCtfMaxResolution": np.array([4.0, 5.0, 6.0]), "rlnPhaseShift": np.array([0.0, 20.0, 90.0])})], version=30001)  # fmt: skip
    star.write(folder / "autopick.star", [star.Table("coordinate_files", {
        "rlnMicrographName": texts(*map(name, range(3))),
        "rlnMicrographCoordinates": texts(*(f"AutoPick/job004/Movies/mic{number}_pick.star" for number in range(3)))})])  # fmt: skip


def write_refined(folder: Path, extracted: str, path: str, particle_pixel: float) -> star.Table:
    """Turn an extraction's particles into a refinement's, in another order, with poses and offsets; returns data_particles."""
    tables = star.read(folder / extracted)
    rng = np.random.default_rng(5)
    count = tables["particles"].count
    particles = tables["particles"].with_columns({
        "rlnDefocusU": tables["particles"]["rlnDefocusU"] + rng.normal(0, 100, count), "rlnAngleRot": rng.uniform(-180, 180, count),
        "rlnAngleTilt": rng.uniform(0, 180, count), "rlnAnglePsi": rng.uniform(-180, 180, count), "rlnOriginXAngst": rng.normal(0, 3, count),
        "rlnOriginYAngst": rng.normal(0, 3, count), "rlnRandomSubset": np.arange(count) % 2 + 1}).select(rng.permutation(count))  # fmt: skip
    groups = tables["optics"].with_columns({"rlnImagePixelSize": np.full(2, particle_pixel)})
    star.write(folder / path, [groups.without(["rlnCtfDataAreCtfPremultiplied"]), particles], version=30001)
    return particles
