"""Every plot of the page and of the report can be had as PNG, PDF and CSV, and each of these files opens."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gui_browser import window
from gui_client import Page, add_job, serving, write_iteration, write_particles, write_postprocess, write_validation
from PIL import Image

from aurefine import mrc
from aurefine.project import labels
from aurefine.project.project import Project
from aurefine.reporting import globes
from aurefine.reporting.documents import Documents
from aurefine.validation.sphere import cells

RUN, POST, CHECK = "Refine3D/job001", "PostProcess/job002", "Validation/job003"
HALF = f"{RUN}/run_half1_class001_unfil.mrc"
KINDS = ["csv", "pdf", "png"]
# Figures of the tab that is open -> what their links lead to; a picture of the map, a page or a particle is no plot.
FIGURES = """() => [...document.querySelectorAll("figure")]
  .filter((each) => each.checkVisibility() && !each.closest(".sections") && !each.querySelector("img.result"))
  .map((each) => [...each.querySelectorAll(".downloads a")].map((link) => link.getAttribute("href")))"""
TABS = {RUN: ["Convergence", "Directions", "Validation"], POST: ["Result"], CHECK: ["Validation"]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with a refinement, its post-processing with local resolutions, and its validation with all tables."""
    Project.create(tmp_path, "5")
    (tmp_path / "in").mkdir()
    write_particles(tmp_path / "in" / "particles.star")
    add_job(tmp_path, f"{RUN}/", outputs=(HALF,), kind="DensityMap.mrc.relion.halfmap")
    for number in (0, 1):
        write_iteration(tmp_path / RUN, number, 20.0)
    add_job(tmp_path, f"{POST}/", labels.SUCCEEDED, inputs=(HALF,), kind="DensityMap.mrc.relion.halfmap")
    write_postprocess(tmp_path / POST, RUN)
    mrc.write_map(tmp_path / POST / "postprocess_locres.mrc", np.random.default_rng(0).uniform(4, 8, (16, 16, 16)).astype(np.float32), 2.0)
    add_job(tmp_path, f"{CHECK}/", labels.SUCCEEDED, inputs=(HALF,), kind="DensityMap.mrc.relion.halfmap")
    write_validation(tmp_path / CHECK)
    found = json.loads((tmp_path / CHECK / "validation.json").read_text())
    found["curves"] |= {"directions": sphere(), "efficiency": {**found["curves"]["sampling"]}}
    (tmp_path / CHECK / "validation.json").write_text(json.dumps(found))
    return tmp_path


def sphere() -> dict[str, list[float | None]]:
    """Resolutions by direction, of which one is not known."""
    directions = cells(30.0).directions
    resolution: list[float | None] = [*np.linspace(4, 6, len(directions) - 1), None]
    return {**{axis: directions[:, column].tolist() for column, axis in enumerate("xyz")}, "resolution_0143": resolution}


@pytest.fixture
def site(root: Path) -> Iterator[Page]:
    with serving(root) as served:
        yield served


def test_every_figure_of_the_page_has_its_three_files_and_each_opens(site: Page) -> None:
    found = []
    with window() as page:
        page.goto(site.address)
        site.enter()
        for job, names in TABS.items():
            page.goto(f"http://localhost:{site.port}/#/job/{job}")
            for name in names:
                page.get_by_role("tab", name=name, exact=True).click()
                page.locator("figure:visible").first.wait_for()
                figures = page.evaluate(FIGURES)
                assert figures
                for links in figures:
                    assert sorted(link.rpartition(".")[2] for link in links) == KINDS, (job, name, links)
                    found += links
    names = {link.rpartition("/")[2] for link in found}
    assert names >= {"fsc.csv", "directions.png", "guinier.pdf", "local_resolution.csv", "validation_directions_map.png", "validation_reslog.png",
                     "validation_sampling_map.pdf", "validation_efficiency_map.csv"}  # fmt: skip
    assert len(found) == 3 * (7 + 1 + 3 + 2 * 8)
    for link in found:
        answer = site.get(link)
        assert answer.status == 200, (link, answer.body)
        opens(link.rpartition(".")[2], answer.body, link)


def test_every_figure_of_the_report_has_its_three_files_and_each_opens(root: Path) -> None:
    documents = Documents(root / RUN, root / RUN)
    html = documents.make("report.html").decode()
    figures = re.findall(r"<figcaption>([^<]*)Download: (.*?)</figcaption>", html)
    assert len(figures) == len(documents.figures) == 7 + 1 + 3 + 8
    for title, links in figures:
        files = dict(re.findall(r'download="[^"]*\.(\w+)" href="data:[^,]*;base64,([^"]*)"', links))
        assert sorted(files) == KINDS, title
        for kind, data in files.items():
            opens(kind, base64.b64decode(data), title)


def opens(kind: str, data: bytes, name: str) -> None:
    """As the programs that will read it see it."""
    if kind == "png":
        picture = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
        assert min(picture.shape) > 300 and picture.std() > 5, name
    elif kind == "pdf":
        assert data.startswith(b"%PDF-") and data.rstrip().endswith(b"%%EOF") and len(re.findall(rb"/Type /Page\b", data)) == 1, name
    else:
        rows = list(csv.reader(io.StringIO(data.decode())))
        assert len(rows) > 2 and {len(row) for row in rows} == {len(rows[0])}, name
        assert any(re.fullmatch(r"-?[\d.]+(e-?\d+)?", cell) for cell in rows[1]), name


def test_a_map_over_the_sphere_has_the_directions_and_values_of_its_table(root: Path) -> None:
    documents = Documents(root / RUN, root / RUN)
    assert documents.validation is not None
    globe = next(each for each in documents.validation.globes if each.name == "validation_directions_map")
    rows = sphere()
    lines = list(csv.DictReader(io.StringIO(globes.to_files(globe, ["csv"])["csv"].decode())))
    assert [float(line["resolution_angstrom"]) for line in lines[:-1]] == pytest.approx(rows["resolution_0143"][:-1], rel=1e-5)
    assert lines[-1]["resolution_angstrom"] == "" and [float(line["x"]) for line in lines] == pytest.approx(rows["x"], abs=1e-5)
