from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aurefine import fsc, molecule, mrc, particles, simulate, star
from aurefine.cli.main import main
from aurefine.imaging import Camera, Imaging
from aurefine.reconstruction import from_poses

IMAGING = Imaging(particles=150, cameras=(Camera(6.0, 32), Camera(4.8, 40)), particles_per_micrograph=10, snr=2.0, grey_scale_spread=0.0, seed=3)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    source = molecule.generate("C4", seed=2, shape=molecule.Shape(120, 2, (50, 45, 35)))
    return simulate.simulate(source, tmp_path_factory.mktemp("set"), replace(IMAGING)).truth


def test_true_poses_give_the_true_map_from_optics_groups_of_different_pixels(made):
    found = particles.load(made)
    truth, _ = mrc.read_map(made.with_name("truth.mrc"))
    volume = from_poses(found, np.arange(found.count), "C4")
    assert volume.shape == truth.shape
    curve = fsc.of_maps(volume, truth)
    assert curve[1:12].min() > 0.85 and curve[1:6].min() > 0.97
    assert 0.7 < np.vdot(volume, truth).real / np.vdot(truth, truth).real < 1.1
    without = from_poses(found, np.arange(found.count), "C4", use_ctf=False, resolution=24, gridding=0)
    assert fsc.of_maps(without, truth)[1:12].mean() < curve[1:12].mean() and np.allclose(fsc.of_maps(without, truth)[12:], 0, atol=0.2)


def test_the_command_takes_half_sets_and_refuses_what_it_cannot_do(made, tmp_path, capsys, monkeypatch):
    tables = star.read(made)
    count = tables["particles"].count
    tables["particles"] = tables["particles"].with_columns({"rlnRandomSubset": 1 + np.arange(count) % 2})
    monkeypatch.chdir(made.parent)
    star.write("halves.star", tables)
    for half in ("1", "2"):
        assert main(["reconstruct", "--i", "halves.star", "--o", str(tmp_path / f"half{half}.mrc"), "--ctf", "--sym", "C4", "--subset", half]) == 0
    (one, pixel_size), (two, _) = (mrc.read_map(tmp_path / f"half{half}.mrc") for half in "12")
    assert pixel_size == pytest.approx(6.0) and 0.8 < fsc.of_maps(one, two)[5] < 1
    assert main(["reconstruct", "--i", "truth.star", "--o", str(tmp_path / "x.mrc"), "--subset", "1"]) == 2
    assert main(["reconstruct", "--i", "truth.star", "--o", str(tmp_path / "half1.mrc")]) == 2  # there already
    assert main(["reconstruct", "--i", "particles.star", "--o", str(tmp_path / "x.mrc")]) == 2
    assert "rlnAngleRot" in capsys.readouterr().err


def test_images_of_wider_boxes_give_the_same_map(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = "--n 600 --box 28,44 --angpix 9,9 --snr 50 --sym D2 --grey_scale_spread 0".split()
    assert main(["simulate", "--o", ".", *flags]) == 0
    found = particles.load("truth.star")
    truth = mrc.read_map("truth.mrc")[0]
    for group in (0, 1):
        rows = np.flatnonzero(found.optics_index == group)
        volume = from_poses(found, rows, "D2", use_ctf=True)
        assert 0.85 < np.vdot(volume, truth) / np.vdot(truth, truth) < 1.15
