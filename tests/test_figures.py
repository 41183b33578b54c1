"""The picture of a run can be drawn from RELION's own files, finished or not, and its projection keeps areas."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from aurefine import mrc, star
from aurefine.errors import InputError
from aurefine.figures import draw_report, mollweide
from aurefine.run_report import read_run


def test_a_finished_relion_run_is_read_and_drawn(shared_data: Path, tmp_path: Path) -> None:
    report = read_run(shared_data / "relion5_betagal_run" / "run")
    assert report.finished and report.symmetry == "D2"
    assert report.final_resolution == pytest.approx(7.308387)
    assert list(report.iterations) == list(range(13))
    assert report.resolution[5] == pytest.approx(9.850435)
    assert report.step[[0, 8, 12]] == pytest.approx([7.5, 1.875, 0.9375])  # as in run.out, after oversampling
    assert report.map.shape == (64, 64, 64) and len(report.angles) == 1534
    picture = draw_report(report, tmp_path / "new" / "report.png", truth=report.map, fsc_truth=report.fsc, notes=["a note"])
    assert picture.stat().st_size > 50_000


def test_an_unfinished_run_is_drawn_from_its_newest_iteration(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "relion5_betagal_run"
    for path in [*source.glob("run_it000_*"), *source.glob("run_it001_*"), *source.glob("run_it002_*")]:
        shutil.copy(path, tmp_path)
    report = read_run(tmp_path)
    assert not report.finished
    assert report.final_resolution == pytest.approx(20.596363)
    assert draw_report(report, tmp_path / "report.png").stat().st_size > 50_000


def write_small_run(root: Path, box: int = 16) -> None:
    """Two iterations of a run with just the tables that the picture needs."""
    shells = np.arange(box // 2 + 1)
    rng = np.random.default_rng(1)
    tables = {
        "model_class_1": star.Table("model_class_1", {"rlnSpectralIndex": shells, "rlnGoldStandardFsc": 1 / (1 + shells)}, False),
        "model_classes": star.Table("model_classes", {"rlnAccuracyRotations": np.array([2.5])}, False),
    }
    for iteration in (0, 1):
        stem = f"{root.name}_it{iteration:03d}"
        general = star.Table("model_general", {"rlnCurrentResolution": np.array([np.inf, 20.0][iteration : iteration + 1])}, True)
        star.write(root.parent / f"{stem}_half1_model.star", {"model_general": general, **tables})
        sampling = star.Table("sampling_general", {"rlnHealpixOrder": np.array([2]), "rlnSymmetryGroup": np.array(["O"], object)}, True)
        star.write(root.parent / f"{stem}_sampling.star", {"sampling_general": sampling})
        mrc.write_map(root.parent / f"{stem}_half1_class001.mrc", rng.normal(size=(box,) * 3).astype(np.float32), 5.0)
        poses = {"rlnAngleRot": rng.uniform(-180, 180, 30), "rlnAngleTilt": rng.uniform(0, 180, 30)}
        star.write(root.parent / f"{stem}_data.star", {"particles": star.Table("particles", poses, False)})


def test_a_run_is_drawn_from_the_few_tables_it_needs(tmp_path: Path) -> None:
    write_small_run(tmp_path / "run")
    report = read_run(tmp_path / "run")
    assert not report.finished and report.symmetry == "O"
    assert report.final_resolution == pytest.approx(20.0)
    assert draw_report(report, tmp_path / "report.png").stat().st_size > 30_000


def test_a_map_that_was_moved_away_is_a_clear_mistake(tmp_path: Path) -> None:
    write_small_run(tmp_path / "run")
    for path in tmp_path.glob("*.mrc"):
        path.unlink()
    with pytest.raises(InputError, match="no map run_class001.mrc"):
        read_run(tmp_path / "run")


def test_a_root_without_files_is_a_clear_mistake(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--o"):
        read_run(tmp_path / "run")
    with pytest.raises(InputError, match="auto-refine"):
        read_run(tmp_path)


def test_mollweide_keeps_areas_and_covers_the_ellipse() -> None:
    rng = np.random.default_rng(0)
    longitude, latitude = rng.uniform(-180, 180, 20_000), np.degrees(np.arcsin(rng.uniform(-1, 1, 20_000)))
    x, y = mollweide(longitude, latitude)
    radius = (x / (2 * np.sqrt(2))) ** 2 + (y / np.sqrt(2)) ** 2
    assert radius.max() <= 1 + 1e-9
    # A uniform sphere gives a uniform ellipse: squared relative radii are uniform on [0, 1].
    assert np.abs(np.quantile(radius, [0.25, 0.5, 0.75]) - [0.25, 0.5, 0.75]).max() < 0.02
