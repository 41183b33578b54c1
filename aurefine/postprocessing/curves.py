"""The FSC curves of post-processing: unmasked, masked, phase-randomised, corrected, and per particle (ALGORITHM.md 9.2)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from aurefine import fourier, fsc
from aurefine.errors import InputError
from aurefine.postprocessing.inputs import HalfMaps, Mask
from aurefine.postprocessing.options import PostprocessOptions
from aurefine.postprocessing.random_phases import CRandom, randomise
from aurefine.threads import at_once

THRESHOLD = 0.143  # Rosenthal and Henderson (2003)


@dataclass(frozen=True)
class Curves:
    """FSC by shell [n/2 + 1] (those of a mask None without one) and what follows from them."""

    unmasked: np.ndarray
    corrected: np.ndarray  # the curve that counts
    masked: np.ndarray | None = None
    randomised: np.ndarray | None = None
    randomised_from: int = 0  # shell
    unmasked_is_better: bool = False


def measure(halves: HalfMaps, transforms: tuple[np.ndarray, np.ndarray], mask: Mask | None, options: PostprocessOptions) -> Curves:
    """All curves of two half maps and their transforms, whose values are used up; InputError when the FSC stays above --randomize_at_fsc."""
    unmasked = correlate(*transforms)
    if mask is None:
        return Curves(unmasked, unmasked)
    start = randomisation_shell(unmasked, halves, options)
    masked = _masked_fsc(mask, halves.one, halves.two)
    random = CRandom(options.random_seed)
    randomised = _masked_fsc(mask, *randomise(transforms, start, random))
    corrected = correct(masked, randomised, start)
    better = last_shell(unmasked) > last_shell(corrected)
    chosen = unmasked if better and not options.force_mask else corrected
    return Curves(unmasked, chosen, masked, randomised, start, better)


def _masked_fsc(mask: Mask, one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """FSC of two maps after masking them in place: fresh memory for large maps costs more than the products."""

    def transform(values: np.ndarray) -> np.ndarray:
        values *= mask.values
        return fourier.transform_map(values)

    return correlate(*at_once(partial(transform, one), partial(transform, two)))


def correlate(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """FSC of two half-complex transforms at shells 0..n/2, with FSC_0 = 1."""
    n = len(one)
    curve = fsc.correlate(one, two, fourier.shell_index_3d(n), n // 2 + 1)
    curve[0] = 1.0
    return curve


def randomisation_shell(unmasked: np.ndarray, halves: HalfMaps, options: PostprocessOptions) -> int:
    """The shell from which phases are randomised."""
    if options.randomise_at > 0:
        return shell_before(options.randomise_at, halves)
    start = fsc.first_below(unmasked, options.randomise_at_fsc)
    if start < 0:
        raise InputError(
            f"the unmasked FSC of {halves.names[0]} and {halves.names[1]} never drops below {options.randomise_at_fsc:g} (--randomize_at_fsc), its "
            f"smallest value is {unmasked.min():.3f}: are these unfiltered halves of one gold-standard run? "
            "If they are, say where phases are to be randomised with --randomize_at_A"
        )
    return start


def shell_before(resolution: float, halves: HalfMaps) -> int:
    """The last shell at or before a resolution in Angstrom, at least 1 (RELION cuts the fraction off)."""
    return max(1, int(halves.box * halves.pixel_size / resolution))


def correct(masked: np.ndarray, randomised: np.ndarray, start: int) -> np.ndarray:
    """FSC without the mask's own share: (masked - random) / (1 - random), from two shells beyond the randomisation on (Chen et al. 2013)."""
    curve = masked.copy()
    tail = slice(start + 2, None)
    curve[tail] = (masked[tail] - randomised[tail]) / np.maximum(1 - randomised[tail], 1e-6)
    return curve


def of_particle(unmasked: np.ndarray, fraction: float) -> np.ndarray:
    """FSC of the particle alone, from the unmasked one and the factor by which the box exceeds it (Sindelar and Grigorieff 2012)."""
    return fraction * unmasked / (1 + (fraction - 1) * unmasked)


def last_shell(curve: np.ndarray, threshold: float = THRESHOLD) -> int:
    """Last shell before the curve first falls below the threshold: the resolution; Nyquist's when it never does."""
    below = fsc.first_below(curve, threshold)
    return len(curve) - 1 if below < 0 else below - 1


def resolution_of(shell: int, halves: HalfMaps) -> float:
    """Angstrom of a shell; 999 for shell 0."""
    return halves.box * halves.pixel_size / shell if shell > 0 else 999.0
