"""Does a solvent mask hold the particle, with room around it and a soft edge?"""

from __future__ import annotations

import numpy as np

from aurefine import fourier
from aurefine.mask_threshold import find_threshold

_RESOLUTION = 15.0  # Angstrom, at which the particle's outline is taken
_PIXELS = 4.0
_HELD = 0.9  # share of the density that a mask should hold
_FULL = 0.9  # share of the sphere in the box
_SOFT = 3.0  # pixels of edge that are the least


def check(mask: np.ndarray, volume: np.ndarray, pixel_size: float, name: str) -> list[str]:
    """Warnings about a mask [n, n, n] (values 0 to 1) for a map on the same grid: density left out, hard edge, next to nothing masked."""
    warnings = []
    box = len(mask)
    filled = mask.sum() / (np.pi / 6 * box**3)
    if filled > _FULL:
        warnings.append(f"{name}: the mask leaves {max(0, 100 * (1 - filled)):.0f} % of the box's sphere outside: it masks next to nothing.")
    if (width := edge_width(mask)) < _SOFT:
        warnings.append(f"{name}: the mask's edge is {width:.1f} pixels wide; a soft edge of at least {_SOFT:.0f}, better 6, was expected: a sharp "
                        "edge makes half maps agree by itself. Make it with aurefine mask_create --width_soft_edge 6.")  # fmt: skip
    held = density_inside(mask, volume, pixel_size)
    if held < _HELD:
        warnings.append(f"{name}: only {100 * held:.0f} % of the map's density lies inside the mask: it is too tight, or not of this map "
                        "(another centre, pixel size or hand).")  # fmt: skip
    return warnings


def edge_width(mask: np.ndarray) -> float:
    """Width of the soft edge in pixels: the volume of the values between over the surface of the half-way contour."""
    from scipy import ndimage  # slow to load, and most runs have no mask

    inside = mask > 0.5
    surface = inside & ~ndimage.binary_erosion(inside)
    edge = (mask > 0.01) & (mask < 0.99)
    return float(edge.sum() / max(surface.sum(), 1))


def density_inside(mask: np.ndarray, volume: np.ndarray, pixel_size: float) -> float:
    """Share of the particle's density, what stands above a threshold between solvent and particle, that lies where the mask is above 0.5."""
    smooth = fourier.low_pass(volume, pixel_size, max(_RESOLUTION, _PIXELS * pixel_size))
    if np.ptp(smooth) == 0:
        return 1.0
    found = find_threshold(smooth)
    density = np.where(smooth > found.value, smooth - found.solvent, 0)
    return float(density[mask > 0.5].sum() / max(density.sum(), 1e-30))
