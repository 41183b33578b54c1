"""The history of a 3D auto-refine, running or finished, RELION's or ours, from the files that it writes at every iteration.

Nothing is asked of the refinement itself, and each file is read once: watching costs the run next to nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aurefine import fsc, star
from aurefine.errors import InputError
from aurefine.run_report import find_root
from aurefine.sampling import angular_step
from aurefine.star import Table
from aurefine.web.cache import FileCache, stamp

Number = float | None


@dataclass(frozen=True)
class ModelSummary:
    """One half's model file, or the joined one."""

    resolution: Number  # Angstrom
    pmax: Number
    accuracy_angles: Number  # degrees
    accuracy_offsets: Number  # Angstrom
    image_size: Number  # pixels used
    local: bool
    box: int
    pixel_size: float
    fsc: list[Number]  # [shells]
    tau2: list[Number]
    noise: list[list[Number]]  # an optics group each
    ssnr: list[Number]


@dataclass(frozen=True)
class Iteration:
    """One iteration, or the final one (`number` -1)."""

    number: int
    model: ModelSummary
    step: Number  # degrees, after oversampling
    offset_range: Number
    offset_step: Number
    symmetry: str
    changes_angles: Number
    changes_offsets: Number
    converged: bool


def root_of(directory: Path) -> Path:
    """The root of a job's file names (`.../run`); InputError where there is no refinement."""
    return find_root(directory)


def version(directory: Path) -> str:
    """Changes when the refinement has written something that the page shows."""
    newest = max((stamp(path) for path in directory.glob("*_model.star")), default=(0, 0))
    log = stamp(directory / "run.out")
    ends = sum((directory / f"RELION_JOB_EXIT_{end}").exists() << bit for bit, end in enumerate(("SUCCESS", "FAILURE", "ABORTED")))
    return f"{newest[0]:x}-{newest[1]:x}-{log[0]:x}-{log[1]:x}-{ends}"


def iterations(root: Path) -> list[Iteration]:
    """Every finished iteration by number, and the final one at the end. A file that is just being written is left for the next look."""
    found = []
    for path in sorted(root.parent.glob(f"{_escaped(root.name)}_it???_half1_model.star")):
        iteration = _iteration(path, path.name.removesuffix("_half1_model.star"), int(path.name.removesuffix("_half1_model.star")[-3:]))
        found += [iteration] if iteration else []
    final = root.with_name(f"{root.name}_model.star")
    if final.is_file():
        iteration = _iteration(final, root.name, -1)
        found += [iteration] if iteration else []
    return found


def _escaped(name: str) -> str:
    return re.sub(r"([\[*?])", r"[\1]", name)


def _iteration(model_path: Path, stem: str, number: int) -> Iteration | None:
    try:
        model = _MODELS.get(model_path)
        sampling = _LISTS.get(model_path.with_name(f"{stem}_sampling.star"))
        optimiser = _LISTS.get(model_path.with_name(f"{stem}_optimiser.star"))
    except InputError:
        return None
    order = _number(sampling, "rlnHealpixOrder")
    oversampling = int(_number(optimiser, "rlnAdaptiveOversampleOrder") or 0)
    return Iteration(
        number=number, model=model, step=angular_step(int(order), oversampling) if order is not None else None,
        offset_range=_number(sampling, "rlnOffsetRange"), offset_step=_halved(_number(sampling, "rlnOffsetStep"), oversampling),
        symmetry=str(sampling.value("rlnSymmetryGroup", "")), changes_angles=_known(optimiser, "rlnChangesOptimalOrientations"),
        changes_offsets=_known(optimiser, "rlnChangesOptimalOffsets"), converged=bool(_number(optimiser, "rlnHasConverged")),
    )  # fmt: skip


def _halved(step: Number, times: int) -> Number:
    return None if step is None else step / 2**times


def _read_list(path: Path) -> Table:
    """All single values of a STAR file; an empty table where the file is not there."""
    if not path.is_file():
        return Table("")
    columns = {label: column for table in star.read(path).values() if table.is_list for label, column in table.columns.items()}
    return Table("", columns, is_list=True)


def _read_model(path: Path) -> ModelSummary:
    tables = star.read(path)
    missing = [name for name in ("model_general", "model_classes", "model_class_1") if name not in tables]
    if missing:
        raise InputError(f"{path}: the table data_{missing[0]} is missing; expected a file of a 3D auto-refine job")
    general, classes, shells = tables["model_general"], tables["model_classes"], tables["model_class_1"]
    noise = [_numbers(tables[name], "rlnSigma2Noise") for name in tables if re.fullmatch(r"model_(optics_)?group_\d+", name)]
    return ModelSummary(
        resolution=_number(general, "rlnCurrentResolution"), pmax=_known(general, "rlnAveragePmax"),
        accuracy_angles=_known(classes, "rlnAccuracyRotations") or None,  # 0 before the first estimate
        accuracy_offsets=_known(classes, "rlnAccuracyTranslationsAngst") or _known(classes, "rlnAccuracyTranslations") or None,
        image_size=_number(general, "rlnCurrentImageSize"), local=bool(_number(general, "rlnOrientationalPriorMode")),
        box=int(_number(general, "rlnOriginalImageSize") or 0), pixel_size=_number(general, "rlnPixelSize") or 1.0,
        fsc=_numbers(shells, "rlnGoldStandardFsc"), tau2=_numbers(shells, "rlnReferenceTau2"), noise=noise[:8], ssnr=_numbers(shells, "rlnSsnrMap"),
    )  # fmt: skip


def _numbers(table: Table, label: str) -> list[Number]:
    return [float(value) if np.isfinite(value) else None for value in np.asarray(table.columns.get(label, ()), dtype=float)]


def _number(table: Table, label: str) -> Number:
    value = table.value(label)
    return float(value) if isinstance(value, int | float) and np.isfinite(value) else None


def _known(table: Table, label: str) -> Number:
    """RELION writes 999 for what it has not estimated yet."""
    value = _number(table, label)
    return None if value is None or value >= 999 or value < 0 else value


_MODELS: FileCache[ModelSummary] = FileCache(_read_model, 400)
_LISTS: FileCache[Table] = FileCache(_read_list, 800)


def history(directory: Path, status: str) -> dict[str, Any]:
    """All that the live view draws of a refinement's iterations; see `plots.py` for the curves."""
    root = root_of(directory)
    found = iterations(root)
    last = found[-1] if found else None
    phase, left = _phase(directory, found, status)
    return {
        "version": version(directory), "root": root.name, "phase": phase, "left": left, "finished": bool(last and last.number < 0),
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


def crossing(model: ModelSummary, threshold: float) -> Number:
    """Resolution (Angstrom) at which the half maps' FSC falls below a threshold; None before there is one."""
    curve = np.array([np.nan if value is None else value for value in model.fsc])
    if len(curve) < 3 or not np.any(curve[1:] > 0):
        return None
    value = fsc.resolution_at(np.nan_to_num(curve), threshold, model.box, model.pixel_size)
    return float(value) if np.isfinite(value) else None


def maps_of(root: Path) -> list[dict[str, Any]]:
    """The iterations of which maps are there, and the final one (-1), with the kinds of each."""
    found = []
    for path in sorted(root.parent.glob(f"{_escaped(root.name)}_it???_half1_class001.mrc")):
        found.append({"iteration": int(path.name.removesuffix("_half1_class001.mrc")[-3:]), "kinds": ["half1", "half2", "difference"],
                      "stamp": f"{stamp(path)[0]:x}"})  # fmt: skip
    if root.with_name(f"{root.name}_class001.mrc").is_file():
        halves = root.with_name(f"{root.name}_half1_class001_unfil.mrc").is_file()
        found.append({"iteration": -1, "kinds": ["map", *(["half1", "half2", "difference"] if halves else [])],
                      "stamp": f"{stamp(root.with_name(f'{root.name}_class001.mrc'))[0]:x}"})  # fmt: skip
    return found


def map_path(root: Path, iteration: int, kind: str) -> Path:
    """The file of a map: of an iteration (half1, half2), or of the end (-1: map, half1, half2)."""
    if iteration >= 0:
        return root.with_name(f"{root.name}_it{iteration:03d}_{kind}_class001.mrc")
    return root.with_name(f"{root.name}_class001.mrc" if kind == "map" else f"{root.name}_{kind}_class001_unfil.mrc")


_TITLES = (  # of the log's lines, the newest decides
    (r"Refinement has converged, stopping", "converged"),
    (r"Expectation iteration (\d+)", "iteration {}: aligning the particles"),
    (r"Estimating initial noise", "estimating the noise"),
    (r"Estimating accurac", "estimating the accuracy"),
    (r"Maximization", "reconstructing"),
    (r"entering last iteration", "last iteration, halves joined"),
)
_ENDED = {"Succeeded": "finished", "Failed": "failed", "Aborted": "stopped", "Scheduled": "not started yet"}


def _phase(directory: Path, found: list[Iteration], status: str) -> tuple[str, str]:
    """What the refinement does now, and how long that will take, by its log."""
    if found and found[-1].number < 0:
        return "converged, final maps written", ""
    if status in _ENDED:
        return _ENDED[status], ""
    text = _end_of(directory / "run.out")
    phase, place = "starting", -1
    for pattern, words in _TITLES:
        for match in re.finditer(pattern, text):
            if match.start() > place:
                phase, place = words.format(*match.groups()), match.start()
    return phase, _time_left(text[max(place, 0) :])


def _end_of(path: Path, count: int = 32 << 10) -> str:
    try:
        with open(path, "rb") as file:
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
