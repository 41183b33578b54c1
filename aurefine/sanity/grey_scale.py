"""Is a reference on the images' absolute grey scale? If not, the first iteration compares likelihoods of a model that is far too strong or weak."""

from __future__ import annotations

import numpy as np

from aurefine import ctf, fft, fourier, mask
from aurefine.particles import ParticleSet
from aurefine.threads import threads_in_use

_FAR = 3.0  # times too strong or too weak
_SIGMAS = 3.0
_EDGE = 5  # pixels
_FINEST = 20.0  # Angstrom: beyond it B-factors matter


def check(
    images: np.ndarray, rows: np.ndarray, particles: ParticleSet, volume: np.ndarray, diameter: float, resolution: float, use_ctf: bool, name: str
) -> list[str]:
    """A warning where projections of `volume` are far stronger or weaker than the particles in `images`.

    Args: images float32 [k, box, box] of particles `rows`, all of one optics group; volume [box, box, box] at their pixel size; diameter and
        resolution in Angstrom, the latter that up to which they are compared.
    """
    found, error, expected = signal_power(images, rows, particles, volume, diameter, resolution, use_ctf)
    if expected <= 0:
        return []
    least, most = (found - _SIGMAS * error) / expected, (found + _SIGMAS * error) / expected
    if least <= _FAR**2 and most >= _FAR**-2:
        return []
    ratio = np.sqrt(max(found, error) / expected)
    words = f"{ratio:.3g} times as strong as" if ratio >= 1 else f"{1 / ratio:.3g} times weaker than"
    return [f"{name}: not on the grey scale of the images: particles are {words} its projections. Give --firstiter_cc."]


def signal_power(
    images: np.ndarray, rows: np.ndarray, particles: ParticleSet, volume: np.ndarray, diameter: float, resolution: float, use_ctf: bool
) -> tuple[float, float, float]:
    """Power of the particles in images, its standard error, and that of the map's projections, all up to `resolution` (arguments as in `check`).

    In images it is what the variance inside the particle's circle exceeds that of the background by; of projections it is the map's own
    spectrum times that of the CTF, as a projection is a central section of the map's transform.
    """
    optics = particles.optics[particles.optics_index[rows[0]]]
    box = optics.box
    x, y = np.meshgrid(np.arange(box // 2 + 1), fourier.frequencies(box))
    shell = fourier.round_half_away(np.hypot(x, y))
    last = min(box // 2 - 1, max(2, int(box * optics.pixel_size / max(resolution, _FINEST))))
    band = (shell >= 1) & (shell <= last)
    radius = diameter / 2 / optics.pixel_size
    distance = mask.radius_grid(box, 2)
    inside, outside = distance <= radius, distance > radius + 1
    if outside.mean() < 0.05:
        return 0.0, 0.0, 0.0
    transforms = fft.rfftn(images.astype(np.float32), axes=(1, 2), norm="forward", workers=threads_in_use()) * band
    filtered = fft.irfftn(transforms, (box, box), axes=(1, 2), norm="forward", workers=threads_in_use())
    excess = ((filtered[:, inside] ** 2).mean(axis=1) - (filtered[:, outside] ** 2).mean(axis=1)) * inside.mean()
    masked = volume * mask.soft_edge(box, 3, min(radius, box / 2 - _EDGE), _EDGE)
    spectrum = fourier.power_spectrum(masked) * box**2
    weight = np.where(x[band] > 0, 2.0, 1.0)  # half of the transform stands for all of it
    contrast = np.ones((1, band.sum()))
    if use_ctf and not optics.ctf_corrected:
        width = box * optics.pixel_size
        contrast = ctf.evaluate(particles.defocus, rows, optics, x[band] / width, y[band] / width).astype(np.float64)
        contrast = contrast**2 if optics.premultiplied else contrast
    expected = float((weight * (contrast**2).mean(axis=0) * spectrum[shell[band]]).sum())
    return float(excess.mean()), float(excess.std() / np.sqrt(max(len(images), 1))), expected
