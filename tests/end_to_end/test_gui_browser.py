"""A user's way through the page in a real headless Chromium: fill the form, run, watch it converge, view the map, make a mask, post-process."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gui_browser import picture, surface, until
from gui_client import Page, serving, wait_for

from aurefine.cli.main import main
from aurefine.process_record import ProcessRecord
from aurefine.project import labels, manage
from aurefine.project.project import Project


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new project with simulated particles; a job that still runs when the test has failed is stopped."""
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", "--o", "sim", "--n", "200", "--box", "32", "--angpix", "8", "--sym", "D2"]) == 0
    project = Project.create(tmp_path, "5")
    yield tmp_path
    for process in project.read().processes:
        if process.status == labels.RUNNING:
            manage.abort(project, process)


def test_the_way_from_the_form_to_the_sharpened_map(root: Path, browser_page: Any) -> None:
    page = browser_page
    with serving(root) as site:
        page.goto(site.address)
        page.get_by_text("This project has no jobs yet").wait_for()
        assert "token" not in page.url
        site.enter()  # the test looks at the server too, as a second browser
        refine(page)
        wait_for(site, "Refine3D/job001", "Succeeded", "Failed")
        look_at_the_refinement(page)
        fill_and_run(page, "MaskCreate", {"fn_in": "Refine3D/job001/run_class001.mrc"})
        assert wait_for(site, "MaskCreate/job002", "Succeeded", "Failed")["status"] == "Succeeded"
        fill_and_run(page, "PostProcess", {"fn_in": "Refine3D/job001/run_half1_class001_unfil.mrc", "fn_mask": "MaskCreate/job002/mask.mrc"})
        assert wait_for(site, "PostProcess/job003", "Succeeded", "Failed")["status"] == "Succeeded"
        page.get_by_role("tab", name="Result").click()
        page.get_by_text("FSC of the half maps").wait_for()
        assert surface(page).mean() > 0.005
        picture(page, "postprocess")
        keep_house(page)
        validate(page, site)
        page.get_by_role("link", name="Jobs").click()
        page.locator("svg a").nth(3).wait_for()
        picture(page, "jobs")
        assert page.locator("path.edge").count() >= 3


def test_an_aborted_refinement_goes_on_from_its_last_iteration_until_it_is_finished(root: Path, browser_page: Any) -> None:
    page, job = browser_page, root / "Refine3D" / "job001"
    with serving(root) as site:
        page.goto(site.address)
        site.enter()
        stopped = threading.Thread(target=stop_after_an_iteration, args=(job,))  # it would be over before the button is pressed
        stopped.start()
        fill_and_run(page, "Refine3D", {"fn_img": "sim/particles.star", "fn_ref": "sim/reference.mrc"}, {"Reference": {"sym_name": "D2"}})
        stopped.join()
        record = ProcessRecord.load(job)
        assert record is not None
        try:
            with page.expect_response(lambda response: response.url.endswith("/abort")):
                page.get_by_role("button", name="Abort").click()
        finally:
            os.kill(record.pid, signal.SIGCONT)
        page.locator(".state", has_text="Aborted").wait_for()
        last = max(path.name for path in job.glob("run_it*_optimiser.star"))
        page.get_by_text("stopped").wait_for()
        page.get_by_role("link", name="Continue").click()
        page.get_by_text(f"--continue Refine3D/job001/{last}").wait_for()
        assert page.locator("#row-fn_cont").input_value() == f"Refine3D/job001/{last}"
        assert page.locator("#row-fn_ref").is_disabled() and page.locator("#row-fn_mask").is_enabled()
        page.get_by_role("tab", name="Running").click()
        page.get_by_label("Number of threads:").fill("2")
        page.locator("#command", has_text="--j 2").wait_for()
        page.get_by_role("button", name="Continue!").click()
        page.locator(".state", has_text="Running").wait_for()
        page.get_by_text("converged, final maps written").wait_for()
        page.locator(".state", has_text="Succeeded").wait_for()
        rows = page.locator(".tabs table tbody th[scope=row]:visible").all_inner_texts()
        assert rows == [*map(str, range(len(rows) - 1)), "final"] and len(rows) > int(last[6:9]) + 2
        page.get_by_role("tab", name="Overview").click()
        page.get_by_role("link", name=f"run_ct{int(last[6:9])}_class001.mrc").wait_for()


def stop_after_an_iteration(job: Path) -> None:
    """Suspend the process of a refinement as soon as it has written its first iteration."""
    end = time.monotonic() + 200
    while not (job / "run_it001_optimiser.star").exists() and time.monotonic() < end:
        time.sleep(0.01)
    record = ProcessRecord.load(job)
    if record is not None:
        os.kill(record.pid, signal.SIGSTOP)


def keep_house(page: Any) -> None:
    """A note; a clone that is scheduled under an alias, found by its state, and moved to the Trash."""
    page.get_by_role("tab", name="Overview").click()
    page.get_by_label("A remark for note.txt").fill("looks good")
    page.get_by_role("button", name="Add to the note").click()
    page.get_by_label("Notes").get_by_text("looks good").wait_for()
    page.get_by_role("link", name="Clone").click()
    page.get_by_label("Alias (optional)").fill("again")
    page.get_by_role("button", name="Schedule").click()
    page.get_by_role("heading", name="PostProcess/job004 (again)").wait_for()
    page.get_by_role("link", name="Jobs").click()
    page.get_by_label("Show").select_option("Scheduled")
    page.get_by_role("link", name="PostProcess/job004", exact=True).click()
    page.get_by_role("button", name="Delete").click()
    page.get_by_text("Moved to Trash: PostProcess/job004").wait_for()


def validate(page: Any, site: Page) -> None:
    """From the refinement to its validation, and back to what it found."""
    page.get_by_role("link", name="Jobs").click()
    page.get_by_label("Show").select_option("All")
    held = []
    page.route("**/api/job/Refine3D/job001/refinement*", lambda route: held.append(route))  # its data come after the tab has been opened
    page.get_by_role("link", name="Refine3D/job001", exact=True).first.click()
    page.get_by_role("tab", name="Validation").click()
    for request in held[:]:
        request.continue_()
    page.unroute("**/api/job/Refine3D/job001/refinement*")
    page.get_by_role("link", name="Validate this refinement").click()
    page.locator("#row-fn_mask").fill("MaskCreate/job002/mask.mrc")
    page.get_by_role("button", name="Run!").click()
    page.get_by_role("tab", name="Output").wait_for()
    assert wait_for(site, "Validation/job005", "Succeeded", "Failed")["status"] == "Succeeded"
    page.get_by_role("tab", name="Validation").click()
    page.get_by_role("rowheader", name="cFAR").wait_for()
    until(page, "document.querySelector('img.result').naturalWidth > 1000")
    assert page.locator(".chart").count() >= 3 and page.evaluate("document.documentElement.scrollWidth <= 1280")
    picture(page, "validation")
    with page.expect_download() as download:
        page.get_by_role("link", name="Directional FSC as CSV").click()
    assert download.value.suggested_filename == "validation_conical_fsc.csv"
    page.get_by_role("link", name="Jobs").click()
    page.get_by_role("link", name="Refine3D/job001", exact=True).first.click()
    page.get_by_role("tab", name="Validation").click()
    page.get_by_text("Measured by").wait_for()
    page.get_by_role("rowheader", name="cFAR").wait_for()


def fill_and_run(page: Any, kind: str, values: dict[str, str], behind: dict[str, dict[str, str]] | None = None) -> None:
    """`behind` are values on other tabs of the form."""
    page.get_by_role("link", name="New job", exact=True).first.click()
    page.locator(f'a[href="#/new/{kind}"]').click()
    for key, value in values.items():
        page.locator(f"#row-{key}").fill(value)
    for tab, more in (behind or {}).items():
        page.get_by_role("tab", name=tab).click()
        for key, value in more.items():
            page.locator(f"#row-{key}").fill(value)
    page.get_by_role("button", name="Run!").click()
    page.get_by_role("tab", name="Output").wait_for()


def refine(page: Any) -> None:
    """The form by keyboard, with a mistake that is told at once."""
    page.get_by_role("link", name="New job", exact=True).first.click()
    page.locator('a[href="#/new/Refine3D"]').click()
    page.get_by_label("Input images STAR file:").first.fill("sim/absent.star")
    page.get_by_text("There is no such file in the project.").wait_for()
    page.get_by_label("Input images STAR file:").first.fill("sim/particles.star")
    page.get_by_text("with CTF columns").wait_for()
    page.get_by_role("button", name="Browse for Reference map:").click()
    page.get_by_role("button", name="sim/").click()
    page.get_by_role("button", name="reference.mrc").click()
    page.get_by_role("tab", name="I/O").focus()
    page.keyboard.press("ArrowRight")
    page.get_by_label("Symmetry:", exact=True).fill("D2")
    page.locator("#command", has_text="--sym D2").wait_for()
    picture(page, "form")
    page.get_by_role("button", name="Run!").click()
    page.get_by_role("tab", name="Output").wait_for()


def look_at_the_refinement(page: Any) -> None:
    page.get_by_text("converged, final maps written").wait_for()  # the page has followed it by itself
    assert page.locator(".chart").count() == 7
    picture(page, "refinement")
    page.get_by_role("tab", name="Sections").click()
    until(page, "[...document.querySelectorAll('.sections img')].map((image) => image.naturalWidth).join() === '32,32,32,32'")
    page.get_by_role("tab", name="Map in 3D").click()
    assert 0.01 < surface(page).mean() < 0.7
    picture(page, "map")
    page.get_by_role("tab", name="Particles").click()
    page.locator("tr .thumbnail").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= 1280")  # nothing has to be scrolled to the side
    page.get_by_role("tab", name="Report").click()
    page.locator("#methods", has_text="from two half-sets").wait_for()
    until(page, "document.querySelector('.sheet').naturalWidth > 1000")
    picture(page, "report")
    with page.expect_download() as download:
        page.get_by_role("link", name="Report (PDF)").click()
    assert download.value.suggested_filename == "job001_report.pdf" and Path(download.value.path()).read_bytes().startswith(b"%PDF")
    with page.expect_download() as download:
        page.get_by_role("tab", name="Convergence").click()
        page.get_by_role("link", name="Gold-standard FSC of every iteration as CSV").click()
    assert download.value.suggested_filename == "fsc.csv"
