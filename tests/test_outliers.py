"""Images without the particle are left out of the sums by what the map finds in them; without such images nothing changes."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aurefine import molecule, mrc, particles, simulate, star
from aurefine.imaging import Camera, Imaging
from aurefine.refine import checkpoint, outliers
from aurefine.refine.console import Console
from aurefine.refine.loop import refine
from aurefine.refine.options import RefineOptions
from aurefine.refine.rejection import REASON
from aurefine.refine.result import Result

BOX, PIXEL_SIZE, COUNT, NOISE = 32, 9.0, 240, 8


def test_only_values_far_below_those_of_the_same_optics_group_and_defocus_are_outliers():
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1], 500)
    defocus = rng.uniform(8000, 20000, 1000)
    values = np.where(group == 0, 1.0, 3.0) * (1 + (defocus - 14000) / 30000 + 0.05 * rng.normal(size=1000))
    assert not outliers.are_outliers(values, defocus, group).any()
    values[[3, 700]] = 0.2, 0.9  # 0.9 would be usual in the other group
    values[[4, 701]] = 2.5, 9.0  # too much of it is not poor
    assert np.flatnonzero(outliers.are_outliers(values, defocus, group)).tolist() == [3, 700]


def test_a_long_tail_of_poor_images_widens_the_limit():
    rng = np.random.default_rng(0)
    values = np.where(rng.uniform(size=1000) < 0.6, 1 + 0.05 * rng.normal(size=1000), rng.uniform(0.3, 1, 1000))
    assert not outliers.are_outliers(values, np.zeros(1000), np.zeros(1000, int)).any()


def test_half_of_the_usual_signal_is_never_an_outlier_and_few_particles_are_not_judged():
    values = 1 + 0.001 * np.random.default_rng(0).normal(size=200)
    values[:2] = 0.6, 0.4
    zero = np.zeros(200, int)
    assert np.flatnonzero(outliers.are_outliers(values, zero, zero)).tolist() == [1]
    assert not outliers.are_outliers(values[:40], zero[:40], zero[:40]).any()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Particles, a few of them noise, in the folder `bad`; the good ones of them in good.star."""
    folder = tmp_path_factory.mktemp("outliers")
    imaging = Imaging(particles=COUNT, cameras=(Camera(PIXEL_SIZE, BOX),), particles_per_micrograph=40, snr=3.0, pure_noise=NOISE)
    simulate.simulate(molecule.generate("D2", seed=1), folder, imaging)
    return folder


def noise_images(folder: Path) -> set[str]:
    truth = star.read_table(folder / "truth.star", "particles")
    return set(truth["rlnImageName"][truth["rlnClassNumber"] == simulate.OUTLIER])


def run(path: str, root: str, **changed) -> tuple[Result, str]:
    options = RefineOptions(
        output=root, symmetry="D2", initial_lowpass=50.0, particle_diameter=200.0, ctf_correction=True, zero_mask=True, flatten_solvent=True,
        norm_correction=True, scale_correction=True, join_halves_resolution=40.0, random_seed=1, healpix_order=1, offset_range_pixels=3,
        ignore_angle_changes=True, sampling_from_resolution=True,
    )  # fmt: skip
    printed = io.StringIO()
    result = refine(particles.load(path), "reference.mrc", replace(options, **changed), console=Console(printed, printed))
    return result, printed.getvalue()


def test_noise_images_are_set_aside_listed_and_left_out_of_the_final_files(project, tmp_path, monkeypatch):
    monkeypatch.chdir(project)
    result, printed = run("particles.star", str(tmp_path / "run"), max_iterations=8, maximum_angular_sampling=8.0)
    listed = star.read_table(tmp_path / "run_rejected.star", "particles")
    final = star.read_table(tmp_path / "run_data.star", "particles")
    assert result.state.progress.has_converged
    assert set(listed["rlnImageName"]) == noise_images(project) and set(listed[REASON]) == {outliers.REASON}
    assert final.count == len(result.poses.angles) == COUNT - NOISE and not set(final["rlnImageName"]) & noise_images(project)
    assert f"Outliers: {NOISE} of {COUNT} particles" in printed and f"{NOISE} of {COUNT} particles set aside: hardly any signal" in printed
    assert result.rejected is not None and result.rejected.count == NOISE
    last = star.read_table(tmp_path / f"run_it{result.state.progress.iteration - 1:03d}_data.star", "particles")
    marked = last["rlnNrOfSignificantSamples"] == 0
    assert last.count == COUNT and set(last["rlnImageName"][marked]) == noise_images(project)  # still aligned, and free to come back


def test_a_continued_run_sets_the_same_particles_aside_and_makes_the_same_map(project, tmp_path, monkeypatch):
    monkeypatch.chdir(project)
    through, _ = run("particles.star", str(tmp_path / "run"), max_iterations=3)
    found = checkpoint.load(tmp_path / "run_it002_optimiser.star")
    options, _ = checkpoint.continued_options(found, {"max_iterations": 3, "scale_correction": True, "output": str(tmp_path / "on/run")})
    options = replace(options, initial_lowpass=50.0, healpix_order=1, ignore_angle_changes=True, sampling_from_resolution=True, verbosity=0)
    state = checkpoint.continued_state(found, options, {})
    again = refine(particles.load(found.particles), None, options, state=state)
    assert np.array_equal(again.poses.significant == 0, through.poses.significant == 0) and (again.poses.significant == 0).sum() == NOISE
    assert np.corrcoef(again.map.ravel(), through.map.ravel())[0, 1] > 0.9999


def test_what_is_left_out_is_in_no_sum(project, tmp_path, monkeypatch):
    shutil.copytree(project, tmp_path / "loud")
    monkeypatch.chdir(tmp_path / "loud")
    loud, path = np.array([3, 8, 21]), "Particles/micrograph_0001.mrcs"
    images = mrc.Stack(path).read(np.arange(40))
    images[loud] *= 3.5
    mrc.write_stack(path, images, PIXEL_SIZE)
    tables = star.read("particles.star")
    table = tables["particles"].with_columns({"rlnRandomSubset": 1 + np.arange(COUNT) // 2 % 2})
    star.write("all.star", [tables["optics"], table])
    star.write("quiet.star", [tables["optics"], table.select(np.setdiff1d(np.arange(COUNT), loud))])
    run("quiet.star", "first/run", max_iterations=1)
    same = {"initial_noise_spectrum": "first/run_it000_half1_model.star", "max_iterations": 1, "norm_correction": False}
    quiet, _ = run("quiet.star", "", **same)
    used, _ = run("all.star", "", **same)
    monkeypatch.setattr(outliers, "find", lambda poses, loaded, iteration, tell: np.isin(np.arange(loaded.count), loud))
    left_out, _ = run("all.star", "", **same)
    assert np.flatnonzero(outliers.are_marked(left_out.poses)).tolist() == loud.tolist()
    assert (left_out.poses.signal_fit[loud] > 0).all()  # scored all the same
    for half in (0, 1):
        one, other = left_out.state.halves[half], quiet.state.halves[half]
        assert one.average_pmax == pytest.approx(other.average_pmax, rel=1e-6)
        assert one.log_likelihood == pytest.approx(other.log_likelihood, rel=1e-9)
        # what follows is summed over samples that are drawn by lot, and lots go by the particle's row
        assert one.sigma2_offset == pytest.approx(other.sigma2_offset, rel=1e-2)
        assert np.allclose(one.sigma2_noise, other.sigma2_noise, rtol=5e-3) and np.allclose(one.group_scale, other.group_scale, rtol=1e-2)
        assert np.corrcoef(one.map.ravel(), other.map.ravel())[0, 1] > 0.999
    second = table["rlnRandomSubset"][loud[0]] - 1
    assert not np.allclose(used.state.halves[second].sigma2_noise, quiet.state.halves[second].sigma2_noise, rtol=0.02)


def test_nothing_changes_where_there_are_no_outliers(project, tmp_path, monkeypatch):
    monkeypatch.chdir(project)
    tables, noise = star.read("particles.star"), noise_images(project)
    good = [name not in noise for name in tables["particles"]["rlnImageName"]]
    star.write("good.star", [tables["optics"], tables["particles"].select(np.array(good))])
    judged, printed = run("good.star", "", max_iterations=3)
    monkeypatch.setattr(outliers, "find", lambda poses, loaded, iteration, tell: np.zeros(loaded.count, bool))
    unjudged, _ = run("good.star", "", max_iterations=3)
    assert "Outliers" not in printed and np.array_equal(judged.map, unjudged.map)


def test_more_than_a_tenth_are_used_and_told_of(project, monkeypatch):
    monkeypatch.chdir(project)
    loaded = particles.load("particles.star")
    told: list[str] = []
    state = run("particles.star", "", max_iterations=1)[0].state
    fit = np.where(np.arange(COUNT) % 8 == 0, 0.01, 1 + 0.01 * np.random.default_rng(0).normal(size=COUNT))
    assert not outliers.find(replace(state.poses, signal_fit=fit), loaded, 2, told.append).any()
    assert len(told) == 1 and "too many to be outliers" in told[0]
