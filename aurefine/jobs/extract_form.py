"""The particle extraction job as RELION's GUI knows it (ALGORITHM.md 6.9, 10.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from aurefine.errors import InputError
from aurefine.jobs.form import NR_MPI, OTHER_ARGS, QUEUE, Form, JobType, other_arguments, yes
from aurefine.jobs.options import FormField

FORM = (
    FormField("star_mics", "micrograph STAR file:", "I/O", "", "file", flag="--i", required=True),
    FormField("coords_suffix", "Input coordinates:", "I/O", "", "file", flag="--coord_list"),
    FormField("do_reextract", "OR re-extract refined particles?", "I/O", "No", "bool", flag="--reextract_data_star", from_flag=lambda _: "Yes"),
    FormField("fndata_reextract", "Refined particles STAR file:", "I/O", "", "file", flag="--reextract_data_star"),
    FormField("do_reset_offsets", "Reset the refined offsets to zero?", "I/O", "No", "bool", flag="--reset_offsets"),
    FormField("do_recenter", "OR: re-center refined coordinates?", "I/O", "No", "bool", flag="--recenter"),
    FormField("recenter_x", "Re-center on X-coordinate (in pix):", "I/O", "0", "float", flag="--recenter_x"),
    FormField("recenter_y", "Re-center on Y-coordinate (in pix):", "I/O", "0", "float", flag="--recenter_y"),
    FormField("recenter_z", "Re-center on Z-coordinate (in pix):", "I/O", "0", "float", flag="--recenter_z"),
    FormField("do_float16", "Write output in float16?", "I/O", "Yes", "bool", flag="--float16", since=4),
    FormField("extract_size", "Particle box size (pix):", "extract", "128", "float", (64, 512, 8), flag="--extract_size"),
    FormField("do_invert", "Invert contrast?", "extract", "Yes", "bool", flag="--invert_contrast"),
    FormField("do_norm", "Normalize particles?", "extract", "Yes", "bool", flag="--norm"),
    FormField("bg_diameter", "Diameter background circle (pix):", "extract", "-1", "float", (-1, 600, 10)),
    FormField("white_dust", "Stddev for white dust removal:", "extract", "-1", "float", (-1, 10, 0.1), flag="--white_dust"),
    FormField("black_dust", "Stddev for black dust removal:", "extract", "-1", "float", (-1, 10, 0.1), flag="--black_dust"),
    FormField("do_rescale", "Rescale particles?", "extract", "No", "bool", flag="--scale", from_flag=lambda _: "Yes"),
    FormField("rescale", "Re-scaled size (pixels):", "extract", "128", "float", (64, 512, 8), flag="--scale"),
    FormField("do_fom_threshold", "Use autopick FOM threshold?", "extract", "No", "bool", since=4,
              flag="--minimum_pick_fom", from_flag=lambda _: "Yes"),
    FormField("minimum_pick_fom", "Minimum autopick FOM:", "extract", "0", "float", (-5, 10, 0.1), flag="--minimum_pick_fom", since=4),
    FormField("do_extract_helix", "Extract helical segments?", "Helix", "No", "bool", flag="--helix"),
    NR_MPI,
    *QUEUE,
    OTHER_ARGS,
)  # fmt: skip


_LARGEST = 1 << 14  # pixels: more than any micrograph has
_BOX, _RESCALED, _DIAMETER = (next(row for row in FORM if row.key == key) for key in ("extract_size", "rescale", "bg_diameter"))


def arguments_from_form(form: Form, directory: str) -> list[str]:
    """The command line (without the program's name) that RELION's GUI makes of a complete form, in its order (ALGORITHM.md 10.2).

    `directory` is the job's, with its slash. Raises InputError where the form contradicts itself.
    """
    if _pixels(form, _BOX) % 2:
        raise InputError(f"extract_size (Particle box size (pix)) is {form['extract_size']}, but an even number was expected")
    parts = ["--i", form["star_mics"], *_particles(form), "--part_star", f"{directory}particles.star"]
    parts += ["--pick_star", f"{directory}extractpick.star", "--part_dir", directory, "--extract", "--extract_size", form["extract_size"]]
    if yes(form, "do_fom_threshold") and not yes(form, "do_reextract"):
        parts += ["--minimum_pick_fom", form["minimum_pick_fom"]]
    parts += ["--float16"] if yes(form, "do_float16") else []
    parts += ["--scale", form["rescale"]] if yes(form, "do_rescale") else []
    if yes(form, "do_norm"):
        parts += ["--norm", "--bg_radius", str(_background_radius(form)), "--white_dust", form["white_dust"], "--black_dust", form["black_dust"]]
    parts += ["--invert_contrast"] if yes(form, "do_invert") else []
    parts += ["--helix"] if yes(form, "do_extract_helix") else []
    return parts + other_arguments(form, directory)


def _particles(form: Form) -> list[str]:
    if not yes(form, "do_reextract"):
        if not form["coords_suffix"]:
            raise InputError("coords_suffix (Input coordinates) is empty; give the coordinates, or do_reextract=Yes and fndata_reextract=...")
        return _coordinates(form["coords_suffix"])
    if not form["fndata_reextract"]:
        raise InputError("fndata_reextract (Refined particles STAR file) is empty; give it, for do_reextract is Yes")
    if yes(form, "do_reset_offsets") and yes(form, "do_recenter"):
        raise InputError("do_reset_offsets and do_recenter are both Yes; choose one of them")
    parts = ["--reextract_data_star", form["fndata_reextract"]]
    if yes(form, "do_recenter"):
        parts += ["--recenter", "--recenter_x", form["recenter_x"], "--recenter_y", form["recenter_y"], "--recenter_z", form["recenter_z"]]
    return parts + (["--reset_offsets"] if yes(form, "do_reset_offsets") else [])


_SUFFIX_FILE = "coords_suffix"  # RELION 3's picking jobs leave coords_suffix_autopick.star beside files whose names end with _autopick.star


def names_an_ending(name: str) -> bool:
    """Whether a file of picks stands, by its name, for the files that end as it does: RELION 3's, which is no STAR file in spite of its name."""
    return PurePosixPath(name).name.startswith(_SUFFIX_FILE)


def _coordinates(name: str) -> list[str]:
    if not names_an_ending(name):
        return ["--coord_list", name]
    folder, slash, file = name.rpartition("/")
    return ["--coord_dir", f"{folder}{slash}" or "./", "--coord_suffix", file.removeprefix(_SUFFIX_FILE)]


def _suffix_file(given: Mapping[str, list[str]]) -> str:
    """The file that stands for --coord_dir and --coord_suffix; "" where they are not given or the folder is the micrographs'."""
    folder, suffix = (" ".join(given.get(flag, ())) for flag in ("--coord_dir", "--coord_suffix"))
    return "" if folder in ("", "ASINPUT") or not suffix else str(PurePosixPath(folder) / f"{_SUFFIX_FILE}{suffix}")


def _node_meant(project: Path, flag: str, given: Mapping[str, list[str]]) -> str:
    """Of RELION 3's picks the file that stands for them, where it is there."""
    value = given[flag][0]
    if flag == "--coord_suffix":
        name = _suffix_file(given)
        return name if (project / name).is_file() else ""
    return "" if flag == "--coord_dir" and value == "ASINPUT" else value


def _background_radius(form: Form) -> int:
    """RELION's default is three quarters of the box; the radius is that of the rescaled box."""
    box, diameter = _pixels(form, _BOX), float(form["bg_diameter"])
    if diameter > _LARGEST:
        raise InputError(f"bg_diameter ({_DIAMETER.label.rstrip(':')}) is {form['bg_diameter']}, which is larger than any box")
    radius = 0.5 * (0.75 * box if diameter < 0 else diameter)
    return int(radius * _pixels(form, _RESCALED) / box if yes(form, "do_rescale") else radius)


def _pixels(form: Form, row: FormField) -> int:
    """The size that a row gives; InputError for one that no image has."""
    text = form[row.key]
    try:
        size = float(text)
    except ValueError:
        size = math.nan
    if not (2 <= size <= _LARGEST and size == int(size)):
        raise InputError(f"{row.key} ({row.label.rstrip(':')}) is {text}, but a whole number of pixels from 2 to {_LARGEST} was expected")
    return int(size)


def _read_back(given: dict[str, list[str]], form: Form) -> Form:
    """RELION 3's name for the picks, and the background's diameter."""
    picks = _suffix_file(given)
    return {**({"coords_suffix": picks} if picks else {}), **_diameter(given, form)}


def _diameter(given: dict[str, list[str]], form: Form) -> Form:
    """The background's diameter from its radius, which is in pixels of the rescaled box."""
    radius = " ".join(given.get("--bg_radius", ()))
    if not radius.isdecimal() or int(radius) == _background_radius(form):
        return {}
    scale = float(form["rescale"]) / float(form["extract_size"]) if yes(form, "do_rescale") else 1.0
    return {"bg_diameter": f"{math.ceil(2 * int(radius) / scale)}"}


def _outputs(form: Form, directory: str) -> list[tuple[str, str]]:
    nodes = [(f"{directory}particles.star", "ParticleGroupMetadata.star.relion")]
    if yes(form, "do_reextract"):
        label = "MicrographCoordsGroup.star.relion.reextract"
        nodes += [(f"{directory}extractpick.star", label), (f"{directory}reextract.star", label)]
    return nodes


def _label(form: Form) -> str:
    if yes(form, "do_extract_helix"):
        return "relion.extract.helical"
    return "relion.extract.reextract" if yes(form, "do_reextract") else "relion.extract"


JOB_TYPE = JobType(
    name="Extract", label="relion.extract", code=5, command="extract", fields=FORM, to_arguments=arguments_from_form, outputs=_outputs,
    places={"--part_star": "particles.star", "--pick_star": "extractpick.star", "--part_dir": ""},
    inputs={"--i": "MicrographGroupMetadata.star", "--coord_list": "MicrographCoordsGroup.star",
            "--coord_dir": "", "--coord_suffix": "MicrographCoordsGroup.star",
            "--reextract_data_star": "ParticleGroupMetadata.star"},
    full_label=_label,
    continued=lambda form, directory: [*arguments_from_form(form, directory), "--only_do_unfinished"],
    changeable=frozenset(row.key for row in FORM if row.tab == "Running"),  # particles that are there were made as the others say
    changeable_flags=frozenset({"--j"}),
    node_meant=_node_meant,
    read_back=_read_back,
)  # fmt: skip
