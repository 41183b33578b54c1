"""Extraction of picked and refined particles: what is written, and what goes wrong with one micrograph and leaves the others alone."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import extraction_project as project
import numpy as np
import pytest

from aurefine import euler, mrc, particles, star
from aurefine.cli.main import main
from aurefine.errors import InputError
from aurefine.extraction import ExtractOptions, extract
from aurefine.extraction.refined import _ends
from aurefine.job_control import ABORT_NOW, ABORTED, FAILURE, SUCCESS, JobAborted, JobControl

PICKED = ["extract", "--i", "ctf.star", "--coord_list", "autopick.star", "--extract_size", "64"]
COUNT = len(project.PICKS)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    project.make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def picked(output="E", **options):
    return ExtractOptions(**{"micrographs": "ctf.star", "coordinate_list": "autopick.star", "output_folder": output, "box": 64, **options})


def change(path, block, **columns):
    tables = star.read(path)
    star.write(path, {**tables, block: tables[block].with_columns(columns)}, version=30001)


def extracted(output="E"):
    return star.read(f"{output}/particles.star")["particles"]


def test_the_particles_can_be_refined_as_they_are():
    done = extract(picked(rescale=48, normalise=True, background_radius=18, float16=True, pick_star="E/extractpick.star"))
    assert (done.particles, done.micrographs) == (3 * COUNT, 3)
    loaded = particles.load("E/particles.star")
    assert loaded.count == 3 * COUNT and loaded.optics[0].box == 48
    assert loaded.optics[1].pixel_size == pytest.approx(project.PIXEL_SIZE * 64 / 48, abs=1e-6)
    assert loaded.read_images(np.arange(4)).shape == (4, 48, 48)
    header = mrc.read_header("E/Movies/mic0.mrcs")
    assert header.dtype == np.dtype("<f2") and header.pixel_size == pytest.approx(project.PIXEL_SIZE * 64 / 48, abs=1e-5)
    assert not star.read("E/particles.star")["optics"]["rlnCtfDataAreCtfPremultiplied"].any()


def test_coordinates_of_an_extraction_can_be_extracted_again():
    extract(picked(pick_star="E/extractpick.star"))
    assert star.read("E/extractpick.star")["coordinate_files"]["rlnMicrographName"].tolist() == [project.name(number) for number in range(3)]
    extract(picked("F", coordinate_list="E/extractpick.star"))
    np.testing.assert_array_equal(extracted("F")["rlnCoordinateX"], extracted("E")["rlnCoordinateX"])
    np.testing.assert_array_equal(mrc.Stack("F/Movies/mic1.mrcs").read([2]), mrc.Stack("E/Movies/mic1.mrcs").read([2]))


def test_threads_do_not_change_a_bit():
    for threads in (1, 3):
        extract(picked(f"E{threads}", threads=threads, normalise=True, background_radius=24, white_dust=2.0))
    for number in range(3):
        one, other = (mrc.Stack(f"E{threads}/Movies/mic{number}.mrcs").read(range(COUNT)) for threads in (1, 3))
        np.testing.assert_array_equal(one, other)


def test_picks_below_the_figure_of_merit_are_left_out():
    extract(picked(minimum_fom=0.35))
    assert extracted()["rlnAutopickFigureOfMerit"].min() >= 0.35
    assert mrc.Stack("E/Movies/mic0.mrcs").count == 3


def test_recentring_puts_the_projected_point_in_the_centre(folder):
    centre, pixel, binned = np.array([6.0, -4.0, 9.0]), project.PIXEL_SIZE, project.PIXEL_SIZE * 2
    rng = np.random.default_rng(4)
    angles, offsets = rng.uniform(0, 180, (8, 3)), rng.normal(0, 5, (8, 2))
    coordinates = np.stack([np.tile([80.0, 160.0, 240.0, 300.0], 2), np.repeat([90.0, 200.0], 4)], axis=1)
    # the particle is centred by moving its image by the offset; the point of the reference, in its pixels, is projected by the rotation
    point = coordinates - offsets / pixel + 2 * (euler.to_matrix(angles) @ centre)[:, :2]
    image = np.zeros((project.ROWS, project.COLUMNS), dtype=np.float32)
    image[tuple(np.round(point[:, ::-1]).astype(int).T)] = 100
    mrc.write_stack(project.name(0), image[None], pixel)
    optics = project.optics().with_columns({"rlnImagePixelSize": np.full(2, binned), "rlnImageSize": np.full(2, 32)})
    table = {"rlnMicrographName": project.texts(*[project.name(0)] * 8), "rlnImageName": project.texts(*[f"{row}@gone.mrcs" for row in range(1, 9)]),
             "rlnOpticsGroup": np.ones(8, int), "rlnCoordinateX": coordinates[:, 0], "rlnCoordinateY": coordinates[:, 1]}  # fmt: skip
    table |= dict(zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), angles.T, strict=True))
    table |= dict(zip(("rlnOriginXAngst", "rlnOriginYAngst"), offsets.T, strict=True))
    star.write("run_data.star", [optics, star.Table("particles", table)])
    extract(ExtractOptions(micrographs="ctf.star", refined_particles="run_data.star", recenter=True, recenter_x=6, recenter_y=-4, recenter_z=9,
                           output_folder="E", box=24))  # fmt: skip
    rest = np.stack([extracted()[f"rlnOrigin{axis}Angst"] for axis in "XY"], axis=1) / pixel
    for image, offset in zip(mrc.Stack("E/Movies/mic0.mrcs").read(range(8)), rest, strict=True):
        y, x = np.unravel_index(image.argmax(), image.shape)
        assert np.abs(np.array([x, y]) - 12 + offset).max() < 1.6  # fractions of the coordinate and of the lit pixel
        assert np.abs(offset).max() <= 0.5


@pytest.mark.parametrize("damage, message", [
    ("outside", "lie outside the micrograph of 360 x 300 pixels, such as number 7 at 900, 100"),
    ("missing", "MotionCorr/job002/Movies/mic1.mrc: there is no such micrograph, but it has 6 particles"),
    ("group", "rlnOpticsGroup 7 has no row in data_optics"),
    ("cut short", "truncated"),
    ("nan", "not finite"),
    ("movie", "holds 2 images; one micrograph was expected"),
    ("picks", r"mic1_pick.star, row 1: rlnCoordinateX is nan"),
])  # fmt: skip
def test_one_bad_micrograph_leaves_the_others_done_and_the_job_failed(folder, capsys, damage, message):
    picture, picks = folder / project.name(1), folder / "AutoPick/job004/Movies/mic1_pick.star"
    good = picture.read_bytes(), picks.read_bytes(), (folder / "ctf.star").read_bytes()
    if damage == "outside":
        project.write_picks(picks, np.vstack([project.PICKS, [[900.0, 100.0]]]))
    elif damage == "missing":
        picture.unlink()
    elif damage == "group":
        change("ctf.star", "micrographs", rlnOpticsGroup=np.array([1, 7, 1]))
    elif damage == "cut short":
        picture.write_bytes(good[0][:5000])
    elif damage == "nan":
        image = project.micrograph(1)
        image[3, 4] = np.nan
        mrc.write_stack(picture, image[None], project.PIXEL_SIZE)
    elif damage == "movie":
        mrc.write_stack(picture, np.stack([project.micrograph(1)] * 2), project.PIXEL_SIZE)
    else:
        project.write_picks(picks, np.full((2, 2), np.nan))
    assert main([*PICKED, "--part_dir", "E/", "--pipeline_control", "E/"]) == 2
    error = capsys.readouterr().err
    assert message in error and "1 of 3 micrographs with particles could not be extracted" in error
    assert (folder / "E" / FAILURE).exists() and not (folder / "E" / SUCCESS).exists()
    assert set(extracted()["rlnMicrographName"]) == {project.name(0), project.name(2)}
    assert not (folder / "E/Movies/mic1.mrcs").exists()

    for path, data in zip((picture, picks, folder / "ctf.star"), good, strict=True):
        path.write_bytes(data)
    before = (folder / "E/Movies/mic0.mrcs").stat().st_mtime_ns
    assert main([*PICKED, "--part_dir", "E/", "--pipeline_control", "E/", "--only_do_unfinished"]) == 0
    assert (folder / "E" / SUCCESS).exists() and not (folder / "E" / FAILURE).exists()
    assert extracted().count == 3 * COUNT and (folder / "E/Movies/mic0.mrcs").stat().st_mtime_ns == before


def test_a_stopped_job_keeps_what_is_finished(folder):
    class Stop(JobControl):
        calls = 0

        def check(self):
            self.calls += 1
            if self.calls > 1:
                raise JobAborted("stopped")

    with pytest.raises(JobAborted):
        extract(picked(threads=1), Stop())
    assert not (folder / "E/particles.star").exists()
    finished = list((folder / "E").rglob("*_extract.star"))
    assert finished
    extract(picked(only_unfinished=True))
    assert extracted().count == 3 * COUNT


def test_the_gui_can_stop_the_job(folder, monkeypatch):
    from aurefine.extraction import worker

    write = worker.Task.write

    def stop(task):
        if task.micrograph.row == 0:
            (folder / "E" / ABORT_NOW).touch()
            time.sleep(0.1)
        return write(task)

    monkeypatch.setattr(worker.Task, "write", stop)
    assert main([*PICKED, "--part_dir", "E/", "--pipeline_control", "E/", "--j", "1"]) == 2
    assert (folder / "E" / ABORTED).exists() and not (folder / "E" / ABORT_NOW).exists()


@pytest.mark.parametrize("options, message", [
    ({"rescale": 80}, "--scale 80 is larger than --extract_size 64"),
    ({"box": 63}, "--extract_size 63 is odd"),
    ({"box": -1}, "--extract_size is missing"),
    ({"normalise": True}, "--norm needs --bg_radius"),
    ({"normalise": True, "background_radius": 25, "rescale": 48}, "--bg_radius 25 leaves no background in the final box of 48"),
    ({"coordinate_list": ""}, "none was given"),
    ({"coordinate_suffix": "_pick.star"}, "--coord_list and --coord_suffix were given"),
    ({"recenter": True}, "--recenter needs refined particles"),
    ({"coordinate_list": "", "refined_particles": "x.star", "reset_offsets": True, "recenter": True}, "exclude each other"),
    ({"coordinate_list": "", "refined_particles": "x.star", "recenter_x": 3.0}, "no effect without --recenter"),
    ({"premultiply_ctf": True, "phase_flip": True}, "exclude each other"),
    ({"premultiply_ctf": True, "premultiply_box": 32}, "--premultiply_extract_size 32"),
    ({"ctf_intact_first_peak": True}, "no effect without --premultiply_ctf"),
    ({"pixel_size": 1.2}, "--angpix 1.2 contradicts ctf.star, whose optics group 1 says 0.885"),
    ({"micrographs": "nowhere.star"}, "nowhere.star: there is no such file"),
    ({"coordinate_list": "ctf.star"}, "no table with rlnMicrographName and rlnMicrographCoordinates"),
    ({"coordinate_list": "", "coordinate_suffix": "_none.star"}, "no micrograph has a file of coordinates; looked for names such as MotionCorr"),
    ({"particles_star": "E/particles.txt"}, "--part_star E/particles.txt: a name that ends in .star"),
    ({"output_folder": "ctf.star"}, "ctf.star: the output folder cannot be made (a part of this name is a file); choose another one with --part_dir"),
    ({"output_folder": "./", "particles_star": "ctf.star/p.star"}, "choose another one with --part_star"),
])  # fmt: skip
def test_mistakes_are_named_before_anything_is_written(folder, options, message):
    with pytest.raises(InputError) as raised:
        extract(picked(**options))
    assert message in str(raised.value)
    assert not (folder / "E").exists()


def test_existing_output_is_kept_unless_told_otherwise(folder):
    extract(picked())
    before = (folder / "E/Movies/mic0.mrcs").read_bytes()
    with pytest.raises(InputError, match="E/particles.star and 3 other files exist already; go on with --only_do_unfinished"):
        extract(picked(box=32))
    assert (folder / "E/Movies/mic0.mrcs").read_bytes() == before
    with pytest.raises(InputError, match="finished with boxes of 64 pixels, but now 32 are asked for"):
        extract(picked(box=32, only_unfinished=True))
    extract(picked(box=32, overwrite=True))
    assert mrc.read_header("E/Movies/mic2.mrcs").columns == 32


def test_a_stack_that_does_not_fit_its_table_is_made_again(folder):
    extract(picked())
    mrc.write_stack("E/Movies/mic1.mrcs", np.zeros((2, 64, 64)), 1.0)
    extract(picked(only_unfinished=True))
    assert mrc.Stack("E/Movies/mic1.mrcs").count == COUNT


def test_micrographs_that_would_share_a_stack_are_refused():
    change("ctf.star", "micrographs", rlnMicrographName=project.texts("A/job001/x.mrc", "B/job002/x.mrc", "C/job003/y.mrc"))
    with pytest.raises(InputError, match=r"row 2: B/job002/x.mrc and A/job001/x.mrc \(row 1\) would both be extracted to E/x.mrcs"):
        extract(picked())


def test_output_stays_inside_its_folder(folder):
    mrc.write_stack(folder.parent / "outer.mrc", project.micrograph(0)[None], project.PIXEL_SIZE)
    project.write_picks(folder.parent / "outer_pick.star", project.PICKS)
    change("ctf.star", "micrographs", rlnMicrographName=project.texts("../outer.mrc", project.name(1), project.name(2)))
    extract(picked(coordinate_list="", coordinate_suffix="_pick.star"))
    assert (folder / "E/outer.mrcs").exists()


def bare_list(*columns):
    star.write("bare.star", [star.Table("", {"rlnMicrographName": project.texts(*map(project.name, range(3))), **dict(columns)})])


def test_micrographs_without_ctf_and_pixel_size_take_it_by_hand():
    bare_list()
    with pytest.raises(InputError, match="no data_optics and no pixel size; give the micrographs' pixel size in Angstrom with --angpix"):
        extract(picked(micrographs="bare.star"))
    extract(picked(micrographs="bare.star", pixel_size=1.1, rescale=32))
    optics = star.read("E/particles.star")["optics"]
    assert optics["rlnImagePixelSize"][0] == pytest.approx(2.2) and "rlnDefocusU" not in extracted()
    with pytest.raises(InputError, match="rlnDefocusU, which --premultiply_ctf and --phase_flip need"):
        extract(picked("F", micrographs="bare.star", pixel_size=1.1, phase_flip=True))


def test_micrographs_of_relion_3_0_are_read():
    values = {"rlnMagnification": 50000.0, "rlnDetectorPixelSize": 5.0, "rlnVoltage": 300.0, "rlnSphericalAberration": 2.7,
              "rlnAmplitudeContrast": 0.1, "rlnDefocusU": 9000.0}  # fmt: skip
    bare_list(*((label, np.full(3, value)) for label, value in values.items()))
    extract(picked(micrographs="bare.star"))
    optics = star.read("E/particles.star")["optics"]
    assert optics["rlnImagePixelSize"].tolist() == [1.0] and optics["rlnVoltage"].tolist() == [300.0]
    assert (extracted()["rlnDefocusV"] == 9000).all()


def test_each_optics_group_has_its_own_pixel_size():
    change("ctf.star", "optics", rlnMicrographPixelSize=np.array([0.885, 1.2]), rlnMicrographOriginalPixelSize=np.array([0.885, 1.2]))
    extract(picked(rescale=32))
    assert star.read("E/particles.star")["optics"]["rlnImagePixelSize"].tolist() == pytest.approx([1.77, 2.4])
    assert mrc.read_header("E/Movies/mic1.mrcs").pixel_size == pytest.approx(2.4)


def test_a_header_that_disagrees_with_the_star_file_is_a_warning(capsys):
    mrc.write_stack(project.name(2), project.micrograph(2)[None], 1.77)
    extract(picked())
    assert "mic2.mrc: the header says 1.77 A/pixel; 0.885 of the STAR file" in capsys.readouterr().err


def refined(**changes):
    extract(picked("first"))
    project.write_refined(Path(), "first/particles.star", "run_data.star", project.PIXEL_SIZE)
    change("run_data.star", "optics", **changes)
    return ExtractOptions(micrographs="ctf.star", refined_particles="run_data.star", output_folder="E", box=64)


def test_particles_of_an_optics_group_that_the_micrographs_lack_fail_alone():
    options = refined(rlnOpticsGroupName=project.texts("og1", "other"))
    with pytest.raises(InputError, match="1 of 3 micrographs .* there is no optics group 'other', to which particles of run_data.star belong"):
        extract(options)
    tables = star.read("E/particles.star")
    assert tables["particles"].count == 2 * COUNT and tables["optics"]["rlnOpticsGroupName"].tolist() == ["og1"]


def write_cryosparc(path, groups):
    """A .cs file of one particle in each micrograph for each of cryoSPARC's `groups`."""
    names = np.repeat([project.name(number).encode() for number in range(3)], len(groups))
    count = len(names)
    columns = {
        "blob/path": np.full(count, b"a.mrc"), "blob/idx": np.arange(count, dtype="u4"), "blob/shape": np.full((count, 2), 64, "u4"),
        "blob/psize_A": np.full(count, 0.885, "f4"), "ctf/exp_group_id": np.tile(groups, 3), "ctf/accel_kv": np.full(count, 300, "f4"),
        "ctf/cs_mm": np.full(count, 2.7, "f4"), "ctf/amp_contrast": np.full(count, 0.1, "f4"), "ctf/df1_A": np.full(count, 1e4, "f4"),
        "ctf/df2_A": np.full(count, 1e4, "f4"), "ctf/df_angle_rad": np.zeros(count, "f4"), "location/micrograph_path": names,
        "location/center_x_frac": np.full(count, 0.5, "f4"), "location/center_y_frac": np.full(count, 0.25, "f4"),
        "location/micrograph_shape": np.full((count, 2), (project.ROWS, project.COLUMNS), "u4"),
    }  # fmt: skip
    rows = np.zeros(count, [(label, column.dtype, column.shape[1:]) for label, column in columns.items()])
    for label, column in columns.items():
        rows[label] = column
    with open(path, "wb") as handle:
        np.save(handle, rows)


@pytest.mark.parametrize(("keep", "groups"), [(False, 3), (True, 2)])
def test_optics_groups_of_cryosparc_need_no_name_in_the_micrographs(keep, groups):
    write_cryosparc("p.cs", [7, 8, 9])
    extract(ExtractOptions(micrographs="ctf.star", refined_particles="p.cs", output_folder="E", box=64, recenter=False, keep_micrograph_ctfs=keep))
    tables = star.read("E/particles.star")
    assert tables["particles"].count == 9 and tables["optics"].count == groups
    assert tables["optics"]["rlnImagePixelSize"].tolist() == pytest.approx([0.885] * groups)
    assert tables["particles"]["rlnCoordinateX"].tolist() == [project.COLUMNS / 2] * 9


def test_the_micrographs_ctfs_need_no_names_of_the_particles_optics_groups():
    extract(replace(refined(rlnOpticsGroupName=project.texts("og1", "other")), keep_micrograph_ctfs=True))
    assert star.read("E/particles.star")["optics"]["rlnOpticsGroupName"].tolist() == ["og1", "og2"]


def test_micrographs_of_another_pixel_size_than_the_particles_were_picked_in_are_refused():
    options = refined(rlnMicrographOriginalPixelSize=np.array([0.885, 0.4425]))
    with pytest.raises(InputError, match="optics group 'og2': rlnMicrographOriginalPixelSize is 0.4425 A in run_data.star, but 0.885 A in ctf.star"):
        extract(options)
    assert star.read("E/particles.star")["particles"].count == 2 * COUNT


def test_particles_find_their_micrograph_by_the_end_of_its_path_where_that_is_the_only_one():
    options = refined()
    names = star.read("run_data.star")["particles"]["rlnMicrographName"]
    short = {project.name(0): "mic0.mrc", project.name(1): project.name(1), project.name(2): "other/Movies/mic2.mrc"}
    change("run_data.star", "particles", rlnMicrographName=np.array([short[name] for name in names], dtype=object))
    extract(options)
    assert sorted(set(extracted()["rlnMicrographName"])) == [project.name(0), project.name(1)] and len(extracted()["rlnCoordinateX"]) == 2 * COUNT
    assert _ends({"A/x/m": "1", "B/x/m": "2", "B/x/n": "3", "o": "4"}) == {"x/m": None, "m": None, "x/n": "3", "n": "3"}


def test_particles_of_other_micrographs_are_counted_or_refused(capsys):
    options = refined()
    names = star.read("run_data.star")["particles"]["rlnMicrographName"]
    change("run_data.star", "particles", rlnMicrographName=np.where(names == project.name(0), "elsewhere/a.mrc", names))
    extract(options)
    assert f"{COUNT} particles of 1 micrographs, such as elsewhere/a.mrc, are left out" in capsys.readouterr().err
    change("run_data.star", "particles", rlnMicrographName=np.full(len(names), "elsewhere/a.mrc", dtype=object))
    with pytest.raises(InputError, match="no particle lies in a micrograph of ctf.star"):
        extract(ExtractOptions(micrographs="ctf.star", refined_particles="run_data.star", output_folder="F", box=64))


def test_the_pixels_of_the_point_are_asked_for_where_they_are_not_clear():
    options = refined(rlnImagePixelSize=np.array([1.0, 2.0]))
    with pytest.raises(InputError, match="say by --ref_angpix in which pixels"):
        extract(replace(options, recenter=True, recenter_x=2.0))
    extract(replace(options, recenter=True, recenter_x=2.0, reference_pixel_size=1.0))


def test_flat_particles_are_reported(capsys):
    image = project.micrograph(1)
    image[100:250, 100:300] = 3.0
    mrc.write_stack(project.name(1), image[None], project.PIXEL_SIZE)
    extract(picked(normalise=True, background_radius=24))
    assert "1 particles have a background without any variation" in capsys.readouterr().err


def test_compressed_tiff_and_movies_in_tiff_are_named(folder):
    import tifffile

    tifffile.imwrite(folder / "movie.tif", np.stack([project.micrograph(0)] * 3), photometric="minisblack")
    (folder / "broken.tif").write_bytes(b"not a picture")
    from aurefine.extraction.micrographs import read_image

    for name, message in (("movie.tif", "holds 3 images; one micrograph was expected"), ("broken.tif", "cannot be read as TIFF"),
                          ("absent.tif", "there is no such file")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            read_image(name)
    tifffile.imwrite(folder / "deflated.tif", project.micrograph(0), compression="zlib")
    np.testing.assert_array_equal(read_image("deflated.tif"), project.micrograph(0)[::-1])


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "float32"])
def test_lzw_tiff_needs_no_further_package(folder, kind):
    from aurefine.extraction.micrographs import read_image

    image = (project.micrograph(0) * 40 - (0 if kind.startswith("u") else 900)).clip(0 if kind.startswith("u") else -2000, 250).astype(kind)
    write_lzw(folder / "lzw.tif", image)
    np.testing.assert_array_equal(read_image("lzw.tif"), image[::-1])


def write_lzw(path, image):
    """An image as LZW, of codes that stand for one byte each, cleared before they would need more bits: tifffile writes the tags, not LZW itself."""
    import tifffile

    tifffile.imwrite(path, image, photometric="minisblack")
    codes = [code for number, byte in enumerate(image.tobytes()) for code in ([256] if number % 200 == 0 else []) + [byte]] + [257]
    packed = np.unpackbits(np.array(codes, dtype=">u2").view(np.uint8).reshape(-1, 2), axis=1)[:, -9:]
    data = np.packbits(packed).tobytes()
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tags = tiff.pages[0].tags
        tags["Compression"].overwrite(5)
        tags["StripOffsets"].overwrite([path.stat().st_size])
        tags["StripByteCounts"].overwrite([len(data)])
        tags["RowsPerStrip"].overwrite(image.shape[0])
    with open(path, "ab") as handle:
        handle.write(data)


def test_helical_segments_are_refused_with_a_reason(capsys):
    assert main([*PICKED, "--part_dir", "E/", "--helix"]) == 2
    assert "--helix is not supported" in capsys.readouterr().err


def test_the_command_line_that_relions_gui_prints_runs(capsys):
    assert main([*PICKED, "--part_star", "E/particles.star", "--part_dir", "E/", "--extract", "--float16", "--scale", "32", "--norm", "--bg_radius",
                 "12", "--white_dust", "-1", "--black_dust", "-1", "--invert_contrast", "--pipeline_control", "E/"]) == 0  # fmt: skip
    out = capsys.readouterr().out
    assert "Extracting particles from 3 micrographs ..." in out and f"Written out STAR file with {3 * COUNT} particles in E/particles.star" in out
