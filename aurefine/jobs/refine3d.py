"""The 3D auto-refine job: RELION's form (ALGORITHM.md 10.1), its command line, and the run itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurefine.errors import InputError
from aurefine.jobs.options import FormField, parse
from aurefine.jobs.refine3d_flags import FLAGS
from aurefine.refine.options import RefineOptions, notes, validate

if TYPE_CHECKING:
    from aurefine.job_control import JobControl

NAME = "refine"
SUMMARY = "Refine a 3D map to convergence from single particles, with RELION's own options and files."
OPTIONS = FLAGS

_STEPS = ("30 degrees", "15 degrees", "7.5 degrees", "3.7 degrees", "1.8 degrees", "0.9 degrees", "0.5 degrees", "0.2 degrees", "0.1 degrees")

FORM = (
    FormField("fn_img", "Input images STAR file:", "I/O", "", "file"),
    FormField("fn_cont", "Continue from here:", "I/O", "", "file"),
    FormField("fn_ref", "Reference map:", "I/O", "", "file"),
    FormField("fn_mask", "Reference mask (optional):", "I/O", "", "file"),
    FormField("ref_correct_greyscale", "Ref. map is on absolute greyscale?", "Reference", "No", "bool"),
    FormField("trust_ref_size", "Resize reference if needed?", "Reference", "Yes", "bool"),
    FormField("ini_high", "Initial low-pass filter (A):", "Reference", "60", "float", (0, 200, 5)),
    FormField("sym_name", "Symmetry:", "Reference", "C1"),
    FormField("do_ctf_correction", "Do CTF-correction?", "CTF", "Yes", "bool"),
    FormField("ctf_intact_first_peak", "Ignore CTFs until first peak?", "CTF", "No", "bool"),
    FormField("particle_diameter", "Mask diameter (A):", "Optimisation", "200", "float", (0, 1000, 10)),
    FormField("do_zero_mask", "Mask individual particles with zeros?", "Optimisation", "Yes", "bool"),
    FormField("do_solvent_fsc", "Use solvent-flattened FSCs?", "Optimisation", "No", "bool"),
    FormField("do_blush", "Use Blush regularisation?", "Optimisation", "No", "bool"),
    FormField("sampling", "Initial angular sampling:", "Auto-sampling", "7.5 degrees", "choice", choices=_STEPS),
    FormField("offset_range", "Initial offset range (pix):", "Auto-sampling", "5", "float", (0, 30, 1)),
    FormField("offset_step", "Initial offset step (pix):", "Auto-sampling", "1", "float", (0.1, 5, 0.1)),
    FormField("auto_local_sampling", "Local searches from auto-sampling:", "Auto-sampling", "1.8 degrees", "choice", choices=_STEPS),
    FormField("relax_sym", "Relax symmetry:", "Auto-sampling", ""),
    FormField("auto_faster", "Use finer angular sampling faster?", "Auto-sampling", "No", "bool"),
    FormField("do_helix", "Do helical reconstruction?", "Helix", "No", "bool"),
    FormField("do_parallel_discio", "Use parallel disc I/O?", "Compute", "Yes", "bool"),
    FormField("nr_pool", "Number of pooled particles:", "Compute", "3", "float", (1, 16, 1)),
    FormField("do_pad1", "Skip padding?", "Compute", "No", "bool"),
    FormField("do_preread_images", "Pre-read all particles into RAM?", "Compute", "No", "bool"),
    FormField("scratch_dir", "Copy particles to scratch directory:", "Compute", "", "file"),
    FormField("do_combine_thru_disc", "Combine iterations through disc?", "Compute", "No", "bool"),
    FormField("use_gpu", "Use GPU acceleration?", "Compute", "No", "bool"),
    FormField("gpu_ids", "Which GPUs to use:", "Compute", ""),
    FormField("nr_threads", "Number of threads:", "Running", "1", "float", (1, 64, 1)),
    FormField("other_args", "Additional arguments:", "Running", ""),
)
_FORM_DEFAULTS = {field.key: field.default for field in FORM}


def arguments_from_form(values: Mapping[str, str], output: str) -> list[str]:
    """The command line (without the program's name) that RELION's GUI makes of a `job.star`, in its order (ALGORITHM.md 10.1).

    `values` maps the keys of `FORM` to texts, missing keys take their default; `output` is the root of the output names.
    """
    form = {**_FORM_DEFAULTS, **values}

    def yes(key: str) -> bool:
        return form[key].strip().lower() in ("yes", "true", "1")

    parts = ["--o", output, "--auto_refine", "--split_random_halves", "--i", form["fn_img"], "--ref", form["fn_ref"]]
    parts += [] if yes("ref_correct_greyscale") else ["--firstiter_cc"]
    parts += ["--trust_ref_size"] if yes("trust_ref_size") else []
    parts += ["--ini_high", form["ini_high"]] if float(form["ini_high"]) > 0 else []
    parts += ["--blush"] if yes("do_blush") else []
    parts += _compute_arguments(form, yes)
    parts += ["--auto_ignore_angles", "--auto_resol_angles"] if yes("auto_faster") else []
    if yes("do_ctf_correction"):
        parts += ["--ctf"] + (["--ctf_intact_first_peak"] if yes("ctf_intact_first_peak") else [])
    parts += ["--particle_diameter", form["particle_diameter"], "--flatten_solvent"]
    parts += ["--zero_mask"] if yes("do_zero_mask") else []
    if form["fn_mask"]:
        parts += ["--solvent_mask", form["fn_mask"]] + (["--solvent_correct_fsc"] if yes("do_solvent_fsc") else [])
    parts += _sampling_arguments(form)
    parts += ["--helix"] if yes("do_helix") else []
    parts += ["--relax_sym", form["relax_sym"]] if form["relax_sym"] else []
    parts += ["--j", form["nr_threads"]]
    parts += ["--gpu", form["gpu_ids"]] if yes("use_gpu") else []
    return parts + form["other_args"].split()


def _compute_arguments(form: Mapping[str, str], yes: Any) -> list[str]:
    parts = [] if yes("do_combine_thru_disc") else ["--dont_combine_weights_via_disc"]
    parts += [] if yes("do_parallel_discio") else ["--no_parallel_disc_io"]
    if yes("do_preread_images"):
        parts += ["--preread_images"]
    elif form["scratch_dir"]:
        parts += ["--scratch_dir", form["scratch_dir"]]
    return [*parts, "--pool", form["nr_pool"], "--pad", "1" if yes("do_pad1") else "2"]


def _sampling_arguments(form: Mapping[str, str]) -> list[str]:
    step = 2 * float(form["offset_step"])  # the form asks for the step after one oversampling
    return [
        "--oversampling", "1", "--healpix_order", _order(form["sampling"]), "--auto_local_healpix_order", _order(form["auto_local_sampling"]),
        "--offset_range", form["offset_range"], "--offset_step", f"{step:g}", "--sym", form["sym_name"],
        "--low_resol_join_halves", "40", "--norm", "--scale",
    ]  # fmt: skip


def _order(step: str) -> str:
    """The coarse HEALPix order of a step after one oversampling: "30 degrees" is order 0."""
    if step not in _STEPS:
        raise InputError(f"Angular sampling {step!r}: one of {', '.join(_STEPS)} was expected.")
    return str(_STEPS.index(step))


def build(values: Mapping[str, Any], arguments: Sequence[str] = ()) -> RefineOptions:
    """RefineOptions of a new run from parsed values (names of its fields), checked; raises InputError."""
    return validate(replace(RefineOptions(), **_cleaned(values), command_line=" ".join(arguments)))


def _cleaned(values: Mapping[str, Any]) -> dict[str, Any]:
    """RELION's `None` for "no file" becomes an empty name."""
    return {name: "" if value == "None" else value for name, value in values.items()}


def _stored_values(arguments: list[str]) -> Mapping[str, Any]:
    return _cleaned(parse(NAME, SUMMARY, OPTIONS, arguments)[0])


def run(values: Mapping[str, Any], arguments: Sequence[str] = ()) -> int:
    """Run the refinement that `values` describe; returns the exit code. Raises InputError for a user's mistake.

    With --pipeline_control the job's directory says how it ended, whatever happens.
    """
    from aurefine.job_control import job_control

    with job_control(values.get("pipeline_control", "")) as control:
        if values.get("continue_from"):
            _continue(values, arguments, control)
        else:
            _start(build(values, arguments).seeded(), control)
    return 0


def _start(options: RefineOptions, control: JobControl) -> None:
    from aurefine import particles
    from aurefine.refine.loop import refine  # torch is only imported for a real run

    for note in notes(options):
        print(f" Note: {note}.")
    refine(particles.load(options.particles, need_ctf=options.ctf_correction), options.reference, options, control=control)


def _continue(values: Mapping[str, Any], arguments: Sequence[str], control: JobControl) -> None:
    from aurefine import particles
    from aurefine.refine import checkpoint
    from aurefine.refine.loop import refine

    given = _cleaned(values)
    print(f" Reading in {Path(given['continue_from']).name} ...")
    earlier = checkpoint.load(given["continue_from"], _stored_values)
    options, kept = checkpoint.continued_options(earlier, {**given, "command_line": " ".join(arguments)})
    for note in kept + notes(options):
        print(f" Note: {note}.")
    state = checkpoint.continued_state(earlier, options, given)
    refine(particles.load(options.particles, need_ctf=options.ctf_correction), None, options.seeded(), state=state, control=control)
