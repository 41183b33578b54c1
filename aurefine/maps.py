"""Resampling and re-windowing of maps, with real-space values kept on the same scale (ALGORITHM.md 1.4, 2.2 and 8)."""

from __future__ import annotations

import numpy as np

from aurefine import fft
from aurefine.threads import threads_in_use

__all__ = ["even_box", "fit_to", "fourier_rescale", "window"]


def even_box(size: float, round_up: bool = False) -> int:
    """Box nearest to `size` pixels (halves away from zero), made even: one less for maps, one more for masks (`round_up`)."""
    box = int(np.floor(size + 0.5))
    return box + (1 if round_up else -1) if box % 2 else box


def fourier_rescale(volume: np.ndarray, new_box: int, images: bool = False, *, single: bool = False, odd: bool = False) -> np.ndarray:
    """Resample a volume [n, n, n], or with `images` a stack [k, n, n], to `new_box` pixels by cropping or padding the Fourier transform.

    Real-space amplitudes are kept and the centre n/2 becomes new_box/2. Cropping keeps every frequency up to new_box/2; padding copies
    only the sphere (circle) inscribed in the old transform. Returns float32. ValueError for unequal sides or an odd or empty box.
    `single` computes in single precision. `odd` lets the old box be odd: the corner then keeps its place, and the centre moves by a
    fraction of a pixel, as in RELION.
    """
    axes = _axes(volume, images)
    box = volume.shape[-1]
    if new_box < 2 or new_box % 2 or (box % 2 and not odd):
        raise ValueError(f"boxes must be even, got {box} and {new_box}")
    if new_box == box:
        return np.array(volume, dtype=np.float32)
    transform = fft.rfftn(np.asarray(volume, dtype=np.float32 if single else np.float64), axes=axes, norm="forward", workers=threads_in_use())
    resized = _crop(transform, axes, new_box) if new_box < box else _pad(transform, axes, box, new_box)
    return fft.irfftn(resized, (new_box,) * len(axes), axes=axes, norm="forward", workers=threads_in_use()).astype(np.float32, copy=False)


def window(volume: np.ndarray, new_box: int, images: bool = False, any_shape: bool = False) -> np.ndarray:
    """Crop, or pad with zeros, a volume [n, n, n], or with `images` a stack [k, n, n], about the centre pixel n // 2; the type is kept.

    `any_shape` lets the old sides differ.
    """
    axes = ((1, 2) if images else (0, 1, 2)) if any_shape else _axes(volume, images)
    shape = list(volume.shape)
    source, target = [slice(None)] * 3, [slice(None)] * 3
    for axis in axes:
        old = shape[axis]
        first = new_box // 2 - old // 2  # new index of the old pixel 0
        source[axis] = slice(max(0, -first), min(old, new_box - first))
        target[axis] = slice(max(0, first), min(new_box, first + old))
        shape[axis] = new_box
    result = np.zeros(shape, dtype=volume.dtype)
    result[tuple(target)] = volume[tuple(source)]
    return result


def fit_to(volume: np.ndarray, pixel_size: float, box: int, target_pixel_size: float, round_up: bool = False) -> tuple[np.ndarray, float]:
    """Bring a map [n, n, n] to a target pixel size (Angstrom) and box as RELION 5 does with `--trust_ref_size`.

    Returns the map [box, box, box] float32 and its true pixel size, `n * pixel_size / resampled box`, which may differ a little
    from the target. `round_up` is the rule for solvent masks. Source: ALGORITHM.md 2.2.
    """
    values = np.asarray(volume, dtype=np.float32)
    if len(values) % 2:
        values = window(values, len(values) + 1)  # Fourier resampling needs an even box; a plane of zeros moves nothing
    old = len(values)
    resampled = even_box(old * pixel_size / target_pixel_size, round_up)
    true_pixel_size = pixel_size if resampled == old else old * pixel_size / resampled
    return window(fourier_rescale(values, resampled), box), true_pixel_size


def _axes(values: np.ndarray, images: bool) -> tuple[int, ...]:
    """Axes to resample; ValueError where they are not of equal length."""
    axes = (1, 2) if images else (0, 1, 2)
    if values.ndim != 3 or len({values.shape[axis] for axis in axes}) > 1:
        raise ValueError(f"expected {'images [k, n, n]' if images else 'a volume [n, n, n]'}, got shape {values.shape}")
    return axes


def _frequencies(box: int) -> np.ndarray:
    """Integer frequencies of a full axis, the Nyquist row counted as +box/2 (ALGORITHM.md 1.4)."""
    index = np.arange(box)
    return np.where(index <= box // 2, index, index - box)


def _crop(transform: np.ndarray, axes: tuple[int, ...], new_box: int) -> np.ndarray:
    for axis in axes[:-1]:
        transform = np.take(transform, _frequencies(new_box), axis=axis)  # negative frequencies index from the end
    return transform[..., : new_box // 2 + 1]


def _pad(transform: np.ndarray, axes: tuple[int, ...], box: int, new_box: int) -> np.ndarray:
    rows = _frequencies(box)
    half = np.arange(box // 2 + 1)
    radius2 = half[None, :] ** 2 + rows[:, None] ** 2
    if len(axes) == 3:
        radius2 = radius2[None] + rows[:, None, None] ** 2
    inside = transform * (radius2 <= (box // 2) ** 2)
    shape = [new_box if axis in axes else size for axis, size in enumerate(transform.shape[:-1])] + [new_box // 2 + 1]
    result = np.zeros(shape, dtype=transform.dtype)
    if len(axes) == 3:
        result[np.ix_(rows, rows, half)] = inside
    else:
        result[np.ix_(np.arange(shape[0]), rows, half)] = inside
    return result
