"""aurefine: gold-standard cryo-EM auto-refinement that reads and writes RELION's files."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from aurefine.errors import InputError

if TYPE_CHECKING:
    from aurefine import refine
    from aurefine.refine.options import RefineOptions

__all__ = ["InputError", "RefineOptions", "__version__", "refine"]
__version__ = "0.1.0"

# torch asks for pages of 2 MB instead of 4 kB for its large blocks; it looks at this once, when it is loaded. Volumes are made anew in every
# iteration: three quarters of the page faults of a run of 128 px go, and with them half of its system time.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def __getattr__(name: str) -> Any:
    """The refinement is loaded when it is asked for: other jobs import this package too, and start without it."""
    if name in ("refine", "RefineOptions"):
        module = import_module("aurefine.refine")
        return module if name == "refine" else module.RefineOptions
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
