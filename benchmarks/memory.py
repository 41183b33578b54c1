"""Memory planned for whole refinements against what their processes then take.

    python benchmarks/memory.py [--sets d2_64 c1_64 d2_128 d2_128_4000 d2_256 betagal] [--processes 1 2] [--repeats 2] [--folder benchmark_sets]

Peaks are the largest resident sets (VmHWM) of the working processes, read twenty times a second from outside. Each set is refined once before
it is measured, because the very first run after an installation compiles kernels. Results go to benchmarks/results/memory.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import datasets
import relion

RESULT = relion.RESULTS / "memory.json"


def of_processes(first: int) -> dict[int, int]:
    """The peak (kB) of this process and of each that descends from it, by number."""
    parents, peaks = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found = dict(line.split(":", 1) for line in (entry / "status").read_text().splitlines())
            except OSError:
                continue  # it has ended in between
            parents[int(entry.name)] = int(found["PPid"])
            peaks[int(entry.name)] = int(found.get("VmHWM", "0 kB").split()[0])
    family, grown = {first}, True
    while grown:
        more = {number for number, parent in parents.items() if parent in family} - family
        family, grown = family | more, bool(more)
    return {number: peaks[number] for number in family if number in peaks}


def run_once(facts: dict[str, Any], folder: Path, processes: int) -> dict[str, Any]:
    """One refinement: the planned peak, and those of its working processes, MB."""
    job = folder / "runs" / f"memory_{processes}"
    shutil.rmtree(job, ignore_errors=True)
    job.mkdir(parents=True)
    flags = relion.refine_flags(facts, job.resolve() / "run", faster=True, seed=1)
    further = ["--processes", str(processes)] if processes > 1 else []
    highest: dict[int, int] = {}
    with (job / "log.txt").open("w") as log:
        command = [sys.executable, "-m", "aurefine", "refine", *flags, *further]
        run = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, env=relion.environment())
        while run.poll() is None:
            for number, peak in of_processes(run.pid).items():
                highest[number] = max(highest.get(number, 0), peak)
            time.sleep(0.05)
    planned = relion.planned_peak((job / "log.txt").read_text())
    if run.returncode or not planned:
        raise SystemExit(f"a run failed: see {job / 'log.txt'}")
    working = sorted(highest.values(), reverse=True)[:processes]  # the one that starts others is far smaller
    return {"set": facts["name"], "processes": processes, "planned_mb": planned, "peaks_mb": [round(peak / 1024) for peak in working]}


def main() -> None:
    """Measure, print and write a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["d2_64", "c1_64", "d2_128", "d2_128_4000", "d2_256", "betagal"])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("benchmark_sets"))
    arguments = parser.parse_args()
    rows = []
    for name in arguments.sets:
        facts, folder = datasets.ensure(name, arguments.folder), arguments.folder / name
        run_once(facts, folder, 1)
        for processes in arguments.processes:
            for _ in range(arguments.repeats):
                rows.append(run_once(facts, folder, processes))
                planned, peaks = rows[-1]["planned_mb"], rows[-1]["peaks_mb"]
                off = ", ".join(f"{100 * (planned / peak - 1):+.0f} %" for peak in peaks)
                print(f"{name:<12} processes: {processes}, planned {planned} MB, peaks {peaks} MB: the plan is off by {off}", flush=True)
    RESULT.write_text(json.dumps({"machine": relion.machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
