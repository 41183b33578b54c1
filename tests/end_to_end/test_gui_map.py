"""Maps in 3D in a real headless Chromium: Mol* draws them, and they follow contour, keyboard and mouse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gui_browser import surface
from gui_client import add_job, serving, write_iteration

from aurefine import mrc
from aurefine.project import labels
from aurefine.project.project import Project

BOX, PIXEL_SIZE = 40, 2.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A refinement with half maps of three balls, no two alike, and a job with the same in a box that is no cube."""
    Project.create(tmp_path, "5")
    for name in ("Refine3D/job001/", "MaskCreate/job002/"):
        add_job(tmp_path, name, labels.SUCCEEDED)
    write_iteration(tmp_path / "Refine3D/job001", 0, 20.0)
    z, y, x = np.indices((BOX, BOX, BOX)) - BOX // 2
    balls = sum(np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / s) for a, b, c, s in ((-8, 0, 3, 40), (7, 6, -4, 25), (2, -9, 0, 15)))
    for half in (1, 2):
        path = tmp_path / f"Refine3D/job001/run_it000_half{half}_class001.mrc"
        path.unlink()
        mrc.write_map(path, balls + 0.5, PIXEL_SIZE)
    mrc.write_map(tmp_path / "MaskCreate/job002/mask.mrc", balls[4:-3], PIXEL_SIZE)
    return tmp_path


def test_a_map_is_drawn_and_follows_contour_keyboard_and_mouse(root: Path, browser_page: Any) -> None:
    page = browser_page
    page.set_viewport_size({"width": 700, "height": 900})  # a processor draws what graphics cards are for
    with serving(root) as site:
        page.goto(site.address)
        page.get_by_role("link", name="Refine3D/job001").first.click()
        page.get_by_role("tab", name="Convergence").wait_for()
        assert page.evaluate("performance.getEntriesByType('resource').every((each) => !each.name.includes('molstar'))")  # light until it is needed
        page.get_by_role("tab", name="Map in 3D").click()
        first = surface(page)
        assert 0.01 < first.mean() < 0.7
        contour(page, first)
        page.get_by_label("Contour").fill("3")
        first = surface(page)
        turn(page, first)
        page.get_by_label("Map", exact=True).select_option(label="iteration 0, half map 2")  # the same, from where it is looked at
        assert changed(surface(page), first) < 0.002
        page.get_by_role("link", name="Jobs").click()
        page.get_by_role("link", name="MaskCreate/job002").first.click()
        assert 0.01 < surface(page).mean() < 0.7
        assert page.evaluate("document.querySelectorAll('canvas').length") == 1


def contour(page: Any, first: np.ndarray) -> None:
    """By the slider in standard deviations, or by the field in the map's own units, each of which shows what the other says."""
    page.get_by_label("Contour").fill(str(float(page.get_by_label("Contour").input_value()) * 1.5))
    assert 0 < surface(page).mean() < 0.9 * first.mean()
    page.locator("#map-value").fill("0.7")
    page.keyboard.press("Enter")
    assert surface(page).mean() > 1.1 * first.mean()
    sigma = float(page.locator("output").inner_text().removesuffix(" σ"))
    header = "fetch(document.getElementById('map-which').value).then((answer) => answer.arrayBuffer())"
    statistics = page.evaluate(f"{header}.then((data) => [...new Float32Array(data, 0, 256)])")
    assert statistics[21] + sigma * statistics[54] == pytest.approx(0.7, abs=0.03)  # the slider has steps


def turn(page: Any, first: np.ndarray) -> None:
    """By arrows, dragging, wheel and the spin; back by Home and by the button."""
    page.locator(".map3d").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    assert changed(surface(page), first) > 0.005
    page.keyboard.press("Home")
    assert changed(surface(page), first) < 0.002
    box = page.locator(".map3d").bounding_box()
    page.mouse.move(box["x"] + 300, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 400, box["y"] + 250, steps=4)
    page.mouse.up()
    assert changed(surface(page), first) > 0.005
    page.get_by_role("button", name="Reset view").click()
    page.mouse.move(box["x"] + 300, box["y"] + 200)
    page.mouse.wheel(0, -400)
    assert surface(page).mean() > 1.05 * first.mean()
    page.locator(".map3d").press("Home")
    page.get_by_label("Spin").check()
    page.wait_for_timeout(1000)
    page.get_by_label("Spin").uncheck()
    assert changed(surface(page), first) > 0.005
    page.get_by_role("button", name="Reset view").click()
    assert changed(surface(page), first) < 0.002


def changed(a: np.ndarray, b: np.ndarray) -> float:
    """Share of the picture that is surface in one of both only."""
    return float((a != b).mean())
