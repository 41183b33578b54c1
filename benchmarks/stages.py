"""Where the time of a whole refinement goes: seconds, calls and amount of work of every stage, iteration by iteration.

    python benchmarks/stages.py --set d2_128 [--folder benchmark_sets] [--default_schedule] [--json stages.json]

The refinement runs in this process with its stages wrapped; the wrapping costs nothing that shows. A stage's seconds leave out those of the
stages that it calls; the halves run side by side, and their seconds add up to more than the wall's.
Work is counted in the unit that the stage's floor is stated in (docs/performance.md).
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import relion

from aurefine import kernels
from aurefine.refine import accuracy, crosscheck, expectation, initial, loop, planning, start, writer
from aurefine.refine.coarse import CoarsePass


class Clock:
    """Seconds, calls and work by stage and iteration; stages that are called by others are taken out of them."""

    def __init__(self, processor: bool = False) -> None:
        self.rows: dict[tuple[int, str], list[float]] = defaultdict(lambda: [0.0, 0, 0.0])
        self.iteration = 0
        self._turn = threading.Lock()
        self._mine = threading.local()  # the halves run side by side: their seconds add up
        self._now = time.process_time if processor else time.perf_counter

    @contextmanager
    def stage(self, name: str, work: float = 0.0):
        """Time the block as a call of stage `name`."""
        inner = self._mine.__dict__.setdefault("inner", [0.0])
        inner.append(0.0)
        start = self._now()
        try:
            yield
        finally:
            spent = self._now() - start
            with self._turn:
                row = self.rows[self.iteration, name]
                row[0] += spent - inner.pop()
                row[1] += 1
                row[2] += work
            inner[-1] += spent

    def wrap(self, owner: Any, attribute: str, name: str, work: Callable[..., float] = lambda *a, **k: 0.0) -> None:
        """Time every call of owner.attribute as stage `name`; `work` counts from its arguments."""
        inner = getattr(owner, attribute)

        @functools.wraps(inner)
        def timed(*arguments: Any, **named: Any) -> Any:
            with self.stage(name, work(*arguments, **named)):
                return inner(*arguments, **named)

        setattr(owner, attribute, timed)


def install(clock: Clock) -> None:
    """Wrap the stages of a refinement."""
    clock.wrap(start.ImageCache, "__init__", "read images")
    clock.wrap(initial, "first_noise", "initial noise")
    clock.wrap(expectation, "prepare", "prepare images", lambda cache, particles, group, indices, *rest: len(indices))
    clock.wrap(kernels, "project_planes", "project grid", lambda volume, slices, pixels: len(slices) * len(pixels))
    product = lambda left, right, *rest: 2.0 * left.shape[0] * left.shape[1] * right.shape[0]  # noqa: E731
    clock.wrap(kernels, "matrix_product", "coarse products", product)
    listed = lambda v, slices, ptr, pairs, images, *rest: float(len(pairs)) * images.shape[1]  # noqa: E731
    clock.wrap(kernels, "score", "score lists", listed)
    children = lambda v, s, n_rot, r, pair, *rest: float(len(pair)) * n_rot * rest[1].shape[1]  # noqa: E731
    clock.wrap(kernels, "score_children", "score children", children)
    sums = lambda v, a, s, samples, *rest: float((np.diff(samples.slice_ptr) > 0).sum()) * rest[1].shape[1]  # noqa: E731
    clock.wrap(kernels, "accumulate", "sum and insert", sums)
    clock.wrap(CoarsePass, "_survivors_of_all", "screen grid: rest")
    clock.wrap(CoarsePass, "_significant_pairs", "significant pairs")
    clock.wrap(expectation._GroupPass, "_fine", "fine pass: rest")
    clock.wrap(expectation._GroupPass, "chunk", "E-step: rest")
    clock.wrap(loop, "maximise", "M-step")
    clock.wrap(accuracy, "estimate", "accuracy")
    clock.wrap(crosscheck, "check", "alignment check: rest")
    for module in (loop, planning):
        clock.wrap(module, "projectors", "projectors")
    clock.wrap(writer, "write_iteration", "files")
    clock.wrap(writer, "write_final", "files")
    planned = loop.plan_iteration

    def plan(state, *rest):
        clock.iteration = state.progress.iteration + 1
        return planned(state, *rest)

    loop.plan_iteration = plan


def table(clock: Clock) -> str:
    """Stages by iteration, in seconds."""
    iterations = sorted({i for i, _ in clock.rows})
    names = sorted({name for _, name in clock.rows}, key=lambda name: -sum(clock.rows[i, name][0] for i in iterations if (i, name) in clock.rows))
    lines = [f"{'':24}" + "".join(f"{i:>8}" for i in iterations) + f"{'all':>9}{'calls':>8}{'work':>10}"]
    for name in names:
        mine = [clock.rows.get((i, name), [0.0, 0, 0.0]) for i in iterations]
        seconds = [row[0] for row in mine]
        lines.append(f"{name:24}" + "".join(f"{s:8.2f}" if s else f"{'':8}" for s in seconds)
                     + f"{sum(seconds):9.2f}{sum(row[1] for row in mine):8.0f}{sum(row[2] for row in mine):10.3g}")  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    """Run one refinement and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", required=True)
    parser.add_argument("--folder", type=Path, default=Path("benchmark_sets"))
    parser.add_argument("--default_schedule", action="store_true")
    parser.add_argument("--processor", action="store_true", help="processor seconds of all threads instead of wall seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("extra", nargs="*", help="more flags for aurefine refine, after --")
    arguments = parser.parse_args()
    facts = datasets.ensure(arguments.set, arguments.folder)
    folder = arguments.folder / arguments.set
    output = (folder / "runs" / "stages" / "run").resolve()
    flags = relion.refine_flags(facts, output, not arguments.default_schedule, arguments.seed) + arguments.extra
    clock = Clock(arguments.processor)
    install(clock)
    os.chdir(folder)
    start = time.perf_counter()
    code = refine_flags_run(flags, clock)
    wall = time.perf_counter() - start
    if code:
        sys.exit(code)
    print(table(clock))
    print(f"{wall:.1f} s, without the start of the program")
    history = [{"iteration": i, "stage": name, "seconds": round(row[0], 4), "calls": row[1], "work": row[2]} for (i, name), row in clock.rows.items()]
    print(relion.line({"program": "aurefine", "wall_s": wall, "user_s": time.process_time()} | relion.judge(facts, Path("."), output)))
    if arguments.json:
        arguments.json.write_text(json.dumps({"set": facts, "machine": relion.machine(), "wall_s": wall, "stages": history}, indent=1) + "\n")


def refine_flags_run(flags: list[str], clock: Clock) -> int:
    """`aurefine refine` with these flags, as a stage of its own; returns the exit code."""
    from aurefine.cli.main import main as command_line

    with clock.stage("loop: rest"):
        return command_line(["refine", *flags, "--verb", "0"])


if __name__ == "__main__":
    main()
