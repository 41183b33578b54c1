"""The validation job as a form. RELION's GUI has none: it shows these jobs as its External ones (external_form.py)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from aurefine.jobs.form import NR_THREADS, OTHER_ARGS, QUEUE, Form, JobType, other_arguments, yes
from aurefine.jobs.options import FormField

FORM = (
    FormField("fn_half", "One of the 2 unfiltered half-maps:", "I/O", "", "file", flag="--i", required=True),
    FormField("fn_mask", "Solvent mask:", "I/O", "", "file", flag="--mask"),
    FormField("fn_atoms", "Atomic model (mmCIF or PDB):", "I/O", "", "file", flag="--model"),
    FormField("fn_hand", "Reference map of known hand:", "I/O", "", "file", flag="--reference_map"),
    FormField("angpix", "Calibrated pixel size (A)", "I/O", "-1", "float", (0.3, 5, 0.1), flag="--angpix"),
    FormField("do_fit_model", "Move the model to where it fits?", "Model", "No", "bool", flag="--fit_model"),
    FormField("do_hand", "Check the hand?", "Model", "Yes", "bool", flag="--skip_hand", inverted=True),
    FormField("point_group", "Symmetry (empty: of the refinement):", "Directions", "", flag="--sym"),
    FormField("cone_angle", "Half-angle of the cones (deg):", "Directions", "20", "float", (5, 60, 1), flag="--cone"),
    FormField("fourier_radius", "Fourier radius of the sampling:", "Directions", "50", "float", (5, 500, 1), flag="--fourier_radius"),
    FormField("do_reslog", "Resolution by number of particles?", "Particles", "Yes", "bool", flag="--skip_reslog", inverted=True),
    FormField("do_substitution", "Noise-substitution test?", "Particles", "No", "bool", flag="--noise_substitution"),
    FormField("substitute_from", "Random phases from (A):", "Particles", "0", "float", (0, 50, 1), flag="--substitute_from"),
    FormField("do_from_start", "Repeat the whole refinement?", "Particles", "No", "bool", flag="--substitute_from_start"),
    NR_THREADS,
    *QUEUE,
    OTHER_ARGS,
)


def arguments_from_form(form: Form, directory: str) -> list[str]:
    """The command line, without the program's name, of a complete form."""
    parts = ["--i", form["fn_half"], "--o", directory]
    for key, flag in (("fn_mask", "--mask"), ("fn_atoms", "--model"), ("fn_hand", "--reference_map"), ("point_group", "--sym")):
        parts += [flag, form[key]] if form[key] else []
    parts += ["--angpix", form["angpix"]] if float(form["angpix"]) > 0 else []
    parts += ["--fit_model"] if yes(form, "do_fit_model") else []
    parts += [] if yes(form, "do_hand") else ["--skip_hand"]
    parts += ["--cone", form["cone_angle"], "--fourier_radius", form["fourier_radius"]]
    parts += [] if yes(form, "do_reslog") else ["--skip_reslog"]
    if yes(form, "do_substitution"):
        parts += ["--noise_substitution", "--substitute_from", form["substitute_from"]]
        parts += ["--substitute_from_start"] if yes(form, "do_from_start") else []
    return [*parts, "--j", form["nr_threads"], *other_arguments(form, directory)]


_HALF = "_half1_class001_unfil.mrc"
_TABLES = ("_data.star", "_optimiser.star", "_model.star", "_sampling.star")


def half_map_meant(project: Path, flag: str, given: Mapping[str, list[str]]) -> str:
    """The half map that a refinement's directory, root of names or STAR file stands for; the flag's value itself where none is there."""
    value = given[flag][0]
    if flag != "--i" or value.endswith(".mrc"):
        return value
    name = PurePosixPath(value)
    if (project / name).is_dir():
        found = sorted((project / name).glob(f"*{_HALF}"))
        return str(name / found[0].name) if found else value
    stem = next((value.removesuffix(end) for end in _TABLES if value.endswith(end)), value)
    return stem + _HALF if (project / (stem + _HALF)).is_file() else value


JOB_TYPE = JobType(
    name="Validation", label="relion.external", code=99, command="validate", fields=FORM, to_arguments=arguments_from_form,
    outputs=lambda form, directory: [(f"{directory}validation.pdf", "LogFile.pdf.relion.external")],
    places={"--o": ""},
    inputs={"--i": "", "--mask": "Mask3D.mrc", "--reference_map": "DensityMap.mrc"},
    node_meant=half_map_meant,
)  # fmt: skip
