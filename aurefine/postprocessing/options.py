"""What post-processing can be told: RELION's options under readable names, with the defaults of its command line (ALGORITHM.md 9.2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aurefine.errors import InputError


@dataclass(frozen=True)
class PostprocessOptions:
    """Options of a post-processing or local-resolution job; lengths in Angstrom, B-factors in square Angstrom."""

    half1: str = ""
    half2: str = ""  # empty: half1's name with half1 replaced by half2
    output: str = "postprocess"
    pixel_size: float = -1.0  # negative: that of the header
    half_maps: bool = False
    mtf: str = ""
    mtf_pixel_size: float = -1.0  # of the detector; negative: that of the maps
    molecular_weight: float = -1.0  # kDa
    mask: str = ""
    force_mask: bool = False
    auto_bfactor: bool = False
    auto_lowres: float = 10.0
    auto_highres: float = 0.0
    adhoc_bfactor: float = 0.0
    skip_fsc_weighting: bool = False
    low_pass: float = 0.0  # 0: none; negative: at the final resolution
    local_resolution: bool = False
    local_sampling: float = 25.0
    local_mask_radius: float = -1.0  # negative: half the sampling
    local_edge_width: float = -1.0  # negative: the sampling
    local_randomise_at: float = 25.0
    local_worst: float = 50.0
    randomise_at_fsc: float = 0.8
    randomise_at: float = -1.0
    filter_edge_width: int = 2  # shells
    random_seed: int = 0
    threads: int = 0  # 0: all cores
    verbosity: int = 1
    overwrite: bool = False
    command_line: str = ""

    def outputs(self) -> list[Path]:
        """Every file that the job writes."""
        folder = Path(self.output).parent
        if self.local_resolution:
            histogram = [Path(f"{self.output}_histogram.png"), folder / "histogram.pdf"] if self.mask else []
            return [Path(f"{self.output}_locres{end}") for end in (".mrc", "_filtered.mrc", "_fscs.star")] + histogram
        halves = [f"_half{half}{masked}.mrc" for half in (1, 2) for masked in (("", "_masked") if self.mask else ("",))]
        ends = [".mrc", ".star", "_fsc.xml", "_fsc.png", "_guinier.png"] + (["_masked.mrc"] if self.mask else []) + (halves if self.half_maps else [])
        return [Path(f"{self.output}{end}") for end in ends] + [folder / "logfile.pdf"]

    @property
    def second_half(self) -> str:
        """The other half map: as given, or by RELION's names. InputError when the name says neither half1 nor half2."""
        if self.half2:
            return self.half2
        given = Path(self.half1)
        for one, other in (("half1", "half2"), ("half2", "half1")):
            if one in given.name:
                return str(given.with_name(given.name.replace(one, other)))
        raise InputError(f"--i {self.half1}: its name holds neither half1 nor half2, so the other half map cannot be guessed; name it with --i2")


def validate(options: PostprocessOptions) -> PostprocessOptions:
    """The options, if they make sense together; InputError names the flag and what to do."""
    if not options.half1:
        raise InputError("--i is missing: give one of the two unfiltered half maps, such as Refine3D/job019/run_half1_class001_unfil.mrc")
    if options.auto_bfactor and options.adhoc_bfactor != 0:
        raise InputError("--auto_bfac and --adhoc_bfac exclude each other: have the B-factor fitted, or give one, not both")
    if options.local_resolution and options.auto_bfactor:
        raise InputError("--locres takes no --auto_bfac: fit the B-factor of the whole map first, and give it with --adhoc_bfac")
    if options.pixel_size == 0 or options.mtf_pixel_size == 0:
        raise InputError("--angpix and --mtf_angpix must be above zero Angstrom per pixel; leave them out to take the header's")
    if options.auto_bfactor and options.auto_lowres <= options.auto_highres:
        raise InputError(f"--autob_lowres {options.auto_lowres:g} must be a coarser resolution (more Angstrom) than --autob_highres "
                         f"{options.auto_highres:g}")  # fmt: skip
    if options.filter_edge_width < 1:
        raise InputError(f"--filter_edge_width {options.filter_edge_width}: at least one shell was expected")
    _validate_local(options)
    return options


def _validate_local(options: PostprocessOptions) -> None:
    if not options.local_resolution:
        return
    for flag, value in (("--locres_sampling", options.local_sampling), ("--locres_minres", options.local_worst),
                        ("--locres_randomize_at", options.local_randomise_at)):  # fmt: skip
        if not value > 0:
            raise InputError(f"{flag} {value:g}: a length above zero Angstrom was expected")


def refuse_existing(options: PostprocessOptions) -> None:
    """InputError when a file of an earlier job would be replaced without having been asked for."""
    if options.overwrite:
        return
    for path in options.outputs():
        if path.exists():
            raise InputError(f"{path} exists already, and nothing is overwritten silently: choose another --o, or give --overwrite")
