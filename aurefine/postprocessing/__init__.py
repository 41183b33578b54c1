"""Post-processing of a refined map: solvent-corrected FSC, sharpening, local resolution (ALGORITHM.md 9.2)."""

from aurefine.postprocessing.local_resolution import LocalResolution, local_resolution
from aurefine.postprocessing.options import PostprocessOptions
from aurefine.postprocessing.run import PostprocessResult, postprocess

__all__ = ["LocalResolution", "PostprocessOptions", "PostprocessResult", "local_resolution", "postprocess"]
