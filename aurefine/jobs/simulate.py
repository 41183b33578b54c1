"""The simulate job: particles with known poses from an atomic model, a map or a generated molecule, as a RELION project's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurefine.errors import InputError
from aurefine.jobs.options import Option
from aurefine.jobs.outputs import OVERWRITE, free

if TYPE_CHECKING:
    from aurefine.imaging import Camera, Imaging
    from aurefine.simulate import Source

NAME = "simulate"
SUMMARY = "Make particles, or micrographs of particles, with known poses, and the truth to compare with, from a molecule, an atomic model or a map."
OPTIONS = (
    Option("output", "--o", "Folder to write particles.star, truth.star, truth.mrc, reference.mrc and Particles/ into", "I/O", "", "file"),
    OVERWRITE,
    Option("model", "--model", "Atomic model (.cif, .pdb; needs gemmi); its axes are kept", "Molecule", "", "file"),
    Option("map", "--map", "Map to image (.mrc)", "Molecule", "", "file"),
    Option("symmetry", "--sym", "Point group of the generated molecule", "Molecule", "D2"),
    Option("shape_seed", "--molecule_seed", "Seed of the generated molecule", "Molecule", 1, "int"),
    Option("particles", "--n", "Number of particles", "Particles", 1000, "int"),
    Option("box", "--box", "Box in pixels; several, joined by commas, make several optics groups", "Particles", "64"),
    Option("pixel_size", "--angpix", "Pixel size; several, joined by commas, make several optics groups", "Particles", "4.976", unit="A"),
    Option("particle_diameter", "--particle_diameter", "Background starts here; 0: 1.1 times the particle's", "Particles", 0.0, "float", unit="A"),
    Option("offset", "--offset", "Standard deviation of the centring error", "Particles", 4.0, "float", unit="A"),
    Option("preferred", "--preferred", "Share of the particles that view along one direction", "Particles", 0.0, "float"),
    Option("preferred_rot", "--preferred_rot", "Rot of that direction, degrees", "Particles", 0.0, "float"),
    Option("preferred_tilt", "--preferred_tilt", "Tilt of that direction, degrees", "Particles", 0.0, "float"),
    Option("snr", "--snr", "Signal over noise variance per pixel within the particle, in the first optics group", "Image", 0.25, "float"),
    Option("b_factor", "--bfactor", "B-factor", "Image", 80.0, "float", unit="A^2"),
    Option("voltage", "--kV", "Acceleration voltage", "Image", 200.0, "float", unit="kV"),
    Option("spherical_aberration", "--cs", "Spherical aberration", "Image", 1.4, "float", unit="mm"),
    Option("amplitude_contrast", "--q0", "Amplitude contrast", "Image", 0.1, "float"),
    Option("defocus_min", "--defocus_min", "Smallest defocus of a micrograph", "Image", 8000.0, "float", unit="A"),
    Option("defocus_max", "--defocus_max", "Largest defocus of a micrograph", "Image", 20000.0, "float", unit="A"),
    Option("astigmatism", "--astigmatism", "Largest astigmatism", "Image", 300.0, "float", unit="A"),
    Option("particles_per_micrograph", "--per_micrograph", "Particles per micrograph", "Image", 50, "int"),
    Option("grey_scale_spread", "--grey_scale_spread", "Relative spread of the micrographs' grey scale", "Image", 0.1, "float"),
    Option("micrographs", "--micrographs", "Write micrographs with coordinates and CTF values instead of particles; changes the defaults to "
           "--box 360 --angpix 0.885; --snr is then that of the same exposure in pixels of 4.976 A", "Micrographs", False, "switch"),
    Option("micrograph_size", "--micrograph_size", "Columns and rows of a micrograph", "Micrographs", "3838,3710"),
    Option("map_box", "--map_box", "Box of truth.mrc and reference.mrc, as wide as --box; 0: the same as --box", "Micrographs", 0, "int"),
    Option("pure_noise", "--noise_particles", "Number of particles (with --micrographs: of picks) that are noise only", "Outliers", 0, "int"),
    Option("blank", "--blank_particles", "Number of particles that are zero everywhere", "Outliers", 0, "int"),
    Option("not_a_number", "--nan_particles", "Number of particles with NaN pixels", "Outliers", 0, "int"),
    Option("float16", "--float16", "Write images in 16-bit floats", "Output", False, "switch"),
    Option("reference_resolution", "--ref_resolution", "Resolution of reference.mrc", "Output", 30.0, "float", unit="A"),
    Option("seed", "--random_seed", "Seed of poses and noise; the same seed gives the same files", "Output", 0, "int"),
)
_DIRECT = ("particles", "offset", "preferred", "snr", "b_factor", "voltage", "spherical_aberration", "amplitude_contrast", "astigmatism",
           "particles_per_micrograph", "grey_scale_spread", "pure_noise", "blank", "not_a_number", "float16", "reference_resolution", "seed")
_SNR_PIXEL_SIZE = 4.976  # Angstrom: micrographs' --snr says how strong the exposure is, whatever their own pixel size
_MICROGRAPH_DEFAULTS = {"box": "360", "pixel_size": "0.885"}


def run(values: Mapping[str, Any], arguments: Sequence[str] = ()) -> int:
    """Write the set that `values` ask for; returns the exit code. Raises InputError for a user's mistake."""
    from aurefine.simulate import simulate

    if not values.get("output"):
        raise InputError("aurefine simulate: --o is missing; name the folder to write the particles into")
    given = {option.name: option.default for option in OPTIONS} | dict(values)
    for name in ("truth.star", "truth.mrc", "micrographs_ctf.star" if given["micrographs"] else "particles.star"):
        free(Path(given["output"]) / name, given["overwrite"])
    if given["micrographs"]:
        return _run_micrographs({**given, **_MICROGRAPH_DEFAULTS, **values})
    made = simulate(_source(given), Path(given["output"]), _imaging(given))
    print(f" Particles: {made.particles} ({given['particles']} images)\n Truth: {made.truth}, {made.truth_map}\n Reference: {made.reference}\n"
          f" Refine with: --particle_diameter {made.particle_diameter:.0f}{_symmetry(given)}")
    return 0


def _run_micrographs(given: Mapping[str, Any]) -> int:
    from aurefine.imaging import Camera
    from aurefine.micrographs import Field, simulate_micrographs
    from aurefine.refine.console import Console

    imaging = _imaging(given)
    camera = imaging.cameras[0]
    imaging = replace(imaging, cameras=(Camera(_SNR_PIXEL_SIZE, camera.box), *imaging.cameras[1:])).recorded_with(camera)
    field = Field(_size(given["micrograph_size"]), given["map_box"])
    micrographs = -(-given["particles"] // max(1, given["particles_per_micrograph"]))
    with Console().progress(f" Simulating {micrographs} micrographs ...", micrographs) as bar:
        made = simulate_micrographs(_source(given), Path(given["output"]), imaging, field, lambda done, total: bar.update(done))
    print(f" Micrographs: {made.micrographs} ({made.count} of them)\n Coordinates: {made.coordinates} ({given['particles']} particles)\n"
          f" Truth: {made.truth}, {made.truth_map}\n Reference: {made.reference}\n MTF: {made.mtf}\n"
          f" Extract with: --i {made.micrographs.name} --coord_list {made.coordinates.name} --extract_size {camera.box} (in {given['output']})\n"
          f" Refine with: --particle_diameter {made.particle_diameter:.0f}{_symmetry(given)}")
    return 0


def _symmetry(given: Mapping[str, Any]) -> str:
    return "" if given["model"] or given["map"] else f" --sym {given['symmetry']}"


def _size(text: str) -> tuple[int, int]:
    """Columns and rows from `3838,3710`; a single number makes a square."""
    try:
        numbers = [int(part) for part in str(text).replace("x", ",").split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or min(numbers) < 16:
        raise InputError(f"aurefine simulate: --micrograph_size {text}: columns and rows joined by a comma were expected, such as 3838,3710")
    return numbers[0], numbers[-1]


def _source(given: Mapping[str, Any]) -> Source:
    from aurefine import molecule, mrc
    from aurefine.simulate import MapSource

    if given["model"] and given["map"]:
        raise InputError("aurefine simulate: --model and --map were both given; choose one of them")
    if given["model"]:
        return molecule.from_model(given["model"])
    if given["map"]:
        return MapSource(*mrc.read_map(given["map"]), given["particle_diameter"] or None)
    if given["shape_seed"] < 0:
        raise InputError(f"aurefine simulate: --molecule_seed {given['shape_seed']}: a number of at least 0 was expected")
    return molecule.generate(given["symmetry"], given["shape_seed"])


def _imaging(given: Mapping[str, Any]) -> Imaging:
    from aurefine.imaging import Imaging

    return Imaging(
        **{name: given[name] for name in _DIRECT},
        cameras=_cameras(given["box"], given["pixel_size"]),
        defocus=(given["defocus_min"], given["defocus_max"]),
        preferred_view=(given["preferred_rot"], given["preferred_tilt"]),
        particle_diameter=given["particle_diameter"] or None,
    )


def _cameras(boxes: str, pixel_sizes: str) -> tuple[Camera, ...]:
    """Optics groups from comma-joined lists; a single value serves all groups."""
    from aurefine.imaging import Camera, check_cameras

    try:
        box = [int(text) for text in str(boxes).split(",")]
        size = [float(text) for text in str(pixel_sizes).split(",")]
    except ValueError:
        raise InputError(f"aurefine simulate: --box {boxes} and --angpix {pixel_sizes}: numbers joined by commas were expected") from None
    groups = max(len(box), len(size))
    if not {len(box), len(size)} <= {1, groups}:
        raise InputError(f"aurefine simulate: --box has {len(box)} values, --angpix {len(size)}; give as many of both, or one")
    cameras = tuple(Camera(a, n) for a, n in zip(size * (groups // len(size)), box * (groups // len(box))))
    check_cameras(cameras)
    return cameras
