"""What the page costs a refinement that it shows: the same run with nobody looking, and with a real browser on its live view, in turns.

python benchmarks/live_view.py --data FOLDER [--data FOLDER ...] [--times 5] [--threads 2] [--output benchmarks/results/live_view.json]

FOLDER is a set of benchmarks/datasets.py; nothing is written there. The run is a job of a project (`aurefine run Refine3D`), the page is
`aurefine gui`, the browser a headless Chromium that opens the job's page as soon as there is one and stays until the run ends. What counts
are processor seconds: of the refinement's process (what a page could add to it: files that it finds locked or must read again), and of the
page's server from the opening of the page until the end of the run. The browser's own are given beside them: it usually runs on the user's
machine; here it shares the refinement's cores, so that the refinement's own seconds contain what that costs its caches.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paired import AUREFINE, conditions, environment

from aurefine.project.project import Project

JOB = "Refine3D/job001"


@dataclass
class Seen:
    """What one open page asked for, and the processor seconds of its server and of the browser."""

    requests: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    server: float = 0.0
    browser: float = 0.0


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True, type=Path)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    result: dict[str, Any] = {"conditions": conditions() | {"threads": given.threads}, "sets": {}}
    with tempfile.TemporaryDirectory() as folder:
        run(given.data[0].resolve(), Path(folder), given.threads, True)  # not counted: it compiles, and brings files into memory
        for data in given.data:
            result["sets"][data.name] = measured(data.resolve(), Path(folder), given.times, given.threads)
            print(json.dumps(result["sets"][data.name], indent=1), flush=True)
            if given.output:
                given.output.write_text(json.dumps(result, indent=1) + "\n")


def measured(data: Path, folder: Path, times: int, threads: int) -> dict[str, Any]:
    """Medians of so many turns with and without a page."""
    alone, watched, pages, walls = [], [], [], []
    for turn in range(times):
        for looked_at in (False, True) if turn % 2 else (True, False):
            seconds, wall, seen = run(data, folder, threads, looked_at)
            (watched if looked_at else alone).append(seconds)
            if seen:
                pages.append(seen)
                walls.append(wall)
    shares = [100 * page.server / seconds for page, seconds in zip(pages, watched, strict=True)]
    before, after = statistics.median(alone), statistics.median(watched)
    counts = {
        name: statistics.median(page.requests.get(name, 0) for page in pages) for name in sorted({each for page in pages for each in page.requests})
    }
    return {
        "turns": times, "run_wall_s": round(statistics.median(walls), 1), "run_cpu_s_alone": [round(each, 2) for each in alone],
        "run_cpu_s_watched": [round(each, 2) for each in watched], "run_increase_percent": round(100 * (after / before - 1), 2),
        "spread_alone_percent": round(100 * (max(alone) - min(alone)) / before, 2),
        "server_cpu_s": [round(page.server, 3) for page in pages], "server_percent_of_run": round(statistics.median(shares), 3),
        "server_percent_of_a_core": round(statistics.median(100 * page.server / wall for page, wall in zip(pages, walls, strict=True)), 3),
        "browser_cpu_s": round(statistics.median(page.browser for page in pages), 2), "requests": counts,
        "kilobytes": round(statistics.median(page.bytes for page in pages) / 1000),
    }  # fmt: skip


def run(data: Path, folder: Path, threads: int, looked_at: bool) -> tuple[float, float, Seen | None]:
    """Processor and wall seconds of one refinement in a new project, and of its page where it is looked at; SystemExit where it fails."""
    root = folder / "project"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    project = Project.create(root, "5")
    (root / data.name).symlink_to(data)
    words = json.loads((data / "set.json").read_text())
    values = {
        "fn_img": f"{data.name}/{words['star']}", "fn_ref": f"{data.name}/{words['reference']}", "sym_name": words["point_group"],
        "particle_diameter": words["particle_diameter"], "ini_high": 40, "ref_correct_greyscale": "Yes", "nr_threads": threads, "nr_mpi": 1,
        "other_args": "--random_seed 1",
    }  # fmt: skip
    with _page(root) if looked_at else nullcontext() as page:
        start = time.perf_counter()
        command = [*AUREFINE, "run", "Refine3D", *(f"{key}={value}" for key, value in values.items())]
        silent = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, cwd=root, env=environment(), **silent)
        ended: list[tuple[int, Any]] = []

        def has_ended() -> bool:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                ended.append((status, usage))
            return bool(pid)

        seen = page(lambda: project.read().process(JOB) is not None, has_ended) if page else None
        if not ended:
            _, status, usage = os.wait4(process.pid, 0)
            ended.append((status, usage))
        wall = time.perf_counter() - start
    status, usage = ended[0]
    process.returncode = status  # it has been waited for
    if status:
        raise SystemExit(f"failed: {' '.join(command)}; see {root / JOB}")
    return usage.ru_utime + usage.ru_stime, wall, seen


@contextmanager
def _page(root: Path) -> Iterator[Callable[[Callable[[], bool], Callable[[], bool]], Seen]]:
    """A server and a browser; called with what tells that the job is there and that it has ended, it looks at the job from one to the other."""
    from playwright.sync_api import sync_playwright

    server = subprocess.Popen([*AUREFINE, "gui"], cwd=root, env=environment() | {"PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        address = next(match.group() for line in server.stdout if (match := re.search(r"http://localhost:\d+/\?token=\S+", line)))
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        if chromium is None:
            raise SystemExit("there is no Chromium here (Debian: apt-get install chromium)")
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            tab.goto(address)
            tab.get_by_role("heading", name="Jobs").wait_for()

            def look(is_there: Callable[[], bool], has_ended: Callable[[], bool]) -> Seen:
                seen = Seen()
                while not is_there():
                    tab.wait_for_timeout(100)
                before = processor_seconds(server.pid), _of_children(server.pid)
                tab.on("response", lambda response: _count(seen, response))
                tab.goto(f"{address.split('?')[0]}#/job/{JOB}")
                while not has_ended():
                    tab.wait_for_timeout(200)
                seen.server = processor_seconds(server.pid) - before[0]
                seen.browser = _of_children(server.pid) - before[1]
                if not tab.locator(".chart").count():
                    raise SystemExit("the page has shown no curves: the run was too short, or the page is broken")
                return seen

            yield look
            browser.close()
    finally:
        server.terminate()
        server.wait(20)


def _count(seen: Seen, response: Any) -> None:
    path = response.url.split("?")[0].split("/", 3)[3]
    name = re.sub(r"job/\w+/job\d+", "job", path.removeprefix("api/")) if path.startswith("api/") else "page"
    kind = f"{name} {response.status}"
    seen.requests[kind] = seen.requests.get(kind, 0) + 1
    seen.bytes += int(response.headers.get("content-length", 0))


def processor_seconds(pid: int) -> float:
    """Of a process that still runs, all its threads (Linux: the clock of another process)."""
    return time.clock_gettime((~pid << 3) | 2)


def _of_children(without: int) -> float:
    """Of the browser: all that this process has started but the server and the refinement, children of children too."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = entry.read_text()
        except OSError:
            continue  # it has just ended
        parts = text.rpartition(")")[2].split()
        parents[int(entry.parent.name)] = (int(parts[1]), "chrom" in text or "node" in text, sum(map(int, parts[11:13])) / os.sysconf("SC_CLK_TCK"))

    def ours(pid: int) -> bool:
        while pid in parents and pid not in (without, 1):
            pid = parents[pid][0]
            if pid == os.getpid():
                return True
        return False

    return sum(seconds for pid, (_, browsing, seconds) in parents.items() if browsing and ours(pid))


if __name__ == "__main__":
    sys.exit(main())
