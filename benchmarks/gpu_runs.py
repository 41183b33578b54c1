"""Whole refinements on a GPU, for `gpu_check.py`: wall time with start, reading and writing, phases, how busy the GPU was, and the poses.

Particles are simulated on the GPU first (`gpu_simulate.py`). Each set is refined as a process of its own, which is timed, and once more in this
process under torch's profiler, which tells for what share of each E-step the GPU had something to do.
"""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gpu_simulate
import precision
import relion
import torch
from torch.profiler import ProfilerActivity, profile, supported_activities

from aurefine import compare, star
from aurefine.cli.main import main as command_line
from aurefine.imaging import Imaging
from aurefine.refine import loop

_NAMES = 12  # kernels that are listed


@dataclass(frozen=True)
class Job:
    """A refinement: its set, its padding, and for how many particles its goal holds (the time is scaled to them)."""

    name: str
    point_group: str
    imaging: Imaging
    padding: int
    goal_s: float = 0.0
    goal_particles: int = 0
    other: Mapping[str, str] = field(default_factory=dict)  # flags with other values than relion.refine_flags gives them


REAL = (
    Job("tutorial", "D2", gpu_simulate.exposure(4452, 256, 1.24453, 0.06, 31), 1, 20, 4452),
    Job("c1_256", "C1", gpu_simulate.exposure(10_000, 256, 1.24453, 0.05, 32), 2, 240, 50_000),
)
REAL_PRECISION = Job("d2_128", "D2", gpu_simulate.exposure(1000, 128, 2.488, 0.12, 33), 2)
_SHORT = {"--auto_iter_max": "2", "--healpix_order": "1", "--offset_range": "2"}
TOY = (Job("toy", "D2", gpu_simulate.exposure(12, 16, 18.0, 5.0, 31), 1, other=_SHORT),)
TOY_PRECISION = Job("toy_precision", "D2", gpu_simulate.exposure(12, 16, 18.0, 5.0, 33), 2, other=_SHORT)


def flags_of(job: Job, facts: dict[str, Any], output: Path, device: torch.device) -> list[str]:
    """The command line of a job, but for the program's name."""
    return changed(relion.refine_flags(facts, output, True, 1), job, device)


def changed(flags: list[str], job: Job, device: torch.device) -> list[str]:
    """The flags with the job's own values, on the device."""
    others = {"--pad": str(job.padding), **job.other, "--gpu": str(device.index or 0)}
    flags = list(flags)
    for flag, value in others.items():
        if flag in flags:
            flags[flags.index(flag) + 1] = value
        else:
            flags += [flag, value]
    return flags


class Phases:
    """Seconds of each phase, iteration by iteration, and of each E-step the share in which the GPU was busy."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rows: list[dict[str, Any]] = []
        self.kernels: dict[str, float] = defaultdict(float)
        self._seconds: dict[str, float] = {}

    def _timed(self, name: str, work):
        def timed(*arguments, **named):
            torch.cuda.synchronize(self.device)
            start = time.perf_counter()
            result = work(*arguments, **named)
            torch.cuda.synchronize(self.device)
            self._seconds[name] = time.perf_counter() - start
            return result

        return timed

    def _profiled(self, work):
        def profiled(state, plan, *arguments, **named):
            there = ProfilerActivity.CUDA in supported_activities()  # not where the GPU is a pretended one
            with profile(activities=[ProfilerActivity.CUDA if there else ProfilerActivity.CPU]) as found:
                result = work(state, plan, *arguments, **named)
                torch.cuda.synchronize(self.device)
            self._seconds["busy"] = self._busy(found) if there else 0.0
            row = {"iteration": plan.iteration, "size": plan.current_size, "healpix_order": plan.sampling.healpix_order, "local": plan.sampling.local}
            self.rows.append(row)
            return result

        return profiled

    def _busy(self, found: profile) -> float:
        """Seconds in which at least one kernel or copy ran."""
        spans, end, total = [], 0, 0
        for event in found.profiler.kineto_results.events():
            if event.device_type() == torch.autograd.DeviceType.CUDA:
                spans.append((event.start_ns(), event.start_ns() + event.duration_ns()))
                self.kernels[event.name()[:80]] += event.duration_ns() / 1e9
        for first, last in sorted(spans):
            total += max(0, last - max(first, end))
            end = max(end, last)
        return total / 1e9

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, the loop's phases are timed."""
        real = loop.plan_iteration, loop._expectation, loop._maximisation
        maximisation = self._timed("maximisation", real[2])

        def last(*arguments):
            result = maximisation(*arguments)
            self.rows[-1] |= {name: round(seconds, 4) for name, seconds in self._seconds.items()}
            return result

        loop.plan_iteration, loop._maximisation = self._timed("planning", real[0]), last
        loop._expectation = self._timed("expectation", self._profiled(real[1]))
        try:
            yield
        finally:
            loop.plan_iteration, loop._expectation, loop._maximisation = real

    def summary(self) -> dict[str, Any]:
        """Phases by iteration, the busy share of all E-steps, and the kernels that took longest."""
        spent = sum(row["expectation"] for row in self.rows)
        longest = sorted(self.kernels.items(), key=lambda item: -item[1])[:_NAMES]
        share = round(sum(row["busy"] for row in self.rows) / spent, 3) if self.kernels else None
        return {"iterations": self.rows, "busy_share": share, "kernels_s": {name: round(seconds, 4) for name, seconds in longest}}


def refined(job: Job, folder: Path, device: torch.device) -> dict[str, Any]:
    """Simulate a set, refine it twice (timed; profiled) and say what came out."""
    start = time.perf_counter()
    facts = gpu_simulate.simulated(job.point_group, folder / job.name, job.imaging, device)
    made = time.perf_counter() - start
    runs = (folder / job.name / "runs").resolve()
    runs.mkdir(exist_ok=True)
    found: dict[str, Any] = {"job": job.name, "particles": facts["particles"], "box": facts["box"], "simulated_s": round(made, 1)}
    flags = [*flags_of(job, facts, runs / "timed", device), "--verb", "0"]
    found["timed"] = relion.measure([sys.executable, "-m", "aurefine", "refine", *flags], folder / job.name, runs / "timed.log")
    if found["timed"]["exit_status"]:
        raise SystemExit(f"the refinement of {job.name} failed:\n{(runs / 'timed.log').read_text()[-3000:]}")
    general = star.read_table(runs / "timed_model.star" if (runs / "timed_model.star").exists() else _newest_model(runs), "model_general")
    found["claimed_resolution"] = general.value("rlnCurrentResolution")
    phases, here = Phases(device), Path.cwd()
    os.chdir(folder / job.name)
    try:
        with phases.watching():
            if command_line(["refine", *flags_of(job, facts, runs / "profiled", device), "--verb", "0"]):
                raise SystemExit(f"the profiled refinement of {job.name} failed")
    finally:
        os.chdir(here)
    found |= phases.summary()
    final = runs / "timed_data.star"
    if final.exists():
        found["poses"] = compare.pose_errors(final, folder / job.name / "truth.star", job.point_group)
    if job.goal_particles:
        found["goal_s"] = job.goal_s
        found["scaled_to_goal_s"] = round(scaled(found, job.goal_particles), 1)
    return found


def _newest_model(runs: Path) -> Path:
    return max(runs.glob("timed_it*_half1_model.star"))


def scaled(found: dict[str, Any], particles: int) -> float:
    """Wall seconds for so many particles: what grows with them (E-steps, and reading, which is most of the rest) is taken to do so linearly."""
    rows, wall = found["iterations"], found["timed"]["wall_s"]
    fixed = sum(row["planning"] + row["maximisation"] for row in rows)
    return fixed + (wall - fixed) * particles / found["particles"] if particles > found["particles"] else wall


def same_poses(job: Job, folder: Path, device: torch.device) -> list[dict[str, Any]]:
    """Poses in reduced precision (TF32) against those in float32, iteration by iteration, each time from the same state."""
    facts = gpu_simulate.simulated(job.point_group, folder / job.name, job.imaging, device)
    (folder / job.name / "runs").mkdir(exist_ok=True)
    output = (folder / job.name / "runs" / "twice").resolve()
    return precision.iteration_by_iteration(facts, folder / job.name, flags_of(job, facts, output, device))


def lines(found: dict[str, Any]) -> list[str]:
    """A refinement in words."""
    timed = found["timed"]
    processor = timed["user_s"] + timed["system_s"]
    text = [f"{found['job']}: {found['particles']} x {found['box']} px, {timed['wall_s']:.1f} s wall ({processor:.1f} s of the processor), claims "
            f"{found['claimed_resolution']:.2f} A; simulated in {found['simulated_s']:.0f} s"]  # fmt: skip
    if "goal_s" in found:
        text.append(f"  goal {found['goal_s']:g} s; scaled to its particles: {found['scaled_to_goal_s']:.1f} s")
    if "poses" in found:
        text.append(f"  poses: {found['poses']['angle_median']:.2f} deg, {found['poses']['shift_median']:.2f} A from the truth (medians)")
    share = found["busy_share"]
    text.append("  GPU busy in E-steps: " + ("not measured without a GPU" if share is None else f"{100 * share:.0f} %"))
    for row in found["iterations"]:
        text.append(f"  it {row['iteration']:2} size {row['size']:3} order {row['healpix_order']}{' local' if row['local'] else '':6} planning "
                    f"{row['planning']:6.2f}  E {row['expectation']:7.2f} (busy {row['busy']:7.2f})  M {row['maximisation']:6.2f}")  # fmt: skip
    text += [f"    {seconds:8.3f} s  {name}" for name, seconds in found["kernels_s"].items()]
    return text
