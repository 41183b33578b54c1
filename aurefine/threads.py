"""How many threads a job uses, told once and asked for where the work is done."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

Result = TypeVar("Result")
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


def in_order(work: Callable[..., Result], tasks: Iterable[tuple[Any, ...]], threads: int) -> Iterator[Result]:
    """`work(*task)` of each task, in their order, so many at a time; few wait to be taken. Inside, each works in one thread."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for task in tasks:
            waiting.append(pool.submit(work, *task))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
