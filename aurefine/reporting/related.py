"""What other jobs of the project made of a refinement's half maps: a post-processed map, local resolutions, a validation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aurefine import star
from aurefine.errors import InputError
from aurefine.project.pipeline import FILE
from aurefine.project.project import Project
from aurefine.regular_files import text_of

VALIDATION = "validation.json"
_MOST_BYTES = 50_000_000  # of a validation.json, which takes less than two million


@dataclass(frozen=True)
class PostProcessed:
    """What `postprocess.star` says; lengths in Angstrom."""

    folder: Path
    resolution: float
    bfactor: float | None  # Angstrom squared
    mask: str  # "" where there was none
    map: Path | None
    program: str


@dataclass(frozen=True)
class Related:
    """The newest of each kind; None where no job has made one."""

    postprocess: PostProcessed | None = None
    local_resolution: Path | None = None
    validation: Path | None = None  # a validation.json


def related(root: Path) -> Related:
    """What the project of the run at `root` holds, and validations that lie in folders near the run and say that they are of it."""
    folder = root.resolve().parent
    post, local, validations = _of_jobs(folder)
    validations += _near(root.resolve())
    return Related(post, local, max(validations, key=lambda path: path.stat().st_mtime_ns, default=None))


def _near(root: Path) -> Iterator[Path]:
    """Validations in the run's folder, in those of it and beside it, and in those of its project, that measured the run's files."""
    for place in dict.fromkeys([root.parent, *root.parents[:3]]):
        for path in [place / VALIDATION, *sorted(place.glob(f"*/{VALIDATION}"))]:
            measured = _measured(path)
            if measured and measured.parent == root.parent and measured.name.startswith(f"{root.name}_"):
                yield path


def _measured(path: Path) -> Path | None:
    """The half map or particle table that a `validation.json` names."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        named = json.loads(text_of(path)).get("measured")
    except (OSError, ValueError, AttributeError, RecursionError):  # no validation, whatever it is
        return None
    return (path.parent / named).resolve() if isinstance(named, str) and named and "\0" not in named else None


def _of_jobs(folder: Path) -> tuple[PostProcessed | None, Path | None, list[Path]]:
    """What jobs made that took files of the job in `folder`: newest post-processing and local resolutions, all validations."""
    project = folder.parent.parent
    if not (project / FILE).is_file():
        return None, None, []
    try:
        pipeline = Project(project).read()
    except InputError:  # a report can be made without the project's graph
        return None, None, []
    name = f"{folder.relative_to(project).as_posix()}/"
    made = set(pipeline.outputs(name))
    users = [process for process in pipeline.processes if made & set(pipeline.inputs(process.name))]
    folders = [project / process.name for process in sorted(users, key=lambda each: each.number, reverse=True)]
    found = (post_processed(each, folder) for each in folders)
    local = (path for each in folders for path in sorted(each.glob("*_locres.mrc")))
    validations = [each / VALIDATION for each in folders if (each / VALIDATION).is_file()]
    return next((each for each in found if each), None), next(local, None), validations


def post_processed(folder: Path, refinement: Path) -> PostProcessed | None:
    """What a post-processing job in `folder` says of the half maps in `refinement`; None where it has not finished, or took others."""
    path = folder / "postprocess.star"
    try:
        tables = star.read(path)
    except InputError:
        return None
    general = tables.get("general")
    half = str(general.value("rlnUnfilteredMapHalf1", "")) if general is not None else ""
    if general is None or Path(half).parts[-3:-1] != refinement.parts[-2:] or "rlnFinalResolution" not in general:
        return None
    bfactor, mask = general.columns.get("rlnBfactorUsedForSharpening"), str(general.value("rlnMaskName", "None"))
    sharpened = folder / "postprocess.mrc"
    comment = (star.leading_comments(path) or [""])[0]  # "aurefine postprocess; version 0.1.0"; RELION's begins otherwise
    program = comment.replace(" postprocess; version", "") if comment.startswith("aurefine") else ""
    return PostProcessed(folder, float(general["rlnFinalResolution"][0]), float(bfactor[0]) if bfactor is not None else None,
                         "" if mask == "None" else mask, sharpened if sharpened.is_file() else None, program)  # fmt: skip
