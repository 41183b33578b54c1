"""Fourier transforms of arrays: the few of scipy.fft's functions that short jobs need, at a tenth of its start.

`import scipy.fft` runs 0.3 s of Python that has nothing to do with a Fourier transform (array-API adapters, special functions), in which RELION has
finished a small map. Its compiled part, pocketfft, is loaded here by itself, under its own name, so that a later `import scipy.fft` finds it loaded.
Where scipy keeps it elsewhere, scipy.fft's own functions are called.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from functools import cache
from importlib.machinery import PathFinder
from threading import Lock
from typing import Any

import numpy as np

from aurefine.threads import thread_count

_NAME = "scipy.fft._pocketfft.pypocketfft"
_LOADING = Lock()
_PIXELS_AT_A_TIME = 1 << 16
_SCALES = {None: 0, "backward": 0, "forward": 2}  # pocketfft's numbers for a forward transform: unscaled, or divided by the number of elements


def rfftn(values: np.ndarray, axes: tuple[int, ...] | None = None, norm: str | None = None, workers: int = 1) -> np.ndarray:
    """Half-complex transform over `axes` (all by default), the last of them halved; single precision stays single. See scipy.fft.rfftn."""
    every = tuple(range(values.ndim)) if axes is None else axes
    result: np.ndarray = _pocketfft().r2c(values, every, True, _SCALES[norm], None, thread_count(workers))
    return result


def irfftn(transform: np.ndarray, s: tuple[int, ...], axes: tuple[int, ...] | None = None, norm: str | None = None, workers: int = 1) -> np.ndarray:
    """Inverse of `rfftn`; `s` are the lengths of the result along `axes`. ValueError where the transform has other lengths (scipy.fft would pad)."""
    every = tuple(range(transform.ndim)) if axes is None else axes
    if tuple(transform.shape[axis] for axis in every) != (*s[:-1], s[-1] // 2 + 1):
        raise ValueError(f"a transform of shape {transform.shape} is none of a real array of {s} along axes {every}")
    result: np.ndarray = _pocketfft().c2r(transform, every, s[-1], False, 2 - _SCALES[norm], None, thread_count(workers))
    return result


def fft(values: np.ndarray, axis: int = -1, norm: str | None = None, workers: int = 1, overwrite_x: bool = False) -> np.ndarray:
    """Transform of a complex array along one axis. See scipy.fft.fft."""
    result: np.ndarray = _pocketfft().c2c(values, (axis,), True, _SCALES[norm], values if overwrite_x else None, thread_count(workers))
    return result


def ifft(values: np.ndarray, axis: int = -1, norm: str | None = None, workers: int = 1, overwrite_x: bool = False) -> np.ndarray:
    """Inverse of `fft`."""
    result: np.ndarray = _pocketfft().c2c(values, (axis,), False, 2 - _SCALES[norm], values if overwrite_x else None, thread_count(workers))
    return result


def stretches(images: np.ndarray) -> Iterator[slice]:
    """The images [k, n, n] in stretches to be transformed together: what is made of one stays in the second-level cache, a third sooner done."""
    step = max(1, _PIXELS_AT_A_TIME // max(1, images[:1].size))
    yield from (slice(start, start + step) for start in range(0, len(images), step))


def _pocketfft() -> Any:
    """pocketfft's functions r2c, c2r and c2c."""
    with _LOADING:  # a module is listed before it is whole: a second thread must not take it then
        return _loaded()


@cache
def _loaded() -> Any:
    if "scipy.fft" in sys.modules:
        return importlib.import_module(_NAME) if importlib.util.find_spec(_NAME) else _PublicFunctions()
    scipy = importlib.util.find_spec("scipy")  # found, not imported
    places = scipy.submodule_search_locations if scipy is not None else None
    spec = PathFinder.find_spec(_NAME, [f"{place}/fft/_pocketfft" for place in places or ()])
    if spec is None or spec.loader is None:
        return _PublicFunctions()
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[_NAME] = module
    return module


class _PublicFunctions:
    """The same three functions by way of scipy.fft, for a scipy that keeps pocketfft elsewhere."""

    def __init__(self) -> None:
        from scipy import fft as scipy_fft

        self._fft = scipy_fft

    def r2c(self, a: np.ndarray, axes: tuple[int, ...], forward: bool, inorm: int, out: None, nthreads: int) -> Any:
        return self._fft.rfftn(a, axes=axes, norm="forward" if inorm else "backward", workers=nthreads)

    def c2r(self, a: np.ndarray, axes: tuple[int, ...], lastsize: int, forward: bool, inorm: int, out: None, nthreads: int) -> Any:
        s = [*(a.shape[axis] for axis in axes[:-1]), lastsize]
        return self._fft.irfftn(a, s=s, axes=axes, norm="backward" if inorm else "forward", workers=nthreads)

    def c2c(self, a: np.ndarray, axes: tuple[int, ...], forward: bool, inorm: int, out: np.ndarray | None, nthreads: int) -> Any:
        function = self._fft.fftn if forward else self._fft.ifftn
        scaled = bool(inorm) == forward  # "forward": the forward transform is the one that is divided
        return function(a, axes=axes, norm="forward" if scaled else "backward", overwrite_x=out is not None, workers=nthreads)
