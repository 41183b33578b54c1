"""A refinement warns before its first iteration of what an expert would have seen, and says all warnings again at its end."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from aurefine import mask, molecule, mrc, particles, simulate, star
from aurefine.imaging import Camera, Imaging
from aurefine.refine.console import Console
from aurefine.refine.loop import refine
from aurefine.refine.options import RefineOptions

BOX, PIXEL_SIZE, COUNT = 32, 8.0, 60


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checks")
    imaging = Imaging(particles=COUNT, cameras=(Camera(PIXEL_SIZE, BOX),), particles_per_micrograph=30)
    simulate.simulate(molecule.generate("C4", seed=1), folder, imaging)
    return folder


def warnings_of(table: str = "particles.star", reference: str = "reference.mrc", **changed) -> tuple[list[str], str]:
    """Warnings of one iteration, and what was printed."""
    options = RefineOptions(**({
        "symmetry": "C4", "initial_lowpass": 50.0, "particle_diameter": 200.0, "ctf_correction": True, "zero_mask": True, "random_seed": 1,
        "healpix_order": 0, "offset_range_pixels": 1.0, "max_iterations": 1,
    } | changed))  # fmt: skip
    printed = io.StringIO()
    result = refine(particles.load(table), reference, options, console=Console(printed, io.StringIO()))
    return result.warnings, printed.getvalue()


def test_a_good_set_gives_no_warning(project, monkeypatch):
    monkeypatch.chdir(project)
    mrc.write_map("mask.mrc", mask.soft_edge(BOX, 3, 13, 3).copy(), PIXEL_SIZE)
    warnings, printed = warnings_of(solvent_mask="mask.mrc", flatten_solvent=True)
    assert warnings == [] and "Warnings" not in printed


def test_every_mistake_has_its_line_in_the_table_at_the_end(project, monkeypatch):
    monkeypatch.chdir(project)
    tables = star.read("particles.star")
    table = tables["particles"]
    places = {label: table[label].copy() for label in ("rlnCoordinateX", "rlnCoordinateY")}
    for column in places.values():
        column[1] = column[0]
    halves = {"rlnRandomSubset": 1 + np.arange(COUNT) % 2}
    astigmatic = {"rlnDefocusV": np.where(np.arange(COUNT) == 2, table["rlnDefocusU"] / 3, table["rlnDefocusV"])}
    optics = tables["optics"].with_columns({"rlnMicrographOriginalPixelSize": np.array([8.2])})
    star.write("wrong.star", [optics, table.with_columns({**places, **halves, **astigmatic})])
    volume, _ = mrc.read_map("reference.mrc")
    mrc.write_map("wrong.mrc", 30 * np.ascontiguousarray(np.transpose(volume, (1, 2, 0))), PIXEL_SIZE)
    mrc.write_map("tight.mrc", mask.soft_edge(BOX, 3, 2, 3).copy(), PIXEL_SIZE)
    warnings, printed = warnings_of("wrong.star", "wrong.mrc", solvent_mask="tight.mrc", flatten_solvent=True)
    wanted = ("one in each half-set", "its micrographs 8.2", "astigmatism", "C4 symmetry", "of the map's density lies inside", "--firstiter_cc")
    assert all(any(words in line for line in warnings) for words in wanted), warnings
    assert len(warnings) == len(wanted)
    assert printed.endswith(f" Warnings of this run: {len(wanted)}\n" + "".join(f"  {n}. {line}\n" for n, line in enumerate(warnings, 1)))
    assert not any("--firstiter_cc" in line for line in warnings_of("wrong.star", "wrong.mrc", first_iteration_cc=True)[0])
