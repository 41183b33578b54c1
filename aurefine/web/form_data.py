"""The forms of the job types as the page shows them: RELION's tabs, labels, defaults, choices and order, with help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aurefine.jobs.form import JobType
from aurefine.jobs.options import FormField
from aurefine.project import job_types
from aurefine.project.labels import node_code
from aurefine.project.pipeline import Pipeline
from aurefine.web.field_help import help_of, is_supported

_KINDS = {  # rows whose flag does not say which kind of node goes there
    "fn_cont": "OptimiserData.star", "fn_model": "OptimiserData.star", "fn_mic": "MicrographGroupMetadata.star",
    "fn_data": "ParticleGroupMetadata.star", "in_mov": "MicrographMoviesGroupMetadata.star", "in_mic": "MicrographGroupMetadata.star",
    "fn_half": "DensityMap.mrc.relion.halfmap",
    "in_part": "ParticleGroupMetadata.star", "in_coords": "MicrographCoordsGroup.star", "in_3dref": "DensityMap.mrc", "in_mask": "Mask3D.mrc",
}  # fmt: skip
_ENDINGS = {"DensityMap": (".mrc", ".map"), "Mask3D": (".mrc", ".map")}


def job_type_data(job_type: JobType, generation: int) -> dict[str, Any]:
    """Name, label and tabs of a job type for a project of RELION `generation`, in RELION's order."""
    tabs: dict[str, list[dict[str, Any]]] = {}
    defaults = job_type.defaults(generation)
    for row in job_type.fields:
        if row.since <= generation <= row.until:
            tabs.setdefault(row.tab, []).append(_row_data(job_type, row, defaults[row.key]))
    for tab in tabs.values():
        for row_data in tab:
            row_data["mayChange"] = row_data["key"] in job_type.changeable
    return {"name": job_type.name, "label": job_type.label, "command": job_type.command, "canContinue": job_type.continued is not None,
            "tabs": [{"name": name, "rows": rows} for name, rows in tabs.items()]}  # fmt: skip


def _row_data(job_type: JobType, row: FormField, default: str) -> dict[str, Any]:
    return {
        "key": row.key, "label": row.label, "kind": row.kind, "default": default, "range": row.range, "choices": row.choices,
        "required": row.required, "help": help_of(job_type, row), "supported": is_supported(job_type, row),
    }  # fmt: skip


def all_types(generation: int) -> list[dict[str, Any]]:
    """Every job type that aurefine runs, as `job_type_data`."""
    return [job_type_data(job_type, generation) for job_type in job_types.JOB_TYPES]


def field(job_type: JobType, key: str) -> FormField | None:
    """The row of that key."""
    return next((row for row in job_type.fields if row.key == key), None)


def kind_of(job_type: JobType, row: FormField) -> str:
    """Label of the nodes that go into a row; "" where it takes other files."""
    return _KINDS.get(row.key) or job_type.inputs.get(row.flag, "")


def nodes_for(pipeline: Pipeline, kind: str) -> list[str]:
    """The project's nodes of a kind (label of RELION 4 and 5), the newest job's first; a kind's variants count."""
    if not kind:
        return []
    base, code = kind.split(".")[0], node_code(kind)
    variant = kind if kind.count(".") > 1 else base
    found = [name for name, label in pipeline.nodes().items() if _is_of(label, variant, code)]
    return list(reversed(found))


def _is_of(label: str, variant: str, code: int | None) -> bool:
    """RELION 3 has numbers for labels, and older projects labels without the last part."""
    return label == str(code) if label.isdecimal() else label.startswith(variant)


def endings(kind: str) -> tuple[str, ...]:
    """The endings of the files that may stand for a node of this kind; empty: any."""
    base = kind.split(".")[0]
    return _ENDINGS.get(base, (".star",) if ".star" in kind else (".mrc", ".map") if ".mrc" in kind else ())


def values_of(data: Mapping[str, Any]) -> dict[str, str]:
    """The form that the browser sent: texts by key; ValueError for anything else."""
    if not isinstance(data, Mapping) or not all(isinstance(key, str) and isinstance(value, str) for key, value in data.items()):
        raise ValueError("the form must map names to texts")
    if any("\0" in value or "\n" in value or "\r" in value for value in data.values()):
        raise ValueError("a value may not hold line breaks")
    return dict(data)
