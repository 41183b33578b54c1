"""How many threads a job uses, told once and asked for where the work is done."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_threads: ContextVar[int] = ContextVar("threads", default=1)


def thread_count(asked: int) -> int:
    """The number asked for with --j, or every core this process may use when that is not above zero."""
    if asked > 0:
        return asked
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    """Let transforms and interpolation of maps and images run in so many threads inside the block (one outside of any)."""
    token = _threads.set(max(1, count))
    try:
        yield
    finally:
        _threads.reset(token)


def threads_in_use() -> int:
    """The number that `use_threads` told; 1 outside of it."""
    return _threads.get()
