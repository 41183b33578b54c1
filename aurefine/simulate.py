"""Synthetic particles with known poses, written as a RELION project's files.

The images come from `nufft` (exact sums over atoms or voxels), not from the refinement's projector, and with what real ones have:
CTF with astigmatism, B-factor, displaced ice, coloured noise, defocus and grey scale by micrograph, off-centre and outlying particles.

Noise is a property of the exposure, not of the pixel: the same `snr` at the first optics group's pixel size gives the same noise per
area at any other. The first optics group's particles have unit noise, so the truth map is on RELION's absolute grey scale.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from scipy import fft

from aurefine import ctf, euler, folders, fourier, mask, mrc, nufft, star
from aurefine.imaging import Camera, Imaging, Truth, check, draw_truth
from aurefine.optics import OpticsGroup
from aurefine.particles import CtfTable

BATCH = 64
PARTICLE, OUTLIER = 1, 2  # rlnClassNumber in the truth file


class Source(Protocol):
    """What can be imaged: `Molecule` and `MapSource`."""

    @property
    def diameter(self) -> float:
        """Diameter (Angstrom) of the particle."""

    def transforms(self, rotations: np.ndarray, box: int, pixel_size: float, b_factor: float) -> np.ndarray:
        """Transforms [k, box, box/2 + 1] of the projections."""

    def density(self, box: int, pixel_size: float, b_factor: float) -> np.ndarray:
        """The map [box, box, box] whose projections those are."""


class MapSource:
    """A map to be imaged as it is, at any pixel size."""

    def __init__(self, volume: np.ndarray, pixel_size: float, diameter: float | None = None) -> None:
        """`volume` [n, n, n], n even; `diameter` (Angstrom) of the particle, 80 % of the box unless given."""
        self._sampler = nufft.MapSampler(np.asarray(volume, np.float64))
        self._pixel_size = pixel_size
        self.diameter = diameter or 0.8 * pixel_size * volume.shape[0]

    def _scale(self, box: int, pixel_size: float) -> float:
        return self._sampler.box * self._pixel_size / (box * pixel_size)

    def transforms(self, rotations: np.ndarray, box: int, pixel_size: float, b_factor: float) -> np.ndarray:
        """Transforms [k, box, box/2 + 1] of the projections."""
        x, y = nufft.frequency_grid(box, 2)
        envelope = np.exp(-b_factor / 4 * (x * x + y * y) / (box * pixel_size) ** 2)
        return self._sampler.projections(rotations, box, self._scale(box, pixel_size)) * envelope

    def density(self, box: int, pixel_size: float, b_factor: float) -> np.ndarray:
        """The map [box, box, box] whose projections those are."""
        x, y, z = nufft.frequency_grid(box, 3)
        envelope = np.exp(-b_factor / 4 * (x * x + y * y + z * z) / (box * pixel_size) ** 2)
        transform = self._sampler.resampled(np.eye(3), np.zeros(3), box, self._scale(box, pixel_size))
        return nufft.to_map(transform * envelope).astype(np.float32)


@dataclass(frozen=True)
class SimulatedSet:
    """Paths of the files written."""

    particles: Path
    truth: Path
    truth_map: Path
    reference: Path
    particle_diameter: float


def simulate(source: Source, folder: str | Path, imaging: Imaging) -> SimulatedSet:
    """Image `source` and write particles.star, truth.star, Particles/*.mrcs, truth.mrc and reference.mrc into `folder`.

    Image names in the STAR files are relative to `folder`. The same seed gives the same files. Raises InputError for impossible settings.
    """
    folder = Path(folder)
    diameter = imaging.particle_diameter or 1.1 * source.diameter
    check(imaging, diameter)
    folders.make(folder / "Particles")
    truth = draw_truth(imaging)
    scale = signal_scale(source, imaging, truth, diameter)
    for micrograph, images in _micrographs(source, imaging, truth, scale, diameter):
        rows = np.flatnonzero(truth.micrograph == micrograph)
        pixel_size = imaging.cameras[truth.camera[rows[0]]].pixel_size
        mrc.write_stack(folder / stack_name(micrograph), images, pixel_size, float16=imaging.float16)
    write_maps(source, folder, imaging, scale, imaging.cameras[0])
    write_star(folder / "particles.star", imaging, truth, with_poses=False)
    write_star(folder / "truth.star", imaging, truth, with_poses=True)
    return SimulatedSet(folder / "particles.star", folder / "truth.star", folder / "truth.mrc", folder / "reference.mrc", diameter)


def noise_amplitude(imaging: Imaging, pixel_size: float, frequency2: np.ndarray) -> np.ndarray:
    """Square root of the noise power over that of white unit noise in the first camera, at squared frequencies (1/Angstrom^2)."""
    first = imaging.cameras[0].pixel_size
    power = (1 - imaging.coloured_share) + imaging.coloured_share * imaging.falling(frequency2) / imaging.mean_falling(first)
    return np.sqrt(power) * pixel_size / first


def signals(source: Source, imaging: Imaging, truth: Truth, rows: np.ndarray, camera: Camera) -> np.ndarray:
    """Transforms [k, box, box/2 + 1] of noise-free particles: projected, moved off centre, and imaged by the CTF."""
    box, pixel_size = camera.box, camera.pixel_size
    transforms = source.transforms(euler.to_matrix(truth.angles[rows]), box, pixel_size, imaging.b_factor)
    x, y = nufft.frequency_grid(box, 2)
    moved = -truth.origins[rows] / (box * pixel_size)
    transforms *= np.exp(-2j * np.pi * (x * moved[:, 0, None, None] + y * moved[:, 1, None, None]))
    return transforms * _contrast(imaging, truth, rows, camera)


def _contrast(imaging: Imaging, truth: Truth, rows: np.ndarray, camera: Camera) -> np.ndarray:
    """CTF [k, box, box/2 + 1] of the particles."""
    x, y = np.broadcast_arrays(*nufft.frequency_grid(camera.box, 2))
    width = camera.box * camera.pixel_size
    zero, one = np.zeros(len(rows)), np.ones(len(rows))
    u, v, angle = truth.defocus[rows].T
    table = CtfTable(u, v, angle, zero, one, zero)
    optics = OpticsGroup("", 1, imaging.voltage, imaging.spherical_aberration, imaging.amplitude_contrast, camera.pixel_size, camera.box)
    return ctf.evaluate(table, np.arange(len(rows)), optics, x.ravel() / width, y.ravel() / width).reshape(-1, *x.shape)


def signal_scale(source: Source, imaging: Imaging, truth: Truth, diameter: float) -> float:
    """Factor on the source that gives the asked ratio to unit noise, from up to 100 of the first camera's particles."""
    camera = imaging.cameras[0]
    rows = np.flatnonzero(truth.camera == 0)[:100]
    images = nufft.to_image(signals(source, imaging, truth, rows, camera))
    inside = mask.radius_grid(camera.box, 2) <= diameter / 2 / camera.pixel_size
    return float(np.sqrt(imaging.snr / images[:, inside].var(axis=1).mean()))


def _micrographs(source: Source, imaging: Imaging, truth: Truth, scale: float, diameter: float) -> Iterator[tuple[int, np.ndarray]]:
    """All images, one micrograph after the other: (index, float32 [k, box, box])."""
    for micrograph in range(int(truth.micrograph[-1]) + 1):
        rows = np.flatnonzero(truth.micrograph == micrograph)
        camera = imaging.cameras[truth.camera[rows[0]]]
        batches = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
        images = np.concatenate([_images(source, imaging, truth, batch, camera, scale) for batch in batches])
        yield micrograph, _with_outliers(_normalise(images, diameter / 2 / camera.pixel_size), truth.kind[rows])


def _images(source: Source, imaging: Imaging, truth: Truth, rows: np.ndarray, camera: Camera, scale: float) -> np.ndarray:
    """Noisy images [k, box, box] before normalisation; noise depends on the seed and the row alone."""
    strength = scale * truth.grey_scale[rows] * (truth.kind[rows] == "particle")
    signal = signals(source, imaging, truth, rows, camera) * strength[:, None, None]
    white = np.stack([np.random.default_rng([imaging.seed, 2, row]).normal(size=(camera.box,) * 2) for row in rows])
    x, y = nufft.frequency_grid(camera.box, 2)
    amplitude = noise_amplitude(imaging, camera.pixel_size, (x * x + y * y) / (camera.box * camera.pixel_size) ** 2)
    noise = fft.irfft2(fft.rfft2(white) * amplitude, s=white.shape[1:])
    return nufft.to_image(signal) + noise


def _normalise(images: np.ndarray, radius: float) -> np.ndarray:
    """Subtract the mean and divide by the standard deviation of the background outside `radius` pixels, as extraction does."""
    outside = mask.radius_grid(images.shape[1], 2) > radius
    background = images[:, outside]
    centred = images - background.mean(axis=1)[:, None, None]
    return (centred / background.std(axis=1)[:, None, None]).astype(np.float32)


def _with_outliers(images: np.ndarray, kind: np.ndarray) -> np.ndarray:
    images[kind == "blank"] = 0
    images[kind == "nan", images.shape[1] // 2, :] = np.nan
    return images


def write_maps(source: Source, folder: Path, imaging: Imaging, scale: float, camera: Camera) -> None:
    """truth.mrc in the camera's box, at its pixel size and full bandwidth; reference.mrc low-passed."""
    truth_map = (scale * source.density(camera.box, camera.pixel_size, imaging.b_factor)).astype(np.float32)
    mrc.write_map(folder / "truth.mrc", truth_map, camera.pixel_size)
    mrc.write_map(folder / "reference.mrc", fourier.low_pass(truth_map, camera.pixel_size, imaging.reference_resolution), camera.pixel_size)


def stack_name(micrograph: int) -> str:
    """Name of a micrograph's stack, relative to the set's folder."""
    return f"Particles/micrograph_{micrograph + 1:04d}.mrcs"


def write_star(path: Path, imaging: Imaging, truth: Truth, with_poses: bool) -> None:
    """The particles' STAR file, or with their poses the truth's."""
    columns = _image_columns(imaging, truth)
    if with_poses:
        columns |= dict(zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), truth.angles.T))
        columns |= dict(zip(("rlnOriginXAngst", "rlnOriginYAngst"), truth.origins.T))
        columns["rlnClassNumber"] = np.where(truth.kind == "particle", PARTICLE, OUTLIER)
    star.write(path, [star.Table("optics", _optics_columns(imaging)), star.Table("particles", columns)], version=30001)


def _optics_columns(imaging: Imaging) -> dict[str, np.ndarray]:
    groups = len(imaging.cameras)
    return {
        "rlnOpticsGroupName": np.array([f"opticsGroup{i + 1}" for i in range(groups)], object),
        "rlnOpticsGroup": np.arange(1, groups + 1),
        "rlnMicrographOriginalPixelSize": np.array([c.pixel_size for c in imaging.cameras]),
        "rlnVoltage": np.full(groups, imaging.voltage),
        "rlnSphericalAberration": np.full(groups, imaging.spherical_aberration),
        "rlnAmplitudeContrast": np.full(groups, imaging.amplitude_contrast),
        "rlnImagePixelSize": np.array([c.pixel_size for c in imaging.cameras]),
        "rlnImageSize": np.array([c.box for c in imaging.cameras]),
        "rlnImageDimensionality": np.full(groups, 2),
    }


def _image_columns(imaging: Imaging, truth: Truth) -> dict[str, np.ndarray]:
    n = imaging.particles
    position = np.random.default_rng([imaging.seed, 3]).uniform(100, 3900, (2, n)).round()
    number = np.arange(n) - np.searchsorted(truth.micrograph, truth.micrograph) + 1
    names = [f"{k:06d}@{stack_name(m)}" for k, m in zip(number, truth.micrograph)]
    return {
        "rlnCoordinateX": position[0],
        "rlnCoordinateY": position[1],
        "rlnImageName": np.array(names, object),
        "rlnMicrographName": np.array([f"Micrographs/micrograph_{m + 1:04d}.mrc" for m in truth.micrograph], object),
        "rlnOpticsGroup": truth.camera + 1,
        "rlnDefocusU": truth.defocus[:, 0],
        "rlnDefocusV": truth.defocus[:, 1],
        "rlnDefocusAngle": truth.defocus[:, 2],
        "rlnCtfBfactor": np.zeros(n),
        "rlnCtfScalefactor": np.ones(n),
        "rlnPhaseShift": np.zeros(n),
    }
