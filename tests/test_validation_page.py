"""A validation is set up, run and shown in the page, and goes into the report of its refinement; local resolutions as a histogram."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gui_client import Page, add_job, serving, wait_for, write_iteration, write_validation
from PIL import Image
from postprocess_maps import BOX, PIXEL_SIZE, write_halves

from aurefine import mask, mrc
from aurefine.errors import InputError
from aurefine.jobs import validate_form
from aurefine.project import labels, runner
from aurefine.project.job_star import JobStar
from aurefine.project.project import Project
from aurefine.project.runner import Planned
from aurefine.reporting import validation_plots
from aurefine.reporting.documents import Documents
from aurefine.reporting.related import related

REFINEMENT = "Refine3D/job001/"
HALF_MAP = "DensityMap.mrc.relion.halfmap"
HALF = f"{REFINEMENT}run_half1_class001_unfil.mrc"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the half maps of a refinement."""
    monkeypatch.chdir(tmp_path)
    Project.create(tmp_path, "5")
    add_job(tmp_path, REFINEMENT, outputs=(HALF,), kind=HALF_MAP)
    write_iteration(tmp_path / REFINEMENT, 0, 30.0)
    write_halves(tmp_path / REFINEMENT)
    return tmp_path


@pytest.fixture
def page(root: Path) -> Iterator[Page]:
    with serving(root) as served:
        yield served.enter()


def test_a_validation_runs_from_the_page_and_is_shown_with_its_refinement(page: Page, root: Path) -> None:
    wrong = page.post("/api/form/check", {"type": "Validation", "values": {"fn_half": f"{REFINEMENT}run_it000_optimiser.star"}}).json
    assert any("no half map" in problem["text"] or "STAR file" in problem["text"] for problem in wrong["problems"])
    assert page.get("/api/job/Refine3D/job001/validation").json == {"halfMap": HALF}
    assert page.get("/api/browse?type=Validation&key=fn_half").json["nodes"] == [HALF]
    started = page.post("/api/form/run", {"type": "Validation", "values": {"fn_half": HALF, "fn_mask": f"{REFINEMENT}mask.mrc"}})
    assert started.status == 200, started.body
    job = wait_for(page, started.json["job"], "Succeeded", "Failed")
    assert (job["name"], job["status"], job["form"]["type"]) == ("Validation/job002", "Succeeded", "Validation"), job
    assert job["hasValidation"] and not any("validation.png" in each["name"] for each in job["pictures"])
    assert '"aurefine validate"' in (root / "Validation/job002/job.star").read_text()  # RELION shows it as an External job
    found = page.get("/api/job/Validation/job002/validation").json
    rows = {row["label"]: row for row in found["rows"]}
    assert rows["cFAR"]["word"] == "ok" and (rows["SCF*"]["value"], rows["SCF*"]["word"]) == ("not computed", "")
    assert rows["Half maps, FSC 0.143"]["value"].endswith(" Å") and "Nyquist 4.00 Å" in rows["Half maps, FSC 0.143"]["text"]
    assert {each["name"] for each in found["files"]} >= {"validation.png", "validation.pdf", "validation.json"}
    names = [plot["name"] for plot in found["plots"]]
    assert names == ["validation_fsc", "validation_conical_fsc", "validation_directions"]
    for name in names:
        csv = page.get(f"/api/job/Validation/job002/plot/{name}.csv")
        assert csv.status == 200 and len(csv.body.splitlines()) > 20
    assert page.get(f"/api/job/Validation/job002/plot/{names[2]}.pdf").body.startswith(b"%PDF")
    of_refinement = page.get("/api/job/Refine3D/job001/validation").json
    assert of_refinement["job"] == "Validation/job002" and of_refinement["rows"] == found["rows"]
    assert page.get("/api/project").json["edges"] == [["Refine3D/job001/", "Validation/job002/"]]
    both = [page.get(f"/api/job/{name}/plot/validation_conical_fsc.csv").body for name in ("Refine3D/job001", "Validation/job002")]
    assert both[0] == both[1]


@pytest.mark.parametrize("named", [REFINEMENT, REFINEMENT.rstrip("/"), f"{REFINEMENT}run", f"{REFINEMENT}run_data.star", HALF])
def test_a_validation_of_a_folder_is_linked_to_its_refinement(root: Path, named: str) -> None:
    (root / REFINEMENT / "run_data.star").touch()
    planned = Planned(JobStar(validate_form.JOB_TYPE, {**validate_form.JOB_TYPE.defaults(), "fn_half": named}), None, "a test")
    process, _ = runner.add(Project.open(root), planned, labels.SCHEDULED)
    pipeline = Project.open(root).read()
    assert pipeline.inputs(process.name) == [HALF] and pipeline.nodes()[HALF] == HALF_MAP


def test_a_validation_outside_the_graph_is_found_by_what_it_measured(page: Page, root: Path) -> None:
    folder = root / "validation"
    folder.mkdir()
    write_validation(folder, measured="../Refine3D/job001/run_data.star")
    assert related(root / REFINEMENT / "run").validation == folder / "validation.json"
    assert related(root / REFINEMENT / "other").validation is None
    found = page.get("/api/job/Refine3D/job001/validation").json
    assert (found["job"], found["folder"]) == ("", "validation") and len(found["rows"]) == 1
    assert page.get("/api/job/Refine3D/job001/plot/validation_fsc.csv").body.count(b"\n") == 7
    for text in ("[]", '{"measured": 3}', '{"measured": "\\u0000"}', "{"):
        (folder / "validation.json").write_text(text)
        assert related(root / REFINEMENT / "run").validation is None


def test_the_newest_validation_and_local_resolutions_are_in_the_report(root: Path) -> None:
    (root / REFINEMENT / "run_it000_half1_class001.mrc").unlink()
    mrc.write_map(root / REFINEMENT / "run_it000_half1_class001.mrc", np.zeros((16, 16, 16), np.float32), 2.0)
    for number in (2, 3):
        add_job(root, f"Validation/job00{number}/", inputs=(HALF,), kind=HALF_MAP)
    write_validation(root / "Validation/job003")
    add_job(root, "PostProcess/job004/", inputs=(HALF,), kind=HALF_MAP)
    local = np.where(mask.soft_edge(16, 3, 5, 1) > 0.5, 6.0, 0.0)
    mrc.write_map(root / "PostProcess/job004/postprocess_locres.mrc", local, 2.0)
    documents = Documents(root / REFINEMENT, root / REFINEMENT)
    names = [drawn.name for drawn in documents.figures]
    assert {"local_resolution", "validation_fsc", "validation_sampling", "validation_reslog"} <= set(names)
    Image.new("RGB", (1755, 1222), (1, 200, 3)).save(root / "Validation/job003/validation.png")
    pdf = documents.make("report.pdf")
    assert len(re.findall(rb"/Type /Page\b", pdf)) == 2 and re.search(rb"/Width 1755\b|/Height 1222\b|/Subtype /Image", pdf)
    html = documents.make("report.html").decode()
    assert "<h2>Validation</h2>" in html and "cFAR &lt;b&gt;" in html and "POOR" in html
    assert "Validation (Validation/job003) gave: conical FSC area ratio (cFAR) 0.300." in documents.make("methods.txt").decode()


def test_a_histogram_counts_what_was_measured_inside_the_mask(tmp_path: Path) -> None:
    local = np.zeros((BOX, BOX, BOX), np.float32)
    local[10:20, 10:20, 10:20], local[20:30, 20:30, 20:30] = 4.0, 8.0
    mrc.write_map(tmp_path / "a_locres.mrc", local, PIXEL_SIZE)
    whole = validation_plots.local_resolution(tmp_path / "a_locres.mrc")
    x, y = np.array(whole.series[0].x), np.array(whole.series[0].y)
    assert (x.min(), x.max()) == pytest.approx((4, 8)) and y[1] == pytest.approx(0.5) and y[-2] == pytest.approx(0.5)
    near = np.zeros_like(local)
    near[:22] = 1
    assert validation_plots.local_resolution(tmp_path / "a_locres.mrc", near).series[0].label == "median 4.00 Å"
    mrc.write_map(tmp_path / "empty_locres.mrc", np.zeros((8, 8, 8), np.float32), 2.0)
    with pytest.raises(InputError, match="no voxel holds a resolution"):
        validation_plots.local_resolution(tmp_path / "empty_locres.mrc")


def test_local_resolutions_are_curves_of_their_job(page: Page, root: Path) -> None:
    add_job(root, "PostProcess/job002/")
    assert not page.get("/api/job/PostProcess/job002").json["hasCurves"]
    mrc.write_map(root / "PostProcess/job002/postprocess_locres.mrc", np.random.default_rng(0).uniform(5, 9, (8, 8, 8)).astype(np.float32), 2.0)
    assert page.get("/api/job/PostProcess/job002").json["hasCurves"]
    found = page.get("/api/job/PostProcess/job002/curves").json
    assert [plot["name"] for plot in found["plots"]] == ["local_resolution"] and "median 7" in found["plots"][0]["series"][0]["label"]
    assert page.get("/api/job/PostProcess/job002/plot/local_resolution.csv").body.count(b"\n") > 100


def test_a_file_that_is_no_validation_is_one_message(page: Page, root: Path) -> None:
    add_job(root, "Validation/job002/")
    (root / "Validation/job002/validation.json").write_text('{"measures": [1]}')
    answer = page.get("/api/job/Validation/job002/validation")
    assert answer.status == 400 and "not the validation.json" in answer.json["error"]
    (root / "Validation/job002/validation.json").unlink()
    (root.parent / "secret.json").write_text("{}")
    (root / "Validation/job002/validation.json").symlink_to(root.parent / "secret.json")
    assert page.get("/api/job/Validation/job002/validation").status == 403
