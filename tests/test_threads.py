"""Work shared between threads comes back whole and in order."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from aurefine.threads import at_once, in_parts, threads_in_use, threads_told, use_threads


def test_tasks_run_at_once_and_come_back_in_order():
    barrier = threading.Barrier(3, timeout=20)  # passed only when all three are there

    def task(number: int) -> int:
        barrier.wait()
        return number

    assert at_once(lambda: task(1), lambda: task(2), lambda: task(3)) == [1, 2, 3]


def test_the_first_error_is_raised_after_all_have_ended():
    ended = []

    def fail(message: str) -> None:
        ended.append(message)
        raise ValueError(message)

    with pytest.raises(ValueError, match="first"):
        at_once(lambda: ended.append("fine"), lambda: fail("first"), lambda: fail("second"))
    assert sorted(ended) == ["fine", "first", "second"]


def test_tasks_share_the_threads():
    with use_threads(5):
        assert at_once(threads_in_use, threads_in_use) == [2, 2]
        assert threads_in_use() == 5
    assert at_once(threads_told, threads_told) == [0, 0]


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_parts_cover_everything_once(count):
    values = np.zeros(count, dtype=int)

    def add(part: slice) -> int:
        values[part] += 1
        return part.stop - part.start

    with use_threads(3):
        assert sum(in_parts(add, count)) == count
    assert (values == 1).all()
