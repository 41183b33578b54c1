"""The particles of a refinement by their likelihood, a page at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from aurefine import star
from aurefine.file_cache import FileCache
from aurefine.star import Table

_SHOWN = {  # label -> what it is called on the page
    "rlnLogLikeliContribution": "log likelihood", "rlnMaxValueProbDistribution": "Pmax", "rlnNrOfSignificantSamples": "significant poses",
    "aurefineSignalFit": "signal fit",
    "rlnAngleRot": "rot (°)", "rlnAngleTilt": "tilt (°)", "rlnAnglePsi": "psi (°)", "rlnOriginXAngst": "x (Å)", "rlnOriginYAngst": "y (Å)",
    "rlnNormCorrection": "norm", "rlnDefocusU": "defocus U (Å)", "rlnRandomSubset": "half", "rlnMicrographName": "micrograph",
}  # fmt: skip


def _read(path: Path) -> Table:
    return star.read_table(path, "particles")


PARTICLES: FileCache[Table] = FileCache(_read, 1)  # they may be large


def angles_of(particles: Table) -> np.ndarray:
    """Rot and tilt [n, 2], degrees."""
    if "rlnAngleRot" not in particles or "rlnAngleTilt" not in particles:
        return np.zeros((0, 2))
    return np.stack([particles["rlnAngleRot"], particles["rlnAngleTilt"]], axis=-1).astype(float)


def page(path: Path, label: str, descending: bool, first: int, count: int) -> dict[str, Any]:
    """Some particles in the order of a column; names of images are as the file has them."""
    table = PARTICLES.get(path)
    shown = {each: title for each, title in _SHOWN.items() if each in table}
    key = label if label in table and table[label].dtype != object else None
    order = np.argsort(table[key], kind="stable") if key else np.arange(table.count)
    chosen = (order[::-1] if descending else order)[first : first + count]
    names = table.columns.get("rlnImageName")
    rows = [{"image": str(names[row]) if names is not None else "", "row": int(row) + 1, "values": [_text(table[each][row]) for each in shown]}
            for row in chosen]  # fmt: skip
    return {"file": path.name, "count": table.count, "labels": list(shown), "titles": list(shown.values()), "sorted": key or "", "rows": rows}


def _text(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
