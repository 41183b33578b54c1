"""Files of an iteration are written while the next one is computed."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Background:
    """Does one thing at a time in a thread of its own; an error is raised by the next `submit`, or at the end of the `with` block.

    At the end of the block, also when that ends by an error, all is done: what was handed over is never lost.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "files")
        self._running: Future[Any] | None = None

    def submit(self, work: Callable[..., Any], *arguments: Any) -> None:
        """Begin `work(*arguments)` when what was submitted before is done. Nobody may change the arguments any more."""
        self.finish()
        self._running = self._thread.submit(contextvars.copy_context().run, work, *arguments)

    def finish(self) -> None:
        """Wait until all is done; raises what went wrong."""
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def __enter__(self) -> Background:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self._thread.shutdown(wait=True)
