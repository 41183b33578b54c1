"""aurefine extract against relion_preprocess: the tutorial's re-extraction size, on the same cores.

    python benchmarks/extraction.py [--folder extraction_benchmark] [--micrographs 24] [--particles 200] [--repeats 6]

24 micrographs of noise (a K2's 3838 x 3710 pixels, float32), 200 particles each, boxes of 360 pixels Fourier-cropped to 256, normalised, contrast
inverted, float32 (RELION 3.1 writes no float16). The programs run in turns: on one core, and on two, where RELION is `mpirun -n 2
relion_preprocess_mpi`. Results go to benchmarks/results/extraction.json. Wall times mean something only on a machine that does nothing else: the
load at the start is written beside them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
from relion import machine, measure

from aurefine import mrc, star

RESULTS = Path(__file__).parent / "results"
ROWS, COLUMNS, PIXEL_SIZE, BOX, SCALE = 3710, 3838, 0.885, 360, 256
FLAGS = ["--i", "ctf.star", "--coord_dir", "Pick/", "--coord_suffix", "_pick.star", "--extract", "--extract_size", str(BOX), "--scale", str(SCALE),
         "--norm", "--bg_radius", "96", "--white_dust", "-1", "--black_dust", "-1", "--invert_contrast"]  # fmt: skip


def make(folder: Path, micrographs: int, particles: int, shape: tuple[int, int] = (ROWS, COLUMNS)) -> None:
    """Micrographs of noise and coordinates in them; left as they are where they exist."""
    if (folder / "ctf.star").exists() and star.read_table(folder / "ctf.star", "micrographs").count == micrographs:
        return
    rng = np.random.default_rng(0)
    (folder / "Micrographs").mkdir(parents=True, exist_ok=True)
    (folder / "Pick/Micrographs").mkdir(parents=True, exist_ok=True)
    names = [f"Micrographs/mic{number:03d}.mrc" for number in range(micrographs)]
    for number, name in enumerate(names):
        mrc.write_stack(folder / name, rng.standard_normal((1, *shape), dtype=np.float32) * 4 + 20, PIXEL_SIZE)
        picks = star.Table("", {"rlnCoordinateX": rng.uniform(0, shape[1], particles), "rlnCoordinateY": rng.uniform(0, shape[0], particles)})
        star.write(folder / f"Pick/Micrographs/mic{number:03d}_pick.star", [picks], version=30001)
    optics = star.Table("optics", {
        "rlnOpticsGroupName": np.array(["opticsGroup1"], dtype=object), "rlnOpticsGroup": np.array([1]),
        "rlnMicrographPixelSize": np.array([PIXEL_SIZE]), "rlnMicrographOriginalPixelSize": np.array([PIXEL_SIZE]), "rlnVoltage": np.array([200.0]),
        "rlnSphericalAberration": np.array([1.4]), "rlnAmplitudeContrast": np.array([0.1])})  # fmt: skip
    table = star.Table("micrographs", {
        "rlnMicrographName": np.array(names, dtype=object), "rlnOpticsGroup": np.ones(micrographs, int),
        "rlnDefocusU": rng.uniform(8000, 20000, micrographs), "rlnDefocusV": rng.uniform(8000, 20000, micrographs),
        "rlnDefocusAngle": rng.uniform(0, 180, micrographs)})  # fmt: skip
    star.write(folder / "ctf.star", [optics, table], version=30001)


def command(program: str, cores: int, output: str) -> list[str] | None:
    """The command on that many cores; None where RELION is absent."""
    places = [*FLAGS, "--part_dir", f"{output}/", "--part_star", f"{output}/particles.star"]
    pinned = ["taskset", "-c", ",".join(map(str, range(cores)))] if shutil.which("taskset") else []
    if program == "aurefine":
        return [*pinned, sys.executable, "-m", "aurefine", "extract", *places, "--j", str(cores)]
    name = "relion_preprocess" if cores == 1 else "relion_preprocess_mpi"
    if not shutil.which(name) or (cores > 1 and not shutil.which("mpirun")):
        return None
    ranks = [] if cores == 1 else ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", str(cores)]
    return [*pinned, *ranks, name, *places]


def remove(folder: Path, output: str) -> None:
    """Take away what a run wrote."""
    shutil.rmtree(folder / output, ignore_errors=True)


def run_once(program: str, cores: int, folder: Path) -> dict[str, Any]:
    """One run; its files are removed but for the first stack, which the programs are compared by."""
    output = f"{program}_{cores}"
    remove(folder, output)
    words = command(program, cores, output)
    if words is None:
        return {"program": program, "cores": cores, "absent": "the program is not on the PATH"}
    result = {"program": program, "cores": cores, **measure(words, folder, folder / f"{output}.log")}
    kept = folder / f"{output}.mrcs"
    stack = next((folder / output).rglob("mic000.mrcs"), None)
    if stack is not None:
        stack.replace(kept)
    remove(folder, output)
    return result


def largest_difference(folder: Path) -> float | None:
    """Of the programs' first stacks, in standard deviations."""
    paths = [folder / f"{program}_1.mrcs" for program in ("aurefine", "relion")]
    if not all(path.exists() for path in paths):
        return None
    ours, theirs = (stack.read(range(stack.count)) for stack in map(mrc.Stack, paths))
    return float(np.abs(ours - theirs).max() / theirs.std())


def _median(runs: list[dict[str, Any]], program: str, cores: int) -> dict[str, float]:
    """Of the turns after the first, which brings the micrographs into memory: wall and processor seconds."""
    done = [run for run in runs if run["program"] == program and run["cores"] == cores and "wall_s" in run]
    done = done[1:] or done
    seconds = {"wall_s": [run["wall_s"] for run in done], "cpu_s": [run["user_s"] + run["system_s"] for run in done]}
    return {name: round(statistics.median(values), 2) for name, values in seconds.items() if values}


def main() -> None:
    """Run the programs in turns and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("extraction_benchmark"), help="where micrographs are, or are written")
    parser.add_argument("--micrographs", type=int, default=24)
    parser.add_argument("--particles", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--output", type=Path, default=RESULTS / "extraction.json")
    arguments = parser.parse_args()
    make(arguments.folder, arguments.micrographs, arguments.particles)
    runs = []
    for cores in (1, 2):
        for _ in range(arguments.repeats + 1):
            for program in ("aurefine", "relion"):
                runs.append(run_once(program, cores, arguments.folder))
                print(runs[-1], flush=True)
    medians = {f"{program}_{cores}_cores": _median(runs, program, cores) for program in ("aurefine", "relion") for cores in (1, 2)}
    result = {"micrographs": arguments.micrographs, "particles_each": arguments.particles, "box": BOX, "scale": SCALE, "medians": medians,
              "largest_difference_in_standard_deviations": largest_difference(arguments.folder), "machine": machine(), "runs": runs}  # fmt: skip
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(medians)


if __name__ == "__main__":
    main()
