"""Which jobs there are, by the word after `aurefine`."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aurefine.jobs.options import Option

# job -> (module with SUMMARY, OPTIONS and run, what it does); imported only when asked for, so that help is quick
JOBS = {
    "refine": ("aurefine.jobs.refine3d", "refine a 3D map to convergence (3D auto-refine); takes RELION's own flags"),
    "extract": ("aurefine.jobs.extract", "extract particles from micrographs, or extract refined particles again; takes RELION's own flags"),
    "simulate": ("aurefine.jobs.simulate", "make particles with known poses from a model, a map or a generated molecule"),
    "compare": ("aurefine.jobs.compare", "compare poses and maps with the truth"),
    "select": ("aurefine.jobs.select", "select particles or micrographs by class, column, image statistics or distance"),
    "star": ("aurefine.jobs.star_tools", "print, plot, join, split and change STAR files; relion_star_handler's flags"),
    "reconstruct": ("aurefine.jobs.reconstruct", "make a map of particles at given poses, without aligning them"),
    "run": ("aurefine.jobs.run", "run a job as the next one of a RELION project; also RELION's job.star"),
    "gui": ("aurefine.web.command", "show a RELION project in a browser: set up jobs, run them, watch them"),
    "jobs": ("aurefine.jobs.list_jobs", "list the jobs of a RELION project, and how they stand"),
    "postprocess": ("aurefine.jobs.postprocess", "resolution, sharpening and local resolution of a map from its half maps"),
    "image_handler": ("aurefine.jobs.image_handler", "filter, resample, move, combine and measure maps and images; takes RELION's own flags"),
    "mask_create": ("aurefine.jobs.mask_create", "make a soft mask from a map, with a threshold found by itself where none is given"),
    "report": ("aurefine.jobs.report", "report a refinement, aurefine's or RELION's: a page, curves, methods paragraph, ChimeraX view"),
    "check": ("aurefine.jobs.check", "check particles, reference and mask before a refinement, or half maps after it, as an expert does"),
    "validate": ("aurefine.jobs.validate", "validate a refinement as reviewers ask: directional FSC, views, ResLog, map and model, hand, noise"),
}


@cache
def options_of(program: str) -> dict[str, Option]:
    """The options of a job by their flags; none of what is no job, or takes its command line apart by itself."""
    module = import_module(JOBS[program][0]) if program in JOBS else None
    return {option.flag: option for option in getattr(module, "OPTIONS", ())}
