"""What an extraction is asked to do, and the checks that need nothing but the options (ALGORITHM.md 7 and 10.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from aurefine.errors import InputError
from aurefine.threads import thread_count


@dataclass(frozen=True)
class ExtractOptions:
    """The options of an extraction; pixels unless said otherwise. Negative sizes mean "not asked for", as in RELION."""

    micrographs: str = ""
    coordinate_list: str = ""  # table of micrographs and their coordinate files
    coordinate_suffix: str = ""  # or: one file a micrograph, by its name
    coordinate_folder: str = "ASINPUT"
    refined_particles: str = ""  # or: the particles of a refinement
    reset_offsets: bool = False
    recenter: bool = False
    recenter_x: float = 0.0  # pixels of the reference, from its centre
    recenter_y: float = 0.0
    recenter_z: float = 0.0
    reference_pixel_size: float = -1.0  # Angstrom; negative: that of the particles
    keep_micrograph_ctfs: bool = False
    output_folder: str = "Particles/"
    particles_star: str = ""
    pick_star: str = ""
    box: int = -1
    rescale: int = -1
    window: int = -1
    minimum_fom: float | None = None
    bias_x: int = 0
    bias_y: int = 0
    premultiply_ctf: bool = False
    premultiply_box: int = -1
    ctf_intact_first_peak: bool = False
    phase_flip: bool = False
    normalise: bool = False
    ramp: bool = True
    background_radius: int = -1
    white_dust: float = -1.0
    black_dust: float = -1.0
    invert_contrast: bool = False
    float16: bool = False
    pixel_size: float = -1.0  # Angstrom of the micrographs, where their STAR file does not say
    only_unfinished: bool = False
    overwrite: bool = False
    threads: int = 0  # 0: every core this process may use

    @property
    def scaled_box(self) -> int:
        """Box after rescaling."""
        return self.rescale if self.rescale > 0 else self.box

    @property
    def final_box(self) -> int:
        """Box of the stacks."""
        return self.window if self.window > 0 else self.scaled_box

    @property
    def changes_ctf(self) -> bool:
        """Whether the windows are multiplied by their CTF or its sign."""
        return self.premultiply_ctf or self.phase_flip

    @property
    def ctf_box(self) -> int:
        """Box in which the CTF is applied."""
        return self.premultiply_box if self.premultiply_ctf and self.premultiply_box > 0 else self.box

    @property
    def workers(self) -> int:
        """Number of threads."""
        return thread_count(self.threads)


def validate(options: ExtractOptions) -> tuple[ExtractOptions, list[str]]:
    """The options with names and sizes filled in, and lines on what was changed; raises InputError for what cannot be."""
    notes: list[str] = []
    _check_inputs(options)
    options = replace(options, rescale=_even(options.rescale, "--scale", notes), window=_even(options.window, "--window", notes))
    _check_boxes(options)
    _check_normalisation(options)
    _check_ctf(options)
    folder = options.output_folder if options.output_folder.endswith("/") else options.output_folder + "/"
    star = options.particles_star or folder + "particles.star"
    for flag, name in (("--part_star", star), ("--pick_star", options.pick_star)):
        if name and Path(name).suffix != ".star":
            raise InputError(f"{flag} {name}: a name that ends in .star was expected")
    return replace(options, output_folder=folder, particles_star=star), notes


def _check_inputs(options: ExtractOptions) -> None:
    if not options.micrographs:
        raise InputError("--i is missing: the STAR file of the micrographs to extract from")
    ways = {
        "--coord_list": options.coordinate_list,
        "--coord_suffix": options.coordinate_suffix,
        "--reextract_data_star": options.refined_particles,
    }
    given = [flag for flag, value in ways.items() if value]
    if len(given) != 1:
        found = " and ".join(given) + " were given" if given else "none was given"
        raise InputError(f"where the particles are is said by one of {', '.join(ways)}; {found}")
    if options.reset_offsets and options.recenter:
        raise InputError("--reset_offsets and --recenter exclude each other: the first forgets the offsets that the second moves to; choose one")
    if not options.refined_particles:
        only = {"--reset_offsets": options.reset_offsets, "--recenter": options.recenter, "--keep_ctfs_micrographs": options.keep_micrograph_ctfs}
        for flag, on in only.items():
            if on:
                raise InputError(f"{flag} needs refined particles: give --reextract_data_star instead of {given[0]}")
    centre = (options.recenter_x, options.recenter_y, options.recenter_z)
    if any(centre) and not options.recenter:
        raise InputError("--recenter_x, _y and _z have no effect without --recenter; add it, or leave them out")
    if not all(map(math.isfinite, centre)):
        raise InputError(f"--recenter_x, _y, _z are {centre}: numbers of pixels were expected")


def _even(size: int, flag: str, notes: list[str]) -> int:
    """RELION makes odd sizes even by adding one."""
    if size <= 0 or size % 2 == 0:
        return size
    notes.append(f"{flag} {size} is odd; {size + 1} is used, because images must have an even size")
    return size + 1


def _check_boxes(options: ExtractOptions) -> None:
    if options.box <= 0:
        raise InputError("--extract_size is missing: the box of the particles in pixels of the micrograph")
    if options.box % 2:
        raise InputError(f"--extract_size {options.box} is odd; give an even number of pixels, such as {options.box + 1}")
    if options.rescale > options.box:
        raise InputError(
            f"--scale {options.rescale} is larger than --extract_size {options.box}: larger images hold nothing new; "
            "give a smaller --scale, or leave it out"
        )
    if options.pixel_size == 0 or not math.isfinite(options.pixel_size):
        raise InputError(f"--angpix {options.pixel_size:g}: a positive number of Angstrom was expected")


def _check_normalisation(options: ExtractOptions) -> None:
    if not options.normalise:
        return
    if options.background_radius <= 0:
        raise InputError(
            f"--norm needs --bg_radius, the radius in pixels of the circle around the particle, in the final box of {options.final_box}: "
            f"such as {int(0.375 * options.final_box)}"
        )
    if 2 * options.background_radius > options.final_box:
        raise InputError(
            f"--bg_radius {options.background_radius} leaves no background in the final box of {options.final_box} pixels; "
            f"give less than {options.final_box // 2} (it counts pixels after rescaling)"
        )


def _check_ctf(options: ExtractOptions) -> None:
    if options.premultiply_ctf and options.phase_flip:
        raise InputError("--premultiply_ctf and --phase_flip exclude each other; choose one")
    if options.premultiply_box > 0 and (options.premultiply_box < options.box or options.premultiply_box % 2):
        raise InputError(f"--premultiply_extract_size {options.premultiply_box}: expected an even number, not below --extract_size {options.box}")
    if (options.premultiply_box > 0 or options.ctf_intact_first_peak) and not options.premultiply_ctf:
        raise InputError("--premultiply_extract_size and --ctf_intact_first_peak have no effect without --premultiply_ctf; add it, or leave them out")
