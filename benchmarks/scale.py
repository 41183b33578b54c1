"""Bytes and seconds of a refinement by many processes, on paper: what docs/scale.md says of 10 million particles on 64 GPUs.

    python benchmarks/scale.py [--particles 10e6] [--box 256] [--machines 8] [--processes 8]

Sizes are those of the program's arrays. Seconds follow from rates: measured ones of one core (below, with where they come from), and assumed ones of
disks, networks and GPUs, which can be changed on the command line. Nothing here has been run on so many GPUs.
"""

from __future__ import annotations

import argparse
from dataclasses import fields

import numpy as np

from aurefine.distributed.sphere import Sphere
from aurefine.refine.state import Poses

# Processor seconds of one core for a particle of 128 pixels, D2, by kind of iteration (stages.py, d2_128); a pixel is taken to cost the same
MEASURED = {"global": 0.6e-3, "local": 2.0e-3, "last": 4.2e-3}
MEASURED_BOX = 128
M_STEP = 0.34, 1.15  # seconds of both half-sets at 128 pixels, one core: an iteration and the last one
TABLE_READ, TABLE_WRITE = 2.0e-6, 3.0e-6  # seconds a row (benchmarks/star_files.py)
TABLE_TEXT, TABLE_MEMORY = 350, 500  # bytes a row: the file, and the columns in memory


def gigabytes(count: float) -> str:
    """A size for people."""
    return f"{count / 1e9:,.1f} GB" if count < 1e12 else f"{count / 1e12:,.2f} TB"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=float, default=10e6)
    parser.add_argument("--box", type=int, default=256)
    parser.add_argument("--machines", type=int, default=8)
    parser.add_argument("--processes", type=int, default=8, help="of a machine, each with a GPU")
    parser.add_argument("--iterations", type=int, nargs=2, default=[5, 12], help="global and local ones, beside the last")
    parser.add_argument("--cores_per_process", type=int, default=8)
    parser.add_argument("--gpu_in_cores", type=float, default=50, help="assumed: so many cores does a GPU replace")
    parser.add_argument("--disk", type=float, default=2.5e9, help="assumed: bytes a second that a machine reads from the file system")
    parser.add_argument("--gloo", type=float, default=1e9, help="assumed: bytes a second between two processes")
    parser.add_argument("--nccl", type=float, default=20e9, help="assumed: bytes a second of a reduction between machines")
    given = parser.parse_args()
    count, processes = given.particles, given.machines * given.processes
    hops = int(np.ceil(np.log2(max(2, processes))))
    r_max = given.box // 2
    h = 2 * r_max + 1
    cube, sphere = (2 * h + 1) ** 2 * (h + 1), Sphere(h, 2 * r_max).voxels
    pixels = (given.box / MEASURED_BOX) ** 2
    rates = {kind: seconds * pixels for kind, seconds in MEASURED.items()}
    workers = processes * given.gpu_in_cores
    columns = 1 + sum({"angles": 3, "offsets": 2}.get(field.name, 1) for field in fields(Poses))
    images, stored = (count / given.machines * given.box**2 * size for size in (4, 2))  # of a machine
    poses = count * columns * 8
    volume = (given.box / MEASURED_BOX) ** 3
    m_step = [seconds * volume / 2 / given.cores_per_process for seconds in M_STEP]
    rows: list[tuple[str, float, float]] = [
        ("start: particle table, each process", count * TABLE_TEXT, count * TABLE_READ),
        ("start: images from disk, each machine", images, images / given.disk),
        *((f"E-step, {kind} iteration", 0, count * seconds / workers) for kind, seconds in rates.items()),
        ("sums: an accumulator's sphere, reduced", sphere * 12, 2 * sphere * 12 / given.nccl),
        ("poses to all", poses, poses / given.gloo),
        ("M-step, one rank for each half-set", 0, m_step[0]),
        ("M-step of the last iteration", sphere * 12, m_step[1] + sphere * 12 / given.gloo),
        ("maps to all", 2 * given.box**3 * 4, 2 * hops * given.box**3 * 4 / given.gloo),
        ("particle table written, rank 1", count * TABLE_TEXT, count * TABLE_WRITE),
    ]
    for name, size, seconds in rows:
        print(f"| {name} | {gigabytes(size) if size else ''} | {seconds:,.1f} s |")
    memory = {"images of a machine": stored, "particle table of a process": count * TABLE_MEMORY,
              "poses of a process, old and new and on their way": 3 * poses,
              "accumulator": cube * 16, "projector": cube * 8, "back-projection of the M-step": cube * 12}  # fmt: skip
    print("\nmemory: " + "; ".join(f"{name} {gigabytes(size)}" for name, size in memory.items()))
    per_process = count * TABLE_MEMORY + 3 * poses + cube * (16 + 8 + 12)
    print(f"a machine: {gigabytes(stored + given.processes * per_process)}")
    runs = {"global": given.iterations[0], "local": given.iterations[1], "last": 1}
    e_step = sum(times * count * rates[kind] for kind, times in runs.items())
    fixed = rows[5][2] * 2 + rows[6][2] + rows[7][2] + rows[9][2]
    total = sum(runs.values())
    print(f"E-steps: {e_step / 3600:,.0f} core hours, {e_step / workers:,.0f} s; exchange and M-step {fixed * total:,.0f} s; "
          f"tables {rows[10][2] * total:,.0f} s; start {rows[0][2] + rows[1][2]:,.0f} s")  # fmt: skip


if __name__ == "__main__":
    main()
