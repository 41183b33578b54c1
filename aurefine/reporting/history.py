"""The history of a 3D auto-refine, running or finished, RELION's or ours, from the files that it writes at every iteration.

Nothing is asked of the refinement itself, and each file is read once: watching costs the run next to nothing.
"""

from __future__ import annotations

import glob
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from aurefine import fsc, star
from aurefine.errors import InputError
from aurefine.file_cache import FileCache, stamp
from aurefine.regular_files import text_of
from aurefine.sampling import angular_step
from aurefine.star import Table

Number = float | None
_CONTINUED = re.compile(r"(.+)_ct(\d+)")  # RELION's run_ct5, ours run_ct005
# Of a model file; micrographs' noise (of which there may be thousands) is that of their optics group where there are such tables.
_SHOWN = re.compile(r"model_(general|classes|class_1|group_[1-8]|optics_group_\d+)")
_STEM = re.compile(r"(.+?)(?:_it\d{3,}_half[12])?_model\.star")


@dataclass(frozen=True, eq=False)
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


def find_root(path: Path) -> Path:
    """The root of the run's file names: `path` itself, or where that is a job directory the one written to last (`path/run`, `path/run_ct5`)."""
    if not path.is_dir():
        return path
    found = [each for each in path.glob("*_model.star") if _STEM.fullmatch(each.name)]
    if not found:
        raise InputError(f"{path}: no *_model.star file in this directory; expected the directory of a 3D auto-refine job")
    newest = max(found, key=lambda each: (each.stat().st_mtime_ns, each.name))
    match = _STEM.fullmatch(newest.name)
    return path / (match.group(1) if match else "")


def roots_of(root: Path) -> list[Path]:
    """The roots under which a run wrote: its own, and before it those that it continued (`run_ct5` after `run`), the newest first."""
    found = [root]
    while match := _CONTINUED.fullmatch(found[-1].name):
        found.append(root.with_name(match.group(1)))
    return found


def stem_of(root: Path, number: int) -> Path:
    """`.../run_it007` of an iteration, under the newest root that has it (or would have it); the root itself for the final one (-1)."""
    if number < 0:
        return root
    limit = sys.maxsize
    for each in roots_of(root):
        stem = each.with_name(f"{each.name}_it{number:03d}")
        if number <= limit and stem.with_name(f"{stem.name}_half1_model.star").is_file():
            return stem
        match = _CONTINUED.fullmatch(each.name)
        limit = min(limit, int(match.group(2))) if match else limit
    return root.with_name(f"{root.name}_it{number:03d}")


def iterations(root: Path) -> list[Iteration]:
    """Every finished iteration by number, and the final one at the end. A file that is just being written is left for the next look."""
    found = [_iteration(stem_of(root, number), number) for number in numbers_of(root, "half1_model.star")]
    if root.with_name(f"{root.name}_model.star").is_file():
        found.append(_iteration(root, -1))
    return [each for each in found if each]


def numbers_of(root: Path, ending: str) -> list[int]:
    """The iterations of which there is a file of that ending, under any of the run's roots; of an older one only those it was continued from."""
    numbers: set[int] = set()
    for each in roots_of(root):
        for path in each.parent.glob(f"{glob.escape(each.name)}_it???*_{ending}"):
            digits = path.name[len(f"{each.name}_it") : -len(f"_{ending}")]
            if digits.isdecimal() and _of(stem_of(root, int(digits)), ending) == path:
                numbers.add(int(digits))
    return sorted(numbers)


def newest(root: Path, ending: str, of_iterations: str = "") -> Path | None:
    """The newest file of a run with an ending such as `data.star`, that of the end first; None where there is none.

    `of_iterations`: the ending in iterations, where it is another one.
    """
    earlier = of_iterations or ending
    named = [_of(root, ending), *(_of(stem_of(root, number), earlier) for number in reversed(numbers_of(root, earlier)))]
    return next((path for path in named if path.is_file()), None)


def _of(stem: Path, ending: str) -> Path:
    return stem.with_name(f"{stem.name}_{ending}")


def particles_of(root: Path) -> Path | None:
    """The newest particle file of a run; None where there is none."""
    return newest(root, "data.star")


def warnings_of(root: Path) -> list[str]:
    """What a run of ours warns of, those before it that it continues included, by `<root>_warnings.txt`; RELION keeps no such file."""
    found: dict[str, None] = {}
    for path in (_of(each, "warnings.txt") for each in reversed(roots_of(root))):
        with suppress(OSError):  # no warnings, no file
            found |= dict.fromkeys(line for line in text_of(path, "replace").splitlines() if line.strip())
    return list(found)


def _iteration(stem: Path, number: int) -> Iteration | None:
    try:
        model = _MODELS.get(stem.with_name(f"{stem.name}{'_half1' if number >= 0 else ''}_model.star"))
        sampling = _LISTS.get(stem.with_name(f"{stem.name}_sampling.star"))
        optimiser = _LISTS.get(stem.with_name(f"{stem.name}_optimiser.star"))
    except InputError:
        return None
    order = number_in(sampling, "rlnHealpixOrder")
    oversampling = int(number_in(optimiser, "rlnAdaptiveOversampleOrder") or 0)
    return Iteration(
        number=number, model=model, step=angular_step(int(order), oversampling) if order is not None else None,
        offset_range=number_in(sampling, "rlnOffsetRange"), offset_step=_halved(number_in(sampling, "rlnOffsetStep"), oversampling),
        symmetry=str(sampling.value("rlnSymmetryGroup", "")), changes_angles=_known(optimiser, "rlnChangesOptimalOrientations"),
        changes_offsets=_known(optimiser, "rlnChangesOptimalOffsets"), converged=bool(number_in(optimiser, "rlnHasConverged")),
    )  # fmt: skip


def _halved(step: Number, times: int) -> Number:
    return None if step is None else step / 2**times


def _read_model(path: Path) -> ModelSummary:
    tables = star.read(path, _SHOWN.fullmatch)
    missing = [name for name in ("model_general", "model_classes", "model_class_1") if name not in tables]
    if missing:
        raise InputError(f"{path}: the table data_{missing[0]} is missing; expected a file of a 3D auto-refine job")
    general, classes, shells = tables["model_general"], tables["model_classes"], tables["model_class_1"]
    groups = [name for name in tables if "_optics_" in name] or [name for name in tables if "_group_" in name]
    noise = [_numbers(tables[name], "rlnSigma2Noise") for name in groups]
    return ModelSummary(
        resolution=number_in(general, "rlnCurrentResolution"), pmax=_known(general, "rlnAveragePmax") or None,  # 0 before the first expectation
        accuracy_angles=_known(classes, "rlnAccuracyRotations") or None,  # 0 before the first estimate
        accuracy_offsets=_known(classes, "rlnAccuracyTranslationsAngst") or _known(classes, "rlnAccuracyTranslations") or None,
        image_size=number_in(general, "rlnCurrentImageSize"), local=bool(number_in(general, "rlnOrientationalPriorMode")),
        box=int(number_in(general, "rlnOriginalImageSize") or 0), pixel_size=number_in(general, "rlnPixelSize") or 1.0,
        fsc=_numbers(shells, "rlnGoldStandardFsc"), tau2=_numbers(shells, "rlnReferenceTau2"), noise=noise[:8], ssnr=_numbers(shells, "rlnSsnrMap"),
    )  # fmt: skip


def _numbers(table: Table, label: str) -> list[Number]:
    return [float(value) if np.isfinite(value) else None for value in np.asarray(table.columns.get(label, ()), dtype=float)]


def number_in(table: Table, label: str) -> Number:
    """First value of a column, None where it is absent, no number or not finite."""
    value = table.value(label)
    return float(value) if isinstance(value, int | float) and np.isfinite(value) else None


def _known(table: Table, label: str) -> Number:
    """RELION writes 999 for what it has not estimated yet."""
    value = number_in(table, label)
    return None if value is None or value >= 999 or value < 0 else value


_MODELS: FileCache[ModelSummary] = FileCache(_read_model, 400)
_LISTS: FileCache[Table] = FileCache(star.single_values, 800)


@lru_cache(maxsize=2000)
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
    for number in numbers_of(root, "half1_class001.mrc"):
        found.append({"iteration": number, "kinds": ["half1", "half2", "difference"], "stamp": f"{stamp(map_path(root, number, 'half1'))[0]:x}"})
    if root.with_name(f"{root.name}_class001.mrc").is_file():
        halves = root.with_name(f"{root.name}_half1_class001_unfil.mrc").is_file()
        found.append({"iteration": -1, "kinds": ["map", *(["half1", "half2", "difference"] if halves else [])],
                      "stamp": f"{stamp(root.with_name(f'{root.name}_class001.mrc'))[0]:x}"})  # fmt: skip
    return found


def map_path(root: Path, iteration: int, kind: str) -> Path:
    """The file of a map: of an iteration (half1, half2), or of the end (-1: map, half1, half2)."""
    if iteration >= 0:
        stem = stem_of(root, iteration)
        return stem.with_name(f"{stem.name}_{kind}_class001.mrc")
    return root.with_name(f"{root.name}_class001.mrc" if kind == "map" else f"{root.name}_{kind}_class001_unfil.mrc")
