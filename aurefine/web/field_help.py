"""The help of a form's row: that of the flag it sets, from the job's option table, and of the rows that set none."""

from __future__ import annotations

from aurefine.jobs.form import JobType
from aurefine.jobs.options import FormField
from aurefine.jobs.programs import options_of

HELP = {  # rows without a flag
    "fn_cont": "An _optimiser.star to go on from, such as run_it010_optimiser.star. Leave it empty for a new job; Continue on a job's page sets it.",
    "nr_mpi": "Kept for RELION's GUI. aurefine is one process that does the work of all: leave it at 1 and set the threads.",
    "do_queue": "Hand the job to a batch system with the command and the script below, instead of running it on this machine.",
    "queuename": "Replaces XXXqueueXXX in the submission script.",
    "qsub": "The program that takes the script, such as qsub or sbatch.",
    "qsubscript": "Template of the submission script, as RELION's: XXXcommandXXX, XXXthreadsXXX, XXXqueueXXX and the others are filled in.",
    "min_dedicated": "Replaces XXXdedicatedXXX in the submission script.",
    "other_args": "Further flags, as on the command line; `aurefine <job> --help` lists them.",
    "nr_threads": "Threads that the job may use on this machine; 1 stands for all its cores.",
    "ref_correct_greyscale": "Yes where RELION or aurefine reconstructed it from like data. No: the first iteration compares by normalised "
    "cross-correlation (--firstiter_cc), to which the greyscale does not matter.",
    "sampling": "Angular step of the first iterations, in degrees, after one oversampling: the coarse search has twice this step.",
    "auto_local_sampling": "From this angular step on, in degrees and after one oversampling, only orientations near the last ones are searched.",
    "offset_step": "Step of the first search over shifts, in pixels, after one oversampling: the command line gets twice this value.",
    "inimask_threshold": "A number in the map's own grey values: voxels above it are inside. Take one at which a viewer shows no noise.",
    "fn_half": "One unfiltered half map of a refinement, such as run_half1_class001_unfil.mrc; the other one is found by its name.",
    "bg_diameter": "Diameter, in pixels before rescaling, outside which the background is measured; negative: three quarters of the box.",
    "do_reset_offsets": "Set the refined offsets to zero after extraction. Not together with re-centering.",
    "recenter_x": "X of the point of the reference, in its pixels from the centre, that is to become the centre of the particles.",
    "recenter_y": "Y of that point, in the reference's pixels from its centre.",
    "recenter_z": "Z of that point, in the reference's pixels from its centre.",
    "MaskCreate fn_in": "The map of which the mask is made, usually a refined or post-processed one.",
    "PostProcess fn_in": "One unfiltered half map of a refinement, such as run_half1_class001_unfil.mrc; the other one is found by its name.",
    "fn_model": "The _optimiser.star of a classification, whose classes are chosen in the other tabs.",
    "fn_mic": "A STAR file of micrographs to select from.",
    "fn_data": "A STAR file of particles to select from.",
    "do_class_ranker": "RELION's own network chooses the classes; aurefine has none. Run this one with RELION.",
    "rank_threshold": "Threshold of RELION's class ranker, which aurefine does not have.",
    "select_nr_parts": "For RELION's class ranker, which aurefine does not have.",
    "select_nr_classes": "For RELION's class ranker, which aurefine does not have.",
    "Select do_recenter": "Centre the selected class averages; RELION's display does so, aurefine does not.",
    "do_regroup": "Join micrographs with few particles into groups of about equal numbers.",
    "nr_groups": "About this many groups.",
    "do_filaments": "Selecting helical filaments is not supported; run this one with RELION.",
    "dendrogram_threshold": "For filaments, which are not supported.",
    "dendrogram_minclass": "For filaments, which are not supported.",
    "do_hand": "Search every rotation and shift with the model or reference map and with its mirror image; needs one of the two.",
    "do_reslog": "ResLog: reconstruct growing subsets of the particles, for the B-factor; needs the particle images.",
    "fn_exe": "A job of aurefine's that RELION's GUI has no form for, such as `aurefine image_handler`.",
    "in_mov": "Files that the job takes, shown as its inputs.",
    "in_mic": "Micrographs that the job takes.",
    "in_part": "Particles that the job takes.",
    "in_coords": "Coordinates that the job takes.",
    "in_3dref": "A map that the job takes.",
    "in_mask": "A mask that the job takes.",
}
NOT_SUPPORTED = {  # rows that only RELION can do; of one job type where others have a row of that key
    "do_class_ranker", "rank_threshold", "select_nr_parts", "select_nr_classes", "Select do_recenter",
    "do_filaments", "dendrogram_threshold", "dendrogram_minclass",
}  # fmt: skip


def help_of(job_type: JobType, row: FormField) -> str:
    """A sentence or two on what the row does; never empty."""
    option = options_of(job_type.command).get(row.flag)
    for key in _keys(job_type, row):
        if key in HELP:
            return HELP[key]
    if row.key.startswith("param"):
        return "Name of a flag." if row.key.endswith("label") else "Value of that flag."
    text = (option.help or option.label) if option else row.label
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?")) else ".")


def _keys(job_type: JobType, row: FormField) -> tuple[str, str]:
    return f"{job_type.name} {row.key}", row.key


def is_supported(job_type: JobType, row: FormField) -> bool:
    """Whether aurefine does what the row asks for; a row that it does not is shown, and cannot be set."""
    option = options_of(job_type.command).get(row.flag)
    return row.tab != "Helix" and NOT_SUPPORTED.isdisjoint(_keys(job_type, row)) and not (option and option.effect == "unsupported")
