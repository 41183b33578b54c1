from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from aurefine import compare, euler, molecule, mrc, star, symmetry
from aurefine.cli.main import main
from aurefine.errors import InputError

SHAPE = molecule.Shape(120, 2, (45, 40, 35))


def _write(path, rotations, origins, names=None, classes=None):
    n = len(rotations)
    angles = euler.from_matrix(rotations)
    columns = {"rlnImageName": np.array(names or [f"{i + 1:06d}@stack.mrcs" for i in range(n)], object)}
    columns |= dict(zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), angles.T)) | dict(zip(("rlnOriginXAngst", "rlnOriginYAngst"), origins.T))
    if classes is not None:
        columns["rlnClassNumber"] = np.asarray(classes)
    star.write(path, [star.Table("particles", columns)])
    return path


@pytest.mark.parametrize(("name", "turn", "shift"), [
    ("C1", (3.0, -2.0, 1.0), (1.0, -2.0, 3.0)), ("C1", (100.0, 50.0, 0.0), (0, 0, 0)),
    ("C4", (0, 0, 20.0), (0, 0, 2.5)), ("D2", (1.0, 0, 0), (0, 0, 0)), ("O", (0, 1.0, 1.0), (0, 0, 0)),
])  # fmt: skip
def test_errors_are_modulo_symmetry_and_one_common_motion(tmp_path, name, turn, shift):
    rng, n = np.random.default_rng(1), 400
    operators = symmetry.point_group(name).operators
    true, origins = Rotation.random(n, random_state=1).as_matrix(), rng.normal(size=(n, 2)) * 4
    frame = Rotation.from_rotvec(np.radians(turn)).as_matrix()
    error = Rotation.from_rotvec(np.radians(rng.normal(size=(n, 3)))).as_matrix()
    found = error @ true @ operators[rng.integers(len(operators), size=n)] @ frame.T
    moved = origins + found[:, :2] @ np.asarray(shift) + rng.normal(size=(n, 2)) * 0.3
    order = rng.permutation(n)
    names = [f"{i + 1:06d}@stack.mrcs" for i in order]
    estimate, truth = _write(tmp_path / "found.star", found[order], moved[order], names), _write(tmp_path / "truth.star", true, origins)
    result = compare.pose_errors(estimate, truth, name)
    assert result["particles"] == n
    assert result["angle_median"] == pytest.approx(1.54, abs=0.12) and result["angle_p90"] == pytest.approx(2.5, abs=0.25)
    assert result["shift_median"] == pytest.approx(0.353, abs=0.04)
    assert result["frame_shift"] == pytest.approx(np.linalg.norm(shift), abs=0.15)
    assert result["raw_angle_median"] >= result["angle_median"] - 0.05


def test_outliers_and_foreign_particles_do_not_count(tmp_path):
    true = Rotation.random(30, random_state=2).as_matrix()
    truth = _write(tmp_path / "truth.star", true, np.zeros((30, 2)), classes=[1] * 25 + [2] * 5)
    found = _write(tmp_path / "found.star", np.concatenate([true[:20], true[:10]]), np.zeros((30, 2)),
                   [f"{i + 1:06d}@stack.mrcs" for i in range(20)] + [f"{i + 1:06d}@other.mrcs" for i in range(10)])
    result = compare.pose_errors(found, truth)
    assert result["particles"] == 20 and result["angle_median"] < 1e-3
    foreign = _write(tmp_path / "foreign.star", true, np.zeros((30, 2)), [f"{i + 1:06d}@other.mrcs" for i in range(30)])
    with pytest.raises(InputError, match="none of its images"):
        compare.pose_errors(foreign, truth)


def test_images_are_the_same_by_whatever_way_they_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("set/Particles", "other/Particles", "Refine3D/job001"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("set", "other"):
        mrc.write_stack(f"{folder}/Particles/a.mrcs", np.zeros((5, 4, 4), np.float32), 1.0)
    true = Rotation.random(5, random_state=3).as_matrix()
    truth = _write(tmp_path / "set/truth.star", true, np.zeros((5, 2)), [f"{i + 1:06d}@Particles/a.mrcs" for i in range(5)])
    for name, same in (("set", True), ("other", False)):  # as a refinement run here writes them, which found the images beside its STAR file
        found = _write(tmp_path / "Refine3D/job001/run_data.star", true, np.zeros((5, 2)), [f"{i + 1}@{name}/Particles/a.mrcs" for i in range(5)])
        if same:
            assert compare.pose_errors(found, truth)["angle_median"] < 1e-3
            continue
        with pytest.raises(InputError, match="none of its images"):
            compare.pose_errors(found, truth)


def test_random_poses_are_as_wrong_as_they_are(tmp_path):
    poses = [Rotation.random(500, random_state=i).as_matrix() for i in (1, 2)]
    paths = [_write(tmp_path / f"{i}.star", rotations, np.zeros((500, 2))) for i, rotations in enumerate(poses)]
    assert compare.pose_errors(*paths)["angle_median"] > 90


def test_a_turned_and_moved_map_is_brought_back():
    made = molecule.generate("C1", seed=2, shape=SHAPE)
    turn = Rotation.from_rotvec(np.radians([2.0, -1.0, 3.0])).as_matrix()
    moved = replace(made, positions=made.positions @ turn.T + [2.0, -3.0, 1.0])
    truth, volume = made.density(32, 5.0, 150.0), moved.density(32, 5.0, 150.0)
    found = compare.map_fsc(volume, truth, 5.0, mask_radius=65.0)
    assert found.curve[1:15].min() > 0.98 and found.resolution_half == pytest.approx(10.0, abs=0.4)
    assert found.angle == pytest.approx(3.74, abs=0.3) and found.shift == pytest.approx(3.74, abs=0.3)
    raw = compare.map_fsc(volume, truth, 5.0, mask_radius=65.0, align=False)
    assert raw.mean_fsc < found.mean_fsc - 0.1 and raw.angle == 0


def test_the_wrong_hand_is_recognised():
    truth = molecule.generate("C1", seed=2, shape=SHAPE).density(32, 5.0, 150.0)
    mirrored = np.roll(truth[::-1], 1, axis=0)
    found = compare.map_fsc(mirrored, truth, 5.0, align=False)
    assert found.mirror_mean_fsc > 0.99 and found.mean_fsc < 0.6


def test_fsc_crossings_lie_where_noise_drowns_the_signal():
    truth = molecule.generate("C1", seed=2, shape=SHAPE).density(32, 5.0, 0.0)
    noise = np.random.default_rng(1).normal(size=truth.shape)
    transform, noise = np.fft.rfftn(truth), np.fft.rfftn(noise)
    k = np.fft.fftfreq(32, 1 / 32)
    radius = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k[:17] ** 2)
    size = np.abs(transform) / np.abs(noise) * np.maximum(radius, 1e-3) / 8  # FSC = 1 / sqrt(1 + (r / 8)^2)
    mixed = np.fft.irfftn(transform + noise * size)
    found = compare.map_fsc(mixed.astype(np.float32), truth, 5.0, align=False)
    assert found.resolution_half == pytest.approx(160 / (8 * np.sqrt(3)), rel=0.12)


def test_maps_of_other_boxes_are_compared_by_resampling_the_truth(tmp_path):
    made = molecule.generate("C1", seed=2, shape=SHAPE)
    mrc.write_map(tmp_path / "fine.mrc", made.density(48, 4.0, 200.0), 4.0)
    mrc.write_map(tmp_path / "coarse.mrc", made.density(32, 6.0, 200.0), 6.0)
    assert compare.map_file_fsc(tmp_path / "coarse.mrc", tmp_path / "fine.mrc", align=False).curve[1:15].min() > 0.99


def test_the_command_line_simulates_and_compares(tmp_path, capsys):
    made, numbers = tmp_path / "set", tmp_path / "numbers.json"
    assert main(["simulate", "--o", str(made), "--n", "12", "--box", "32", "--angpix", "7", "--sym", "C4"]) == 0
    assert main(["compare", "--i", str(made / "truth.star"), "--truth", str(made / "truth.star"), "--sym", "C4", "--map", str(made / "reference.mrc"),
                 "--truth_map", str(made / "truth.mrc"), "--no_align", "--json", str(numbers)]) == 0  # fmt: skip
    result = json.loads(numbers.read_text())
    assert result["poses"]["angle_median"] < 1e-3 and len(result["map"]["fsc"]) == 17
    assert "FSC 0.5 at" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "says"), [
    (["--i", "a.star"], "belong together"), (["--sym", "C1"], "nothing to compare"), (["--map", "a.mrc", "--truth_map", "b.mrc"], "a.mrc"),
])  # fmt: skip
def test_the_command_line_says_what_is_missing(arguments, says, capsys):
    assert main(["compare", *arguments]) == 2
    assert says in capsys.readouterr().err
