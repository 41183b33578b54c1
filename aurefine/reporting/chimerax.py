"""Commands for ChimeraX: the map and what belongs to it, opened, set to a contour, and coloured by local resolution where it is known."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from aurefine import mrc
from aurefine.errors import InputError
from aurefine.mask_threshold import find_threshold
from aurefine.reporting.facts import Facts
from aurefine.reporting.history import map_path, newest, numbers_of

_PALETTE = ("#0d4fa0", "#4fb3d9", "#f2f2f2", "#f5a35c", "#b2182b")  # fine to coarse; told apart by the colour-blind


def commands(facts: Facts, folder: Path) -> str:
    """The text of a `.cxc` file that is to lie in `folder`: ChimeraX goes there before it runs it. InputError where the run has no map."""
    shown, halves = _maps(facts)
    volume, header_size = mrc.read_map(shown)
    size = facts.last.model.pixel_size or header_size
    lines = [f"# {facts.job}: open this file in ChimeraX. Names are relative to its folder.", "close session", "set bgColor white"]
    opened: list[Path] = []

    def add(path: Path, name: str) -> str:
        opened.append(path)
        lines.append(f'open "{_relative(path, folder)}" name "{name}"')
        return f"#{len(opened)}"

    main = add(shown, "map")
    lines += _surface(main, size, contour(volume), "#7fa6d6")
    for number, path in enumerate(halves, 1):
        half = add(path, f"half map {number}")
        lines += [*_surface(half, size, contour(mrc.read_map(path)[0]), "#9ccf9c"), f"hide {half} models"]
    mask = _mask(facts)
    if mask:
        this = add(mask, "mask")
        lines += [*_surface(this, mrc.read_header(mask).pixel_size, 0.5, "#e8c15a"), f"transparency {this} 70", f"hide {this} models"]
    if facts.related.local_resolution:
        local = facts.related.local_resolution
        lines += _local_resolution(local, add(local, "local resolution"), main)
    bild = _directions(facts)
    if bild:
        lines += [f"hide {add(bild, 'viewing directions')} models"]
    lines += [f"surface dust {main} size {6 * size:.4g}", "lighting soft", "graphics silhouettes true", "view"]
    return "\n".join(lines) + "\n"


def contour(volume: np.ndarray) -> float:
    """A density half way from solvent to particle, both found from the map [z, y, x]; four deviations where they are not two things."""
    deviation = float(volume.std())
    try:
        found = find_threshold(volume)
    except ValueError:
        return deviation
    middle = found.solvent + 0.5 * (found.particle - found.solvent)
    return middle if middle > found.solvent + 2 * found.noise else float(volume.mean()) + 4 * deviation


def _maps(facts: Facts) -> tuple[Path, list[Path]]:
    """The map to look at, the sharpened one if there is one, and the half maps."""
    root, post = facts.root, facts.related.postprocess
    final = map_path(root, -1, "map")
    if facts.finished and final.is_file():
        halves = [map_path(root, -1, kind) for kind in ("half1", "half2")]
        shown = post.map if post and post.map else final
    else:
        numbers = numbers_of(root, "half1_class001.mrc")
        if not numbers:
            raise InputError(f"{root}: no map {root.name}_class001.mrc or {root.name}_it*_half1_class001.mrc there; was it moved or deleted?")
        halves = [map_path(root, numbers[-1], kind) for kind in ("half1", "half2")]
        shown = halves[0]
    return shown, [path for path in halves if path.is_file() and path != shown]


def _mask(facts: Facts) -> Path | None:
    """The mask of the post-processing, or else of the refinement; a name in the project, or an absolute one."""
    post = facts.related.postprocess
    project = facts.root.resolve().parent.parent.parent
    names = [post.mask if post else "", facts.file("rlnSolventMaskName")]
    return next((path for name in names if name and (path := project / name).is_file()), None)


def _directions(facts: Facts) -> Path | None:
    """The newest `_angdist.bild`: of all particles, else of half 1."""
    return newest(facts.root, "class001_angdist.bild", "half1_class001_angdist.bild")


def _surface(model: str, voxel: float, level: float, colour: str) -> list[str]:
    return [f"volume {model} voxelSize {voxel:.6g} style surface step 1 level {level:.4g} color {colour}"]


def _local_resolution(path: Path, model: str, main: str) -> list[str]:
    """Hide the map of local resolutions, and colour the main one by it, without the best and the worst twentieth of the voxels."""
    values = mrc.read_map(path)[0]
    measured = values[values > 0]
    if not len(measured):
        return [f"hide {model} models"]
    low, high = (float(value) for value in np.percentile(measured, [5, 95]))
    places = np.linspace(low, max(high, low + 0.1), len(_PALETTE))
    palette = ":".join(f"{place:.2f},{colour}" for place, colour in zip(places, _PALETTE, strict=True))
    return [f"hide {model} models", f"color sample {main} map {model} palette {palette} key true"]


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
