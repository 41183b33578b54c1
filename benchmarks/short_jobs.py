"""Jobs on small inputs, of whose time the start of a program is the greater part: aurefine against RELION's programs, in turns.

python benchmarks/short_jobs.py [--times 9] [--only mask] [--tutorial tutorial_output] [--output benchmarks/results/short_jobs.json]

The floor is what Python, and Python with numpy, take to start and end in the same turns. With --tutorial, instead of made-up inputs, the jobs around
the refinement in the folder that examples/tutorial.sh has made, each again on its own inputs; the results of both programs are compared on the way.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import extraction
import image_handler
import numpy as np
import postprocess
import star_files
from paired import AUREFINE, conditions, empty, in_turns

from aurefine import mrc, star

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


def _tutorial_jobs(folder: Path) -> Iterator[tuple[str, str, str, list[str]]]:
    """As `_jobs`, of a folder of the tutorial, with its boxes and pixel sizes."""
    first, refined = "Refine3D/job002/run", "Refine3D/job004/run"
    small, last = (mrc.read_header(folder / f"{run}_class001.mrc") for run in (first, refined))
    pixel_size = float(star.read_table(folder / "micrographs_ctf.star", "optics")["rlnMicrographPixelSize"][0])
    box = round(last.columns * last.pixel_size / pixel_size)
    found = re.findall(r"reach the threshold (\S+):", (folder / "MaskCreate/job005/run.out").read_text())
    sources = {
        "1. extract": (["--coord_dir", "AutoPick/", "--coord_suffix", "_autopick.star"], small.columns),
        "3. extract again": (["--reextract_data_star", f"{first}_data.star", "--recenter"], last.columns),
    }
    for name, (source, scale) in sources.items():
        yield f"{name}, {box} to {scale} px", "extract", "relion_preprocess", [
            "--i", "micrographs_ctf.star", *source, "--part_dir", "{o}/", "--part_star", "{o}/particles.star", "--extract",
            "--extract_size", str(box), "--scale", str(scale), "--norm", "--bg_radius", str(round(0.375 * scale)), "--white_dust", "-1",
            "--black_dust", "-1", "--invert_contrast"]  # fmt: skip
    yield f"4. image_handler, {small.columns} to {last.columns} px", "image_handler", "relion_image_handler", [
        "--i", f"{first}_class001.mrc", "--o", "{o}.mrc", "--rescale_angpix", f"{last.pixel_size:g}", "--new_box", str(last.columns)]  # fmt: skip
    yield f"6. mask_create, {last.columns} px", "mask_create", "relion_mask_create", [
        "--i", f"{refined}_class001.mrc", "--o", "{o}.mrc", "--lowpass", "15", "--ini_threshold", found[0], "--extend_inimask", "3",
        "--width_soft_edge", "5", "--j", "1"]  # fmt: skip
    yield f"7. postprocess, {last.columns} px", "postprocess", "relion_postprocess", [
        "--i", f"{refined}_half1_class001_unfil.mrc", "--o", "{o}", "--mask", "MaskCreate/job005/mask.mrc", "--mtf", "mtf.star",
        "--mtf_angpix", f"{pixel_size:g}", "--auto_bfac"]  # fmt: skip
    for name, flags in star_files.CHORES.items():
        yield f"star, {name}", "star", "relion_star_handler", ["--i", f"{refined}_data.star", "--o", "{o}.star", *flags]


def _difference(folder: Path) -> float | None:
    """The largest between the programs' maps (the first of each), or images, as a part of their range; None where there are none."""
    ours = sorted(path for ending in ("*.mrc", "*.mrcs") for path in (folder / "aurefine").rglob(ending))
    theirs = [folder / "relion" / path.relative_to(folder / "aurefine") for path in ours[:1]]
    if not theirs or not theirs[0].exists():
        return None
    one, other = (stack.read(range(stack.count)) for stack in map(mrc.Stack, (ours[0], theirs[0])))
    return float(f"{np.abs(one - other).max() / np.ptp(other):.2g}")


def measure(jobs: Iterable[tuple[str, str, str, list[str]]], folder: Path, times: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Name and medians of each job, which runs in the folder; with the difference of the maps or images that the programs made."""
    for name, job, program, flags in jobs:
        commands = {"aurefine": [*AUREFINE, job], "relion": [program]}
        filled = {which: [word.replace("{threads}", "1").replace("{o}", f"{which}/out") for word in [*start, *flags]]
                  for which, start in commands.items()}  # fmt: skip
        found = in_turns(filled, times, folder, lambda which: empty(folder / which))
        difference = _difference(folder)
        yield name, found if difference is None else {**found, "difference": difference}
        for which in commands:
            shutil.rmtree(folder / which, ignore_errors=True)


def _small(folder: Path, times: int, only: str) -> Iterator[tuple[str, dict[str, float]]]:
    """The jobs on made-up inputs whose name holds `only`, and Python's own start."""
    _inputs(folder)
    yield "floor", in_turns({"python": [sys.executable, "-c", "pass"], "numpy": [sys.executable, "-c", "import numpy"]}, times)
    yield from measure((job for job in _jobs() if only in job[0]), folder, times)
    if only in "extract":
        yield from _extractions(folder, times)


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--times", type=int, default=9)
    parser.add_argument("--only", default="", help="jobs whose name holds this text")
    parser.add_argument("--tutorial", type=Path, help="folder of examples/tutorial.sh")
    parser.add_argument("--output", type=Path, help="JSON file; what it holds of other jobs is kept")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        folder = (given.tutorial or Path(name)).resolve()
        if given.tutorial:
            found = measure((job for job in _tutorial_jobs(folder) if given.only in job[0]), folder, given.times)
        else:
            found = _small(folder, given.times, given.only)
        kept = json.loads(given.output.read_text()) if given.output and given.output.exists() else {}
        place = kept.setdefault("steps", {}) if given.tutorial else kept
        place |= conditions()
        for job, figures in found:
            place[job] = figures
            print(f"{job}: {figures}", flush=True)
            if given.output:
                given.output.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
