"""How the versions of RELION name a job's state and the kinds of files: words since RELION 4, numbers before (ALGORITHM.md 6.9)."""

from __future__ import annotations

RUNNING, SCHEDULED, SUCCEEDED, FAILED, ABORTED = STATUSES = ("Running", "Scheduled", "Succeeded", "Failed", "Aborted")  # RELION 3: 0 to 4

# RELION 3's numbers of the kinds of nodes, found by the longest matching beginning of the label that RELION 4 and 5 write.
_NODE_CODES = {
    "MicrographMoviesGroupMetadata": 0,
    "MicrographMovieGroupMetadata": 0,
    "MicrographGroupMetadata": 1,
    "MicrographsGroupMetadata": 1,
    "MicrographCoordsGroup": 2,
    "MicrographsCoords": 2,
    "ParticleGroupMetadata": 3,
    "ParticlesData": 3,
    "Image2DStack": 5,
    "DensityMap": 6,
    "Mask3D": 7,
    "OptimiserData": 9,
    "DensityMap.mrc.relion.halfmap": 10,
    "DensityMap.mrc.relion.postprocess": 11,
    "Image3D.mrc.relion.localresmap": 12,
    "LogFile": 13,
    "ProcessData.star.relion.postprocess": 14,
}
_NODE_LABELS = {
    0: "MicrographMoviesGroupMetadata.star",
    1: "MicrographGroupMetadata.star",
    2: "MicrographCoordsGroup.star",
    3: "ParticleGroupMetadata.star",
    5: "Image2DStack.mrc",
    6: "DensityMap.mrc",
    7: "Mask3D.mrc",
    9: "OptimiserData.star",
    10: "DensityMap.mrc.relion.halfmap",
    11: "DensityMap.mrc.relion.postprocess",
    12: "Image3D.mrc.relion.localresmap",
    13: "LogFile.pdf",
    14: "ProcessData.star.relion.postprocess",
}
_MISSING_IN_3 = (  # nodes that RELION 3's jobs did not have
    "OptimiserData.star.relion.refine3d",
    "MicrographCoordsGroup.star.relion.reextract",
)


def node_code(label: str) -> int | None:
    """RELION 3's number of a node label; None for a kind that it did not know."""
    if label.startswith(_MISSING_IN_3):
        return None
    beginnings = [beginning for beginning in _NODE_CODES if label == beginning or label.startswith(beginning + ".")]
    return _NODE_CODES[max(beginnings, key=len)] if beginnings else None


def node_label(code: int) -> str:
    """The label of RELION 4 and 5 for RELION 3's number; an unknown number stays a number."""
    return _NODE_LABELS.get(code, str(code))
