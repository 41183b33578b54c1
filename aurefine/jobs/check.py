"""The check job: particles, reference, mask and half maps looked at as an experienced user does, without refining anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurefine.errors import InputError
from aurefine.jobs.options import Option
from aurefine.jobs.outputs import OVERWRITE, cleaned, free

if TYPE_CHECKING:
    from aurefine.particles import ParticleSet
    from aurefine.refine.options import RefineOptions

NAME = "check"
SUMMARY = "Check particles, their images, a reference and a mask before a refinement, or half maps after it, and print what an expert would warn of."
OPTIONS = (
    Option("particles", "--i", "Particles (.star, .cs)", "I/O", "", "file"),
    Option("reference", "--ref", "Reference map", "I/O", "", "file"),
    Option("half1", "--half1", "Unfiltered half map 1 of a finished refinement", "I/O", "", "file"),
    Option("half2", "--half2", "The other one, where its name is not that of --half1 with half1 replaced by half2", "I/O", "", "file"),
    Option("solvent_mask", "--mask", "Solvent mask", "I/O", "", "file"),
    Option("output", "--o", "Root of <root>_rejected.star, the list of images that cannot be used; without it none is written", "I/O", "", "text"),
    OVERWRITE,
    Option("symmetry", "--sym", "Point group", "Particle", "C1"),
    Option("particle_diameter", "--particle_diameter", "Particle diameter; negative: nearly the box", "Particle", -1.0, "float", unit="A"),
    Option("reference_pixel_size", "--ref_angpix", "Pixel size of the reference; negative: that of the header", "Particle", -1.0, "float", unit="A"),
    Option("initial_lowpass", "--ini_high", "Resolution up to which the reference's grey scale is compared", "Particle", 40.0, "float", unit="A"),
    Option("no_ctf", "--no_ctf", "The particles have no CTF values", "Particle", False, "switch"),
    Option("first_iteration_cc", "--firstiter_cc", "The reference need not be on the images' grey scale", "Particle", False, "switch"),
    Option("skip_images", "--skip_images", "Do not read the images", "Running", False, "switch"),
    Option("threads", "--j", "Threads; 0: all cores", "Running", 0, "int"),
)


def run(values: Mapping[str, Any], arguments: Sequence[str] = ()) -> int:
    """Print the warnings about what `values` name; returns the exit code. Raises InputError for a user's mistake."""
    given = {option.name: option.default for option in OPTIONS} | cleaned(values)
    if not given["particles"] and not given["half1"]:
        raise InputError("aurefine check: nothing to check; give particles with --i (and a reference with --ref), or a half map with --half1")
    if given["reference"] and not given["particles"]:
        raise InputError("aurefine check: --ref is checked with the particles that will be refined; give them with --i")
    for name, flag in (("particles", "--i"), ("reference", "--ref"), ("half1", "--half1"), ("half2", "--half2"), ("solvent_mask", "--mask")):
        if given[name] and not Path(given[name]).is_file():
            raise InputError(f"{flag} {given[name]}: there is no such file; names are relative to {Path.cwd()}")
    if given["output"]:
        free(f"{given['output']}_rejected.star", given["overwrite"])
    import numba

    from aurefine.refine import messages
    from aurefine.threads import thread_count

    numba.set_num_threads(min(thread_count(given["threads"]), numba.config.NUMBA_NUM_THREADS))
    warnings = (_of_particles(given) if given["particles"] else []) + (_of_half_maps(given) if given["half1"] else [])
    print("\n".join(messages.warning_lines(warnings, "Warnings")) or " Nothing to warn of.")
    return 0


def _of_particles(given: Mapping[str, Any]) -> list[str]:
    from aurefine import particles
    from aurefine.refine import checks, examination, rejection
    from aurefine.refine.console import Console
    from aurefine.refine.options import RefineOptions
    from aurefine.symmetry import point_group

    loaded = particles.load(given["particles"], need_ctf=not given["no_ctf"])
    first = loaded.optics[0]
    diameter = given["particle_diameter"] if given["particle_diameter"] > 0 else 0.9 * first.box * first.pixel_size
    names = ("particles", "reference", "solvent_mask", "reference_pixel_size", "initial_lowpass", "first_iteration_cc")
    options = RefineOptions(**{name: given[name] for name in names}, particle_diameter=diameter, ctf_correction=not given["no_ctf"])
    options = replace(options, symmetry=point_group(given["symmetry"]).name)
    warnings = list(loaded.warnings)
    if not given["skip_images"]:
        with Console().progress(f" Looking at {loaded.count} images ...", loaded.count) as bar:
            seen = examination.examine(loaded, diameter, bar.advance)
        reasons = seen.reasons()
        warnings += rejection.summary(loaded, reasons, given["output"], "would be set aside") + rejection.many_copies(loaded, seen)
        if given["output"]:
            rejection.write(given["output"], loaded.optics_table, rejection.listed(loaded, reasons))
        loaded = loaded.subset(reasons == "")
    warnings += checks.of_table(loaded, loaded.random_subset, options)
    return warnings + (_of_reference(loaded, options, given["skip_images"]) if given["reference"] else [])


def _of_reference(loaded: ParticleSet, options: RefineOptions, skip_images: bool) -> list[str]:
    from aurefine.refine import checks, inputs

    volume, pixel_size = inputs.read_reference(options, loaded)
    mask = inputs.read_mask(options.solvent_mask, len(volume), pixel_size)
    options = replace(options, first_iteration_cc=options.first_iteration_cc or skip_images)
    return checks.of_reference(loaded, loaded.read_images, checks.Reference(volume, pixel_size, mask), options)


def _of_half_maps(given: Mapping[str, Any]) -> list[str]:
    from aurefine import fsc
    from aurefine.postprocessing.inputs import read_half_maps, read_mask
    from aurefine.postprocessing.options import PostprocessOptions
    from aurefine.sanity import half_map_fsc

    options = PostprocessOptions(half1=given["half1"], half2=given["half2"], mask=given["solvent_mask"])
    halves = read_half_maps(options)
    warnings = half_map_fsc.check_curve(fsc.of_maps(halves.one, halves.two), halves.box, halves.pixel_size)
    mask = read_mask(options, halves)
    if mask is not None:
        warnings += half_map_fsc.check_mask(halves.one, halves.two, mask.values, halves.pixel_size)
    return warnings
