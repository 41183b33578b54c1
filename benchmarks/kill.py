"""SIGKILL at random moments, then --resume: is everything that was left readable, and is the final map the undisturbed run's?

    nice python benchmarks/kill.py [--kills 50] [--per_run 5] [--processes 2] [--folder FOLDER]

One run after the other is started, killed and resumed until it ends; each life lasts a random part of what an undisturbed run takes. After
each kill every STAR file, map and checkpoint must be read whole and status.json must be recognised as that of a dead process. The result goes to
benchmarks/results/kill.json (kill_processes.json of several processes, all of which are killed), with the phases in which the kills fell.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import relion

from aurefine import molecule, mrc, simulate, star
from aurefine.errors import InputError
from aurefine.fsc import of_maps
from aurefine.imaging import Camera, Imaging
from aurefine.refine import checkpoint
from aurefine.refine.run_status import read_status

RESULTS = Path(__file__).parent / "results" / "kill.json"
# Small chunks of particles, so that iterations of a few seconds have several, and checkpoints every 0.3 seconds.
PROGRAM = """
import sys
from aurefine.cli.main import main
from aurefine.refine import shortage
shortage.CHUNK_PIXELS = 60_000
sys.exit(main(sys.argv[1:]))
"""
FLAGS = ["--auto_refine", "--split_random_halves", "--i", "particles.star", "--ref", "reference.mrc", "--firstiter_cc", "--ini_high", "50", "--ctf",
         "--particle_diameter", "200", "--flatten_solvent", "--zero_mask", "--oversampling", "1", "--healpix_order", "2", "--offset_range", "5",
         "--offset_step", "2", "--sym", "D2", "--low_resol_join_halves", "40", "--norm", "--scale", "--random_seed", "1", "--auto_ignore_angles",
         "--auto_resol_angles", "--checkpoint", "0.005"]  # fmt: skip


@dataclass
class Tally:
    """What was found."""

    kills: int = 0
    before_any_file: int = 0
    files_read: int = 0
    broken: list[str] = field(default_factory=list)
    phases: Counter[str] = field(default_factory=Counter)
    within: int = 0  # kills that left a checkpoint within an iteration
    runs: list[dict[str, Any]] = field(default_factory=list)


def prepare(folder: Path, particles: int, box: int, pixel_size: float) -> None:
    """The particles to be refined."""
    if not (folder / "particles.star").exists():
        simulate.simulate(molecule.generate("D2", seed=1), folder, Imaging(particles, (Camera(pixel_size, box),), snr=0.3, seed=11))


def start(folder: Path, root: str, *more: str) -> subprocess.Popen[bytes]:
    """Start the refinement; it prints into log.txt beside its files."""
    (folder / root).mkdir(parents=True, exist_ok=True)
    with (folder / root / "log.txt").open("ab") as log:
        command = [sys.executable, "-c", PROGRAM, "refine", *FLAGS, "--o", f"{root}/run", *more]
        return subprocess.Popen(command, cwd=folder, env=relion.environment(), stdout=log, stderr=log)


def examine(folder: Path, tally: Tally) -> None:
    """Read all that a killed run has left; what cannot be read is noted."""
    names = sorted(path for path in folder.iterdir() if path.suffix in (".star", ".mrc", ".npz") and not path.name.startswith("."))
    if not names:
        tally.before_any_file += 1
    here = Path.cwd()
    os.chdir(folder.parent)  # names in the files start from there
    try:
        for path in (Path(folder.name) / path.name for path in names):
            try:
                _read(path)
                tally.files_read += 1
            except (InputError, OSError, ValueError, KeyError) as error:
                tally.broken.append(f"{path}: {error}")
    finally:
        os.chdir(here)
    if (folder / "status.json").exists():
        status = read_status(folder)
        done = status.verdict() == "finished" and (folder / "run_optimiser.star").exists()  # killed on its way out
        if status.verdict() != "died" and not done:
            tally.broken.append(f"{folder}/status.json says {status.verdict()}")
        tally.phases[status.phase] += 1
    else:
        tally.phases["before the first file"] += 1
    tally.within += bool(list(folder.glob("*_half?_checkpoint.npz")))


def _read(path: Path) -> None:
    if path.suffix == ".mrc":
        mrc.read_map(path)
    elif path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as stored:
            for name in stored.files:
                stored[name]
    elif path.name.endswith("_optimiser.star") and "_it" in path.name:
        checkpoint.load(path)
    else:
        star.read(path)


def kill_all(run: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a run and to the processes that it has started; returns when all are gone."""
    own = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    workers = [int(pid) for pid in own.read_text().split()] if own.exists() else []
    run.kill()
    for pid in workers:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    run.wait()
    while any(Path(f"/proc/{pid}").exists() and ") Z " not in Path(f"/proc/{pid}/stat").read_text() for pid in workers):
        time.sleep(0.01)


def wait_for_status(folder: Path, run: subprocess.Popen[bytes], before: int) -> None:
    """Until the run has written its first status (another one than that of time `before`), or has ended."""
    while _written(folder) == before and run.poll() is None:
        time.sleep(0.02)


def _written(folder: Path) -> int:
    try:
        return (folder / "status.json").stat().st_mtime_ns
    except OSError:
        return 0


def killed_run(folder: Path, root: str, kills: int, seconds: float, loading: float, lottery: random.Random, tally: Tally) -> int:
    """One run, killed so many times (less often if it ends before), then resumed to its end; returns how many times.

    `seconds` is what an undisturbed run takes, `loading` what it takes to its first file. The first life may end before that; all others end at
    a random moment after their first file, however long other work on the machine makes them load.
    """
    for number in range(kills):
        life = lottery.uniform(0, 2 * (seconds - loading) / (kills + 1)) + (lottery.uniform(0, loading) if number == 0 else 0)
        before = _written(folder / root)
        run = start(folder, root, "--resume")
        if number:
            wait_for_status(folder / root, run, before)
        try:
            if code := run.wait(life):
                tally.broken.append(f"{root}: it ended with exit code {code}")
            return number
        except subprocess.TimeoutExpired:
            kill_all(run)
            tally.kills += 1
            examine(folder / root, tally)
    code = start(folder, root, "--resume").wait()
    if code:
        tally.broken.append(f"{root}: resumed, it ended with exit code {code}")
    return kills


def compare(folder: Path, root: str) -> dict[str, Any]:
    """The final map of a killed run against the undisturbed one's."""
    one, other = (mrc.read_map(folder / name / "run_class001.mrc")[0] for name in (root, "undisturbed"))
    curve = of_maps(one, other)
    table = star.read_table(folder / "undisturbed" / "run_model.star", "model_general")
    limit = int(len(one) * table.value("rlnPixelSize", 1.0) / table.value("rlnCurrentResolution", 1.0))
    return {"lowest_fsc_to_resolution": round(float(curve[1 : limit + 1].min()), 6), "lowest_fsc_to_nyquist": round(float(curve[1:].min()), 6)}


def measure(folder: Path, kills: int, per_run: int, seed: int, particles: int = 300, box: int = 48, pixel_size: float = 6.6) -> tuple[Tally, float]:
    """Kill runs so many times; returns what was found and the seconds of an undisturbed run."""
    prepare(folder, particles, box, pixel_size)
    began = time.perf_counter()
    run = start(folder, "undisturbed")
    wait_for_status(folder / "undisturbed", run, 0)
    loading = time.perf_counter() - began
    if code := run.wait():
        raise SystemExit(f"the undisturbed run ended with exit code {code}: {folder}/undisturbed/log.txt")
    undisturbed = seconds = time.perf_counter() - began
    lottery, tally = random.Random(seed), Tally()
    while tally.kills < kills:
        root, began = f"killed{len(tally.runs) + 1:02d}", time.perf_counter()
        times = killed_run(folder, root, min(per_run, kills - tally.kills), seconds, loading, lottery, tally)
        if times == 0:
            seconds = max(loading, time.perf_counter() - began)  # other work on the machine has ended meanwhile
        tally.runs.append({"kills": times} | compare(folder, root))
        print(f"{root}: {tally.runs[-1]}", flush=True)
    return tally, undisturbed


def main() -> None:
    """Kill, resume, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--per_run", type=int, default=5, help="kills of one run")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--particles", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    arguments = parser.parse_args()
    if arguments.processes > 1:
        FLAGS.extend(["--processes", str(arguments.processes)])
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="aurefine_kill_"))
    tally, seconds = measure(folder, arguments.kills, arguments.per_run, arguments.seed, arguments.particles)
    lowest = min(run["lowest_fsc_to_resolution"] for run in tally.runs)
    found = {"kills": tally.kills, "seconds_undisturbed": round(seconds, 1), "kills_before_any_file": tally.before_any_file,
             "kills_with_a_checkpoint_within_an_iteration": tally.within, "phases": dict(tally.phases), "files_read": tally.files_read,
             "broken": tally.broken, "lowest_fsc_to_resolution": lowest,
             "lowest_fsc_to_nyquist": min(run["lowest_fsc_to_nyquist"] for run in tally.runs), "runs": tally.runs}  # fmt: skip
    target = RESULTS.with_name("kill_processes.json") if arguments.processes > 1 else RESULTS
    target.write_text(json.dumps({"processes": arguments.processes} | found, indent=1) + "\n")
    print({name: value for name, value in found.items() if name != "runs"})
    if not arguments.folder:
        shutil.rmtree(folder)
    if tally.broken or lowest < 0.999:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
