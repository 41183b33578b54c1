"""What simulated particles are imaged with, and the poses and defoci drawn for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from aurefine import euler
from aurefine.errors import InputError


@dataclass(frozen=True)
class Camera:
    """One optics group: pixel size (Angstrom) and box (pixels)."""

    pixel_size: float = 3.54
    box: int = 64


@dataclass(frozen=True)
class Imaging:
    """How particles are imaged; lengths in Angstrom, angles in degrees."""

    particles: int = 1000
    cameras: tuple[Camera, ...] = (Camera(),)
    snr: float = 0.08  # signal variance within the particle's circle over noise variance, per pixel of the first camera
    b_factor: float = 80.0
    coloured_share: float = 0.4  # share of the noise variance that falls with frequency (ice, carbon); the rest is white (shot noise)
    noise_length: float = 30.0  # where the coloured noise begins to fall
    voltage: float = 200.0
    spherical_aberration: float = 1.4
    amplitude_contrast: float = 0.1
    defocus: tuple[float, float] = (8000.0, 20000.0)  # range over micrographs
    defocus_spread: float = 150.0  # of particles within a micrograph
    astigmatism: float = 300.0  # largest difference of the two defoci
    particles_per_micrograph: int = 50
    grey_scale_spread: float = 0.1  # of micrographs, relative
    offset: float = 4.0  # standard deviation of the centring error, per axis
    preferred: float = 0.0  # share of particles that view along `preferred_view`, spread by 15 degrees
    preferred_view: tuple[float, float] = (0.0, 0.0)  # rot, tilt
    particle_diameter: float | None = None  # of the background circle; 1.1 times the particle's unless given
    pure_noise: int = 0  # number of outliers of each kind
    blank: int = 0
    not_a_number: int = 0
    float16: bool = False
    reference_resolution: float = 30.0
    seed: int = 0

    def falling(self, frequency2: np.ndarray) -> np.ndarray:
        """Shape of the coloured noise's power at squared frequencies (1/Angstrom^2)."""
        return 1 / (1 + frequency2 * self.noise_length**2)

    def mean_falling(self, pixel_size: float) -> float:
        """Its mean over the square of frequencies that pixels of `pixel_size` hold: dividing by it gives unit variance there."""
        axis = np.linspace(-1, 1, 201) / (2 * pixel_size)
        return float(self.falling(axis[:, None] ** 2 + axis**2).mean())

    def recorded_with(self, camera: Camera) -> Imaging:
        """The same exposure with another first camera: noise per area and its colour stay, so shares per pixel change."""
        old, new = self.cameras[0].pixel_size, camera.pixel_size
        ratio = self.coloured_share / (1 - self.coloured_share) * self.mean_falling(new) / self.mean_falling(old)
        white = 1 / (1 + ratio)
        snr = self.snr * (new / old) ** 2 * white / (1 - self.coloured_share)
        return replace(self, cameras=(camera, *self.cameras[1:]), snr=snr, coloured_share=1 - white)


@dataclass(frozen=True)
class Truth:
    """What the particles were made with; arrays over particles."""

    camera: np.ndarray  # [n] index of the optics group
    micrograph: np.ndarray  # [n] 0-based
    angles: np.ndarray  # [n, 3] rot, tilt, psi
    origins: np.ndarray  # [n, 2] as rlnOriginX/YAngst: what must be applied to the image to centre the particle
    defocus: np.ndarray  # [n, 3] defocus U, V, angle
    grey_scale: np.ndarray  # [n]
    kind: np.ndarray = field(repr=False)  # [n] "particle", "noise", "blank" or "nan"


def check(imaging: Imaging, diameter: float) -> None:
    """Raise InputError for settings that cannot be: the particle (`diameter` Angstrom) must fit every box."""
    _check_numbers(imaging)
    check_cameras(imaging.cameras)
    for camera in imaging.cameras:
        if camera.box % 2 or camera.box < 16:
            raise InputError(f"simulate: the box is {camera.box} pixels; an even number of at least 16 was expected.")
        if diameter > camera.box * camera.pixel_size:
            raise InputError(f"simulate: a particle of {diameter:.0f} Angstrom does not fit a box of {camera.box} pixels of "
                             f"{camera.pixel_size:g} Angstrom; make the box larger than {int(diameter / camera.pixel_size) + 1} pixels.")
    if imaging.particles < 1 or imaging.particles_per_micrograph < 1:
        raise InputError("simulate: at least one particle, and at least one a micrograph, are needed.")
    if imaging.snr <= 0:
        raise InputError(f"simulate: the signal-to-noise ratio is {imaging.snr:g}; a positive number was expected.")
    if imaging.pure_noise + imaging.blank + imaging.not_a_number > imaging.particles:
        raise InputError("simulate: more outliers than particles; ask for fewer outliers.")


def check_cameras(cameras: Sequence[Camera]) -> None:
    """Raise InputError for a pixel size that is none."""
    for camera in cameras:
        if not 0 < camera.pixel_size < math.inf:
            raise InputError(f"simulate: the pixel size is {camera.pixel_size:g}; a positive number of Angstrom was expected.")


_LIMITS = (  # field, what it is, smallest, largest
    ("voltage", "the acceleration voltage (kV)", 1.0, math.inf),
    ("amplitude_contrast", "the amplitude contrast", 0.0, 1.0),
    ("astigmatism", "the largest astigmatism (Angstrom)", 0.0, math.inf),
    ("grey_scale_spread", "the spread of the grey scale", 0.0, math.inf),
    ("offset", "the centring error (Angstrom)", 0.0, math.inf),
    ("preferred", "the share of particles that view along one direction", 0.0, 1.0),
    ("reference_resolution", "the reference's resolution (Angstrom)", 1e-3, math.inf),
    ("seed", "the random seed", 0, math.inf),
    ("pure_noise", "the number of noise particles", 0, math.inf),
    ("blank", "the number of blank particles", 0, math.inf),
    ("not_a_number", "the number of NaN particles", 0, math.inf),
)


def _check_numbers(imaging: Imaging) -> None:
    for name, what, smallest, largest in _LIMITS:
        value = getattr(imaging, name)
        if not (smallest <= value <= largest and math.isfinite(value)):
            wanted = f"of at least {smallest:g}" if largest == math.inf else f"from {smallest:g} to {largest:g}"
            raise InputError(f"simulate: {what} is {value:g}; a number {wanted} was expected.")
    if imaging.particle_diameter is not None and not imaging.particle_diameter > 0:
        raise InputError(f"simulate: the particle's diameter is {imaging.particle_diameter:g}; a positive number of Angstrom was expected.")
    low, high = imaging.defocus
    if not low <= high:
        raise InputError(f"simulate: the smallest defocus, {low:g} Angstrom, is above the largest, {high:g}; give --defocus_min and --defocus_max.")


def draw_truth(imaging: Imaging) -> Truth:
    """Draw poses, micrographs, defoci and outliers."""
    rng = np.random.default_rng([imaging.seed, 1])
    n, per = imaging.particles, imaging.particles_per_micrograph
    micrograph = np.arange(n) // per
    count = int(micrograph[-1]) + 1
    defocus = rng.uniform(*imaging.defocus, count)[micrograph] + rng.normal(0, imaging.defocus_spread, n)
    difference = rng.uniform(0, imaging.astigmatism, count)[micrograph]
    astigmatism_angle = rng.uniform(0, 180, count)[micrograph]
    kind = np.full(n, "particle", object)
    outliers = ["noise"] * imaging.pure_noise + ["blank"] * imaging.blank + ["nan"] * imaging.not_a_number
    kind[rng.permutation(n)[: len(outliers)]] = outliers
    return Truth(
        camera=np.arange(count)[micrograph] % len(imaging.cameras),
        micrograph=micrograph,
        angles=_draw_angles(rng, imaging),
        origins=rng.normal(0, imaging.offset, (n, 2)),
        defocus=np.stack([defocus + difference / 2, defocus - difference / 2, astigmatism_angle], axis=1),
        grey_scale=np.clip(rng.normal(1, imaging.grey_scale_spread, count), 0.5, 1.5)[micrograph],
        kind=kind,
    )


def _draw_angles(rng: np.random.Generator, imaging: Imaging) -> np.ndarray:
    """Uniform orientations [n, 3], a share of them near the preferred view."""
    n = imaging.particles
    angles = np.stack([rng.uniform(-180, 180, n), np.degrees(np.arccos(rng.uniform(-1, 1, n))), rng.uniform(-180, 180, n)], axis=1)
    near = rng.uniform(size=n) < imaging.preferred
    view = euler.view_direction(*imaging.preferred_view) + rng.normal(0, np.radians(15), (n, 3))
    view /= np.linalg.norm(view, axis=1, keepdims=True)
    angles[near, 0] = np.degrees(np.arctan2(view[near, 1], view[near, 0]))
    angles[near, 1] = np.degrees(np.arccos(view[near, 2]))
    return angles
