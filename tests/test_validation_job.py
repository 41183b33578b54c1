"""`aurefine validate` from its command line: any name of the run, its files, and one message for a mistake."""

from __future__ import annotations

import json

import numpy as np
import pytest
from postprocess_maps import BOX, PIXEL_SIZE, write_halves

from aurefine import mrc, star
from aurefine.cli import main as cli


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run: half maps, and particles that look along z alone."""
    folder = tmp_path_factory.mktemp("run")
    write_halves(folder)
    columns = {label: np.zeros(200) for label in ("rlnAngleRot", "rlnAngleTilt")} | {"rlnAnglePsi": np.linspace(-180, 180, 200)}
    star.write(folder / "run_data.star", [star.Table("particles", columns)])
    return folder


def found_in(folder):
    return {each["key"]: each for each in json.loads((folder / "validation.json").read_text())["measures"]}


@pytest.fixture(scope="module")
def validated(run, tmp_path_factory):
    output = tmp_path_factory.mktemp("validated") / "new"
    assert cli.main(["validate", "--i", str(run), "--mask", str(run / "mask.mrc"), "--o", str(output)]) == 0
    return output


def test_a_run_is_validated_by_the_name_of_its_directory(validated):
    found = found_in(validated)
    assert found["cfar"]["verdict"] == "good" and found["cfar"]["value"] > 0.8  # the same noise in all directions
    assert found["scf"]["verdict"] == "poor" and found["efficiency"]["value"] == 0  # one view
    assert {each.name for each in validated.iterdir()} >= {"validation.star", "validation.png", "validation.pdf", "3dfsc.mrc"}
    assert (validated / "validation.png").read_bytes().startswith(b"\x89PNG") and (validated / "validation.pdf").read_bytes().startswith(b"%PDF")


def test_the_star_file_and_the_3dfsc_hold_what_the_json_says(validated):
    tables, found = star.read(validated / "validation.star"), found_in(validated)
    rows = dict(zip(tables["validation"]["valMeasure"], tables["validation"]["valValue"], strict=True))
    assert float(rows["cfar"]) == pytest.approx(found["cfar"]["value"])
    curve = tables["validation_conical_fsc"]
    volume, _ = mrc.read_map(validated / "3dfsc.mrc")
    assert volume.shape == (BOX,) * 3
    z, y, x = np.meshgrid(*[np.arange(BOX) - BOX // 2] * 3, indexing="ij")
    shell = np.sqrt(x * x + y * y + z * z).round().astype(int) == 10
    fsc = np.asarray(curve["valFscMean"], float)[10]
    assert volume[shell].mean() == pytest.approx(fsc, abs=0.02)
    assert float(curve["valFrequency"][10]) == pytest.approx(10 / (BOX * PIXEL_SIZE), rel=1e-4)


@pytest.mark.parametrize("name", ["run", "run_data.star", "run_half2_class001_unfil.mrc"])
def test_other_names_find_the_same_half_maps(run, validated, tmp_path, name):
    assert cli.main(["validate", "--i", str(run / name), "--mask", str(run / "mask.mrc"), "--o", str(tmp_path)]) == 0
    assert found_in(tmp_path)["cfar"]["value"] == found_in(validated)["cfar"]["value"]


def test_what_is_missing_is_said_and_the_rest_is_measured(run, tmp_path):
    views = ["validate", "--i", str(tmp_path / "run"), "--data", str(run / "run_data.star"), "--o", str(tmp_path / "views")]
    assert cli.main(views) == 0
    found = found_in(tmp_path / "views")
    assert found["cfar"]["value"] is None and "half maps" in found["cfar"]["text"] and found["scf"]["value"] is not None
    write_halves(tmp_path)
    assert cli.main(["validate", "--i", str(tmp_path), "--o", str(tmp_path / "maps")]) == 0
    found = found_in(tmp_path / "maps")
    assert found["scf"]["value"] is None and "--data" in found["scf"]["text"] and found["cfar"]["value"] is not None


def test_mistakes_are_one_message(run, validated, tmp_path, capsys):
    def message(*arguments):
        assert cli.main(["validate", *map(str, arguments)]) == 2
        return capsys.readouterr().err

    assert "run_data.star" in message("--i", tmp_path / "run", "--o", tmp_path / "a")
    assert "--overwrite" in message("--i", run, "--o", validated)
    assert "half-angle from 5 to 60" in message("--i", run, "--cone", 90)
    assert "there is no such file" in message("--i", run, "--data", "nowhere.star")
    bad = star.Table("particles", {"rlnAngleRot": np.array([1.0, np.nan]), "rlnAngleTilt": np.zeros(2)})
    star.write(tmp_path / "bad.star", [bad])
    assert "bad.star, row 2" in message("--i", run, "--data", tmp_path / "bad.star", "--o", tmp_path / "b")
