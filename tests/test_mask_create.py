"""Soft masks: exact distances, the edge, shapes of given radii, and a threshold found from the map."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from aurefine import mask_create, mrc
from aurefine.cli.main import main
from aurefine.image_operations import bandpass_gain, filter_radial
from aurefine.mask_threshold import find_threshold


def scattered(shape=(14, 17, 20), share=0.01, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < share


def ball(box: int, radius: float) -> np.ndarray:
    axis = np.arange(box) - box // 2
    return np.add.outer(np.add.outer(axis**2, axis**2), axis**2) < radius**2


@pytest.mark.parametrize("reach", [1, 2.5, 6, 120])
@pytest.mark.parametrize("threads", [1, 2])
def test_distances_within_reach_are_exact(reach, threads):
    binary = scattered()
    squared = mask_create.squared_distances(binary, reach, threads)
    exact = ndimage.distance_transform_edt(~binary) ** 2
    near = exact < reach**2
    assert np.allclose(squared[near], exact[near]) and (squared[~near] >= reach**2 - 1e-6).all()


def test_a_mask_without_a_voxel_is_far_from_everything():
    assert (mask_create.squared_distances(np.zeros((4, 4, 4), bool), 3) > 9).all()


@pytest.mark.parametrize("pixels", [2, 3.3, -1, -2])
def test_growing_and_shrinking_go_by_distance(pixels):
    binary = ball(20, 6)
    result = mask_create.extend(binary, pixels)
    distance = ndimage.distance_transform_edt(~binary if pixels > 0 else binary)
    assert np.array_equal(result, distance < pixels if pixels > 0 else distance >= -pixels)
    assert mask_create.extend(binary, 0) is binary


def test_a_mask_grows_and_softens_as_far_as_the_box_goes():
    binary = ball(12, 3)
    assert mask_create.extend(binary, 1e5).all() and not mask_create.extend(binary, -1e5).any()
    assert not mask_create.extend(np.zeros_like(binary), 1e5).any() and mask_create.extend(np.ones_like(binary), -1e5).all()
    assert mask_create.soften(binary, 1e5).min() > 0.999 and not mask_create.soften(np.zeros_like(binary), 1e5).any()


@pytest.mark.parametrize("width", [1, 2.5, 5])
def test_the_soft_edge_is_a_raised_cosine_outside_the_mask(width):
    binary = scattered()
    distance = ndimage.distance_transform_edt(~binary)
    expected = np.where(distance < width, 0.5 + 0.5 * np.cos(np.pi * np.minimum(distance, width) / width), 0)
    assert np.abs(mask_create.soften(binary, width) - expected).max() < 1e-6
    assert np.array_equal(mask_create.soften(binary, 0), binary.astype(np.float32))


def test_a_helix_keeps_the_centre_of_z():
    weight = mask_create.central_part(np.ones((20, 2, 2), np.float32), 0.5, 2)[:, 0, 0]
    assert (weight[5:16] == 1).all() and np.isclose(weight[4], 0.5) and not weight[:4].any() and not weight[17:].any()


def test_a_hollow_sphere_has_its_radii():
    mask = mask_create.shell(32, 4, 10, (0, 0, 0), 0)
    assert mask[16, 16, 16] == 0 and mask[16, 16, 20] == 1 and mask[16, 16, 25] == 1 and mask[16, 16, 26] == 0
    soft = mask_create.shell(32, 4, 10, (2, 0, 0), 2)
    assert np.isclose(soft[16, 16, 16 + 2 + 11], 0.5) and np.isclose(soft[16, 16, 16 + 2 + 3], 0.5)


@pytest.mark.parametrize("noise", [0.0, 0.5, 2.0])
def test_the_threshold_found_encloses_the_particle_and_little_else(noise):
    box, truth = 64, ball(64, 14)
    volume = 3.0 * truth + np.random.default_rng(1).normal(0, noise, (box,) * 3)
    filtered = filter_radial(volume.astype(np.float32), bandpass_gain(box, 1.0, 8.0))
    found = find_threshold(filtered)
    binary = filtered >= found.value
    assert found.is_clear and (binary & truth).sum() > 0.98 * truth.sum()
    assert binary.sum() < 1.5 * truth.sum()


def test_the_threshold_follows_scale_and_offset_of_the_grey_values():
    filtered = filter_radial(3.0 * ball(48, 10).astype(np.float32), bandpass_gain(48, 1.0, 8.0))
    assert np.isclose(find_threshold(100 * filtered + 7).value, 100 * find_threshold(filtered).value + 7, rtol=1e-3)


def test_noise_alone_gives_no_clear_threshold():
    noise = np.random.default_rng(2).normal(size=(48, 48, 48)).astype(np.float32)
    assert not find_threshold(filter_radial(noise, bandpass_gain(48, 1.0, 8.0))).is_clear


@pytest.fixture
def folder(tmp_path, monkeypatch):
    volume = 3.0 * ball(40, 10) + np.random.default_rng(3).normal(0, 0.5, (40, 40, 40))
    mrc.write_map(tmp_path / "map.mrc", volume, 2.0)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_found_threshold_is_printed_so_that_it_gives_the_same_mask_again(folder, capsys):
    assert main("mask_create --i map.mrc --o a.mrc --extend_inimask 2 --width_soft_edge 3".split()) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "The same mask comes of" in line)
    flags = line.split("comes of")[1].split()
    assert main(["mask_create", "--i", "map.mrc", "--o", "b.mrc", "--extend_inimask", "2", "--width_soft_edge", "3", *flags]) == 0
    first, size = mrc.read_map("a.mrc")
    assert size == 2.0 and np.array_equal(first, mrc.read_map("b.mrc")[0]) and first.min() == 0 and first.max() == 1


def test_maps_are_combined_and_the_mask_inverted(folder):
    other = np.zeros((40, 40, 40), np.float32)
    other[:, :, 20:] = 1
    mrc.write_map("half.mrc", other, 2.0)
    plain = mrc.read_map("map.mrc")[0] >= 0.5
    right = other > 0
    for how, expected in {"and": plain & right, "or": plain | right, "and_not": plain & ~right, "or_not": plain | ~right}.items():
        assert main(["mask_create", "--i", "map.mrc", "--o", f"{how}.mrc", "--ini_threshold", "0.5", f"--{how}", "half.mrc", "--invert"]) == 0
        assert np.array_equal(mrc.read_map(f"{how}.mrc")[0], 1 - expected)


@pytest.mark.parametrize(("arguments", "message"), [
    ("--i map.mrc --o map.mrc", "such a file already"),
    ("--i map.mrc --o n.mrc --ini_threshold 99", "no voxel reaches"),
    ("--i map.mrc --o n.mrc --denovo", "either --i"),
    ("--o n.mrc --denovo", "--box_size"),
    ("--o n.mrc --denovo --box_size 20 --inner_radius 9 --outer_radius 5", "not below"),
    ("--i map.mrc --o n.mrc --and small.mrc --ini_threshold 1", "8 x 8 x 8 voxels"),
    ("--i map.mrc --o n.mrc --width_soft_edge -2", "--width_soft_edge"),
    ("--i map.mrc --o n.mrc --helix --z_percentage 30", "fraction"),
    ("--i flat.mrc --o n.mrc", "constant"),
    ("--i missing.mrc --o n.mrc", "no such file"),
    ("--i map.mrc --o n.txt", "ending in .mrc"),
    ("--i map.mrc --o n.mrc --extend_inimask -30", "--extend_inimask -30 shrinks the mask until nothing is left"),
    ("--i map.mrc --o n.mrc --ini_threshold 0.9 --and empty.mrc", "empty.mrc (--and) leaves nothing of the mask"),
    ("--o n.mrc --denovo --box_size 20 --outer_radius 5 --center_x 40", "the mask is empty"),
])  # fmt: skip
def test_a_mistake_is_one_message_and_writes_nothing(folder, capsys, arguments, message):
    mrc.write_map("small.mrc", np.ones((8, 8, 8)), 2.0)
    mrc.write_map("flat.mrc", np.ones((8, 8, 8)), 2.0)
    mrc.write_map("empty.mrc", np.zeros((40, 40, 40)), 2.0)
    before = (folder / "map.mrc").read_bytes()
    assert main(["mask_create", *arguments.split()]) == 2
    assert message in capsys.readouterr().err and not (folder / "n.mrc").exists() and (folder / "map.mrc").read_bytes() == before


def test_a_mask_that_reaches_the_edge_of_the_box_is_told(folder, capsys):
    assert main("mask_create --i map.mrc --o close.mrc --extend_inimask 4 --width_soft_edge 4".split()) == 0
    assert "edge of the box" not in capsys.readouterr().out
    assert main("mask_create --i map.mrc --o wide.mrc --extend_inimask 6 --width_soft_edge 6".split()) == 0
    assert "edge of the box" in capsys.readouterr().out


def test_the_job_directory_says_how_it_ended(folder):
    assert main("mask_create --i map.mrc --o job/mask.mrc --pipeline_control job/".split()) == 0
    assert (folder / "job" / "RELION_JOB_EXIT_SUCCESS").exists()
