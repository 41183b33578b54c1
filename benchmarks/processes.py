"""Two processes on two cores against one process on one core: wall time, processor time, and whether the answer is the same.

    python benchmarks/processes.py [--set d2_128_4000] [--folder benchmark_sets] [--processes 2] [--repeats 3]

The runs take turns. One process is bound to one core; of the others each has one thread. Besides the run, this measures how much faster two
independent runs are than one after the other (`machine`): cores that share their cache, their memory or their clock set the limit that no
program can beat. Results go to benchmarks/results/processes.json.
Wall times mean something only on a machine that does nothing else: the load at the start is written beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import datasets
import precision
import relion

from aurefine import fsc, mrc


def run_once(facts: dict[str, Any], folder: Path, name: str, cores: list[int], further: list[str]) -> dict[str, Any]:
    """One refinement on these cores; its files stay in `folder`/runs/`name`."""
    job = folder / "runs" / name
    shutil.rmtree(job, ignore_errors=True)
    job.mkdir(parents=True)
    flags = relion.refine_flags(facts, job.resolve() / "run", faster=True, seed=1)
    command = ["taskset", "-c", ",".join(map(str, cores)), sys.executable, "-m", "aurefine", "refine", *flags, *further]
    result = relion.measure(command, folder, job / "log.txt")
    if result["exit_status"]:
        raise SystemExit(f"{name} failed: see {job / 'log.txt'}")
    print(f"{name}: {result['wall_s']:.1f} s wall, {result['user_s'] + result['system_s']:.1f} s CPU", flush=True)
    return result


def side_by_side(facts: dict[str, Any], folder: Path, cores: list[int]) -> float:
    """Wall seconds of as many independent runs as there are cores, each on its own core, all at once."""
    start, running = time.perf_counter(), []
    for core in cores:
        job = folder / "runs" / f"alone_{core}"
        shutil.rmtree(job, ignore_errors=True)
        job.mkdir(parents=True)
        flags = relion.refine_flags(facts, job.resolve() / "run", faster=True, seed=1)
        command = ["taskset", "-c", str(core), sys.executable, "-m", "aurefine", "refine", *flags]
        running.append(subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, env=relion.environment()))
    if sum(abs(process.wait()) for process in running):
        raise SystemExit("a run failed")
    return round(time.perf_counter() - start, 2)


def agreement(first: Path, second: Path, group: str) -> dict[str, float]:
    """How alike two finished runs are: lowest FSC of their maps below Nyquist, and what lies between their poses (`precision.differences`)."""
    maps = [mrc.read_map(job / "run_class001.mrc")[0] for job in (first, second)]
    return {"lowest_fsc": round(float(fsc.of_maps(*maps).min()), 5), **precision.between_files(first / "run", second / "run", group)}


def main() -> None:
    """Run both in turns and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="d2_128_4000", help=f"one of {', '.join([*datasets.RECIPES, datasets.REAL])}")
    parser.add_argument("--folder", type=Path, default=Path("benchmark_sets"), help="where sets are, or are written")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--without_machine", action="store_true", help="leave out the independent runs")
    arguments = parser.parse_args()
    facts, folder = datasets.ensure(arguments.set, arguments.folder), arguments.folder / arguments.set
    cores = sorted(os.sched_getaffinity(0))[: arguments.processes]
    count = len(cores)
    one, many, limits = [], [], []
    for _ in range(arguments.repeats):
        one.append(run_once(facts, folder, "one_process", cores[:1], []))
        many.append(run_once(facts, folder, f"{count}_processes", cores, ["--processes", str(count)]))
        if not arguments.without_machine:
            limits.append(round(count * one[-1]["wall_s"] / side_by_side(facts, folder, cores), 3))
    wall = [statistics.median(run["wall_s"] for run in runs) for runs in (one, many)]
    busy = [statistics.median(run["user_s"] + run["system_s"] for run in runs) for runs in (one, many)]
    found = {
        "set": facts, "machine": relion.machine(), "processes": count, "one": one, "many": many, "speedup": round(wall[0] / wall[1], 3),
        "speedup_of_independent_runs": limits, "cpu_ratio": round(busy[1] / busy[0], 3),
        "agreement": agreement(folder / "runs" / "one_process", folder / "runs" / f"{count}_processes", facts["point_group"]),
    }  # fmt: skip
    print(f"speed-up {found['speedup']}, CPU time times {found['cpu_ratio']}, {found['agreement']}")
    target = relion.RESULTS / "processes.json"
    earlier = json.loads(target.read_text()) if target.is_file() else {}
    target.write_text(json.dumps(earlier | {arguments.set: found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
