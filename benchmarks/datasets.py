"""The simulated sets that benchmarks run on: `python benchmarks/datasets.py d2_64 --folder FOLDER` writes one, no name writes all.

The noise is set so that spectral signal-to-noise ratios match those of the real beta-galactosidase particles of EMPIAR-10204 (about 0.1
at 18 A and 0.07 at 12 A per particle), except where a recipe says that it is harder.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aurefine import molecule, mrc
from aurefine.imaging import Camera, Imaging
from aurefine.simulate import SimulatedSet, simulate


@dataclass(frozen=True)
class Recipe:
    """A set: its point group, how it is imaged, and a line on what it is for."""

    point_group: str
    imaging: Imaging
    purpose: str


REAL = "betagal"
RECIPES = {
    "d2_64": Recipe("D2", Imaging(1000, (Camera(4.976, 64),), snr=0.25, seed=11), "beta-galactosidase's size and symmetry, coarse pixels"),
    "d2_128": Recipe("D2", Imaging(1000, (Camera(2.488, 128),), snr=0.12, seed=12), "the same exposure at half the pixel size"),
    "d2_128_4000": Recipe("D2", Imaging(4000, (Camera(2.488, 128),), snr=0.12, seed=12), "more of the same, so that starting counts for less"),
    "d2_256": Recipe("D2", Imaging(500, (Camera(1.244, 256),), snr=0.06, seed=20), "the box of RELION's tutorial, few particles"),
    "c1_64": Recipe("C1", Imaging(1500, (Camera(3.54, 64),), snr=0.18, seed=13), "no symmetry"),
    "c4_64": Recipe("C4", Imaging(1000, (Camera(3.54, 64),), snr=0.16, seed=14), "a free shift along the axis"),
    "o_64": Recipe("O", Imaging(1000, (Camera(3.54, 64),), snr=0.14, seed=15), "a hollow shell that looks alike from everywhere at 50 A"),
    "c1_128": Recipe("C1", Imaging(1500, (Camera(1.77, 128),), snr=0.09, seed=17), "no symmetry, fine pixels"),
    "c4_128": Recipe("C4", Imaging(1000, (Camera(1.77, 128),), snr=0.08, seed=18), "a free shift along the axis, fine pixels"),
    "o_128": Recipe("O", Imaging(1000, (Camera(1.77, 128),), snr=0.07, seed=19), "the shell, fine pixels"),
    "d2_64_noisy": Recipe("D2", Imaging(1000, (Camera(4.976, 64),), snr=0.08, seed=11), "three times the noise power"),
    "noise_64": Recipe("D2", Imaging(1000, (Camera(4.976, 64),), snr=0.25, pure_noise=1000, seed=16), "nothing but noise"),
}


def write(name: str, folder: Path) -> SimulatedSet:
    """Write the set `name` into `folder`/`name`, with `set.json` telling its point group and particle diameter."""
    recipe = RECIPES[name]
    made = simulate(molecule.generate(recipe.point_group, seed=1), folder / name, recipe.imaging)
    camera = recipe.imaging.cameras[0]
    facts = {"name": name, "purpose": recipe.purpose, "point_group": recipe.point_group, "particle_diameter": round(made.particle_diameter),
             "particles": recipe.imaging.particles, "box": camera.box, "pixel_size": camera.pixel_size, "snr": recipe.imaging.snr,
             "star": "particles.star", "reference": "reference.mrc", "truth_star": "truth.star"}
    (folder / name / "set.json").write_text(json.dumps(facts, indent=1) + "\n")
    return made


def write_real(folder: Path, data: Path) -> None:
    """Set `betagal`: links to the 1,534 real particles of EMPIAR-10204 in `data`/betagal_10204, and a map of PDB 5A1A to judge by."""
    source, target = data / "betagal_10204", folder / REAL
    if not source.is_dir():
        raise SystemExit(f"{source}: there are no real particles; set AUREFINE_SHARED to the folder that holds data/betagal_10204")
    target.mkdir(parents=True, exist_ok=True)
    for item in source.iterdir():
        if not (target / item.name).is_symlink():
            (target / item.name).symlink_to(item.resolve())
    model = molecule.from_model(source / "5a1a.cif")
    placed = molecule.Molecule(model.positions[:, [1, 2, 0]], model.weights, model.blur)  # into the axes of the reference map
    mrc.write_map(target / "truth.mrc", placed.density(64, 3.54, 100.0), 3.54)
    facts = {"name": REAL, "purpose": "real particles, judged by the atomic model", "point_group": "D2", "particle_diameter": 200,
             "particles": 1534, "box": 64, "pixel_size": 3.54, "star": "particles_ctffixed_goodclasses.star",
             "reference": "reference_64px_3.54A.mrc", "truth_star": None}
    (target / "set.json").write_text(json.dumps(facts, indent=1) + "\n")


def ensure(name: str, folder: Path) -> dict[str, Any]:
    """Facts of a set, which is written first unless it is there."""
    if not (folder / name / "set.json").exists():
        if name == REAL:
            shared = os.environ.get("AUREFINE_SHARED") or Path(__file__).resolve().parents[2] / "shared"
            write_real(folder, Path(shared) / "data")
        elif name in RECIPES:
            write(name, folder)
        else:
            raise SystemExit(f"there is no set {name!r}; there are {', '.join([*RECIPES, REAL])}")
    return json.loads((folder / name / "set.json").read_text())


def main() -> None:
    """Write the sets named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", help=f"which of {', '.join([*RECIPES, REAL])} (default: all simulated ones)")
    parser.add_argument("--folder", type=Path, default=Path("benchmark_sets"), help="where to write them")
    arguments = parser.parse_args()
    for name in arguments.sets or RECIPES:
        start = time.perf_counter()
        ensure(name, arguments.folder)
        print(f"{name}: {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
