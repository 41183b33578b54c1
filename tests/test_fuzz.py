"""Readers refuse hostile files with one message: no other exception, no long wait, no gigantic memory, nothing written elsewhere.

The short, repeatable version of benchmarks/fuzz.py; what that found is kept here as examples.
"""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import tempfile
import time
import tracemalloc
import warnings

import fuzzing as fuzz
import numpy as np
import pytest
from fuzzing.image_readers import tiff_seed
from fuzzing.project_readers import run_seed
from fuzzing.star_seeds import MODEL_SEED, PIPELINE_SEED, SAMPLING_SEED, STAR_SEED
from hypothesis import given, settings
from hypothesis import strategies as st

from aurefine import cryosparc, mrc, star, star_read
from aurefine.errors import InputError
from aurefine.extraction import coordinates, micrographs
from aurefine.project import job_star
from aurefine.project.project import Project

EXECUTIONS = 600
RUN = run_seed()


@pytest.fixture
def place(monkeypatch):
    with fuzz.temporary() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = fuzz.Workplace(folder)
        monkeypatch.chdir(made.root)
        yield made


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_mutated_files_are_read_or_refused(place, name):
    rng, corpus = random.Random(name), fuzz.seeds(name, place)
    assert any(fuzz.run(name, place, data) for data in corpus), "the seeds are all refused: the target tests nothing"
    with fuzz.watched(place) as seen:
        for _ in range(EXECUTIONS):
            data = fuzz.mutate(rng, rng.choice(corpus), corpus)
            start = time.process_time()
            fuzz.run(name, place, data)
            assert time.process_time() - start < 10, data[:200]
            assert not seen, data[:200]
    assert not fuzz.strays(place)


@pytest.mark.parametrize("name", ["coordinates", "job", "micrographs", "model", "particles", "pipeline", "run", "sampling", "status"])
def test_no_value_makes_a_reader_stumble(place, name):
    """One value of a good file at a time; a part of them each time, another with each reader."""
    rng = random.Random(f"{name} values")
    variants = list(fuzz.every_value(fuzz.seeds(name, place)[0]))
    with fuzz.watched(place) as seen:
        for data in rng.sample(variants, min(400, len(variants))):
            fuzz.run(name, place, data)
            assert not seen, data


def test_the_watch_sees_what_readers_may_not_do(place):
    with fuzz.watched(place) as seen:
        (place.root / "a.star").write_text("data_\n")
        assert not seen
        (place.root / "link" / "b.star").write_text("data_\n")  # leads out of the job's folder
        (place.root.parent / "c").mkdir()
        pickle.loads(pickle.dumps(tempfile.TemporaryDirectory))
    assert [line.split(" ")[0] for line in seen] == ["open", "os.mkdir", "pickle.find_class"]


def test_objects_in_a_cs_file_are_never_unpickled(place):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(place.root / "unpickled"),)

    for kind in ([("uid", object)], [("uid", "<u8"), ("inner", [("deep", object, (2,))])], object):
        rows = np.zeros(1, dtype=kind)
        if rows.dtype.names:
            rows[0] = (Payload(),) if len(rows.dtype) == 1 else (1, ([Payload(), None],))
        else:
            rows[0] = Payload()
        np.save(place.root / "a.npy", rows, allow_pickle=True)
        (place.root / "a.npy").rename(place.root / "a.cs")
        with fuzz.watched(place) as seen, pytest.raises(InputError, match="rows of fields"):
            cryosparc.read(place.root / "a.cs")
        assert not seen and not (place.root / "unpickled").exists()


WORDS = ("data_", "data_a", "loop_", "_rlnImageName", "_rlnClassNumber #2", "_x", '"', "'", "''", "#", "1", "-1.5", "nan", "a b", "é", "\t")
TOKENS = st.sampled_from(WORDS)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(TOKENS, st.sampled_from([" ", "\n", "\n\n", " \r\n"]))).map(lambda pairs: "".join(a + b for a, b in pairs)))
def test_any_order_of_words_is_read_or_refused(text):
    with fuzz.temporary() as folder:
        fuzz.run("star", fuzz.Workplace(folder), text.encode())


FOUND = {
    "a digit of another script as an image's number": ("names", "²@stack.mrcs".encode()),
    "an image's number beyond 64 bits": ("names", b"99999999999999999999@stack.mrcs"),
    "a zero byte in an operand's name": ("image", b"stack\0.mrcs"),
    "a digit of another script in an operand's name": ("image", "²@stack.mrcs".encode()),
    "a zero byte in an image's name": ("names", b"1@stack\0.mrcs"),
    "a name longer than file systems allow": ("names", b"1@" + b"s" * 5000),
    "a header of a .cs file that is no Python": ("cryosparc", b"\x93NUMPY\x01\x00v\x00{'descr': [('a', '<u4'" + b" " * 100),
    "a job type that is a digit of another script": ("job", "job_type == ²\n".encode()),
    "a grid finer than numbers tell": ("sampling", SAMPLING_SEED.replace(b"Order 4", b"Order 99999")),
    "a grid that takes a gibibyte to count": ("sampling", SAMPLING_SEED.replace(b"Order 4", b"Order 9999999999")),
    "a grid coarser than a sphere": ("sampling", SAMPLING_SEED.replace(b"Order 4", b"Order -9999")),
    "a length whose square is too large": ("model", MODEL_SEED.replace(b"OffsetsAngst 10.427871", b"OffsetsAngst 1e308")),
    "a shell before the first": ("model", MODEL_SEED.replace(b"0 4.5 ", b"-9223372036854775808 4.5 ")),
    "a micrograph named by two dots": ("micrographs", STAR_SEED.replace(b"data_particles", b"data_micrographs").replace(b" mic2.mrc ", b" .. ")),
    "a resolution that is not a number": ("run", RUN.replace(b"_rlnCurrentResolution 9.0624", b"_rlnCurrentResolution nan")),
    "a best resolution that is infinite": ("run", RUN.replace(b"_rlnBestResolutionThusFar 0.11", b"_rlnBestResolutionThusFar inf")),
    "a pixel size of nothing": ("run", RUN.replace(b"_rlnPixelSize 1.5", b"_rlnPixelSize 0")),
    "an option of the first command line that is infinite": ("run", RUN.replace(b"--healpix_order 2", b"--healpix_order inf")),
    "a table without rows in a sampling file": ("sampling", b"data_sampling_general\nloop_\n_rlnHealpixOrder\n"),
}


@pytest.mark.parametrize("case", FOUND)
def test_what_fuzzing_found_stays_refused(place, case):
    name, data = FOUND[case]
    fuzz.run(name, place, data)


def mrc_header(**words: int) -> bytes:
    raw = bytearray(1024)
    for place, value in {"w0": 10, "w1": 10, "w2": 10, "w3": 2, **words}.items():
        raw[4 * int(place[1:]) : 4 * int(place[1:]) + 4] = struct.pack("<i", value)
    return bytes(raw)


@pytest.mark.parametrize("words", [{"w0": 2**24 - 1, "w1": 2**24 - 1, "w2": 2**24 - 1}, {"w23": 2**31 - 1}, {"w2": 10**7}])
def test_gigantic_mrc_headers_ask_for_no_memory(tmp_path, words):
    (tmp_path / "a.mrc").write_bytes(mrc_header(**words) + bytes(4000))
    for read in (mrc.read_map, mrc.Stack):
        with pytest.raises(InputError, match="truncated"):
            read(tmp_path / "a.mrc")


def test_a_hundred_thousand_labels_are_no_long_wait(tmp_path):
    labels = "".join(f"_label{number}\n" for number in range(100_000))
    (tmp_path / "a.star").write_text("data_\nloop_\n" + labels + "1 " * 100_000 + "\n" + "1 " * 1_100_000 + "\n")
    start = time.process_time()
    with pytest.raises(InputError, match="1100000 values"):
        star.read(tmp_path / "a.star")
    assert time.process_time() - start < 20


@pytest.mark.parametrize("compiled_from", [0, 10**9])
def test_blank_lines_take_no_memory(tmp_path, monkeypatch, compiled_from):
    monkeypatch.setattr(star_read, "_LONG", compiled_from)
    labels = "".join(f"_rlnAngle{number}\n_rlnDefocusU{number}\n" for number in range(200))
    (tmp_path / "a.star").write_text("data_\nloop_\n" + labels + "1 " * 400 + "\n" * 4_000_000 + "1 " * 400)
    tracemalloc.start()
    table = star.read(tmp_path / "a.star")[""]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert table.count == 2 and peak < 300e6


def test_a_gigantic_file_that_is_no_star_file_is_not_read(tmp_path):
    """Files with holes, which take no room on the disk: a stack given for its STAR file, and a text that no memory would hold."""
    for name, start, message in (("a.mrcs", mrc_header(), "not a STAR file"), ("a.star", b"data_\nloop_\n_rlnImageName\n" * 200, "larger than")):
        with open(tmp_path / name, "wb") as file:
            file.write(start)
            file.truncate(1 << 40)
        tracemalloc.start()
        with pytest.raises(InputError, match=message):
            star.read(tmp_path / name)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1e6


def test_a_gigantic_list_of_coordinates_and_a_gigantic_job_are_not_read(tmp_path):
    for name, read in (("a.txt", coordinates.read), ("a.box", coordinates.read), ("job.star", job_star.read)):
        with open(tmp_path / name, "wb") as file:
            file.truncate(1 << 40)
        with pytest.raises(InputError, match="too large" if name != "job.star" else "not a STAR file"):
            read(str(tmp_path / name))


def test_gigantic_cs_headers_ask_for_no_memory(tmp_path):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": [("uid", "<u8")], "fortran_order": False, "shape": (10**15,)})
    (tmp_path / "a.cs").write_bytes(buffer.getvalue() + bytes(800))
    with pytest.raises(InputError, match="truncated"):
        cryosparc.read(tmp_path / "a.cs")


def test_a_tiff_that_claims_more_than_it_can_hold_is_refused(tmp_path):
    data = tiff_seed()
    tag = max(data.find(struct.pack("<HHI", 256, kind, 1)) for kind in (3, 4))  # ImageWidth, short or long
    assert tag > 0
    claimed = data[:tag] + struct.pack("<HHII", 256, 4, 1, 2_000_000_000) + data[tag + 12 :]
    (tmp_path / "a.tif").write_bytes(claimed)
    with pytest.raises(InputError, match="damaged"):
        micrographs.read_image(str(tmp_path / "a.tif"))


@pytest.mark.parametrize("name", ["../../elsewhere/", "/tmp/elsewhere/", "Refine3D/../../x/"])
def test_a_pipeline_that_names_jobs_elsewhere_is_refused(place, name):
    place.put("default_pipeline.star", PIPELINE_SEED.replace(b"Refine3D/job002/", name.encode()))
    with pytest.raises(InputError, match="outside the project"):
        Project.open(place.root).read()


def test_nodes_that_lead_elsewhere_are_not_mirrored(place):
    (place.root.parent / "b.star").write_bytes(b"x")
    data = PIPELINE_SEED.replace(b"Import/job001/movies.star", b"../../job/../b.star")
    data = data.replace(b"MicrographMovieGroupMetadata.star.relion", b"../../../t") + b"Import/job001/ Import/job001/unknown.star\n"
    place.put("default_pipeline.star", data)
    before = fuzz.strays(place)
    project = Project.open(place.root)
    pipeline = project.read()
    project.show_nodes(pipeline, pipeline.processes[0], scheduled=True)
    assert fuzz.strays(place) == before


@pytest.mark.parametrize(("tag", "value"), [(259, 8), (258, 0), (277, 0), (322, 0), (278, 0)])
def test_a_tiff_with_a_senseless_tag_is_read_or_refused(tmp_path, tag, value):
    """Compression that the bytes do not have, no bits, no samples, no tiles, no rows: zlib's errors, divisions by zero."""
    data = bytearray(tiff_seed())
    place = next(start for start in range(10, len(data) - 12, 12) if struct.unpack_from("<H", data, start)[0] in (258, 259))
    struct.pack_into("<HHII", data, place, tag, 3, 1, value)
    (tmp_path / "a.tif").write_bytes(bytes(data))
    try:
        micrographs.read_image(str(tmp_path / "a.tif"))
    except InputError as error:
        assert "a.tif" in str(error)


def test_a_name_with_a_zero_byte_is_refused_by_every_reader():
    for read in (star.read, mrc.read_header, cryosparc.read):
        with pytest.raises(InputError, match="cannot be read"):
            read("a\0b")
