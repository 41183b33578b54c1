"""What holds on every tab of the page in a real headless Chromium: names of controls, contrast, 1280 px, the keyboard; and without WebGL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gui_browser import until, window
from gui_client import Page, add_job, serving, write_iteration, write_particles, write_validation

from aurefine import mrc
from aurefine.process_record import ProcessRecord
from aurefine.project import labels
from aurefine.project.manage import move_to_trash, set_alias
from aurefine.project.project import Project

JOB = "Refine3D/job001"
# Controls, pictures and what else the tab key reaches, where no name is announced; and references that lead nowhere.
UNNAMED = """() => {
  const name = (each) => each.getAttribute("aria-label") || each.getAttribute("aria-labelledby") || each.getAttribute("alt")
    || [...(each.labels || [])].map((label) => label.innerText).join("").trim()
    || (["A", "BUTTON"].includes(each.tagName) && each.textContent.trim());
  const all = [...document.querySelectorAll("a, button, input, select, textarea, img, dialog, [role=img], [tabindex='0']")];
  const references = ["aria-labelledby", "aria-describedby", "aria-controls", "for"]
    .flatMap((key) => [...document.querySelectorAll(`[${key}]`)].flatMap((each) => each.getAttribute(key).split(" ")));
  const unnamed = all.filter((each) => each.checkVisibility() && !name(each)).map((each) => each.outerHTML);
  return [...unnamed, ...references.filter((id) => !document.getElementById(id))];
}"""
# Texts with less than WCAG's 4.5:1 against what is behind them, after their ratio.
FAINT = r"""() => {
  const parts = (color) => color.match(/[\d.]+/g).map(Number);
  const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (color) => parts(color).slice(0, 3).reduce((sum, v, i) => sum + linear(v / 255) * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    const color = element ? getComputedStyle(element).backgroundColor : "rgb(255, 255, 255)";
    return (parts(color)[3] ?? 1) > 0.99 ? color : behind(element.parentElement);
  };
  const found = [], texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.textContent.trim() || !element.checkVisibility() || element.closest("noscript, .skip")) continue;
    const style = getComputedStyle(element), ink = element.closest("svg") ? style.fill : style.color;
    const [bright, dark] = [light(ink), light(behind(element))].sort((a, b) => b - a), ratio = (bright + 0.05) / (dark + 0.05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${texts.currentNode.textContent}`);
  }
  return found;
}"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with a refinement of three particles with long names, validated, and a mask."""
    Project.create(tmp_path, "5")
    (tmp_path / "in").mkdir()
    write_particles(tmp_path / "in" / "particles.star")
    add_job(tmp_path, f"{JOB}/", labels.SUCCEEDED, outputs=(f"{JOB}/run_data.star",))
    add_job(tmp_path, "MaskCreate/job002/", labels.ABORTED)
    for number in (0, 1):
        write_iteration(tmp_path / JOB, number, 20.0)
    data = tmp_path / JOB / "run_it001_data.star"
    name = f"MotionCorr/job002/Movies/{'20170629_00021_frameImage_' * 4}.mrc"
    text = data.read_text().replace("Distribution #6\n", "Distribution #6\n_rlnMicrographName #7\n")
    data.write_text(text.replace(" 0.5\n", f" 0.5 {name}\n").replace("000003@in/stack.mrcs", "000003@in/gone.mrcs"))
    mrc.write_map(tmp_path / "MaskCreate/job002/mask.mrc", np.random.default_rng(0).random((16, 16, 16), np.float32), 2.0)
    return tmp_path


@pytest.fixture
def site(root: Path) -> Iterator[Page]:
    with serving(root) as served:
        yield served


def test_every_tab_can_be_read_and_named_and_fits_into_1280_pixels(site: Page) -> None:
    with window(expected="404") as page:  # of the image that is not there
        page.goto(site.address)
        page.locator("svg a").first.wait_for()
        fits(page)
        page.locator("svg a").first.focus()
        page.keyboard.press("Enter")
        page.locator(".chart").first.wait_for()
        for tab in ("Convergence", "Sections", "Directions", "Particles", "Validation", "Overview", "Output", "Options", "Files"):
            page.get_by_role("tab", name=tab, exact=True).click()
            until(page, "[...document.querySelectorAll('[role=tabpanel]')].findLast((each) => each.checkVisibility()).innerText.length > 0")
            fits(page)
            if tab == "Particles":
                particles(page)
        for kind in ("", "/Refine3D", "/MaskCreate", "/Select", "/External"):
            page.goto(f"http://localhost:{site.port}/#/new{kind}")
            page.get_by_role("heading", name=f"New {kind[1:]} job" if kind else "New job").wait_for()
            fits(page)


def particles(page: Any) -> None:
    """The best first; an image that is not there is said to be; the table needs no scrolling; the focus stays where the user is."""
    page.get_by_text("no image").wait_for()
    assert page.locator("tbody .thumbnail").count() == 2
    assert page.evaluate("[...document.querySelectorAll('.wide')].every((each) => each.scrollWidth <= each.clientWidth)")
    assert page.locator("table.particles tbody tr td:nth-child(2)").all_inner_texts() == ["2", "1", "3"]
    page.get_by_role("button", name="log likelihood").focus()
    page.keyboard.press("Enter")
    until(page, "document.querySelector('table.particles td:nth-child(2)').innerText === '3'")
    assert "log likelihood" in page.evaluate("document.activeElement.textContent")


def fits(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= 1280"), page.url
    assert page.evaluate(UNNAMED) == []
    assert page.evaluate(FAINT) == []


def test_without_webgl_the_3d_view_says_so_in_its_place(site: Page) -> None:
    with window(webgl=False) as page:
        page.goto(site.address)
        page.get_by_role("link", name="MaskCreate/job002").first.click()
        page.get_by_role("alert").get_by_text("This browser has no WebGL").wait_for()
        assert page.locator(".map3d").count() == 0
        assert page.evaluate("performance.getEntriesByType('resource').every((each) => !each.name.includes('molstar'))")
        page.get_by_role("tab", name="Files").click()
        page.get_by_role("link", name="mask.mrc").wait_for()


def test_the_reports_tab_shows_the_page_of_a_validation_that_was_made_since(site: Page, root: Path) -> None:
    with window() as page:
        page.goto(site.address)
        for pages in (1, 2):
            page.get_by_role("link", name=JOB).first.click()
            page.get_by_role("tab", name="Report").click()
            page.locator("#methods").wait_for()
            until(page, f"[...document.querySelectorAll('.sheet')].filter((each) => each.naturalWidth > 1000).length === {pages}")
            validate(root)
            page.get_by_role("link", name="Jobs").click()
            page.locator("svg a").first.wait_for()


def validate(root: Path) -> None:
    """What a validation of the refinement leaves in a folder beside its files."""
    (root / JOB / "validation").mkdir(exist_ok=True)
    write_validation(root / JOB / "validation", measured="../run_it001_data.star")


def test_a_remark_stays_while_the_job_makes_its_first_files_and_the_tab_stays_open(site: Page, root: Path) -> None:
    job = root / "MaskCreate" / "job003"
    add_job(root, "MaskCreate/job003/", labels.RUNNING)
    with window(expected="404") as page:  # of a job that is deleted while it is shown
        page.goto(site.address)
        page.get_by_role("link", name="MaskCreate/job003").first.click()
        (job / "run.out").write_bytes(b"Masking\n[oo..] 10/100 sec")
        log = page.get_by_label("run.out")
        log.get_by_text("10/100").wait_for()
        (job / "run.out").write_bytes(b"Masking\n[oo..] 10/100 sec\r[ooo.] 20/100 sec")
        log.get_by_text("20/100").wait_for()
        assert log.inner_text() == "Masking\n[ooo.] 20/100 sec"
        page.get_by_role("tab", name="Overview").click()
        page.get_by_label("A remark").fill("half written")
        mrc.write_map(job / "mask.mrc", np.zeros((16, 16, 16), np.float32), 2.0)
        page.get_by_role("tab", name="Result").wait_for()
        assert page.get_by_label("A remark").input_value() == "half written"
        assert page.evaluate("document.activeElement.id") == "note"
        with Project.open(root).edit("a test") as pipeline:
            pipeline.set_status("MaskCreate/job003/", labels.SUCCEEDED)
        move_to_trash(Project.open(root), "MaskCreate/job003/", [])
        page.get_by_text("MaskCreate/job003 is gone").wait_for()
        assert page.get_by_role("tab").count() == page.locator("main button").count() == 0


def test_long_names_stay_in_their_places_on_a_narrow_window(site: Page, root: Path) -> None:
    name = "a_long_alias_of_a_job_that_was_named_with_care"
    set_alias(Project.open(root), f"{JOB}/", name)
    add_job(root, "PostProcess/job004/", labels.FAILED, inputs=(f"{JOB}/run_data.star",))
    ProcessRecord.own().save(root / "PostProcess/job004")
    (root / "PostProcess/job004/run.out").touch()
    (root / "PostProcess/job004/run.err").write_text(f"aurefine: {'x' * 400}\n")
    with window() as page:
        page.set_viewport_size({"width": 800, "height": 900})
        page.goto(site.address)
        page.locator("svg a").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= 800")
        boxes = "[...document.querySelectorAll('svg a')].every((each) => each.getBBox().width <= 171)"
        assert page.evaluate(boxes) and page.locator("svg a title").first.text_content() == f"{JOB} ({name})"
        page.locator("svg a").last.click()
        page.get_by_text("aurefine: xxx").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= 800")
        page.goto(f"http://localhost:{site.port}/#/job/{JOB}")
        page.get_by_role("tab", name="Overview").click()
        page.get_by_role("heading", name="Outputs").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= 800")


def test_a_folder_that_is_opened_shows_its_files_at_the_top(site: Page, root: Path) -> None:
    for number in range(2010):
        (root / "in" / f"{number:04d}.star").touch()
    with window() as page:
        page.goto(site.address)
        page.goto(f"http://localhost:{site.port}/#/new/Refine3D")
        page.get_by_role("button", name="Browse for Input images STAR file:").click()
        page.get_by_role("heading", name="From this project's jobs").wait_for()
        page.get_by_role("button", name="in/").click()
        page.get_by_text("11 more are not listed").wait_for()
        assert page.get_by_role("heading", name="From this project's jobs").count() == 0
        assert page.evaluate("document.querySelector('.browse-list').scrollTop") == 0


def test_the_particles_tab_follows_the_run(site: Page, root: Path) -> None:
    with window(expected="404") as page:
        page.goto(site.address)
        page.get_by_role("link", name=JOB).first.click()
        page.get_by_role("tab", name="Particles").click()
        page.get_by_text("run_it001_data.star").wait_for()
        (root / JOB / "run_warnings.txt").write_text("the alignment has failed\n")
        page.locator(".summary .warning", has_text="the alignment has failed").wait_for()
        write_iteration(root / JOB, 2, 15.0)
        page.get_by_text("run_it002_data.star").wait_for()


def test_a_refinement_that_has_just_begun_becomes_a_live_view_unless_another_tab_was_opened(site: Page, root: Path) -> None:
    for name, status in (("Refine3D/job005", labels.RUNNING), ("Refine3D/job006", labels.SCHEDULED), ("Refine3D/job007", labels.SCHEDULED)):
        add_job(root, f"{name}/", status)
    with window() as page:

        def with_a_model(route: Any) -> None:  # between the page's first two questions
            write_iteration(root / route.request.url.split("/api/job/")[1].removesuffix("/state"), 0, 30.0)
            route.continue_()

        page.goto(site.address)
        page.route("**/api/job/*/*/state", with_a_model)
        for number, opened in ((5, "Refinement"), (6, "Refinement"), (7, "Overview")):
            if opened == "Overview":
                page.unroute("**/api/job/*/*/state")
            page.goto(f"http://localhost:{site.port}/#/job/Refine3D/job00{number}")
            page.get_by_role("heading", name=f"Refine3D/job00{number}").wait_for()
            if opened == "Overview":
                page.get_by_label("A remark").fill("half written")
                write_iteration(root / "Refine3D/job007", 0, 30.0)
            page.get_by_role("tab", name="Refinement").wait_for()
            page.get_by_role("tab", name=opened, selected=True).wait_for()
