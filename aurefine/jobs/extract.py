"""The particle extraction job: RELION's flags (`relion_preprocess --extract`; ALGORITHM.md 7 and 10.2) and the run itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aurefine.jobs.options import Option

NAME = "extract"
SUMMARY = "Extract particles from micrographs at picked coordinates, or again at the places that a refinement found; takes RELION's own flags."

_HELIX = "helical segments are extracted with RELION; their particles can be refined here as single particles"
_SINGLE = "`aurefine image_handler` works on stacks that exist already"

OPTIONS = (
    Option("micrographs", "--i", "micrograph STAR file:", "I/O", "", "file", "Micrographs: a STAR file with their names, and their CTF if known"),
    Option("coordinate_list", "--coord_list", "Input coordinates:", "I/O", "", "file",
           "Picked coordinates: the autopick.star or manualpick.star of a picking job"),
    Option("coordinate_folder", "--coord_dir", "Folder of the coordinates", "I/O", "ASINPUT", "file",
           "Folder of the coordinate files, with --coord_suffix; ASINPUT: beside the micrographs"),
    Option("coordinate_suffix", "--coord_suffix", "Ending of the coordinates", "I/O", "", "text",
           "Coordinate files are named by their micrograph and this ending: _pick.star, .box (EMAN) or a list of x y"),
    Option("refined_particles", "--reextract_data_star", "Refined particles STAR file:", "I/O", "", "file",
           "Extract the particles of this _data.star again, for example in another box or pixel size"),
    Option("reset_offsets", "--reset_offsets", "Reset the refined offsets to zero?", "I/O", False, "switch"),
    Option("recenter", "--recenter", "OR: re-center refined coordinates?", "I/O", False, "switch",
           "Move the coordinates to where the refined offsets put the centre, or the point of the next three options"),
    Option("recenter_x", "--recenter_x", "Re-center on X-coordinate (in pix):", "I/O", 0.0, "float",
           "This point of the reference becomes the centre: X, in pixels from its centre", unit="px"),
    Option("recenter_y", "--recenter_y", "Re-center on Y-coordinate (in pix):", "I/O", 0.0, "float", unit="px"),
    Option("recenter_z", "--recenter_z", "Re-center on Z-coordinate (in pix):", "I/O", 0.0, "float", unit="px"),
    Option("reference_pixel_size", "--ref_angpix", "Pixel size of the reference", "I/O", -1.0, "float",
           "Pixel size in which the point is counted; negative: that of the particles", unit="A"),
    Option("keep_micrograph_ctfs", "--keep_ctfs_micrographs", "Take the CTF from the micrographs", "I/O", False, "switch",
           "Refined particles get the CTF and optics groups of the micrographs instead of keeping their own"),
    Option("float16", "--float16", "Write output in float16?", "I/O", False, "switch", "Write stacks of 16-bit floats, half the size"),
    Option("particles_star", "--part_star", "Particles STAR file", "I/O", "", "file", "Table of all particles; empty: particles.star in --part_dir"),
    Option("pick_star", "--pick_star", "Coordinates STAR file", "I/O", "", "file", "Table of the coordinates that were used, for another extraction"),
    Option("output_folder", "--part_dir", "Folder of the stacks", "I/O", "Particles/", "file"),
    Option("pixel_size", "--angpix", "Micrograph pixel size", "I/O", -1.0, "float",
           "Pixel size of the micrographs where their STAR file does not say; negative: it says", unit="A"),
    Option("only_unfinished", "--only_do_unfinished", "Only unfinished micrographs", "I/O", False, "switch",
           "Keep the micrographs that an earlier run finished, and extract the others"),
    Option("overwrite", "--overwrite", "Replace existing output", "I/O", False, "switch", "Replace stacks and tables of an earlier run"),
    Option("extract", "--extract", "Extract particles", "extract", True, "switch", "What this job does, with or without this flag"),
    Option("box", "--extract_size", "Particle box size (pix):", "extract", -1, "int", "Box in pixels of the micrograph (RELION's form: 128)",
           range=(64, 512, 8)),
    Option("invert_contrast", "--invert_contrast", "Invert contrast?", "extract", False, "switch", "Make dark particles white"),
    Option("normalise", "--norm", "Normalize particles?", "extract", False, "switch", "Background of mean 0 and standard deviation 1"),
    Option("background_radius", "--bg_radius", "Diameter background circle (pix):", "extract", -1, "int",
           "Radius, in pixels of the final box, of the circle around the particle; the background lies beyond it"),
    Option("ramp", "--no_ramp", "Subtract the mean only", "extract", True, "switch", "Do not subtract a plane fitted to the background", value=False),
    Option("white_dust", "--white_dust", "Stddev for white dust removal:", "extract", -1.0, "float", range=(-1, 10, 0.1),
           help="Replace pixels this many standard deviations above the background's mean by noise; negative: none"),
    Option("black_dust", "--black_dust", "Stddev for black dust removal:", "extract", -1.0, "float", range=(-1, 10, 0.1),
           help="The same for pixels below the mean"),
    Option("rescale", "--scale", "Re-scaled size (pixels):", "extract", -1, "int", "Reduce the boxes to this size by Fourier cropping",
           range=(64, 512, 8)),
    Option("window", "--window", "Re-windowed size", "extract", -1, "int", "Crop, or pad with zeros, the re-scaled boxes to this size"),
    Option("minimum_fom", "--minimum_pick_fom", "Minimum autopick FOM:", "extract", None, "float", range=(-5, 10, 0.1),
           help="Leave out picks with a smaller rlnAutopickFigureOfMerit"),
    Option("bias_x", "--extract_bias_x", "Shift of the coordinates in X", "extract", 0, "int", "Pixels added to every X coordinate"),
    Option("bias_y", "--extract_bias_y", "Shift of the coordinates in Y", "extract", 0, "int", "Pixels added to every Y coordinate"),
    Option("premultiply_ctf", "--premultiply_ctf", "Multiply with the CTF", "CTF", False, "switch", "Multiply each particle with its CTF"),
    Option("premultiply_box", "--premultiply_extract_size", "Box to multiply with the CTF in", "CTF", -1, "int",
           "Box in which the CTF is applied, so that delocalised signal comes back; negative: the particle's"),
    Option("ctf_intact_first_peak", "--ctf_intact_first_peak", "Ignore CTFs until first peak?", "CTF", False, "switch",
           "Leave frequencies up to the CTF's first peak as they are"),
    Option("phase_flip", "--phase_flip", "Flip phases", "CTF", False, "switch", "Multiply each particle with the sign of its CTF"),
    Option("threads", "--j", "Number of threads:", "Running", 0, "int", "Micrographs in work at a time; 0: every core"),
    Option("pipeline_control", "--pipeline_control", "Job directory", "Running", "", "file",
           "Folder for the exit files by which RELION follows the job"),
    *(Option("", flag, "", "Helix", default, effect="unsupported", help=_HELIX, takes_value=takes_value) for flag, default, takes_value in (
        ("--helix", False, False), ("--helical_outer_diameter", -1.0, True), ("--helical_tubes", False, False), ("--helical_nr_asu", 1, True),
        ("--helical_rise", 0.0, True), ("--helical_bimodal_angular_priors", False, False), ("--helical_cut_into_segments", False, False))),
    *(Option("", flag, "", "Other", default, effect="unsupported", help=_SINGLE, takes_value=takes_value) for flag, default, takes_value in (
        ("--project3d", False, False), ("--operate_on", "", True), ("--operate_out", "preprocessed.mrcs", True))),
)  # fmt: skip


def run(values: Mapping[str, Any], arguments: Sequence[str] = ()) -> int:
    """Extract as `values` say; returns the exit code. Raises InputError for a user's mistake, after the other micrographs are done.

    With --pipeline_control the job's directory says how it ended, whatever happens.
    """
    from aurefine import large_arrays
    from aurefine.extraction import ExtractOptions, extract
    from aurefine.job_control import job_control

    large_arrays.keep_freed()
    given = {name: value for name, value in values.items() if name not in ("extract", "pipeline_control")}
    with job_control(values.get("pipeline_control", ""), "go on with the same command and --only_do_unfinished.") as control:
        extract(ExtractOptions(**given), control)
    return 0
