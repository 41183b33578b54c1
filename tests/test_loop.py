"""What the loop says at its end."""

from __future__ import annotations

import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from refinement_states import small_options, small_state

from aurefine.refine import loop
from aurefine.refine.console import Console
from aurefine.refine.lanes import lanes_of
from aurefine.refine.maximisation import Masks


def conclude(accuracy: float) -> Console:
    state = small_state()
    fallen = np.where(np.arange(len(state.halves[0].fsc)) < 4, 1.0, 0.0)
    halves = tuple(replace(model, accuracy_rotation=accuracy, fsc=fallen) for model in state.halves)
    console = Console(io.StringIO(), io.StringIO())
    data = SimpleNamespace(masks=Masks(), crew=lanes_of(1), particles=SimpleNamespace(reconstruct_images=None))
    loop._conclude(replace(state, halves=halves), data, small_options(), console)  # type: ignore[arg-type]
    loop._tell_warnings(small_options(), console, lanes_of(1))
    return console


def test_a_failed_alignment_is_on_the_screen_among_the_warnings_and_beside_the_results(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    quiet = conclude(4.0)
    assert quiet.warnings == [] and not (tmp_path / "run_warnings.txt").exists() and "Warnings" not in quiet.stream.getvalue()
    console = conclude(21.0)
    assert "alignment has probably failed: the angular accuracy is 21.0 degrees" in console.warnings[0]
    assert "you cannot align your particles" in console.stream.getvalue()
    assert f" Warnings of this run: 1\n  1. {console.warnings[0]}\n" in console.stream.getvalue()
    assert (tmp_path / "run_warnings.txt").read_text().strip() == console.warnings[0]
