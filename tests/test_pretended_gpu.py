"""Whole refinements on pretended GPUs, whose tensors refuse what CUDA's refuse: nothing is on the wrong device, and the answer is the CPU's."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pretended_gpu import pretended

from aurefine import compare, kernels, mrc, star
from aurefine.cli.main import main
from aurefine.kernels import reference
from aurefine.refine import devices
from aurefine.refine.grid_torch import DeviceGrid
from aurefine.refine.plan import Grid
from aurefine.refine.state import SamplingState

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
FLAGS = (
    "refine --i particles.star --ref reference.mrc --ini_high 50 --ctf --flatten_solvent --norm --scale --auto_refine --split_random_halves "
    "--low_resol_join_halves 40 --particle_diameter 200 --oversampling 1 --healpix_order 1 --auto_local_healpix_order 2 --offset_range 2 "
    "--offset_step 2 --sym D2 --random_seed 1 --auto_ignore_angles --auto_resol_angles --j 1 --verb 0"
).split()
MASKED = ("--solvent_mask", "../mask.mrc", "--solvent_correct_fsc")
CASES = {  # of GPUs, folder, further flags
    "one GPU": ("0", "one", ("--firstiter_cc", "--zero_mask")),
    "two GPUs, two optics groups, a mask": ("0:1", "two", ("--zero_mask", *MASKED)),
    "no padding, noise beyond the particle": ("", "one", ("--pad", "1", *MASKED)),
}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A folder with particles of one optics group, of two, and a mask."""
    folder = tmp_path_factory.mktemp("pretended")
    for name, boxes, sizes in (("one", "24", "12"), ("two", "24,30", "12,10")):
        assert main(["simulate", "--o", str(folder / name), "--n", "24", "--box", boxes, "--angpix", sizes, "--snr", "5", "--sym", "D2"]) == 0
    mask = ["--ini_threshold", "0.01", "--extend_inimask", "1", "--width_soft_edge", "3"]
    assert main(["mask_create", "--i", str(folder / "one/reference.mrc"), "--o", str(folder / "mask.mrc"), *mask]) == 0
    return folder


def test_a_pretended_gpu_refuses_what_cuda_refuses():
    with pretended(2) as used:
        here, one, other = torch.ones(3), torch.ones(3, device="cuda:0"), torch.from_numpy(np.arange(3.0)).to("cuda:1")
        refused = {
            "two devices": lambda: one + other, "the host and a GPU": lambda: one * here, "numpy of it": lambda: one.numpy(),
            "numpy makes an array of it": lambda: np.asarray(one), "the host indexed by a GPU": lambda: here[other.long()],
            "part of the host filled": lambda: here.__setitem__(slice(2), one[:2]), "an output elsewhere": lambda: torch.exp(one, out=here),
            "its memory locked": lambda: one.pin_memory(), "numbers drawn elsewhere": lambda: torch.rand(3, generator=torch.Generator("cuda:0")),
        }  # fmt: skip
        for what, action in refused.items():
            with pytest.raises((RuntimeError, TypeError)):
                action()
                pytest.fail(f"not refused: {what}")
        assert (one * torch.tensor(2.0)).cpu().tolist() == [2, 2, 2]  # a single number of the host
        assert other[torch.tensor([0, 2])].device == torch.device("cuda:1")  # the host's indices
        assert other.numpy(force=True).tolist() == [0, 1, 2]
        one.copy_(here * 3)
        assert one.to("cpu", torch.float64).tolist() == [3, 3, 3] and torch.sort(one).indices.is_cuda
        assert used == {torch.device("cuda:0"), torch.device("cuda:1")}
    assert torch.ones(3).to("cpu").device.type == "cpu" and not torch.cuda.is_available()


def test_of_all_products_only_those_of_the_coarse_pass_are_rounded(monkeypatch):
    monkeypatch.setattr(kernels, "_gpu_backend", lambda: kernels)  # any but the plain-torch one, which is never rounded
    gpu, state = torch.device("cuda", 0), SamplingState(6, "C1", 4.0, 1.0, oversampling=1, local=True, sigma_angle=1.0)
    angles = np.random.default_rng(1).uniform(0, 180, (20, 3))
    expected = Grid(state).near(angles)
    with pretended(), kernels.product_precision(gpu, True):
        left, right = torch.rand((5, 40), device=gpu), torch.rand((6, 40), device=gpu)
        with pytest.raises(RuntimeError, match="would be rounded to TF32"):
            left @ right.T
        product = kernels.matrix_product(left, right, torch.empty((5, 6), device=gpu)).cpu()
        found = DeviceGrid(Grid(state), gpu).near(angles)
        exact = left.cpu() @ right.cpu().T
    assert 1e-5 < (product / exact - 1).abs().max() < 2e-3
    np.testing.assert_array_equal(found[0], expected.ptr)  # TF32's cosines would lose half of the candidates of this order
    with pretended(), kernels.product_precision(gpu, False):
        assert (left @ right.T).is_cuda


def test_processes_that_share_a_gpu_take_their_part_of_its_memory(monkeypatch):
    gpu = torch.device("cuda", 0)
    with pretended():
        whole = devices.free_memory(gpu)
        monkeypatch.setattr(devices, "_SHARING", {})
        devices.share(gpu, 3)
        assert devices.free_memory(gpu) == whole // 3
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: whole // 4)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: whole // 8)
        assert devices.free_memory(gpu) == whole // 3 - whole // 8


def test_gpu_kernels_that_cannot_be_compiled_are_replaced(monkeypatch):
    def broken():
        raise RuntimeError("Failed to find C compiler.")

    monkeypatch.setattr("aurefine.kernels.cuda.try_out", broken)
    kernels._gpu_backend.cache_clear()
    with pytest.warns(UserWarning, match="does not work here .*Failed to find C compiler.*install gcc"):
        assert kernels._gpu_backend() is reference
    kernels._gpu_backend.cache_clear()


@pytest.mark.parametrize("case", CASES)
def test_a_refinement_on_gpus_ends_as_one_on_the_cpu(project, case, monkeypatch):
    gpus, folder, flags = CASES[case]
    monkeypatch.chdir(folder)
    monkeypatch.setattr("aurefine.kernels._gpu_backend", lambda: reference)  # the interpreter takes minutes; it has tests of its own
    flags = [*FLAGS, *flags]
    assert main([*flags, "--o", "cpu/run"]) == 0
    with pretended(2) as used:
        assert main([*flags, "--o", "gpu/run", "--gpu", gpus]) == 0
    assert len(used) == (1 if gpus == "0" else 2)
    one, other = (mrc.read_map(f"{name}/run_class001.mrc")[0] for name in ("cpu", "gpu"))
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.98  # other random phases under the mask
    errors = [compare.pose_errors(f"{name}/run_data.star", "truth.star", "D2")["angle_median"] for name in ("cpu", "gpu")]
    assert max(errors) < 4, errors


def test_a_run_of_gpus_is_continued_on_the_cpu_and_back(project, monkeypatch):
    monkeypatch.setattr("aurefine.kernels._gpu_backend", lambda: reference)
    monkeypatch.chdir("one")
    flags = [*FLAGS, "--zero_mask", "--o", "run/run"]
    with pretended():
        assert main([*flags, "--auto_iter_max", "2", "--gpu", "0"]) == 0
    again = ["refine", "--o", "run/run", "--verb", "0", "--continue"]
    assert main([*again, "run/run_it002_optimiser.star", "--auto_iter_max", "3"]) == 0
    with pretended() as used:
        assert main([*again, "run/run_ct2_it003_optimiser.star", "--auto_iter_max", "4", "--gpu", "0"]) == 0
    assert used
    assert len(star.read_table(Path("run/run_it004_data.star"), "particles")["rlnAngleRot"]) == 24


def test_memory_that_a_gpu_lacks_halves_what_is_done_at_a_time(project, monkeypatch, capsys):
    def short(*arguments, **named):
        if len(arguments[4]) > 12:  # pairs of a fine pass
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return reference.score_children(*arguments, **named)

    backend = SimpleNamespace(**{**vars(reference), "score_children": short})
    for name in ("_gpu_backend", "_plain_torch"):  # it is never rounded to TF32
        monkeypatch.setattr(kernels, name, lambda: backend)
    monkeypatch.chdir("one")
    flags = [*FLAGS, "--zero_mask", "--o", "run/run", "--auto_iter_max", "2"]
    flags[flags.index("--verb") + 1] = "1"
    with pretended():
        assert main([*flags, "--gpu", "0"]) == 0
    assert re.search("memory is short: less is done at a time", "".join(capsys.readouterr()))


SITE = """
import contextlib, sys
sys.path.insert(0, {benchmarks!r})
import pretended_gpu, torch.distributed as dist
from aurefine import kernels
from aurefine.kernels import reference
there = contextlib.ExitStack()
there.enter_context(pretended_gpu.pretended(2))
kernels._gpu_backend = lambda: reference
begin = dist.init_process_group
dist.is_nccl_available = lambda: True
def init_process_group(backend, **named):
    print("backend", backend, flush=True)
    begin("gloo", **named)
dist.init_process_group = init_process_group
"""


@pytest.mark.parametrize("gpus, backend", [("0:1", "cpu:gloo,cuda:nccl"), ("0", "gloo")])
def test_two_processes_on_gpus_end_as_one_on_the_cpu(project, tmp_path, gpus, backend):
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(SITE.format(benchmarks=str(Path(__file__).parents[1] / "benchmarks")))
    paths = [str(tmp_path / "site"), str(Path(__file__).parents[1])]
    flags = [*FLAGS, "--zero_mask", "--o", "run/run", "--gpu", gpus, "--processes", "2"]
    command = [sys.executable, "-m", "aurefine", *flags]
    done = subprocess.run(command, cwd="one", env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"backend {backend}" in done.stdout
    assert compare.pose_errors("one/run/run_data.star", "one/truth.star", "D2")["angle_median"] < 4
