"""Are the half-sets independent? The same particle in both makes noise agree, and the FSC far too good."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from aurefine.particles import ParticleSet

_NEAR = 0.1  # of the particle diameter: picked twice
_MOST = 2_000_000  # pairs that are looked at: particles whose places are all the same would have billions


def check(particles: ParticleSet, subset: np.ndarray, diameter: float) -> list[str]:
    """Warnings about particles that are in both half-sets: the same image, or nearly the same place on a micrograph.

    `subset` [n] holds 1 or 2 (0 throughout: not drawn yet, nothing is said); `diameter` is the particle's in Angstrom.
    """
    if not subset.any():
        return []
    warnings = []
    source = particles.images
    image = _numbered(source.stack_index, source.image_index)
    images = _across(image, subset)
    if images:
        warnings.append(f"{particles.path}: {images} images are in both half-sets, so that the FSC is far too good. Give all rows of an image the "
                        "same rlnRandomSubset, or remove the copies.")  # fmt: skip
    places = positions(particles)
    if places is not None:
        rows, copies = _distinct(image, subset, places)
        pairs, complete = near_pairs(particles.table["rlnMicrographName"][rows], places[rows], _NEAR * diameter)
        one, two = rows[pairs[:, 0]], rows[pairs[:, 1]]
        across = np.flatnonzero((subset[one] != subset[two]) & (image[one] != image[two]))
        if len(across):
            first, second = np.sort(particles.source_row[[one[across[0]], two[across[0]]]])
            count = int(copies[pairs[across]].prod(axis=1).sum())
            warnings.append(
                f"{particles.path}: {'' if complete else 'at least '}{count} "
                f"pairs of particles lie closer than {_NEAR * diameter:.0f} A on their micrograph, one in each "
                f"half-set (rows {first} and {second}): particles picked twice make the FSC too good. Remove them with aurefine select "
                f"--remove_duplicates {_NEAR * diameter:.0f}."
            )
    return warnings


def positions(particles: ParticleSet) -> np.ndarray | None:
    """Places [n, 2] of the particles on their micrographs in Angstrom, their origins taken off; None where the table does not tell."""
    table, optics = particles.table, particles.optics_table
    if not all(label in table for label in ("rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY")):
        return None
    label = next((each for each in ("rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize") if each in optics), None)
    if label is None:
        return None
    size = optics[label].astype(np.float64)[particles.optics_index]
    coordinates = np.stack([table["rlnCoordinateX"], table["rlnCoordinateY"]], axis=1).astype(np.float64)
    return coordinates * size[:, None] - particles.offsets


def near_pairs(micrograph: np.ndarray, places: np.ndarray, distance: float) -> tuple[np.ndarray, bool]:
    """(pairs int64 [p, 2] of rows within `distance` on one micrograph (names [n]), whether these are all); `places` [n, 2] in the same unit.

    Where there are too many, only those among the first rows are found.
    """
    names = {name: number for number, name in enumerate(dict.fromkeys(micrograph.tolist()))}
    number = np.fromiter(map(names.__getitem__, micrograph.tolist()), np.int64, len(micrograph))
    apart = np.column_stack([places, 4 * (distance + 1) * number])  # a third axis keeps micrographs apart
    finite = np.flatnonzero(np.isfinite(apart).all(axis=1))
    known = len(finite)
    tree = cKDTree(apart[finite])
    while tree.count_neighbors(tree, distance) > 2 * _MOST + len(finite):  # each pair counts twice, and each particle with itself
        finite = finite[: len(finite) // 2]
        tree = cKDTree(apart[finite])
    pairs = tree.query_pairs(distance, output_type="ndarray")
    return np.sort(finite[pairs].reshape(-1, 2), axis=1), len(finite) == known


def _numbered(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return first.astype(np.int64) * (int(second.max(initial=0)) + 1) + second


def _distinct(image: np.ndarray, subset: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows, copies of each) without repetitions of an image at one place in one half-set: k copies (symmetry expansion) have k^2 / 2 pairs."""
    everything = np.arange(len(image)), np.ones(len(image), np.int64)
    if len(np.unique(2 * image + (subset == 2))) == len(image):
        return everything
    columns = np.column_stack([places, subset, image])
    _, rows, copies = np.unique(columns, axis=0, return_index=True, return_counts=True)
    order = np.argsort(rows)
    return rows[order], copies[order]


def _across(key: np.ndarray, subset: np.ndarray) -> int:
    """Number of keys that occur in both half-sets."""
    return len(np.intersect1d(key[subset == 1], key[subset == 2]))
