"""State and plan of an iteration as arrays and JSON, with all their digits: what checkpoints hold (partial.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from aurefine.refine.plan import Geometry, Plan
from aurefine.refine.state import Model, Poses, Progress, SamplingState, State


def nearly_same(one: State, other: State) -> bool:
    """Whether two states differ by the rounding of STAR files only, as far as particles tell."""
    if not np.array_equal(one.random_subset, other.random_subset) or len(one.halves) != len(other.halves):
        return False
    return all(np.allclose(getattr(one.poses, name), getattr(other.poses, name), rtol=0, atol=1e-4) for name in ("angles", "offsets"))


def written_state(state: State, maps: bool = True) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(arrays, what else there is) of a state."""
    arrays = {f"poses_{name}": getattr(state.poses, name) for name in Poses.__dataclass_fields__} | {"random_subset": state.random_subset}
    models = []
    for number, model in enumerate(state.halves):
        values = {name: getattr(model, name) for name in Model.__dataclass_fields__}
        arrays |= {f"half{number}_{name}": value for name, value in values.items() if isinstance(value, np.ndarray) and (maps or name != "map")}
        models.append({name: float(value) for name, value in values.items() if not isinstance(value, np.ndarray)})
    return arrays, {"models": models, "sampling": _plain(state.sampling), "progress": _plain(state.progress)}


def read_state(stored: Any, head: dict[str, Any], maps: Sequence[np.ndarray] = ()) -> State:
    """What `written_state` wrote, with these maps where it wrote none."""
    models = []
    for number, values in enumerate(head["models"]):
        prefix = f"half{number}_"
        arrays = {name[len(prefix) :]: stored[name] for name in stored.files if name.startswith(prefix)}
        if maps:
            arrays["map"] = maps[number]
        models.append(Model(**arrays, **values))
    poses = Poses(*(stored[f"poses_{name}"] for name in Poses.__dataclass_fields__))
    return State(tuple(models), poses, SamplingState(**head["sampling"]), Progress(**head["progress"]), stored["random_subset"])


def _plain(value: Any) -> dict[str, Any]:
    """The fields of a dataclass, numbers as JSON takes them."""
    fields = {name: getattr(value, name) for name in value.__dataclass_fields__}
    return {name: item.item() if isinstance(item, np.generic) else item for name, item in fields.items()}


def written_plan(plan: Plan) -> dict[str, Any]:
    """A plan as JSON takes it."""
    geometry = [_plain(each) | {"magnification": np.asarray(each.magnification).tolist()} for each in plan.geometry]
    sizes = [[int(size) for size in group] for group in plan.image_sizes]
    return _plain(plan) | {"sampling": _plain(plan.sampling), "geometry": geometry, "image_sizes": sizes}


def read_plan(head: dict[str, Any]) -> Plan:
    """What `written_plan` wrote."""
    geometry = tuple(Geometry(**{**each, "magnification": np.array(each["magnification"])}) for each in head["geometry"])
    oversampling = tuple(head["oversampling"]) if head["oversampling"] else None
    sizes = tuple(tuple(group) for group in head["image_sizes"])
    return Plan(**{**head, "sampling": SamplingState(**head["sampling"]), "geometry": geometry, "image_sizes": sizes, "oversampling": oversampling})
