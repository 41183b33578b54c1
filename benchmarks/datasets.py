"""The simulated sets that benchmarks run on: `python benchmarks/datasets.py d2_64 --folder FOLDER` writes one, no name writes all.

The noise is set so that spectral signal-to-noise ratios match those of the real beta-galactosidase particles of EMPIAR-10204 (about 0.1
at 18 A and 0.07 at 12 A per particle), except where a recipe says that it is harder.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

from aurefine import molecule
from aurefine.imaging import Camera, Imaging
from aurefine.simulate import SimulatedSet, simulate


@dataclass(frozen=True)
class Recipe:
    """A set: its point group, how it is imaged, and a line on what it is for."""

    point_group: str
    imaging: Imaging
    purpose: str


RECIPES = {
    "d2_64": Recipe("D2", Imaging(1000, (Camera(4.976, 64),), snr=0.25, seed=11), "beta-galactosidase's size and symmetry, coarse pixels"),
    "d2_128": Recipe("D2", Imaging(1000, (Camera(2.488, 128),), snr=0.12, seed=12), "the same exposure at half the pixel size"),
    "c1_64": Recipe("C1", Imaging(1500, (Camera(3.54, 64),), snr=0.18, seed=13), "no symmetry"),
    "c4_64": Recipe("C4", Imaging(1000, (Camera(3.54, 64),), snr=0.16, seed=14), "a free shift along the axis"),
    "o_64": Recipe("O", Imaging(1000, (Camera(3.54, 64),), snr=0.14, seed=15), "a hollow shell that looks alike from everywhere at 50 A"),
    "d2_64_noisy": Recipe("D2", Imaging(1000, (Camera(4.976, 64),), snr=0.08, seed=11), "three times the noise power"),
    "noise_64": Recipe("D2", Imaging(1000, (Camera(4.976, 64),), snr=0.25, pure_noise=1000, seed=16), "nothing but noise"),
}


def write(name: str, folder: Path) -> SimulatedSet:
    """Write the set `name` into `folder`/`name`, with `set.json` telling its point group and particle diameter."""
    recipe = RECIPES[name]
    made = simulate(molecule.generate(recipe.point_group, seed=1), folder / name, recipe.imaging)
    camera = recipe.imaging.cameras[0]
    facts = {"name": name, "purpose": recipe.purpose, "point_group": recipe.point_group, "particle_diameter": round(made.particle_diameter),
             "particles": recipe.imaging.particles, "box": camera.box, "pixel_size": camera.pixel_size, "snr": recipe.imaging.snr}
    (folder / name / "set.json").write_text(json.dumps(facts, indent=1) + "\n")
    return made


def main() -> None:
    """Write the sets named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", help=f"which of {', '.join(RECIPES)} (default: all)")
    parser.add_argument("--folder", type=Path, default=Path("benchmark_sets"), help="where to write them")
    arguments = parser.parse_args()
    for name in arguments.sets or RECIPES:
        if name not in RECIPES:
            parser.error(f"there is no set {name!r}; there are {', '.join(RECIPES)}")
        start = time.perf_counter()
        write(name, arguments.folder)
        print(f"{name}: {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
