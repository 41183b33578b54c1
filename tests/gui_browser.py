"""A real headless Chromium for the tests of the page, and what they look at in it."""

from __future__ import annotations

import io
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SLOW = 120_000  # milliseconds


@contextmanager
def window(webgl: bool = True, expected: str = "") -> Iterator[Any]:
    """A window of 1280 x 900 in a new browser; the test is skipped where there is none.

    Whatever its console calls an error fails the test, unless it holds the text that is `expected`.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="the page's test in a browser needs playwright: pip install playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium here (Debian: apt-get install chromium)")
    errors: list[str] = []
    drawing = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"] if webgl else ["--disable-gpu", "--disable-3d-apis"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", *drawing])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(SLOW)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("dialog", lambda dialog: dialog.accept())
        yield page
        browser.close()
    assert [error for error in errors if not expected or expected not in error] == []


def until(page: Any, condition: str) -> None:
    """Wait until a JavaScript expression is true (the page's own rules forbid playwright's way)."""
    end = time.monotonic() + SLOW / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(100)


def picture(page: Any, name: str) -> None:
    """Keep a picture of the page where AUREFINE_SCREENSHOTS names a folder."""
    folder = os.environ.get("AUREFINE_SCREENSHOTS")
    if folder:
        page.screenshot(path=str(Path(folder) / f"gui_{name}.png"))


def surface(page: Any) -> np.ndarray:
    """Where the 3D view shows the map's surface [rows, columns], as soon as it has drawn what was asked for and stands still."""
    until(page, "document.querySelector('.map3d')?.getAttribute('aria-busy') === 'false'")
    before, now = None, _seen(page)
    while before is None or (before != now).any():
        page.wait_for_timeout(200)
        before, now = now, _seen(page)
    return now


def _seen(page: Any) -> np.ndarray:
    grey = np.asarray(Image.open(io.BytesIO(page.locator(".map3d canvas").screenshot())).convert("L"))
    return grey < 200
