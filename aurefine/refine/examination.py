"""Every image is looked at while it is read: which cannot be used, which were scaled unlike the others, which are there twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
from numba import njit, prange

from aurefine.particles import ParticleSet

NOT_FINITE, CONSTANT, SCALE, DUPLICATE = "not_finite", "constant", "background", "duplicate"
KINDS = {  # how the reasons of a kind begin, and what a user is told of them
    NOT_FINITE: "pixels that are not finite (NaN or infinite)",
    CONSTANT: "constant image",
    SCALE: "background scaled unlike that of the other images",
    DUPLICATE: "there already, in an earlier row",
}
MOST_DUPLICATES = 0.10  # share of the particles; more were meant to be there, such as symmetry-expanded ones
_ROBUST_SIGMAS = 10.0
_LEAST_RATIO = 4.0  # of background standard deviations that is far off, however alike all others are
_LEAST_MEAN = 2.0  # background mean that is far off, in standard deviations
_READ_TOGETHER = 256
_FEWEST = 8  # images of an optics group that can be compared with each other
_HASHED_PIXELS = 4096  # of the image's middle: noise never repeats itself over so many
_CANNOT_BE_STORED = 1e4  # times the typical background: in 16-bit floats such an image would be infinite


class Examination:
    """What was seen of every image of a particle set: `look` at each once, in any order, then `reasons`."""

    def __init__(self, particles: ParticleSet, diameter: float) -> None:
        """`diameter` (Angstrom) is that of the particle: what lies outside is background."""
        self.particles = particles
        self._diameter = diameter
        self._outside: dict[int, np.ndarray] = {}
        self._finite = np.ones(particles.count, bool)
        self._constant = np.zeros(particles.count, bool)
        self._mean, self._spread = np.zeros(particles.count), np.zeros(particles.count)
        self._digest = np.zeros(particles.count, "S8")
        self._seen = np.zeros(particles.count, bool)

    def look(self, rows: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Look at float32 images [k, y, x] of particles `rows`, all of one optics group; mask [k] of those that are not to be stored."""
        found = np.empty((len(rows), 5))
        _survey(images, self._background(rows[0], images.shape[1]), found)
        self._finite[rows] = found[:, 0] > 0
        self._constant[rows] = found[:, 1] == found[:, 2]
        self._mean[rows], self._spread[rows] = found[:, 3], found[:, 4]
        lines = max(1, _HASHED_PIXELS // images.shape[2])
        first, box = max(0, (images.shape[1] - lines) // 2), str(images.shape[1:]).encode()  # images of different boxes are never the same
        for row, middle in zip(rows, np.ascontiguousarray(images[:, first : first + lines]), strict=True):
            self._digest[row] = hashlib.blake2b(middle, digest_size=8, key=box).digest()
        self._seen[rows] = True
        unusable = ~self._finite[rows] | self._constant[rows]
        typical = np.median(self._spread[rows][~unusable]) if not unusable.all() else 1.0
        return unusable | (self._spread[rows] > _CANNOT_BE_STORED * typical)

    def found(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """(rows, what was seen of them): for the `add` of another examination of the same particles."""
        rows = np.flatnonzero(self._seen)
        return rows, [values[rows] for values in self._values()]

    def add(self, found: tuple[np.ndarray, list[np.ndarray]]) -> None:
        """Take over what another examination has found."""
        rows, theirs = found
        for values, seen in zip(self._values(), theirs, strict=True):
            values[rows] = seen

    def _values(self) -> tuple[np.ndarray, ...]:
        return self._finite, self._constant, self._mean, self._spread, self._digest

    def reasons(self, compare: bool = True) -> np.ndarray:
        """Why each particle cannot be used: texts [n] without blanks that begin with one of KINDS, "" for good ones.

        `compare=False` leaves out what comparing images with each other tells (scale, duplicates).
        """
        out = np.full(self.particles.count, "", object)
        out[self._constant] = CONSTANT
        out[~self._finite] = NOT_FINITE
        if compare:
            for group in range(len(self.particles.optics)):
                self._compare_backgrounds(np.flatnonzero((out == "") & (self.particles.optics_index == group)), out)
            self._compare_pixels(out)
        return out

    def duplicates(self) -> int:
        """Number of particles whose image is that of an earlier one, also where they are too many to be a mistake."""
        return int((self._originals(np.flatnonzero(self._finite & ~self._constant)) >= 0).sum())

    def _background(self, row: int, box: int) -> np.ndarray:
        """bool [y, x]: outside the particle; the whole image where nothing is."""
        group = int(self.particles.optics_index[row])
        if group not in self._outside:
            y, x = np.ogrid[:box, :box]
            radius = self._diameter / 2 / self.particles.optics[group].pixel_size
            outside = (x - box // 2) ** 2 + (y - box // 2) ** 2 > radius**2
            self._outside[group] = outside if outside.mean() > 0.01 else np.ones_like(outside)
        return self._outside[group]

    def _compare_backgrounds(self, rows: np.ndarray, out: np.ndarray) -> None:
        if len(rows) < _FEWEST:
            return
        spread = np.maximum(self._spread[rows], 1e-30)
        logarithm = np.log(spread / np.median(spread))
        mean = (self._mean[rows] - np.median(self._mean[rows])) / np.median(spread)
        for place in np.flatnonzero(_far(logarithm, np.log(_LEAST_RATIO))):
            out[rows[place]] = f"{SCALE}_sd_{np.exp(logarithm[place]):.3g}_times_the_median"
        for place in np.flatnonzero(_far(mean, _LEAST_MEAN) & (out[rows] == "")):
            out[rows[place]] = f"{SCALE}_mean_{mean[place]:.3g}_sd_from_the_median"

    def _compare_pixels(self, out: np.ndarray) -> None:
        rows = np.flatnonzero(out == "")
        original = self._originals(rows)
        again = np.flatnonzero(original >= 0)
        if len(again) > MOST_DUPLICATES * len(out):
            return
        images = self.particles.images
        for place in again:
            pair = rows[[place, original[place]]]
            by_name = len(set(zip(images.stack_index[pair], images.image_index[pair], strict=True))) == 1
            if by_name or np.array_equal(*self.particles.read_images(pair)):  # the digest is of the middle only
                out[pair[0]] = f"{DUPLICATE}_{'name' if by_name else 'pixels'}_of_row_{self.particles.source_row[pair[1]]}"

    def _originals(self, rows: np.ndarray) -> np.ndarray:
        """Place among `rows` of the first particle with the same image, -1 for those that come first themselves."""
        _, first, which = np.unique(self._digest[rows], return_index=True, return_inverse=True)
        original = first[which.reshape(-1)]
        return np.where(original == np.arange(len(rows)), -1, original)


def _far(values: np.ndarray, least: float) -> np.ndarray:
    """Mask of values further from 0, their median, than robust sigmas and than `least`."""
    sigma = 1.4826 * np.median(np.abs(values - np.median(values)))
    return np.abs(values) > max(_ROBUST_SIGMAS * sigma, least)


def examine(particles: ParticleSet, diameter: float, progress: Callable[[int], None]) -> Examination:
    """Read all images of a particle set, some at a time, and look at each; `progress` is told how many more are done."""
    seen = Examination(particles, diameter)
    for group in range(len(particles.optics)):
        members = np.flatnonzero(particles.optics_index == group)
        for start in range(0, len(members), _READ_TOGETHER):
            rows = members[start : start + _READ_TOGETHER]
            seen.look(rows, particles.read_images(rows))
            progress(len(rows))
    return seen


@njit(nogil=True, parallel=True, cache=True)
def _survey(images, outside, out):
    """out [n, 5]: 1 where all pixels are finite, smallest, largest, mean and standard deviation where `outside`."""
    for i in prange(len(images)):
        image = images[i]
        smallest = largest = image[0, 0]
        total, squares, magnitude, count = 0.0, 0.0, 0.0, 0
        for y in range(image.shape[0]):
            for x in range(image.shape[1]):
                value = image[y, x]
                smallest, largest = min(smallest, value), max(largest, value)
                magnitude += abs(np.float64(value))
                if outside[y, x]:
                    total += value
                    squares += np.float64(value) * value
                    count += 1
        mean = total / count
        out[i, 0] = 1.0 if np.isfinite(magnitude) else 0.0
        out[i, 1], out[i, 2] = smallest, largest
        out[i, 3], out[i, 4] = mean, np.sqrt(max(squares / count - mean * mean, 0.0))
