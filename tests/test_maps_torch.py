"""An M-step makes the same of its maps (masked FSC, filters, flattening) on a GPU as on the CPU; on CPU tensors where there is no GPU."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from aurefine import fourier, fsc, mask, molecule, particles, simulate
from aurefine.imaging import Camera, Imaging
from aurefine.refine import devices, expectation, loop, maps_torch, maximisation, plan, planning, start, transforms_torch
from aurefine.refine.console import Console
from aurefine.refine.lanes import lanes_of
from aurefine.refine.maximisation import Masks
from aurefine.refine.options import RefineOptions
from aurefine.refine.plan import Grid

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BOX = 24


@pytest.fixture(autouse=True)
def several_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transforms_torch, "_VOXELS", 2000)  # of planes, where a volume is worked on in parts


@pytest.fixture
def half_maps() -> tuple[np.ndarray, np.ndarray]:
    """Two maps of the same thing whose FSC falls through 0.8."""
    rng = np.random.default_rng(1)
    signal = 8 * fourier.low_pass(rng.standard_normal((BOX, BOX, BOX)).astype(np.float32), 1.0, 5.0) * mask.soft_edge(BOX, 3, 7.0, 3.0)
    one, other = (signal + rng.standard_normal(signal.shape).astype(np.float32) for _ in range(2))
    return one, other


def on_device(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values).to(DEVICE)


def same(found: object, expected: object, tolerance: float = 2e-5) -> None:
    one, other = (x.numpy(force=True) if isinstance(x, torch.Tensor) else np.asarray(x) for x in (found, expected))
    assert one.shape == other.shape
    assert np.linalg.norm(one - other) <= tolerance * np.linalg.norm(other)


def test_filters_and_spectra_on_a_device_are_those_of_the_cpu(half_maps):
    volume = half_maps[0]
    low = maps_torch.low_pass(on_device(volume), 2.0, 9.0)
    assert low.device.type == DEVICE.type and low.dtype == torch.float32
    same(low, fourier.low_pass(volume, 2.0, 9.0))
    assert np.linalg.norm(low.numpy(force=True)) < 0.9 * np.linalg.norm(volume)
    same(maps_torch.power_spectrum(volume, DEVICE), fourier.power_spectrum(volume))
    same(maps_torch.of_maps(*map(on_device, half_maps)), fsc.of_maps(*half_maps))


def test_a_masked_fsc_on_a_device_is_that_of_the_cpu_but_for_its_random_numbers(half_maps, monkeypatch):
    weight = np.array(mask.soft_edge(BOX, 3, 7.0, 3.0))
    expected = fsc.mask_corrected(*half_maps, weight, seed=5)
    assert 1 < expected.randomised_from < BOX // 2 - 3
    own = maps_torch.mask_corrected(*map(on_device, half_maps), weight, seed=5)
    assert own.randomised_from == expected.randomised_from
    for name in ("unmasked", "masked"):
        same(getattr(own, name), getattr(expected, name))
    again, other = (maps_torch.mask_corrected(*map(on_device, half_maps), weight, seed=seed) for seed in (5, 6))
    np.testing.assert_allclose(again.randomised, own.randomised, atol=1e-6)
    assert np.abs(other.randomised - own.randomised).max() > 1e-3  # as far from each other as chance takes them
    rng = np.random.default_rng(5)
    drawn = lambda n, generator: on_device(rng.standard_normal((n, n, n), dtype=np.float32))  # noqa: E731
    monkeypatch.setattr(maps_torch, "_white", drawn)
    found = maps_torch.mask_corrected(*map(on_device, half_maps), weight, seed=5)
    same(found.randomised, expected.randomised)
    same(found.corrected, expected.corrected)


def test_without_any_signal_beyond_a_device_returns_the_plain_fsc(half_maps):
    one = on_device(half_maps[0])
    found = maps_torch.mask_corrected(one, one, np.ones((BOX, BOX, BOX), np.float32), seed=1)
    assert found.randomised_from == -1
    np.testing.assert_allclose(found.corrected, 1, atol=1e-6)


@pytest.mark.parametrize("given", [(), ("solvent",), ("solvent", "second_solvent"), ("low_pass",), ("solvent", "second_solvent", "low_pass")])
@pytest.mark.parametrize("flattened", [True, False])
def test_flattening_on_a_device_is_that_of_the_cpu(half_maps, given, flattened):
    rng = np.random.default_rng(2)
    masks = Masks(**{name: rng.random((BOX, BOX, BOX), dtype=np.float32) for name in given})
    options = RefineOptions(particle_diameter=28.0, mask_edge_pixels=3, flatten_solvent=flattened, lowpass_mask_resolution=10.0)
    expected = maximisation.flatten(half_maps[0], 2.0, masks, options)
    found = maximisation.flatten(on_device(half_maps[0]), 2.0, masks, options)
    assert found.device.type == DEVICE.type and found.dtype == torch.float32 and expected.dtype == np.float32
    same(found, expected)
    assert np.array_equal(expected, half_maps[0]) == (not given or given == ("solvent",)) * (not flattened)


# ---------------------------------------------------------------------- an M-step with all of it
@pytest.fixture(scope="module")
def expected_sums(tmp_path_factory: pytest.TempPathFactory):
    """(state, plan, both halves' sums, options) of an iteration of a tiny set, with a mask."""
    folder = tmp_path_factory.mktemp("maps")
    made = simulate.simulate(molecule.generate("D2", seed=1), folder, Imaging(8, (Camera(14.16, 16),), snr=20.0, reference_resolution=40, seed=1))
    options = RefineOptions(
        reference=str(made.reference), symmetry="D2", ctf_correction=True, zero_mask=True, norm_correction=True, scale_correction=True,
        initial_lowpass=40, healpix_order=1, offset_range_pixels=1, offset_step_pixels=1, adaptive_fraction=0.5, flatten_solvent=True,
        particle_diameter=made.particle_diameter, random_seed=1,
    )  # fmt: skip
    table, console = particles.load(str(folder / "particles.star")), Console(verbosity=0)
    options = loop._complete(options, options.reference, table)
    state, data = start.start(table, options, None, console, lanes_of(1))
    state, now, volumes = loop.plan_iteration(state, data, options, console)
    sums = []
    for half in range(2):
        volume = volumes[half] or planning.projectors((state.halves[half],), now, options)[0]
        work = expectation.Expectation(now, Grid(now.sampling), state.halves[half], volume, data.particles, data.cache, options, 1)
        sums.append(work.run([data.order[half]], state.poses, state.poses.copied(), lambda count: None))
    return state, now, sums, options


@pytest.mark.parametrize("kind", ["middle", "correlation", "last", "joined"])
def test_an_m_step_with_a_solvent_mask_on_a_device_gives_what_one_on_the_cpu_gives(expected_sums, kind, monkeypatch):
    state, now, sums, options = expected_sums
    now = replace(now, correlation=kind == "correlation", final=kind == "last")
    options = replace(options, solvent_correct_fsc=True, join_random_halves=kind == "joined")
    masks = Masks(solvent=np.array(mask.soft_edge(16, 3, 5.0, 2.0)))
    rng = np.random.default_rng(abs(options.random_seed) + now.iteration)
    monkeypatch.setattr(maps_torch, "_white", lambda n, generator: on_device(rng.standard_normal((n, n, n), dtype=np.float32)))

    def maximised(device: torch.device) -> maximisation.Maximised:
        given = copy.deepcopy(sums)  # an M-step uses them up
        for each in given:
            each.accumulator.data = each.accumulator.data.to(device)
        return maximisation.maximise(state.halves, given, now, masks, 1 / 40, options, lanes_of(1))

    expected = maximised(torch.device("cpu"))
    if DEVICE.type == "cpu":  # take the GPU's way on the CPU
        monkeypatch.setattr(devices, "compiled", lambda device: False)
    found = maximised(DEVICE)
    assert len(found.models) == len(expected.models) and len(found.unfiltered) == len(expected.unfiltered) == 2
    for one, other in zip((*found.unfiltered, *(model.map for model in found.models)), (*expected.unfiltered, *(m.map for m in expected.models)),
                          strict=True):  # fmt: skip
        assert isinstance(one, np.ndarray) and one.dtype == np.float32 and one.flags.writeable
        same(one, other, 1e-4)
    for name in ("fsc", "tau2", "data_vs_prior"):
        same(getattr(found.models[0], name), getattr(expected.models[0], name), 1e-3)


def test_the_last_shell_with_signal_is_the_same_by_a_device(expected_sums, monkeypatch):
    state = expected_sums[0]
    expected = plan.shells_with_signal(state.halves, torch.device("cpu"))
    monkeypatch.setattr(devices, "compiled", lambda device: False)
    used = []
    real = maps_torch.power_spectrum
    monkeypatch.setattr(maps_torch, "power_spectrum", lambda volume, device: used.append(device) or real(volume, device))
    assert plan.shells_with_signal(state.halves, DEVICE) == expected > 1 and used == [DEVICE, DEVICE]
