"""Binary files that are whole but senseless, made field by field (hypothesis): .cs tables of any kinds and values, MRC headers of any words."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import warnings

import fuzzing as fuzz
import numpy as np
import pytest
from fuzzing.image_readers import cryosparc_seed
from hypothesis import given, settings
from hypothesis import strategies as st

from aurefine import cryosparc, mrc, particles, star, star_document
from aurefine.errors import InputError

GOOD = np.load(io.BytesIO(cryosparc_seed()))
FIELDS = [*GOOD.dtype.names, "ctf/exp_group_id", "ctf/amp_contrast", "ctf/df2_A", "ctf/df_angle_rad", "ctf/phase_shift_rad", "alignments3D/psize_A",
          "location/micrograph_path", "location/center_x_frac", "location/center_y_frac", "location/micrograph_shape", "alignments_class_0/pose",
          "alignments_class_0/shift", "alignments_class_0/class_posterior"]  # fmt: skip
KINDS = ["<f4", "<f8", "<u4", "<i8", "<u8", "S12", "U5", "?", "<c8", "V4", ">f4", ">u4", "<f2", "<M8[s]", "<m8[s]"]
VALUES = [np.nan, np.inf, -np.inf, 0, -1, 1e30, 1e308, 2**32 - 1, 2**63 - 1, 1e-320, 1]
SHAPES = [(), (2,), (3,), (0,), (2, 2), (1,)]


@st.composite
def tables(draw: st.DrawFn) -> np.ndarray:
    """Three rows of a good table with fields added, taken away, or of another kind, and some values out of all reason."""
    kinds = {name: (GOOD.dtype[name].base, GOOD.dtype[name].shape) for name in GOOD.dtype.names}
    for name in draw(st.lists(st.sampled_from(FIELDS), max_size=3)):
        kinds[name] = (np.dtype(draw(st.sampled_from(KINDS))), draw(st.sampled_from(SHAPES)))
    for name in draw(st.lists(st.sampled_from(FIELDS), max_size=1)):
        kinds.pop(name, None)
    rows = np.zeros(3, dtype=[(name, kind, shape) for name, (kind, shape) in kinds.items()])
    for name in rows.dtype.names:
        if name in GOOD.dtype.names and rows.dtype[name] == GOOD.dtype[name]:
            rows[name] = GOOD[name]
    for name, value in draw(st.lists(st.tuples(st.sampled_from(FIELDS), st.sampled_from(VALUES)), max_size=3)):
        if name in kinds:
            with contextlib.suppress(ValueError, TypeError, OverflowError):  # what this kind cannot hold
                rows[name][draw(st.integers(0, 2))] = value
    return rows


@pytest.fixture(scope="module")
def place():
    with fuzz.temporary() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = fuzz.Workplace(folder)
        before = os.getcwd()
        os.chdir(made.root)
        yield made
        os.chdir(before)


@settings(max_examples=300, deadline=None)
@given(rows=tables())
def test_any_table_of_cryosparc_is_read_or_refused(place, rows):
    np.save(place.root / "a.npy", rows)
    os.replace(place.root / "a.npy", place.root / "a.cs")
    with fuzz.watched(place) as seen:
        for read in (lambda: particles.load("a.cs"), lambda: star.write("out.star", cryosparc.read("a.cs")[0]), lambda: star_document.load("a.cs")):
            with contextlib.suppress(InputError):
                read()
    assert not seen


WORD = st.sampled_from([0, 1, -1, 2, 3, 4, 6, 8, 12, 64, 101, 1024, 65536, 2**24 - 1, 2**31 - 1, -(2**31)]) | st.integers(-(2**31), 2**31 - 1)


@settings(max_examples=400, deadline=None)
@given(words=st.dictionaries(st.integers(0, 55), WORD, max_size=6), order=st.sampled_from("<>"), length=st.integers(0, 4000))
def test_any_mrc_header_is_read_or_refused_and_never_holds_more_than_its_file(place, words, order, length):
    header = {0: 8, 1: 8, 2: 3, 3: 2, 7: 8, 8: 8, 9: 3, 16: 1, 17: 2, 18: 3, **words}
    raw = bytearray(1024)
    for number, value in header.items():
        raw[4 * number : 4 * number + 4] = struct.pack(order + "i", value)
    path = place.put("a.mrc", bytes(raw) + bytes(length))
    with contextlib.suppress(InputError):
        stack = mrc.Stack(path)
        assert stack.count * stack.height * stack.width <= 2 * length  # 4-bit numbers are the smallest
        assert stack.read(np.arange(stack.count)).shape == (stack.count, stack.height, stack.width)
    with contextlib.suppress(InputError):
        volume, pixel_size = mrc.read_map(path)
        assert volume.size <= 2 * length and np.isfinite(pixel_size) and pixel_size > 0
