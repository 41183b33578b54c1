"""Whether reduced precision (bfloat16 on a CPU, TF32 on a GPU) in the coarse pass changes what a refinement finds.

    python benchmarks/precision.py [--sets d2_64 c1_64 d2_128 betagal] [--folder benchmark_sets] [--json FILE]
    python benchmarks/precision.py --tf32 [--json FILE]

Two questions, for each set:
* From the same state: in every iteration of a refinement in full precision the E-step is done twice, with and without `--full_precision`, and the
  poses are compared, particle by particle. The run goes on from the poses in full precision.
* Over whole runs: the poses at the end of a run in reduced precision against those of that run in full precision, beside two more in full precision:
  `rounding`, the same run in two processes, which add up the same numbers in another order; and one with another seed (other half-sets, other
  offsets of the grid), what differs between any two runs.

The yardstick is RELION's own repeat: a median of 0.1 degrees and 0.8 degrees for 99 of 100 particles. On a CPU local searches multiply nothing in
reduced precision, so that nothing can change there.

`--tf32` asks the first question of a GPU's coarse products, on a CPU: every global search multiplies the whole grid at all frequencies, as a GPU
does, once in float32 and once with operands rounded to TF32 (10 bits of fraction, sums in float32): to the nearest number, and, as hardware that
is given float32 numbers may do, towards zero.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import relion
import torch

from aurefine import euler, kernels, star
from aurefine.cli.main import main as command_line
from aurefine.refine import coarse, loop
from aurefine.refine.partial import Keeper
from aurefine.refine.state import Poses
from aurefine.symmetry import point_group

SETS = ("d2_64", "c1_64", "d2_128", datasets.REAL)
_FRACTION = 23 - 10  # bits of a float32 number's fraction that TF32 has no room for
ROUNDINGS = {"nearest": 1 << (_FRACTION - 1), "towards_zero": 0}  # what is added before they are cut off


def differences(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray], group: str) -> dict[str, float]:
    """Median and 99th percentile of angles (degrees, modulo the point group) and shifts (Angstrom) between poses (angles [n, 3], offsets [n, 2])."""
    angle = euler.angular_difference(euler.to_matrix(one[0]), euler.to_matrix(other[0]), point_group(group).operators)
    shift = np.linalg.norm(one[1] - other[1], axis=1)
    found = {"angle_median": np.median(angle), "angle_p99": np.percentile(angle, 99), "shift_p99": np.percentile(shift, 99),
             "changed_share": ((angle > 1e-3) | (shift > 1e-3)).mean()}  # fmt: skip
    return {name: round(float(value), 4) for name, value in found.items()}


def iteration_by_iteration(facts: dict[str, Any], folder: Path, flags: Sequence[str]) -> list[dict[str, Any]]:
    """Run a refinement in full precision in this process; of each E-step, the poses in reduced precision against those in full precision.

    `flags` are those of the refinement but for its precision.
    """
    rows: list[dict[str, Any]] = []
    real = loop._expectation

    def both(state, plan, data, options, console, control, known=None):
        sums, poses = real(state, plan, data, options, console, control, list(known) if known else None)
        if not plan.correlation:  # correlations are never computed in reduced precision
            apart = replace(data, keeper=Keeper())
            _, reduced = real(state, replace(plan, reduced_precision=True), apart, options, console, control)
            step = plan.sampling.fine_step if plan.grid.rotation_children > 1 else plan.sampling.coarse_step
            rows.append({"iteration": plan.iteration, "local": plan.sampling.local, "step_deg": round(step, 3),
                         "touched_share": round(float((reduced.log_likelihood != poses.log_likelihood).mean()), 4),
                         **differences(_poses(reduced), _poses(poses), facts["point_group"])})  # fmt: skip
        return sums, poses

    here = Path.cwd()
    loop._expectation = both
    os.chdir(folder)
    try:
        if command_line(["refine", *flags, "--full_precision", "--checkpoint", "0", "--verb", "0"]):
            raise SystemExit(f"the refinement of {facts['name']} failed")
    finally:
        loop._expectation = real
        os.chdir(here)
    return rows


def to_tf32(values: torch.Tensor, rounding: str) -> torch.Tensor:
    """float32 values as float32 numbers that TF32 has, too."""
    bits = values.contiguous().view(torch.int32) + ROUNDINGS[rounding]
    return (bits & -(1 << _FRACTION)).view(torch.float32)


@contextmanager
def tf32_products(rounding: str) -> Iterator[None]:
    """Inside, a CPU's coarse pass multiplies what a GPU's does, in TF32 where a GPU would."""
    product, precision, dearer, bfloat16 = kernels.matrix_product, kernels.product_precision, coarse._LISTED_COST, kernels.fast_bfloat16
    reduced = False

    def rounded(left, right, out):
        return product(to_tf32(left, rounding), to_tf32(right, rounding), out) if reduced else product(left, right, out)

    @contextmanager
    def noted(device, rounds):
        nonlocal reduced
        reduced = rounds
        with precision(device, rounds):
            yield
        reduced = False

    kernels.matrix_product, kernels.product_precision = rounded, noted
    coarse._LISTED_COST, kernels.fast_bfloat16 = 1 << 40, lambda: False  # type: ignore[assignment]  # the whole grid, however few are near the best
    try:
        yield
    finally:
        kernels.matrix_product, kernels.product_precision = product, precision
        coarse._LISTED_COST, kernels.fast_bfloat16 = dearer, bfloat16


def _poses(poses: Poses) -> tuple[np.ndarray, np.ndarray]:
    return poses.angles, poses.offsets


def whole_run(facts: dict[str, Any], folder: Path, output: Path, seed: int, full: bool, *further: str) -> dict[str, Any]:
    """One refinement as a process of its own: times, resolution, and accuracy against the truth."""
    flags = [*relion.refine_flags(facts, output, True, seed), "--verb", "0", *(["--full_precision"] if full else []), *further]
    run: dict[str, Any] = {"precision": "full" if full else "reduced", "seed": seed, "further": further}
    run |= relion.measure([sys.executable, "-m", "aurefine", "refine", *flags], folder, output.with_suffix(".log"))
    if run["exit_status"]:
        raise SystemExit(f"failed: see {output.with_suffix('.log')}")
    return run | judge(facts, folder, output)


def judge(facts: dict[str, Any], folder: Path, output: Path) -> dict[str, Any]:
    """`relion.judge` without the curve."""
    found = relion.judge(facts, folder, output)
    found["map"].pop("fsc", None)
    return found


def _read(output: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    table = star.read_table(Path(f"{output}_data.star"), "particles")
    angles = np.stack([table[f"rlnAngle{name}"] for name in ("Rot", "Tilt", "Psi")], 1)
    offsets = np.stack([table[f"rlnOrigin{axis}Angst"] for axis in "XY"], 1)
    return {name: (angles[i], offsets[i]) for i, name in enumerate(table["rlnImageName"])}


def between_files(one: Path, other: Path, group: str) -> dict[str, float]:
    """`differences` of the final poses of two runs, of the particles that both have."""
    first, second = _read(one), _read(other)
    common = sorted(first.keys() & second.keys())
    stacked = [tuple(np.stack([poses[name][k] for name in common]) for k in range(2)) for poses in (first, second)]
    return differences(stacked[0], stacked[1], group)  # type: ignore[arg-type]


def examine(name: str, folder: Path) -> dict[str, Any]:
    """Both questions for one set."""
    facts = datasets.ensure(name, folder)
    runs = (folder / name / "runs" / "precision").resolve()
    shutil.rmtree(runs, ignore_errors=True)
    runs.mkdir(parents=True)
    steps = iteration_by_iteration(facts, folder / name, relion.refine_flags(facts, runs / "full", True, 1))
    whole = {"full": {"precision": "full", "seed": 1} | judge(facts, folder / name, runs / "full")}
    others: dict[str, tuple[Any, ...]] = {"reduced": (1, False), "rounding": (1, True, "--processes", "2"), "other_seed": (2, True)}
    whole |= {key: whole_run(facts, folder / name, runs / key, *each) for key, each in others.items()}
    ends = {key: between_files(runs / key, runs / "full", facts["point_group"]) for key in others}
    return {"set": name, "processor": relion.machine()["processor"], "iterations": steps, "runs": whole, "ends": ends}


def examine_tf32(name: str, folder: Path) -> dict[str, Any]:
    """The first question for one set, of TF32."""
    facts = datasets.ensure(name, folder)
    runs = (folder / name / "runs" / "tf32").resolve()
    shutil.rmtree(runs, ignore_errors=True)
    runs.mkdir(parents=True)
    found: dict[str, Any] = {"set": name}
    for rounding in ROUNDINGS:
        with tf32_products(rounding):
            found[rounding] = iteration_by_iteration(facts, folder / name, relion.refine_flags(facts, runs / rounding, True, 1))
    return found


def step_lines(rows: list[dict[str, Any]]) -> list[str]:
    """Iterations in words."""
    text = []
    for row in rows:
        kind = "local" if row["local"] else "global"
        text.append(f"  iteration {row['iteration']:2} ({kind}, {row['step_deg']:g} deg): {100 * row['changed_share']:.2f} % of the poses and "
                    f"{100 * row['touched_share']:.0f} % of the likelihoods change, median {row['angle_median']:.3f} deg, "
                    f"p99 {row['angle_p99']:.2f} deg")  # fmt: skip
    return text


def lines(found: dict[str, Any]) -> list[str]:
    """A set in words."""
    text = [f"{found['set']}", *step_lines(found["iterations"])]
    for key, row in found["ends"].items():
        text.append(f"  end, {key} against full: median {row['angle_median']:.2f} deg, p99 {row['angle_p99']:.2f} deg")
    for key, run in found["runs"].items():
        poses = run.get("poses")
        truth = f", {poses['angle_median']:.3f} deg from the truth" if isinstance(poses, dict) else ""
        seconds = f", {run['user_s'] + run['system_s']:.1f} processor seconds" if "user_s" in run else ""
        text.append(f"  {key}: claims {run['claimed_resolution']:.2f} A, FSC 0.5 at {run['map']['fsc_half_angstrom']:.2f} A, mean FSC "
                    f"{run['map']['mean_fsc']:.4f}{truth}{seconds}")  # fmt: skip
    return text


def tf32_lines(found: dict[str, Any]) -> list[str]:
    """A set in words, of TF32."""
    return [found["set"], *(line for rounding in ROUNDINGS for line in [f" rounded, {rounding}:", *step_lines(found[rounding])])]


def main() -> None:
    """Examine the sets and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=[*datasets.RECIPES, datasets.REAL])
    parser.add_argument("--folder", type=Path, default=Path("benchmark_sets"))
    parser.add_argument("--tf32", action="store_true", help="a GPU's products, on a CPU")
    parser.add_argument("--json", type=Path, help=f"default: precision.json, precision_tf32.json with --tf32, in {relion.RESULTS.name}")
    arguments = parser.parse_args()
    target = arguments.json or relion.RESULTS / ("precision_tf32.json" if arguments.tf32 else "precision.json")
    found = []
    for name in arguments.sets:
        found.append((examine_tf32 if arguments.tf32 else examine)(name, arguments.folder))
        print("\n".join((tf32_lines if arguments.tf32 else lines)(found[-1])), flush=True)
        target.write_text(json.dumps({"machine": relion.machine(), "hardware": kernels.fast_bfloat16(), "sets": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
