"""The live view's data of a refinement: its iterations, what it does now, and how long that will take."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from aurefine.errors import InputError
from aurefine.file_cache import stamp
from aurefine.refine.console import duration
from aurefine.refine.run_status import RUNNING, SILENT, read_status
from aurefine.regular_files import regular
from aurefine.reporting.history import Iteration, crossing, find_root, iterations, maps_of, warnings_of


def root_of(directory: Path) -> Path:
    """The root of a job's file names (`.../run`); InputError where there is no refinement."""
    return find_root(directory)


_OF_ITERATIONS = ("_model.star", "_sampling.star", "_optimiser.star")  # RELION and we write them in different orders


def version(directory: Path) -> str:
    """Changes when the refinement has finished an iteration, or has ended: what is drawn of it is then drawn anew."""
    files = (path for path in directory.glob("*.star") if path.name.endswith(_OF_ITERATIONS))
    newest = max((stamp(path) for path in files), default=(0, 0))
    ends = sum((directory / f"RELION_JOB_EXIT_{end}").exists() << bit for bit, end in enumerate(("SUCCESS", "FAILURE", "ABORTED")))
    return f"{newest[0]:x}-{newest[1]:x}-{ends}"


def progress(directory: Path, status: str) -> dict[str, Any]:
    """What the refinement does now, how long that will take, and what it warns of."""
    root = root_of(directory)
    phase, left = _phase(directory, root.with_name(f"{root.name}_model.star").is_file(), status)
    return {"phase": phase, "left": left, "warnings": warnings_of(root)}


def history(directory: Path, status: str) -> dict[str, Any]:
    """All that the live view draws of a refinement's iterations; see `plots.py` for the curves."""
    root = root_of(directory)
    found = iterations(root)
    last = found[-1] if found else None
    return {
        "version": version(directory), "root": root.name, **progress(directory, status), "finished": bool(last and last.number < 0),
        "symmetry": last.symmetry if last else "", "box": last.model.box if last else 0, "pixelSize": last.model.pixel_size if last else 0,
        "rows": [_row(iteration) for iteration in found], "maps": maps_of(root),
    }  # fmt: skip


def _row(iteration: Iteration) -> dict[str, Any]:
    model = iteration.model
    return {
        "iteration": iteration.number, "resolution": model.resolution, "fsc143": crossing(model, 0.143), "fsc05": crossing(model, 0.5),
        "accuracyAngles": model.accuracy_angles, "accuracyOffsets": model.accuracy_offsets, "step": iteration.step,
        "offsetRange": iteration.offset_range, "offsetStep": iteration.offset_step, "changesAngles": iteration.changes_angles,
        "changesOffsets": iteration.changes_offsets, "pmax": model.pmax, "imageSize": model.image_size, "local": model.local,
    }  # fmt: skip


_TITLES = (  # of the log's lines, the newest decides
    (r"Refinement has converged, stopping", "converged"),
    (r"Expectation iteration (\d+)", "iteration {}: aligning the particles"),
    (r"Estimating initial noise", "estimating the noise"),
    (r"Estimating accurac", "estimating the accuracy"),
    (r"Maximization", "reconstructing"),
    (r"entering last iteration", "last iteration, halves joined"),
)
_ENDED = {"Succeeded": "finished", "Failed": "failed", "Aborted": "stopped", "Scheduled": "not started yet"}


def _phase(directory: Path, finished: bool, status: str) -> tuple[str, str]:
    """By its status.json, else by its log."""
    if finished:
        return "converged, final maps written", ""
    if status in _ENDED:
        return _ENDED[status], ""
    if told := _told(directory):
        return told
    text = _end_of(directory / "run.out")
    phase, place = "starting", -1
    for pattern, words in _TITLES:
        for match in re.finditer(pattern, text):
            if match.start() > place:
                phase, place = words.format(*match.groups()), match.start()
    return phase, _time_left(text[max(place, 0) :])


_PHASES = {  # of status.json
    "reading images": "reading the images", "first noise spectra": "estimating the noise", "planning": "iteration {}: estimating the accuracy",
    "expectation": "iteration {}: aligning the particles", "alignment check": "checking the alignment",
    "maximisation": "iteration {}: reconstructing",
}  # fmt: skip


def _told(directory: Path) -> tuple[str, str] | None:
    """Phase and time left as a run of ours says itself; None where it does not (any more)."""
    try:
        status = read_status(directory)
    except InputError:
        return None
    verdict = status.verdict()
    if verdict == SILENT:
        return f"no sign of life for {time.time() - status.heartbeat:.0f} seconds", ""
    if verdict != RUNNING:
        return None
    known = _PHASES.get(status.phase)  # only our own text is a pattern: the file may be anybody's
    phase = known.format(status.iteration) if known else status.phase
    return phase, f"{duration(status.seconds_left)} for this step" if status.seconds_left >= 0 else ""


def _end_of(path: Path, count: int = 32 << 10) -> str:
    try:
        with open(path, "rb", opener=regular) as file:
            file.seek(max(0, file.seek(0, 2) - count))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _time_left(text: str) -> str:
    """From our "12 % in 1.0 min, 7.3 min left", or from RELION's "1.0/8.3 min"; of the step that runs, not of the whole."""
    ours = re.findall(r"([\d.]+ (?:sec|min|hrs)) left", text)
    if ours:
        return f"{ours[-1]} for this step"
    relion = re.findall(r"([\d.]+)/\s*([\d.]+) (sec|min|hrs)", text)
    if relion and "yum" not in text.rpartition("/")[2]:
        done, total, unit = relion[-1]
        return f"{max(0.0, float(total) - float(done)):.3g} {unit} for this step"
    return ""
