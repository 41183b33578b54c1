"""Particles made on the GPU for `gpu_check.py`: thousands of large images in seconds, written as a RELION project's files.

They are projected by aurefine's own kernels and have plain white noise, so that they serve to time a refinement and to see that it converges. For
accuracy, `datasets.py` makes particles by another way than the refinement's projector.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from aurefine import ctf_torch, euler, kernels, mask, molecule, mrc, simulate
from aurefine.fourier import PixelList, pixel_list
from aurefine.imaging import Camera, Imaging, Truth, draw_truth
from aurefine.kernels import Volume
from aurefine.optics import OpticsGroup
from aurefine.particles import CtfTable
from aurefine.refine import transforms_torch
from aurefine.refine.plan import Geometry, slice_matrices

_PADDING = 2.0


class _Bench:
    """Where the particles stand: the molecule's projector, their poses, the microscope."""

    def __init__(self, density: np.ndarray, imaging: Imaging, truth: Truth, device: torch.device) -> None:
        camera = imaging.cameras[0]
        self.imaging, self.truth, self.device, self.box, self.pixel_size = imaging, truth, device, camera.box, camera.pixel_size
        self.volume: Volume = transforms_torch.projector(density, camera.box // 2, _PADDING, 0, device)
        self.pixels: PixelList = pixel_list(camera.box, camera.box, camera.pixel_size)
        self.geometry = Geometry(camera.box, camera.pixel_size, 1.0, np.eye(2))
        self.optics = OpticsGroup(
            "", 1, imaging.voltage, imaging.spherical_aberration, imaging.amplitude_contrast, camera.pixel_size, camera.box,
        )  # fmt: skip
        zero, one = np.zeros(imaging.particles), np.ones(imaging.particles)
        self.defocus = CtfTable(*truth.defocus.T, zero, one, zero)
        axis = np.flatnonzero((self.pixels.x == 0) & (self.pixels.y > 0))  # their mates are not in the list
        self._axis = torch.from_numpy(axis).to(device)
        self._mates = torch.from_numpy((camera.box - self.pixels.y[axis].astype(np.int64)) * (camera.box // 2 + 1)).to(device)

    def signals(self, rows: np.ndarray) -> torch.Tensor:
        """Images float32 [k, box, box] without noise."""
        pixels = self.pixels
        values = kernels.project(self.volume, slice_matrices(euler.to_matrix(self.truth.angles[rows]), self.volume, self.geometry), pixels)
        values = values * ctf_torch.evaluate(self.defocus, rows, self.optics, pixels.frequency_x, pixels.frequency_y, self.device)
        moved = torch.from_numpy((-2 * np.pi * self.truth.origins[rows] / (self.box * self.pixel_size)).astype(np.float32)).to(self.device)
        values = values * kernels.shift_phases(moved, pixels) * torch.from_numpy(pixels.sign).to(self.device)
        full = torch.zeros((len(rows), self.box * (self.box // 2 + 1)), dtype=torch.complex64, device=self.device)
        full[:, torch.from_numpy(pixels.flat).to(self.device)] = values
        full[:, self._mates] = values[:, self._axis].conj()
        return torch.fft.irfft2(full.view(len(rows), self.box, -1), s=(self.box, self.box), norm="forward")


def simulated(point_group: str, folder: Path, imaging: Imaging, device: torch.device) -> dict[str, Any]:
    """Write a set (one camera) into `folder`; returns what `datasets.ensure` tells of one."""
    source, camera = molecule.generate(point_group, seed=1), imaging.cameras[0]
    diameter = 1.1 * source.diameter
    (folder / "Particles").mkdir(parents=True, exist_ok=True)
    truth = draw_truth(imaging)
    bench = _Bench(source.density(camera.box, camera.pixel_size, imaging.b_factor, single=True), imaging, truth, device)
    distance = torch.from_numpy(np.array(mask.radius_grid(camera.box, 2))).to(device) * camera.pixel_size
    inside = distance <= diameter / 2
    scale = float(torch.sqrt(imaging.snr / bench.signals(np.arange(min(100, imaging.particles)))[:, inside].var(1).mean()))
    noise = torch.Generator(device).manual_seed(imaging.seed)
    for micrograph in range(int(truth.micrograph[-1]) + 1):
        rows = np.flatnonzero(truth.micrograph == micrograph)
        strength = torch.from_numpy((scale * truth.grey_scale[rows]).astype(np.float32)).to(device)
        images = bench.signals(rows) * strength[:, None, None]
        images += torch.randn(images.shape, generator=noise, device=device)
        background = images[:, ~inside]
        images = (images - background.mean(1)[:, None, None]) / background.std(1)[:, None, None]
        mrc.write_stack(folder / simulate.stack_name(micrograph), images.cpu().numpy(), camera.pixel_size, float16=True)
    simulate.write_maps(source, folder, imaging, scale, camera)
    simulate.write_star(folder / "particles.star", imaging, truth, with_poses=False)
    simulate.write_star(folder / "truth.star", imaging, truth, with_poses=True)
    return {"name": folder.name, "point_group": point_group, "particle_diameter": round(diameter), "particles": imaging.particles, "box": camera.box,
            "pixel_size": camera.pixel_size, "snr": imaging.snr, "star": "particles.star", "reference": "reference.mrc",
            "truth_star": "truth.star"}  # fmt: skip


def exposure(particles: int, box: int, pixel_size: float, snr: float, seed: int) -> Imaging:
    """What a set of that size is imaged with: the defocus and grey scales of `datasets.py`."""
    return Imaging(particles, (Camera(pixel_size, box),), snr=snr, float16=True, seed=seed)
