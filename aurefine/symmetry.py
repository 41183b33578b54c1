"""Point groups in RELION's settings: rotation operators and an asymmetric unit of viewing directions.

Convention: for a map that has the symmetry and every operator R, the projection with rotation `A R` is identical to the one with
`A` (`p_image = A p_volume`), so `A R` are the symmetry mates of a pose. Source: ALGORITHM.md 4.4.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import ArrayLike

from aurefine import euler
from aurefine.errors import InputError

_GOLDEN = (1 + np.sqrt(5)) / 2
_ICOSAHEDRAL_TILT = float(np.degrees(np.arctan(1 / _GOLDEN)))  # 31.717 degrees between a 2-fold and the next 5-fold axis
_ICOSAHEDRAL_TURN = {"I": 0.0, "I2": 0.0, "I1": 90.0, "I3": -_ICOSAHEDRAL_TILT, "I4": _ICOSAHEDRAL_TILT}  # about y, from I2's setting
_MIRROR_NAME = re.compile(r"CI|CS|C\d+[VH]|S\d+|D\d+[VH]|T[DH]|OH|I[1-5]?H")
_COMMON_NAMES = [f"{family}{n}" for n in range(1, 25) for family in "CD"] + ["T", "O", "I", "I1", "I2", "I3", "I4"]
_TOLERANCE = 1e-6  # directions on the border belong to the unit


@dataclass(frozen=True)
class AsymmetricUnit:
    """Directions with rot within `rot_half_width` of `rot_centre` (degrees), tilt <= 90 if `upper`, and v.n >= 0 for all normals."""

    rot_centre: float = 0.0
    rot_half_width: float = 180.0
    upper: bool = False
    normals: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))

    def contains(self, rot: ArrayLike, tilt: ArrayLike) -> np.ndarray:
        """Mask of the directions (degrees, broadcast) inside the unit or on its border."""
        rot, tilt = np.broadcast_arrays(np.asarray(rot, dtype=np.float64), np.asarray(tilt, dtype=np.float64))
        vector = euler.view_direction(rot, tilt)
        away = np.abs(np.mod(rot - self.rot_centre + 180, 360) - 180)
        pole = np.hypot(vector[..., 0], vector[..., 1]) < _TOLERANCE  # rot means nothing there
        inside = pole | (away <= self.rot_half_width + _TOLERANCE)
        if self.upper:
            inside &= vector[..., 2] >= -_TOLERANCE
        return inside & np.all(vector @ self.normals.T >= -_TOLERANCE, axis=-1)


@dataclass(frozen=True, eq=False)
class PointGroup:
    """A rotation group: `operators [k, 3, 3]` (float64, identity first) and its asymmetric unit."""

    name: str
    operators: np.ndarray
    unit: AsymmetricUnit

    @property
    def order(self) -> int:
        """Number of operators, the identity included."""
        return len(self.operators)

    def in_unit(self, rot: ArrayLike, tilt: ArrayLike) -> np.ndarray:
        """Mask of the directions (degrees) that lie in the asymmetric unit; every direction has a mate in it."""
        return self.unit.contains(rot, tilt)


def point_group(name: str) -> PointGroup:
    """The point group of that name (case-insensitive): Cn, Dn, T, O, I (= I2), I1, I2, I3, I4.

    Raises InputError for unknown names (naming the nearest ones) and for groups with mirror planes or an inversion centre,
    which no chiral molecule can have.
    """
    return _point_group(str(name).strip().upper())


@cache
def _point_group(name: str) -> PointGroup:
    cyclic = re.fullmatch(r"([CD])([1-9]\d{0,2})", name)
    if cyclic:
        return _cyclic_or_dihedral(name, cyclic[1] == "D", int(cyclic[2]))
    if name == "T":
        return PointGroup(name, _generate(([0, 0, 1], 3), ([0, np.sqrt(2 / 3), np.sqrt(1 / 3)], 2)), _tetrahedral_unit())
    if name == "O":
        return PointGroup(name, _generate(([0, 0, 1], 4), ([1, 1, 1], 3)), _octahedral_unit())
    if name in _ICOSAHEDRAL_TURN:
        return _icosahedral(name, _ICOSAHEDRAL_TURN[name])
    raise InputError(_reason(name))


def _reason(name: str) -> str:
    known = "Known groups are C1, C2, ..., D1, D2, ..., T, O, I (= I2), I1, I2, I3 and I4"
    if _MIRROR_NAME.fullmatch(name):
        return f"Symmetry '{name}' has a mirror plane or an inversion centre: it is not a symmetry of a chiral molecule. {known}."
    near = difflib.get_close_matches(name, _COMMON_NAMES, n=3, cutoff=0.3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"Symmetry '{name}' is not a known point group.{hint} {known}."


def rotation_about(axis: ArrayLike, degrees: float) -> np.ndarray:
    """Matrix `[3, 3]` that turns vectors by `degrees` about `axis` (right-handed, any length)."""
    x, y, z = np.asarray(axis, dtype=np.float64) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)


def _cyclic_or_dihedral(name: str, dihedral: bool, n: int) -> PointGroup:
    turns = np.stack([rotation_about([0, 0, 1], 360 * i / n) for i in range(n)])
    if not dihedral:
        return PointGroup(name, turns, AsymmetricUnit(0.0, 180.0 / n))
    flipped = turns @ rotation_about([1, 0, 0], 180)
    unit = AsymmetricUnit(90.0, 180.0 / n, upper=True)
    return PointGroup(name, np.concatenate([turns, flipped]), unit)


def _generate(*generators: tuple[ArrayLike, int]) -> np.ndarray:
    """All products of the rotations by 360/fold about each (axis, fold), the identity first."""
    steps = [rotation_about(axis, 360 / fold) for axis, fold in generators]
    found = [np.eye(3)]
    for operator in found:  # grows while it is walked, until every product is known
        for step in steps:
            product = operator @ step
            if min(np.abs(product - known).max() for known in found) > 1e-6:
                found.append(product)
    return np.stack(found)


def _tetrahedral_unit() -> AsymmetricUnit:
    normals = np.array([[-0.942809, 0, 0], [0.471405, 0.272165, 0.7698], [0.471404, 0.816497, 0]])
    return AsymmetricUnit(120.0, 30.0, normals=normals)


def _octahedral_unit() -> AsymmetricUnit:
    return AsymmetricUnit(90.0, 45.0, upper=True, normals=np.array([[0.0, -1, 1], [1, 1, 0], [-1, 1, 0]]))


def _icosahedral(name: str, turn: float) -> PointGroup:
    """I2 has 2-folds along x, y, z and a 5-fold in the xz plane; the other settings are I2 turned about y."""
    setting = rotation_about([0, 1, 0], turn)
    axes = (([0, 0, 1], 2), ([1, 0, _GOLDEN], 5), ([0, 1 / _GOLDEN**2, 1], 3))
    operators = _generate(*((setting @ axis, fold) for axis, fold in axes))
    normals = np.array([[0, 1, 0], [-0.5, -_GOLDEN / 2, 0.5 / _GOLDEN], [0.5, -_GOLDEN / 2, 0.5 / _GOLDEN]])
    return PointGroup(name, operators, AsymmetricUnit(normals=normals @ setting.T))
