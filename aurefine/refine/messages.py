"""The lines that RELION's auto-refine prints, to the letter (ALGORITHM.md 6.3), as functions of the refinement's state.

Numbers are printed as C++ prints them by default: six significant digits, which is Python's format "g".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from aurefine.refine.plan import Grid
from aurefine.refine.state import Progress, SamplingState

POOR_ACCURACY = 10.0  # degrees
_SPURIOUS_ADVICE = "Sometimes it is better to tune resolution yourself by adjusting T in a 3D-classification with a single class."


def angstrom(resolution: float) -> float:
    """A resolution in 1/Angstrom as Angstrom; 0 (no resolution yet) is infinite, as RELION prints it."""
    return 1.0 / resolution if resolution > 0 else math.inf


def iteration_lines(iteration: int, progress: Progress) -> list[str]:
    """How matters stand at the start of `iteration`; `progress` is that of the iteration before."""
    return [
        f" Auto-refine: Iteration= {iteration}",
        f" Auto-refine: Resolution= {angstrom(progress.current_resolution):g} (no gain for {progress.iterations_without_resolution_gain} iter) ",
        f" Auto-refine: Changes in angles= {progress.changes_angles:g} degrees; and in offsets= {progress.changes_offsets:g}"
        f" Angstroms (no gain for {progress.iterations_without_large_changes} iter) ",
    ]


def convergence_lines() -> list[str]:
    """Said once, at the start of the last iteration."""
    return [
        " Auto-refine: Refinement has converged, entering last iteration where two halves will be combined...",
        " Auto-refine: The last iteration will use data to Nyquist frequency, which may take more CPU and RAM.",
    ]


def accuracy_title() -> str:
    """The title of the progress bar of the accuracy estimation."""
    return " Estimating accuracies in the orientational assignment ... "


def accuracy_lines(iteration: int, rotation: float, translation: float) -> list[str]:
    """The estimated accuracy (degrees, Angstrom) with a warning where it is poor."""
    lines = [f" Auto-refine: Estimated accuracy angles= {rotation:g} degrees; offsets= {translation:g} Angstroms"]
    if rotation > POOR_ACCURACY:
        warning = " Auto-refine: WARNING: "
        lines += [
            f"{warning}Iter = {iteration} The angular accuracy is worse than 10 degrees, so basically you cannot align your particles (yet)!",
            f"{warning}You probably need not worry if the accuracy improves during the next few iterations.",
            f"{warning}However, if the problem persists it may lead to spurious FSC curves, so be wary of inflated resolution estimates...",
            f"{warning}{_SPURIOUS_ADVICE}",
        ]
    return lines


def sampling_lines(sampling: SamplingState) -> list[str]:
    """The fine steps of this iteration."""
    step = sampling.offset_step / 2**sampling.oversampling
    return [
        f" Auto-refine: Angular step= {sampling.fine_step:g} degrees; local searches= {'true' if sampling.local else 'false'}",
        f" Auto-refine: Offset search range= {sampling.offset_range:g} Angstroms; offset step= {step:g} Angstroms",
    ]


def required_sampling(resolution: float, diameter: float) -> float:
    """The angular step in degrees that a resolution (1/Angstrom) asks for at the rim of a particle of this diameter (Angstrom)."""
    return 360.0 / max(1, math.ceil(math.pi * diameter * resolution))


def resolution_line(resolution: float, diameter: float) -> str:
    """The current resolution (1/Angstrom) and the angular step that it asks for."""
    return (
        f" CurrentResolution= {angstrom(resolution):g} Angstroms, which requires orientationSampling of at least "
        f"{required_sampling(resolution, diameter):g} degrees for a particle of diameter {diameter:g} Angstroms"
    )


def grid_lines(grid: Grid, orientations: int) -> list[str]:
    """The size of the coarse grid (`orientations` of one particle times all translations) and of each finer one."""
    sampling, translations, lines = grid.state, len(grid.coarse_shifts), []
    for order in range(max(grid.rotation_oversampling, grid.shift_oversampling) + 1):
        turned, moved = min(order, grid.rotation_oversampling), min(order, grid.shift_oversampling)
        rotations, shifts = orientations * 8**turned, translations * 4**moved
        lines += [
            f" Oversampling= {order} NrHiddenVariableSamplingPoints= {rotations * shifts}",
            f" OrientationalSampling= {sampling.coarse_step / 2**turned:g} NrOrientations= {rotations}",
            f" TranslationalSampling= {sampling.offset_step / 2**moved:g} NrTranslations= {shifts}",
            "=============================",
        ]
    return lines


def expectation_title(iteration: int) -> str:
    """The title of the progress bar of the expectation step."""
    return f" Expectation iteration {iteration}"


def maximisation_title() -> str:
    """The title of the progress bar of the maximisation step."""
    return " Maximization..."


def noise_title(particles: int) -> str:
    """The title of the progress bar of the initial noise spectra; `particles` of each optics group are looked at."""
    return f" Estimating initial noise spectra from at most {particles} particles "


def joining_lines(resolution: float) -> list[str]:
    """The halves share their map up to this resolution (Angstrom)."""
    return [
        f" Averaging half-reconstructions up to {resolution:g} Angstrom resolution to prevent diverging orientations ...",
        " Note that only for higher resolutions the FSC-values are according to the gold-standard!",
    ]


def fsc_line() -> str:
    """Before the FSC between the halves."""
    return " Calculating gold-standard FSC ..."


def warning_lines(warnings: Sequence[str], title: str = "Warnings of this run") -> list[str]:
    """A table of warnings, one line each; nothing without any."""
    if not warnings:
        return []
    return [f" {title}: {len(warnings)}", *(f"  {number}. {warning}" for number, warning in enumerate(warnings, 1))]


def final_lines(
    root: str, resolution: float, accuracy_rotation: float, *, tau2_fudge: float = 1.0, solvent_fsc: bool = False, other_images: bool = False
) -> list[str]:
    """The end of a converged run: its files, its resolution (1/Angstrom), and how far to believe it; `other_images`: the last maps are of others."""
    start = " Auto-refine: + "
    lines = [
        " Auto-refine: Refinement has converged, stopping now... ",
        f"{start}Final reconstruction from all particles is saved as: {root}_class001.mrc",
        f"{start}Final model parameters are stored in: {root}_model.star",
        f"{start}Final data parameters are stored in: {root}_data.star",
    ]
    lines += [start + line for line in _verdict(resolution, tau2_fudge, solvent_fsc)]
    if accuracy_rotation > POOR_ACCURACY:
        warning = f"{start}WARNING: "
        lines += [
            f"{warning}The angular accuracy is worse than 10 degrees, so basically you cannot align your particles!",
            f"{warning}This has been observed to lead to spurious FSC curves, so be VERY wary of inflated resolution estimates...",
            f"{warning}You most probably do NOT want to publish these results!",
            f"{warning}{_SPURIOUS_ADVICE}",
        ]
    if other_images:
        lines.append(
            f"{start}Used rlnReconstructImageName images for final reconstruction. "
            "Ignore filtered map, and only assess the unfiltered half-reconstructions!"
        )
    return lines


def _verdict(resolution: float, tau2_fudge: float, solvent_fsc: bool) -> Sequence[str]:
    if tau2_fudge > 1:
        return (
            f"SEVERE WARNING: Because you used a tau2_fudge of {tau2_fudge:g} your resolution during this refinement will be inflated!",
            "SEVERE WARNING: You have to run a postprocessing on the unfil.mrc maps to get a gold-standard resolution estimate!",
        )
    if solvent_fsc:
        return (f"Final resolution (already with masking) is: {angstrom(resolution):g}",)
    return (
        f"Final resolution (without masking) is: {angstrom(resolution):g}",
        "But you may want to run relion_postprocess to mask the unfil.mrc maps and calculate a higher resolution FSC",
    )
