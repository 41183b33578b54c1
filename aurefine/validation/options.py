"""What a validation can be told."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aurefine.errors import InputError

FILES = ("validation.star", "validation.json", "validation.png", "validation.pdf", "3dfsc.mrc", "model_fitted.cif")


@dataclass(frozen=True)
class ValidateOptions:
    """Options of a validation; lengths in Angstrom, angles in degrees."""

    run: str = ""  # job directory, root of the run's names, one of its STAR files, or a half map
    output: str = "validation"  # folder
    data: str = ""  # particles; empty: those of the run
    half2: str = ""  # empty: half1's name with half1 replaced by half2
    mask: str = ""
    pixel_size: float = -1.0  # negative: that of the header
    symmetry: str = ""  # empty: that of the run
    cone: float = 20.0  # half-angle
    fourier_radius: int = 50  # shell on which orientations are counted
    skip_reslog: bool = False
    model: str = ""  # mmCIF or PDB
    fit_model: bool = False  # moved to where it fits, instead of as it stands
    reference_map: str = ""  # of the same molecule, for its hand
    skip_hand: bool = False
    noise_substitution: bool = False
    substitute_from: float = 0.0  # 0: where the masked FSC falls below 0.8
    substitute_from_start: bool = False  # the whole refinement again, not only its local searches
    random_seed: int = 0
    threads: int = 0  # 0: all cores
    overwrite: bool = False
    command_line: str = ""
    read_command_line: Callable[[list[str]], Mapping[str, Any]] | None = None  # words of a refinement to fields of RefineOptions

    def path(self, name: str) -> Path:
        """A file of the output folder."""
        return Path(self.output) / name

    def seeded(self) -> ValidateOptions:
        """The same options with a seed from the clock in place of a negative one."""
        return self if self.random_seed >= 0 else replace(self, random_seed=int(time.time()))


def check(options: ValidateOptions) -> ValidateOptions:
    """The options, if they make sense; InputError names the flag and what to do."""
    if not options.run:
        raise InputError("--i is missing: give the directory of a refinement, such as Refine3D/job019, or one of its two unfiltered half maps")
    if options.pixel_size == 0:
        raise InputError("--angpix must be above zero Angstrom per pixel; leave it out to take the header's")
    if not 5 <= options.cone <= 60:
        raise InputError(f"--cone {options.cone:g}: a half-angle from 5 to 60 degrees was expected (20 is the published one)")
    if not 5 <= options.fourier_radius <= 500:
        raise InputError(f"--fourier_radius {options.fourier_radius}: a shell from 5 to 500 was expected (50 is the published one)")
    if options.substitute_from < 0:
        raise InputError(f"--substitute_from {options.substitute_from:g}: a resolution in Angstrom was expected, or 0 to have it chosen")
    if (options.substitute_from or options.substitute_from_start) and not options.noise_substitution:
        raise InputError("--substitute_from and --substitute_from_start belong to --noise_substitution, which was not given")
    if options.data and not Path(options.data).is_file():
        raise InputError(f"--data {options.data}: there is no such file; names are relative to {Path.cwd()}")
    if not options.overwrite:
        for each in FILES:
            if options.path(each).exists():
                raise InputError(f"{options.path(each)} exists already, and nothing is overwritten silently: choose another --o, or give --overwrite")
    return options
