"""The post-processing job as RELION's GUI knows it (ALGORITHM.md 6.9, 10.6)."""

from __future__ import annotations

from aurefine.jobs.form import OTHER_ARGS, QUEUE, Form, JobType, other_arguments, yes
from aurefine.jobs.options import FormField

FORM = (
    FormField("fn_in", "One of the 2 unfiltered half-maps:", "I/O", "", "file", flag="--i", required=True),
    FormField("fn_mask", "Solvent mask:", "I/O", "", "file", flag="--mask", required=True),
    FormField("angpix", "Calibrated pixel size (A)", "I/O", "-1", "float", (0.3, 5, 0.1), flag="--angpix"),
    FormField("do_auto_bfac", "Estimate B-factor automatically?", "Sharpen", "Yes", "bool", flag="--auto_bfac"),
    FormField("autob_lowres", "Lowest resolution for auto-B fit (A):", "Sharpen", "10", "float", (8, 15, 0.5), flag="--autob_lowres"),
    FormField("do_adhoc_bfac", "Use your own B-factor?", "Sharpen", "No", "bool", flag="--adhoc_bfac", from_flag=lambda _: "Yes"),
    FormField("adhoc_bfac", "User-provided B-factor:", "Sharpen", "-1000", "float", (-2000, 0, 50), flag="--adhoc_bfac"),
    FormField("fn_mtf", "MTF of the detector (STAR file)", "Sharpen", "", "file", flag="--mtf"),
    FormField("mtf_angpix", "Original detector pixel size:", "Sharpen", "1", "float", (0.3, 2, 0.1), flag="--mtf_angpix"),
    FormField("do_skip_fsc_weighting", "Skip FSC-weighting?", "Filter", "No", "bool", flag="--skip_fsc_weighting"),
    FormField("low_pass", "Ad-hoc low-pass filter (A):", "Filter", "5", "float", (1, 40, 1), flag="--low_pass"),
    *QUEUE,
    OTHER_ARGS,
)


def arguments_from_form(form: Form, directory: str) -> list[str]:
    """The command line (without the program's name) that RELION's GUI makes of a complete form, in its order (ALGORITHM.md 10.6)."""
    parts = ["--mask", form["fn_mask"], "--i", form["fn_in"], "--o", f"{directory}postprocess"]
    parts += ["--angpix", form["angpix"]]
    parts += ["--mtf", form["fn_mtf"], "--mtf_angpix", form["mtf_angpix"]] if form["fn_mtf"] else []
    parts += ["--auto_bfac", "--autob_lowres", form["autob_lowres"]] if yes(form, "do_auto_bfac") else []
    parts += ["--adhoc_bfac", form["adhoc_bfac"]] if yes(form, "do_adhoc_bfac") else []
    parts += ["--skip_fsc_weighting", "--low_pass", form["low_pass"]] if yes(form, "do_skip_fsc_weighting") else []
    return parts + other_arguments(form, directory)


def _outputs(form: Form, directory: str) -> list[tuple[str, str]]:
    return [
        (f"{directory}postprocess.mrc", "DensityMap.mrc.relion.postprocess"),
        (f"{directory}postprocess_masked.mrc", "DensityMap.mrc.relion.postprocess.masked"),
        (f"{directory}logfile.pdf", "LogFile.pdf.relion.postprocess"),
        (f"{directory}postprocess.star", "ProcessData.star.relion.postprocess"),
    ]


JOB_TYPE = JobType(
    name="PostProcess", label="relion.postprocess", code=15, command="postprocess", fields=FORM, to_arguments=arguments_from_form,
    outputs=_outputs,
    places={"--o": "postprocess"},
    inputs={"--mask": "Mask3D.mrc", "--i": "DensityMap.mrc.relion.halfmap"},
)  # fmt: skip
