"""When a run may converge."""

from __future__ import annotations

from aurefine.refine import schedule
from aurefine.refine.state import Progress


def test_a_run_whose_accuracy_still_improves_has_not_come_to_rest() -> None:
    before = Progress(accuracy_rotation=13.1)
    assert schedule.accuracy_improves(before, Progress(accuracy_rotation=10.1))
    assert not schedule.accuracy_improves(before, Progress(accuracy_rotation=13.0))
    assert not schedule.accuracy_improves(before, Progress(accuracy_rotation=15.0))
