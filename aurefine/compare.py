"""How far a refinement is from the truth: pose errors modulo symmetry, and the FSC of its map against the true map.

A refined map may sit in another frame than the truth: turned about a symmetry axis, or shifted along one. Errors are therefore
reported raw and after the best single rotation and shift of the whole set.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from aurefine import euler, fsc, mask, mrc, nufft, star, symmetry
from aurefine.errors import InputError
from aurefine.image_source import located
from aurefine.truth import at_places, has_places

_MATES_AT_A_TIME = 4096


@dataclass(frozen=True)
class Frame:
    """The rigid motion from the truth's frame to the estimate's: `p_estimate = rotation @ p_truth + shift` (Angstrom)."""

    rotation: np.ndarray
    shift: np.ndarray

    @property
    def angle(self) -> float:
        """Angle of the rotation, degrees."""
        return float(np.degrees(Rotation.from_matrix(self.rotation).magnitude()))


@dataclass(frozen=True)
class _Pairs:
    """Matching rows of an estimate and the truth."""

    estimated: np.ndarray  # [n, 3, 3]
    true: np.ndarray  # [n, 3, 3]
    estimated_origins: np.ndarray  # [n, 2] Angstrom
    true_origins: np.ndarray  # [n, 2]


def pose_errors(estimated: str | Path, truth: str | Path, point_group: str = "C1") -> dict[str, float]:
    """Median and 90th percentile of the angular (degrees) and shift (Angstrom) errors of a `_data.star` against a truth file.

    Rows are matched by rlnImageName, or where no name is the same by the images' files, found as a refinement finds them; rows that the
    truth marks as outliers (rlnClassNumber other than 1) do not count. Keys: `particles`, `angle_median`, `angle_p90`, `shift_median`,
    `shift_p90` after the best global motion, the same with `raw_` before it, `frame_angle` (degrees) and `frame_shift` (Angstrom) of that
    motion. The angular error is that of the full rotation, modulo symmetry.
    """
    pairs = _read_pairs(Path(estimated), Path(truth))
    operators = symmetry.point_group(point_group).operators
    frame = global_frame(pairs, operators)
    result: dict[str, float] = {"particles": len(pairs.true)}
    for prefix, used in (("", frame), ("raw_", Frame(np.eye(3), np.zeros(3)))):
        angle, shift = _errors(pairs, operators, used)
        result |= {f"{prefix}angle_median": float(np.median(angle)), f"{prefix}angle_p90": float(np.percentile(angle, 90)),
                   f"{prefix}shift_median": float(np.median(shift)), f"{prefix}shift_p90": float(np.percentile(shift, 90))}
    return result | {"frame_angle": frame.angle, "frame_shift": float(np.linalg.norm(frame.shift))}


def _read_pairs(estimated: Path, truth: Path) -> _Pairs:
    found, true = star.read_table(estimated, "particles"), star.read_table(truth, "particles")
    if has_places(true):
        true = at_places(found, truth, estimated)
    elif "rlnClassNumber" in true:
        true = true.select(true["rlnClassNumber"] == 1)
    matched = _matched(found["rlnImageName"].tolist(), true["rlnImageName"].tolist())
    if not matched:  # a refinement names images from its own folder: are they the same files?
        matched = _matched(located(found["rlnImageName"].tolist(), estimated), located(true["rlnImageName"].tolist(), truth))
    if not matched:
        raise InputError(f"{estimated}: none of its images is in {truth} (first name here: {found['rlnImageName'][0]}); "
                         "give the truth file of the same particles.")
    rows, true_rows = np.array(matched).T
    return _Pairs(_rotations(found, rows, estimated), _rotations(true, true_rows, truth),
                  _origins(found, rows, estimated), _origins(true, true_rows, truth))


def _matched(found: list[str], true: list[str]) -> list[tuple[int, int]]:
    """Rows of the same names: in `found`, and in `true`."""
    row_of = {name: row for row, name in enumerate(found)}
    return [(row_of[name], row) for row, name in enumerate(true) if name in row_of]


def _columns(table: star.Table, labels: tuple[str, ...], rows: np.ndarray, path: Path) -> np.ndarray:
    for label in labels:
        if label not in table:
            raise InputError(f"{path}: data_particles has no column {label}; a STAR file with poses was expected.")
    return np.stack([np.asarray(table[label], float)[rows] for label in labels], axis=1)


def _rotations(table: star.Table, rows: np.ndarray, path: Path) -> np.ndarray:
    return euler.to_matrix(_columns(table, ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), rows, path))


def _origins(table: star.Table, rows: np.ndarray, path: Path) -> np.ndarray:
    return _columns(table, ("rlnOriginXAngst", "rlnOriginYAngst"), rows, path)


def global_frame(pairs: _Pairs, operators: np.ndarray, rounds: int = 20) -> Frame:
    """The rigid motion that explains most poses: the best of the identity and the motions of single particles, then averaged."""
    rotation = _best_start(pairs, operators)
    for _ in range(rounds):
        motions, angle = _nearest_motions(pairs, operators, rotation)
        good = angle <= max(2 * float(np.median(angle)), 1e-3)
        average = Rotation.from_matrix(motions[good]).mean().as_matrix()
        if np.allclose(average, rotation, atol=1e-7):
            break
        rotation = average
    # The same motion has one form for every operator of the group: name the smallest.
    rotation = max((rotation @ operator for operator in operators), key=np.trace)
    return Frame(rotation, _frame_shift(pairs, operators, rotation))


def _best_start(pairs: _Pairs, operators: np.ndarray, trials: int = 40, judged: int = 300) -> np.ndarray:
    """Identity, unless some particle's own motion fits the others clearly better (each trial: its median error)."""
    rows = np.linspace(0, len(pairs.true) - 1, min(judged, len(pairs.true))).astype(int)
    few = _Pairs(pairs.estimated[rows], pairs.true[rows], pairs.estimated_origins[rows], pairs.true_origins[rows])
    candidates = [np.eye(3)] + [few.estimated[i].T @ few.true[i] for i in range(0, len(rows), max(1, len(rows) // trials))]
    medians = [float(np.median(_nearest_motions(few, operators, candidate)[1])) for candidate in candidates]
    best = int(np.argmin(medians))
    return candidates[best] if medians[best] < 0.7 * medians[0] else candidates[0]


def _nearest_motions(pairs: _Pairs, operators: np.ndarray, rotation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each particle's possible motions `A_estimate' A_true S` the one nearest to `rotation` [n, 3, 3], and how far it is (degrees) [n]."""
    motions, angles = [], []
    for start in range(0, len(pairs.true), _MATES_AT_A_TIME):
        part = slice(start, start + _MATES_AT_A_TIME)
        plain = np.swapaxes(pairs.estimated[part], 1, 2) @ pairs.true[part]
        trace = np.einsum("nij,kjl,il->nk", plain, operators, rotation, optimize=True)
        nearest = trace.argmax(axis=1)
        motions.append(plain @ operators[nearest])
        # The chord is exact for tiny angles where the trace is not.
        chord = np.linalg.norm(motions[-1] - rotation, axis=(1, 2))
        angles.append(np.degrees(2 * np.arcsin(np.clip(chord / np.sqrt(8), 0, 1))))
    return np.concatenate(motions), np.concatenate(angles)


def _frame_shift(pairs: _Pairs, operators: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Shift [3] (Angstrom) of the estimate's frame: least squares over the well aligned particles, repeated without the far ones.

    With p_estimate = G p_true + t, the particle lies at the same place in the image if origin_true = origin_estimate - (A_estimate t)_xy.
    """
    _, angle = _nearest_motions(pairs, operators, rotation)
    good = angle <= np.median(angle)
    shift = np.zeros(3)
    for _ in range(5):
        rows = pairs.estimated[good, :2].reshape(-1, 3)
        shift = np.linalg.lstsq(rows, (pairs.estimated_origins - pairs.true_origins)[good].ravel(), rcond=None)[0]
        distance = np.linalg.norm(_origin_errors(pairs, shift), axis=1)
        good = distance <= 2 * np.median(distance) + 1e-9
    return _invariant_part(shift, operators, rotation)


def _invariant_part(shift: np.ndarray, operators: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Only a shift along a common axis leaves a symmetrical map symmetrical about the same axes: the mean over the group."""
    return np.mean([rotation @ operator @ rotation.T @ shift for operator in operators], axis=0)


def _origin_errors(pairs: _Pairs, shift: np.ndarray) -> np.ndarray:
    return pairs.estimated_origins - pairs.true_origins - pairs.estimated[:, :2] @ shift


def _errors(pairs: _Pairs, operators: np.ndarray, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Angular errors [n] (degrees) and shift errors [n] (Angstrom, length of the 2D vector)."""
    _, angle = _nearest_motions(pairs, operators, frame.rotation)
    return angle, np.linalg.norm(_origin_errors(pairs, frame.shift), axis=1)


@dataclass(frozen=True)
class MapComparison:
    """FSC of a map against the truth: `curve` [box/2 + 1], crossings in Angstrom (Nyquist when never crossed), mean over shells > 0."""

    curve: np.ndarray
    resolution_half: float
    resolution_0143: float
    mean_fsc: float
    mirror_mean_fsc: float
    angle: float  # of the alignment applied, degrees
    shift: float  # Angstrom

    def summary(self) -> dict[str, float]:
        """The numbers without the curve."""
        return {"fsc_half_angstrom": self.resolution_half, "fsc_0143_angstrom": self.resolution_0143, "mean_fsc": self.mean_fsc,
                "mirror_mean_fsc": self.mirror_mean_fsc, "alignment_degrees": self.angle, "alignment_angstrom": self.shift}


def map_fsc(volume: np.ndarray, truth: np.ndarray, pixel_size: float, mask_radius: float | None = None, align: bool = True) -> MapComparison:
    """FSC of `volume` against `truth` [n, n, n] within a soft sphere of `mask_radius` Angstrom, after small rigid alignment of the map.

    The mirror image of the map is compared too: if its mean FSC is the better one, the hand is wrong.
    """
    if volume.shape != truth.shape:
        raise InputError(f"the map has {volume.shape} voxels, the truth {truth.shape}; compare maps of the same box and pixel size.")
    box = truth.shape[0]
    soft = np.ones_like(truth) if mask_radius is None else mask.soft_edge(box, 3, mask_radius / pixel_size, 5.0)
    target = np.asarray(truth * soft, np.float32)
    mirror = fsc.of_maps(np.asarray(_mirrored(volume) * soft, np.float32), target)
    angle, shift = 0.0, 0.0
    if align:
        volume, angle, moved = align_map(volume, target)
        shift = moved * pixel_size
    curve = fsc.of_maps(np.asarray(volume * soft, np.float32), target)
    half, seventh = (float(fsc.resolution_at(curve, threshold, box, pixel_size)) for threshold in (0.5, 0.143))
    return MapComparison(curve, half, seventh, float(curve[1:].mean()), float(mirror[1:].mean()), angle, shift)


def _mirrored(volume: np.ndarray) -> np.ndarray:
    """Mirror image in the plane through the centre voxel across z."""
    return np.roll(volume[::-1], 1, axis=0)


def align_map(volume: np.ndarray, target: np.ndarray, samples: int = 3000, seed: int = 0) -> tuple[np.ndarray, float, float]:
    """Turn and move `volume` to fit `target` by at most a few degrees and voxels: (map, degrees, voxels).

    Maximises the correlation of a random sample of Fourier coefficients up to FSC 0.5, each shell counting the same.
    """
    box = volume.shape[0]
    curve = fsc.of_maps(np.asarray(volume, np.float32), np.asarray(target, np.float32))
    last = fsc.first_below(curve, 0.5)
    limit = max(box // 8, last if last > 0 else box // 2 - 1)
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=(samples, 3))
    points = direction / np.linalg.norm(direction, axis=1, keepdims=True) * rng.uniform(1, limit, (samples, 1))
    radius = np.linalg.norm(points, axis=1)
    moving, values = nufft.MapSampler(volume), nufft.MapSampler(target)(points)
    shell = radius.astype(int)
    values = values / np.sqrt(np.bincount(shell, np.abs(values) ** 2) / np.maximum(np.bincount(shell), 1))[shell]

    def mismatch(motion: np.ndarray) -> float:
        moved = moving(points @ _turn(motion)) * np.exp(-2j * np.pi / box * (points @ motion[3:]))
        power = np.bincount(shell, np.abs(moved) ** 2)
        return -float(np.sum((moved * values.conj()).real / np.sqrt(power / np.maximum(np.bincount(shell), 1))[shell])) / samples

    best = minimize(mismatch, np.zeros(6), method="Powell", options={"xtol": 1e-2, "ftol": 1e-6}, bounds=[(-10, 10)] * 3 + [(-3, 3)] * 3)
    if best.fun >= mismatch(np.zeros(6)) - 1e-6:
        return volume, 0.0, 0.0
    aligned = nufft.to_map(moving.resampled(_turn(best.x), best.x[3:])).astype(np.float32)
    return aligned, float(np.linalg.norm(best.x[:3])), float(np.linalg.norm(best.x[3:]))


def _turn(motion: np.ndarray) -> np.ndarray:
    """Rotation matrix of a rotation vector in degrees, `motion[:3]`."""
    return Rotation.from_rotvec(np.radians(motion[:3])).as_matrix()


def map_file_fsc(volume: str | Path, truth: str | Path, mask_radius: float | None = None, align: bool = True) -> MapComparison:
    """`map_fsc` of two MRC files; the truth is resampled to the map's box and pixel size when they differ."""
    (moving, pixel_size), (true, true_pixel_size) = mrc.read_map(volume), mrc.read_map(truth)
    if moving.shape != true.shape or abs(pixel_size - true_pixel_size) > 1e-3:
        scale = true.shape[0] * true_pixel_size / (moving.shape[0] * pixel_size)
        true = nufft.to_map(nufft.MapSampler(true).resampled(np.eye(3), np.zeros(3), moving.shape[0], scale)).astype(np.float32)
    return map_fsc(moving, true, pixel_size, mask_radius, align)
