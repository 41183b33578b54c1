"""Compile the GPU kernels for architectures whose GPUs need not be there: what `gpu_check.py --compile` runs."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from aurefine.kernels import _triton, cuda

SHARED_LIMIT = 101_376  # bytes of shared memory a program may take on the smallest GPUs in question (sm_86, sm_89)
STACK_LIMIT = 64  # bytes of stack a thread: more means that registers are spilled

_TYPES = {
    "*i64": "volume phases images values unmasked masked tiles bounds slice_ptr run_ptr",
    "*i32": "pair_slice pair_particle pair_shift shift_row run_particle shift",
    "*fp64": "pixel_sums particle_sums",
    "*fp32": "slices x y out power target weights weight model inverse strong",
    "i32": "pixels half plane_stride pixel_stride particles target_half rotations shifts",
    "fp32": "limit target_limit",
}


def variants() -> list[tuple[str, dict[str, object]]]:
    """(kernel, its constants) of every program that a refinement launches; Triton turns integers that are 1 into constants too."""
    block, score = {"BLOCK": cuda._BLOCK}, {"PRECISION": "tf32x3", "BLOCK": cuda._SCORE_BLOCK, "CORRELATION": False}
    coarse = [("score", score | {"ROWS": cuda._SCORE_ROWS, "COLUMNS": columns}) for columns in cuda._SCORE_COLUMNS]
    children = [("score_children", score | {"ROWS": rows, "COLUMNS": columns}) for rows in (8, cuda._SCORE_ROWS) for columns in cuda._CHILD_COLUMNS]
    return [
        ("project", block | {"plane_stride": 1}),
        ("project", block | {"pixel_stride": 1}),
        ("insert", block),
        ("accumulate", block | {"PREMULTIPLIED": False}),
        ("accumulate", block | {"PREMULTIPLIED": True}),
        *coarse,
        ("score", coarse[0][1] | {"CORRELATION": True}),
        *children,
        ("score_children", children[0][1] | {"CORRELATION": True, "rotations": 1, "shifts": 1}),
    ]


def built(name: str, constants: dict[str, object], architecture: str):
    """The compiled program (Triton's CompiledKernel)."""
    program = getattr(_triton, name)
    types = {argument: kind for kind, names in _TYPES.items() for argument in names.split()}
    signature = {argument: "constexpr" if argument in constants else types[argument] for argument in program.arg_names}
    pointers = [k for k, argument in enumerate(program.arg_names) if signature[argument].startswith("*") and argument not in _triton._ROWS]
    aligned = {(k,): [["tt.divisibility", 16]] for k in pointers}
    source = ASTSource(program, signature, {(program.arg_names.index(key),): value for key, value in constants.items()}, aligned)
    options = {"num_stages": cuda._STAGES} if name.startswith("score") else {}
    return triton.compile(source, target=GPUTarget("cuda", int(architecture.removeprefix("sm_")), 32), options=options)


def usage(cubin: bytes) -> tuple[int, int]:
    """(registers, stack bytes) that a compiled program takes for each thread."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        text = subprocess.run([tool, "-res-usage", file], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", text)
    if found is None:
        raise RuntimeError(f"cuobjdump printed no resource usage: {text}")
    return int(found[1]), int(found[2])


def compile_all(architectures: list[str]) -> bool:
    """Compile every kernel; prints what each takes, returns whether all fit."""
    fits = True
    for architecture in architectures:
        for name, constants in variants():
            program = built(name, constants, architecture)
            registers, stack = usage(program.asm["cubin"])
            fits &= program.metadata.shared <= SHARED_LIMIT and stack <= STACK_LIMIT
            what = f"{name} x {constants['COLUMNS']}" if "COLUMNS" in constants else name
            print(f"{architecture} {what:20} registers {registers:4d}  stack bytes {stack:4d}  shared memory {program.metadata.shared:6d}")
    return fits
