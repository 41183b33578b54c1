"""The mask creation job as RELION's GUI knows it (ALGORITHM.md 6.9, 10.5)."""

from __future__ import annotations

from aurefine.errors import InputError
from aurefine.jobs.form import NR_THREADS, OTHER_ARGS, QUEUE, Form, JobType, other_arguments, yes
from aurefine.jobs.options import FormField


def _percent(fraction: str) -> str:
    try:
        return f"{float(fraction) * 100:g}"
    except ValueError as error:
        raise InputError(f"--z_percentage {fraction!r}: a number was expected") from error


FORM = (
    FormField("fn_in", "Input 3D map:", "I/O", "", "file", flag="--i", required=True),
    FormField("lowpass_filter", "Lowpass filter map (A):", "Mask", "15", "float", (10, 100, 5), flag="--lowpass", absent="-1"),
    FormField("angpix", "Pixel size (A):", "Mask", "-1", "float", (0.3, 5, 0.1), flag="--angpix"),
    FormField("inimask_threshold", "Initial binarisation threshold:", "Mask", "0.02", "float", (0, 0.5, 0.01), flag="--ini_threshold"),
    FormField("extend_inimask", "Extend binary map this many pixels:", "Mask", "3", "float", (0, 20, 1), flag="--extend_inimask"),
    FormField("width_mask_edge", "Add a soft-edge of this many pixels:", "Mask", "3", "float", (0, 20, 1), flag="--width_soft_edge"),
    FormField("do_helix", "Mask a 3D helix?", "Helix", "No", "bool", flag="--helix"),
    FormField("helical_z_percentage", "Central Z length (%):", "Helix", "30", "float", (5, 80, 1), flag="--z_percentage", from_flag=_percent),
    NR_THREADS,
    *QUEUE,
    OTHER_ARGS,
)


def arguments_from_form(form: Form, directory: str) -> list[str]:
    """The command line (without the program's name) that RELION's GUI makes of a complete form, in its order (ALGORITHM.md 10.5)."""
    parts = ["--i", form["fn_in"], "--o", f"{directory}mask.mrc"]
    parts += ["--lowpass", form["lowpass_filter"]] if float(form["lowpass_filter"]) > 0 else []
    parts += ["--angpix", form["angpix"]] if float(form["angpix"]) > 0 else []
    parts += ["--ini_threshold", form["inimask_threshold"], "--extend_inimask", form["extend_inimask"]]
    parts += ["--width_soft_edge", form["width_mask_edge"]]
    parts += ["--helix", "--z_percentage", f"{float(form['helical_z_percentage']) / 100:g}"] if yes(form, "do_helix") else []
    return [*parts, "--j", form["nr_threads"], *other_arguments(form, directory)]


JOB_TYPE = JobType(
    name="MaskCreate", label="relion.maskcreate", code=12, command="mask_create", fields=FORM, to_arguments=arguments_from_form,
    outputs=lambda form, directory: [(f"{directory}mask.mrc", "Mask3D.mrc.relion")],
    places={"--o": "mask.mrc"},
    inputs={"--i": "DensityMap.mrc"},
)  # fmt: skip
