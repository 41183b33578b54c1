"""What the loop says at its end."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from refinement_states import small_options, small_state

from aurefine.refine import loop
from aurefine.refine.console import Console
from aurefine.refine.lanes import lanes_of


def conclude(accuracy: float) -> Console:
    state = small_state()
    halves = tuple(replace(model, accuracy_rotation=accuracy) for model in state.halves)
    console = Console(io.StringIO(), io.StringIO())
    loop._conclude(replace(state, halves=halves), small_options(), console, lanes_of(1))
    return console


def test_a_failed_alignment_is_on_the_screen_among_the_warnings_and_beside_the_results(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert conclude(4.0).warnings == [] and not (tmp_path / "run_warnings.txt").exists()
    console = conclude(21.0)
    assert "alignment has probably failed: the angular accuracy is 21.0 degrees" in console.warnings[0]
    assert "you cannot align your particles" in console.stream.getvalue()
    assert (tmp_path / "run_warnings.txt").read_text().strip() == console.warnings[0]
