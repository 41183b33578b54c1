"""How many threads a job uses, told once and asked for where the work is done."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from itertools import pairwise
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

Result = TypeVar("Result")
_threads: ContextVar[int] = ContextVar("threads", default=0)  # 0: nobody told


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
    return _threads.get() or 1


def threads_told() -> int:
    """The number that `use_threads` told; 0, for every core, outside of it."""
    return _threads.get()


def in_order(work: Callable[..., Result], tasks: Iterable[tuple[Any, ...]], threads: int) -> Iterator[Result]:
    """`work(*task)` of each task, in their order, so many at a time; few wait to be taken. Inside, each works in one thread."""
    if threads < 2:
        for task in tasks:
            with use_threads(1):
                result = work(*task)
            yield result
        return
    from concurrent.futures import ThreadPoolExecutor  # slow to import, and a single map does not need it

    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for task in tasks:
            waiting.append(pool.submit(work, *task))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def at_once(*tasks: Callable[[], Result]) -> list[Result]:
    """What the tasks return, each run in a thread of its own with its share of the threads; when all have ended, the first one's error is raised."""
    share = max(1, threads_told() // len(tasks)) if threads_told() else 0
    results: list[Any] = [None] * len(tasks)
    errors: dict[int, BaseException] = {}

    def run(place: int) -> None:
        _threads.set(share)
        try:
            results[place] = tasks[place]()
        except BaseException as error:  # raised again below, in the thread that waits
            errors[place] = error

    threads = [Thread(target=copy_context().run, args=(run, place)) for place in range(1, len(tasks))]
    for thread in threads:
        thread.start()
    copy_context().run(run, 0)
    for thread in threads:
        thread.join()
    if errors:
        raise errors[min(errors)]
    return results


def in_parts(work: Callable[[slice], Result], count: int) -> list[Result]:
    """`work` on stretches of 0 .. count-1, one for each thread in use, at once; what it returned, in order."""
    parts = max(1, min(thread_count(threads_told()), count))
    edges = [count * part // parts for part in range(parts + 1)]
    return at_once(*(partial(work, slice(*edge)) for edge in pairwise(edges)))
