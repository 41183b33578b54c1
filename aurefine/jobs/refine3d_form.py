"""The 3D auto-refine job as RELION's GUI knows it (ALGORITHM.md 6.9, 10.1)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from aurefine.errors import InputError
from aurefine.jobs.form import NR_MPI, NR_THREADS, OTHER_ARGS, QUEUE, Form, JobType, other_arguments, yes
from aurefine.jobs.options import FormField

_STEPS = ("30 degrees", "15 degrees", "7.5 degrees", "3.7 degrees", "1.8 degrees", "0.9 degrees", "0.5 degrees", "0.2 degrees", "0.1 degrees")


def _step(order: str) -> str:
    """The step that the form shows for a coarse HEALPix order; InputError where it has none."""
    if order not in map(str, range(len(_STEPS))):
        raise InputError(f"HEALPix order {order!r}: a whole number from 0 to {len(_STEPS) - 1} was expected")
    return _STEPS[int(order)]


def _halved(step: str) -> str:
    try:
        return f"{float(step) / 2:g}"  # the form asks for the step after one oversampling
    except ValueError as error:
        raise InputError(f"--offset_step {step!r}: a number was expected") from error


FORM = (
    FormField("fn_img", "Input images STAR file:", "I/O", "", "file", flag="--i", required=True),
    FormField("fn_cont", "Continue from here:", "I/O", "", "file"),
    FormField("fn_ref", "Reference map:", "I/O", "", "file", flag="--ref", required=True),
    FormField("fn_mask", "Reference mask (optional):", "I/O", "", "file", flag="--solvent_mask"),
    FormField("ref_correct_greyscale", "Ref. map is on absolute greyscale?", "Reference", "No", "bool", flag="--firstiter_cc", inverted=True),
    FormField("trust_ref_size", "Resize reference if needed?", "Reference", "Yes", "bool", flag="--trust_ref_size", since=5),
    FormField("ini_high", "Initial low-pass filter (A):", "Reference", "60", "float", (0, 200, 5), flag="--ini_high", absent="-1"),
    FormField("sym_name", "Symmetry:", "Reference", "C1", flag="--sym"),
    FormField("do_ctf_correction", "Do CTF-correction?", "CTF", "Yes", "bool", flag="--ctf"),
    FormField("ctf_corrected_ref", "Has reference been CTF-corrected?", "CTF", "No", "bool", flag="--ctf_corrected_ref", until=3),
    FormField("ctf_intact_first_peak", "Ignore CTFs until first peak?", "CTF", "No", "bool", flag="--ctf_intact_first_peak"),
    FormField("particle_diameter", "Mask diameter (A):", "Optimisation", "200", "float", (0, 1000, 10), flag="--particle_diameter", absent="-1"),
    FormField("do_zero_mask", "Mask individual particles with zeros?", "Optimisation", "Yes", "bool", flag="--zero_mask"),
    FormField("do_solvent_fsc", "Use solvent-flattened FSCs?", "Optimisation", "No", "bool", flag="--solvent_correct_fsc"),
    FormField("do_blush", "Use Blush regularisation?", "Optimisation", "No", "bool", flag="--blush", since=5),
    FormField("sampling", "Initial angular sampling:", "Auto-sampling", "7.5 degrees", "choice", choices=_STEPS,
              flag="--healpix_order", from_flag=_step),
    FormField("offset_range", "Initial offset range (pix):", "Auto-sampling", "5", "float", (0, 30, 1), flag="--offset_range"),
    FormField("offset_step", "Initial offset step (pix):", "Auto-sampling", "1", "float", (0.1, 5, 0.1), flag="--offset_step", from_flag=_halved),
    FormField("auto_local_sampling", "Local searches from auto-sampling:", "Auto-sampling", "1.8 degrees", "choice", choices=_STEPS,
              flag="--auto_local_healpix_order", from_flag=_step),
    FormField("relax_sym", "Relax symmetry:", "Auto-sampling", "", flag="--relax_sym"),
    FormField("auto_faster", "Use finer angular sampling faster?", "Auto-sampling", "No", "bool", flag="--auto_ignore_angles"),
    FormField("do_helix", "Do helical reconstruction?", "Helix", "No", "bool", flag="--helix"),
    FormField("do_parallel_discio", "Use parallel disc I/O?", "Compute", "Yes", "bool", flag="--no_parallel_disc_io", inverted=True),
    FormField("nr_pool", "Number of pooled particles:", "Compute", "3", "float", (1, 16, 1), flag="--pool"),
    FormField("skip_gridding", "Skip gridding?", "Compute", "Yes", "bool", flag="--dont_skip_gridding", inverted=True, until=3),
    FormField("do_pad1", "Skip padding?", "Compute", "No", "bool", flag="--pad", from_flag=lambda pad: "Yes" if pad == "1" else "No"),
    FormField("do_preread_images", "Pre-read all particles into RAM?", "Compute", "No", "bool", flag="--preread_images"),
    FormField("scratch_dir", "Copy particles to scratch directory:", "Compute", "", "file", flag="--scratch_dir",
              absent="", variable="RELION_SCRATCH_DIR"),
    FormField("do_combine_thru_disc", "Combine iterations through disc?", "Compute", "No", "bool",
              flag="--dont_combine_weights_via_disc", inverted=True),
    FormField("use_gpu", "Use GPU acceleration?", "Compute", "No", "bool", flag="--gpu"),
    FormField("gpu_ids", "Which GPUs to use:", "Compute", "", flag="--gpu"),
    NR_MPI,
    NR_THREADS,
    *QUEUE,
    OTHER_ARGS,
)  # fmt: skip
_FORM_DEFAULTS = {field.key: field.default for field in FORM}


def arguments_from_form(values: Mapping[str, str], output: str) -> list[str]:
    """The command line (without the program's name) that RELION's GUI makes of a `job.star`, in its order (ALGORITHM.md 10.1).

    `values` maps the keys of `FORM` to texts, missing keys take their default; `output` is the root of the output names.
    InputError where `fn_cont` is set: a new job has nothing to go on from.
    """
    form = {**_FORM_DEFAULTS, **values}
    if form["fn_cont"]:
        raise InputError(f"fn_cont (Continue from here) is {form['fn_cont']}, but a new job starts from the beginning; empty it, or go on with the "
                         "job that wrote the file (Continue on its page, or `aurefine run --continue`)")  # fmt: skip
    parts = ["--o", output, "--auto_refine", "--split_random_halves", "--i", form["fn_img"], "--ref", form["fn_ref"]]
    parts += [] if yes(form, "ref_correct_greyscale") else ["--firstiter_cc"]
    parts += ["--trust_ref_size"] if yes(form, "trust_ref_size") else []
    parts += ["--ini_high", form["ini_high"]] if float(form["ini_high"]) > 0 else []
    parts += ["--blush"] if yes(form, "do_blush") else []
    parts += _compute_arguments(form)
    parts += ["--auto_ignore_angles", "--auto_resol_angles"] if yes(form, "auto_faster") else []
    if yes(form, "do_ctf_correction"):
        parts += ["--ctf"] + (["--ctf_intact_first_peak"] if yes(form, "ctf_intact_first_peak") else [])
    parts += ["--particle_diameter", form["particle_diameter"], "--flatten_solvent"]
    parts += ["--zero_mask"] if yes(form, "do_zero_mask") else []
    parts += _mask_arguments(form)
    parts += _sampling_arguments(form)
    parts += ["--helix"] if yes(form, "do_helix") else []
    parts += ["--relax_sym", form["relax_sym"]] if form["relax_sym"] else []
    return [*parts, *_machine_arguments(form), *other_arguments(form, os.path.dirname(output) + "/")]


def continued_arguments(values: Mapping[str, str], output: str) -> list[str]:
    """The command line that goes on from the form's `fn_cont` (an `_optimiser.star`), as RELION's GUI makes it (ALGORITHM.md 10.1)."""
    form = {**_FORM_DEFAULTS, **values}
    parts = ["--continue", form["fn_cont"], "--o", output, *_compute_arguments(form)]
    parts += ["--auto_ignore_angles", "--auto_resol_angles"] if yes(form, "auto_faster") else []
    parts += ["--particle_diameter", form["particle_diameter"], *_mask_arguments(form)]
    parts += ["--relax_sym", form["relax_sym"]] if form["relax_sym"] else []
    return [*parts, *_machine_arguments(form), *other_arguments(form, os.path.dirname(output) + "/")]


def _compute_arguments(form: Form) -> list[str]:
    parts = [] if yes(form, "do_combine_thru_disc") else ["--dont_combine_weights_via_disc"]
    parts += [] if yes(form, "do_parallel_discio") else ["--no_parallel_disc_io"]
    if yes(form, "do_preread_images"):
        parts += ["--preread_images"]
    elif form["scratch_dir"]:
        parts += ["--scratch_dir", form["scratch_dir"]]
    parts += ["--pool", form["nr_pool"], "--pad", "1" if yes(form, "do_pad1") else "2"]
    return parts if yes(form, "skip_gridding") else [*parts, "--dont_skip_gridding"]


def _mask_arguments(form: Form) -> list[str]:
    if not form["fn_mask"]:
        return []
    return ["--solvent_mask", form["fn_mask"]] + (["--solvent_correct_fsc"] if yes(form, "do_solvent_fsc") else [])


def _machine_arguments(form: Form) -> list[str]:
    return ["--j", form["nr_threads"]] + (["--gpu", form["gpu_ids"]] if yes(form, "use_gpu") else [])


def _sampling_arguments(form: Form) -> list[str]:
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


_CHANGEABLE = frozenset({  # the rows that `continued_arguments` looks at
    "fn_cont", "fn_mask", "do_solvent_fsc", "particle_diameter", "relax_sym", "auto_faster", "do_parallel_discio", "nr_pool", "skip_gridding",
    "do_pad1", "do_preread_images", "scratch_dir", "do_combine_thru_disc", "use_gpu", "gpu_ids", "nr_threads", "other_args",
    *(row.key for row in QUEUE),
})  # fmt: skip
_RESULTS = {
    "data.star": "ParticleGroupMetadata.star.relion.refine3d",
    "optimiser.star": "OptimiserData.star.relion.refine3d",
    "half1_class001_unfil.mrc": "DensityMap.mrc.relion.halfmap.refine3d",
    "class001.mrc": "DensityMap.mrc.relion.refine3d",
}


def _outputs(form: Form, directory: str) -> list[tuple[str, str]]:
    return [(f"{directory}run_{name}", label) for name, label in _RESULTS.items()]


def _found(form: Form, folder: Path) -> list[tuple[str, str]]:
    """The results of a continued refinement, which RELION calls run_ct12_... and leaves out of the pipeline."""
    names = [(path.name, label) for name, label in _RESULTS.items() for path in folder.glob(f"run_ct*_{name}")]
    return sorted((name, label) for name, label in names if re.fullmatch(r"run_ct\d+_(data|optimiser|half1_class001_unfil|class001)\.\w+", name))


JOB_TYPE = JobType(
    name="Refine3D", label="relion.refine3d", code=10, command="refine", fields=FORM,
    to_arguments=lambda form, directory: arguments_from_form(form, directory + "run"),
    outputs=_outputs,
    places={"--o": "run"},
    inputs={"--i": "ParticleGroupMetadata.star", "--ref": "DensityMap.mrc", "--solvent_mask": "Mask3D.mrc"},
    full_label=lambda form: "relion.refine3d.helical" if yes(form, "do_helix") else "relion.refine3d",
    found=_found,
    changeable=_CHANGEABLE,
    continued=lambda form, directory: continued_arguments(form, directory + "run"),
)  # fmt: skip
