"""The subset selection job: particles or micrographs by class, value, image statistics or distance, split or regrouped (ALGORITHM.md 10.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurefine.errors import InputError
from aurefine.jobs.options import Option
from aurefine.jobs.outputs import free
from aurefine.jobs.selection_flags import DUPLICATES, INPUT_OUTPUT, SUBSETS, defaults, kept, select, write

if TYPE_CHECKING:
    import numpy as np

    from aurefine.job_control import JobControl
    from aurefine.star import Table
    from aurefine.star_document import Document

NAME = "select"
SUMMARY = "Select particles or micrographs: by class, column, image statistics or distance; split them, or regroup them."
_RANKER = "the class ranker is RELION's own network"
OPTIONS = (
    Option("input", "--i", "STAR file of particles or micrographs, or the _optimiser.star or _data.star of a classification", "I/O", "", "file"),
    Option("output", "--o", "STAR file to write, or a folder to write particles.star into", "I/O", "", "file"),
    *INPUT_OUTPUT,
    Option("classes", "--classes", "Classes to keep, such as 1,3 or 2-4", "Class options", ""),
    Option("class_file", "--fn_imgs", "Also write the rows of the kept classes here (needs a model)", "Class options", "", "file"),
    Option("regroup", "--regroup", "Merge groups of alike grey scale until about this many are left; negative: off", "Class options", -1, "int"),
    *SUBSETS,
    *DUPLICATES,
    Option("--recenter", "--recenter", "Re-center", "Without effect", None, "text", "class averages are not re-centred; centre the particles "
           "with `aurefine star --center`", effect="unsupported", takes_value=False),
    Option("--auto_select", "--auto_select", "Automatic", "Without effect", None, "text", _RANKER, effect="unsupported", takes_value=False),
)  # fmt: skip


def run(values: Mapping[str, Any], arguments: Sequence[str] = ()) -> int:
    """Write the rows that `values` ask for; returns the exit code. Raises InputError for a user's mistake, and then writes nothing."""
    from aurefine.job_control import job_control

    given = defaults(OPTIONS, values)
    with job_control(given["pipeline_control"], "select again.") as control:
        _select(given, control)
    return 0


def _select(given: Mapping[str, Any], control: JobControl) -> None:
    from aurefine import star

    if not given["input"] or not given["output"]:
        raise InputError("aurefine select: give --i, the STAR file to select from, and --o, the STAR file to write")
    document, model = _load(given["input"])
    output = _output(given["output"], document)
    if not given["split"]:
        free(output, given["overwrite"])
    classes = None
    if given["classes"]:
        document, classes = _by_class(document, model, given, output)
    document = select(document, given, output, control)
    if given["regroup"] > 0:
        document = _regrouped(document, model, given["regroup"])
    write(document, given, output)
    if classes is not None:  # last: a selection that leaves nothing writes nothing
        star.write(given["class_file"], [classes])
        print(f" Written: {given['class_file']} ({classes.count} classes)")


def _output(name: str, document: Document) -> Path:
    path = Path(name)
    if path.is_dir() or name.endswith("/"):
        path = path / ("micrographs.star" if document.main == "micrographs" else "particles.star")
    return path


def _load(path: str) -> tuple[Document, dict[str, Table]]:
    """The particles, and the model's tables where the run that made them has one (of an `_optimiser.star`, or beside a `_data.star`)."""
    from aurefine import star, star_document

    if not path.endswith("_optimiser.star"):
        beside = Path(path.removesuffix("_data.star") + "_model.star")
        with_model = path.endswith("_data.star") and beside.is_file()
        return star_document.load(path), star.read(beside) if with_model else {}
    optimiser = star.read_table(path, "optimiser_general")
    data, model = (str(optimiser.value(label, "")) for label in ("rlnExperimentalDataStarFile", "rlnModelStarFile"))
    if not data or not model:
        raise InputError(f"{path}: it names no particles (rlnExperimentalDataStarFile) or no model (rlnModelStarFile)")
    return star_document.load(star_document.named_file(data, path)), star.read(star_document.named_file(model, path))


def _by_class(document: Document, model: Mapping[str, Table], given: Mapping[str, Any], output: Path) -> tuple[Document, Table | None]:
    """The rows of the classes that are asked for; and for --fn_imgs the model's rows of these classes."""
    import numpy as np

    from aurefine import selection, star

    wanted = selection.class_numbers(given["classes"])
    column = document.column("rlnClassNumber", numeric=True)
    classes = model.get("model_classes")
    known = set(range(1, classes.count + 1)) if classes is not None else set(np.unique(column).astype(int).tolist())
    unknown = [number for number in wanted if number not in known]
    if unknown:
        there = ", ".join(map(str, sorted(known)[:20]))
        raise InputError(f"{document.path}: there is no class {unknown[0]} (--classes {given['classes']}); there are {there}")
    rows = None
    if given["class_file"]:
        if classes is None:
            raise InputError(f"{document.path}: --fn_imgs needs the model of the classification: give its _optimiser.star with --i")
        if free(given["class_file"], given["overwrite"]).resolve() == output.resolve():
            raise InputError(f"--fn_imgs {given['class_file']} is also the name of --o; give one of them another name")
        rows = star.Table("", classes.select(np.array(wanted) - 1).columns)
    return kept(document, np.isin(column, wanted), f"class {given['classes']}"), rows


def _regrouped(document: Document, model: Mapping[str, Table], wanted: int) -> Document:
    import numpy as np

    from aurefine import selection

    names = _group_names(document)
    group = selection.numbered(names.tolist())
    first = np.unique(group, return_index=True)[1]
    optics = document.rows["rlnOpticsGroup"] if "rlnOpticsGroup" in document.rows else np.ones(len(group), dtype=np.int64)
    scales = _group_scales(document, model, first)
    new = selection.regroup(group, np.arange(len(first), dtype=float) if scales is None else scales, optics, wanted)
    how = "by their order in the file, for no model tells their grey scales" if scales is None else "by their grey scales"
    print(f" Regrouped: {len(first)} groups became {new.max()}, {how}.")
    named = np.array([f"group_{number:04d}" for number in new.tolist()], dtype=object)
    return document.with_rows(document.rows.without(["rlnGroupNumber"]).with_columns({"rlnGroupName": named}))


def _group_names(document: Document) -> np.ndarray:
    for label in ("rlnGroupName", "rlnGroupNumber", "rlnMicrographName"):
        if label in document.rows:
            return document.rows[label]
    raise InputError(f"{document.path}: no rlnGroupName, rlnGroupNumber or rlnMicrographName tells the groups; they cannot be merged")


def _group_scales(document: Document, model: Mapping[str, Table], first: np.ndarray) -> np.ndarray | None:
    """Grey scale of each group from the model, or None where it does not know every group."""
    import numpy as np

    groups = model.get("model_groups")
    if groups is None or "rlnGroupScaleCorrection" not in groups or "rlnGroupNumber" not in document.rows or "rlnGroupNumber" not in groups:
        return None
    known = dict(zip(groups["rlnGroupNumber"].tolist(), groups["rlnGroupScaleCorrection"].tolist(), strict=True))
    scales = [known.get(number) for number in document.rows["rlnGroupNumber"][first].tolist()]
    return None if None in scales else np.array(scales, dtype=float)
