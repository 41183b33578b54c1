"""A browser for the tests of the page."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


@pytest.fixture
def browser_page() -> Iterator[Any]:
    """A window of 1280 x 900 in a new headless Chromium; whatever its console calls an error fails the test."""
    from gui_browser import window

    with window() as page:
        yield page
