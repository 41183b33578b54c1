"""Particles cut out of micrographs, as RELION's extraction does (ALGORITHM.md 7)."""

from aurefine.extraction.options import ExtractOptions, validate
from aurefine.extraction.run import Extraction, extract

__all__ = ["ExtractOptions", "Extraction", "extract", "validate"]
