"""Time of `aurefine postprocess` against `relion_postprocess` on the same half maps, in turns on the same machine.

python benchmarks/postprocess.py [--boxes 64,128,256,360] [--local 64,128] [--output benchmarks/results/postprocess.json]

What the output file holds of other boxes is kept.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from paired import AUREFINE, conditions, empty, in_turns

from aurefine import fourier, mask, mrc

WIDTH = 318.0  # Angstrom, of every box


def make(folder: Path, box: int) -> list[str]:
    """Two noisy half maps of one random ball and a mask; returns the flags that name them."""
    pixel_size, rng = WIDTH / box, np.random.default_rng(0)
    envelope = np.exp(-100 / 4 * fourier.radius_squared_3d(box) / WIDTH**2)

    def draw() -> np.ndarray:
        white = fourier.transform_map(rng.standard_normal((box,) * 3, dtype=np.float32))
        return fourier.inverse_map((white * envelope).astype(np.complex64), box)

    ball = draw() * mask.soft_edge(box, 3, 0.25 * box, 0.05 * box)
    for half in (1, 2):
        mrc.write_map(folder / f"half{half}_{box}.mrc", ball + 0.4 * draw(), pixel_size)
    mrc.write_map(folder / f"mask_{box}.mrc", mask.soft_edge(box, 3, 0.3 * box, 0.05 * box), pixel_size)
    return ["--i", str(folder / f"half1_{box}.mrc"), "--mask", str(folder / f"mask_{box}.mrc")]


def compare(folder: Path, box: int, flags: list[str], times: int) -> dict[str, float]:
    """Medians of several turns of each program."""
    inputs = make(folder, box)
    programs = {"aurefine": [*AUREFINE, "postprocess"], "relion": ["relion_postprocess"]}
    commands = {name: [*start, *inputs, "--o", str(folder / name / "post"), *flags] for name, start in programs.items()}
    found = in_turns(commands, times, before=lambda name: empty(folder / name))
    print(box, flags, found, flush=True)
    return found


def main() -> None:
    """Measure every box with both programs, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--boxes", default="64,128,256,360")
    parser.add_argument("--local", default="64,128")
    parser.add_argument("--times", type=int, default=7)
    parser.add_argument("--output", default="benchmarks/results/postprocess.json")
    given = parser.parse_args()
    target = Path(given.output)
    result: dict[str, object] = (json.loads(target.read_text()) if target.exists() else {}) | conditions()
    with tempfile.TemporaryDirectory() as folder:
        for box in (int(word) for word in given.boxes.split(",") if word):
            result[f"sharpening, {box} px"] = compare(Path(folder), box, ["--auto_bfac"], given.times)
        for box in (int(word) for word in given.local.split(",") if word):
            result[f"local resolution, {box} px"] = compare(Path(folder), box, ["--locres"], 0)
    target.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
