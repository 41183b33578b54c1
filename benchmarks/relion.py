"""aurefine against RELION on the same particles: speed, and accuracy against the truth.

    python benchmarks/relion.py --set d2_64 [--folder benchmark_sets] [--repeats 3] [--programs aurefine relion]

The programs run one after the other, in turns, with the same flags (finer angular sampling faster; `--default_schedule` leaves that
out). RELION is `relion_refine_mpi` with `mpirun -n 3`, or says that it is absent. Results go to benchmarks/results/<set>.json.
Wall times mean something only on a machine that does nothing else: the load at the start is written beside them.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import datasets

from aurefine import compare, star
from aurefine.errors import InputError

RESULTS = Path(__file__).parent / "results"
RANKS = 3


def refine_flags(facts: dict[str, Any], output: Path, faster: bool, seed: int) -> list[str]:
    """The flags that RELION's GUI gives for the set, shared by both programs."""
    return [
        "--o", str(output), "--auto_refine", "--split_random_halves", "--i", facts["star"], "--ref", facts["reference"], "--firstiter_cc",
        "--ini_high", "50", "--dont_combine_weights_via_disc", "--preread_images", "--pool", "30", "--pad", "2", "--ctf",
        "--particle_diameter", str(facts["particle_diameter"]), "--flatten_solvent", "--zero_mask", "--oversampling", "1",
        "--healpix_order", "2", "--auto_local_healpix_order", "4", "--offset_range", "5", "--offset_step", "2", "--sym", facts["point_group"],
        "--low_resol_join_halves", "40", "--norm", "--scale", "--j", "1", "--random_seed", str(seed),
        *(["--auto_ignore_angles", "--auto_resol_angles"] if faster else []),
    ]  # fmt: skip


def relion_command(flags: list[str]) -> tuple[list[str], str] | None:
    """RELION's command and version; None where relion_refine_mpi or mpirun is not on the PATH."""
    if not shutil.which("relion_refine_mpi") or not shutil.which("mpirun"):
        return None
    answer = subprocess.run(["relion_refine", "--version"], capture_output=True, text=True, check=False).stdout
    version = match.group(1) if (match := re.search(r"(\d+\.\d+[\w.-]*)", answer)) else "unknown"
    # Before version 4 these two, now the defaults, had to be asked for.
    older = ["--skip_gridding", "--ctf_corrected_ref"] if version.startswith("3") else ["--trust_ref_size"]
    return ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", str(RANKS), "relion_refine_mpi", *flags, *older], version


def planned_peak(printed: str) -> int:
    """MB that a refinement planned for a process, out of what it printed; 0 where it did not."""
    found = re.search(r"^  peak(?:, of \d+ MB that are there)? +(\d+) MB", printed, re.MULTILINE)
    return int(found.group(1)) if found else 0


def environment() -> dict[str, str]:
    """For a run of this checkout's aurefine, whatever is installed."""
    found = dict(os.environ)
    found.pop("PYTHONDONTWRITEBYTECODE", None)  # modules are compiled once, as after an installation
    found["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).resolve().parents[1]), found.get("PYTHONPATH", "")])
    return found


def measure(command: list[str], folder: Path, log: Path) -> dict[str, Any]:
    """Run a command in `folder`: wall and CPU seconds of it and its children, memory of the largest process, exit status."""
    variables = environment() | ({"OMP_NUM_THREADS": "1"} if command[0] == "mpirun" else {})
    load = os.getloadavg()[0]
    start = time.perf_counter()
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=subprocess.STDOUT, env=variables)
        _, status, usage = os.wait4(process.pid, 0)
    return {"wall_s": round(time.perf_counter() - start, 2), "user_s": round(usage.ru_utime, 2), "system_s": round(usage.ru_stime, 2),
            "largest_process_mb": usage.ru_maxrss // 1024, "exit_status": os.waitstatus_to_exitcode(status), "load_at_start": round(load, 2)}


def judge(facts: dict[str, Any], folder: Path, output: Path) -> dict[str, Any]:
    """What the run claims, and what it is worth against the truth."""
    general = star.read_table(Path(f"{output}_model.star"), "model_general")
    iterations = len(glob.glob(f"{output}_it*_sampling.star")) - 1
    result: dict[str, Any] = {"iterations": iterations, "claimed_resolution": general.value("rlnCurrentResolution")}
    if facts["truth_star"]:
        try:
            result["poses"] = compare.pose_errors(Path(f"{output}_data.star"), folder / facts["truth_star"], facts["point_group"])
        except InputError as error:
            result["poses"] = str(error)  # the set of pure noise has no true poses
    found = compare.map_file_fsc(Path(f"{output}_class001.mrc"), folder / "truth.mrc", facts["particle_diameter"] / 2)
    result["map"] = found.summary() | {"fsc": [round(float(value), 4) for value in found.curve]}
    return result


def machine() -> dict[str, Any]:
    """Processor, cores and load, for the reader of the numbers."""
    model = ""
    if Path("/proc/cpuinfo").exists():
        names = re.findall(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
        model = names[0] if names else ""
    return {"processor": model or platform.processor(), "cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}


def run_once(program: str, facts: dict[str, Any], folder: Path, faster: bool, seed: int) -> dict[str, Any]:
    """One run of one program; its files stay in `folder`/runs."""
    job = folder / "runs" / f"{program}_{'faster' if faster else 'default'}_{seed}"
    shutil.rmtree(job, ignore_errors=True)
    job.mkdir(parents=True)
    output = job.resolve() / "run"
    flags = refine_flags(facts, output, faster, seed)
    command, version = [sys.executable, "-m", "aurefine", "refine", *flags], "this checkout"
    if program == "relion":
        found = relion_command(flags)
        if found is None:
            return {"program": "relion", "absent": "relion_refine_mpi or mpirun is not on the PATH"}
        command, version = found
    result = {"program": program, "version": version, "schedule": "finer-faster" if faster else "default", "seed": seed}
    result |= measure(command, folder, job / "log.txt")
    return result | (judge(facts, folder, output) if result["exit_status"] == 0 else {"log": str(job / "log.txt")})


def line(run: dict[str, Any]) -> str:
    """One run in one line."""
    if "map" not in run:
        return f"{run['program']}: {run.get('absent') or 'failed, see ' + run['log']}"
    poses = run.get("poses")
    angles = f"angles {poses['angle_median']:.2f} deg, shifts {poses['shift_median']:.2f} A, " if isinstance(poses, dict) else ""
    return (f"{run['program']}: {run['wall_s']:.1f} s wall, {run['user_s']:.1f} s CPU, {run['iterations']} iterations, claims "
            f"{run['claimed_resolution']:.2f} A; {angles}FSC 0.5 at {run['map']['fsc_half_angstrom']:.2f} A, mean {run['map']['mean_fsc']:.3f}")


def main() -> None:
    """Run the programs in turns and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", required=True, help=f"one of {', '.join([*datasets.RECIPES, datasets.REAL])}")
    parser.add_argument("--folder", type=Path, default=Path("benchmark_sets"), help="where sets are, or are written")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--programs", nargs="+", choices=["aurefine", "relion"], default=["aurefine", "relion"])
    parser.add_argument("--default_schedule", action="store_true", help="without finer angular sampling faster")
    parser.add_argument("--output", type=Path, help="JSON file (default: benchmarks/results/<set>.json)")
    arguments = parser.parse_args()
    facts = datasets.ensure(arguments.set, arguments.folder)
    runs = []
    for repeat in range(arguments.repeats):
        for program in arguments.programs:
            runs.append(run_once(program, facts, arguments.folder / arguments.set, not arguments.default_schedule, repeat + 1))
            print(line(runs[-1]), flush=True)
    target = arguments.output or RESULTS / f"{arguments.set}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({"set": facts, "machine": machine(), "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
