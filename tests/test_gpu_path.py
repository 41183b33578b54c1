"""The E-step's GPU path (Triton kernels, torch selection) finds what the CPU path finds; in Triton's interpreter where there is no GPU."""

import math
import os
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from pretended_gpu import pretended

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels are defined, so it must stand before their import
pytest.importorskip("triton", reason="Triton is not installed: it is only made for Linux, and only GPUs need it")

from aurefine import kernels, molecule, particles, simulate  # noqa: E402
from aurefine.errors import InputError  # noqa: E402
from aurefine.imaging import Camera, Imaging  # noqa: E402
from aurefine.refine import devices, expectation, image_cache, loop, planning, start  # noqa: E402
from aurefine.refine.console import Console  # noqa: E402
from aurefine.refine.lanes import lanes_of  # noqa: E402
from aurefine.refine.options import RefineOptions  # noqa: E402
from aurefine.refine.plan import Grid  # noqa: E402
from aurefine.refine.state import Poses  # noqa: E402


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """(state, data, options, console) of a tiny set before its first iteration."""
    folder = tmp_path_factory.mktemp("gpu")
    made = simulate.simulate(molecule.generate("D2", seed=1), folder, Imaging(4, (Camera(14.16, 16),), snr=20.0, reference_resolution=40, seed=1))
    options = RefineOptions(
        reference=str(made.reference), symmetry="D2", ctf_correction=True, zero_mask=True, norm_correction=True, scale_correction=True,
        initial_lowpass=40, healpix_order=1, offset_range_pixels=1, offset_step_pixels=1, adaptive_fraction=0.5,
        particle_diameter=made.particle_diameter, random_seed=1,
    )  # fmt: skip
    table, console = particles.load(str(folder / "particles.star")), Console(verbosity=0)
    options = loop._complete(options, options.reference, table)
    state, data = start.start(table, options, None, console, lanes_of(1))
    return state, data, options, console


def _run(plan, volume, state, data, options, device):
    grid = Grid(plan.sampling)
    new = Poses(*(np.array(getattr(state.poses, name)) for name in Poses.__dataclass_fields__))
    work = expectation.Expectation(plan, grid, state.halves[0], volume.to(device), data.particles, data.cache, options, 1)
    with kernels.product_precision(torch.device(device), plan.rounds_products):
        return work.run([data.order[0]], state.poses, new, lambda count: None), new


@pytest.mark.parametrize("kind", ["global", "local", "correlation", "rounded to TF32", "local, rounded to TF32"])
def test_the_gpu_path_finds_the_same_poses_and_sums(prepared, kind):
    state, data, options, console = prepared
    state, plan, _ = loop.plan_iteration(state, data, options, console)
    (volume,) = planning.projectors(state.halves[:1], plan, options)
    sampling = replace(plan.sampling, local=True, sigma_angle=20.0) if "local" in kind else plan.sampling
    plan = replace(plan, sampling=sampling, correlation=kind == "correlation", reduced_precision="TF32" in kind, least_share=0.0)
    expected, poses = _run(plan, volume, state, data, options, "cpu")
    with pretended() if DEVICE == "cpu" else nullcontext():
        found, found_poses = _run(plan, volume, state, data, options, "cuda")
    for name in Poses.__dataclass_fields__:
        np.testing.assert_allclose(getattr(found_poses, name), getattr(poses, name), rtol=1e-3, atol=1e-3, err_msg=name)
    for name in ("sigma2", "scale_cross", "scale_power", "direction", "weight", "norm", "offset", "pmax", "log_likelihood"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-3, err_msg=name)
    one, other = found.accumulator.combined().cpu(), expected.accumulator.combined()
    assert torch.linalg.vector_norm(one - other) < 1e-4 * torch.linalg.vector_norm(other)


@pytest.mark.parametrize("room", [True, False])
def test_images_are_copied_once_to_a_gpu_that_has_room_for_them(prepared, room, monkeypatch):
    _, data, _, _ = prepared
    sizes = []
    monkeypatch.setattr(devices, "has_room", lambda device, size: sizes.append(size) or room)
    cache = image_cache.ImageCache(data.particles)
    gpu = torch.device("meta")  # stands for one: it keeps no values
    found = cache.on(0, gpu)
    assert found is cache.on(0, gpu)
    assert found.device.type == "meta" and found.shape == cache.stacks[0].shape if room else found is None
    assert sizes == [2 * math.prod(cache.stacks[0].shape)]  # float16
    assert cache.on(0, torch.device("cpu")) is None


@pytest.mark.skipif(DEVICE == "cuda", reason="this machine has a GPU")
def test_a_missing_gpu_is_told():
    for gpu in (None, "", "4:5"):
        assert devices.of_halves(RefineOptions(gpu=gpu)) == (torch.device("cpu"), torch.device("cpu"))
    assert devices.missing(RefineOptions()) is None
    assert "no CUDA GPU was found" in str(devices.missing(RefineOptions(gpu="")))


def test_a_gpu_that_is_not_among_those_there_are_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match="this machine has GPUs 0 to 1, there is no GPU 4"):
        devices.of_halves(RefineOptions(gpu="4:5"))
    assert devices.of_halves(RefineOptions(gpu="")) == (torch.device("cuda", 0), torch.device("cuda", 1))
    assert devices.missing(RefineOptions(gpu="0")) is None
