"""Files that are written while the next iteration is computed."""

from __future__ import annotations

import threading

import pytest

from aurefine.errors import InputError
from aurefine.refine.background import Background


def test_work_is_done_in_order_and_before_the_end():
    done, gate = [], threading.Event()

    def slow(value):
        gate.wait(10)
        done.append(value)

    with Background() as background:
        background.submit(slow, 1)
        assert done == []  # it goes on beside this thread
        gate.set()
        background.submit(done.append, 2)
    assert done == [1, 2]


def test_an_error_is_raised_where_the_next_work_is_handed_over():
    def fail():
        raise InputError("no space is left on the disk")

    with pytest.raises(InputError, match="no space"), Background() as background:
        background.submit(fail)
        background.submit(print)


def test_an_error_of_the_last_work_is_raised_at_the_end():
    def fail():
        raise InputError("no space is left on the disk")

    with pytest.raises(InputError, match="no space"), Background() as background:
        background.submit(fail)


def test_what_was_handed_over_is_done_when_the_block_fails():
    done = []
    with pytest.raises(KeyboardInterrupt), Background() as background:
        background.submit(done.append, 1)
        raise KeyboardInterrupt
    assert done == [1]
