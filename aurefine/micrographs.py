"""Synthetic micrographs of particles with known places and poses, with the files that RELION's CTF estimation and picking leave.

A micrograph is what the detector counts: dark protein on bright ice, every particle blurred by its own defocus as far as the CTF carries it (so
neighbours reach into each other's boxes), ice of uneven thickness, the detector's MTF on the signal and shot noise that it does not touch.
Coordinates are whole pixels and off by the picking error; truth.star has where each particle really is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import fft
from scipy.spatial import cKDTree

from aurefine import ctf, folders, mrc, nufft, star
from aurefine.errors import InputError
from aurefine.imaging import Camera, Imaging, Truth, check, draw_truth
from aurefine.simulate import Source, noise_amplitude, signal_scale, signals, write_maps

BATCH = 8
CARRIED = 0.01  # the CTF spreads a particle; frequencies that the B-factor leaves less than this of are not followed to where they go
TRIES = 400  # places tried for a particle before the micrograph is called full
MTF_STEPS = 101


@dataclass(frozen=True)
class Field:
    """What a micrograph shows."""

    size: tuple[int, int] = (3838, 3710)  # columns, rows
    map_box: int = 0  # box of truth.mrc and reference.mrc, as wide (Angstrom) as the particles' box; 0: the particles' box
    spacing: float = 1.05  # smallest distance of two particles, in particle diameters
    mean: float = 20.0  # counts a pixel
    deviation: float = 4.5  # counts: unit noise
    unevenness: float = 0.05  # of the ice: largest relative difference from the mean


@dataclass(frozen=True)
class SimulatedMicrographs:
    """Paths of the files written."""

    micrographs: Path
    coordinates: Path
    truth: Path
    truth_map: Path
    reference: Path
    mtf: Path
    count: int
    particle_diameter: float


def simulate_micrographs(
    source: Source, folder: str | Path, imaging: Imaging, field: Field = Field(), tell: Callable[[int, int], None] = lambda done, total: None
) -> SimulatedMicrographs:
    """Write Micrographs/*.mrc, micrographs_ctf.star, AutoPick/, autopick.star, mtf.star, truth.star, truth.mrc and reference.mrc.

    Each camera of `imaging` is an optics group: the micrographs' pixel size, and the box that particles are to be extracted in: that much room is
    left at the edges. Outliers of `imaging` are picks without a particle. `tell(done, total)` hears of each micrograph. The same seed gives the
    same files. Raises InputError for impossible settings, such as more particles than fit.
    """
    folder = Path(folder)
    diameter = imaging.particle_diameter or 1.1 * source.diameter
    check(imaging, diameter)
    if imaging.blank or imaging.not_a_number:
        raise InputError("simulate: blank and NaN particles are images of their own and have no place in a micrograph; ask for noise ones only.")
    truth, picked, places = _place(draw_truth(imaging), imaging, field, source.diameter)
    scale = signal_scale(source, imaging, truth, diameter)
    for name in ("Micrographs", "AutoPick/Micrographs"):
        folders.make(folder / name)
    count = int(truth.micrograph[-1]) + 1
    for micrograph in range(count):
        rows = np.flatnonzero(truth.micrograph == micrograph)
        pixel_size = imaging.cameras[truth.camera[rows[0]]].pixel_size
        with fft.set_workers(-1):
            image = _micrograph(source, imaging, field, truth, places, rows, scale)
        mrc.write_stack(folder / _name(micrograph), image[None], pixel_size)
        tell(micrograph + 1, count)
    map_box = field.map_box or imaging.cameras[0].box
    write_maps(source, folder, imaging, scale, Camera(imaging.cameras[0].pixel_size * imaging.cameras[0].box / map_box, map_box))
    _write_tables(folder, imaging, truth, picked)
    return SimulatedMicrographs(
        folder / "micrographs_ctf.star", folder / "autopick.star", folder / "truth.star", folder / "truth.mrc", folder / "reference.mrc",
        folder / "mtf.star", count, diameter,
    )  # fmt: skip


def mtf(frequency: np.ndarray) -> np.ndarray:
    """What a square pixel that counts single electrons leaves of the signal at `frequency` (1/pixel)."""
    return np.sinc(frequency)


def _place(truth: Truth, imaging: Imaging, field: Field, diameter: float) -> tuple[Truth, np.ndarray, np.ndarray]:
    """The truth with origins relative to whole-pixel coordinates, those coordinates [n, 2], and the true places [n, 2], in pixels (x, y)."""
    places = np.empty((len(truth.micrograph), 2))
    for micrograph in range(int(truth.micrograph[-1]) + 1):
        rows = np.flatnonzero(truth.micrograph == micrograph)
        camera = imaging.cameras[truth.camera[rows[0]]]
        rng = np.random.default_rng([imaging.seed, 4, micrograph])
        apart = field.spacing * diameter / camera.pixel_size
        places[rows] = _scatter(rng, len(rows), field.size, camera.box / 2 + 3 * imaging.offset / camera.pixel_size + 1, apart)
    pixel_size = np.array([camera.pixel_size for camera in imaging.cameras])[truth.camera][:, None]
    picked = np.round(places + truth.origins / pixel_size)
    return replace(truth, origins=(picked - places) * pixel_size), picked, places


def _scatter(rng: np.random.Generator, count: int, size: tuple[int, int], margin: float, apart: float) -> np.ndarray:
    """`count` places [n, 2], uniform but `apart` from each other and `margin` from the edges; InputError when they do not fit."""
    if min(size) <= 2 * margin:
        raise InputError(f"simulate: a micrograph of {size[0]} x {size[1]} pixels has no room for a box and the picking error; make it larger "
                         f"than {int(2 * margin) + 1} pixels, or --box smaller.")
    placed = np.empty((0, 2))
    for _ in range(TRIES):
        free = rng.uniform(margin, np.array(size) - margin, (50, 2))
        if len(placed):
            free = free[cKDTree(placed).query(free)[0] >= apart]
        for place in free:
            if not len(placed) or np.linalg.norm(placed - place, axis=1).min() >= apart:
                placed = np.concatenate([placed, place[None]])
            if len(placed) == count:
                return placed
    raise InputError(f"simulate: only {len(placed)} of {count} particles {apart:.0f} pixels apart fit a micrograph of {size[0]} x {size[1]} "
                     "pixels; ask for fewer particles a micrograph, or for larger micrographs.")


def _micrograph(source: Source, imaging: Imaging, field: Field, truth: Truth, places: np.ndarray, rows: np.ndarray, scale: float) -> np.ndarray:
    """Counts float32 [y, x] of one micrograph: noise and ice depend on the seed and the micrograph alone."""
    camera = imaging.cameras[truth.camera[rows[0]]]
    rng = np.random.default_rng([imaging.seed, 5, truth.micrograph[rows[0]]])
    image = _noise(rng, imaging, camera, field.size) - _exit_wave(source, imaging, field, truth, places, rows, scale)
    image *= field.deviation
    x, y = (np.linspace(-1, 1, n, dtype=np.float32) for n in field.size)
    slope = rng.uniform(-1, 1, 3) * field.unevenness / 3
    image += field.mean * (1 + slope[0] * x + slope[1] * y[:, None] + slope[2] * (x**2 - y[:, None] ** 2))
    return image


def _noise(rng: np.random.Generator, imaging: Imaging, camera: Camera, size: tuple[int, int]) -> np.ndarray:
    """Noise float32 [y, x] of the whole micrograph."""
    white = rng.standard_normal((size[1], size[0]), dtype=np.float32)
    x, y = np.fft.rfftfreq(size[0], camera.pixel_size), np.fft.fftfreq(size[1], camera.pixel_size)[:, None]
    amplitude = noise_amplitude(imaging, camera.pixel_size, x * x + y * y).astype(np.float32)
    return fft.irfft2(fft.rfft2(white) * amplitude, s=white.shape)


def _exit_wave(source: Source, imaging: Imaging, field: Field, truth: Truth, places: np.ndarray, rows: np.ndarray, scale: float) -> np.ndarray:
    """The particles' images, protein bright, float32 [y, x]."""
    pixel_size = imaging.cameras[truth.camera[rows[0]]].pixel_size
    patch = Camera(pixel_size, patch_size(imaging, pixel_size, source.diameter, float(truth.defocus[rows, :2].max())))
    nearest = np.floor(places + 0.5).astype(int)
    # Within its patch each particle is off the middle by what its place is off a whole pixel.
    moved = replace(truth, origins=(nearest - places) * pixel_size)
    x, y = nufft.frequency_grid(patch.box, 2)
    detector = mtf(np.hypot(x, y) / patch.box)
    image = np.zeros((field.size[1], field.size[0]), np.float32)
    for batch in (rows[i : i + BATCH] for i in range(0, len(rows), BATCH)):
        strength = scale * truth.grey_scale[batch] * (truth.kind[batch] == "particle")
        waves = nufft.to_image(signals(source, imaging, moved, batch, patch) * detector * strength[:, None, None])
        for wave, middle in zip(waves, nearest[batch]):
            _add(image, wave, middle)
    return image


def patch_size(imaging: Imaging, pixel_size: float, diameter: float, defocus: float) -> int:
    """Pixels that hold a particle and what the CTF carries away from it: wavelength x defocus x frequency to each side."""
    frequency = min(np.sqrt(-4 * np.log(CARRIED) / max(imaging.b_factor, 1e-6)), 1 / (2 * pixel_size))
    reach = ctf.wavelength(imaging.voltage) * defocus * frequency
    return int(fft.next_fast_len(int(np.ceil((diameter + 2 * reach) / pixel_size / 2)), real=True)) * 2


def _add(image: np.ndarray, patch: np.ndarray, middle: np.ndarray) -> None:
    """Add a patch, its pixel n/2 on `middle` (x, y), as far as it lies within the image."""
    first = middle - patch.shape[0] // 2
    low, high = np.maximum(first, 0), np.minimum(first + patch.shape[0], image.shape[::-1])
    (x0, y0), (x1, y1) = low, high
    image[y0:y1, x0:x1] += patch[y0 - first[1] : y1 - first[1], x0 - first[0] : x1 - first[0]]


def _name(micrograph: int) -> str:
    return f"Micrographs/micrograph_{micrograph + 1:04d}.mrc"


def _write_tables(folder: Path, imaging: Imaging, truth: Truth, picked: np.ndarray) -> None:
    """Everything but images and maps."""
    optics = star.Table("optics", _optics_columns(imaging))
    names = np.array([_name(m) for m in range(int(truth.micrograph[-1]) + 1)], object)
    picks = np.array([f"AutoPick/{Path(name).with_suffix('')}_autopick.star" for name in names], object)
    star.write(folder / "micrographs_ctf.star", [optics, star.Table("micrographs", _micrograph_columns(truth, names))], version=30001)
    star.write(folder / "autopick.star", [star.Table("coordinate_files", {"rlnMicrographName": names, "rlnMicrographCoordinates": picks})])
    for micrograph, path in enumerate(picks):
        rows = truth.micrograph == micrograph
        merit = np.where(truth.kind[rows] == "particle", 1.0, 0.1)
        star.write(folder / path, [star.Table("", _places(picked[rows]) | {"rlnAutopickFigureOfMerit": merit})], version=30001)
    star.write(folder / "truth.star", [optics, star.Table("particles", _truth_columns(truth, names, picked))], version=30001)
    steps = np.linspace(0, 0.5, MTF_STEPS)
    star.write(folder / "mtf.star", [star.Table("mtf", {"rlnResolutionInversePixel": steps, "rlnMtfValue": mtf(steps)})])


def _optics_columns(imaging: Imaging) -> dict[str, np.ndarray]:
    groups = len(imaging.cameras)
    pixel_size = np.array([camera.pixel_size for camera in imaging.cameras])
    return {
        "rlnOpticsGroupName": np.array([f"opticsGroup{i + 1}" for i in range(groups)], object),
        "rlnOpticsGroup": np.arange(1, groups + 1),
        "rlnMtfFileName": np.full(groups, "mtf.star", object),
        "rlnMicrographOriginalPixelSize": pixel_size,
        "rlnVoltage": np.full(groups, imaging.voltage),
        "rlnSphericalAberration": np.full(groups, imaging.spherical_aberration),
        "rlnAmplitudeContrast": np.full(groups, imaging.amplitude_contrast),
        "rlnMicrographPixelSize": pixel_size,
    }


def _micrograph_columns(truth: Truth, names: np.ndarray) -> dict[str, np.ndarray]:
    """One row a micrograph: the mean defocus of its particles, as an estimation from the whole micrograph would find it."""
    first = np.searchsorted(truth.micrograph, np.arange(len(names)))
    u, v = (np.bincount(truth.micrograph, truth.defocus[:, i]) / np.bincount(truth.micrograph) for i in (0, 1))
    return {
        "rlnMicrographName": names,
        "rlnOpticsGroup": truth.camera[first] + 1,
        "rlnDefocusU": u,
        "rlnDefocusV": v,
        "rlnCtfAstigmatism": np.abs(u - v),
        "rlnDefocusAngle": truth.defocus[first, 2],
        "rlnCtfFigureOfMerit": np.full(len(names), 0.15),
        "rlnCtfMaxResolution": np.full(len(names), 3.5),
    }


def _places(picked: np.ndarray) -> dict[str, np.ndarray]:
    return {"rlnCoordinateX": picked[:, 0], "rlnCoordinateY": picked[:, 1]}


def _truth_columns(truth: Truth, names: np.ndarray, picked: np.ndarray) -> dict[str, np.ndarray]:
    """One row a pick: true angles, defocus, and the origin that takes the picked place to the true one (true = picked - origin / pixel size)."""
    columns = _places(picked) | {"rlnMicrographName": names[truth.micrograph], "rlnOpticsGroup": truth.camera + 1}
    columns |= dict(zip(("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"), truth.defocus.T))
    columns |= dict(zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), truth.angles.T))
    columns |= dict(zip(("rlnOriginXAngst", "rlnOriginYAngst"), truth.origins.T))
    columns["rlnClassNumber"] = np.where(truth.kind == "particle", 1, 2)
    return columns
