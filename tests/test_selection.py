from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import star_samples as samples

from aurefine import selection, star, star_combine, star_document, star_operations
from aurefine.cli.main import main
from aurefine.errors import InputError


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    samples.write(tmp_path / "a.star", samples.optics(["gA", "gB"]), samples.particle_rows(40, [1, 2], "A", seed=1))
    return tmp_path


def rows_of(path):
    return star.read(path)["particles"]


def test_of_near_particles_the_last_one_stays():
    chain = np.array([[0.0, 0], [10, 0], [20, 0], [30, 0]])
    assert selection.duplicates(np.zeros(4, int), chain, 10).tolist() == [True, True, True, False]
    assert not selection.duplicates(np.zeros(4, int), chain, 9.99).any()
    assert not selection.duplicates(np.array([0, 1, 0, 1]), chain, 10).any()


def test_many_particles_at_one_place_leave_one():
    removed = selection.duplicates(np.zeros(100_000, int), np.zeros((100_000, 2)), 5)
    assert removed.sum() == 99_999 and not removed[-1]


def test_a_crowd_within_reach_of_each_other_takes_no_memory_for_its_pairs():
    places = np.random.default_rng(5).uniform(0, 4000, (60_000, 2))
    assert selection.duplicates(np.zeros(60_000, int), places, 1e5).sum() == 59_999
    assert selection.duplicates(np.zeros(60_000, int), places, 1e300).sum() == 59_999
    assert not selection.duplicates(np.zeros(60_000, int), places, 1e-300).any()


def test_duplicates_are_those_found_by_looking_at_every_pair():
    rng = np.random.default_rng(3)
    micrograph, places = rng.integers(0, 4, 300), np.round(rng.uniform(0, 60, (300, 2)))
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1)
    near = (distance <= 5) & (micrograph[:, None] == micrograph[None]) & (np.arange(300)[:, None] < np.arange(300)[None])
    assert selection.duplicates(micrograph, places, 5).tolist() == near.any(axis=1).tolist()


def test_regrouping_keeps_optics_groups_apart_and_joins_alike_scales():
    group, optics = np.repeat(np.arange(6), 10), np.repeat([1, 1, 1, 1, 2, 2], 10)
    new = selection.regroup(group, np.array([1.0, 2.0, 1.1, 2.1, 1.0, 1.0]), optics, 3)
    assert [set(new[group == number].tolist()) for number in range(6)] == [{1}, {2}, {1}, {2}, {3}, {3}]


@pytest.mark.parametrize("text", ["", "0x1", "1,,2", "3-1", "a", "1-99999999999"])
def test_a_list_of_classes_that_is_none_is_refused(text):
    with pytest.raises(InputError, match="--classes"):
        selection.class_numbers(text)
    assert selection.class_numbers("1,3-5, 9") == [1, 3, 4, 5, 9]


def test_histogram_counts_every_finite_value_once():
    values = np.array([0.0, 1, 2, 3, 10, np.nan, np.inf])
    result = star_operations.histogram(values, 3, 0, 3)
    assert result.counts.tolist() == [1, 1, 1] and (result.below, result.above) == (0, 2)
    assert star_operations.histogram(np.full(5, 7.0)).counts.sum() == 5


def test_selecting_classes_of_an_optimiser_finds_particles_and_model(project):
    model = [star.Table.from_rows("model_classes", ["rlnReferenceImage", "rlnClassDistribution"], [[f"c{n}.mrc", 0.3] for n in (1, 2, 3)]),
             star.Table.from_rows("model_groups", ["rlnGroupNumber", "rlnGroupScaleCorrection"], [[n, 1 + n / 10] for n in range(1, 9)])]
    star.write("run_it025_model.star", model)
    (project / "a.star").rename("run_it025_data.star")
    names = {"rlnExperimentalDataStarFile": "Class3D/job001/run_it025_data.star", "rlnModelStarFile": "Class3D/job001/run_it025_model.star"}
    star.write("run_it025_optimiser.star", [star.Table.from_values("optimiser_general", names)])
    arguments = ["--classes", "1,3", "--regroup", "3", "--fn_imgs", "classes.star"]
    assert main(["select", "--i", "run_it025_optimiser.star", "--o", "Select/job002/", *arguments]) == 0
    before, after = rows_of("run_it025_data.star"), rows_of("Select/job002/particles.star")
    assert after["rlnImageName"].tolist() == before["rlnImageName"][np.isin(before["rlnClassNumber"], (1, 3))].tolist()
    assert 2 <= len(set(after["rlnGroupName"].tolist())) <= 4 and "rlnGroupNumber" not in after
    assert star.read("classes.star")[""]["rlnReferenceImage"].tolist() == ["c1.mrc", "c3.mrc"]


def test_a_class_without_a_particle_writes_nothing(project, capsys):
    star.write("run_it025_model.star", [star.Table.from_rows("model_classes", ["rlnReferenceImage"], [[f"c{n}.mrc"] for n in range(1, 10)])])
    (project / "a.star").rename("run_it025_data.star")
    before = sorted(project.iterdir())
    classes = set(rows_of("run_it025_data.star")["rlnClassNumber"].tolist())
    arguments = ["select", "--i", "run_it025_data.star", "--fn_imgs", "f.star", "--classes"]
    assert 9 not in classes and main([*arguments, "9", "--o", "p.star"]) == 2
    assert "nothing was written" in capsys.readouterr().err and sorted(project.iterdir()) == before
    assert main([*arguments, str(min(classes)), "--o", "f.star"]) == 2
    assert "--fn_imgs" in capsys.readouterr().err and sorted(project.iterdir()) == before


def test_random_parts_are_disjoint_whole_and_repeatable(project):
    for name in ("one", "two"):
        assert main(["select", "--i", "a.star", "--o", f"{name}.star", "--split", "--nr_split", "3", "--random_order", "--random_seed", "4"]) == 0
    parts = [rows_of(f"one_split{part}.star")["rlnImageName"].tolist() for part in (1, 2, 3)]
    everyone = rows_of("a.star")["rlnImageName"].tolist()
    assert sorted(sum(parts, [])) == sorted(everyone) and sum(parts, []) != everyone
    assert parts == [rows_of(f"two_split{part}.star")["rlnImageName"].tolist() for part in (1, 2, 3)]


def test_existing_output_is_never_replaced_unasked(project, capsys):
    before = (project / "a.star").read_bytes()
    for job in ("select", "star"):
        assert main([job, "--i", "a.star", "--o", "a.star", "--select", "rlnDefocusU", "--maxval", "12000"]) == 2
        assert "--overwrite" in capsys.readouterr().err and (project / "a.star").read_bytes() == before
    assert main(["select", "--i", "a.star", "--o", "a.star", "--select", "rlnDefocusU", "--maxval", "12000", "--overwrite"]) == 0
    assert 0 < rows_of("a.star").count < 40


MISTAKES = {
    "unknown column": (["--select", "rlnDefocusX"], "rlnDefocusU"),
    "text column": (["--select", "rlnImageName"], "numbers"),
    "nothing left": (["--select", "rlnDefocusU", "--maxval", "1"], "no row is left"),
    "in another table": (["--select", "rlnVoltage"], "data_optics"),
    "no size of the parts": (["--split"], "--nr_split"),
    "both texts": (["--select_by_str", "rlnMicrographName", "--select_include", "a", "--select_exclude", "b"], "one of"),
    "missing class": (["--classes", "7"], "no class 7"),
    "images are not there": (["--discard_on_stats"], "mic000.mrcs"),
    "missing file": (["--i", "none.star"], "none.star"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message_and_writes_nothing(project, capsys, mistake):
    arguments, said = MISTAKES[mistake]
    assert main(["select", "--i", "a.star", "--o", "new.star", *arguments]) == 2
    message = capsys.readouterr().err
    assert said in message and message.count("\n") == 1 and not list(project.glob("new*"))


def test_different_micrograph_pixels_need_the_pixel_size(project, capsys):
    groups = samples.optics(["gA", "gB"]).with_columns({"rlnImagePixelSize": np.array([1.0, 1.5])})
    samples.write(project / "two.star", groups, samples.particle_rows(10, [1, 2], "A"))
    assert main(["select", "--i", "two.star", "--o", "new.star", "--remove_duplicates", "5"]) == 2
    assert "--image_angpix" in capsys.readouterr().err
    assert main(["select", "--i", "two.star", "--o", "new.star", "--remove_duplicates", "5", "--image_angpix", "0.9"]) == 0


def test_scaled_down_particles_are_told_how_to_give_the_pixels_of_their_coordinates(project, capsys):
    groups = samples.optics(["gA"]).with_columns({"rlnImagePixelSize": np.array([3.54]), "rlnMicrographOriginalPixelSize": np.array([0.885])})
    samples.write(project / "small.star", groups, samples.particle_rows(10, [1], "A"))
    command = ["select", "--i", "small.star", "--o", "new.star", "--remove_duplicates", "5"]
    assert main(command) == 0
    assert "4 times too long: give --image_angpix 0.885" in capsys.readouterr().out
    assert main([*command, "--image_angpix", "0.885", "--overwrite"]) == 0
    assert "too long" not in capsys.readouterr().out


def test_groups_of_one_name_that_contradict_are_refused(project):
    samples.write(project / "b.star", samples.optics(["gB"], rlnVoltage=200.0), samples.particle_rows(5, [1], "B"))
    documents = [star_document.load("a.star"), star_document.load("b.star")]
    with pytest.raises(InputError, match=r"gB.*rlnVoltage is 300.0 in a.star but 200.0 in b.star"):
        star_combine.combine(documents)


def test_a_long_list_of_files_is_joined(project):
    names = [f"{'part' * 20}_{number:03d}.star" for number in range(60)]
    for name in names:
        samples.write(project / name, samples.optics(["gA"]), samples.particle_rows(2, [1], "A"))
    assert main(["star", "--combine", "--i", " ".join(names), "--o", "all.star"]) == 0
    assert rows_of("all.star").count == 120
    assert main(["star", "--i", "x" * 5000]) == 2


def test_rows_joined_as_they_are_have_no_optics_table_that_means_something_else(project, capsys):
    samples.write("b.star", samples.optics(["gB", "gC"]), samples.particle_rows(20, [2, 1], "B", seed=2))
    assert main(["star", "--combine", "--ignore_optics", "--i", "a.star b.star", "--o", "ab.star"]) == 0
    assert "data_optics is left out" in capsys.readouterr().out
    tables = star.read("ab.star")
    numbers = [rows_of(name)["rlnOpticsGroup"].tolist() for name in ("a.star", "b.star")]
    assert list(tables) == ["particles"] and tables["particles"]["rlnOpticsGroup"].tolist() == numbers[0] + numbers[1]
    assert main(["star", "--combine", "--ignore_optics", "--i", "a.star a.star", "--o", "aa.star"]) == 0
    tables = star.read("aa.star")
    assert tables["optics"]["rlnOpticsGroupName"].tolist() == ["gA", "gB"] and tables["particles"].count == 80
    assert main(["star", "--combine", "--i_tablename", "optics", "--i", "a.star b.star", "--o", "o.star"]) == 2
    assert "leave out --i_tablename optics" in capsys.readouterr().err


def test_kinds_of_files_are_not_mixed(project):
    mics = star.Table("micrographs", samples.particle_rows(5, [1], "B").columns)
    samples.write(project / "m.star", samples.optics(["gB"]), mics)
    with pytest.raises(InputError, match="one kind"):
        star_combine.combine([star_document.load("a.star"), star_document.load("m.star")])


def test_relion_30_files_become_optics_groups(shared_data):
    document = star_document.load(shared_data / "star" / "FinalRefinement-OriginalParticles-PfCRT.star")
    assert document.optics is not None and document.optics["rlnImagePixelSize"].tolist() == [1.035]
    assert "rlnOriginXAngst" in document.rows and "rlnVoltage" not in document.rows


def test_copied_columns_take_the_type_of_their_label(project):
    document = star_document.load("a.star")
    copied = star_operations.add_column(document, "rlnGroupName", None, "rlnMicrographName").rows["rlnGroupName"]
    assert copied.tolist() == document.rows["rlnMicrographName"].tolist()
    assert star_operations.add_column(document, "rlnPhaseShift", None, "rlnClassNumber").rows["rlnPhaseShift"].dtype == float
    with pytest.raises(InputError, match="rlnRandomSubset"):
        star_operations.add_column(document, "rlnRandomSubset", None, "rlnImageName")
    with pytest.raises(InputError, match="did you mean"):
        star_operations.add_column(document, "rlnPhaseShft", "1", None)


def test_printing_describing_and_pictures(project, capsys):
    assert main(["star", "--i", "a.star"]) == 0
    assert "data_particles: 40 rows of 13 columns" in capsys.readouterr().out
    assert main(["star", "--i", "a.star", "--print", "rlnGroupNumber,_rlnMicrographName"]) == 0
    assert capsys.readouterr().out.splitlines()[5] == "2 A/mic001.mrc"
    assert main(["star", "--i", "a.star", "--hist_column", "rlnDefocusU", "--o", "h", "--in_percent", "--show_cumulative"]) == 0
    assert main(["star", "--i", "a.star", "--plot", "rlnDefocusU rlnAngleRot", "--o", "p.svg"]) == 0
    assert all((project / name).stat().st_size > 1000 for name in ("h.png", "h.pdf", "p.svg"))


def test_a_reader_that_has_seen_enough_is_no_error(project):
    samples.write(project / "many.star", samples.optics(["gA"]), samples.particle_rows(5000, [1], "A"))
    command = f"{sys.executable} -m aurefine star --i many.star --print | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120)
    assert done.stderr == "" and done.stdout.count("\n") == 1


def test_files_without_a_main_table_are_described(shared_data, capsys):
    assert main(["star", "--i", str(shared_data / "star" / "class3d_run_it025_model.star")]) == 0
    assert "data_model_class_1" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["optics", "data_optics"])
def test_one_table_of_a_file_is_described(project, capsys, name):
    assert main(["star", "--i", "a.star", "--i_tablename", name]) == 0
    printed = capsys.readouterr().out
    assert "data_optics" in printed and "data_particles" not in printed
    assert main(["star", "--i", "a.star", "--i_tablename", "nope"]) == 2
    assert "there is no block data_nope; it has data_optics, data_particles" in capsys.readouterr().err


def test_changing_the_optics_table(project):
    assert main(["star", "--i", "a.star", "--i_tablename", "optics", "--operate", "rlnVoltage", "--set_to", "200", "--o", "new.star"]) == 0
    tables = star.read("new.star")
    assert tables["optics"]["rlnVoltage"].tolist() == [200, 200] and tables["particles"].count == 40


def test_the_pipeline_is_told_how_it_ended(project):
    assert main(["select", "--i", "a.star", "--o", "Select/job001/", "--classes", "1", "--pipeline_control", "Select/job001/"]) == 0
    assert (project / "Select/job001/RELION_JOB_EXIT_SUCCESS").exists()
