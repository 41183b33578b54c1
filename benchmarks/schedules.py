"""Finer angular sampling faster against the default schedule: processor seconds, and what the map is worth.

    python benchmarks/schedules.py [--sets d2_64 d2_128 c1_64 o_64 betagal] [--folder benchmark_sets] [--json FILE]

Each set is refined with both schedules, one after the other, by aurefine alone (`relion.py` pairs it with RELION). Sets that are in the file already,
with both schedules, are not refined again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import datasets
import relion

SETS = ("d2_64", "d2_128", "o_64", datasets.REAL, "c1_64")


def examine(name: str, folder: Path, seed: int) -> dict[str, Any]:
    """Both schedules on one set."""
    facts = datasets.ensure(name, folder)
    runs = []
    for faster in (True, False):
        runs.append(relion.run_once("aurefine", facts, folder / name, faster, seed))
        runs[-1].get("map", {}).pop("fsc", None)
        runs[-1]["processor"] = relion.machine()["processor"]
        print(f"{name}, {runs[-1]['schedule']}: {relion.line(runs[-1])}", flush=True)
    return {"set": name, "runs": runs}


def main() -> None:
    """Refine and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=[*datasets.RECIPES, datasets.REAL])
    parser.add_argument("--folder", type=Path, default=Path("benchmark_sets"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, default=relion.RESULTS / "schedules.json")
    arguments = parser.parse_args()
    found = json.loads(arguments.json.read_text())["sets"] if arguments.json.exists() else []
    for name in arguments.sets:
        if name not in [each["set"] for each in found]:
            found.append(examine(name, arguments.folder, arguments.seed))
            arguments.json.write_text(json.dumps({"machine": relion.machine(), "sets": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
