"""Reports of refinements for the page: the last one is kept until the run writes something new."""

from __future__ import annotations

import threading
from pathlib import Path

from aurefine.reporting.documents import Documents
from aurefine.web import refinement
from aurefine.web.folder import Folder

DRAWING = threading.Lock()  # matplotlib's settings are one for all threads
_KEPT: dict[tuple[str, str], Documents] = {}


def of(folder: Folder, directory: Path) -> Documents:
    """The report of the run in a job's directory; InputError where there is none, Outside where one of its maps is a link that leads out."""
    root = refinement.root_of(directory)
    for path in directory.glob(f"{root.name}*.mrc"):
        folder.path(folder.name(path))
    key = (str(directory), refinement.version(directory))
    if key not in _KEPT:
        _KEPT.clear()
        _KEPT[key] = Documents(directory, directory)
    return _KEPT[key]
