"""cryoSPARC's .cs files give the tables that the same particles have in RELION."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from aurefine import cryosparc, euler, mrc, particles, star_document
from aurefine.cli.main import main
from aurefine.errors import InputError

COUNT, BOX, PIXEL = 30, 16, 1.5


class Project:
    """Particles with known RELION poses, and cryoSPARC's files of them."""

    def __init__(self, folder):
        rng = np.random.default_rng(0)
        self.folder = folder
        self.angles = np.column_stack([rng.uniform(-180, 180, COUNT), rng.uniform(1, 179, COUNT), rng.uniform(-180, 180, COUNT)])
        self.offsets = rng.normal(0, 4, (COUNT, 2))
        self.images = rng.normal(0, 1, (COUNT, BOX, BOX)).astype(np.float32)
        self.half = rng.permutation(np.arange(COUNT) % 2)
        (folder / "J3" / "extract").mkdir(parents=True)
        mrc.write_stack(folder / "J3" / "extract" / "a.mrc", self.images, PIXEL)
        self.main = {
            "uid": rng.permutation(10**15 + np.arange(COUNT)).astype("u8"),
            "blob/path": np.array([b">J3/extract/a.mrc"] * COUNT),
            "blob/idx": np.arange(COUNT, dtype="u4"),
            "blob/shape": np.full((COUNT, 2), BOX, "u4"),
            "blob/psize_A": np.full(COUNT, PIXEL, "f4"),
            "blob/sign": np.where(np.arange(COUNT) < 5, -1, 1).astype("f4"),
            "ctf/exp_group_id": (np.arange(COUNT) % 2 + 7).astype("u4"),
            "ctf/accel_kv": np.full(COUNT, 300, "f4"),
            "ctf/cs_mm": np.full(COUNT, 2.7, "f4"),
            "ctf/amp_contrast": np.full(COUNT, 0.1, "f4"),
            "ctf/df1_A": rng.uniform(8000, 20000, COUNT).astype("f4"),
            "ctf/df2_A": rng.uniform(8000, 20000, COUNT).astype("f4"),
            "ctf/df_angle_rad": rng.uniform(-1, 1, COUNT).astype("f4"),
            "ctf/phase_shift_rad": np.full(COUNT, np.pi / 2, "f4"),
            "ctf/tilt_A": np.tile(np.array([[2.7e7 * np.sin(0.5e-3), 0]]), (COUNT, 1)).astype("f4"),
            "alignments3D/pose": Rotation.from_matrix(euler.to_matrix(self.angles).transpose(0, 2, 1)).as_rotvec().astype("f4"),
            "alignments3D/shift": (self.offsets / (PIXEL / 2)).astype("f4"),
            "alignments3D/psize_A": np.full(COUNT, PIXEL / 2, "f4"),
            "alignments3D/split": self.half.astype("u4"),
        }
        order = rng.permutation(COUNT)
        self.passthrough = {
            "uid": self.main["uid"][order],
            "location/micrograph_path": np.array([f"J1/mic{row // 10}.mrc".encode() for row in range(COUNT)])[order],
            "location/micrograph_shape": np.tile(np.array([[3000, 4000]], "u4"), (COUNT, 1)),
            "location/center_x_frac": np.linspace(0, 1, COUNT).astype("f4")[order],
            "location/center_y_frac": np.linspace(1, 0, COUNT).astype("f4")[order],
        }

    def write(self, name="J9_particles.cs", fields=None):
        fields = self.main if fields is None else fields
        rows = np.empty(COUNT, dtype=[(key, value.dtype, value.shape[1:]) for key, value in fields.items()])
        for key, value in fields.items():
            rows[key] = value
        path = self.folder / name
        with open(path, "wb") as handle:
            np.save(handle, rows)
        return path


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


def test_poses_offsets_and_half_sets_are_relions(project):
    loaded = particles.load(project.write())
    known, found = euler.to_matrix(project.angles), euler.to_matrix(loaded.angles)
    np.testing.assert_allclose(found, known, atol=1e-5)
    np.testing.assert_allclose(loaded.offsets, project.offsets, atol=1e-5)
    assert loaded.random_subset.tolist() == (project.half + 1).tolist()
    assert loaded.count == COUNT and len(loaded.optics) == 2


def test_a_rotation_about_z_is_rot_plus_psi_turned_back():
    """By hand: cryoSPARC's vector (0, 0, 0.1) turns by 0.1 about z; RELION's A at tilt 0 with rot = 0.1 has +sin in its first row."""
    matrix = cryosparc.pose_matrices(np.array([[0.0, 0, 0.1]]))[0]
    np.testing.assert_allclose(matrix, euler.to_matrix(np.array([[np.rad2deg(0.1), 0, 0]]))[0], atol=1e-12)


def test_microscope_and_defocus_are_taken_over(project):
    loaded = particles.load(project.write())
    group = loaded.optics[0]
    assert (group.voltage, group.box, group.pixel_size) == (300, BOX, PIXEL) and group.spherical_aberration == pytest.approx(2.7)
    assert group.beam_tilt == pytest.approx((0.5, 0), abs=1e-5)
    np.testing.assert_allclose(loaded.defocus.defocus_u, project.main["ctf/df1_A"], rtol=1e-6)
    np.testing.assert_allclose(loaded.defocus.defocus_angle, np.rad2deg(project.main["ctf/df_angle_rad"]), rtol=1e-6, atol=5e-6)
    np.testing.assert_allclose(loaded.defocus.phase_shift, 90, rtol=1e-6)


def test_dark_particles_are_inverted_also_after_they_were_written_as_star(project):
    loaded = particles.load(project.write())
    wanted = project.images * np.where(np.arange(COUNT) < 5, -1, 1)[:, None, None]
    np.testing.assert_array_equal(loaded.read_images(np.arange(COUNT)), wanted)
    np.testing.assert_array_equal(loaded.subset(np.arange(3, 8)).read_images(np.array([4, 0])), wanted[[7, 3]])
    assert main(["star", "--i", "J9_particles.cs", "--o", "converted.star"]) == 0
    again = particles.load("converted.star")
    np.testing.assert_array_equal(again.read_images(np.arange(COUNT)), wanted)
    np.testing.assert_allclose(euler.to_matrix(again.angles), euler.to_matrix(project.angles), atol=1e-5)


def test_the_passthrough_file_beside_is_joined_by_uid(project):
    path = project.write()
    project.write("P1_J9_passthrough_particles.cs", project.passthrough)
    rows = star_document.load(path).rows
    order = np.argsort(rows["cryosparcUid"].astype(int))
    assert rows["rlnMicrographName"].tolist() == [f"J1/mic{row // 10}.mrc" for row in range(COUNT)]
    np.testing.assert_allclose(rows["rlnCoordinateX"], np.linspace(0, 4000, COUNT), rtol=1e-6)
    np.testing.assert_allclose(rows["rlnCoordinateY"], np.linspace(3000, 0, COUNT), rtol=1e-6, atol=1e-3)
    assert len(order) == COUNT and particles.load(path).group_names == ("J1/mic0.mrc", "J1/mic1.mrc", "J1/mic2.mrc")


def test_of_several_classes_the_likeliest_poses_count(project):
    fields = {name: column for name, column in project.main.items() if not name.startswith("alignments3D")}
    chosen = np.arange(COUNT) % 2
    for number in (0, 1):
        right = (chosen == number).astype("f4")
        pose = project.main["alignments3D/pose"] * right[:, None]
        fields |= {f"alignments_class_{number}/pose": pose, f"alignments_class_{number}/shift": project.main["alignments3D/shift"],
                   f"alignments_class_{number}/psize_A": project.main["alignments3D/psize_A"],
                   f"alignments_class_{number}/class_posterior": 0.1 + 0.8 * right}  # fmt: skip
    loaded = particles.load(project.write(fields=fields))
    np.testing.assert_allclose(euler.to_matrix(loaded.angles), euler.to_matrix(project.angles), atol=1e-5)
    assert loaded.class_number.tolist() == (chosen + 1).tolist() and not loaded.random_subset.any()


def test_aberrations_that_are_not_read_are_told(project):
    loaded = particles.load(project.write(fields={**project.main, "ctf/trefoil_A": np.ones((COUNT, 2), "f4")}))
    assert any("trefoil" in note for note in loaded.warnings)


def test_a_real_export_of_a_2d_job_is_read(shared_data):
    tables, notes = cryosparc.read(shared_data / "star" / "cryosparc_J2_particles_exported.cs")
    rows = tables["particles"]
    assert rows.count == 22 and rows["rlnImageName"][0] == "000001@J1/imported/000090334788266266069_18jam15b_0345_ali_DW.mrcs"
    assert tables["optics"]["rlnImagePixelSize"][0] == pytest.approx(1.345) and "rlnAngleRot" not in rows
    assert rows["rlnDefocusU"][0] == pytest.approx(16412.178, abs=1e-3) and any("no 3D poses" in note for note in notes)
    assert (rows[cryosparc.SIGN] == -1).all()


BROKEN = {
    "no cs file": lambda data: b"data_\n",
    "cut short": lambda data: data[:-40],
    "header cut": lambda data: data[:40],
    "compressed": lambda data: b"\x94CSDAT" + data,
    "gigantic": lambda data: data.replace(b"'shape': (30,)", b"'shape': (3000000000000,)").replace(b"\x93NUMPY\x01", b"\x93NUMPY\x01"),
    "empty": lambda data: b"",
    "another array": lambda data: data[:128].replace(b"descr", b"dexcr"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_damaged_file_is_refused_in_one_message(project, how):
    path = project.write()
    path.write_bytes(BROKEN[how](path.read_bytes()))
    with pytest.raises(InputError, match=r"J9_particles\.cs"):
        cryosparc.read(path)


def test_files_without_images_and_objects_are_refused(project):
    with pytest.raises(InputError, match="blob/path"):
        cryosparc.read(project.write("micrographs.cs", project.passthrough))
    with open(project.folder / "o.cs", "wb") as handle:
        np.save(handle, np.array([({},)], dtype=[("a", object)]), allow_pickle=True)
    with pytest.raises(InputError, match="rows of fields"):
        cryosparc.read(project.folder / "o.cs")
    with pytest.raises(InputError, match="no such file"):
        cryosparc.read("none.cs")


def test_missing_stacks_are_named(project):
    path = project.write(fields={**project.main, "blob/path": np.array([b"J3/extract/b.mrc"] * COUNT)})
    with pytest.raises(InputError, match=r"J3/extract/b\.mrc"):
        particles.load(path)
