"""The report job: one picture of a refinement, ours or RELION's, finished or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aurefine.errors import InputError
from aurefine.jobs.options import Option

NAME = "report"
SUMMARY = "Draw one picture of a 3D auto-refine run (aurefine's or RELION's): sections, FSC, resolution by iteration, viewing directions."
OPTIONS = (
    Option("run", "--i", "Root of the run's file names (the --o of the refinement), or its job directory", "I/O", "", "file"),
    Option("output", "--o", "Picture to write: .png, .pdf or .svg (default: <root>_report.png)", "I/O", "", "file"),
    Option("truth", "--truth", "Map to compare with, in the same box and frame (.mrc)", "I/O", "", "file"),
)


def run(values: Mapping[str, Any], arguments: Sequence[str] = ()) -> int:
    """Draw the picture that `values` ask for; returns the exit code. Raises InputError for a user's mistake."""
    from aurefine import fsc, mrc
    from aurefine.figures import draw_report
    from aurefine.reporting.history import find_root
    from aurefine.run_report import read_run

    if not values.get("run"):
        raise InputError("aurefine report: --i is missing; give the root of the run's file names, such as Refine3D/job019/run")
    root = find_root(Path(values["run"]))
    report = read_run(root)
    truth = curve = None
    notes = []
    if values.get("truth"):
        truth, _ = mrc.read_map(values["truth"])
        if truth.shape != report.map.shape:
            raise InputError(f"{values['truth']}: its shape is {truth.shape}; expected {report.map.shape}, that of the run's map. Resample it first.")
        curve = fsc.of_maps(report.map, truth)
        crossing = fsc.resolution_at(curve, 0.5, report.map.shape[0], report.pixel_size)
        notes.append(f"FSC with the truth falls below 0.5 at {crossing:.2f} Å")
    output = draw_report(report, values.get("output") or root.with_name(f"{root.name}_report.png"), truth, curve, notes)
    print(f" Picture: {output}")
    return 0
