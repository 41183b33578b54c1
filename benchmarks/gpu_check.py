"""Check every GPU kernel against its twin and time both, run whole refinements, and print tables; under ten minutes on a machine with a CUDA GPU.

    python benchmarks/gpu_check.py --json gpu.json        check and time on the first GPU, all that is found also written to gpu.json
    python benchmarks/gpu_check.py --compile sm_80 sm_90  without a GPU: compile every kernel, print registers, spills and shared memory
    python benchmarks/gpu_check.py --interpret            without a GPU: the same at toy sizes on a pretended one (pretended_gpu.py); kernels in
                                                          Triton's interpreter, refinements with the kernels' plain-torch twins

Three parts, in this order: kernels; poses in TF32 against those in float32; whole refinements, as long as `--minutes` allow another one to begin.
Nothing but torch, Triton, NumPy, SciPy and Numba is needed. The exit code is 1 when a kernel differs from its twin or does not fit.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

if "--interpret" in sys.argv:
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels are defined, so it must stand before their import

import numpy as np
import pretended_gpu
import torch
from scipy.spatial.transform import Rotation

from aurefine import kernels
from aurefine.fourier import PixelList, pixel_list
from aurefine.kernels import Accumulator, Samples, Volume, reference
from aurefine.refine import select, select_torch

LIMIT = 1e-4  # relative error ||fast - twin|| / ||twin||; float32 sums in another order stay far below
REDUCED_LIMIT = 1e-2  # bfloat16 keeps 8 bits, TF32 10


@dataclass(frozen=True)
class Size:
    """How much to compute: a volume for `image` of `box` pixels, and counts of everything."""

    box: int
    image: int
    padding: float
    slices: int
    particles: int
    shifts: int
    pairs: int
    scores: int


REAL = Size(box=256, image=128, padding=2.0, slices=4096, particles=512, shifts=29, pairs=40_000, scores=20_000_000)
TOY = Size(box=24, image=12, padding=2.0, slices=16, particles=4, shifts=5, pairs=12, scores=3000)


@dataclass(frozen=True, eq=False)
class Case:
    """A kernel and its twin on the same input; `work` counts what `unit` names."""

    name: str
    fast: Callable[[], list[torch.Tensor]]
    slow: Callable[[], list[torch.Tensor]]
    work: float
    unit: str
    limit: float = LIMIT


@dataclass(frozen=True)
class Row:
    """Outcome of a case: relative error and seconds of the kernel and of its twin."""

    name: str
    error: float
    seconds: float
    twin_seconds: float
    rate: float
    unit: str
    limit: float

    @property
    def right(self) -> bool:
        """Whether the kernel equals its twin."""
        return self.error < self.limit


class Inputs:
    """Random volume, images and lists on the device; the seed is fixed."""

    def __init__(self, size: Size, device: torch.device) -> None:
        self.size, self.device, self.rng = size, device, np.random.default_rng(7)
        self.pixels: PixelList = pixel_list(size.image, size.box, 1.0)
        half = int(size.padding * size.image / 2 + 0.5) + 1
        self.volume = Volume(self.complex((2 * half + 1, 2 * half + 1, half + 1)), size.image // 2, size.padding)
        rotations = Rotation.random(size.slices, rng=self.rng).as_matrix()[:, :, :2]
        self.slices = np.ascontiguousarray(size.padding * rotations, np.float32)
        self.images, self.masked = (self.complex((size.particles, len(self.pixels))) for _ in range(2))
        self.power, self.model = (self.real((size.particles, len(self.pixels))).abs() for _ in range(2))
        self.radians = (self.rng.standard_normal((4 * size.shifts, 2)) * 0.1).astype(np.float32)

    def real(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Normal float32 numbers."""
        return torch.from_numpy(self.rng.standard_normal(shape, dtype=np.float32)).to(self.device)

    def complex(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Normal complex64 numbers."""
        return torch.complex(self.real(shape), self.real(shape))

    def accumulator(self) -> Accumulator:
        """Zeros of the volume's shape."""
        return Accumulator.empty(self.volume.r_max, self.volume.padding, 1, self.device)

    def sorted_pairs(self, blocks: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(ptr int64 [blocks + 1], particle int32, shift int32) of random pairs: block by block, and by particle within each."""
        size = self.size
        block, particle = np.sort(self.rng.integers(0, blocks, size.pairs)), self.rng.integers(0, size.particles, size.pairs)
        order = np.lexsort((particle, block))
        ptr = np.searchsorted(block, np.arange(blocks + 1)).astype(np.int64)
        return ptr, particle[order].astype(np.int32), self.rng.integers(0, size.shifts, size.pairs).astype(np.int32)


def projection(cuda, on: Inputs) -> Case:
    """Slices of the volume, as the global search wants them."""
    arguments = (on.volume, on.slices, on.pixels)
    work = len(on.slices) * len(on.pixels)
    return Case("project", lambda: [cuda.project_planes(*arguments)], lambda: [reference.project_planes(*arguments)], work, "slice pixels")


def scoring(cuda, on: Inputs) -> Case:
    """Every particle against 64 slices of its own at every coarse shift."""
    size, each = on.size, min(64, on.size.slices)
    pair_ptr, shift_ptr = np.arange(size.particles + 1) * each, np.arange(size.particles + 1) * size.shifts
    pair_slice = on.rng.integers(0, size.slices, pair_ptr[-1]).astype(np.int32)
    shift_row = np.tile(np.arange(size.shifts, dtype=np.int32), size.particles)
    arguments = (on.volume, on.slices, pair_ptr, pair_slice, on.images, on.power, shift_ptr, shift_row, on.radians, on.pixels)
    fast, slow = lambda: [cuda.score(*arguments)[0]], lambda: [reference.score(*arguments)[0]]
    return Case("score (local coarse pass)", fast, slow, float(pair_ptr[-1]) * len(on.pixels), "slice pixels")


def scoring_children(cuda, on: Inputs) -> Case:
    """Random pairs of coarse rotation and particle, 8 child rotations and 4 child shifts each."""
    coarse = on.size.slices // 8
    lists = on.sorted_pairs(coarse)
    arguments = (on.volume, on.slices, 8, *lists, on.images, on.power, on.radians, 4, on.pixels)
    fast, slow = lambda: [cuda.score_children(*arguments)], lambda: [reference.score_children(*arguments)]
    return Case("score_children (fine pass)", fast, slow, float(len(lists[1])) * 32 * len(on.pixels), "sample pixels")


def insertion(cuda, on: Inputs) -> Case:
    """All slices into an empty accumulator."""
    values, weights = on.complex((len(on.slices), len(on.pixels))), on.real((len(on.slices), len(on.pixels))).abs()

    def run(room) -> list[torch.Tensor]:
        target = on.accumulator()
        room.insert(target, on.slices, values, weights, on.pixels)
        return [target.combined()]

    return Case("insert", lambda: run(cuda), lambda: run(reference), len(on.slices) * len(on.pixels), "slice pixels")


def accumulation(cuda, on: Inputs) -> Case:
    """Random (slice, particle) runs of two samples each, with the residual statistics."""
    slice_ptr, particle, _ = on.sorted_pairs(on.size.slices)
    samples = Samples(
        slice_ptr, particle, np.arange(len(particle) + 1) * 2, on.rng.integers(0, len(on.radians), 2 * len(particle)).astype(np.int32),
        on.rng.random(2 * len(particle), dtype=np.float32),
    )  # fmt: skip
    inverse, strong = on.rng.random(len(on.pixels), dtype=np.float32), on.rng.random(len(on.pixels)) > 0.5

    def run(room) -> list[torch.Tensor]:
        target = on.accumulator()
        sums = room.accumulate(on.volume, target, on.slices, samples, on.radians, on.images, on.masked, on.model, inverse, strong, on.pixels, False)
        return [target.combined(), *(torch.as_tensor(getattr(sums, name)) for name in sums.__dataclass_fields__)]

    return Case("accumulate", lambda: run(cuda), lambda: run(reference), float(len(particle)) * len(on.pixels), "run pixels")


def _product(on: Inputs, reduced: bool) -> Case:
    left, right = on.real((on.size.particles * 16, 2 * len(on.pixels))), on.real((on.size.slices, 2 * len(on.pixels)))
    out = torch.empty((len(left), len(right)), device=on.device)
    name, limit = ("matrix product, reduced", REDUCED_LIMIT) if reduced else ("matrix product, float32", LIMIT)

    def fast() -> list[torch.Tensor]:
        with kernels.product_precision(on.device, reduced):
            return [kernels.matrix_product(left, right, out)[:256]]

    return Case(name, fast, lambda: [(left[:256].double() @ right.double().T).float()], 2.0 * len(left) * left.shape[1] * len(right), "FLOP", limit)


def product(cuda, on: Inputs) -> Case:
    """A float32 product as large as the coarse pass's; its twin is float64 on a part of the rows."""
    return _product(on, False)


def reduced_product(cuda, on: Inputs) -> Case:
    """The coarse pass's product in TF32 (bfloat16 on a CPU)."""
    return _product(on, True)


def selection(cuda, on: Inputs) -> Case:
    """Significant samples of ragged blocks of log weights, against Numba on the host."""
    values = on.real((on.size.scores,)) * 4
    ptr = np.linspace(0, on.size.scores, on.size.particles + 1).astype(np.int64)
    host = values.cpu().numpy()

    def result(chosen) -> list[torch.Tensor]:
        return [torch.as_tensor(np.asarray(getattr(chosen, name), float)) for name in ("maximum", "argmax", "log_sum", "threshold", "count")]

    fast, slow = lambda: result(select_torch.significant(values, ptr, 0.999)), lambda: result(select.significant(host, ptr, 0.999))
    return Case("significant (twin: Numba)", fast, slow, on.size.scores, "scores")


CASES = (projection, scoring, scoring_children, insertion, accumulation, product, reduced_product, selection)


def relative_error(fast: list[torch.Tensor], slow: list[torch.Tensor]) -> float:
    """Largest ||fast - slow|| / ||slow|| of corresponding arrays; NaN where any value is not a number."""
    errors = []
    for one, other in zip(fast, slow, strict=True):
        other = other.to(one.device)
        errors.append(float(torch.linalg.vector_norm((one - other).double()) / torch.linalg.vector_norm(other.double()).clamp(min=1e-30)))
    return max(errors, key=lambda e: float("inf") if e != e else e)


def seconds(action: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median seconds of `repeats` runs, the device waited for."""
    times = []
    for _ in range(repeats):
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        action()
        torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def check(size: Size, device: torch.device) -> list[Row]:
    """Run every case: compile, compare, time."""
    from aurefine.kernels import cuda

    on, rows = Inputs(size, device), []
    for make in CASES:
        case = make(cuda, on)
        result = case.fast()  # also compiles
        start = time.perf_counter()
        expected = case.slow()
        torch.cuda.synchronize(device)
        twin = time.perf_counter() - start
        once = seconds(case.fast, device, 1 if size is TOY else 5)
        rows.append(Row(case.name, relative_error(result, expected), once, twin, case.work / once, case.unit, case.limit))
    return rows


def table(rows: list[Row]) -> str:
    """The rows as text."""
    lines = [f"{'kernel':28} {'error':>9} {'seconds':>10} {'twin':>10} {'faster':>8}  rate"]
    for r in rows:
        verdict = "" if r.right else "  DIFFERS"
        lines.append(
            f"{r.name:28} {r.error:9.1e} {r.seconds:10.5f} {r.twin_seconds:10.4f} {r.twin_seconds / r.seconds:7.1f}x  "
            f"{r.rate / 1e9:.3g} G {r.unit}/s{verdict}"
        )
    return "\n".join(lines)


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compile", nargs="+", metavar="ARCH", help="compile for these architectures, no GPU needed")
    parser.add_argument("--interpret", action="store_true", help="toy sizes on the CPU, no GPU needed")
    parser.add_argument("--json", type=Path, help="write machine, versions and all that is found to this file, part by part")
    parser.add_argument("--only", choices=["kernels", "precision", "runs"], help="one part alone")
    parser.add_argument("--folder", type=Path, help="where simulated particles go (default: a temporary folder)")
    parser.add_argument("--minutes", type=float, default=7.0, help="after which no further refinement is begun")
    options = parser.parse_args()
    if options.compile:
        from gpu_compile import compile_all

        return 0 if compile_all(options.compile) else 1
    if not options.interpret and not torch.cuda.is_available():
        print("no CUDA GPU here: use --compile or --interpret", file=sys.stderr)
        return 2
    with pretended_gpu.pretended() if options.interpret else contextlib.nullcontext():
        return 0 if _checked(options) else 1


def _checked(options: argparse.Namespace) -> bool:
    """All parts, on the first GPU; whether the kernels are right."""
    device = torch.device("cuda", 0)
    name = torch.cuda.get_device_name(device)
    print(f"{name}, torch {torch.__version__}, numpy {np.__version__}, python {platform.python_version()}, {os.cpu_count()} cores", flush=True)
    found: dict[str, Any] = {
        "device": name, "torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version(), "cores": os.cpu_count()
    }  # fmt: skip
    right = True

    def tell(part: str, result: Any, lines: list[str]) -> None:
        found[part], found["seconds"] = result, round(time.perf_counter() - began, 1)
        print("\n".join(lines), flush=True)
        if options.json:
            options.json.write_text(json.dumps(found, indent=1) + "\n")

    began = time.perf_counter()
    if options.only in (None, "kernels"):
        rows = check(TOY if options.interpret else REAL, device)
        right = all(row.right for row in rows)
        tell("kernels", [asdict(row) for row in rows], [table(rows)])
    if options.only != "kernels":
        twins = mock.patch.object(kernels, "_gpu_backend", lambda: reference) if options.interpret else contextlib.nullcontext()
        with tempfile.TemporaryDirectory() as temporary, twins:
            _refinements(options, device, options.folder or Path(temporary), began, tell)
    return right


def _refinements(options: argparse.Namespace, device: torch.device, folder: Path, began: float, tell: Callable[..., None]) -> None:
    """The parts that refine: poses in both precisions, and whole runs."""
    import gpu_runs
    import precision

    if options.only in (None, "precision"):
        job = gpu_runs.TOY_PRECISION if options.interpret else gpu_runs.REAL_PRECISION
        steps = gpu_runs.same_poses(job, folder, device)
        tell("precision", steps, ["poses in TF32 against float32, each iteration from the same state:", *precision.step_lines(steps)])
    runs: list[dict[str, Any]] = []
    for job in (gpu_runs.TOY if options.interpret else gpu_runs.REAL) if options.only in (None, "runs") else ():
        if time.perf_counter() - began > 60 * options.minutes:
            tell("runs", runs, [f"{job.name}: left out, {options.minutes:g} minutes are over (--minutes)"])
            continue
        runs.append(gpu_runs.refined(job, folder, device))
        tell("runs", runs, gpu_runs.lines(runs[-1]))


if __name__ == "__main__":
    sys.exit(main())
