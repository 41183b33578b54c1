"""The post-processing job: RELION's command line (ALGORITHM.md 9.2, 10.6) and the run itself. Its form is in postprocess_form.py."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from aurefine.jobs.options import Option
from aurefine.jobs.outputs import with_own_directory
from aurefine.jobs.postprocess_form import FORM
from aurefine.postprocessing.options import PostprocessOptions

NAME = "postprocess"
SUMMARY = "Resolution by solvent-corrected FSC, sharpening and local resolution of a map from its two half maps, as RELION's post-processing."

_DEFAULT = PostprocessOptions()
_ROWS = {row.flag: row for row in FORM if row.flag}


def _option(flag: str, name: str, kind: Any, help: str, tab: str = "", unit: str = "") -> Option:
    """An option whose label and tab are those of RELION's form, where the form has it."""
    row = _ROWS.get(flag)
    label = row.label if row else help
    return Option(name, flag, label, tab or (row.tab if row else "Expert"), getattr(_DEFAULT, name), kind, help, unit=unit)


OPTIONS = (
    _option("--i", "half1", "file", "One of the two unfiltered half maps, such as run_half1_class001_unfil.mrc"),
    _option("--i2", "half2", "file", "The other half map (default: half1 in the name of --i replaced by half2)", "I/O"),
    _option("--o", "output", "text", "Root of the output names, such as PostProcess/job020/postprocess", "I/O"),
    _option("--mask", "mask", "file", "Solvent mask (.mrc; 1 protein, 0 solvent)"),
    _option("--angpix", "pixel_size", "float", "Calibrated pixel size; negative: that of the header", unit="A"),
    _option("--half_maps", "half_maps", "switch", "Write the post-processed half maps as well", "I/O"),
    _option("--molweight", "molecular_weight", "float", "Molecular weight of the ordered protein in kDa: adds the FSC expected of it", "I/O"),
    _option("--force_mask", "force_mask", "switch", "Use the mask even where it makes the resolution worse", "I/O"),
    _option("--overwrite", "overwrite", "switch", "Replace the files of an earlier job", "I/O"),
    _option("--auto_bfac", "auto_bfactor", "switch", "Find the B-factor from the Guinier plot (Rosenthal and Henderson 2003)"),
    _option("--autob_lowres", "auto_lowres", "float", "Lowest resolution of the fit", unit="A"),
    _option("--autob_highres", "auto_highres", "float", "Highest resolution of the fit; 0: Nyquist", "Sharpen", unit="A"),
    _option("--adhoc_bfac", "adhoc_bfactor", "float", "B-factor for sharpening, negative, such as -100", unit="A^2"),
    _option("--mtf", "mtf", "file", "MTF curve of the detector (STAR)"),
    _option("--mtf_angpix", "mtf_pixel_size", "float", "Pixel size of the original micrographs; negative: that of the maps", unit="A"),
    _option("--skip_fsc_weighting", "skip_fsc_weighting", "switch", "No FSC weighting of the sharpened map"),
    _option("--low_pass", "low_pass", "float", "Low-pass filter of the final map; 0: none, negative: at its resolution", unit="A"),
    _option("--locres", "local_resolution", "switch", "Local resolution: a map of it, and the map filtered by it", "Local resolution"),
    _option("--locres_sampling", "local_sampling", "float", "Distance between the points where it is measured", "Local resolution", "A"),
    _option("--locres_maskrad", "local_mask_radius", "float", "Radius of the spheres; negative: half the distance", "Local resolution", "A"),
    _option("--locres_edgwidth", "local_edge_width", "float", "Soft edge of the spheres; negative: the distance", "Local resolution", "A"),
    _option("--locres_randomize_at", "local_randomise_at", "float", "Randomise phases from here on", "Local resolution", "A"),
    _option("--locres_minres", "local_worst", "float", "Worst resolution that is reported", "Local resolution", "A"),
    _option("--randomize_at_fsc", "randomise_at_fsc", "float", "Randomise phases from where the unmasked FSC drops below this value"),
    _option("--randomize_at_A", "randomise_at", "float", "Randomise phases from this resolution on; negative: by --randomize_at_fsc", unit="A"),
    _option("--filter_edge_width", "filter_edge_width", "int", "Width of the low-pass filter's edge in shells"),
    _option("--random_seed", "random_seed", "int", "Seed of the random phases; negative: from the clock"),
    _option("--j", "threads", "int", "Threads; 0: all cores"),
    _option("--verb", "verbosity", "int", "0: silent"),
    Option("pipeline_control", "--pipeline_control", "Job directory", "Expert", "", "text", "Directory where the job says how it ended"),
    Option("auto_mask", "--auto_mask", "Automated masking", "Expert", False, "switch", effect="unsupported", takes_value=False,
           help="RELION removed it; make a mask with `aurefine mask_create`"),
    Option("amplitude_correlation", "--ampl_corr", "Amplitude correlation", "Expert", False, "switch", effect="unsupported", takes_value=False,
           help="amplitude correlations and phase residuals are not computed here; relion_postprocess has them"),
    *(Option(flag[2:], flag, flag, "Expert", "", "text", "it belongs to --auto_mask, which RELION removed", effect="ignored")
      for flag in ("--inimask_threshold", "--extend_inimask", "--width_mask_edge")),
)  # fmt: skip


def build(values: Mapping[str, Any], arguments: Sequence[str] = ()) -> PostprocessOptions:
    """PostprocessOptions from parsed values (names of its fields). A job with a directory of its own may replace its own files."""
    return replace(_DEFAULT, **with_own_directory(values), command_line=shlex.join(arguments))


def run(values: Mapping[str, Any], arguments: Sequence[str] = ()) -> int:
    """Post-process what `values` describe; returns the exit code. Raises InputError for a user's mistake."""
    from aurefine.job_control import job_control

    with job_control(values.get("pipeline_control", ""), "start it again.") as control:
        options = build(values, arguments)
        if options.local_resolution:
            from aurefine.postprocessing.local_resolution import local_resolution

            local_resolution(options, control)
        else:
            from aurefine.postprocessing.run import postprocess

            postprocess(options, control)
    return 0
