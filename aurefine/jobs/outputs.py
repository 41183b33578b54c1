"""Output files of the jobs: never replaced unasked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aurefine import folders
from aurefine.errors import InputError
from aurefine.jobs.options import Option

OVERWRITE = Option("overwrite", "--overwrite", "Replace output files that are there already", "I/O", False, "switch")


def cleaned(values: Mapping[str, Any]) -> dict[str, Any]:
    """Parsed values with RELION's `None` for "no file" as an empty name."""
    return {name: "" if value == "None" else value for name, value in values.items()}


def with_own_directory(values: Mapping[str, Any]) -> dict[str, Any]:
    """Cleaned values without --pipeline_control: a job with a directory of its own may replace its own files."""
    given = cleaned(values)
    if given.pop("pipeline_control", ""):
        given["overwrite"] = True
    return given


def free(path: str | Path, overwrite: bool) -> Path:
    """The path of an output, its folder made where that is missing; InputError when there is a file already that may not be replaced."""
    target = Path(path)
    if target.exists() and not overwrite:
        raise InputError(f"{path}: there is such a file already; choose another --o, or allow its replacement with --overwrite")
    folders.make(target.parent)
    return target
