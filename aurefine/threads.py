"""How many threads a job uses."""

from __future__ import annotations

import os


def thread_count(asked: int) -> int:
    """The number asked for with --j, or every core this process may use when that is not above zero."""
    if asked > 0:
        return asked
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
