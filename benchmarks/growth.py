"""How a refinement's cost grows with the number of particles and with the box: processor seconds of an iteration, and memory against the plan.

    python benchmarks/growth.py [--folder growth_sets] [--particles 1000 3000 10000 30000 100000] [--boxes 64 96 128 192 256 384] [--pad 1]

Each case is a run of one iteration in a process of its own, from one start: a `global` one looks at the whole grid at low resolution, a
`local` one near the true poses up to Nyquist, `last` goes on from the local one with the iteration that joins the halves. Images of large sets are
those of 1,000 particles again and again. Processor seconds are those of all threads, and hold on a machine that others use; wall seconds do not.
Results go to benchmarks/results/growth.json, the picture to docs/images/growth.png.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import relion

from aurefine import molecule, star
from aurefine.imaging import Camera, Imaging
from aurefine.simulate import simulate

SIDE = 4.976 * 64  # Angstrom: the same object in boxes of any number of pixels
EXPOSURE = Imaging(1000, (Camera(SIDE / 64, 64),), snr=0.25, seed=11)
OF_A_BOX = 300  # particles, where the box grows
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "growth.png"
POSE = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")


def make_set(folder: Path, box: int, count: int) -> tuple[Path, float]:
    """Particles of this box, written unless they are there; returns their folder and the particle's diameter."""
    target = folder / f"box{box}_{count}"
    if not (target / "diameter").exists():
        imaging = EXPOSURE.recorded_with(Camera(SIDE / box, box))
        made = simulate(molecule.generate("D2", seed=1), target, Imaging(**{**vars(imaging), "particles": count}))
        (target / "diameter").write_text(str(round(made.particle_diameter)))
    return target, float((target / "diameter").read_text())


def table(folder: Path, count: int, posed: bool) -> str:
    """The name of a STAR file with `count` rows, the set's again and again, with the true poses where they are wanted."""
    tables, truth = star.read(folder / "particles.star"), star.read_table(folder / "truth.star", "particles")
    particles = tables["particles"]
    if posed:
        if not np.array_equal(particles["rlnImageName"], truth["rlnImageName"]):
            raise SystemExit(f"{folder}: rows of the particles and of the truth differ")
        particles = particles.with_columns({label: truth[label] for label in POSE})
    name = f"{'posed' if posed else 'rows'}_{count}.star"
    star.write(folder / name, [tables["optics"], particles.select(np.arange(count) % particles.count)])
    return name


def flags(search: str, job: Path, name: str, diameter: float, further: Sequence[str]) -> list[str]:
    """The command line of a case."""
    common = ["--o", f"{job}/run", "--sym", "D2", "--ctf", "--zero_mask", "--flatten_solvent", "--norm", "--scale",
              "--particle_diameter", str(diameter), "--low_resol_join_halves", "40",
              "--random_seed", "1", "--pipeline_control", f"{job}/", *further]  # fmt: skip
    if search == "global":
        return ["--i", name, "--ref", "reference.mrc", "--ini_high", "50", "--healpix_order", "2", "--auto_iter_max", "1", *common]
    if search == "local":
        near = ["--sigma_ang", "2", "--healpix_order", "4", "--auto_local_healpix_order", "4", "--use_all_data",
                "--offset_range", "3", "--offset_step", "1"]  # fmt: skip
        return ["--i", name, "--ref", "truth.mrc", "--ini_high", str(3 * SIDE / 64), *near, "--auto_iter_max", "1", *common]
    return ["--continue", f"{job}/run_it001_optimiser.star", "--force_converge", "--auto_iter_max", "2", *common]


def run_case(folder: Path, search: str, count: int, diameter: float, further: Sequence[str]) -> dict[str, Any]:
    """One iteration in a process of its own; what it cost."""
    job = folder / "runs" / f"{'local' if search == 'last' else search}_{count}"
    if search != "last":
        shutil.rmtree(job, ignore_errors=True)
        job.mkdir(parents=True)
    name = table(folder, count, search != "global") if search != "last" else ""
    words = [sys.executable, __file__, "--child", *flags(search, job.resolve(), name, diameter, further)]
    run = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"{search}, {count} particles in {folder.name} failed:\n{run.stderr[-2000:]}")
    found = json.loads(run.stdout.splitlines()[-1])
    return {"search": search, "particles": count, "planned_mb": relion.planned_peak(run.stdout), **found}


def child(arguments: list[str]) -> None:
    """Run one iteration in this process and print what it cost."""
    from aurefine.cli.main import main as command_line
    from aurefine.refine import loop, run_status

    marks: list[tuple[float, float]] = []
    planned, recorded = loop.plan_iteration, loop.record

    def now() -> tuple[float, float]:
        return time.process_time(), time.perf_counter()

    def plan(*given: Any) -> Any:
        marks.append(now())
        return planned(*given)

    def record(*given: Any) -> Any:
        marks.append(now())
        return recorded(*given)

    loop.plan_iteration, loop.record = plan, record
    code = command_line(["refine", *arguments])
    if code or len(marks) < 2:
        sys.exit(code or 1)
    (before, begun), (after, ended) = marks[0], marks[-1]
    peak = run_status.memory_in_use()[1] >> 20  # getrusage would begin with the peak of the process that has made the set
    print(json.dumps({"processor_s": round(after - before, 2), "wall_s": round(ended - begun, 2), "start_s": round(before, 2),
                      "whole_s": round(time.process_time(), 2), "peak_mb": peak, "load": round(os.getloadavg()[0], 1)}))  # fmt: skip


def picture(found: dict[str, Any], path: Path) -> None:
    """Two plots side by side: processor seconds of an iteration against particles and against the box."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9.6, 3.6), layout="constrained")
    shown = ("by_particles", "particles", "particles of 64 px"), ("by_box", "box", f"box (px), {OF_A_BOX} particles")
    for axis, (key, x, label) in zip(axes, shown, strict=True):
        for search, colour in (("global", "#1f77b4"), ("local", "#d62728"), ("last", "#2ca02c")):
            rows = sorted((row for row in found.get(key, []) if row["search"] == search), key=lambda row: row[x])
            if rows:
                axis.plot([row[x] for row in rows], [row["processor_s"] for row in rows], "o-", color=colour, label=search)
        scale = "log" if axis.lines else "linear"
        axis.set(xscale=scale, yscale=scale, xlabel=label, ylabel="processor seconds of an iteration")
        ticks = sorted({row[x] for row in found.get(key, [])})
        axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks], minor=False)
        axis.set_xticks([], minor=True)
        axis.grid(True, which="both", alpha=0.3)
    axes[0].legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run all cases that were asked for and write what they cost."""
    if "--child" in sys.argv[1:2]:
        return child(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("growth_sets"), help="where sets are, or are written")
    parser.add_argument("--particles", type=int, nargs="*", default=[1000, 3000, 10000, 30000, 100000])
    parser.add_argument("--boxes", type=int, nargs="*", default=[64, 96, 128, 192, 256, 384])
    parser.add_argument("--searches", nargs="*", default=["global", "local", "last"])
    parser.add_argument("--pad", default="2")
    parser.add_argument("--json", type=Path, default=relion.RESULTS / "growth.json")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("further", nargs="*", help="more flags for aurefine refine, after --")
    arguments = parser.parse_args()
    found: dict[str, Any] = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    found["machine"] = relion.machine()
    cases = [("by_particles", 64, 1000, count) for count in arguments.particles] + [("by_box", box, OF_A_BOX, OF_A_BOX) for box in arguments.boxes]
    for key, box, made, count in cases:
        folder, diameter = make_set(arguments.folder, box, made)
        for search in arguments.searches:
            cost = run_case(folder, search, count, diameter, ["--pad", arguments.pad, *arguments.further])
            row = {"box": box, "pad": arguments.pad, **cost, "further": arguments.further}
            same = [each for each in found.get(key, []) if any(each[name] != row[name] for name in ("box", "pad", "search", "particles", "further"))]
            found[key] = [*same, row]
            print(row, flush=True)
            arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    picture(
        {key: [row for row in found.get(key, []) if row["pad"] == "2" and not row["further"] and (key != "by_box" or row["particles"] == OF_A_BOX)]
         for key in ("by_particles", "by_box")},
        arguments.picture,
    )


if __name__ == "__main__":
    main()
