"""The report job: a refinement, ours or RELION's, finished or not, as a folder to keep, or as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aurefine.errors import InputError
from aurefine.jobs.options import Option

NAME = "report"
SUMMARY = ("Report a 3D auto-refine run (aurefine's or RELION's): figures, parameters, command, versions and a methods paragraph as "
           "report.html, report.pdf (its validation on a second page) and methods.txt, view.cxc for ChimeraX, and every curve as PNG, PDF "
           "and CSV; or one picture.")  # fmt: skip
OPTIONS = (
    Option("run", "--i", "The job's directory, or the root of the run's file names (the --o of the refinement)", "I/O", "", "file"),
    Option("output", "--o", "Folder to write (default: report/ beside the run's files); or one picture alone: .png, .pdf or .svg", "I/O", "", "file"),
    Option("truth", "--truth", "Map to compare with in the picture, in the same box and frame (.mrc)", "I/O", "", "file"),
)
PICTURES = (".png", ".pdf", ".svg")


def run(values: Mapping[str, Any], arguments: Sequence[str] = ()) -> int:
    """Write the report that `values` ask for; returns the exit code. Raises InputError for a user's mistake."""
    from aurefine.reporting import documents
    from aurefine.reporting.history import find_root

    if not values.get("run"):
        raise InputError("aurefine report: --i is missing; give the job's directory, such as Refine3D/job019")
    root, output = find_root(Path(values["run"])), str(values.get("output") or "")
    if output.lower().endswith(PICTURES):
        print(f" Picture: {_picture(root, output, values.get('truth'))}")
        return 0
    if values.get("truth"):
        raise InputError("aurefine report: --truth goes with a picture; name one, such as --o comparison.png")
    if Path(output).is_file():
        raise InputError(f"{output}: there is a file of that name; give --o a folder, or a picture ({', '.join(PICTURES)})")
    written = documents.write(root, output or None)
    for path in written:
        if path.parent.name != "plots":
            print(f" {path}")
    print(f" {written[-1].parent}: {sum(path.parent.name == 'plots' for path in written)} files of curves (PNG, PDF, CSV)")
    return 0


def _picture(root: Path, output: str, truth_file: Any) -> Path:
    """One picture of a run, with the truth where it is known; its path."""
    from aurefine import fsc, mrc
    from aurefine.figures import draw_report
    from aurefine.run_report import read_run

    report = read_run(root)
    if not truth_file:
        return draw_report(report, output)
    truth, _ = mrc.read_map(truth_file)
    if truth.shape != report.map.shape:
        raise InputError(f"{truth_file}: its shape is {truth.shape}; expected {report.map.shape}, that of the run's map. Resample it first.")
    curve = fsc.of_maps(report.map, truth)
    crossing = fsc.resolution_at(curve, 0.5, report.map.shape[0], report.pixel_size)
    return draw_report(report, output, truth, curve, [f"FSC with the truth falls below 0.5 at {crossing:.2f} Å"])
