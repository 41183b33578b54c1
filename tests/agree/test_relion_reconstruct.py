"""The map that relion_reconstruct makes of the same particles at the same poses."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest

from aurefine import fourier, fsc, molecule, mrc, particles, simulate
from aurefine.imaging import Camera, Imaging
from aurefine.reconstruction import from_poses

pytestmark = pytest.mark.skipif(shutil.which("relion_reconstruct") is None, reason="relion_reconstruct is not installed")


@pytest.mark.parametrize("gridding", [0, 10])
def test_reconstructions_agree(tmp_path, gridding):
    source = molecule.generate("D2", seed=2, shape=molecule.Shape(120, 2, (50, 45, 35)))
    made = simulate.simulate(source, tmp_path, Imaging(particles=200, cameras=(Camera(5.0, 40),), snr=0.5, seed=1))
    command = ["relion_reconstruct", "--i", made.truth.name, "--o", "relion.mrc", "--ctf", "--sym", "D2", *([] if gridding else ["--skip_gridding"])]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    theirs, pixel_size = mrc.read_map(tmp_path / "relion.mrc")
    found = particles.load(made.truth)
    ours = from_poses(found, np.arange(found.count), "D2", gridding=gridding)
    shells = slice(1, 17)
    assert pixel_size == pytest.approx(5.0, abs=1e-3)
    assert fsc.of_maps(ours, theirs)[shells].min() > 0.997
    assert np.sqrt(fourier.power_spectrum(ours) / fourier.power_spectrum(theirs))[shells] == pytest.approx(1, abs=0.03)
