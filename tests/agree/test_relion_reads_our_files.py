"""RELION's own programs take what we write; needs RELION (3.1 or later) on the PATH."""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aurefine import mrc, particles, star
from aurefine import sampling as grids
from aurefine.refine import writer
from aurefine.refine.options import RefineOptions
from aurefine.refine.state import Model, Poses, Progress, SamplingState, State

BOX, PIXEL_SIZE, COUNT = 32, 4.0, 24


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not on the PATH")


def relion(program: str, *arguments: str) -> str:
    """Output of one of RELION's programs; skips where it is not installed."""
    need(program)
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def relion_until(file: Path, arguments: list[str]) -> str:
    """Output of a refinement by RELION that is ended as soon as `file` is there."""
    need("mpirun", "relion_refine_mpi")
    command = ["nice", "-n", "19", "mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "3", "relion_refine_mpi", *arguments]
    with open("relion.out", "w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 300
        while process.poll() is None and not file.exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        process.terminate()
        process.wait()
    return Path("relion.out").read_text(errors="replace")


def blob() -> np.ndarray:
    """A smooth map without symmetry."""
    z, y, x = np.indices((BOX,) * 3) - BOX / 2
    return sum(np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 8) for a, b, c in ((4, 0, 0), (0, 5, 1), (-3, -2, 4))).astype(np.float32)


def write_particles() -> particles.ParticleSet:
    rng = np.random.default_rng(3)
    volume = blob()
    images = volume.sum(axis=0)[None] * 0.2 + rng.normal(size=(COUNT, BOX, BOX))
    mrc.write_stack("particles.mrcs", images.astype(np.float32), PIXEL_SIZE)
    optics = {"rlnOpticsGroup": [1], "rlnOpticsGroupName": ["opticsGroup1"], "rlnVoltage": [300.0], "rlnSphericalAberration": [2.7],
              "rlnAmplitudeContrast": [0.1], "rlnImagePixelSize": [PIXEL_SIZE], "rlnImageSize": [BOX], "rlnImageDimensionality": [2]}  # fmt: skip
    table = {
        "rlnImageName": np.array([f"{i + 1:06d}@particles.mrcs" for i in range(COUNT)], dtype=object),
        "rlnMicrographName": np.array([f"mic{i // 12}.mrc" for i in range(COUNT)], dtype=object),
        "rlnOpticsGroup": np.ones(COUNT, dtype=int),
        "rlnDefocusU": np.full(COUNT, 15000.0),
        "rlnDefocusV": np.full(COUNT, 15000.0),
        "rlnDefocusAngle": np.zeros(COUNT),
    }
    columns = {label: np.array(values, dtype=object if isinstance(values[0], str) else None) for label, values in optics.items()}
    star.write("particles.star", [star.Table("optics", columns), star.Table("particles", table)])
    return particles.load("particles.star")


def state_at(iteration: int, halves: int) -> State:
    shells = BOX // 2 + 1
    sampling = SamplingState(0, "C1", 4.0, 8.0, healpix_order_original=0, offset_range_original=4.0, offset_step_original=8.0)
    directions = len(grids.directions(0, "C1"))
    fall = np.linspace(3, -3, shells)
    model = Model(
        map=blob(), pixel_size=PIXEL_SIZE, sigma2_noise=np.full((1, shells), 0.5 / BOX**2), tau2=10.0 ** (fall - 5), data_vs_prior=10.0**fall,
        fsc=np.linspace(1, 0, shells), sigma2_reference=np.full(shells, 1e-5), fourier_coverage=np.ones(shells), orientability=np.zeros(shells),
        group_scale=np.ones(2), pdf_direction=np.full(directions, 1 / directions),
    )  # fmt: skip
    zeros = np.zeros(COUNT)
    poses = Poses(np.zeros((COUNT, 3)), np.zeros((COUNT, 2)), zeros + 1, zeros, zeros, zeros.astype(int), zeros.astype(int) + 1, zeros + 1)
    progress = Progress(iteration, 8 / (BOX * PIXEL_SIZE), 8 / (BOX * PIXEL_SIZE), 24, smallest_changes_classes=0, changes_classes=0.0)
    return State((model,) * halves, poses, sampling, progress, 1 + np.arange(COUNT) % 2)


def options() -> RefineOptions:
    return RefineOptions(particles="particles.star", output="run", reference="ref.mrc", particle_diameter=100.0, ctf_correction=True, zero_mask=True,
                         flatten_solvent=True, norm_correction=True, scale_correction=True, random_seed=1, healpix_order=0)  # fmt: skip


@pytest.fixture
def finished(tmp_path, monkeypatch) -> Path:
    """A folder with the files of a converged run."""
    monkeypatch.chdir(tmp_path)
    noisy = tuple(blob() + np.random.default_rng(seed).normal(0, 0.05, (BOX,) * 3).astype(np.float32) for seed in (1, 2))
    writer.write_final("run", replace(state_at(5, halves=1), half_maps_unfiltered=noisy), write_particles(), options())
    return tmp_path


def test_postprocessing_takes_the_half_maps(finished):
    relion("relion_mask_create", "--i", "run_class001.mrc", "--o", "mask.mrc", "--ini_threshold", "0.2")
    Path("post").mkdir()  # without Ghostscript RELION puts an empty logfile.pdf there
    text = relion("relion_postprocess", "--i", "run_half1_class001_unfil.mrc", "--mask", "mask.mrc", "--o", "post")
    assert "FINAL RESOLUTION" in text.upper() and Path("post.star").exists()


def test_the_star_handler_and_the_image_handler_take_data_and_map(finished):
    relion("relion_star_handler", "--i", "run_data.star", "--o", "half1.star", "--select", "rlnRandomSubset", "--minval", "1", "--maxval", "1")
    assert star.read_table("half1.star", "particles").count == COUNT // 2
    text = relion("relion_image_handler", "--i", "run_class001.mrc", "--stats")
    assert f"{BOX} x {BOX} x {BOX}" in text and f"angpix = {PIXEL_SIZE:g}" in text


def test_a_reconstruction_takes_the_particles(finished):
    relion("relion_reconstruct", "--i", "run_data.star", "--o", "again.mrc", "--ctf")
    assert mrc.read_map("again.mrc")[0].shape == (BOX,) * 3


def test_a_refinement_goes_on_from_our_optimiser_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    writer.write_iteration("run", 4, state_at(4, halves=2), write_particles(), options())
    Path("theirs").mkdir()
    done = Path("theirs/run_it005_optimiser.star")
    text = relion_until(done, ["--continue", "run_it004_optimiser.star", "--o", "theirs/run", "--dont_combine_weights_via_disc", "--j", "1"])
    assert " Auto-refine: Iteration= 5" in text and done.exists(), text[-2000:]
