"""Single stages of the E-step on this CPU: nanoseconds per unit of work, at the sizes of a local search.

    python benchmarks/kernels_cpu.py [--image 100] [--threads 2] [--json FILE]

Seconds are those of the processor, all threads together, of the quickest call: so that what others do on the machine at the same time counts little.
Poses come in groups of close neighbours, as those of a local search do; `project, scattered` has them all over the sphere.
The rates of memory that the floors of docs/performance.md go by are measured in the same run: 128-bit loads and 256-bit read-modify-writes at
random places of a table that fits into the second-level cache, the third, or neither.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import relion
import torch
from numba import njit
from scipy.spatial.transform import Rotation

from aurefine import kernels
from aurefine.fourier import pixel_list
from aurefine.kernels import Accumulator, Samples, Volume
from aurefine.refine.start import use_threads


def volume_of(image: int, padding: float = 2.0) -> Volume:
    """A random volume for images of that size."""
    half = int(padding * image / 2 + 0.5) + 1
    shape = (2 * half + 1, 2 * half + 1, half + 1)
    return Volume(torch.complex(torch.rand(shape), torch.rand(shape)), image // 2, padding)


def near(particles: int, count: int, spread: float, padding: float, rng: np.random.Generator) -> np.ndarray:
    """float32 [particles * count, 3, 2]: slices within `spread` degrees of one pose a particle."""
    poses = Rotation.random(particles, rng).as_matrix()[:, None]
    turned = Rotation.from_rotvec(np.deg2rad(rng.uniform(-spread, spread, (particles * count, 3)))).as_matrix().reshape(particles, count, 3, 3)
    return np.ascontiguousarray((padding * (turned @ poses)).transpose(0, 1, 3, 2)[..., :2].reshape(-1, 3, 2), np.float32)


def timed(action, least: float = 1.0) -> float:
    """Processor seconds of the quickest call; the first one, which may compile, is left out."""
    action()
    spent, quickest = 0.0, float("inf")
    while spent < least:
        start = time.process_time()
        action()
        seconds = time.process_time() - start
        spent, quickest = spent + seconds, min(quickest, seconds)
    return quickest


@njit(fastmath=True)
def load(table, places):
    """Sum of four numbers at each place."""
    found = np.zeros(4, np.float32)
    for place in places:
        for k in range(4):
            found[k] += table[place + k]
    return found


@njit(fastmath=True)
def update(table, places):
    """Add to eight numbers at each place."""
    for place in places:
        for k in range(8):
            table[place + k] += np.float32(1)


def rates(rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """(seconds, number of) accesses at random places, in one thread."""
    found: dict[str, tuple[float, float]] = {}
    for size in (0.5, 8, 140):
        table = np.zeros(int(size * (1 << 18)), np.float32)
        places = 8 * rng.integers(0, len(table) // 8, 1_000_000)
        for name, access in (("128-bit load", load), ("256-bit read-modify-write", update)):
            found[f"{name}, {size:g} MB"] = timed(lambda a=access, t=table, p=places: a(t, p)), len(places)
    return found


def main() -> None:
    """Time every stage and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=int, default=100, help="image size in pixels")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    threads = use_threads(arguments.threads or 1)
    rng = np.random.default_rng(1)
    pixels = pixel_list(arguments.image, arguments.image, 2.0)
    volume, n = volume_of(arguments.image), len(pixels)
    particles, listed, spread = 64, 60, 3.0
    slices = near(particles, listed, spread, volume.padding, rng)
    images = torch.complex(torch.randn(particles, n), torch.randn(particles, n))
    power = torch.rand(particles, n)
    rows: dict[str, tuple[float, float]] = {}

    scattered = near(len(slices), 1, 0, volume.padding, rng)
    rows["project, neighbours"] = timed(lambda: kernels.project_planes(volume, slices, pixels)), len(slices) * n
    rows["project, scattered"] = timed(lambda: kernels.project_planes(volume, scattered, pixels)), len(slices) * n
    ptr, pairs = np.arange(particles + 1, dtype=np.int64) * listed, np.arange(len(slices), dtype=np.int32)
    for count in (9, 21, 45):
        shifts = rng.uniform(-0.1, 0.1, (count, 2)).astype(np.float32)
        block = np.arange(particles + 1, dtype=np.int64) * count
        table = np.tile(np.arange(count, dtype=np.int32), particles)
        rows[f"score lists, {count} shifts"] = (
            timed(lambda b=block, t=table, s=shifts: kernels.score(volume, slices, ptr, pairs, images, power, b, t, s, pixels)), len(slices) * n
        )  # fmt: skip
    fine = rng.uniform(-0.1, 0.1, (21 * 4, 2)).astype(np.float32)
    for name, each in (("one pair each", 1), ("20 pairs each", 20)):
        rotations = particles * 8
        children = near(particles, 64, 1.0, volume.padding, rng)
        rotation_ptr = np.arange(rotations + 1, dtype=np.int64) * each
        own = np.repeat(np.arange(particles, dtype=np.int32), 8)
        owner = own if each == 1 else np.sort(rng.integers(0, particles, (rotations, each)), 1).astype(np.int32).reshape(-1)
        shift = rng.integers(0, 21, len(owner)).astype(np.int32)
        rows[f"score children, {name}"] = (
            timed(lambda c=children, r=rotation_ptr, o=owner, s=shift: kernels.score_children(volume, c, 8, r, o, s, images, power, fine, 4, pixels)),
            len(owner) * n,
        )  # fmt: skip
    accumulator = Accumulator.empty(volume.r_max, volume.padding, threads)
    each = 24
    own = np.repeat(np.arange(particles, dtype=np.int32), each)
    samples = Samples(np.arange(len(own) + 1, dtype=np.int64), own, np.arange(len(own) + 1, dtype=np.int64) * 3,
                      rng.integers(0, 84, 3 * len(own)).astype(np.int32), rng.random(3 * len(own)).astype(np.float32))  # fmt: skip
    own_slices = near(particles, each, 1.0, volume.padding, rng)
    flat = torch.ones(n).numpy()
    rows["sum and insert, one particle a slice"] = (
        timed(lambda: kernels.accumulate(volume, accumulator, own_slices, samples, fine, images, images, power, flat, flat > 0, pixels, False)),
        len(own_slices) * n,
    )  # fmt: skip
    left, right = torch.randn(4096, 2048), torch.randn(2304, 2048)
    out = torch.empty(len(left), len(right))
    work = 2.0 * len(left) * left.shape[1] * len(right)
    for name, kind in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        a, b, c = left.to(kind), right.to(kind), out.to(kind)
        rows[f"matrix product, {name} (per operation)"] = timed(lambda a=a, b=b, c=c: kernels.matrix_product(a, b, c)), work
    print(f"{n} pixels, {threads} threads")
    for name, (seconds, work) in rows.items():
        print(f"{name:45}{seconds / work * 1e9:9.4g} ns a pixel and core")
    machine = rates(rng)
    for name, (seconds, work) in machine.items():
        print(f"{name:45}{seconds / work * 1e9:9.4g} ns")
    if arguments.json:
        stages, memory = (
            [{name: label, "seconds": seconds, "work": work, "ns": seconds / work * 1e9} for label, (seconds, work) in found.items()]
            for name, found in (("stage", rows), ("access", machine))
        )
        whole = {"machine": relion.machine(), "threads": threads, "pixels": n, "stages": stages, "memory": memory}
        arguments.json.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
