"""How much memory there is for this process: what the machine, its control group and `ulimit -v` leave."""

from __future__ import annotations

import resource
from pathlib import Path

from aurefine.refine import run_status


def available() -> int:
    """Bytes that this process may come to use: what the machine, its control group and `ulimit -v` leave, and what it has; 0 if unknown."""
    try:
        rows = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = 1024 * int(rows["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return 0
    own = run_status.memory_in_use()[0]
    return max(1, min([free + own, *(limit - used + own for limit, used in [*_control_group(), *_address_space()])]))


def _address_space() -> list[tuple[int, int]]:
    """(limit, use) of `ulimit -v`; none where there is no limit."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return []
    return [(limit, int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize())]


def _control_group(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[tuple[int, int]]:
    """(limit, use) of each control group that bounds this process, its own and those around it (version 2 or 1); files in memory that can go do not
    count as use."""
    try:
        places = [line.split(":", 2)[1:] for line in own.read_text().splitlines()]
    except OSError:
        return []
    found = []
    for controllers, path in places:
        if controllers not in ("", "memory"):
            continue
        top, names = (root, ("memory.max", "memory.current", "inactive_file")) if not controllers else (
            root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"))  # fmt: skip
        folder = top / path.strip("/")
        for group in (folder, *folder.parents):
            found += _limit_of(group, *names)
            if group == top:
                break
    return found


def _limit_of(group: Path, limit: str, use: str, passing: str) -> list[tuple[int, int]]:
    try:
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return [(int((group / limit).read_text()), int((group / use).read_text()) - int(statistics.get(passing, 0)))]
    except (OSError, ValueError):  # there is no such group here, or its limit is "max"
        return []
