"""Compiled reading and writing of long STAR tables: every byte and bit as the plain code's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurefine import star, star_format, star_parse, star_read, star_write
from aurefine.errors import InputError

EDGES = [0.0, -0.0, np.nan, np.inf, -np.inf, 0.001, -0.001, 1e5, -1e5, 1e-3 * (1 - 1e-12), 99999.9999996, 9.9999995e-4, 9.9999999e-4, 1e300, -1e-300,
         0.5, 2.5, 100000.0001, 1.0000005, -1.000005, 999999.95e3, 5e-324]  # fmt: skip


def long_table(count: int = 9000, name: str = "Extract/job018/Movies/2017_{:05d}.mrcs") -> star.Table:
    rng = np.random.default_rng(0)
    return star.Table("particles", {
        "rlnImageName": np.array([f"{row % 200 + 1:06d}@" + name.format(row // 200) for row in range(count)], dtype=object),
        "rlnMicrographName": np.array([name.format(row // 200) for row in range(count)], dtype=object),
        "rlnOpticsGroup": rng.integers(-(10**9), 10**9, count),
        "rlnIsFlip": rng.integers(0, 2, count).astype(bool),
        "rlnAngleRot": rng.uniform(-180, 180, count),
        "rlnSsnrMap": np.resize(EDGES, count),
        "rlnTau2FudgeFactor": 10 ** rng.uniform(-30, 30, count) * rng.choice([-1, 1], count),
        "rlnDefocusU": np.round(rng.uniform(0, 20000, count), 7),
    })  # fmt: skip


def text_of(table: star.Table) -> str:
    return "".join(star_write.table_text(table.name, table.columns, False, 50001))


@pytest.fixture
def compiled(monkeypatch):
    """Compiled code from the first row on."""
    monkeypatch.setattr(star_write, "_MANY_CELLS", 0)
    monkeypatch.setattr(star_read, "_LONG", 0)
    monkeypatch.setattr(star_read, "_LONG_CHUNK", 1 << 16)


@pytest.mark.parametrize("name", ["a_{:05d}.mrcs", "two words {:05d}.mrcs", "größer_{:05d}.mrcs", "#{:05d}", "it's_{:05d}", ""])
def test_long_tables_are_written_as_short_ones_are(compiled, monkeypatch, name):
    table = long_table(700, name)
    fast = text_of(table)
    monkeypatch.setattr(star_write, "_MANY_CELLS", 10**9)
    assert fast == text_of(table)


@pytest.mark.parametrize("name", ["a_{:05d}.mrcs", "two words {:05d}.mrcs", "größer_{:05d}.mrcs", "x#{:05d}"])
def test_long_tables_are_read_as_short_ones_are(compiled, monkeypatch, tmp_path, name):
    star.write(tmp_path / "t.star", [long_table(3000, name)])
    fast = star.read_table(tmp_path / "t.star", "particles")
    monkeypatch.setattr(star_read, "_LONG", 10**9)
    plain = star.read_table(tmp_path / "t.star", "particles")
    for label, column in plain.columns.items():
        assert fast[label].dtype == column.dtype
        assert np.array_equal(fast[label], column) if column.dtype != float else fast[label].tobytes() == column.tobytes()


WRITTEN = st.from_regex(r"[+-]?[0-9]{1,20}(\.[0-9]{0,20})?(e[+-]?[0-9]{1,3})?", fullmatch=True)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.floats(), st.integers(-(10**20), 10**20), st.floats(width=16), WRITTEN), min_size=1))
def test_numbers_are_the_nearest_doubles(words):
    texts = [str(word) for word in words]
    columns = star_parse.parse_rows(" \n".join(texts).encode(), [star_parse.FLOAT])
    assert columns is not None
    assert columns[0].tobytes() == np.array([float(text) for text in texts]).tobytes() or np.isnan(columns[0]).any()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.floats(), st.floats(-1e6, 1e6), st.floats(-1e6, 1e6).map(lambda x: round(x, 7))), min_size=1))
def test_numbers_are_rounded_as_python_rounds_them(values):
    lines = star_format.format_rows([np.array(values)], len(values), star_write.format_floats)
    assert lines is not None and lines.decode() == "".join(f"{text} \n" for text in star_write.format_floats(np.array(values)))


MISTAKES = [("   0.500000", "   0.5x0000", "must be a number"), ("a_00003.mrcs  ", "a_00003.mrcs  9 ", "values")]


@pytest.mark.parametrize(("old", "new", "said"), MISTAKES)
def test_a_mistake_in_a_long_table_is_named_by_its_line(compiled, tmp_path, old, new, said):
    star.write(tmp_path / "t.star", [long_table(3000, "a_{:05d}.mrcs")])
    text = (tmp_path / "t.star").read_text().replace(old, new, 1)
    (tmp_path / "t.star").write_text(text)
    line = next(number for number, row in enumerate(text.split("\n"), 1) if new in row)
    with pytest.raises(InputError, match=rf"line {line} .*{said}"):
        star.read(tmp_path / "t.star")


def test_whole_numbers_written_as_decimals_are_read_in_long_tables(compiled, tmp_path):
    (tmp_path / "t.star").write_text("data_\nloop_\n_rlnClassNumber #1\n_rlnIsFlip #2\n" + "3.000 -1\n" * 5000)
    table = star.read(tmp_path / "t.star")[""]
    assert table["rlnClassNumber"].tolist() == [3] * 5000 and table["rlnIsFlip"].dtype == np.int64
