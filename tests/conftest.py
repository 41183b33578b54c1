"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is first imported, whichever test does it


def shared_root() -> Path | None:
    """Folder of the public test data: AUREFINE_SHARED, or `shared` beside the checkout; None where there is none."""
    named = os.environ.get("AUREFINE_SHARED")
    candidates = [Path(named)] if named else [parent / "shared" for parent in Path(__file__).resolve().parents[2:4]]
    return next((folder for folder in candidates if (folder / "data").is_dir()), None)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The `data` folder with real particles, RELION's own output and STAR files of many origins; skips where it is absent."""
    root = shared_root()
    if root is None:
        pytest.skip("no test data: set AUREFINE_SHARED to the folder that holds data/")
    return root / "data"


@pytest.fixture
def project(simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, to spoil, of the folder that the module's fixture `simulated` has filled; the current folder."""
    folder = tmp_path / "project"
    shutil.copytree(simulated, folder)
    monkeypatch.chdir(folder)
    return folder
