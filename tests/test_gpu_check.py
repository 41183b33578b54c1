"""What benchmarks/gpu_check.py can promise without a GPU: kernels compile for it and fit, and their checks pass in the interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed: it is only made for Linux, and only GPUs need it")
SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu_check.py"


def _run(folder, *arguments):
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(folder)}
    return subprocess.run([sys.executable, SCRIPT, *arguments], env=environment, capture_output=True, text=True)


def test_every_kernel_compiles_for_a_gpu_that_is_not_there(tmp_path):
    done = _run(tmp_path, "--compile", "sm_90")
    assert done.returncode == 0, done.stdout + done.stderr
    for kernel in ("project", "score x 64", "score_children x 64", "insert", "accumulate"):
        assert f"sm_90 {kernel} " in done.stdout


def test_the_checks_of_a_gpu_machine_pass_in_the_interpreter(tmp_path):
    done = _run(tmp_path, "--interpret", "--json", str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "DIFFERS" not in done.stdout
    assert (tmp_path / "out.json").exists()
