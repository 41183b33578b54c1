"""The same particles as cryoSPARC's .cs files and as RELION 3.0's single table: reconstructed, refined, selected, validated, extracted again."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from aurefine import compare, euler, molecule, mrc, particles, simulate, star
from aurefine.cli.main import main
from aurefine.imaging import Camera, Imaging
from aurefine.symmetry import point_group

BOX, PIXEL_SIZE, COUNT, SYMMETRY = 32, 7.08, 120, "D2"
ROWS, COLUMNS = 520, 510
SHIFT_PIXEL = PIXEL_SIZE / 2  # cryoSPARC counts shifts in pixels of the alignment, here of images twice as large
REFINE = ("--auto_refine --split_random_halves --ref reference.mrc --firstiter_cc --ini_high 50 --pad 2 --auto_ignore_angles --auto_resol_angles "
          "--ctf --flatten_solvent --zero_mask --healpix_order 2 --auto_local_healpix_order 4 --offset_range 5 --offset_step 2 --sym D2 "
          "--low_resol_join_halves 40 --norm --scale --random_seed 1")  # fmt: skip


@dataclass(frozen=True)
class Known:
    """What was simulated, in the folder that the tests work in; `half` is 1 or 2 for each row of truth.star."""

    made: simulate.SimulatedSet
    truth: star.Table
    optics: star.Table
    half: np.ndarray


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("foreign")


@pytest.fixture(scope="module")
def known(folder: Path) -> Known:
    imaging = Imaging(particles=COUNT, cameras=(Camera(PIXEL_SIZE, BOX),), snr=0.3, reference_resolution=50, seed=1)
    made = simulate.simulate(molecule.generate(SYMMETRY, seed=1), folder, imaging)
    tables = star.read(made.truth)
    near = {f"rlnCoordinate{axis}": np.floor(tables["particles"][f"rlnCoordinate{axis}"] / 8) for axis in "XY"}  # small micrographs will do
    star.write(made.truth, [tables["optics"], tables["particles"].with_columns(near)])
    tables = star.read(made.truth)
    half = np.random.default_rng(2).permutation(np.arange(COUNT) % 2) + 1
    return Known(made, tables["particles"], tables["optics"], half)


@pytest.fixture(autouse=True)
def entered(folder: Path, known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def save(path: Path, fields: dict[str, np.ndarray]) -> None:
    rows = np.empty(COUNT, dtype=[(name, values.dtype, values.shape[1:]) for name, values in fields.items()])
    for name, values in fields.items():
        rows[name] = values
    with open(path, "wb") as handle:
        np.save(handle, rows)


def rotation_vectors(matrices: np.ndarray) -> np.ndarray:
    """Axis times angle, by the eigenvector of eigenvalue 1."""
    angle = np.arccos(np.clip((np.trace(matrices, axis1=1, axis2=2) - 1) / 2, -1, 1))
    axis = np.stack([matrices[:, 2, 1] - matrices[:, 1, 2], matrices[:, 0, 2] - matrices[:, 2, 0], matrices[:, 1, 0] - matrices[:, 0, 1]], axis=1)
    return axis / np.linalg.norm(axis, axis=1, keepdims=True) * angle[:, None]


@pytest.fixture(scope="module")
def cryosparc_file(folder: Path, known: Known) -> str:
    """The particles as a cryoSPARC refinement exports them: dark on bright, poses, CTF and half-sets in one file, places in the passthrough."""
    truth = known.truth
    names = [name.partition("@") for name in truth["rlnImageName"].tolist()]
    (folder / "J2/extract").mkdir(parents=True)
    for stack in sorted({name[2] for name in names}):
        whole = mrc.Stack(folder / stack)
        mrc.write_stack(folder / "J2/extract" / Path(stack).name.replace(".mrcs", ".mrc"), -whole.read(np.arange(whole.count)), PIXEL_SIZE)
    matrices = euler.to_matrix(np.column_stack([truth[f"rlnAngle{axis}"] for axis in ("Rot", "Tilt", "Psi")]))
    uid = np.random.default_rng(3).permutation(10**18 + np.arange(COUNT)).astype("u8")
    one = np.ones(COUNT, "f4")
    save(folder / "J5_particles.cs", {
        "uid": uid, "blob/path": np.array([f">J2/extract/{Path(name[2]).stem}.mrc".encode() for name in names]),
        "blob/idx": np.array([int(name[0]) - 1 for name in names], "u4"), "blob/shape": np.full((COUNT, 2), BOX, "u4"),
        "blob/psize_A": one * np.float32(PIXEL_SIZE), "blob/sign": -one, "ctf/accel_kv": 200 * one, "ctf/cs_mm": np.float32(1.4) * one,
        "ctf/amp_contrast": np.float32(0.1) * one, "ctf/df1_A": truth["rlnDefocusU"].astype("f4"), "ctf/df2_A": truth["rlnDefocusV"].astype("f4"),
        "ctf/df_angle_rad": np.deg2rad(truth["rlnDefocusAngle"]).astype("f4"), "ctf/phase_shift_rad": 0 * one,
        "alignments3D/pose": rotation_vectors(matrices.transpose(0, 2, 1)).astype("f4"), "alignments3D/psize_A": one * np.float32(SHIFT_PIXEL),
        "alignments3D/shift": (np.column_stack([truth["rlnOriginXAngst"], truth["rlnOriginYAngst"]]) / SHIFT_PIXEL).astype("f4"),
        "alignments3D/split": (known.half - 1).astype("u4")})  # fmt: skip
    order = np.random.default_rng(4).permutation(COUNT)
    passthrough = {"uid": uid, "location/micrograph_path": np.array([name.encode() for name in truth["rlnMicrographName"].tolist()]),
                   "location/micrograph_shape": np.tile(np.array([[ROWS, COLUMNS]], "u4"), (COUNT, 1)),
                   "location/center_x_frac": (truth["rlnCoordinateX"] / COLUMNS).astype("f4"),
                   "location/center_y_frac": (truth["rlnCoordinateY"] / ROWS).astype("f4")}  # fmt: skip
    save(folder / "J5_passthrough_particles.cs", {name: values[order] for name, values in passthrough.items()})
    return "J5_particles.cs"


@pytest.fixture(scope="module")
def old_file(folder: Path, known: Known) -> str:
    """The particles as a refinement by RELION 3.0 left them: one table, origins in pixels, the pixel size by magnification and detector."""
    truth, columns = known.truth, {}
    for label in truth.columns:
        if label not in ("rlnOpticsGroup", "rlnOriginXAngst", "rlnOriginYAngst"):
            columns[label] = truth[label]
    whole = {"rlnVoltage": 200.0, "rlnSphericalAberration": 1.4, "rlnAmplitudeContrast": 0.1, "rlnMagnification": 10000.0,
             "rlnDetectorPixelSize": PIXEL_SIZE}  # fmt: skip
    columns |= {label: np.full(COUNT, value) for label, value in whole.items()}
    columns |= {f"rlnOrigin{axis}": truth[f"rlnOrigin{axis}Angst"] / PIXEL_SIZE for axis in "XY"} | {"rlnRandomSubset": known.half}
    star.write(folder / "old_data.star", [star.Table("", columns)], version=30000)
    assert "data_optics" not in (folder / "old_data.star").read_text()
    return "old_data.star"


@pytest.mark.parametrize("kind", ["cryosparc_file", "old_file"])
def test_the_poses_reconstruct_the_map_that_the_truth_reconstructs(kind: str, request: pytest.FixtureRequest) -> None:
    for source, output in ((request.getfixturevalue(kind), f"{kind}.mrc"), ("truth.star", f"{kind}_truth.mrc")):
        assert main(["reconstruct", "--i", source, "--o", output, "--sym", SYMMETRY, "--ctf"]) == 0
    ours, true = (mrc.read_map(name)[0] for name in (f"{kind}.mrc", f"{kind}_truth.mrc"))
    assert np.abs(ours - true).max() < 2e-3 * np.ptp(true)


@pytest.fixture(scope="module")
def refined(folder: Path, known: Known, cryosparc_file: str, old_file: str) -> dict[str, Path]:
    """Both refined to convergence; the roots of their runs."""
    roots = {"cryosparc": folder / "cryosparc/run", "old": folder / "old/run"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for (name, root), source in zip(roots.items(), (cryosparc_file, old_file), strict=True):
            root.parent.mkdir()
            words = ["refine", "--i", source, "--o", f"{name}/run", "--particle_diameter", f"{known.made.particle_diameter:.0f}", *REFINE.split()]
            assert main(words) == 0
    return roots


@pytest.mark.parametrize("kind", ["cryosparc", "old"])
def test_a_refinement_converges_near_the_truth_and_keeps_the_half_sets(kind: str, refined: dict[str, Path], known: Known) -> None:
    tables = star.read(f"{kind}/run_data.star")
    rows = tables["particles"]
    assert {"rlnOriginXAngst", "rlnOpticsGroup"} <= set(rows.columns) and "rlnOriginX" not in rows
    assert tables["optics"]["rlnImagePixelSize"].tolist() == pytest.approx([PIXEL_SIZE], rel=1e-6)
    key = [(Path(name.partition("@")[2]).stem, int(name.partition("@")[0])) for name in rows["rlnImageName"].tolist()]
    true = [(Path(name.partition("@")[2]).stem, int(name.partition("@")[0])) for name in known.truth["rlnImageName"].tolist()]
    assert rows["rlnRandomSubset"].tolist() == [known.half[true.index(each)] for each in key]
    renamed = rows.with_columns({"rlnImageName": known.truth["rlnImageName"][[true.index(each) for each in key]]})
    star.write(f"{kind}_found.star", [tables["optics"], renamed])
    errors = compare.pose_errors(Path(f"{kind}_found.star"), known.made.truth, SYMMETRY)
    assert errors["angle_median"] < 7 and errors["shift_median"] < 0.4 * PIXEL_SIZE
    found = compare.map_file_fsc(Path(f"{kind}/run_class001.mrc"), known.made.truth_map, known.made.particle_diameter / 2)
    assert found.summary()["mean_fsc"] > found.summary()["mirror_mean_fsc"] + 0.05


@pytest.mark.parametrize("kind", ["cryosparc_file", "old_file"])
def test_local_searches_start_from_the_poses_of_the_file(kind: str, request: pytest.FixtureRequest, known: Known) -> None:
    """One iteration of searches within a few degrees: no view ends far from the one that the file gives."""
    source, output = request.getfixturevalue(kind), f"{kind}_local/"
    shutil.rmtree(output, ignore_errors=True)
    Path(output).mkdir()
    words = REFINE.replace("--firstiter_cc ", "").replace("--healpix_order 2", "--healpix_order 4").split()
    assert main(["refine", "--i", source, "--o", f"{output}run", "--particle_diameter", f"{known.made.particle_diameter:.0f}", *words]) == 0
    given = dict(by_image(particles.load(source)))
    found = dict(by_image(particles.load(f"{output}run_it001_data.star")))
    assert len(found) == COUNT
    here, there = (euler.to_matrix(np.array([poses[name] for name in given])) for poses in (found, given))
    assert euler.angular_difference(here, there, point_group(SYMMETRY)).max() < 15  # by chance 40 and more


def by_image(loaded: particles.ParticleSet) -> list[tuple[str, np.ndarray]]:
    """Name of each image without folders, and its pose."""
    names = loaded.table["rlnImageName"].tolist()
    return [(f"{int(name.partition('@')[0])}@{Path(name).stem}", angles) for name, angles in zip(names, loaded.angles, strict=True)]


@pytest.mark.parametrize("kind", ["cryosparc", "old"])
def test_a_finished_run_of_such_particles_can_be_validated_and_reported(kind: str, refined: dict[str, Path]) -> None:
    assert main(["validate", "--i", f"{kind}/run", "--o", f"{kind}/validation/", "--j", "1", "--skip_reslog"]) == 0
    assert any(Path(f"{kind}/validation").iterdir())


@pytest.mark.parametrize("kind", ["cryosparc_file", "old_file"])
def test_such_particles_are_selected(kind: str, request: pytest.FixtureRequest, known: Known) -> None:
    source, output = request.getfixturevalue(kind), f"{kind}_selected.star"
    assert main(["select", "--i", source, "--o", output, "--select", "rlnRandomSubset", "--minval", "2"]) == 0
    loaded = particles.load(output)
    assert loaded.count == COUNT // 2 and set(loaded.random_subset.tolist()) == {2}
    assert loaded.optics[0].pixel_size == pytest.approx(PIXEL_SIZE, rel=1e-6)
    whole = particles.load(source)
    np.testing.assert_allclose(np.sort(loaded.offsets[:, 0]), np.sort(whole.offsets[whole.random_subset == 2][:, 0]), atol=1e-4)
    assert np.isfinite(loaded.read_images(np.arange(4))).all()


@pytest.fixture(scope="module")
def micrographs(folder: Path, known: Known) -> str:
    """Noise to extract from, as RELION 3.0 lists it."""
    names = sorted(set(known.truth["rlnMicrographName"].tolist()))
    (folder / "Micrographs").mkdir(exist_ok=True)
    rng = np.random.default_rng(6)
    for name in names:
        mrc.write_stack(folder / name, rng.standard_normal((1, ROWS, COLUMNS), dtype=np.float32), PIXEL_SIZE)
    count = len(names)
    star.write(folder / "old_micrographs.star", [star.Table("", {
        "rlnMicrographName": np.array(names, dtype=object), "rlnVoltage": np.full(count, 200.0), "rlnSphericalAberration": np.full(count, 1.4),
        "rlnAmplitudeContrast": np.full(count, 0.1), "rlnMagnification": np.full(count, 10000.0), "rlnDetectorPixelSize": np.full(count, PIXEL_SIZE),
        "rlnDefocusU": np.full(count, 12000.0), "rlnDefocusV": np.full(count, 12000.0), "rlnDefocusAngle": np.zeros(count)})],
        version=30000)  # fmt: skip
    return "old_micrographs.star"


@pytest.mark.parametrize("kind", ["cryosparc_file", "old_file"])
def test_such_particles_are_extracted_again_where_their_offsets_put_them(
    kind: str, request: pytest.FixtureRequest, micrographs: str, known: Known
) -> None:
    shutil.rmtree("again", ignore_errors=True)
    words = ["extract", "--i", micrographs, "--reextract_data_star", request.getfixturevalue(kind), "--recenter", "--extract_size", "24",
             "--part_dir", "again/", "--norm", "--bg_radius", "9"]  # fmt: skip
    assert main(words) == 0
    tables = star.read("again/particles.star")
    rows, truth = tables["particles"], known.truth
    assert tables["optics"]["rlnImagePixelSize"].tolist() == pytest.approx([PIXEL_SIZE], rel=1e-6) and rows.count == COUNT
    before = {(name, round(x), round(y)) for name, x, y in zip(truth["rlnMicrographName"], *centres(truth), strict=True)}
    after = {(name, round(x), round(y)) for name, x, y in zip(rows["rlnMicrographName"], *centres(rows), strict=True)}
    assert before == after
    assert "cryosparcBlobSign" not in rows  # it is said of the former images
    assert np.abs(rows["rlnOriginXAngst"]).max() <= PIXEL_SIZE / 2 + 1e-3


def centres(rows: star.Table) -> tuple[np.ndarray, np.ndarray]:
    """Where the particles are, in tenths of a pixel: coordinate minus offset."""
    x, y = (10 * (rows[f"rlnCoordinate{axis}"] - rows[f"rlnOrigin{axis}Angst"] / PIXEL_SIZE) for axis in "XY")
    return x, y
