"""`make demo` at a small size: from nothing to the picture and the numbers, and an honest end when the refinement fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aurefine import demo

SETTINGS = demo.Settings(particles=150, box=32, pixel_size=7.08, snr=0.25, threads=1)


def test_the_demo_leaves_a_picture_and_good_numbers(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert demo.run(tmp_path, SETTINGS) == 0
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["particles"] == 150 and numbers["angle_median"] < 10 and numbers["shift_median"] < 4
    assert numbers["mean_fsc"] > numbers["mirror_mean_fsc"]
    assert numbers["resolution_angstrom"] > 0.95 * numbers["fsc_half_angstrom"]
    assert (tmp_path / "report.png").stat().st_size > 50_000
    printed = capfd.readouterr().out
    assert "Auto-refine: Refinement has converged, stopping now" in printed and "orientations, median error" in printed
    assert (tmp_path / demo.JOB / "RELION_JOB_EXIT_SUCCESS").exists()


def test_a_refinement_that_fails_ends_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = demo.refine_arguments
    monkeypatch.setattr(demo, "refine_arguments", lambda *given: [*real(*given), "--sym", "Q7"])
    assert demo.run(tmp_path, SETTINGS) == 2
    assert not (tmp_path / "report.png").exists()
