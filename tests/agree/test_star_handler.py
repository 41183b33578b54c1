"""`aurefine star` and `aurefine select` give the rows and values of `relion_star_handler` on the same files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import star_samples as samples

from aurefine import mrc, star
from aurefine.cli.main import main

pytestmark = pytest.mark.skipif(shutil.which("relion_star_handler") is None, reason="RELION is not installed")


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    samples.write(tmp_path / "a.star", samples.optics(["gA", "gB"]), samples.particle_rows(40, [1, 2], "A", seed=1))
    samples.write(tmp_path / "b.star", samples.optics(["gB", "gC"]), samples.particle_rows(25, [2, 1], "B", seed=2))
    return tmp_path


def relion(*arguments: str) -> None:
    done = subprocess.run(["relion_star_handler", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def assert_same(ours: Path, theirs: Path) -> None:
    one, other = star.read(ours), star.read(theirs)
    for found, table in other.items():
        name = found or "particles"  # RELION's list of removed particles has neither name nor optics groups
        assert list(one[name].columns) == list(table.columns)
        assert one[name].count == table.count
        for label, column in table.columns.items():
            if column.dtype.kind == "f":
                np.testing.assert_allclose(one[name][label], column, rtol=2e-5, atol=2e-5, err_msg=label)
            else:
                assert one[name][label].tolist() == column.tolist(), label


CHORES = {
    "range": ("--select", "rlnDefocusU", "--minval", "10000", "--maxval", "15000"),
    "one class": ("--select", "rlnClassNumber", "--minval", "2", "--maxval", "2"),
    "text in": ("--select_by_str", "rlnMicrographName", "--select_include", "mic001"),
    "text out": ("--select_by_str", "rlnMicrographName", "--select_exclude", "mic001"),
    "set a number": ("--operate", "rlnDefocusU", "--set_to", "5"),
    "set a text": ("--operate", "rlnMicrographName", "--set_to", "one.mrc"),
    "multiply and add": ("--operate", "rlnOriginXAngst", "--operate2", "rlnOriginYAngst", "--multiply_by", "2", "--add_to", "3"),
    "whole numbers": ("--operate", "rlnClassNumber", "--multiply_by", "-1.3", "--add_to", "0.2"),
    "centre": ("--center", "--center_X", "3", "--center_Y", "-2", "--center_Z", "1.5"),
    "remove a column": ("--remove_column", "rlnDefocusU"),
    "add a column": ("--add_column", "rlnPhaseShift", "--add_column_value", "90"),
    "copy a column": ("--add_column", "rlnPhaseShift", "--copy_column_from", "rlnAngleRot"),
    "duplicates": ("--remove_duplicates", "150"),
    "duplicates, micrograph pixels": ("--remove_duplicates", "80", "--image_angpix", "1"),
}


@pytest.mark.parametrize("chore", CHORES)
def test_each_chore_gives_relions_rows_and_values(project, chore):
    assert main(["star", "--i", "a.star", "--o", "ours.star", *CHORES[chore]]) == 0
    relion("--i", "a.star", "--o", "theirs.star", *CHORES[chore])
    assert_same(project / "ours.star", project / "theirs.star")
    for removed in project.glob("theirs_removed.star"):
        assert_same(project / "ours_removed.star", removed)


@pytest.mark.parametrize("numbers", [("--nr_split", "6"), ("--size_split", "9"), ("--nr_split", "3", "--size_split", "9")])
def test_splits_hold_relions_rows(project, numbers):
    assert main(["select", "--i", "a.star", "--o", "ours.star", "--split", *numbers]) == 0
    (project / "split").mkdir()  # RELION wants a folder in the name
    relion("--i", "a.star", "--o", "split/theirs.star", "--split", *numbers)
    theirs = [path for path in sorted(project.glob("split/theirs_split*.star")) if star.read(path)["particles"].count]
    assert theirs and len(theirs) == len(list(project.glob("ours_split*.star")))
    for path in theirs:
        assert_same(project / path.name.replace("theirs", "ours"), path)


ORDERS = ["a.star b.star", "b.star a.star", "a.star a.star b.star", "a.star aberrations.star", "aberrations.star b.star", "names.star b2.star"]


@pytest.mark.parametrize("order", ORDERS)
def test_joined_files_have_relions_optics_groups(project, order):
    rows = samples.particle_rows(10, [4, 7], "C", seed=3)
    samples.write(project / "aberrations.star", samples.optics(["gX", "gY"], [7, 4], rlnBeamTiltX=0.5, rlnOddZernike="[0.1,0,0,0,0,1]"), rows)
    named = rows.with_columns({"rlnGroupName": np.array(["x"] * 5 + ["y"] * 5, dtype=object), "rlnOpticsGroup": np.ones(10, dtype=int)})
    samples.write(project / "names.star", samples.optics(["gA"]), named)
    samples.write(project / "b2.star", samples.optics(["gZ"]), named)
    assert main(["star", "--combine", "--i", order, "--o", "ours.star"]) == 0
    relion("--combine", "--i", order, "--o", "theirs.star")
    assert_same(project / "ours.star", project / "theirs.star")


def test_comparing_by_name_and_by_distance(project):
    assert main(["star", "--i", "a.star", "--select", "rlnDefocusU", "--minval", "10000", "--maxval", "15000", "--o", "part.star"]) == 0
    for other, labels in (("part.star", ("--label1", "rlnImageName")), ("part.star", ("--label1", "rlnCoordinateX", "--label2", "rlnCoordinateY"))):
        assert main(["star", "--i", "a.star", "--compare", other, *labels, "--o", "ours.star", "--overwrite"]) == 0
        relion("--i", "a.star", "--compare", other, *labels, "--o", "theirs.star")
        for part in ("both", "only1"):
            assert_same(project / f"ours_{part}.star", project / f"theirs_{part}.star")
        assert star.read(project / "ours_only2.star")["particles"].count == 0


def test_discarding_on_image_statistics(project):
    rng = np.random.default_rng(5)
    images = rng.normal(0, 1, (40, 16, 16)).astype(np.float32)
    images[3] += 1
    images[17] *= 3
    mrc.write_stack(project / "stack.mrcs", images, 1.5)
    names = np.array([f"{row + 1:06d}@stack.mrcs" for row in range(40)], dtype=object)
    samples.write(project / "i.star", samples.optics(["gA"]), samples.particle_rows(40, [1], "A").with_columns({"rlnImageName": names}))
    for sigma in ("1.5", "4"):
        assert main(["select", "--i", "i.star", "--discard_on_stats", "--discard_sigma", sigma, "--o", "ours.star", "--overwrite"]) == 0
        relion("--i", "i.star", "--discard_on_stats", "--discard_sigma", sigma, "--o", "theirs.star")
        assert_same(project / "ours.star", project / "theirs.star")
        assert 0 < star.read(project / "ours.star")["particles"].count < 40


def test_real_files_of_many_programs(shared_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = {"relion31.6opticsgroups.star": "rlnDefocusU", "isecc_aberrations_particles.star": "rlnDefocusU",
            "micrographs_ctf.star": "rlnCtfMaxResolution", "relion5.star": "rlnCoordinateX"}  # fmt: skip
    for number, (name, label) in enumerate(kept.items()):
        source = shared_data / "star" / name
        tables = star.read(source)
        middle = np.median(next(table for key, table in tables.items() if key != "optics")[label])
        arguments = ("--i", str(source), "--select", label, "--maxval", f"{middle + 0.01:.3f}")
        assert main(["star", *arguments, "--o", f"ours{number}.star"]) == 0, name
        relion(*arguments, "--o", f"theirs{number}.star")
        theirs = star.read(f"theirs{number}.star")
        ours = star.read(f"ours{number}.star")
        main_table = next(key for key in theirs if key != "optics")
        for column in theirs[main_table].columns:
            if column in ours[main_table]:
                assert ours[main_table].count == theirs[main_table].count
                if ours[main_table][column].dtype.kind == "f":
                    np.testing.assert_allclose(ours[main_table][column], theirs[main_table][column], rtol=1e-4, atol=1e-5)
