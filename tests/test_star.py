from __future__ import annotations

import errno
import os
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aurefine import star
from aurefine.errors import InputError
from aurefine.star_write import format_floats

PARTICLES = """
# version 30001

data_optics

loop_
_rlnOpticsGroup #1
_rlnVoltage #2
1 300.0

data_particles

loop_
_rlnImageName #1
_rlnDefocusU #2
_rlnOpticsGroup #3
_myOwnColumn #4
# a comment between rows
000001@a.mrcs 10000.5 1 x1
000002@a.mrcs inf 1 x2

000003@a.mrcs -1.5e-3 1 3
"""


def _file(tmp_path, text, name="in.star"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_known_labels_become_numbers_and_unknown_ones_stay_text(tmp_path):
    tables = star.read(_file(tmp_path, PARTICLES))
    particles = tables["particles"]
    assert list(tables) == ["optics", "particles"] and particles.count == 3 and not particles.is_list
    assert particles["rlnDefocusU"].tolist() == [10000.5, np.inf, -1.5e-3]
    assert particles["rlnOpticsGroup"].dtype == np.int64
    assert particles["myOwnColumn"].tolist() == ["x1", "x2", "3"]


def test_lists_quotes_and_empty_values_are_read(tmp_path):
    text = "data_\n\n_rlnJobOptionVariable 'two words'\n_rlnMtfFileName \"\"\n_rlnVoltage 300 # kV\n_apostrophe it's\n"
    table = star.read(_file(tmp_path, text))[""]
    assert table.is_list and table.value("rlnVoltage") == 300.0
    assert table.value("rlnJobOptionVariable") == "two words" and table.value("rlnMtfFileName") == "" and table.value("apostrophe") == "it's"


@pytest.mark.parametrize("text", ["it's a \"b\" c", "'x\"", "\"x' y", "a \"b", "'", "\"", "", "# no", " a'b ", "d' \"e f"])
def test_text_with_blanks_and_quotes_is_read_as_it_was_written(tmp_path, text):
    values = np.array([text, "plain", text], dtype=object)
    star.write(tmp_path / "t.star", [star.Table("a", {"own": values, "other": values[::-1]}), star.Table.from_values("b", {"own": text})])
    tables = star.read(tmp_path / "t.star")
    assert tables["a"]["own"].tolist() == values.tolist() and tables["b"].value("own") == text


@pytest.mark.parametrize("text", ["a' b\" c", "two\nlines"])
def test_text_that_no_quotes_can_hold_is_refused(tmp_path, text):
    with pytest.raises(InputError, match="cannot hold the text"):
        star.write(tmp_path / "t.star", [star.Table.from_values("b", {"own": text})])
    assert not list(tmp_path.iterdir())


def test_quotes_that_are_not_closed_are_part_of_their_words(tmp_path):
    text = "data_\n\nloop_\n_a #1\n_b #2\nx 'y'\n\"x y\"z\n'a b' it's\n" + "'q \"r\n"
    table = star.read(_file(tmp_path, text))[""]
    assert table["a"].tolist() == ["x", '"x', "a b", "'q"] and table["b"].tolist() == ["y", 'y"z', "it's", '"r']


def test_windows_line_ends_and_indented_rows_are_read(tmp_path):
    path = tmp_path / "dos.star"
    path.write_bytes(PARTICLES.replace("\n", "\r\n  ").replace("  data_", "data_").encode())
    assert star.read(path)["particles"].count == 3


def test_a_row_may_start_with_the_word_data_or_an_underscore(tmp_path):
    text = "data_x\n\nloop_\n_rlnMicrographName #1\n_rlnVoltage #2\n_a #3\ndata_1/mic.mrc 300 y\n_odd.mrc 200 z\n"
    assert star.read(_file(tmp_path, text))["x"]["rlnMicrographName"].tolist() == ["data_1/mic.mrc", "_odd.mrc"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("10000.5 1 x1", "10000.5 1"), r"line 19 .*3 values but the table has 4"),
        (("10000.5 1 x1", "abc 1 x1"), r"line 19 .*rlnDefocusU must be a number, but 'abc'"),
        (("inf 1 x2", "inf 1.5 x2"), r"line 20 .*rlnOpticsGroup must be a whole number .*'1.5'"),
        (("-1.5e-3 1 3\n", "-1.5e-3"), r"line 22 .*truncated"),
        (("_rlnDefocusU #2", "_rlnImageName #2"), "line 15 .*occurs twice"),
        (("data_particles", "data_optics"), "line 11.*data_optics occurs twice"),
    ],
)
def test_a_malformed_file_is_named_with_its_line(tmp_path, change, told):
    assert change[0] in PARTICLES
    with pytest.raises(InputError, match=told):
        star.read(_file(tmp_path, PARTICLES.replace(*change)))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("word", ["inf", "-inf", "1e30", "-1e400", "9223372036854775808.0", "9223372036854775808", "nan"])
def test_a_whole_number_that_an_int64_does_not_hold_is_refused(tmp_path, word):
    (tmp_path / "a.star").write_text(f"data_particles\n\nloop_\n_rlnOpticsGroup #1\n_rlnRandomSubset #2\n1.0 1\n2.0 {word}\n")
    with pytest.raises(InputError, match=f"line 7 .*rlnRandomSubset must be a whole number .*'{re.escape(word)}' was found"):
        star.read(tmp_path / "a.star")


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        star.read(tmp_path / "nowhere.star")
    with pytest.raises(InputError, match="not a STAR file"):
        star.read(_file(tmp_path, "MAP \0\1\2"))
    with pytest.raises(InputError, match="no block data_particles, only data_a"):
        star.read_table(_file(tmp_path, "data_a\n\n_b 1\n"), "particles")


def test_rows_beyond_one_chunk_keep_their_order_and_name_late_errors(tmp_path):
    rows = [f"{i:06d}@s.mrcs {i}.25 {i}" for i in range(30000)]
    head = "data_particles\n\nloop_\n_rlnImageName #1\n_rlnDefocusU #2\n_rlnGroupNumber #3\n"
    table = star.read(_file(tmp_path, head + "\n".join(rows)))["particles"]
    assert np.array_equal(table["rlnDefocusU"], np.arange(30000) + 0.25) and table["rlnImageName"][-1] == "029999@s.mrcs"
    rows[25000] = "025000@s.mrcs 1.0 1.x"
    with pytest.raises(InputError, match=r"line 25007 .*'1.x'"):
        star.read(_file(tmp_path, head + "\n".join(rows)))


@given(st.lists(st.one_of(st.floats(), st.integers(-(10**11), 10**11).map(lambda ticks: (ticks + 0.5) / 1e6)), min_size=1, max_size=50))
def test_floats_as_written_are_those_that_a_reader_finds(values):
    written = star.as_written(np.array(values))
    np.testing.assert_array_equal(written, [float(text) for text in format_floats(np.array(values))])
    np.testing.assert_array_equal(star.as_written(written), written)


def test_number_formats_are_relions():
    values = np.array([0.0, 1.0, -1.0, 0.001, 0.000999, -0.0005, 1e5, 100001.0, -123456.0, np.inf, np.nan])
    expected = "0.000000 1.000000 -1.00000 0.001000 9.990000e-04 -5.00000e-04 100000.000000 1.000010e+05 -1.23456e+05 inf nan"
    assert format_floats(values) == [text.rjust(12) for text in expected.split()]


def test_written_layout_is_relion_5s(tmp_path):
    path = tmp_path / "out.star"
    table = star.Table.from_rows("job", ["rlnImageName", "rlnVoltage", "rlnOpticsGroup", "x"], [["a b", 300, 2, ""], ["c", -0.5, 3, "d"]])
    general = star.Table.from_values("general", {"rlnDoCorrectNorm": True, "rlnSymmetryGroup": "D2", "rlnTau2FudgeFactor": 1})
    star.write(path, [general, table], comments=["made here"])
    assert path.read_text() == (
        "# made here\n\n# version 50001\n\ndata_general\n\n"
        "_rlnDoCorrectNorm                         1\n_rlnSymmetryGroup              D2\n_rlnTau2FudgeFactor                1.000000\n \n"
        "\n# version 50001\n\ndata_job\n\nloop_ \n_rlnImageName #1 \n_rlnVoltage #2 \n_rlnOpticsGroup #3 \n_x #4 \n"
        '     "a b"   300.000000            2         "" \n         c     -0.50000            3          d \n \n'
    )


def test_columns_of_unequal_length_are_refused_and_leave_no_file(tmp_path):
    with pytest.raises(ValueError, match="unequal length"):
        star.write(tmp_path / "out.star", [star.Table("a", {"x": np.arange(2), "y": np.arange(3)})])
    assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path, monkeypatch):
    path = tmp_path / "out.star"
    star.write(path, [star.Table.from_values("a", {"x": "old"})])

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="no space is left"):
        star.write(path, [star.Table.from_values("a", {"x": "new"})])
    assert os.listdir(tmp_path) == ["out.star"] and star.read(path)["a"].value("x") == "old"


def test_a_missing_output_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="folder does not exist"):
        star.write(tmp_path / "none" / "out.star", [star.Table.from_values("a", {"x": 1})])


_WORDS = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), max_size=12).filter(lambda word: not ('"' in word and "'" in word))
_FLOATS = st.floats(allow_nan=False, allow_infinity=True)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(_WORDS, _FLOATS, st.integers(-(2**60), 2**60), st.booleans()), min_size=1, max_size=8))
def test_what_is_written_is_read_back(tmp_path, rows):
    labels = ["rlnImageName", "rlnDefocusU", "rlnGroupNumber", "rlnDoCorrectNorm"]
    for table in (star.Table.from_rows("t", labels, rows), star.Table.from_values("t", dict(zip(labels, rows[0], strict=True)))):
        star.write(tmp_path / "t.star", [table])
        again = star.read(tmp_path / "t.star")["t"]
        assert again.is_list == table.is_list and again["rlnImageName"].tolist() == table["rlnImageName"].tolist()
        assert np.array_equal(again["rlnGroupNumber"], table["rlnGroupNumber"])
        assert np.array_equal(again["rlnDoCorrectNorm"], table["rlnDoCorrectNorm"])
        values = table["rlnDefocusU"]
        digits = np.where((np.abs(values) >= 0.001) & (np.abs(values) <= 1e5), 5.1e-6, 1e-300)  # five or six decimals, else an exponent
        finite = np.isfinite(values)
        assert np.array_equal(again["rlnDefocusU"][~finite], values[~finite])
        assert np.all(np.abs(again["rlnDefocusU"][finite] - values[finite]) <= (digits + 1e-5 * np.abs(values))[finite])


def test_every_star_file_of_many_programs_survives_a_round_trip(shared_data, tmp_path):
    files = sorted(shared_data.rglob("*.star"))
    assert len(files) > 20
    for path in files:
        tables = star.read(path)
        star.write(tmp_path / "copy.star", tables)
        again = star.read(tmp_path / "copy.star")
        assert list(again) == list(tables)
        for name, table in tables.items():
            assert again[name].is_list == table.is_list and list(again[name].columns) == list(table.columns)
            for label, column in table.columns.items():
                if column.dtype.kind == "f":
                    np.testing.assert_allclose(again[name][label], column, rtol=1e-5, atol=1e-6, err_msg=f"{path} {label}")
                else:
                    assert np.array_equal(again[name][label], column), f"{path} {label}"


def test_relion_5s_own_files_are_rewritten_byte_for_byte(shared_data, tmp_path):
    files = sorted((shared_data / "relion5_betagal_run").glob("*.star"))
    assert files
    for path in files:
        text = path.read_text()
        comments = [line[2:] for line in text.split("\n")[:2] if line.startswith("# ") and "version 50001" not in line]
        star.write(tmp_path / "copy.star", star.read(path), comments)
        assert (tmp_path / "copy.star").read_text() == text, path.name
