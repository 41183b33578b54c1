"""Soft solvent masks from a map: binarised, grown or shrunk, with a raised-cosine edge; and shells of given radii (ALGORITHM.md 9.1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from aurefine.threads import in_parts, use_threads

_SLAB_BYTES = 1 << 19  # of distances worked on at a time: they stay in the second-level cache


def squared_distances(binary: np.ndarray, reach: float, threads: int = 1) -> np.ndarray:
    """Squared distance in pixels of each voxel [z, y, x] to the nearest True one, exact below `reach`^2; what is farther holds a larger number.

    One pass along each axis takes the smallest of the neighbours' squared distances plus the square of the step (Felzenszwalb and
    Huttenlocher 2012, cut off at `reach`). int32, or uint16 while the reach allows it.
    """
    steps = max(1, int(np.ceil(reach)))
    kind = np.uint16 if 3 * steps * steps < np.iinfo(np.uint16).max // 2 else np.int32
    far = kind(3 * steps * steps + 1)
    result = np.full(binary.shape, far, dtype=kind)
    box = _bounds(binary, steps)
    if box is None:
        return result
    inner = np.where(binary[box], kind(0), far)
    with use_threads(threads):
        for axis in (2, 1, 0):
            slabs = list(_slabs(inner, 0 if axis else 1))
            in_parts(partial(_all_nearer, slabs, axis, steps), len(slabs))
    result[box] = inner
    return result


def _bounds(binary: np.ndarray, margin: int) -> tuple[slice, ...] | None:
    """The smallest box around all True voxels, `margin` wider on each side; None where there are none."""
    result = []
    for axis, length in enumerate(binary.shape):
        used = np.flatnonzero(binary.any(axis=tuple(other for other in range(3) if other != axis)))
        if not len(used):
            return None
        result.append(slice(max(0, int(used[0]) - margin), min(length, int(used[-1]) + margin + 1)))
    return tuple(result)


def _slabs(values: np.ndarray, axis: int) -> Iterator[np.ndarray]:
    """Views of a few planes along an axis each."""
    planes = max(1, _SLAB_BYTES // max(1, values.nbytes // values.shape[axis]))
    for start in range(0, values.shape[axis], planes):
        yield values[start : start + planes] if axis == 0 else values[:, start : start + planes]


def _all_nearer(slabs: Sequence[np.ndarray], axis: int, steps: int, part: slice) -> None:
    for slab in slabs[part]:
        _nearer(slab, axis, steps)


def _nearer(slab: np.ndarray, axis: int, steps: int) -> None:
    """Replace each value by the smallest of value + step^2 over its neighbours along an axis, in place."""
    moved = np.moveaxis(slab, axis, 0)
    source = moved.copy()
    for step in range(1, min(steps, len(source) - 1) + 1):
        raised = source + source.dtype.type(step * step)
        np.minimum(moved[step:], raised[:-step], out=moved[step:])
        np.minimum(moved[:-step], raised[step:], out=moved[:-step])


def extend(binary: np.ndarray, pixels: float, threads: int = 1) -> np.ndarray:
    """Grow a binary mask to all voxels nearer than `pixels` to it; with a negative number, shrink it by as much. Bool."""
    pixels = float(np.clip(pixels, -_across(binary), _across(binary)))
    if pixels > 0:
        return squared_distances(binary, pixels, threads) < pixels**2
    if pixels < 0:
        return squared_distances(~binary, -pixels, threads) >= pixels**2
    return binary


def _across(binary: np.ndarray) -> float:
    """A distance in pixels that no two voxels have: what is farther is no different."""
    return float(np.linalg.norm(binary.shape))


def soften(binary: np.ndarray, width: float, threads: int = 1) -> np.ndarray:
    """Add a raised-cosine edge of `width` pixels outside a binary mask: 0.5 + 0.5 cos(pi d / width); float32."""
    if width <= 0 or not binary.any():
        return binary.astype(np.float32)
    squared = squared_distances(binary, min(width, _across(binary)), threads)
    table = np.zeros(int(squared.max()) + 1, dtype=np.float32)
    edge = np.sqrt(np.arange(min(len(table), math.ceil(width**2))))
    table[: len(edge)] = 0.5 + 0.5 * np.cos(np.pi * np.minimum(edge, width) / width)
    return table[squared]


def combine(first: np.ndarray, second: np.ndarray, how: str) -> np.ndarray:
    """Two binary masks joined by "and", "or", "and_not" or "or_not"."""
    operations: dict[str, Callable[[], np.ndarray]] = {
        "and": lambda: first & second,
        "or": lambda: first | second,
        "and_not": lambda: first & ~second,
        "or_not": lambda: first | ~second,
    }
    return operations[how]()


def central_part(mask: np.ndarray, fraction: float, width: float) -> np.ndarray:
    """A mask [z, y, x] cut to the central `fraction` of its z length, with raised-cosine ends of `width` pixels; float32."""
    length = len(mask)
    distance = np.abs(np.arange(length) - length // 2) - fraction * length / 2
    weight = 0.5 + 0.5 * np.cos(np.pi * np.clip(distance / max(width, 1e-6), 0, 1))
    return (mask * weight[:, None, None]).astype(np.float32)


def shell(box: int, inner: float, outer: float, centre: tuple[float, float, float], width: float) -> np.ndarray:
    """A mask [z, y, x] of a hollow sphere: 1 between two radii (pixels) about a centre (x, y, z; pixels from box // 2), with soft edges.

    The edges lie outside the shell, `width` pixels wide, within the hollow too. Without a width the inner radius belongs to the mask, the
    outer one does not. float32.
    """
    axis = np.arange(box) - box // 2
    x, y, z = (axis - place for place in centre)
    radius = np.sqrt(z[:, None, None] ** 2 + y[None, :, None] ** 2 + (x**2)[None, None, :])
    if width <= 0:
        return ((radius >= inner) & (radius < outer)).astype(np.float32)
    outside = np.clip(np.maximum(radius - outer, inner - radius) / width, 0, 1)
    return (0.5 + 0.5 * np.cos(np.pi * outside)).astype(np.float32)
