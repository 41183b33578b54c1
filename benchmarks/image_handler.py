"""Times `aurefine image_handler` and `aurefine mask_create` against RELION's programs on one map or stack, in turns on the same machine.

    python benchmarks/image_handler.py --box 256 --output benchmarks/results/image_handler.json

Each command is a fresh process, its start included. Times are medians of the turns (paired.py). The outputs are compared on the way.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np
from paired import AUREFINE, conditions, in_turns

from aurefine import mrc
from aurefine.image_operations import bandpass_gain, filter_radial

STACK = {
    "stack, low-pass and rescale": ("image_handler", "--lowpass 8 --rescale_angpix 2"),
    "stack, B-factor": ("image_handler", "--bfactor 50"),
    "stack, centre of mass": ("image_handler", "--shift_com"),
    "stack, flip": ("image_handler", "--flipX"),
}
OPERATIONS = {
    "low-pass and B-factor": ("image_handler", "--lowpass 5 --bfactor 50"),
    "rescale to half": ("image_handler", "--rescale_angpix 2"),
    "new box": ("image_handler", "--new_box {half}"),
    "flip": ("image_handler", "--flipX"),
    "shift": ("image_handler", "--shift_x 2.5 --shift_y 1.3"),
    "symmetrise D2": ("image_handler", "--sym D2"),
    "statistics": ("image_handler", "--stats"),
    "mask": ("mask_create", "--lowpass 15 --ini_threshold 0.03 --extend_inimask 3 --width_soft_edge 6 --j {threads}"),
}


def make_map(path: Path, box: int) -> None:
    """A lumpy particle in noise."""
    rng = np.random.default_rng(0)
    lumps = filter_radial(rng.standard_normal((box,) * 3, dtype=np.float32), bandpass_gain(box, 1.0, lowpass=10.0))
    axis = ((np.arange(box) - box // 2) / (0.22 * box)) ** 2
    inside = np.exp(-(np.add.outer(np.add.outer(axis, 1.4 * axis), 0.7 * axis) ** 3)).astype(np.float32)
    noise = rng.standard_normal(lumps.shape, dtype=np.float32)
    mrc.write_map(path, 0.01 * ((lumps / lumps.std() + 8) * inside + 0.3 * noise), 1.0)


def make_stack(path: Path, box: int, count: int) -> None:
    """Images of noise."""
    rng = np.random.default_rng(0)
    with mrc.stack_writer(path, count, box, 1.0) as stack:
        for _ in range(count):
            stack.append(rng.standard_normal((1, box, box), dtype=np.float32))


def measure(program: str, flags: list[str], source: Path, repeats: int) -> dict[str, float]:
    """Both programs in turns: medians of wall and CPU seconds, ratios, and the largest difference of their outputs."""
    outputs = {name: source.with_name(f"{name}{source.suffix}") for name in ("aurefine", "relion")}
    starts = {"aurefine": [*AUREFINE, program], "relion": [f"relion_{program}"]}
    commands = {name: [*start, "--i", str(source), "--o", str(outputs[name]), *flags] for name, start in starts.items()}
    found = in_turns(commands, repeats, before=lambda name: outputs[name].unlink(missing_ok=True))
    if outputs["relion"].exists():
        ours, theirs = (mrc.read_map(path)[0] for path in (outputs["aurefine"], outputs["relion"]))
        found["difference"] = float(f"{np.abs(ours - theirs).max() / np.ptp(theirs):.2g}")
    return found


def main() -> None:
    """Run the benchmark and write its numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--box", type=int, nargs="+", default=[256])
    parser.add_argument("--stack", type=int, default=0, help="measure a stack of so many images instead of a map")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="", help="operations whose name holds this text")
    parser.add_argument("--skip", default="nothing", help="operations whose name holds this text (RELION takes minutes for a mask of 512 px)")
    parser.add_argument("--output", type=Path, help="JSON file; what it holds of other boxes is kept")
    given = parser.parse_args()
    results: dict[str, object] = json.loads(given.output.read_text()) if given.output and given.output.exists() else {}
    results |= conditions()
    with tempfile.TemporaryDirectory() as folder:
        for box in given.box:
            source = Path(folder) / ("stack.mrcs" if given.stack else "map.mrc")
            if given.stack:
                make_stack(source, box, given.stack)
            else:
                make_map(source, box)
            for name, (program, flags) in (STACK if given.stack else OPERATIONS).items():
                if given.only not in name or given.skip in name:
                    continue
                words = flags.format(half=box // 2, threads=given.threads).split()
                label = f"{name}, {given.stack} x {box} px" if given.stack else f"{name}, {box} px"
                results[label] = found = measure(program, words, source, given.repeats)
                print(f"{label}: {found}", flush=True)
    if given.output:
        given.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
