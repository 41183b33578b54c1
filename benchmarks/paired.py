"""Commands of aurefine and RELION timed in turns: medians of wall and processor seconds, for every benchmark of short jobs.

On a machine that others use too, processor seconds (of all threads, start-up included) are the fair figure; wall seconds are given beside them.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

AUREFINE = (sys.executable, "-m", "aurefine")
_BYTECODE = Path(tempfile.gettempdir()) / f"aurefine_bytecode_{os.getuid()}"


def environment() -> dict[str, str]:
    """Modules are compiled once and kept, as after an installation, whatever this process was told."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")}
    path = os.pathsep.join([str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")])
    return kept | {"PYTHONPYCACHEPREFIX": str(_BYTECODE), "PYTHONPATH": path}


def empty(folder: Path) -> None:
    """Make the folder anew, without anything in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


def timed(command: Sequence[str], folder: Path | None = None) -> tuple[float, float]:
    """Wall and processor seconds of a command with its children; SystemExit where it fails."""
    start = time.perf_counter()
    silent = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=folder, env=environment(), **silent)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status:
        raise SystemExit(f"failed: {' '.join(command)}")
    return wall, usage.ru_utime + usage.ru_stime


def in_turns(
    commands: Mapping[str, Sequence[str]], times: int, folder: Path | None = None, before: Callable[[str], object] = lambda name: None
) -> dict[str, float]:
    """Medians `<name>_wall` and `<name>_cpu` of so many turns of each command; `before` is called with the name ahead of each run.

    A first turn is not counted, unless no other is asked for: it compiles modules and brings files into memory. Programs that are not
    installed are left out. With aurefine and RELION in it, ratios say how many times faster aurefine is, and `cpu_won` in how many turns it
    took less processor time.
    """
    present = {name: command for name, command in commands.items() if shutil.which(command[0])}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in present}
    for turn in range(times + 1):
        for name, command in present.items():
            before(name)
            found = timed(command, folder)
            if turn or not times:
                seconds[name].append(found)
    medians = {(name, place): statistics.median(pair[place] for pair in pairs) for name, pairs in seconds.items() for place in (0, 1)}
    result = {f"{name}_{('wall', 'cpu')[place]}": round(value, 4) for (name, place), value in medians.items()}
    if {"aurefine", "relion"} <= set(present):
        result |= {f"{('wall', 'cpu')[place]}_ratio": round(medians["relion", place] / medians["aurefine", place], 2) for place in (0, 1)}
        result["cpu_won"] = sum(ours[1] <= theirs[1] for ours, theirs in zip(seconds["aurefine"], seconds["relion"], strict=True))
    return result | {"turns": max(1, times)}


def conditions() -> dict[str, object]:
    """Cores, and how busy the machine was at the start."""
    return {"cores": os.cpu_count(), "load_at_start": round(os.getloadavg()[0], 2)}
