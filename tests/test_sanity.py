"""Each check warns of what it is for, and is silent where all is well."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from aurefine import fourier, fsc, mask, molecule, mrc, nufft, particles, simulate, star
from aurefine.imaging import Camera, Imaging
from aurefine.sanity import defocus_range, grey_scale, half_map_fsc, masks, particle_pairs, pixel_sizes, symmetry_axes

BOX, PIXEL_SIZE, COUNT, DIAMETER = 32, 8.0, 120, 200.0


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sanity")
    imaging = Imaging(particles=COUNT, cameras=(Camera(PIXEL_SIZE, BOX),), particles_per_micrograph=30)
    simulate.simulate(molecule.generate("D2", seed=1), folder, imaging)
    return folder


@pytest.fixture
def loaded(simulated, monkeypatch) -> particles.ParticleSet:
    monkeypatch.chdir(simulated)
    return particles.load("particles.star")


def changed(loaded: particles.ParticleSet, optics: dict | None = None, **columns) -> particles.ParticleSet:
    """With other columns in its particle table (and its optics table)."""
    tables = star.read(loaded.path)
    out = {label: np.asarray(values) for label, values in columns.items()}
    optics_table = tables["optics"].with_columns({label: np.array([value]) for label, value in (optics or {}).items()})
    star.write("changed.star", [optics_table, tables["particles"].with_columns(out)])
    return particles.load("changed.star")


HALVES = 1 + np.arange(COUNT) % 2


def spread_out() -> dict[str, np.ndarray]:
    """Places far from each other on every micrograph."""
    number = np.arange(COUNT) % 30
    return {"rlnCoordinateX": 100.0 + 500 * (number % 6), "rlnCoordinateY": 100.0 + 500 * (number // 6)}


def test_half_sets_that_share_no_particle_pass(loaded):
    assert particle_pairs.check(changed(loaded, **spread_out()), HALVES, DIAMETER) == []


def test_particles_picked_twice_into_different_half_sets_are_told(loaded):
    places = spread_out()
    places["rlnCoordinateX"][5] = places["rlnCoordinateX"][4] + 2.4  # 19 Angstrom
    places["rlnCoordinateY"][5] = places["rlnCoordinateY"][4]
    twice = changed(loaded, **places)
    (told,) = particle_pairs.check(twice, HALVES, DIAMETER)
    assert "1 pairs of particles" in told and "rows 5 and 6" in told and "--remove_duplicates 20" in told
    assert particle_pairs.check(twice, np.where(np.arange(COUNT) == 5, HALVES[4], HALVES), DIAMETER) == []  # both in one half
    assert particle_pairs.check(twice, np.zeros(COUNT, int), DIAMETER) == []  # halves are not drawn yet


def test_origins_count_for_places_and_micrographs_are_kept_apart(loaded):
    places = spread_out()
    for label in places:
        places[label][5] = places[label][4]
    moved = np.where(np.arange(COUNT) == 5, 60.0, 0.0)
    assert particle_pairs.check(changed(loaded, **places, rlnOriginXAngst=moved), HALVES, DIAMETER) == []
    one_place = {label: np.full(COUNT, 500.0) for label in places}
    names = np.array([f"Micrographs/m{number}.mrc" for number in range(COUNT)], object)
    assert particle_pairs.check(changed(loaded, **one_place, rlnMicrographName=names), HALVES, DIAMETER) == []


def test_an_image_in_both_half_sets_is_told(loaded):
    names = star.read_table(loaded.path, "particles")["rlnImageName"].copy()
    names[1] = names[0]
    told = particle_pairs.check(changed(loaded, **spread_out(), rlnImageName=names), HALVES, DIAMETER)
    assert len(told) == 1 and "1 images are in both half-sets" in told[0]


def test_copies_of_an_image_are_not_compared_with_each_other(loaded, monkeypatch):
    """Symmetry expansion makes many of each: all pairs of them would fill the memory."""
    places = spread_out()
    for label in places:
        places[label][5] = places[label][4]
    expanded = changed(loaded, **places).subset(np.repeat(np.arange(COUNT), 40))
    compared: list[int] = []
    real = particle_pairs.near_pairs
    monkeypatch.setattr(particle_pairs, "near_pairs", lambda names, *others: compared.append(len(names)) or real(names, *others))
    (told,) = particle_pairs.check(expanded, np.repeat(HALVES, 40), DIAMETER)
    assert "1600 pairs of particles" in told and "rows 5 and 6" in told and compared == [COUNT]


def test_pixel_sizes_that_go_together_pass(loaded):
    assert pixel_sizes.check(loaded) == []
    assert pixel_sizes.check(changed(loaded, {"rlnMicrographOriginalPixelSize": PIXEL_SIZE / 4})) == []  # binned


@pytest.mark.parametrize(("size", "message"), [(8.3, "differ by 3.7 %"), (16.0, "cannot be finer than their micrographs")])
def test_pixel_sizes_that_contradict_each_other_are_told(loaded, size, message):
    (told,) = pixel_sizes.check(changed(loaded, {"rlnMicrographOriginalPixelSize": size}))
    assert message in told and "optics group 1" in told


def test_magnification_and_detector_pixel_size_are_looked_at(loaded):
    right = {"rlnDetectorPixelSize": np.full(COUNT, 5.0), "rlnMagnification": np.full(COUNT, 5e4 / PIXEL_SIZE)}
    assert pixel_sizes.check(changed(loaded, **right)) == []
    (told,) = pixel_sizes.check(changed(loaded, **right | {"rlnMagnification": np.full(COUNT, 4.8e4 / PIXEL_SIZE)}))
    assert "rlnDetectorPixelSize/rlnMagnification" in told


def test_the_header_of_a_micrograph_that_is_there_is_compared(loaded):
    name = "Micrographs/micrograph_0001.mrc"
    Path("Micrographs").mkdir(exist_ok=True)
    for size, warnings in ((PIXEL_SIZE, 0), (7.5, 1)):
        mrc.write_stack(name, np.zeros((1, 8, 8), np.float32), size)
        found = pixel_sizes.check(loaded)
        assert len(found) == warnings and all("7.5" in line for line in found)
    Path(name).unlink()


def test_usual_defocus_values_pass_and_each_unusual_one_is_told(loaded):
    assert defocus_range.check(loaded) == []
    table = loaded.defocus
    with_defocus = lambda u, v=None: replace(loaded, defocus=replace(table, defocus_u=u, defocus_v=u if v is None else v))  # noqa: E731
    (told,) = defocus_range.check(with_defocus(np.where(np.arange(COUNT) == 9, 9e4, table.defocus_u)))
    assert "1 of 120 particles have a defocus outside 0.1 to 6 um" in told and "row 10: 9.00 um" in told
    (told,) = defocus_range.check(with_defocus(np.where(np.arange(COUNT) == 9, -15000, table.defocus_u)))
    assert "wrong sign" in told
    (told,) = defocus_range.check(with_defocus(table.defocus_u, np.where(np.arange(COUNT) == 3, table.defocus_u / 2, table.defocus_u)))
    assert "1 of 120 particles have an astigmatism" in told and "row 4" in told
    assert "micrometres" in defocus_range.check(with_defocus(table.defocus_u / 1e4))[0]
    assert "same defocus" in defocus_range.check(with_defocus(np.full(COUNT, 15000.0)))[0]
    assert defocus_range.check(with_defocus(np.zeros(COUNT))) == []


def test_a_phase_plate_needs_no_defocus(loaded):
    near = replace(loaded.defocus, defocus_u=loaded.defocus.defocus_u / 12, defocus_v=loaded.defocus.defocus_v / 12, phase_shift=np.full(COUNT, 90.0))
    assert not any("outside" in line for line in defocus_range.check(replace(loaded, defocus=near)))


def map_of(symmetry: str, box: int = 48, pixel_size: float = 5.0) -> np.ndarray:
    return molecule.generate(symmetry, seed=3).density(box, pixel_size, 100.0)


@pytest.mark.parametrize("symmetry", ["C1", "C3", "D2", "T", "O", "I1", "I2"])
def test_a_map_with_the_symmetry_that_was_asked_for_passes(symmetry):
    assert symmetry_axes.check(map_of(symmetry), 5.0, symmetry, "map.mrc") == []


def test_another_setting_of_the_axes_is_named():
    assert "it has I1: give --sym I1" in symmetry_axes.check(map_of("I1"), 5.0, "I2", "map.mrc")[0]
    volume = map_of("C4")
    lying = np.ascontiguousarray(np.transpose(volume, (1, 2, 0)))  # its 4-fold axis is no longer z
    (told,) = symmetry_axes.check(lying, 5.0, "C4", "map.mrc")
    assert "main axis along x" in told or "main axis along y" in told
    upright = np.transpose(lying, (2, 0, 1) if "along x" in told else (1, 2, 0))
    assert symmetry_axes.check(np.ascontiguousarray(upright), 5.0, "C4", "map.mrc") == []


def test_a_map_without_the_symmetry_is_told_of_and_a_ball_has_every_one():
    (told,) = symmetry_axes.check(map_of("C1"), 5.0, "D2", "map.mrc")
    assert "correlate by" in told and "lower symmetry" in told
    assert symmetry_axes.check(mask.soft_edge(48, 3, 12, 4).copy(), 5.0, "O", "map.mrc") == []


def test_a_mask_that_holds_the_particle_softly_passes():
    volume = map_of("D2")
    assert masks.check(mask.soft_edge(48, 3, 18, 6), volume, 5.0, "mask.mrc") == []


def test_masks_that_are_too_tight_too_sharp_or_too_wide_are_told():
    volume = map_of("D2")
    assert ["too tight" in line for line in masks.check(mask.soft_edge(48, 3, 4, 6), volume, 5.0, "mask.mrc")] == [True]
    sharp = (mask.radius_grid(48, 3) < 18).astype(np.float32)
    assert ["edge is 0.0 pixels" in line for line in masks.check(sharp, volume, 5.0, "mask.mrc")] == [True]
    assert "next to nothing" in masks.check(np.ones((48,) * 3, np.float32), volume, 5.0, "mask.mrc")[0]
    beside = np.roll(mask.soft_edge(48, 3, 12, 6), 16, axis=0)
    assert any("another centre" in line for line in masks.check(beside, volume, 5.0, "mask.mrc"))


def test_the_width_of_a_soft_edge_is_measured():
    for width in (2, 5, 8):
        assert masks.edge_width(mask.soft_edge(64, 3, 14, width)) == pytest.approx(width, rel=0.6)
    assert masks.edge_width(mask.soft_edge(64, 3, 14, 5)) > 3 > masks.edge_width(mask.soft_edge(64, 3, 14, 1.5))


def halves(noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Half maps of a molecule with independent noise, white."""
    volume = map_of("D2")
    rng = np.random.default_rng(seed)
    return tuple((volume + noise * volume.std() * rng.normal(size=volume.shape)).astype(np.float32) for _ in range(2))  # type: ignore[return-value]


def test_independent_half_maps_pass():
    curve = fsc.of_maps(*halves(3.0))
    assert half_map_fsc.check_curve(curve, 48, 5.0) == []


def test_half_maps_with_common_noise_and_fine_enough_pixels_are_told():
    one, two = halves(3.0)
    common = 3 * one.std() * np.random.default_rng(9).normal(size=one.shape).astype(np.float32)
    assert "next to Nyquist" in half_map_fsc.check_curve(fsc.of_maps(one + common, two + common), 48, 5.0)[0]
    weak = common / 9.5
    assert "stays at 0.1" in half_map_fsc.check_curve(fsc.of_maps(one + weak, two + weak), 48, 5.0)[0]
    falling = np.concatenate([np.linspace(1, 0, 12), np.full(13, 0.0)])
    staying = np.maximum(falling, 0.13)
    assert half_map_fsc.check_curve(falling, 48, 5.0) == [] and "FSC stays at 0.13" in half_map_fsc.check_curve(staying, 48, 5.0)[0]


def test_a_mask_that_makes_half_maps_agree_by_itself_is_told():
    one, two = halves(3.0)
    assert half_map_fsc.check_mask(one, two, mask.soft_edge(48, 3, 16, 6), 5.0) == []
    sharp = (map_of("D2") > 0.9 * map_of("D2").max()).astype(np.float32)  # a few voxels
    (told,) = half_map_fsc.check_mask(one, two, sharp, 5.0)
    assert "random phases agree, too" in told


@pytest.mark.parametrize(("factor", "words"), [(1.0, ""), (0.6, ""), (20.0, "times weaker"), (0.05, "times as strong")])
def test_the_grey_scale_of_a_reference_is_judged(loaded, factor, words):
    volume, _ = mrc.read_map("truth.mrc")
    rows = np.arange(COUNT)
    told = grey_scale.check(loaded.read_images(rows), rows, loaded, factor * volume, DIAMETER, 40.0, True, "map.mrc")
    assert len(told) == bool(words) and all(words in line and "--firstiter_cc" in line for line in told)


def test_the_power_of_particles_is_that_of_the_true_maps_projections(loaded):
    volume, _ = mrc.read_map("truth.mrc")
    rows = np.arange(COUNT)
    found, error, expected = grey_scale.signal_power(loaded.read_images(rows), rows, loaded, volume, DIAMETER, 40.0, True)
    assert found == pytest.approx(expected, abs=4 * error, rel=0.35)
    transforms = nufft.MapSampler(volume.astype(float)).projections(Rotation.random(100, random_state=1).as_matrix(), BOX, 1.0)
    power = np.abs(transforms / BOX**2) ** 2
    x, y = np.meshgrid(np.arange(BOX // 2 + 1), fourier.frequencies(BOX))
    shell = fourier.round_half_away(np.hypot(x, y))
    band = (shell >= 1) & (shell <= int(BOX * PIXEL_SIZE / 40))
    unmodulated = grey_scale.signal_power(loaded.read_images(rows), rows, loaded, volume, DIAMETER, 40.0, False)[2]
    assert unmodulated == pytest.approx((power * np.where(x > 0, 2, 1))[:, band].sum(axis=1).mean(), rel=0.1)


def test_of_particles_that_are_all_at_one_place_not_every_pair_is_listed():
    """100,000 rows have 5 billion pairs."""
    count = 100_000
    pairs, complete = particle_pairs.near_pairs(np.full(count, "one.mrc"), np.zeros((count, 2)), 10.0)
    assert not complete and 500_000 < len(pairs) <= 2_000_000
    pairs, complete = particle_pairs.near_pairs(np.repeat(["a.mrc", "b.mrc"], 2), np.array([[0.0, 0], [5, 0], [0, 0], [np.nan, 0]]), 10.0)
    assert complete and pairs.tolist() == [[0, 1]]
    pairs, complete = particle_pairs.near_pairs(np.array(["a.mrc"]), np.array([[np.nan, 0]]), 10.0)
    assert complete and len(pairs) == 0
