"""aurefine: gold-standard cryo-EM auto-refinement that reads and writes RELION's files."""

__version__ = "0.1.0"
