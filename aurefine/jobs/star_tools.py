"""The daily chores on STAR files, with `relion_star_handler`'s flags, and printing and plotting of columns."""

from __future__ import annotations

import glob
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurefine.errors import InputError
from aurefine.jobs.options import Option
from aurefine.jobs.outputs import free
from aurefine.jobs.selection_flags import DUPLICATES, INPUT_OUTPUT, SUBSETS, defaults, select, write

if TYPE_CHECKING:
    from aurefine.job_control import JobControl
    from aurefine.star_document import Document

_LONGEST_NAME = 250  # a longer text is a list of files
NAME = "star"
SUMMARY = "Look into STAR files, print and plot their columns; join, select, split and change them with relion_star_handler's flags."
OPTIONS = (
    Option("input", "--i", "STAR file; several for --combine, in quotes: \"a.star b.star\" or \"Extract/*/particles.star\"", "I/O", "", "file"),
    Option("output", "--o", "STAR file to write (of pictures: the name, with .png or .pdf or without)", "I/O", "", "file"),
    Option("table", "--i_tablename", "Table to work on, where it is not the particles or micrographs", "I/O", ""),
    Option("ignore_optics", "--ignore_optics", "Leave RELION 3.0 files and the numbers of optics groups as they are", "I/O", False, "switch"),
    Option("pixel_size", "--angpix", "Pixel size, where the file does not say", "I/O", 0.0, "float", unit="A"),
    *INPUT_OUTPUT,
    Option("print", "--print", "Print columns, such as \"rlnImageName rlnAngleRot\"; without a value all", "Print and plot", "", "optional_text"),
    Option("plot", "--plot", "Plot a column against another, \"rlnSsnrMap rlnResolution\", or against the row", "Print and plot", ""),
    Option("hist", "--hist_column", "Histogram of this column", "Print and plot", ""),
    Option("in_percent", "--in_percent", "In percent", "Print and plot", False, "switch"),
    Option("cumulative", "--show_cumulative", "With the cumulative distribution", "Print and plot", False, "switch"),
    Option("bins", "--hist_bins", "Number of bins; negative: by the rule of Freedman and Diaconis", "Print and plot", -1, "int"),
    Option("hist_min", "--hist_min", "Smallest value of the histogram (default: the column's)", "Print and plot", float("-inf"), "float"),
    Option("hist_max", "--hist_max", "Largest value of the histogram (default: the column's)", "Print and plot", float("inf"), "float"),
    Option("compare", "--compare", "STAR file to compare with: writes <output>_both, _only1 and _only2.star", "Compare", "", "file"),
    Option("label1", "--label1", "Column to compare: text or numbers", "Compare", ""),
    Option("label2", "--label2", "Second column, for distances in two dimensions", "Compare", ""),
    Option("label3", "--label3", "Third column, for distances in three dimensions", "Compare", ""),
    Option("max_distance", "--max_dist", "Largest distance of a match, for numbers", "Compare", 0.0, "float"),
    Option("combine", "--combine", "Join the files: optics groups by name, columns that all have", "Combine", False, "switch"),
    Option("check_duplicates", "--check_duplicates", "Column of texts, such as rlnImageName, to be looked through for repeats", "Combine", ""),
    *SUBSETS,
    *DUPLICATES,
    Option("operate", "--operate", "Column to change", "Operate", ""),
    Option("operate2", "--operate2", "Another column to change", "Operate", ""),
    Option("operate3", "--operate3", "Another column to change", "Operate", ""),
    Option("set_to", "--set_to", "Set to this value", "Operate", ""),
    Option("multiply_by", "--multiply_by", "Multiply by this", "Operate", 1.0, "float"),
    Option("add_to", "--add_to", "Then add this", "Operate", 0.0, "float"),
    Option("center", "--center", "Shift the origins to another centre of the reference", "Center", False, "switch"),
    Option("center_x", "--center_X", "Its x, pixels from the reference's centre", "Center", 0.0, "float"),
    Option("center_y", "--center_Y", "Its y", "Center", 0.0, "float"),
    Option("center_z", "--center_Z", "Its z", "Center", 0.0, "float"),
    Option("remove_column", "--remove_column", "Column to leave out", "Columns", ""),
    Option("add_column", "--add_column", "Column to add", "Columns", ""),
    Option("add_value", "--add_column_value", "Its value in every row", "Columns", ""),
    Option("copy_from", "--copy_column_from", "Column to copy it from", "Columns", ""),
)  # fmt: skip


def run(values: Mapping[str, Any], arguments: Sequence[str] = ()) -> int:
    """Do what `values` ask for: reading, then combining, selecting, changing, then writing or showing; returns the exit code."""
    from aurefine.job_control import job_control

    given = defaults(OPTIONS, values)
    with job_control(given["pipeline_control"], "start again.") as control:
        _work(given, values, control)
    return 0


def _work(given: Mapping[str, Any], values: Mapping[str, Any], control: JobControl) -> None:
    paths = _inputs(given)
    shows = "print" in values or given["plot"] or given["hist"]
    changes = any(given[name] for name in ("combine", "select", "select_by_text", "discard_on_stats", "operate", "center", "remove_column",
                                           "add_column", "split", "compare")) or given["distance"] >= 0  # fmt: skip
    if not (shows or changes or given["output"] or given["check_duplicates"]):
        _describe(paths[0], given["table"])
        return
    documents = [_load(path, given) for path in paths]
    output = Path(given["output"] or ("" if shows else "out.star"))
    document = _combined(documents, given) if given["combine"] else documents[0]
    document = _changed(select(document, given, output, control), given)
    if shows:
        _show(document, given, values)
    elif given["compare"]:
        _compare(document, given, output)
    else:
        write(document, given, output)


def _inputs(given: Mapping[str, Any]) -> list[str]:
    text = given["input"]
    if not text:
        raise InputError("aurefine star: --i is missing; give the STAR file to work on")
    words = [text] if len(text) < _LONGEST_NAME and Path(text).exists() else text.split()
    names = [name for word in words for name in (sorted(glob.glob(word)) or [word])]
    if len(names) > 1 and not given["combine"]:
        raise InputError(f"--i names {len(names)} files; several are only taken with --combine")
    return names


def _load(path: str, given: Mapping[str, Any]) -> Document:
    from aurefine import star_document

    return star_document.load(path, given["table"], convert=not given["ignore_optics"])


def _describe(path: str, wanted: str) -> None:
    """What is in the file, or in one table of it: tables, rows, columns."""
    from aurefine import cryosparc, star_document

    tables = cryosparc.read_either(path)[0]
    if wanted:
        main = star_document.main_table(path, tables, star_document.plain_table(wanted))
        tables = {main: tables[main]}
    for name, table in tables.items():
        kind = f"{len(table.columns)} values" if table.is_list else f"{table.count} rows of {len(table.columns)} columns"
        print(f" data_{name}: {kind}")
        for label, column in table.columns.items():
            print(f"   {label:<36}{_summary(column)}")


def _summary(column: Any) -> str:
    if not len(column):
        return "empty"
    if column.dtype.kind in "if" and len(column) > 1:
        return f"{column.min():g} to {column.max():g}"
    others = len(set(column.tolist())) - 1
    return str(column[0]) + (f" (and {others} other{'s' * (others > 1)})" if others else "")


def _combined(documents: list[Document], given: Mapping[str, Any]) -> Document:
    from aurefine import star_combine

    document, notes = star_combine.combine(documents, given["ignore_optics"])
    for note in notes:
        print(f" Note: {note}.")
    print(f" Joined {len(documents)} files.")
    return document


def _changed(document: Document, given: Mapping[str, Any]) -> Document:
    from aurefine import star_operations

    if given["check_duplicates"]:
        _report_repeats(document, given["check_duplicates"])
    if given["operate"]:
        labels = [given[name] for name in ("operate", "operate2", "operate3") if given[name]]
        document = star_operations.operate(document, labels, given["set_to"] or None, given["multiply_by"], given["add_to"])
    if given["center"]:
        point = (given["center_x"], given["center_y"], given["center_z"])
        document = star_operations.centre(document, point, given["pixel_size"] or None)
    if given["add_column"]:
        document = star_operations.add_column(document, given["add_column"], given["add_value"] or None, given["copy_from"] or None)
    if given["remove_column"]:
        document = document.with_rows(document.rows.without([document.label(given["remove_column"])]))
    return document


def _report_repeats(document: Document, label: str) -> None:
    from aurefine.star_combine import repeated

    found = repeated(document.column(label))
    for text in found[:10]:
        print(f" Note: {text} occurs more than once.")
    print(f" {len(found)} values of {label} occur more than once." if found else f" No value of {label} occurs twice.")


def _compare(document: Document, given: Mapping[str, Any], output: Path) -> None:
    from aurefine import star, star_operations

    if not given["label1"]:
        raise InputError("--compare: --label1 is missing; name the column to compare, such as rlnImageName")
    other = _load(given["compare"], given)
    labels = [given[name] for name in ("label1", "label2", "label3") if given[name]]
    mask1, mask2 = star_operations.compare(document, other, labels, given["max_distance"])
    parts = (("both", document.select(mask1), "in both files"), ("only1", document.select(~mask1), f"only in {document.path}"),
             ("only2", other.select(~mask2), f"only in {other.path}"))  # fmt: skip
    names = [free(output.with_name(f"{output.stem}_{part[0]}.star"), given["overwrite"]) for part in parts]
    for path, (_, content, meaning) in zip(names, parts, strict=True):
        star.write(path, content.tables)
        print(f" Written: {path} ({content.rows.count} rows {meaning})")


def _show(document: Document, given: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    if "print" in values:
        _print(document, given["print"])
    if given["plot"]:
        _plot(document, given)
    if given["hist"]:
        _histogram(document, given)


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _print(document: Document, text: str) -> None:
    """Columns as `relion_star_printtable` prints them: words with blanks between, no header."""
    from aurefine.star_write import format_column

    labels = [document.label(label) for label in _words(text)] or list(document.rows.columns)
    cells = [[word.strip() for word in format_column(label, document.rows[label])] for label in labels]
    sys.stdout.writelines(" ".join(row) + "\n" for row in zip(*cells, strict=True))


def _pictures(given: Mapping[str, Any], name: str) -> list[Path]:
    from aurefine.star_figures import picture_names

    return [free(path, given["overwrite"]) for path in picture_names(given["output"] or name)]


def _plot(document: Document, given: Mapping[str, Any]) -> None:
    import numpy as np

    from aurefine import star_figures

    labels = [document.label(label) for label in _words(given["plot"])]
    columns = [document.column(label, numeric=True) for label in labels]
    x = columns[-1] if len(columns) > 1 else np.arange(1, document.rows.count + 1)
    curves = dict(zip(labels[: max(1, len(labels) - 1)], columns, strict=False))
    outputs = _pictures(given, f"plot_{labels[0]}")
    star_figures.draw_curves(x, curves, labels[-1] if len(labels) > 1 else "row", outputs)
    print(f" Picture: {' '.join(map(str, outputs))}")


def _histogram(document: Document, given: Mapping[str, Any]) -> None:
    import numpy as np

    from aurefine import star_figures, star_operations

    label = document.label(given["hist"])
    values = document.column(label, numeric=True)
    result = star_operations.histogram(values, given["bins"], given["hist_min"], given["hist_max"])
    quarters = np.percentile(values[np.isfinite(values)], (0, 25, 50, 75, 100))
    print(f" {label}: {len(values)} values, smallest {quarters[0]:g}, quartiles {quarters[1]:g} {quarters[2]:g} {quarters[3]:g}, "
          f"largest {quarters[4]:g}, mean {np.nanmean(values):g}, standard deviation {np.nanstd(values):g}")  # fmt: skip
    share = 100.0 / len(values) if given["in_percent"] else 1
    print(f" [-inf, {result.edges[0]:g}): {result.below * share:g}")
    for low, high, count in zip(result.edges[:-1], result.edges[1:], result.counts, strict=True):
        print(f" [{low:g}, {high:g}): {count * share:g}")
    print(f" [{result.edges[-1]:g}, inf]: {result.above * share:g}")
    outputs = _pictures(given, f"hist_{label}")
    star_figures.draw_histogram(result, label, outputs, given["in_percent"], given["cumulative"])
    print(f" Picture: {' '.join(map(str, outputs))}")
