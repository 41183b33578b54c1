"""Bad images are set aside and named with the reason; the others are refined as if they had been alone from the start."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from aurefine import molecule, mrc, particles, simulate, star
from aurefine.cli.main import main
from aurefine.errors import InputError
from aurefine.imaging import Camera, Imaging
from aurefine.refine import rejection
from aurefine.refine.console import Console
from aurefine.refine.examination import Examination
from aurefine.refine.image_cache import ImageCache
from aurefine.refine.inputs import Inputs
from aurefine.refine.loop import refine
from aurefine.refine.options import RefineOptions
from aurefine.refine.rejection import REASON

BOX, PIXEL_SIZE, COUNT, PER_MICROGRAPH, DIAMETER = 32, 8.0, 120, 30, 200.0


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    imaging = Imaging(particles=COUNT, cameras=(Camera(PIXEL_SIZE, BOX),), particles_per_micrograph=PER_MICROGRAPH)
    simulate.simulate(molecule.generate("D2", seed=1), folder, imaging)
    return folder


def spoil(micrograph: int, change) -> None:
    """Rewrite one stack after `change(images)`."""
    path = f"Particles/micrograph_{micrograph:04d}.mrcs"
    images = mrc.Stack(path).read(np.arange(PER_MICROGRAPH))
    change(images)
    mrc.write_stack(path, images, PIXEL_SIZE)


def put(place: int, value):
    def change(images: np.ndarray) -> None:
        images[place] = value(images) if callable(value) else value

    return change


def examined(path: str = "particles.star") -> tuple[particles.ParticleSet, ImageCache, Examination]:
    loaded = particles.load(path)
    seen = Examination(loaded, DIAMETER)
    return loaded, ImageCache(loaded, seen), seen


def flagged(seen: Examination) -> dict[int, str]:
    """Reasons by row of the file."""
    reasons = seen.reasons()
    return {int(seen.particles.source_row[row]): reasons[row] for row in np.flatnonzero(reasons != "")}


def options(**changed) -> RefineOptions:
    return RefineOptions(**({
        "reference": "reference.mrc", "symmetry": "D2", "initial_lowpass": 50.0, "particle_diameter": DIAMETER, "ctf_correction": True,
        "zero_mask": True, "flatten_solvent": True, "norm_correction": True, "scale_correction": True, "join_halves_resolution": 40.0,
        "random_seed": 1, "max_iterations": 1, "healpix_order": 1, "verbosity": 0,
    } | changed))  # fmt: skip


def test_nothing_is_wrong_with_good_images(project):
    _, _, seen = examined()
    assert flagged(seen) == {} and seen.duplicates() == 0


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.nan, "not_finite"),
        (np.inf, "not_finite"),
        (0, "constant"),
        (7.5, "constant"),
        (lambda images: 6 * images[4], "background_sd_"),
        (lambda images: images[4] / 6, "background_sd_0.1"),
        (lambda images: 1e6 * images[4], "background_sd_"),
        (lambda images: images[4] + 3, "background_mean_"),
        (lambda images: images[9], "duplicate_pixels_of_row_5"),
    ],
)
def test_each_kind_of_bad_image_is_found_with_its_reason(project, value, reason):
    spoil(1, put(4, value))
    _, cache, seen = examined()
    found = flagged(seen)
    row = 10 if "duplicate" in reason else 5
    assert list(found) == [row] and found[row].startswith(reason) and " " not in found[row]
    assert cache.read(0, np.arange(cache.stacks[0].shape[0])).isfinite().all() and cache.stacks[0].dtype.itemsize == 2


def test_one_pixel_that_is_not_finite_is_enough(project):
    spoil(2, put((3, 10, 10), np.nan))
    assert flagged(examined()[2]) == {PER_MICROGRAPH + 4: "not_finite"}


def test_the_same_image_named_twice_is_found_though_it_is_spelled_otherwise(project):
    tables = star.read("particles.star")
    names = tables["particles"]["rlnImageName"].copy()
    names[1] = "1@Particles/micrograph_0001.mrcs"
    star.write("twice.star", [tables["optics"], tables["particles"].with_columns({"rlnImageName": names})])
    assert flagged(examined("twice.star")[2]) == {2: "duplicate_name_of_row_1"}


def test_images_that_agree_in_their_middle_only_are_no_duplicates(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    simulate.simulate(molecule.generate("C1", seed=1), tmp_path, Imaging(particles=20, cameras=(Camera(4.0, 96),), particles_per_micrograph=20))
    images = mrc.Stack("Particles/micrograph_0001.mrcs").read(np.arange(20))
    images[7, 20:80] = images[3, 20:80]
    mrc.write_stack("Particles/micrograph_0001.mrcs", images, 4.0)
    _, _, seen = examined()
    assert seen.duplicates() == 1 and flagged(seen) == {}


def test_many_copies_are_meant_to_be_there_and_are_warned_of(project):
    tables = star.read("particles.star")
    star.write("expanded.star", [tables["optics"], tables["particles"].select(np.repeat(np.arange(COUNT), 2))])
    loaded, cache, seen = examined("expanded.star")
    warnings: list[str] = []
    begin = Inputs(1 + np.arange(2 * COUNT) % 2, (np.zeros((2, 2, 2)),) * 2, 1.0)
    kept, _, rejected = rejection.set_aside(loaded, cache, begin, seen, options(), warnings.append)
    assert kept.count == 2 * COUNT and rejected is None
    assert len(warnings) == 1 and f"{COUNT} of {2 * COUNT} particles have the image of an earlier row" in warnings[0]


def test_a_set_that_was_never_normalised_is_not_rejected(project):
    for micrograph in range(1, 5):
        def rescale(images: np.ndarray, factor: float = 3.0**micrograph) -> None:
            images[:] = factor * images + 10 * factor

        spoil(micrograph, rescale)
    assert flagged(examined()[2]) == {}


def refined(path: str, root: str, **changed):
    errors = io.StringIO()
    console = Console(io.StringIO(), errors, verbosity=0)
    return refine(particles.load(path), "reference.mrc", options(output=root, **changed), console=console), errors.getvalue()


def test_bad_particles_are_named_and_the_others_refined_as_if_they_were_alone(project):
    tables = star.read("particles.star")
    subset = {"rlnRandomSubset": 1 + np.arange(COUNT) % 2}
    everything = tables["particles"].with_columns(subset)
    star.write("all.star", [tables["optics"], everything])
    bad = np.array([4, 35, *range(60, 63)])
    star.write("good.star", [tables["optics"], everything.select(np.setdiff1d(np.arange(COUNT), bad))])
    good, _ = refined("good.star", "good/run")
    spoil(1, put(4, np.nan))
    spoil(2, put(5, 0))
    spoil(3, put(slice(0, 3), 1.0))
    result, told = refined("all.star", "out/run")
    assert "1 of 120 particles set aside: pixels that are not finite" in told and "row 5 (000005@Particles/micrograph_0001.mrcs)" in told
    assert "4 of 120 particles set aside: constant image" in told and told.count("listed in out/run_rejected.star") == 2
    assert np.array_equal(result.map, good.map)
    listed, written = star.read("out/run_rejected.star"), star.read_table("out/run_it001_data.star", "particles")
    assert listed["particles"][REASON].tolist() == ["not_finite"] + 4 * ["constant"]
    assert listed["particles"]["rlnImageName"].tolist() == everything["rlnImageName"][bad].tolist()
    assert set(everything.columns) < set(listed["particles"].columns) and listed["optics"].columns.keys() == tables["optics"].columns.keys()
    assert written.count == COUNT - 5 and not set(written["rlnImageName"]) & set(listed["particles"]["rlnImageName"])


def test_a_micrograph_without_a_particle_left_leaves_the_groups_as_a_later_reading_finds_them(project, capsys):
    tables = star.read("particles.star")
    rows = np.r_[0:30, 30:33, 60:120]
    star.write("few.star", [tables["optics"], tables["particles"].select(rows)])
    spoil(2, put(slice(0, 3), 0))
    line = ["refine", "--auto_refine", "--split_random_halves", "--i", "few.star", "--ref", "reference.mrc", "--o", "out/run", "--sym", "D2"]
    line += ["--ctf", "--ini_high", "50", "--particle_diameter", "200", "--zero_mask", "--scale", "--norm", "--random_seed", "1"]
    assert main([*line, "--healpix_order", "1", "--auto_iter_max", "1"]) == 0
    groups = star.read("out/run_it001_half1_model.star")["model_groups"]
    assert groups["rlnGroupName"].tolist() == [f"Micrographs/micrograph_{number:04d}.mrc" for number in (1, 3, 4)]
    assert sorted(set(star.read_table("out/run_it001_data.star", "particles")["rlnGroupNumber"])) == [1, 2, 3]
    capsys.readouterr()
    assert main(["refine", "--continue", "out/run_it001_optimiser.star", "--o", "on/run", "--auto_iter_max", "2"]) == 0
    assert "3 particles were set aside before this run was continued; listed in on/run_rejected.star" in capsys.readouterr().err
    again, before = star.read("on/run_rejected.star")["particles"], star.read("out/run_rejected.star")["particles"]
    assert again["rlnImageName"].tolist() == before["rlnImageName"].tolist() and again[REASON].tolist() == 3 * ["constant"]
    assert star.read_table("on/run_it002_data.star", "particles").count == 90


def test_an_image_damaged_since_is_set_aside_when_the_run_is_continued(project):
    line = ["refine", "--auto_refine", "--split_random_halves", "--i", "particles.star", "--ref", "reference.mrc", "--o", "out/run", "--sym", "D2"]
    line += ["--ctf", "--ini_high", "50", "--particle_diameter", "200", "--zero_mask", "--scale", "--norm", "--random_seed", "1"]
    assert main([*line, "--healpix_order", "1", "--auto_iter_max", "1"]) == 0
    spoil(4, put(7, np.inf))
    spoil(4, put(8, lambda images: 9 * images[8]))  # compared with the others when the run began
    assert main(["refine", "--continue", "out/run_it001_optimiser.star", "--o", "on/run", "--auto_iter_max", "2"]) == 0
    rejected = star.read_table("on/run_rejected.star", "particles")
    assert rejected[REASON].tolist() == ["not_finite"] and rejected["rlnImageName"][0] == "000008@Particles/micrograph_0004.mrcs"
    before, after = (star.read_table(name, "particles") for name in ("out/run_it001_data.star", "on/run_it002_data.star"))
    kept = np.array([name != rejected["rlnImageName"][0] for name in before["rlnImageName"]])
    assert after["rlnImageName"].tolist() == before["rlnImageName"][kept].tolist()
    assert np.array_equal(after["rlnRandomSubset"], before["rlnRandomSubset"][kept])


def test_a_new_run_does_not_leave_the_list_of_an_old_one(project):
    Path("out").mkdir()
    Path("out/run_rejected.star").write_text("old")
    refined("particles.star", "out/run")
    assert not Path("out/run_rejected.star").exists()


def test_a_half_set_of_bad_images_is_an_error(project):
    tables = star.read("particles.star")
    halves = np.where(np.arange(COUNT) == 7, 2, 1)
    star.write("all.star", [tables["optics"], tables["particles"].with_columns({"rlnRandomSubset": halves})])
    spoil(1, put(7, 0))
    with pytest.raises(InputError, match="all particles of half-set 2 had to be set aside"):
        refined("all.star", "out/run")


@pytest.mark.skipif(shutil.which("relion_star_handler") is None, reason="RELION is not installed")
def test_relion_reads_the_list(project):
    spoil(1, put(4, np.nan))
    refined("particles.star", "out/run")
    command = ["relion_star_handler", "--i", "out/run_rejected.star", "--o", "copy.star"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert star.read("copy.star")["particles"][REASON].tolist() == ["not_finite"]
