"""What a refinement prints: RELION's lines, its progress bar on a terminal (with the time left), plain lines in a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TextIO

_DOTS = 60
_MOUSE = '~~(,_,">'
_CHEESE = "[oo]"
_PLAIN_INTERVAL = 60.0  # seconds between the lines of a step in a file


class Console:
    """Prints lines and progress to `stream` (standard output), and warnings to `errors` (standard error).

    With verbosity 0 only warnings are printed. `warnings` keeps them all, so that they can be written beside the results.
    """

    def __init__(self, stream: TextIO | None = None, errors: TextIO | None = None, verbosity: int = 1) -> None:
        self.stream = sys.stdout if stream is None else stream
        self.errors = sys.stderr if errors is None else errors
        self.verbosity = verbosity
        self.warnings: list[str] = []

    def lines(self, lines: Iterable[str]) -> None:
        """Print each line as it is."""
        if self.verbosity > 0:
            for line in lines:
                self.stream.write(line + "\n")
            self.stream.flush()

    def line(self, text: str) -> None:
        """Print one line as it is."""
        self.lines([text])

    def warn(self, text: str) -> None:
        """Print a warning, the same one only once."""
        if text in self.warnings:
            return
        self.warnings.append(text)
        self.errors.write(f"WARNING: {text}\n")
        self.errors.flush()

    def progress(self, title: str, total: int) -> ProgressBar:
        """A progress bar over `total` steps under a title line: `with console.progress(...) as bar: bar.update(done)`."""
        self.line(title)
        return ProgressBar(self.stream, total, silent=self.verbosity < 1)


class ProgressBar:
    """RELION's mouse on its way to the cheese on a terminal; elsewhere a line a minute and one at the end."""

    def __init__(self, stream: TextIO, total: int, *, silent: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._total = max(total, 1)
        self._silent = silent
        self._clock = clock
        self._terminal = stream.isatty()
        self._start = self._spoken = clock()
        self._done = 0
        self._dots = -1

    def __enter__(self) -> ProgressBar:
        if self._terminal:
            self._write(f"000/??? sec {_MOUSE}{' ' * (_DOTS - 2)}{_CHEESE}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        elapsed = self._clock() - self._start
        if kind is not None:
            if self._terminal:
                self._write("\n")
        elif self._terminal:
            self._write(f"\r{_times(elapsed, elapsed)}{'.' * _DOTS}{_MOUSE} yum!{' ' * 20}\n")
        else:
            self._write(f"   done in {duration(elapsed)}\n")

    def update(self, done: int) -> None:
        """Say that `done` of the total steps are done; cheap enough to be called for every batch."""
        self._done = min(done, self._total)
        if self._terminal:
            self._draw()
        else:
            self._say()

    def advance(self, steps: int = 1) -> None:
        """Say that some more steps are done."""
        self.update(self._done + steps)

    def _draw(self) -> None:
        dots = int(_DOTS * self._done / self._total)
        if dots == self._dots or self._done == 0:
            return
        self._dots = dots
        elapsed = self._clock() - self._start
        estimate = elapsed * self._total / self._done
        left = f" {duration(estimate - elapsed)} left"
        self._write(f"\r{_times(elapsed, estimate)}{'.' * dots}{_MOUSE}{' ' * max(0, _DOTS - 2 - dots)}{_CHEESE}{left:<20}")

    def _say(self) -> None:
        now = self._clock()
        if now - self._spoken < _PLAIN_INTERVAL or self._done == 0:
            return
        self._spoken = now
        elapsed = now - self._start
        left = elapsed * (self._total - self._done) / self._done
        self._write(f"   {100 * self._done / self._total:3.0f} % in {duration(elapsed)}, {duration(left)} left\n")

    def _write(self, text: str) -> None:
        if not self._silent:
            self._stream.write(text)
            self._stream.flush()


def _times(elapsed: float, estimate: float) -> str:
    """RELION's `elapsed/total unit `, the unit chosen by the estimated total."""
    if estimate > 3600:
        return f"{elapsed / 3600:3.2f}/{estimate / 3600:3.2f} hrs "
    if estimate > 60:
        return f"{elapsed / 60:3.2f}/{estimate / 60:3.2f} min "
    return f"{int(elapsed):4d}/{int(estimate):4d} sec "


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    if seconds < 60:
        return f"{seconds:.1f} sec"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} hrs"
