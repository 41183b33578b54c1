"""ResLog finds the B-factor that particles were simulated with, and says when it cannot."""

from __future__ import annotations

import numpy as np
import pytest

from aurefine import mask, particles
from aurefine.imaging import Camera, Imaging
from aurefine.simulate import MapSource, simulate
from aurefine.validation import reslog

BOX, PIXEL_SIZE = 40, 3.0


def law(bfactor: float, resolution: np.ndarray) -> reslog.ResLog:
    """Particles of ln N = 3 + B / (2 d^2)."""
    return reslog.ResLog(np.exp(3 + bfactor / (2 * resolution**2)), resolution, 4.0)


def test_the_line_of_exact_points():
    line = reslog.fit(law(180.0, np.array([14.0, 10.0, 8.0, 6.0])))
    assert line.bfactor == pytest.approx(180) and line.bfactor_error == pytest.approx(0, abs=1e-4)
    assert line.resolution(np.exp(3 + 180 / 2 / 5.0**2)) == pytest.approx(5.0)


def test_coarse_points_and_points_at_nyquist_do_not_count():
    right = law(180.0, np.array([14.0, 10.0, 6.0]))
    curve = reslog.ResLog(np.r_[2.0, right.particles, 1e7], np.r_[40.0, right.resolution, 4.01], 4.0)
    line = reslog.fit(curve)
    assert line.used.tolist() == [False, True, True, True, False] and line.bfactor == pytest.approx(180)
    assert reslog.fit(reslog.ResLog(np.array([100, 200, 400]), np.array([9.0, 8.0, 4.0]), 4.0)) is None
    assert reslog.fit(reslog.ResLog(np.array([100, 200, 400]), np.array([8.0, 8.5, 9.0]), 4.0)) is None  # it gets worse


def test_sizes_grow_to_all_particles():
    assert reslog.sizes(800)[-1] == 800 and reslog.sizes(800)[0] >= 25 and reslog.sizes(800)[-3] == 400
    assert reslog.sizes(40_000)[-2:] == [20_000, 40_000]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """ResLog of 1200 particles at their true poses, by the B-factor they were simulated with: a ball of white density in white noise."""
    ball = mask.soft_edge(BOX, 3, 13.0, 3.0)
    white = np.random.default_rng(0).standard_normal((BOX,) * 3) * ball

    def run(bfactor: float, snr: float) -> reslog.ResLog:
        folder = tmp_path_factory.mktemp("set")
        imaging = Imaging(particles=1200, cameras=(Camera(PIXEL_SIZE, BOX),), snr=snr, b_factor=bfactor, coloured_share=0.0, grey_scale_spread=0.0,
                          offset=1.0, defocus=(9000.0, 24000.0), particles_per_micrograph=20)  # fmt: skip
        made = particles.load(simulate(MapSource(white, PIXEL_SIZE, 84.0), folder, imaging).truth)
        rows = np.random.default_rng(1).permutation(made.count)
        wide = mask.soft_edge(BOX, 3, 15.0, 4.0)
        return reslog.measure((rows[::2], rows[1::2]), lambda chosen: reslog.reconstruct(made, chosen, "C1"), wide, PIXEL_SIZE)

    return run


@pytest.mark.parametrize(("bfactor", "snr"), [(300.0, 0.02), (700.0, 0.02)])
def test_simulated_particles_have_the_bfactor_they_were_made_with(simulated, bfactor, snr):
    curve = simulated(bfactor, snr)
    used = (curve.resolution < 25) & (curve.resolution > 2.1 * PIXEL_SIZE)
    assert used.sum() >= 5
    # Besides the envelope, the slices that cross a voxel thin out with its radius: N ~ exp(B / 2 d^2) / d (Rosenthal & Henderson, eq. 3)
    slope = np.polyfit(curve.resolution[used] ** -2.0, np.log(curve.particles * curve.resolution)[used], 1)[0]
    assert 2 * slope == pytest.approx(bfactor, rel=0.15)
