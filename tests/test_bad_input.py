"""A mistake in what a user gives is one clear message and exit code 2, told before anything is written that looks like a result."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aurefine import atomic, molecule, mrc, particles, simulate, star
from aurefine.cli.main import main
from aurefine.imaging import Camera, Imaging
from aurefine.refine import inputs
from aurefine.refine.options import RefineOptions
from aurefine.refine.run_status import read_status

BOX, PIXEL_SIZE, COUNT = 32, 8.0, 24
STACK = "Particles/micrograph_0001.mrcs"


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good little project."""
    folder = tmp_path_factory.mktemp("project")
    imaging = Imaging(particles=COUNT, cameras=(Camera(PIXEL_SIZE, BOX),), particles_per_micrograph=12)
    simulate.simulate(molecule.generate("D2", seed=1), folder, imaging)
    return folder


def arguments(**changed: str | None) -> list[str]:
    """A refinement's command line; a value of None leaves the flag out."""
    values = {"i": "particles.star", "ref": "reference.mrc", "o": "out/run", "sym": "D2", "ini_high": "50", "particle_diameter": "200"} | changed
    line = ["refine", "--auto_refine", "--split_random_halves", "--ctf", "--zero_mask", "--random_seed", "1", "--auto_iter_max", "1"]
    return line + [word for flag, value in values.items() if value is not None for word in (f"--{flag}", value)]


def edit(table: str, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]], path: str = "particles.star") -> None:
    """Rewrite one table of the STAR file with its columns changed."""
    tables = star.read(path)
    tables[table] = star.Table(table, change(dict(tables[table].columns)), tables[table].is_list)
    star.write(path, tables)


def drop(*labels: str) -> Callable[[dict], dict]:
    return lambda columns: {label: values for label, values in columns.items() if label not in labels}


def put(label: str, value) -> Callable[[dict], dict]:
    return lambda columns: {**columns, label: np.full(len(next(iter(columns.values()))), value)}


def spoil_images(values, count: int = 3) -> None:
    """More than are set aside as accidents, unless `count` is smaller."""
    images = mrc.Stack(STACK).read(np.arange(12))
    images[4 : 4 + count] = values
    mrc.write_stack(STACK, images, PIXEL_SIZE)


def write_reference(volume: np.ndarray, pixel_size: float = PIXEL_SIZE, path: str = "reference.mrc") -> None:
    mrc.write_map(path, volume, pixel_size)


def truncate(path: str, size: int) -> None:
    with open(path, "r+b") as handle:
        handle.truncate(os.path.getsize(path) - size)


def blob() -> np.ndarray:
    return mrc.read_map("reference.mrc")[0]


def spoil_voxel() -> None:
    volume = blob()
    volume[3, 3, 3] = np.nan
    write_reference(volume)


def without_pixel_size() -> None:
    with open("reference.mrc", "r+b") as handle:
        handle.seek(40)
        handle.write(bytes(12))


CASES: dict[str, tuple[Callable[[], object], dict[str, str | None], str]] = {
    "particles are not there": (lambda: None, {"i": "other.star"}, "--i other.star: there is no such file"),
    "particles are no STAR file": (lambda: None, {"i": "reference.mrc"}, "reference.mrc: not a STAR file"),
    "reference is not there": (lambda: None, {"ref": "map.mrc"}, "--ref map.mrc: there is no such file"),
    "reference is no map": (lambda: None, {"ref": "particles.star"}, "particles.star: not an MRC file"),
    "no reference": (lambda: None, {"ref": None}, "give a map"),
    "mask is not there": (lambda: None, {"solvent_mask": "mask.mrc"}, "--solvent_mask mask.mrc: there is no such file"),
    "second mask is not there": (lambda: None, {"solvent_mask2": "mask.mrc"}, "--solvent_mask2 mask.mrc: there is no such file"),
    "mask is a map": (lambda: None, {"solvent_mask": "truth.mrc"}, "truth.mrc: mask values run from .* 0 to 1 was expected"),
    "mask is no cube": (
        lambda: write_reference(np.ones((32, 32, 16)), path="mask.mrc"), {"solvent_mask": "mask.mrc"}, "mask.mrc: the mask has 16 x 32 x 32 voxels",
    ),
    "mask is empty": (lambda: write_reference(np.zeros((32,) * 3), path="mask.mrc"), {"solvent_mask": "mask.mrc"}, "mask.mrc: the mask is nowhere"),
    "mask of another scale": (
        lambda: write_reference(np.ones((32,) * 3), 0.8, "mask.mrc"), {"solvent_mask": "mask.mrc"}, "mask.mrc: the mask is 26 A wide",
    ),
    "stack is not there": (lambda: os.unlink(STACK), {}, rf"particles.star, row 1: rlnImageName names {STACK}, which is not there"),
    "no CTF column": (lambda: edit("particles", drop("rlnDefocusU")), {}, "particles.star: data_particles lacks rlnDefocusU"),
    "no voltage": (lambda: edit("optics", drop("rlnVoltage")), {}, "particles.star: .*rlnVoltage"),
    "a defocus is not a number": (lambda: edit("particles", put("rlnDefocusU", np.nan)), {}, "particles.star, row 1: rlnDefocusU is nan"),
    "the defocus was never estimated": (lambda: edit("particles", put("rlnDefocusU", 0.0)), {}, "rlnDefocusU is 0 in every row"),
    "no image names": (lambda: edit("particles", drop("rlnImageName")), {}, "particles.star: no table of particles"),
    "wrong box": (lambda: edit("optics", put("rlnImageSize", 64)), {}, "row 1: .*holds images of 32 x 32 pixels, but rlnImageSize .* is 64"),
    "wrong pixel size": (lambda: edit("optics", put("rlnImagePixelSize", 4.0)), {}, "has 4 Angstrom per pixel, but .* says 8"),
    "many images are NaN": (lambda: spoil_images(np.nan), {}, r"3 of 24 images cannot be used: row 5 \(000005@Particles/.*\): not_finite"),
    "many images are blank": (lambda: spoil_images(0), {}, r"3 of 24 images cannot be used: row 5 .*: constant.* Extract the particles"),
    "truncated stack": (lambda: truncate(STACK, 10000), {}, f"{STACK}: truncated"),
    "stack shorter than the STAR file": (
        lambda: mrc.write_stack(STACK, mrc.Stack(STACK).read(np.arange(9)), PIXEL_SIZE), {}, "that stack holds only 9 images",
    ),
    "unknown symmetry": (lambda: None, {"sym": "Q7"}, "Q7"),
    "symmetry with mirrors": (lambda: None, {"sym": "D2h"}, "D2[hH]"),
    "no particle": (lambda: edit("particles", lambda columns: {label: values[:0] for label, values in columns.items()}), {}, "has no particle"),
    "one half-set is empty": (lambda: edit("particles", put("rlnRandomSubset", 1)), {}, r"particles.star: no particle is in half-set 2"),
    "a single particle": (
        lambda: edit("particles", lambda columns: {label: values[:1] for label, values in columns.items()}), {"auto_iter_max": "1"},
        "particles.star: 1 particle cannot be divided into two half-sets at random",
    ),
    "the output is a folder": (lambda: None, {"o": "R/dir/"}, "--o R/dir/: a folder; .* such as R/dir/run"),
    "a third half-set": (lambda: edit("particles", put("rlnRandomSubset", 3)), {}, "row 1: rlnRandomSubset is 3"),
    "reference is no cube": (lambda: write_reference(blob()[:16]), {}, "reference.mrc: the reference has 32 x 32 x 16 voxels"),
    "reference is NaN": (spoil_voxel, {}, r"reference.mrc: 1 of 32768 voxels are not finite"),
    "reference is constant": (lambda: write_reference(np.ones((BOX,) * 3)), {}, "reference.mrc: the reference has the same value everywhere"),
    "reference too small": (lambda: write_reference(blob(), 0.8), {}, "reference.mrc: the reference is 26 A wide, less than half .* --ref_angpix"),
    "reference too large": (lambda: write_reference(blob(), 80.0), {}, "reference.mrc: the reference is 2560 A wide, more than 8 .* --ref_angpix"),
    "reference without pixel size": (without_pixel_size, {}, "reference.mrc: the header gives no pixel size"),
    "truncated reference": (lambda: truncate("reference.mrc", 10000), {}, "reference.mrc: truncated"),
    "output is below a file": (lambda: None, {"o": "particles.star/run"}, "particles.star: the output folder cannot be made"),
    "number out of range": (lambda: None, {"healpix_order": "12"}, "--healpix_order 12: a HEALPix order between 0 and 8"),
    "number is a word": (lambda: None, {"ini_high": "fifty"}, "fifty"),
    "an option that is not supported": (lambda: None, {"NN": ""}, "--NN is not supported: projections are interpolated linearly"),
    "corrected FSC without a mask": (lambda: None, {"solvent_correct_fsc": ""}, "--solvent_correct_fsc needs a mask"),
    "continued file is not there": (lambda: None, {"continue": "run_it001_optimiser.star"}, "run_it001_optimiser.star"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_bad_input_is_one_message_and_leaves_nothing_behind(case, project, capsys):
    spoil, changed, message = CASES[case]
    spoil()
    line = [word for word in arguments(**changed) if word]
    before = {path.name for path in project.iterdir()}
    assert main(line) == 2
    errors = capsys.readouterr().err.strip()
    assert re.search(message, errors), f"{message!r} was expected in {errors!r}"
    assert errors.startswith("aurefine") and "\n" not in errors and "Traceback" not in errors
    assert {path.name for path in project.iterdir()} <= before | {"out"} and {path.name for path in project.glob("out/*")} <= {"status.json"}
    if (project / "out" / "status.json").exists():
        status = read_status(project / "out")
        assert status.verdict() == "failed" and re.search(message, status.message)


def test_a_reference_of_another_box_and_pixel_size_is_resampled(project):
    own = blob()
    write_reference(mrc.read_map("truth.mrc")[0][4:28, 4:28, 4:28], PIXEL_SIZE, "small.mrc")
    found = inputs.read_inputs(particles.load("particles.star"), RefineOptions(reference="small.mrc", random_seed=1, particle_diameter=200), print)
    assert found.box == len(own) and found.pixel_size == PIXEL_SIZE
    assert np.allclose(found.references[0][4:28, 4:28, 4:28], mrc.read_map("truth.mrc")[0][4:28, 4:28, 4:28], atol=1e-5)


def test_a_mask_diameter_wider_than_the_box_is_warned_of(project):
    warnings: list[str] = []
    options = RefineOptions(reference="reference.mrc", particle_diameter=999, random_seed=1)
    inputs.read_inputs(particles.load("particles.star"), options, warnings.append)
    assert len(warnings) == 1 and "--particle_diameter 999" in warnings[0]


def test_a_full_disk_is_one_message_and_no_iteration_looks_whole(project, monkeypatch, capsys):
    real, written = os.fsync, []

    def fail_after_three(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) > 6:  # each file is flushed, then its folder
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(atomic.os, "fsync", fail_after_three)
    assert main(arguments()) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert "cannot write out/run_it000" in errors[-1] and "no space is left on the disk" in errors[-1]
    left = {path.name for path in (project / "out").iterdir()}
    assert left and not any("optimiser" in name or name.endswith(".tmp") for name in left)


def test_too_little_room_is_told_before_the_images_are_read(project, monkeypatch, capsys):
    monkeypatch.setattr("aurefine.refine.inputs.shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 10**4))
    assert main(arguments()) == 2
    assert "0 MB are free on this disk" in capsys.readouterr().err


def run_program(line: list[str], **further) -> subprocess.CompletedProcess:
    """The installed command line in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(atomic.__file__).parents[1])}
    command = [sys.executable, "-m", "aurefine", *line]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300, **further)


def test_the_program_itself_ends_with_code_2_and_says_so_to_the_pipeliner(project):
    spoil_images(np.nan)
    done = run_program([*arguments(), "--pipeline_control", "out/"])
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert sorted(path.name for path in (project / "out").iterdir()) == ["RELION_JOB_EXIT_FAILURE", "status.json"]


def test_a_file_size_limit_of_the_system_is_one_message(project):
    done = run_program(arguments(), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)))
    assert done.returncode == 2, done.stderr
    assert "cannot write out/run_it000_half1_class001.mrc" in done.stderr and "ulimit" in done.stderr and "Traceback" not in done.stderr
    assert not list((project / "out").glob("*optimiser*")) and not list((project / "out").glob(".*"))
