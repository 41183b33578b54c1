"""aurefine: gold-standard cryo-EM auto-refinement that reads and writes RELION's files."""

from aurefine import refine
from aurefine.errors import InputError
from aurefine.refine.options import RefineOptions

__all__ = ["InputError", "RefineOptions", "__version__", "refine"]
__version__ = "0.1.0"
