from __future__ import annotations

from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest

from aurefine import mrc, particles, star
from aurefine.errors import InputError

OPTICS = {
    "rlnOpticsGroup": [1, 2],
    "rlnOpticsGroupName": ["one", "two"],
    "rlnVoltage": [300.0, 200.0],
    "rlnSphericalAberration": [2.7, 1.4],
    "rlnAmplitudeContrast": [0.1, 0.07],
    "rlnImagePixelSize": [2.0, 2.0],
    "rlnImageSize": [8, 8],
    "rlnImageDimensionality": [2, 2],
}
PARTICLES = {
    "rlnImageName": ["000001@b.mrcs", "000002@a.mrcs", "000002@b.mrcs", "000001@a.mrcs", "000003@a.mrcs"],
    "rlnMicrographName": [f"MotionCorr/job002/{name}.mrc" for name in "babaa"],
    "rlnOpticsGroup": [2, 1, 2, 1, 1],
    "rlnDefocusU": [1e4, 1.1e4, 1.2e4, 1.3e4, 1.4e4],
    "myColumn": ["p", "q", "r", "s", "t"],
}


def _columns(values: dict) -> dict[str, np.ndarray]:
    return {label: np.array(column, dtype=object if isinstance(column[0], str) else None) for label, column in values.items()}


@pytest.fixture
def stacks(tmp_path):
    """Stacks a (3 images) and b (2 images) of 8 pixels; every image is told from the others by its mean."""
    images = np.random.default_rng(0).normal(size=(5, 8, 8)).astype(np.float32) + np.arange(5)[:, None, None].astype(np.float32)
    mrc.write_stack(tmp_path / "a.mrcs", images[:3], 2.0)
    mrc.write_stack(tmp_path / "b.mrcs", images[3:], 2.0)
    return images


@pytest.fixture
def project(tmp_path, stacks):
    """Writes particles.star with some columns replaced, added, or (None) left out."""

    def write(particle_columns: dict | None = None, optics_columns: dict | None = None):
        tables = []
        for name, defaults, changes in (("optics", OPTICS, optics_columns), ("particles", PARTICLES, particle_columns)):
            values = {label: column for label, column in {**defaults, **(changes or {})}.items() if column is not None}
            tables.append(star.Table(name, _columns(values)))
        path = tmp_path / "particles.star"
        star.write(path, tables)
        return path

    return write


def _poses(count: int) -> SimpleNamespace:
    values = np.arange(count, dtype=float)
    return SimpleNamespace(
        angles=np.stack([values, values + 10, -values], axis=1),
        offsets=np.stack([values / 4, -values], axis=1),
        norm=np.full(count, 0.75),
        pmax=np.full(count, 0.5),
        log_likelihood=values + 1000,
        significant=np.arange(count),
        class_number=np.ones(count, dtype=int),
        signal_fit=np.full(count, 1.25),
    )


def test_rows_are_sorted_by_micrograph_and_missing_columns_get_defaults(project):
    particle_set = particles.load(project())
    assert particle_set.table["myColumn"].tolist() == ["q", "s", "t", "p", "r"]
    assert particle_set.source_row.tolist() == [2, 4, 5, 1, 3]
    assert particle_set.group_names == ("a.mrc", "b.mrc") and particle_set.group_index.tolist() == [0, 0, 0, 1, 1]
    assert particle_set.optics_index.tolist() == [0, 0, 0, 1, 1]
    assert not particle_set.angles.any() and not particle_set.offsets.any() and not particle_set.random_subset.any()
    assert (particle_set.norm == 1).all() and (particle_set.defocus.scale == 1).all()
    assert np.array_equal(particle_set.defocus.defocus_v, [1.1e4, 1.3e4, 1.4e4, 1e4, 1.2e4])


def test_images_come_in_the_order_asked_for(project, stacks):
    particle_set = particles.load(project())
    in_order = stacks[[1, 0, 2, 3, 4]]
    for wanted in ([0, 1, 2, 3, 4], [4, 0, 3, 0], [2]):
        images = particle_set.read_images(np.array(wanted))
        assert images.dtype == np.float32 and np.array_equal(images, in_order[wanted])
    assert particle_set.read_images(np.array([], dtype=int)).shape[0] == 0


def test_group_names_of_the_file_are_kept(project):
    particle_set = particles.load(project({"rlnGroupName": ["y", "x", "y", "x", "z"]}))
    assert particle_set.group_names == ("x", "z", "y") and particle_set.group_index.tolist() == [0, 0, 1, 2, 2]


def test_without_micrograph_names_all_particles_are_one_group_in_the_files_order(project):
    particle_set = particles.load(project({"rlnMicrographName": None}))
    assert particle_set.table["myColumn"].tolist() == ["p", "q", "r", "s", "t"] and len(particle_set.group_names) == 1


def test_optics_numbers_need_not_be_rows(project):
    particle_set = particles.load(project({"rlnOpticsGroup": [3, 7, 3, 7, 7]}, {"rlnOpticsGroup": [7, 3]}))
    assert particle_set.optics_index.tolist() == [0, 0, 0, 1, 1] and particle_set.optics[1].number == 3


def test_aberrations_and_magnification_are_read(project):
    groups = particles.load(
        project(
            optics_columns={
                "rlnOddZernike": ["[0.5,-1,2e-3]", "[]"],
                "rlnEvenZernike": ["[1,2,3,4]", "[0]"],
                "rlnBeamTiltX": [0.5, 0.0],
                "rlnMagMat00": [1.01, 1.0],
                "rlnMagMat01": [0.002, 0.0],
                "rlnCtfDataAreCtfPremultiplied": [1, 0],
            }
        )
    ).optics
    assert groups[0].odd_zernike == (0.5, -1.0, 0.002) and groups[0].even_zernike == (1, 2, 3, 4) and groups[1].odd_zernike == ()
    assert groups[0].beam_tilt == (0.5, 0.0) and groups[0].magnification.tolist() == [[1.01, 0.002], [0.0, 1.0]]
    assert groups[0].premultiplied and not groups[1].premultiplied and np.array_equal(groups[1].magnification, np.eye(2))


def test_the_box_is_taken_from_the_stack_where_the_file_does_not_say(project):
    assert [group.box for group in particles.load(project(optics_columns={"rlnImageSize": None})).optics] == [8, 8]


def test_results_are_written_beside_the_columns_of_the_input(project, tmp_path):
    particle_set = particles.load(project())
    particle_set.write(tmp_path / "run_data.star", _poses(5), np.array([1, 2, 1, 2, 1]))
    table = star.read(tmp_path / "run_data.star")["particles"]
    assert list(table.columns)[:6] == [*PARTICLES, "rlnGroupNumber"]
    assert table["myColumn"].tolist() == ["q", "s", "t", "p", "r"] and table["rlnAngleTilt"].tolist() == [10, 11, 12, 13, 14]
    again = particles.load(tmp_path / "run_data.star")
    assert np.array_equal(again.angles, _poses(5).angles) and np.array_equal(again.offsets, _poses(5).offsets)
    assert again.random_subset.tolist() == [1, 2, 1, 2, 1] and (again.norm == 0.75).all()


def test_before_the_first_iteration_no_scores_are_written(project, tmp_path):
    particles.load(project()).write(tmp_path / "run_it000_data.star", _poses(5), np.ones(5, dtype=int), scored=False)
    table = star.read(tmp_path / "run_it000_data.star")["particles"]
    assert "rlnRandomSubset" in table and "rlnMaxValueProbDistribution" not in table


def test_what_is_refined_with_is_what_is_written(project, tmp_path):
    """A run that is resumed reads it again, and is to go on as if it had not been stopped."""
    path = project({"rlnDefocusAngle": [-81.5, 10.0, 20.0, 30.0, 40.0]}, {"rlnBeamTiltX": [0.125, 0.25]})
    text = path.read_text()
    longer = {"13000.000000": "13000.123456789", "-81.50000": "-81.123456789", "0.125000": "0.123456789", "2.000000": "2.0000012345"}
    for short, long in longer.items():
        assert short in text
        text = text.replace(short, long)
    path.write_text(text)
    first = particles.load(path)
    assert 13000.123457 in first.defocus.defocus_u and -81.12346 in first.defocus.defocus_angle and first.optics[0].beam_tilt[0] == 0.123457
    first.write(tmp_path / "run_data.star", _poses(5), np.array([1, 2, 1, 2, 1]))
    again = particles.load(tmp_path / "run_data.star")
    for field in fields(particles.CtfTable):
        np.testing.assert_array_equal(getattr(first.defocus, field.name), getattr(again.defocus, field.name))
    assert [group.pixel_size for group in first.optics] == [group.pixel_size for group in again.optics] == [2.000001, 2.000001]
    assert [group.beam_tilt for group in first.optics] == [group.beam_tilt for group in again.optics]


def test_a_subset_keeps_images_groups_and_rows_together(project, stacks, tmp_path):
    part = particles.load(project()).subset(np.array([False, True, False, True, True]))
    assert part.count == 3 and part.source_row.tolist() == [4, 1, 3] and part.group_index.tolist() == [0, 1, 1]
    assert np.array_equal(part.read_images(np.arange(3)), stacks[[0, 3, 4]])
    part.write(tmp_path / "part.star", _poses(3), np.array([1, 2, 1]))
    assert star.read(tmp_path / "part.star")["particles"]["myColumn"].tolist() == ["s", "p", "r"]


def _old_file(tmp_path, **changes):
    columns = {label: column for label, column in PARTICLES.items() if label != "rlnOpticsGroup"}
    columns |= {
        "rlnVoltage": [300.0, 300.0, 200.0, 300.0, 300.0],
        "rlnSphericalAberration": [2.7] * 5,
        "rlnAmplitudeContrast": [0.1] * 5,
        "rlnMagnification": [10000.0] * 5,
        "rlnDetectorPixelSize": [2.0] * 5,
        "rlnOriginX": [1.0, 2.0, 3.0, 4.0, 5.0],
        "rlnOriginY": [0.0, -1.0, 0.0, 0.0, 0.5],
    } | changes
    path = tmp_path / "old.star"
    star.write(path, [star.Table("images", _columns({label: column for label, column in columns.items() if column is not None}))])
    return path


def test_a_relion_3_0_file_gets_optics_groups_and_origins_in_angstrom(tmp_path, stacks):
    particle_set = particles.load(_old_file(tmp_path))
    assert [group.voltage for group in particle_set.optics] == [300.0, 200.0] and particle_set.optics_index.tolist() == [0, 0, 0, 0, 1]
    assert particle_set.offsets.tolist() == [[4, -2], [8, 0], [10, 1], [2, 0], [6, 0]]
    assert {group.pixel_size for group in particle_set.optics} == {2.0} and particle_set.optics[0].box == 8
    particle_set.write(tmp_path / "new.star", _poses(5), np.ones(5, dtype=int))
    tables = star.read(tmp_path / "new.star")
    assert tables["optics"].count == 2 and "rlnMagnification" not in tables["particles"] and "rlnOriginX" not in tables["particles"]
    assert particles.load(tmp_path / "new.star").optics_index.tolist() == [0, 0, 0, 0, 1]


def test_an_old_file_without_magnification_takes_the_pixel_size_of_the_stacks(tmp_path, stacks):
    assert particles.load(_old_file(tmp_path, rlnMagnification=None)).optics[0].pixel_size == 2.0


@pytest.mark.parametrize(
    ("particle_columns", "optics_columns", "told"),
    [
        ({"rlnImageName": None}, {}, "no table of particles"),
        ({"rlnDefocusU": None}, {}, "lacks rlnDefocusU"),
        ({"rlnDefocusU": [1, 2, np.nan, 4, 5]}, {}, "row 3: rlnDefocusU is nan"),
        ({"rlnAngleRot": [1, np.inf, 3, 4, np.nan]}, {}, r"row 2: rlnAngleRot is inf \(2 rows"),
        ({"rlnNormCorrection": [1.0, 1.0, 1.0, 0.0, 1.0]}, {}, "row 4: rlnNormCorrection is 0"),
        ({"rlnRandomSubset": [1, 2, 0, 1, 2]}, {}, "row 3: rlnRandomSubset is 0"),
        ({"rlnRandomSubset": [1, 2, 3, 1, 2]}, {}, "row 3: rlnRandomSubset is 3"),
        ({"rlnOpticsGroup": [1, 1, 1, 9, 1]}, {}, "row 4: rlnOpticsGroup is 9"),
        ({"rlnOpticsGroup": None}, {}, "lacks rlnOpticsGroup"),
        ({"rlnImageName": ["1@b.mrcs", "2@a.mrcs", "2@b.mrcs", "1@a.mrcs", "4@a.mrcs"]}, {}, "row 5: .*holds only 3 images"),
        ({"rlnImageName": ["1@b.mrcs", "2@a.mrcs", "2@b.mrcs", "0@a.mrcs", "1@a.mrcs"]}, {}, "row 4: rlnImageName is '0@a.mrcs'"),
        ({"rlnImageName": ["1@b.mrcs", "2@a.mrcs", "2@c.mrcs", "1@a.mrcs", "1@a.mrcs"]}, {}, "row 3: rlnImageName names c.mrcs, which is not there"),
        ({}, {"rlnVoltage": None}, "optics group 1: rlnVoltage is missing"),
        ({}, {"rlnAmplitudeContrast": None}, "optics group 1: rlnAmplitudeContrast is missing"),
        ({}, {"rlnVoltage": [300.0, 300000.0]}, "optics group 2: rlnVoltage is 300000"),
        ({}, {"rlnAmplitudeContrast": [0.1, 10.0]}, "optics group 2: rlnAmplitudeContrast is 10"),
        ({}, {"rlnImagePixelSize": None}, "lacks rlnImagePixelSize"),
        ({}, {"rlnImagePixelSize": [2.0, 0.0]}, "optics group 2: rlnImagePixelSize is 0"),
        ({}, {"rlnImagePixelSize": [2.0, 1.0]}, r"optics group 2 has 1 Angstrom per pixel, but .*b.mrcs says 2"),
        ({}, {"rlnImageSize": [8, 16]}, "row 1: .*b.mrcs holds images of 8 x 8 pixels, but rlnImageSize of optics group 2 is 16"),
        ({}, {"rlnOpticsGroup": [1, 1]}, "several rows with rlnOpticsGroup 1"),
        ({}, {"rlnImageDimensionality": [2, 3]}, "optics group 2: rlnImageDimensionality"),
        ({}, {"rlnOddZernike": ["[1,2]", "[1,x]"]}, r"optics group 2: rlnOddZernike is '\[1,x\]'"),
    ],
)
def test_a_wrong_input_is_named_by_file_row_and_field(project, particle_columns, optics_columns, told):
    path = project(particle_columns, optics_columns)
    with pytest.raises(InputError, match=told) as caught:
        particles.load(path)
    assert str(path) in str(caught.value)


def test_without_ctf_correction_no_ctf_columns_are_needed(project):
    particle_set = particles.load(project({"rlnDefocusU": None}, {"rlnVoltage": None}), need_ctf=False)
    assert particle_set.count == 5 and not particle_set.defocus.defocus_u.any()


def test_an_empty_selection_is_named(tmp_path):
    path = tmp_path / "empty.star"
    path.write_text("data_particles\n\nloop_\n_rlnImageName #1\n")
    with pytest.raises(InputError, match="has no particle"):
        particles.load(path)


def test_a_truncated_stack_is_found_when_loading(project, tmp_path):
    path = project()
    (tmp_path / "b.mrcs").write_bytes((tmp_path / "b.mrcs").read_bytes()[:-10])
    with pytest.raises(InputError, match=r"b\.mrcs: truncated"):
        particles.load(path)


def test_an_odd_box_is_refused(tmp_path, project):
    for name, count in (("a", 3), ("b", 2)):
        mrc.write_stack(tmp_path / f"{name}.mrcs", np.ones((count, 7, 7)), 2.0)
    with pytest.raises(InputError, match="box of 7 pixels is odd"):
        particles.load(project(optics_columns={"rlnImageSize": [7, 7]}))


def test_a_recalibrated_pixel_size_is_only_a_warning(project):
    particle_set = particles.load(project(optics_columns={"rlnImagePixelSize": [2.0, 2.04]}))
    assert len(particle_set.warnings) == 1 and "optics group 2" in particle_set.warnings[0]


def test_images_are_found_from_the_current_folder_and_above_the_star_file(project, stacks, tmp_path, monkeypatch):
    deep = tmp_path / "Refine3D" / "job005"
    deep.mkdir(parents=True)
    path = project().rename(deep / "run_data.star")
    monkeypatch.chdir(deep)
    assert particles.load(path).count == 5
    monkeypatch.chdir(tmp_path)
    assert particles.load("Refine3D/job005/run_data.star").count == 5


def test_images_for_the_last_reconstruction_are_read_where_named(project, stacks):
    particle_set = particles.load(project({"rlnReconstructImageName": ["1@a.mrcs"] * 5}))
    assert np.array_equal(particle_set.read_images(np.array([3]), for_reconstruction=True)[0], stacks[0])
    assert np.array_equal(particle_set.read_images(np.array([3]))[0], stacks[3])


def test_images_of_two_sizes_are_not_read_together(project, tmp_path):
    mrc.write_stack(tmp_path / "b.mrcs", np.ones((2, 12, 12)), 2.0)
    particle_set = particles.load(project(optics_columns={"rlnImageSize": [8, 12]}))
    assert particle_set.read_images(np.array([3, 4])).shape == (2, 12, 12)
    with pytest.raises(ValueError, match="different sizes"):
        particle_set.read_images(np.array([0, 3]))


def test_an_unnormalised_background_is_told():
    images = np.random.default_rng(0).normal(size=(4, 32, 32))
    assert particles.normalisation_warning(images, 12) is None
    assert "4 of 4" in str(particles.normalisation_warning(images * 3, 12))
    assert "4 of 4" in str(particles.normalisation_warning(images + 2, 12))
    images[2] += 2
    assert "in 3@a.mrcs" in str(particles.normalisation_warning(images, 12, [f"{k + 1}@a.mrcs" for k in range(4)]))


def test_relion_5s_data_files_are_rewritten_byte_for_byte(shared_data, tmp_path, monkeypatch):
    monkeypatch.chdir(shared_data / "betagal_10204")  # the folder that image names lead from
    particle_set = particles.load(shared_data / "betagal_10204" / "particles_ctffixed_goodclasses.star")
    assert particle_set.count == 1534 and particle_set.optics[0].box == 64
    for name in ("run_it000_data.star", "run_it004_data.star", "run_data.star"):
        path = shared_data / "relion5_betagal_run" / name
        table = star.read(path)["particles"]
        scored = "rlnMaxValueProbDistribution" in table
        poses = SimpleNamespace(
            angles=np.stack([table[f"rlnAngle{axis}"] for axis in ("Rot", "Tilt", "Psi")], axis=1),
            offsets=np.stack([table[f"rlnOrigin{axis}Angst"] for axis in "XY"], axis=1),
            norm=table["rlnNormCorrection"],
            class_number=table["rlnClassNumber"],
            pmax=table["rlnMaxValueProbDistribution"] if scored else None,
            log_likelihood=table["rlnLogLikeliContribution"] if scored else None,
            significant=table["rlnNrOfSignificantSamples"] if scored else None,
            signal_fit=np.zeros(table.count),
        )
        particle_set.write(tmp_path / name, poses, table["rlnRandomSubset"], scored)
        assert (tmp_path / name).read_bytes() == path.read_bytes()


def test_real_particles_have_the_groups_and_images_that_relion_saw(shared_data):
    particle_set = particles.load(shared_data / "betagal_10204" / "particles_ctffixed_goodclasses.star")
    groups = star.read(shared_data / "relion5_betagal_run" / "run_it001_half1_model.star")["model_groups"]
    assert list(particle_set.group_names) == groups["rlnGroupName"].tolist()
    images = particle_set.read_images(np.arange(0, particle_set.count, 100))
    assert particles.normalisation_warning(images, 28.2) is None


def test_names_of_images_found_beside_the_star_file_lead_from_the_current_folder(project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = particles.load(project()).table["rlnImageName"].tolist()
    home = tmp_path.name
    monkeypatch.chdir(tmp_path.parent)
    moved = particles.load(f"{home}/{project().name}").table["rlnImageName"].tolist()
    assert all(new.partition("@")[2] == f"{home}/{old.partition('@')[2]}" for new, old in zip(moved, given, strict=True))
    assert [int(new.partition("@")[0]) for new in moved] == [int(old.partition("@")[0]) for old in given]
