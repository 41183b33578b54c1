"""Reports of refinements for the page: the last one is kept until the run, or a job that took its half maps, writes something new."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

from aurefine.file_cache import stamp
from aurefine.reporting.documents import Documents
from aurefine.reporting.postprocess_plots import FILE
from aurefine.reporting.related import related
from aurefine.web import refinement
from aurefine.web.folder import Folder

DRAWING = threading.Lock()  # matplotlib's settings are one for all threads
_KEPT: dict[str, Documents] = {}


def of(folder: Folder, directory: Path) -> tuple[Documents, str]:
    """The report of the run in a job's directory, and its version.

    InputError where there is none, Outside where one of its maps is a link that leads out.
    """
    root = refinement.root_of(directory)
    for path in directory.glob(f"{root.name}*.mrc"):
        folder.path(folder.name(path))
    key = version(directory)
    if key not in _KEPT:
        _KEPT.clear()
        _KEPT[key] = Documents(directory, directory)
    return _KEPT[key], key


def version(directory: Path) -> str:
    """Changes with what the report of the run in a job's directory is made of."""
    found = related(refinement.root_of(directory))
    files = [found.postprocess.folder / FILE if found.postprocess else None, found.local_resolution, found.validation]
    made = [directory, refinement.version(directory), *((path, stamp(path)) for path in files if path),
            *((path, stamp(path)) for path in sorted(directory.glob("*_warnings.txt")))]  # fmt: skip
    return hashlib.sha256(repr(made).encode()).hexdigest()[:16]
