"""Are the defocus values those of a microscope?"""

from __future__ import annotations

import numpy as np

from aurefine.particles import ParticleSet

_RANGE = (1000.0, 60000.0)  # Angstrom
_ASTIGMATISM = 0.25  # of the mean defocus
_FEWEST = 20


def check(particles: ParticleSet) -> list[str]:
    """Warnings about defocus values that are out of range, astigmatic beyond use, in another unit, or all the same."""
    table, rows, n = particles.defocus, particles.source_row, particles.count
    mean = (table.defocus_u + table.defocus_v) / 2
    if not mean.any():
        return []  # no CTF here at all, which is told where one is needed
    median = float(np.median(np.abs(mean)))
    if median < _RANGE[0] / 2:
        unit = "micrometres" if median < 10 else "nanometres"
        return [f"{particles.path}: rlnDefocusU is {median:g} in the middle; Angstrom were expected, such as 15000. Are these {unit}?"]
    warnings = []
    phase_plate = (table.phase_shift != 0).any()  # they are used in focus
    outside = np.flatnonzero((mean > _RANGE[1]) | ((mean < _RANGE[0]) & (not phase_plate)))
    if len(outside):
        worst = outside[0]
        warnings.append(f"{particles.path}: {len(outside)} of {n} particles have a defocus outside {_RANGE[0] / 1e4:g} to {_RANGE[1] / 1e4:g} um "
                        f"(row {rows[worst]}: {mean[worst] / 1e4:.2f} um): failed CTF fits, or underfocus with the wrong sign?")  # fmt: skip
    difference = np.abs(table.defocus_u - table.defocus_v)
    wrong = np.flatnonzero((difference > _ASTIGMATISM * np.abs(mean)) & (difference > _RANGE[0]))
    if len(wrong):
        row = wrong[0]
        warnings.append(f"{particles.path}: {len(wrong)} of {n} particles have an astigmatism of more than {100 * _ASTIGMATISM:.0f} % of their "
                        f"defocus (row {rows[row]}: {table.defocus_u[row]:.0f} and {table.defocus_v[row]:.0f} A): failed CTF fits?")  # fmt: skip
    if n >= _FEWEST and np.ptp(mean) == 0:
        warnings.append(f"{particles.path}: all particles have the same defocus, {mean[0] / 1e4:.2f} um: was the CTF estimated for each micrograph?")
    return warnings
