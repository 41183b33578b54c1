"""A whole refinement in a real headless Chromium by keyboard alone: no event of a mouse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gui_browser import surface, until
from gui_client import serving, wait_for

from aurefine.cli.main import main
from aurefine.project.project import Project

# What a screen reader would say of the element that has the focus.
FOCUSED = """() => {
  const held = document.activeElement;
  if (!held || held === document.body) return "nothing";
  const name = held.getAttribute("aria-label") || [...(held.labels || [])].map((label) => label.innerText).join(" ") || held.textContent;
  return `${held.getAttribute("role") || held.tagName.toLowerCase()}: ${name.trim()}`;
}"""


def focused(page: Any) -> str:
    return str(page.evaluate(FOCUSED))


def tab_to(page: Any, wanted: str, key: str = "Tab", most: int = 80) -> None:
    """Press a key until the focus is on an element whose role and name begin so."""
    seen = [focused(page)]
    while not seen[-1].startswith(wanted):
        assert len(seen) <= most, f"{wanted} is not reached by {key}: {seen}"
        page.keyboard.press(key)
        seen.append(focused(page))


def choose_file(page: Any, row: str, entries: list[str]) -> None:
    """By the Browse dialog: it takes the focus, keeps it, and gives it back to the row."""
    tab_to(page, f"button: Browse for {row}")
    page.keyboard.press("Enter")
    page.locator("dialog[open] button.entry").first.wait_for()
    for _ in range(page.locator("dialog button, dialog input").count() + 3):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || Boolean(document.activeElement.closest('dialog'))"), focused(page)
    page.keyboard.press("Escape")
    page.locator("dialog").wait_for(state="detached")
    assert focused(page) == f"button: Browse for {row}"
    page.keyboard.press("Enter")
    for entry in entries:
        page.locator("dialog button.entry", has_text=entry).first.wait_for()
        tab_to(page, f"button: {entry}")
        page.keyboard.press("Enter")
    page.locator("dialog").wait_for(state="detached")
    assert focused(page).startswith(f"input: {row}")


def test_a_refinement_by_keyboard_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, browser_page: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", "--o", "sim", "--n", "200", "--box", "32", "--angpix", "8", "--sym", "D2"]) == 0
    Project.create(tmp_path, "5")
    page = browser_page
    with serving(tmp_path) as site:
        page.goto(site.address)
        site.enter()
        page.get_by_text("This project has no jobs yet").wait_for()
        page.keyboard.press("Tab")
        assert focused(page).startswith("a: Skip")
        page.keyboard.press("Enter")
        tab_to(page, "a: New job", most=3)
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="New job").wait_for()
        until(page, "document.activeElement.id === 'main'")
        tab_to(page, "a: 3D auto-refine", most=10)
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="New Refine3D job").wait_for()
        until(page, "document.activeElement.id === 'main'")
        fill(page)
        tab_to(page, "button: Run!")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Refine3D/job001").wait_for()
        until(page, "document.activeElement.id === 'main'")
        tab_to(page, "button: Alias", most=10)
        page.locator(".chart").first.wait_for(state="attached")  # it has become a live view by itself
        assert focused(page) == "button: Alias"
        tab_to(page, "tab: Convergence")
        assert wait_for(site, "Refine3D/job001", "Succeeded", "Failed")["status"] == "Succeeded"
        page.get_by_text("converged, final maps written").wait_for()
        page.locator(".state", has_text="Succeeded").wait_for()
        assert focused(page) == "tab: Convergence"  # what is drawn anew while it runs takes nobody's place away
        look(page)


def fill(page: Any) -> None:
    """Files by Browse, the symmetry on the second tab, a switch and a choice by Space and arrows."""
    choose_file(page, "Input images STAR file:", ["sim/", "particles.star"])
    choose_file(page, "Reference map:", ["sim/", "reference.mrc"])
    tab_to(page, "tab: I/O", "Shift+Tab")
    page.keyboard.press("ArrowRight")
    assert focused(page) == "tab: Reference"
    tab_to(page, "input: Symmetry:", most=20)
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("D2")
    page.locator("#command", has_text="--sym D2").wait_for()
    tab_to(page, "tab: Reference", "Shift+Tab")
    page.keyboard.press("End")
    assert focused(page) == "tab: Running"
    page.keyboard.press("Home")
    tab_to(page, "tab: Auto-sampling", "ArrowRight", most=8)
    tab_to(page, "input: Use finer angular sampling faster?", most=20)
    page.keyboard.press("Space")
    page.locator("#command", has_text="--auto_ignore_angles").wait_for()
    page.keyboard.press("Space")
    until(page, "!document.getElementById('command').textContent.includes('--auto_ignore_angles')")


def look(page: Any) -> None:
    """Sections moved by arrows, the map turned, its contour changed, the particles sorted, the files listed."""
    page.keyboard.press("ArrowRight")
    assert focused(page) == "tab: Sections"
    tab_to(page, "input: Place", most=5)
    before = page.locator(".sections img").first.get_attribute("src")
    page.keyboard.press("ArrowRight")
    assert page.locator(".sections img").first.get_attribute("src") != before
    tab_to(page, "tab: Sections", "Shift+Tab", most=5)
    page.keyboard.press("ArrowRight")
    seen = surface(page)
    tab_to(page, "input: Contour", most=5)
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(300)
    lower = surface(page)
    assert lower.sum() > seen.sum()
    tab_to(page, "img: The map", most=5)
    for _ in range(6):
        page.keyboard.press("ArrowUp")
    page.wait_for_timeout(300)
    assert np.mean(surface(page) != lower) > 0.001
    tab_to(page, "button: Reset view", most=2)  # no trap in the 3D view
    tab_to(page, "tab: Map in 3D", "Shift+Tab", most=8)
    tab_to(page, "tab: Refinement", "Shift+Tab", most=8)
    tab_to(page, "tab: Files", "ArrowRight", most=6)
    page.get_by_role("link", name="run_class001.mrc").wait_for()
    page.keyboard.press("Tab")
    assert "/api/file?" in page.evaluate("document.activeElement.href")
