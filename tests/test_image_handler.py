"""The image handler's command line: files written, nothing lost, mistakes told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aurefine import mrc, star
from aurefine.cli.main import main
from aurefine.image_files import open_input


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    mrc.write_map("map.mrc", rng.standard_normal((16, 16, 16)), 2.0)
    mrc.write_map("other.mrc", rng.standard_normal((12, 12, 12)), 2.0)
    mrc.write_map("brick.mrc", rng.standard_normal((8, 10, 12)), 2.0)
    (tmp_path / "Extract").mkdir()
    for name in ("one", "two"):
        mrc.write_stack(f"Extract/{name}.mrcs", rng.standard_normal((4, 16, 16)), 2.0)
    bad = rng.standard_normal((3, 16, 16)).astype(np.float32)
    bad[1, 2, 3] = np.nan
    mrc.write_stack("bad.mrcs", bad, 2.0)
    _list("particles.star", ["000003@Extract/one.mrcs", "000002@Extract/two.mrcs", "000001@Extract/one.mrcs"])
    return tmp_path


def _list(path, names, group=1):
    optics = star.Table.from_rows("optics", ["rlnOpticsGroup", "rlnImagePixelSize", "rlnImageSize"], [(1, 2.0, 16), (2, 9.0, 99)])
    rows = star.Table.from_rows("particles", ["rlnImageName", "rlnOpticsGroup", "rlnAngleRot"], [(name, group, 1.5) for name in names])
    star.write(path, [optics, rows])


def run(text: str) -> int:
    return main(["image_handler", *text.split()])


def read(path):
    stack = mrc.Stack(path)
    return stack.read(np.arange(stack.count))


def test_a_list_makes_stacks_beside_the_old_ones_and_a_new_list_that_fits_them(folder):
    assert run("--i particles.star --o flipped --flipX") == 0
    table = star.read_table("particles_flipped.star", "particles")
    names = ["000001@Extract/one_flipped.mrcs", "000001@Extract/two_flipped.mrcs", "000002@Extract/one_flipped.mrcs"]
    assert table["rlnImageName"].tolist() == names and table["rlnAngleRot"].tolist() == [1.5] * 3
    assert np.array_equal(read("Extract/one_flipped.mrcs"), read("Extract/one.mrcs")[[2, 0]][..., ::-1])
    assert np.array_equal(read("Extract/two_flipped.mrcs"), read("Extract/two.mrcs")[[1]][..., ::-1])


def test_a_list_with_a_folder_puts_everything_there(folder):
    assert run("--i particles.star --o External/job004/lp --lowpass 8") == 0
    names = star.read_table("External/job004/particles_lp.star", "particles")["rlnImageName"].tolist()
    assert names[1] == "000001@External/job004/Extract/two_lp.mrcs" and mrc.Stack("External/job004/Extract/one_lp.mrcs").count == 2


def test_names_of_a_list_do_not_lead_out_of_the_folder(folder, monkeypatch):
    (folder / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(folder / "deep" / "er")
    _list("p.star", ["000003@../../Extract/one.mrcs", f"000002@{folder}/Extract/two.mrcs"])
    assert run("--i p.star --o job/lp --lowpass 8") == 0
    assert {path.parent.resolve() for path in folder.rglob("*_lp.mrcs")} == {folder / "deep/er/job/Extract", folder / f"deep/er/job{folder}/Extract"}
    assert all(Path(name.partition("@")[2]).is_file() for name in star.read_table("job/p_lp.star", "particles")["rlnImageName"])


def test_a_stack_that_a_list_names_in_several_ways_is_written_once(folder):
    _list("p.star", [f"1@{folder}/Extract/one.mrcs", "4@Extract/../Extract/one.mrcs", "2@Extract/one.mrcs"])
    assert run("--i p.star --o plus --add_constant 1") == 0
    names = [name.partition("@") for name in star.read_table("p_plus.star", "particles")["rlnImageName"]]
    found = np.stack([read(file)[int(number) - 1] for number, _, file in names])
    assert np.allclose(found, read("Extract/one.mrcs")[[0, 3, 1]] + 1)


def test_files_that_a_folder_would_make_one_are_refused(folder, monkeypatch, capsys):
    (folder / "deep/Extract").mkdir(parents=True)
    mrc.write_stack("deep/Extract/one.mrcs", np.ones((1, 16, 16)), 2.0)
    monkeypatch.chdir(folder / "deep")
    _list("p.star", ["1@Extract/one.mrcs", "1@../Extract/one.mrcs"])
    assert run("--i p.star --o job/lp --lowpass 8") == 2
    assert "would both be job/Extract/one_lp.mrcs" in capsys.readouterr().err and not list(folder.rglob("*_lp.*"))


def test_a_stack_may_have_an_at_sign_in_its_name(folder):
    mrc.write_stack("x@y.mrcs", read("Extract/one.mrcs"), 2.0)
    _list("p.star", ["2@x@y.mrcs"])
    assert run("--i p.star --o plus --add_constant 1") == 0
    assert star.read_table("p_plus.star", "particles")["rlnImageName"].tolist() == ["000001@x@y_plus.mrcs"]
    assert np.allclose(read("x@y_plus.mrcs"), read("Extract/one.mrcs")[[1]] + 1)


@pytest.mark.parametrize(("label", "name", "column"), [
    ("rlnMicrographName", "map.mrc", "rlnMicrographPixelSize"), ("rlnImageName", "1@Extract/one.mrcs", "rlnImagePixelSize")])
def test_optics_groups_without_a_pixel_size_get_that_of_the_new_images(folder, label, name, column):
    if label == "rlnMicrographName":
        mrc.write_stack("map.mrc", read("Extract/one.mrcs")[:1], 2.0)
    optics = star.Table.from_rows("optics", ["rlnOpticsGroup", "rlnMicrographOriginalPixelSize"], [(1, 2.0), (2, 3.0)])
    star.write("l.star", [optics, star.Table.from_rows("x", [label, "rlnOpticsGroup"], [(name, 1)])])
    assert run("--i l.star --o small --rescale_angpix 4") == 0
    optics = star.read_table("l_small.star", "optics")
    assert optics[column].tolist() == [4.0, 3.0] and optics["rlnMicrographOriginalPixelSize"].tolist() == [2.0, 3.0]


def test_lists_of_relion_30_get_the_new_pixel_size_and_origins_in_it(folder):
    labels = ["rlnImageName", "rlnMagnification", "rlnDetectorPixelSize", "rlnOriginX", "rlnOriginY"]
    star.write("l.star", [star.Table.from_rows("", labels, [("2@Extract/one.mrcs", 10000.0, 2.0, 3.0, -1.0)])])
    assert run("--i l.star --o small --rescale_angpix 4") == 0
    row = star.read_table("l_small.star", "")
    assert [float(row[label][0]) for label in labels[1:]] == [10000.0, 4.0, 1.5, -0.5]
    assert run("--i l.star --o plus --add_constant 1") == 0
    row = star.read_table("l_plus.star", "")
    assert [float(row[label][0]) for label in labels[1:]] == [10000.0, 2.0, 3.0, -1.0]


def test_a_list_of_one_file_keeps_its_names_in_one_stack(folder):
    _list("one.star", ["000002@Extract/one.mrcs", "000004@Extract/one.mrcs"])
    assert run("--i one.star --o two.mrcs --flipX") == 0
    assert star.read_table("two.star", "particles")["rlnImageName"].tolist() == ["000001@two.mrcs", "000002@two.mrcs"]


def test_a_list_makes_one_stack_when_the_output_is_one(folder):
    assert run("--i particles.star --o new/all.mrcs --rescale_angpix 4") == 0
    table = star.read_table("new/all.star", "particles")
    assert table["rlnImageName"].tolist() == ["000001@new/all.mrcs", "000003@new/all.mrcs", "000002@new/all.mrcs"]
    assert read("new/all.mrcs").shape == (3, 8, 8) and mrc.read_header("new/all.mrcs").pixel_size == 4.0


def test_the_optics_groups_of_the_new_images_get_their_pixel_size_and_box(folder):
    assert run("--i particles.star --o small --rescale_angpix 3 --new_box 12") == 0
    optics = star.read_table("particles_small.star", "optics")
    assert optics["rlnImagePixelSize"].tolist() == [3.2, 9.0] and optics["rlnImageSize"].tolist() == [12, 99]  # group 2 has no image


def test_a_list_of_micrographs_keeps_plain_names(folder):
    image = np.random.default_rng(1).random((1, 20, 30))
    mrc.write_map("mic.mrc", image, 1.5)
    star.write("mics.star", [star.Table.from_rows("micrographs", ["rlnMicrographName"], [("mic.mrc",)])])
    assert run("--i mics.star --o minus --multiply_constant -1") == 0
    assert star.read_table("mics_minus.star", "micrographs")["rlnMicrographName"].tolist() == ["mic_minus.mrc"]
    assert np.allclose(read("mic_minus.mrc"), -image)


def test_a_stack_is_worked_on_in_batches_with_the_same_result(folder, monkeypatch):
    assert run("--i Extract/one.mrcs --o whole.mrcs --lowpass 8 --shift_com") == 0
    monkeypatch.setattr("aurefine.image_files._PIXELS_AT_A_TIME", 300)
    assert run("--i Extract/one.mrcs --o parts.mrcs --lowpass 8 --shift_com") == 0
    assert np.array_equal(read("whole.mrcs"), read("parts.mrcs"))
    assert mrc.read_header("parts.mrcs").pixel_size == 2.0


def test_one_image_of_a_stack_and_forced_kinds(folder):
    assert run("--i 000003@Extract/one.mrcs --o third.mrc --add_constant 1") == 0
    assert np.allclose(read("third.mrc"), read("Extract/one.mrcs")[2:3] + 1)
    assert open_input("map.mrc").files[0].is_map and not open_input("map.mrc:mrcs").files[0].is_map
    assert open_input("Extract/one.mrcs:mrc").files[0].is_map


@pytest.mark.parametrize(("name", "output"), [("map.mrc", "half.mrc"), ("Extract/one.mrcs", "half.mrcs")])
def test_float16_is_mode_12_and_keeps_the_map_a_map(folder, name, output):
    assert run(f"--i {name} --o {output} --float16") == 0
    header = mrc.read_header(output)
    assert header.dtype == np.dtype("<f2") and header.pixel_size == 2.0 and header.space_group == (1 if output.endswith(".mrc") else 0)
    assert np.allclose(read(output), read(name), atol=2e-3)


def test_values_that_are_not_finite_are_named_or_replaced(folder, capsys):
    assert run("--i bad.mrcs --o good.mrcs --lowpass 8") == 2
    assert "000002@bad.mrcs" in capsys.readouterr().err
    assert run("--i bad.mrcs --o good.mrcs --remove_nan --replace_nan 7") == 0
    assert read("good.mrcs")[1, 2, 3] == 7


def test_a_picture_shows_one_image(folder, capsys):
    assert run("--i 000001@Extract/one.mrcs --o one.png --sigma_contrast 3") == 0
    assert (folder / "one.png").read_bytes().startswith(b"\x89PNG")
    assert run("--i map.mrc --o map.png") == 2
    assert "one image, not a map" in capsys.readouterr().err


def test_averages_of_images_and_of_their_amplitudes(folder):
    assert run("--i particles.star --o mean.mrc --average") == 0
    chosen = np.concatenate([read("Extract/one.mrcs")[[2, 0]], read("Extract/two.mrcs")[[1]]])
    assert np.allclose(read("mean.mrc")[0], chosen.mean(axis=0), atol=1e-6)
    assert run("--i Extract/one.mrcs --o power.mrc --avg_ampl2") == 0
    expected = (np.abs(np.fft.rfft2(read("Extract/one.mrcs"), norm="forward")) ** 2).mean(axis=0)
    assert np.allclose(read("power.mrc")[0], expected, atol=1e-6)


def test_all_of_several_operations_are_done_with_a_note(folder, capsys):
    assert run("--i map.mrc --o new.mrc --multiply_constant 2 --add_constant 1 --flipX") == 0
    assert "RELION 3.1 does --flipX alone" in capsys.readouterr().out
    assert np.allclose(read("new.mrc"), (2 * read("map.mrc") + 1)[..., ::-1])


def test_randomised_phases_are_repeatable(folder):
    for name in ("a", "b"):
        assert run(f"--i map.mrc --o {name}.mrc --phase_randomise 8 --random_seed 5") == 0
    assert np.array_equal(read("a.mrc"), read("b.mrc")) and not np.allclose(read("a.mrc"), read("map.mrc"))
    assert run("--i map.mrc --o clock.mrc --phase_randomise 8 --random_seed -1") == 0  # from the clock
    assert not np.allclose(read("clock.mrc"), read("map.mrc"))


def test_existing_output_is_only_replaced_when_that_is_allowed(folder, capsys):
    before = (folder / "map.mrc").read_bytes()
    assert run("--i map.mrc --o map.mrc --flipX") == 2
    assert "--overwrite" in capsys.readouterr().err and (folder / "map.mrc").read_bytes() == before
    assert run("--i map.mrc --o map.mrc --flipX --overwrite") == 0
    assert (folder / "map.mrc").read_bytes() != before


def test_a_list_whose_output_is_there_in_part_writes_nothing(folder, capsys):
    (folder / "Extract" / "two_new.mrcs").write_bytes(b"kept")
    assert run("--i particles.star --o new --flipX") == 2
    assert "two_new.mrcs" in capsys.readouterr().err
    assert not (folder / "Extract" / "one_new.mrcs").exists() and not (folder / "particles_new.star").exists()


@pytest.mark.parametrize(("arguments", "message"), [
    ("--o n.mrc --flipX", "--i is missing"),
    ("--i map.mrc --flipX", "--o is missing"),
    ("--i missing.mrc --o n.mrc", "no such file"),
    ("--i map.mrc --o n.tif --flipX", "(.mrc)"),
    ("--i Extract/one.mrcs --o n.mrc --flipX", "must end in .mrcs"),
    ("--i map.mrc --o n.mrc --add other.mrc", "12 x 12 x 12"),
    ("--i map.mrc --o n.mrc --flipXY", "needs images"),
    ("--i Extract/one.mrcs --o n.mrcs --sym C2", "needs a map"),
    ("--i Extract/one.mrcs --o n.mrcs --shift_z 2", "needs a map"),
    ("--i map.mrc --o n.mrc --sym C2v", "mirror plane"),
    ("--i brick.mrc --o n.mrc --rescale_angpix 3", "brick.mrc: a map of 12 x 10 x 8"),
    ("--i map.mrc --o n.mrc --lowpass 0", "--lowpass is 0"),
    ("--i map.mrc --o n.mrc --directional Z", "--lowpass"),
    ("--i map.mrc --o n.mrc --new_box -5", "--new_box"),
    ("--i map.mrc --o n.mrc --divide_constant 0", "--divide_constant"),
    ("--i map.mrc --o n.mrc --threshold_above 0 --threshold_below 1", "exchange"),
    ("--i map.mrc --o n.mrc --shift_com --shift_y 2", "one or the other"),
    ("--i map.mrc --o n.mrc --optimise_scale_subtract", "--subtract"),
    ("--i 9@Extract/one.mrcs --o n.mrc --flipX", "holds 4 images"),
    ("--i empty.star --o n --flipX", "list of images"),
    ("--i map.mrc --o n.mrc --colour_fire", "not supported"),
    ("--i map.mrc --o n.mrc --add_constant 1e6 --float16", "float16"),
    ("--i map.mrc --o n.mrc --rescale_angpix 300", "map.mrc: pixels of 300 A leave nothing of 16 pixels"),
    ("--i Extract/one.mrcs --o n.mrcs --rescale_angpix 300 --lowpass 9", "one.mrcs: pixels of 300 A leave nothing"),
    ("--i map.mrc --o map.mrc/n.mrc --flipX", "a part of this name is a file"),
])  # fmt: skip
def test_a_mistake_is_one_message_and_writes_nothing(folder, capsys, arguments, message):
    star.write("empty.star", [star.Table.from_rows("movies", ["rlnVoltage"], [(300.0,)])])
    assert run(arguments) == 2
    assert message in capsys.readouterr().err and not list(folder.glob("**/n.*")) and not list(folder.glob("**/.*tmp"))


def test_an_unknown_pixel_size_is_asked_for(folder, capsys):
    raw = bytearray((folder / "map.mrc").read_bytes())
    raw[40:52] = bytes(12)  # cell lengths
    (folder / "map.mrc").write_bytes(raw)
    assert run("--i map.mrc --o n.mrc --lowpass 8") == 2
    assert "give it with --angpix" in capsys.readouterr().err
    assert run("--i map.mrc --o n.mrc --lowpass 8 --angpix 2") == 0
    assert mrc.read_header("n.mrc").pixel_size == 2.0


def test_images_of_different_sizes_do_not_go_into_one_stack(folder, capsys):
    mrc.write_stack("Extract/two.mrcs", np.random.default_rng(0).random((4, 12, 12)), 2.0)
    assert run("--i particles.star --o n.mrcs --multiply_constant 2") == 2
    assert "cannot be in one stack" in capsys.readouterr().err and not (folder / "n.mrcs").exists()


def test_a_stopped_job_says_so(folder):
    (folder / "job").mkdir()
    assert run("--i map.mrc --o job/new.mrc --flipX --pipeline_control job/") == 0
    assert (folder / "job" / "RELION_JOB_EXIT_SUCCESS").exists()
    assert run("--i map.mrc --o job/new.mrc --flipX --pipeline_control job/") == 2
    assert (folder / "job" / "RELION_JOB_EXIT_FAILURE").exists()
