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
from aurefine.project import labels
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
