"""Euler angles and rotation matrices (ZYZ, degrees), in RELION's convention.

A rotation `A` maps volume coordinates to image coordinates, `p_image = A p_volume`; its third row is the viewing direction in the
volume's frame. Sources: ALGORITHM.md 1.2 and 4.11; Heymann, Chagoyen & Belnap (2005), J. Struct. Biol. 151, 196.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

_DEGENERATE = 16 * float(np.finfo(np.float32).eps)  # below this |sin(tilt)| rot and psi cannot be told apart


def to_matrix(angles: ArrayLike) -> np.ndarray:
    """Rotation matrices `[..., 3, 3]` (float64) of angles `[..., 3]` (rot, tilt, psi in degrees)."""
    radians = np.deg2rad(np.asarray(angles, dtype=np.float64))
    sin, cos = np.sin(radians), np.cos(radians)
    sa, sb, sg = sin[..., 0], sin[..., 1], sin[..., 2]
    ca, cb, cg = cos[..., 0], cos[..., 1], cos[..., 2]
    matrix = np.empty(radians.shape[:-1] + (3, 3))
    matrix[..., 0, 0] = cg * cb * ca - sg * sa
    matrix[..., 0, 1] = cg * cb * sa + sg * ca
    matrix[..., 0, 2] = -cg * sb
    matrix[..., 1, 0] = -sg * cb * ca - cg * sa
    matrix[..., 1, 1] = -sg * cb * sa + cg * ca
    matrix[..., 1, 2] = sg * sb
    matrix[..., 2, 0] = sb * ca
    matrix[..., 2, 1] = sb * sa
    matrix[..., 2, 2] = cb
    return matrix


def from_matrix(matrix: ArrayLike) -> np.ndarray:
    """Angles `[..., 3]` (rot, tilt, psi in degrees, 0 <= tilt <= 180) of rotation matrices `[..., 3, 3]`.

    At the poles, where only the sum or difference of rot and psi is defined, rot is 0.
    """
    m = np.asarray(matrix, dtype=np.float64)
    sin_tilt = np.hypot(m[..., 0, 2], m[..., 1, 2])
    regular = sin_tilt > _DEGENERATE
    north = m[..., 2, 2] > 0
    tilt = np.arctan2(sin_tilt, m[..., 2, 2])
    rot = np.arctan2(m[..., 2, 1], m[..., 2, 0])
    psi = np.arctan2(m[..., 1, 2], -m[..., 0, 2])
    psi_at_pole = np.where(north, np.arctan2(-m[..., 1, 0], m[..., 0, 0]), np.arctan2(m[..., 1, 0], -m[..., 0, 0]))
    angles = np.stack(
        [
            np.where(regular, rot, 0.0),
            np.where(regular, tilt, np.where(north, 0.0, np.pi)),
            np.where(regular, psi, psi_at_pole),
        ],
        axis=-1,
    )
    return np.rad2deg(angles)


def from_rotation_vector(vector: ArrayLike) -> np.ndarray:
    """Rotation matrices `[..., 3, 3]` that turn by `|vector|` radians about `vector [..., 3]`, counter-clockwise (Rodrigues' formula)."""
    v = np.asarray(vector, dtype=np.float64)
    square = (v**2).sum(axis=-1)[..., None, None]
    angle = np.sqrt(square)
    across = np.zeros((*v.shape, 3))  # across @ p = v x p
    across[..., 0, 1], across[..., 0, 2], across[..., 1, 2] = -v[..., 2], v[..., 1], -v[..., 0]
    across -= np.swapaxes(across, -1, -2)
    half_sinc = np.sinc(angle / (2 * np.pi))  # sin(angle/2) / (angle/2)
    along = v[..., :, None] * v[..., None, :]
    return np.cos(angle) * np.eye(3) + np.sinc(angle / np.pi) * across + 0.5 * half_sinc**2 * along


def view_direction(rot: ArrayLike, tilt: ArrayLike) -> np.ndarray:
    """Unit vectors `[..., 3]` of the viewing directions (degrees): the third row of the rotation matrix."""
    a, b = np.deg2rad(np.asarray(rot, dtype=np.float64)), np.deg2rad(np.asarray(tilt, dtype=np.float64))
    return np.stack([np.sin(b) * np.cos(a), np.sin(b) * np.sin(a), np.broadcast_to(np.cos(b), np.broadcast(a, b).shape)], axis=-1)


def angular_difference(a: ArrayLike, b: ArrayLike, operators: ArrayLike | None = None) -> np.ndarray:
    """Smallest mean angle `[n]` (degrees) between the rows of rotations `a` and `b` (`[n, 3, 3]` each) over symmetry mates.

    `operators [k, 3, 3]` are those of the point group (`PointGroup.operators`, or the group itself); the mates of `b` are `b R`.
    For a rotation by a small angle about one of the image's axes this is 2/3 of the angle. Source: ALGORITHM.md 4.11.
    """
    rows_a, rows_b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    operators = np.eye(3)[None] if operators is None else np.asarray(getattr(operators, "operators", operators))
    best = np.full(np.broadcast_shapes(rows_a.shape, rows_b.shape)[:-2], np.inf)
    for operator in operators:
        best = np.minimum(best, _row_angles(rows_a, rows_b @ operator).mean(axis=-1))
    return best


def _row_angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angles (degrees) between corresponding unit rows; by the chord, which stays exact for tiny angles."""
    chord = np.linalg.norm(a - b, axis=-1)
    return np.rad2deg(2 * np.arcsin(np.clip(chord / 2, 0.0, 1.0)))
