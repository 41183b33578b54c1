"""Does a map have the symmetry that is asked for, about the axes that RELION takes?"""

from __future__ import annotations

import numpy as np

from aurefine import fourier, maps, mask
from aurefine.image_operations.geometry import symmetrise
from aurefine.symmetry import point_group

_RESOLUTION = 20.0  # Angstrom: coarse enough that noise does not matter
_PIXELS = 3.5  # or as many pixels, where that is coarser
_LARGEST = 96  # pixels: what is looked at needs no more
_POOR = 0.6  # correlation of a map with its symmetry mates
_BETTER = 0.7  # another setting is worth a word
_FEATURELESS = 0.01  # share of the variance that is not radial: a ball has every symmetry


def check(volume: np.ndarray, pixel_size: float, symmetry: str, name: str, diameter: float = 0.0) -> list[str]:
    """A warning where the map [n, n, n] called `name` lacks the point group, with the setting or axis that it has instead, if one is found."""
    group = point_group(symmetry)
    if len(group.operators) == 1:
        return []
    small = _prepared(volume, pixel_size, diameter)
    found = mate_correlation(small, group.name)
    if found >= _POOR:
        return []
    said = f"{name}: {group.name} symmetry was asked for, but the map and its symmetry mates correlate by {found:.2f} only"
    other = _other_setting(small, group.name)
    if other:
        return [f"{said}; {other}"]
    return [f"{said}. Align its axes with RELION's (relion_align_symmetry), or use a lower symmetry."]


def mate_correlation(volume: np.ndarray, symmetry: str) -> float:
    """Mean correlation of a map [n, n, n] with itself turned by each operator of the point group but the identity: 1 where it has it, about 0 else.

    Within the largest sphere and without the radial average, which every turn keeps; 1 for a map that is little else.
    """
    box, operators = len(volume), len(point_group(symmetry).operators)
    radius = mask.radius_grid(box, 3)
    inside = radius < box // 2 - 1
    shell = fourier.round_half_away(radius[inside])
    values = volume[inside] - volume[inside].mean()
    features = np.zeros_like(volume)
    features[inside] = values - (np.bincount(shell, values) / np.maximum(np.bincount(shell), 1))[shell]
    power = float((features**2).sum())
    if power <= _FEATURELESS * float((values**2).sum()):
        return 1.0
    together = float((features * symmetrise(features, symmetry)).sum()) / power  # (1 + (k - 1) r) / k
    return (operators * together - 1) / (operators - 1)


def _prepared(volume: np.ndarray, pixel_size: float, diameter: float) -> np.ndarray:
    """Low-passed, in a small box, within the particle's sphere."""
    box = len(volume)
    resolution = max(_RESOLUTION, _PIXELS * pixel_size)
    small = fourier.low_pass(volume, pixel_size, resolution) if box > resolution / pixel_size else volume
    new = min(box, max(16, maps.even_box(min(_LARGEST, 4 * box * pixel_size / resolution), round_up=True)))
    small = maps.fourier_rescale(small, new) if new < box and box % 2 == 0 else small
    radius = diameter / 2 / (pixel_size * box / len(small)) if diameter > 0 else len(small) / 2 - 3
    weight = mask.soft_edge(len(small), 3, min(radius, len(small) / 2 - 3), 2.0)
    return mask.fill_outside(small, weight)


def _other_setting(volume: np.ndarray, name: str) -> str:
    """How the map has that symmetry otherwise, in words that end a sentence; "" where it has not."""
    if name.startswith("I"):
        settings = [f"I{number}" for number in range(1, 5) if f"I{number}" != name]
        best = max(settings, key=lambda setting: mate_correlation(volume, setting))
        return f"it has {best}: give --sym {best}." if mate_correlation(volume, best) > _BETTER else ""
    turned = {  # the map with its x or y axis put along z
        "x": np.ascontiguousarray(np.transpose(volume, (2, 0, 1))),  # z', y', x' = x, z, y: a cyclic exchange keeps the hand
        "y": np.ascontiguousarray(np.transpose(volume, (1, 2, 0))),
    }
    best = max(turned, key=lambda axis: mate_correlation(turned[axis], name))
    if mate_correlation(turned[best], name) > _BETTER:
        return f"it has it with the main axis along {best}, where RELION expects z: turn it first (relion_align_symmetry)."
    return ""

