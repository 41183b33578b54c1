"""Hostile files: what each reader is fed, from which seeds, and how seeds are mutated. Used by test_fuzz.py and benchmarks/fuzz.py.

A target reads bytes as one kind of file. It may refuse them with InputError; anything else that it raises is a finding.
"""

from __future__ import annotations

import contextlib
import io
import logging
import random
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from aurefine import cryosparc, image_source, mrc, particles, run_report, selection, star, star_combine, star_document, star_operations
from aurefine.errors import InputError
from aurefine.extraction import coordinates, micrographs
from aurefine.image_files import open_input
from aurefine.jobs import select, star_tools
from aurefine.postprocessing.inputs import read_mtf
from aurefine.project import job_star, job_types, pipeline
from aurefine.refine import checkpoint

WORDS = (b"data_", b"\ndata_particles\n", b"\nloop_\n", b"_rlnImageName ", b"_rlnOpticsGroup #1", b'"', b"'", b"#", b"nan", b"inf", b"-1", b"0",
         b"1e999", b"99999999999999999999", b"1e-320", b"../../x@../../etc/passwd", b"000000@", b"1@/dev/zero", b"\0", b"\r\n", b"\r", b"\xff\xfe",
         b"\xc2\xb2@a", b"[1,2", b"2147483648", b"-9223372036854775809", b"true", b"None", b"0x10", b"1_0", b" \n", b"\x1c", b"\x0b")  # fmt: skip
INTEGERS = (0, 1, -1, 2, 3, 6, 12, 64, 127, 255, 1023, 1024, 65535, 2**24 - 1, 2**24, 2**31 - 1, -(2**31))

STAR_SEED = b"""
# version 30001

data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
_rlnImagePixelSize #6
_rlnImageSize #7
_rlnImageDimensionality #8
_rlnOddZernike #9
_rlnMagMat00 #10
1 opticsGroup1 300.000000 2.700000 0.100000 1.500000 8 2 [0.1,0,0,1] 1.0
2 "optics two" 300.000000 2.700000 0.100000 1.500000 8 2 [] 1.0

data_particles

loop_
_rlnImageName #1
_rlnMicrographName #2
_rlnOpticsGroup #3
_rlnAngleRot #4
_rlnAngleTilt #5
_rlnAnglePsi #6
_rlnOriginXAngst #7
_rlnOriginYAngst #8
_rlnCoordinateX #9
_rlnCoordinateY #10
_rlnDefocusU #11
_rlnDefocusV #12
_rlnRandomSubset #13
_rlnClassNumber #14
_rlnGroupName #15
000001@stack.mrcs MotionCorr/job002/mic1.mrc 1 10.0 20.0 30.0 1.0 -1.0 100.0 200.0 12000.0 11000.0 1 1 a
2@stack.mrcs MotionCorr/job002/mic1.mrc 2 -10.0 120.0 -30.0 1.0 -1.0 101.0 200.0 1.2e4 11000.0 2 3 b
3@stack.mrcs mic2.mrc 2 0 0 0 0 0 101.0 200.0 1.2e4 11000.0 2 2 b
"""
OLD_SEED = b"""data_

loop_
_rlnImageName #1
_rlnVoltage #2
_rlnSphericalAberration #3
_rlnAmplitudeContrast #4
_rlnMagnification #5
_rlnDetectorPixelSize #6
_rlnOriginX #7
_rlnDefocusU #8
1@stack.mrcs 300 2.7 0.1 33333.3 5.0 1.5 12000
2@stack.mrcs 200 2.7 0.1 33333.3 5.0 1.5 12000
"""
PIPELINE_SEED = b"""
# version 50001

data_pipeline_general

_rlnPipeLineJobCounter                       3


# version 50001

data_pipeline_processes

loop_
_rlnPipeLineProcessName #1
_rlnPipeLineProcessAlias #2
_rlnPipeLineProcessTypeLabel #3
_rlnPipeLineProcessStatusLabel #4
Import/job001/       None relion.importmovies  Succeeded
Refine3D/job002/     None relion.refine3d      Running

data_pipeline_nodes

loop_
_rlnPipeLineNodeName #1
_rlnPipeLineNodeTypeLabel #2
_rlnPipeLineNodeTypeLabelDepth #3
Import/job001/movies.star MicrographMovieGroupMetadata.star.relion 1

data_pipeline_output_edges

loop_
_rlnPipeLineEdgeProcess #1
_rlnPipeLineEdgeToNode #2
Import/job001/ Import/job001/movies.star
"""
JOB_SEED = b"""
# version 50001

data_job

_rlnJobTypeLabel             relion.refine3d
_rlnJobIsContinue                       0
_rlnJobIsTomo                           0

data_joboptions_values

loop_
_rlnJobOptionVariable #1
_rlnJobOptionValue #2
   fn_img "Extract/job018/particles.star"
   ini_high 50
 do_zero_mask Yes
 other_args ""
"""
RUN_JOB_SEED = b"job_type == 5\nis_continue == false\nInput images STAR file: == a.star\nInitial low-pass filter (A): == 60\n"
MTF_SEED = b"data_mtf\n\nloop_\n_rlnResolutionInversePixel #1\n_rlnMtfValue #2\n0 1\n0.1 0.9\n0.3 0.6\n0.5 0.4\n"
RUN_SEED = b"""data_optimiser_general

_rlnOutputRootName run
_rlnModelStarFile run_it008_half1_model.star
_rlnModelStarFile2 run_it008_half2_model.star
_rlnExperimentalDataStarFile run_it008_data.star
_rlnOrientSamplingStarFile run_it008_sampling.star
_rlnCurrentIteration 8
@@@@
""" + STAR_SEED
LIST_SEED = b"x y\n1.5 2.5 3 4\n10 20 30 40\n# no\n-5,6,7,8\n"


RUN_FILES = ("optimiser", "data", "half1_model", "half2_model", "sampling")


class Workplace:
    """A folder in which the targets find the stack that the seeds name; nothing else may appear in it or beside it."""

    def __init__(self, folder: str | Path) -> None:
        self.root = Path(folder) / "project" / "job"
        self.root.mkdir(parents=True, exist_ok=True)
        mrc.write_stack(self.root / "stack.mrcs", np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32), 1.5)
        mrc.write_map(self.root / "map.mrc", np.random.default_rng(1).normal(size=(4, 4, 4)).astype(np.float32), 1.5)

    def put(self, name: str, data: bytes) -> str:
        """Write the file to be read; its path."""
        path = self.root / name
        path.write_bytes(data)
        return str(path)


def star_target(place: Workplace, data: bytes) -> None:
    """Every table, written and read back."""
    tables = star.read(place.put("a.star", data))
    for table in tables.values():
        for label in table.columns:
            table.value(label)
    star.write(place.root / "written.star", tables)
    again = star.read(place.root / "written.star")
    assert {name: table.count for name, table in again.items()} == {name: table.count for name, table in tables.items()}


def particles_target(place: Workplace, data: bytes) -> None:
    """Particles with their images."""
    loaded = particles.load(place.put("a.star", data))
    with contextlib.suppress(ValueError):  # images of different sizes, which callers ask for by optics group
        loaded.read_images(np.arange(min(loaded.count, 4)))


def chores_target(place: Workplace, data: bytes) -> None:
    """What `aurefine star` and `aurefine select` do with a table."""
    document = star_document.load(place.put("a.star", data))
    count = document.rows.count
    chores: tuple[Callable[[], object], ...] = (
        lambda: star_combine.combine([document, document]),
        lambda: star_operations.centre(document, (1.0, 2.0, 3.0)),
        lambda: star_operations.operate(document, ["rlnClassNumber"], None, 2.0, 1.0),
        lambda: star_operations.add_column(document, "rlnRandomSubset", None, "rlnDefocusU"),
        lambda: star_operations.compare(document, document, ["rlnCoordinateX", "rlnCoordinateY"], 1.0),
        lambda: star_operations.histogram(document.column("rlnDefocusU", numeric=True)),
        lambda: selection.in_range(document.column("rlnDefocusU", numeric=True), 0.0, 1.0),
        lambda: selection.regroup(selection.numbered(document.column("rlnMicrographName").tolist()), np.ones(9999), np.ones(count, int), 2),
        lambda: star_tools._describe(document.path),
        lambda: star_tools._print(document, ""),
    )
    for chore in chores:
        with contextlib.suppress(InputError), contextlib.redirect_stdout(io.StringIO()):
            chore()


def mrc_target(place: Workplace, data: bytes) -> None:
    """A map, and a stack's last image."""
    path = place.put("a.mrc", data)
    with contextlib.suppress(InputError):
        mrc.read_map(path)
    stack = mrc.Stack(path)
    stack.read(np.array([stack.count - 1]))


def cryosparc_target(place: Workplace, data: bytes) -> None:
    """A .cs file's tables."""
    tables, _ = cryosparc.read(place.put("a.cs", data))
    assert tables["particles"].count > 0


def job_target(place: Workplace, data: bytes) -> None:
    """A job.star or run.job, and the command line made of it."""
    job = job_star.read(place.put("job.star", data))
    job.job_type.arguments(job.values, "Refine3D/job001/", "job.star")


def pipeline_target(place: Workplace, data: bytes) -> None:
    """A project's pipeline."""
    pipeline.read(place.put("default_pipeline.star", data))


def coordinates_target(place: Workplace, data: bytes) -> None:
    """Picks as STAR, list and EMAN boxes."""
    for name in ("a.star", "a.txt", "a.box"):
        with contextlib.suppress(InputError):
            coordinates.read(place.put(name, data))


def micrographs_target(place: Workplace, data: bytes) -> None:
    """Micrographs to extract from: every output lies inside the output folder."""
    found = micrographs.load(place.put("a.star", data), "Particles/", 1.5)
    for micrograph in found.micrographs:
        parts = Path(micrograph.root).parts
        assert parts[0] == "Particles" and ".." not in parts, micrograph.root


def image_target(place: Workplace, data: bytes) -> None:
    """The operands of image_handler, by name; and a micrograph as TIFF."""
    with contextlib.suppress(InputError):
        open_input(data.decode("utf-8", "surrogateescape"))
    with contextlib.suppress(InputError):
        micrographs.read_image(place.put("a.tif", data))


def mtf_target(place: Workplace, data: bytes) -> None:
    """A detector's MTF, and a STAR list of images as image_handler's operand."""
    for read in (read_mtf, open_input):
        with contextlib.suppress(InputError):
            read(place.put("a.star", data))


def run_target(place: Workplace, data: bytes) -> None:
    """A run's optimiser, data, model and sampling files (parted by a line of @): what --continue, select and report read."""
    for half in (1, 2):
        if not (place.root / f"run_it008_half{half}_class001.mrc").exists():
            mrc.write_map(place.root / f"run_it008_half{half}_class001.mrc", np.zeros((64, 64, 64), np.float32), 3.54)
    for name, part in zip(RUN_FILES, data.split(b"\n@@@@\n"), strict=False):
        place.put(f"run_it008_{name}.star", part)
    optimiser = str(place.root / "run_it008_optimiser.star")
    for read in (checkpoint.load, select._load, lambda path: run_report.read_run(place.root / "run")):
        with contextlib.suppress(InputError):
            read(optimiser)


def names_target(place: Workplace, data: bytes) -> None:
    """Image names, one a line."""
    names = np.array(data.decode("utf-8", "surrogateescape").split("\n"), dtype=object)
    source = image_source.open_images(names, place.root / "a.star", "rlnImageName", np.arange(1, len(names) + 1))
    with contextlib.suppress(ValueError):
        source.read(np.arange(min(4, source.count)))


TARGETS: dict[str, Callable[[Workplace, bytes], None]] = {
    "star": star_target, "particles": particles_target, "chores": chores_target, "mrc": mrc_target, "cryosparc": cryosparc_target, "job": job_target,
    "pipeline": pipeline_target, "coordinates": coordinates_target, "micrographs": micrographs_target, "image": image_target, "names": names_target,
    "mtf": mtf_target, "run": run_target,
}  # fmt: skip


def run(name: str, place: Workplace, data: bytes) -> bool:
    """Feed one file to a target; whether it was accepted. Raises what the target raises beyond InputError."""
    try:
        TARGETS[name](place, data)
    except InputError as error:
        if not str(error):
            raise AssertionError("an InputError without a message") from error
        return False
    return True


def seeds(name: str, place: Workplace, shared: Path | None = None) -> list[bytes]:
    """Files that the target accepts (and two that it refuses), to start from."""
    every = _seeds(name, place, shared)
    accepted = [data for data in every if run(name, place, data)]
    return accepted + [data for data in every if data not in accepted][:2]


def _seeds(name: str, place: Workplace, shared: Path | None) -> list[bytes]:
    """Files made here, and short ones of other programs where the shared data are."""
    stars = [STAR_SEED, OLD_SEED]
    if name in ("star", "particles", "chores", "coordinates", "micrographs", "pipeline", "job"):
        own = {"pipeline": [PIPELINE_SEED], "job": [RUN_JOB_SEED, JOB_SEED, *_jobs(place)], "coordinates": [LIST_SEED],
               "micrographs": [_micrographs()]}  # fmt: skip
        return own.get(name, []) + stars + _shared(shared, "*.star")
    if name == "mtf":
        return [MTF_SEED, STAR_SEED]
    if name == "run":
        return _runs(shared)
    if name == "mrc":
        return [(place.root / file).read_bytes() for file in ("map.mrc", "stack.mrcs")] + [float16_stack(place)]
    if name == "cryosparc":
        return [cryosparc_seed(), *_shared(shared, "*.cs")]
    if name == "image":
        return [b"stack.mrcs", b"2@stack.mrcs:mrcs", b"map.mrc:map", tiff_seed()]
    return [b"1@stack.mrcs\n000002@stack.mrcs\nmap.mrc", b"../job/stack.mrcs\n3@../../project/job/stack.mrcs"]


def _runs(shared: Path | None) -> list[bytes]:
    """RELION 5's files of one iteration, their long tables cut; without the shared data only the optimiser's outline."""
    made = [RUN_SEED]
    for number in ("008", "012"):
        files = [shared / "relion5_betagal_run" / f"run_it{number}_{name}.star" for name in RUN_FILES] if shared else []
        if files and all(path.is_file() for path in files):
            made.append(b"\n@@@@\n".join(path.read_bytes()[:12_000].rsplit(b"\n", 1)[0].replace(b"it012", b"it008") + b"\n" for path in files))
    return made


def _jobs(place: Workplace) -> list[bytes]:
    """The job.star of every kind of job as its form first shows it."""
    made = []
    for kind in job_types.JOB_TYPES:
        form = {row.key: "a.star" if row.required else row.default for row in kind.fields}
        chosen = {row.key: "Yes" for row in kind.fields if row.key in ("do_rescale", "do_norm", "do_remove_duplicates")}
        job_star.write(place.root / "seed.star", job_star.JobStar(kind, {**form, **chosen}))
        made.append((place.root / "seed.star").read_bytes())
    return made


def _shared(folder: Path | None, pattern: str) -> list[bytes]:
    if folder is None:
        return []
    return [data[:6000].rsplit(b"\n", 1)[0] + b"\n" if pattern == "*.star" else data
            for data in (path.read_bytes() for path in sorted((folder / "star").rglob(pattern)))]  # fmt: skip


def _micrographs() -> bytes:
    return (STAR_SEED.replace(b"data_particles", b"data_micrographs").replace(b"_rlnImageName", b"_rlnCtfImage")
            .replace(b"_rlnImagePixelSize", b"_rlnMicrographPixelSize").replace(b"job002/mic1.mrc 2", b"job002/../../mic3.mrc 2"))  # fmt: skip


def float16_stack(place: Workplace) -> bytes:
    """A stack of 16-bit floats."""
    mrc.write_stack(place.root / "half.mrcs", np.ones((2, 4, 6), np.float32), 1.0, float16=True)
    return (place.root / "half.mrcs").read_bytes()


def tiff_seed() -> bytes:
    """A small TIFF image."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it tells of every odd tag

    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.arange(64, dtype=np.float32).reshape(8, 8))
    return buffer.getvalue()


def cryosparc_seed() -> bytes:
    """Three particles as cryoSPARC writes them."""
    kind = [("uid", "<u8"), ("blob/path", "S12"), ("blob/idx", "<u4"), ("blob/shape", "<u4", (2,)), ("blob/psize_A", "<f4"), ("blob/sign", "<f4"),
            ("ctf/accel_kv", "<f4"), ("ctf/cs_mm", "<f4"), ("ctf/df1_A", "<f4"), ("ctf/tilt_A", "<f4", (2,)), ("alignments3D/pose", "<f4", (3,)),
            ("alignments3D/shift", "<f4", (2,)), ("alignments3D/split", "<u4")]  # fmt: skip
    rows = np.zeros(3, dtype=kind)
    rows["blob/path"], rows["blob/idx"], rows["blob/shape"], rows["blob/psize_A"] = b">stack.mrcs", [0, 1, 2], 8, 1.5
    rows["uid"], rows["ctf/cs_mm"], rows["alignments3D/pose"] = [7, 8, 9], 2.7, np.eye(3)
    buffer = io.BytesIO()
    np.save(buffer, rows)
    return buffer.getvalue()


def mutate(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """One to four random changes: bytes, words, numbers, pieces moved, doubled or taken from another file."""
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place, size = rng.randrange(len(result) + 1), rng.choice((1, 1, 4, 16, 200))
        how = rng.randrange(8)
        if how == 0 and result:
            result[place % len(result)] = rng.randrange(256)
        elif how == 1:
            result[place : place + rng.choice((0, size))] = rng.choice(WORDS)
        elif how == 2:
            del result[place : place + size]
        elif how == 3:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            result[place:place] = other[start : start + size]
        elif how == 4:
            result[place : place + 4] = struct.pack("<i", rng.choice(INTEGERS))
        elif how == 5 and len(result) >= 1024:
            result[4 * (place % 56) : 4 * (place % 56) + 4] = struct.pack(rng.choice("<>") + "i", rng.choice(INTEGERS))  # words of an MRC header
        elif how == 6:
            words = bytes(result).split(b" ")
            words[rng.randrange(len(words))] = rng.choice(WORDS)
            result = bytearray(b" ".join(words))
        else:
            del result[rng.randrange(len(result) + 1) :]
    return bytes(result[:100_000])


def strays(place: Workplace) -> set[str]:
    """Files outside the job's folder, which no reader may make."""
    top = place.root.parents[1]
    return {str(path.relative_to(top)) for path in top.rglob("*") if path.is_file() and place.root not in path.parents}


def temporary() -> tempfile.TemporaryDirectory[str]:
    """A folder in memory where there is one: a million small files are written."""
    return tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
