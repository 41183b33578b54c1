"""Does the FSC behave as that of independent half maps does?"""

from __future__ import annotations

import numpy as np

from aurefine import fsc as fsc_room

_TAIL = 0.15  # share of the shells, those before Nyquist
_HIGH = 0.1  # average FSC there that is no noise
_SIGMAS = 4.0  # or beyond chance, where shells are small
_CLAIMED = 0.143  # the FSC by which resolutions are told
_NYQUIST = 0.95  # resolution of that share of Nyquist: pixels limit it


def check_curve(fsc: np.ndarray, box: int, pixel_size: float) -> list[str]:
    """Warnings about the FSC [n/2+1] of unmasked half maps: it does not fall to zero, or not before Nyquist."""
    resolution = fsc_room.resolution_at(fsc, _CLAIMED, box, pixel_size)
    first = int((1 - _TAIL) * (len(fsc) - 1))
    tail = fsc[first:-1]  # half of the last shell's voxels lie outside the sphere
    high = float(tail.mean())
    if high > _CLAIMED or 2 * pixel_size >= _NYQUIST * resolution:
        return [f"the FSC is still {high:.2f} next to Nyquist ({2 * pixel_size:.2f} A): the pixels limit the resolution. Extract the particles with "
                "smaller ones, unless the half-sets share particles or noise: then it is too good."]  # fmt: skip
    chance = _SIGMAS / np.sqrt(2 * np.pi * np.mean(np.arange(first, len(fsc) - 1) ** 2.0) * len(tail))
    if high > max(_HIGH, chance) and resolution > box * pixel_size / first:
        return [f"the FSC stays at {high:.2f} up to Nyquist, where independent half maps do not agree: the half-sets are not independent, or share "
                "noise (duplicated particles, interpolated or filtered images). The resolution is too good."]  # fmt: skip
    return []


def check_mask(one: np.ndarray, two: np.ndarray, mask: np.ndarray, pixel_size: float, seed: int = 0) -> list[str]:
    """A warning where half maps [n, n, n] agree within the mask because of the mask: also when their phases are random (Chen et al. 2013)."""
    curves = fsc_room.mask_corrected(one, two, mask, seed=seed)
    if curves.randomised_from < 0:
        return []
    box = len(one)
    masked = fsc_room.resolution_at(curves.masked, _CLAIMED, box, pixel_size)
    corrected = fsc_room.resolution_at(curves.corrected, _CLAIMED, box, pixel_size)
    shell = min(int(box * pixel_size / masked), len(curves.randomised) - 1)
    random = float(curves.randomised[max(curves.randomised_from + 2, shell - 2) : shell + 3].mean()) if shell > curves.randomised_from else 0.0
    if random > _CLAIMED:
        return [f"at the masked resolution of {masked:.1f} A half maps with random phases agree, too (FSC {random:.2f}): the mask is too tight or "
                f"too sharp, {corrected:.1f} A is the corrected value."]  # fmt: skip
    return []
