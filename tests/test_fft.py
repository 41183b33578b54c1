"""Transforms are scipy's, however they were loaded; short jobs start without what they do not need."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import extraction_project
import numpy as np
import pytest
import scipy.fft
import star_samples as samples

from aurefine import fft, mrc
from aurefine.threads import at_once

SHAPES = [(6, 8, 10), (5, 7, 9), (3, 4, 5)]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(fft.__file__).parents[1])}  # this copy, whatever is installed
HEAVY = ("torch", "numba", "matplotlib", "scipy.fft", "scipy.spatial", "aurefine.refine.options")


@pytest.fixture(params=["compiled part", "public functions"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "public functions":
        monkeypatch.setattr(fft, "_pocketfft", fft._PublicFunctions)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("norm", [None, "forward"])
@pytest.mark.parametrize("axes", [None, (1, 2), (0,)])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_real_transforms_are_those_of_scipy(shape, norm, axes, kind):
    values = np.random.default_rng(0).standard_normal(shape).astype(kind)
    found = fft.rfftn(values, axes=axes, norm=norm, workers=2)
    expected = scipy.fft.rfftn(values, axes=axes, norm=norm)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    lengths = tuple(shape[axis] for axis in axes or (0, 1, 2))
    back = fft.irfftn(found, lengths, axes=axes, norm=norm)
    assert back.dtype == kind
    np.testing.assert_allclose(back, values, atol=1e-6)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("norm", [None, "forward"])
def test_complex_transforms_are_those_of_scipy(norm):
    rng = np.random.default_rng(1)
    values = (rng.standard_normal((6, 8)) + 1j * rng.standard_normal((6, 8))).astype(np.complex64)
    for ours, theirs in ((fft.fft, scipy.fft.fft), (fft.ifft, scipy.fft.ifft)):
        np.testing.assert_array_equal(ours(values, axis=0, norm=norm), theirs(values, axis=0, norm=norm))
        np.testing.assert_array_equal(ours(values.copy(), axis=1, norm=norm, overwrite_x=True), theirs(values, axis=1, norm=norm))


def test_a_transform_of_another_length_is_refused():
    with pytest.raises(ValueError, match="none of a real array"):
        fft.irfftn(np.zeros((4, 4), np.complex64), (4, 8))


@pytest.mark.parametrize("loaded_first", ["aurefine.fft", "scipy.fft"])
def test_scipy_and_aurefine_share_pocketfft(loaded_first):
    other = "scipy.fft" if loaded_first == "aurefine.fft" else "aurefine.fft"
    code = (f"import {loaded_first}, aurefine.fft, numpy; aurefine.fft.rfftn(numpy.ones((4, 4))); import {other}, scipy.fft\n"
            "print(aurefine.fft._pocketfft() is scipy.fft._pocketfft.basic.pfft, scipy.fft.rfft(numpy.ones(4))[0].real)")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert done.stdout.split() == ["True", "4.0"]


def test_only_one_thread_loads_the_transforms(monkeypatch):
    loaded, inside, together = fft._loaded(), [], []

    def slowly():
        inside.append(1)
        together.append(len(inside))
        time.sleep(0.01)
        inside.pop()
        return loaded

    monkeypatch.setattr(fft, "_loaded", slowly)
    at_once(*[lambda: fft.rfftn(np.ones((4, 4)))] * 4)
    assert together == [1] * 4


@pytest.mark.parametrize("command", ["image_handler --i map.mrc --lowpass 5 --rescale_angpix 2 --o out.mrc",
                                     "mask_create --i map.mrc --lowpass 5 --width_soft_edge 2 --o mask.mrc",
                                     "postprocess --i half1.mrc --o post --auto_bfac --autob_lowres 6",
                                     "extract --i ctf.star --coord_list autopick.star --extract_size 64 --scale 32 --norm --bg_radius 12",
                                     "select --i particles.star --o chosen.star --remove_duplicates 20",
                                     "star --i particles.star --o more.star --operate rlnAngleRot --add_to 1"])  # fmt: skip
def test_short_jobs_start_without_what_they_do_not_need(command, tmp_path):
    extraction_project.make_project(tmp_path)
    samples.write(tmp_path / "particles.star", samples.optics(["g"]), samples.particle_rows(9, [1], "A", seed=1))
    rng = np.random.default_rng(2)
    for name in ("map", "half1", "half2"):
        mrc.write_map(tmp_path / f"{name}.mrc", rng.standard_normal((16, 16, 16)), 1.0)
    code = (f"import sys; from aurefine.cli.main import main; code = main({command.split()!r})\n"
            f"print([name for name in {HEAVY!r} if name in sys.modules]); sys.exit(code)")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
