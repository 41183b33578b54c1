"""Jobs on small inputs, of whose time the start of a program is the greater part: aurefine against RELION's programs, in turns.

python benchmarks/short_jobs.py [--times 9] [--only mask] [--output benchmarks/results/short_jobs.json]

The floor is what Python, and Python with numpy, take to start and end in the same turns.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import extraction
import image_handler
import postprocess
import star_files
from paired import AUREFINE, conditions, empty, in_turns

ROWS, BOXES = (1_000, 10_000), (64, 128)
RE_EXTRACTED = 50  # particles of each micrograph


def _inputs(folder: Path) -> None:
    for box in BOXES:
        image_handler.make_map(folder / f"map{box}.mrc", box)
        postprocess.make(folder, box)
    image_handler.make_stack(folder / "stack.mrcs", 64, 100)
    for rows in ROWS:
        star_files.make(folder / f"particles{rows}.star", rows)
    for count in (1, 4):
        extraction.make(folder / f"project{count}", count, RE_EXTRACTED, shape=(1024, 1024))


def _jobs() -> Iterator[tuple[str, str, str, list[str]]]:
    """Name, aurefine's job, RELION's program, flags; {o} is the output, {folder} the inputs' folder."""
    for box in BOXES:
        given = ["--i", f"map{box}.mrc", "--o", "{o}.mrc"]
        yield f"mask_create, {box} px", "mask_create", "relion_mask_create", [*given, *image_handler.OPERATIONS["mask"][1].split()]
        for name in ("low-pass and B-factor", "rescale to half", "new box", "flip", "symmetrise D2"):
            flags = image_handler.OPERATIONS[name][1].format(half=box // 2).split()
            yield f"image_handler, {name}, {box} px", "image_handler", "relion_image_handler", [*given, *flags]
        yield f"image_handler, statistics, {box} px", "image_handler", "relion_image_handler", [*given[:2], "--stats"]
        flags = ["--i", f"half1_{box}.mrc", "--mask", f"mask_{box}.mrc", "--o", "{o}", "--auto_bfac"]
        yield f"postprocess, {box} px", "postprocess", "relion_postprocess", flags
    given = ["--i", "stack.mrcs", "--o", "{o}.mrcs"]
    yield "image_handler, low-pass, 100 x 64 px", "image_handler", "relion_image_handler", [*given, "--lowpass", "8"]
    for rows in ROWS:
        given = ["--i", f"particles{rows}.star", "--o", "{o}.star"]
        for name, flags in star_files.CHORES.items():
            yield f"star, {name}, {rows} rows", "star", "relion_star_handler", [*given, *flags]
        flags = star_files.CHORES["select by value"]
        yield f"select by value, {rows} rows", "select", "relion_star_handler", [*given, *flags]


def _extractions(folder: Path, times: int) -> Iterator[tuple[str, dict[str, float]]]:
    for count in (1, 4):
        project = folder / f"project{count}"
        commands = {program: extraction.command(program, 1, program) for program in ("aurefine", "relion")}
        present = {program: command for program, command in commands.items() if command}
        found = in_turns(present, times, project, lambda program, project=project: extraction.remove(project, program))
        yield f"extract, {count} micrograph{'s' * (count > 1)} of 1024 px, {RE_EXTRACTED} particles each, 360 to 256 px", found


def measure(folder: Path, times: int, only: str) -> Iterator[tuple[str, dict[str, float]]]:
    """Name and medians of each job whose name holds `only`, and of Python's own start."""
    yield "floor", in_turns({"python": [sys.executable, "-c", "pass"], "numpy": [sys.executable, "-c", "import numpy"]}, times)
    for name, job, program, flags in _jobs():
        if only in name:
            commands = {"aurefine": [*AUREFINE, job], "relion": [program]}
            filled = {which: [word.replace("{threads}", "1").replace("{o}", f"{which}/out") for word in [*start, *flags]]
                      for which, start in commands.items()}  # fmt: skip
            yield name, in_turns(filled, times, folder, lambda which: empty(folder / which))
    if only in "extract":
        yield from _extractions(folder, times)


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--times", type=int, default=9)
    parser.add_argument("--only", default="", help="jobs whose name holds this text")
    parser.add_argument("--output", type=Path, help="JSON file; what it holds of other jobs is kept")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    results: dict[str, object] = json.loads(given.output.read_text()) if given.output and given.output.exists() else {}
    results |= conditions()
    with tempfile.TemporaryDirectory() as name:
        _inputs(Path(name))
        for job, found in measure(Path(name), given.times, given.only):
            results[job] = found
            print(f"{job}: {found}", flush=True)
    if given.output:
        given.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
