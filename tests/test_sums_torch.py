"""The M-step and the projector by plain torch, as on a GPU, give what the compiled passes for the CPU give; on CPU tensors where there is no GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aurefine.kernels import Accumulator
from aurefine.refine import backprojection, devices, reconstruct, transforms, transforms_torch
from aurefine.symmetry import point_group

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BOX = 20


def accumulator(padding: float, r_max: int, seed: int, device: torch.device) -> Accumulator:
    """Sums of a made-up half-set: anything inside the sphere, weights that are never negative, a few voxels without any."""
    rng = np.random.default_rng(seed)
    empty = Accumulator.empty(r_max, padding, 2, "cpu")
    values = rng.standard_normal(empty.data.shape).astype(np.float32)
    values[..., 2] = np.abs(values[..., 2]) * (rng.random(values.shape[:-1]) > 0.05)
    h = empty.half
    axis = np.arange(-h, h + 1) ** 2
    outside = axis[:, None, None] + axis[None, :, None] + axis[None, None, h:] > int(padding * r_max + 0.5) ** 2
    values[:, outside] = 0
    return Accumulator(torch.from_numpy(values).to(device), r_max, padding)


def on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "compiled", lambda device: False)


def same(found: object, expected: object, tolerance: float = 2e-5) -> None:
    one, other = (x.numpy(force=True) if isinstance(x, torch.Tensor) else np.asarray(x) for x in (found, expected))
    assert one.shape == other.shape
    assert np.linalg.norm(one - other) <= tolerance * np.linalg.norm(other)


def maximised(group: str, padding: float, r_max: int, device: torch.device) -> list[object]:
    """Everything that an M-step makes of two half-sets' sums."""
    operators = point_group(group).operators
    halves = [backprojection.collect(accumulator(padding, r_max, seed, device), operators, BOX) for seed in (1, 2)]
    alone = reconstruct.reconstruct(halves[0], None, 1.0, 0)
    shared = backprojection.mean(*(backprojection.low_resolution(half, 4) for half in halves))
    for half in halves:
        backprojection.join_low_resolution(half, shared, 4)
    small = [backprojection.downsampled(half) for half in halves]
    fsc = backprojection.gold_standard_fsc(small[0], small[1], r_max, BOX)
    prior = reconstruct.prior_from_fsc(halves[1], np.linspace(1, -0.1, BOX // 2 + 1), 1.0, joined=False)
    with_prior = reconstruct.reconstruct(halves[1], prior, 1.0, 3)
    gridded = reconstruct.reconstruct(halves[1], prior, 1.0, 3, gridding=4)
    return [halves[0].data, halves[0].weight, small[0], fsc, alone, with_prior, gridded, prior.tau2, prior.sigma2, prior.coverage]


@pytest.mark.parametrize(("group", "padding", "r_max"), [("D2", 2.0, 7), ("C3", 2.0, 7), ("O", 1.0, 10), ("I1", 2.0, 10), ("C1", 1.0, 9)])
def test_an_m_step_on_a_device_gives_what_one_on_the_cpu_gives(group, padding, r_max, monkeypatch):
    expected = maximised(group, padding, r_max, torch.device("cpu"))
    on_device(monkeypatch)
    monkeypatch.setattr(transforms_torch, "_VOXELS", 2000)  # several stretches of planes
    for found, wanted in zip(maximised(group, padding, r_max, DEVICE), expected, strict=True):
        same(found, wanted)


@pytest.mark.parametrize(("padding", "r_max", "left_out"), [(2.0, 7, 0), (2.0, 10, 3), (1.0, 10, 0), (1.0, 9, 2), (1.5, 10, 0)])
def test_a_projector_made_on_a_device_is_that_of_the_cpu(padding, r_max, left_out):
    volume = np.random.default_rng(3).standard_normal((BOX, BOX, BOX)).astype(np.float32)
    expected = transforms.projector(volume, r_max, padding, left_out)
    found = transforms_torch.projector(volume, r_max, padding, left_out, DEVICE)
    assert (found.r_max, found.padding, found.data.device.type) == (expected.r_max, expected.padding, DEVICE.type)
    same(found.data, expected.data)


def test_sums_come_to_the_host_where_a_gpu_has_no_room_for_an_m_step(monkeypatch):
    class OnGpu:
        """Stands for sums on a GPU."""

        device = torch.device("cuda", 0)

        def numel(self) -> int:
            return 1000

        def cpu(self) -> str:
            return "on the host"

    for free, outcome in ((10_000, "on the host"), (100_000, None)):
        monkeypatch.setattr(devices, "free_memory", lambda device, free=free: free)
        sums = [Accumulator(OnGpu(), 5, 1.0) for _ in range(2)]  # type: ignore[arg-type]
        devices.maximised(sums)
        assert all((each.data if isinstance(each.data, str) else None) == outcome for each in sums)
