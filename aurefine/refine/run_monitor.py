"""Watches over a run from two threads of its own: keeps `status.json` true, passes on the request to stop, ends a run that hangs.

One of them touches no file, so that it also ends a run whose file system does not answer any more; whatever needs files is done by the other.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TypeVar

import aurefine
from aurefine import job_control
from aurefine.errors import InputError
from aurefine.job_control import JobAborted, JobControl
from aurefine.process_record import ProcessRecord
from aurefine.refine import resume, run_status
from aurefine.refine.options import RefineOptions
from aurefine.refine.run_status import RunStatus

Result = TypeVar("Result")

INTERVAL = 5.0  # seconds between two heartbeats
_LOOK = 1.0  # seconds between two looks for the request to stop
_PATIENCE = 3.0  # seconds that the run waits until its status is written: a disk that does not answer is no reason to hold it up
_GRACE = 15.0  # seconds that a run has to leave by itself when it is to stop
_GONE = 60.0  # seconds after which a missing output folder is believed to be gone: network file systems have lapses
_ANSWER = 10.0  # seconds for what is written at the end: a file system, or a terminal, that does not answer must not keep the process


@dataclass(frozen=True)
class _Order:
    """To replace the file; `done` is locked until that has been tried. A lock, as signals may come at any point of what Python builds upon it."""

    state: str
    message: str
    done: threading.Lock = field(default_factory=threading.Lock)


class RunMonitor:
    """`with RunMonitor(...) as monitor` around a run, which tells it its phases and what it has done.

    Nothing is written before `open`, nor where `writes` is False (or the run has no output).
    """

    def __init__(self, options: RefineOptions | None = None, control: JobControl | None = None, writes: bool = True) -> None:
        self.options, self.control = options or RefineOptions(), control or JobControl()
        options = self.options
        self.path = Path(options.output).parent / run_status.NAME if options.output and writes else None
        self._opened = self._lost = self._nothing_written = False
        self._process, self._started = ProcessRecord.own(), time.time()
        self._phase, self._iteration = "starting", 0
        self._done = self._skipped = self._total = 0
        self._phase_began = self._seen_folder = time.monotonic()
        self._idle = 0.0  # seconds without progress, while this process ran: not those for which it was stopped (SIGSTOP)
        self._looks = True
        self._counting, self._ended = threading.Lock(), threading.Event()
        self._orders: SimpleQueue[_Order | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._telling, args=[self._look_until_end], name="monitor", daemon=True)
        self._files = threading.Thread(target=self._telling, args=[self._keep_files], name="status", daemon=True)

    # ------------------------------------------------------------------ what the run tells
    def open(self, anew: bool = True) -> None:
        """The output folder is there: the status is written from now on. `anew`: until `takes_over` what lies there is of an earlier run."""
        self._opened, self._nothing_written = True, anew
        self._write(run_status.RUNNING)

    def takes_over(self) -> None:
        """What is under the output root is this run's from now on."""
        self._nothing_written = False
        self._write(run_status.RUNNING)

    def phase(self, name: str, iteration: int | None = None, particles: int = 0) -> None:
        """The run begins to do something else, with so many particles to go through."""
        with self._counting:
            self._phase = name
            self._iteration = self._iteration if iteration is None else iteration
            self._done, self._skipped, self._total, self._phase_began, self._idle = 0, 0, particles, time.monotonic(), 0.0
        self._write(run_status.RUNNING)

    def advance(self, count: int = 0, skipped: bool = False) -> None:
        """So many more particles are done; `skipped`: an earlier run did them. From any thread; cheap."""
        with self._counting:
            self._done += count
            self._skipped += count if skipped else 0
            self._idle = 0.0

    # ------------------------------------------------------------------ beginning and end
    def __enter__(self) -> RunMonitor:
        self._files.start()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        if error is None:
            self._phase = "done"
            self._write(run_status.FINISHED, "", _ANSWER)
        elif isinstance(error, JobAborted):
            self._write(run_status.ABORTED, run_status.ABORT_MESSAGE, _ANSWER)
        elif isinstance(error, KeyboardInterrupt):
            self._write(run_status.INTERRUPTED, run_status.SIGNAL_MESSAGE, _ANSWER)
        else:
            self._write(run_status.FAILED, str(error) or type(error).__name__, _ANSWER)
        self._orders.put(None)
        self._files.join(_LOOK)  # not longer: it may be writing to a disk that does not answer

    # ------------------------------------------------------------------ the thread without files
    def _telling(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # a watch that fails is the run's to tell
            self._interrupt(error)

    def _look_until_end(self) -> None:
        last = time.monotonic()
        while not self._ended.wait(_LOOK):
            now = time.monotonic()
            with self._counting:
                self._idle += min(now - last, 3 * _LOOK)  # a longer gap: this process, too, was stopped
            last = now
            job_control.wake_main()
            self._leave_when_overdue(now)
            patience = 60 * self.options.watchdog_minutes
            if 0 < patience < self._idle and job_control.stopping() is None:  # what is asked to stop ends as what it was asked for
                self._end_hanging_run()

    def _interrupt(self, error: Exception) -> None:
        if not self._ended.is_set() and not job_control.interrupt_main(error):
            self.control.fail(error)  # seen at the next batch

    def _leave_when_overdue(self, now: float) -> None:
        """What is asked to stop and cannot, being in the midst of a long computation, is ended: all files are whole or absent at any moment."""
        asked = job_control.stopping()
        if asked is None or now - asked.since < _GRACE or self._ended.is_set():
            return
        aborted = isinstance(asked.error, JobAborted)
        failed = not aborted and not isinstance(asked.error, KeyboardInterrupt)
        state = run_status.ABORTED if aborted else run_status.FAILED if failed else run_status.INTERRUPTED
        why = f"the job was stopped by {job_control.ABORT_NOW}." if aborted else str(asked.error) or "interrupted."
        self._leave(state, why, asked.code)

    def _end_hanging_run(self) -> None:
        minutes = self.options.watchdog_minutes
        where = f"{self._phase} of iteration {self._iteration}" if self._iteration else self._phase
        why = f"no progress for {minutes:g} minutes (--watchdog) in this phase: {where}. The run is ended."
        self._leave(run_status.FAILED, why, 1, stacks=True)

    def _leave(self, state: str, why: str, code: int, stacks: bool = False) -> None:
        """End the process from here."""
        self._ended.set()  # nothing says any more that it is running
        try:
            message = f"{why} {_in_time(lambda: resume.advice(self.options.output), 'Go on with the same command line and --resume.')}"
            _in_time(lambda: _tell(message, stacks), None)
            _in_time(lambda: self._leave_word(state, message), None)
        finally:
            os._exit(code)

    # ------------------------------------------------------------------ the thread for files
    def _keep_files(self) -> None:
        """Carry out orders; meanwhile beat, and look for what others do to the files."""
        looked = beat = time.monotonic()
        while True:
            with suppress(Empty):
                order = self._orders.get(timeout=max(0.0, looked + _LOOK - time.monotonic()))
                if order is None:
                    return
                try:
                    self._replace(order.state, order.message)
                finally:
                    order.done.release()
            now = time.monotonic()
            if now - looked >= _LOOK and not self._ended.is_set():
                looked = now
                self._look_for_requests()
                if now - beat >= INTERVAL:
                    beat = now
                    self._replace(run_status.RUNNING)
                    self._look_for_folder(now)

    def _look_for_requests(self) -> None:
        if not self._looks:
            return
        try:
            self.control.check()
        except Exception as error:  # also a look that fails is the run's to tell, once
            self._looks = False
            self._interrupt(error)

    def _look_for_folder(self, now: float) -> None:
        if self.path is None or not self._opened or os.path.isdir(self.path.parent):
            self._seen_folder = now
        elif now - self._seen_folder > _GONE and not self._lost:
            self._lost = True
            self._interrupt(InputError(f"{self.path.parent}: the output folder has vanished: what was written is gone, and the run ends"))

    def _leave_word(self, state: str, message: str) -> None:
        self._write(state, message, _ANSWER / 2)
        if self.options.pipeline_control:
            job_control.leave_failure(self.options.pipeline_control, state in (run_status.ABORTED, run_status.INTERRUPTED))

    # ------------------------------------------------------------------ the file
    def status(self, state: str, message: str = "") -> RunStatus:
        """Where the run stands now."""
        with self._counting:
            phase, iteration, done, total, began = self._phase, self._iteration, self._done, self._total, self._phase_began
            fresh = done - self._skipped
        elapsed = time.monotonic() - began
        rate = fresh / elapsed if fresh > 0 and elapsed > 0 and state == run_status.RUNNING else 0.0
        left = (total - done) / rate if rate > 0 and total else -1.0
        memory, peak = run_status.memory_in_use()
        return RunStatus(
            state, phase, iteration, self.options.output, done, total, round(rate, 3), round(left, 1), memory >> 20,
            peak >> 20, self._started, time.time(), INTERVAL, message, aurefine.__version__, self._process, self._nothing_written,
        )  # fmt: skip

    def _write(self, state: str, message: str = "", seconds: float | None = None) -> None:
        """Have the file replaced; returns when that has been tried, or after so many seconds."""
        if self.path is None or not self._opened:
            return
        if not self._files.is_alive():  # outside of the `with` block
            self._replace(state, message)
            return
        order = _Order(state, message)
        order.done.acquire()
        self._orders.put(order)
        order.done.acquire(timeout=_PATIENCE if seconds is None else seconds)

    def _replace(self, state: str, message: str = "") -> None:
        """Where it cannot be written (a full disk) the run goes on, and its own files will tell."""
        if self.path is None or not self._opened:
            return
        if state != run_status.RUNNING:
            run_status.write_last_status(self.path, self.status(state, message))
        elif not self._ended.is_set():
            with suppress(InputError):
                run_status.write_status(self.path, self.status(state, message))


def _tell(message: str, stacks: bool) -> None:
    with suppress(OSError, ValueError):  # a stream that nobody takes anything from any more
        print(f"aurefine: {message}", file=sys.stderr, flush=True)
        if stacks:
            print("This is what each thread was doing:", file=sys.stderr, flush=True)
    if stacks:
        with suppress(OSError, ValueError, AttributeError):  # a stream that is no file cannot take them
            faulthandler.dump_traceback(file=sys.stderr, all_threads=True)


def _in_time(work: Callable[[], Result], otherwise: Result) -> Result:
    """work(), or `otherwise` where that takes too long, as it waits for what does not answer."""
    found = [otherwise]

    def in_thread() -> None:
        found[0] = work()

    thread = threading.Thread(target=in_thread, daemon=True)
    try:
        thread.start()
    except RuntimeError:  # there is no memory for a thread
        return work()
    thread.join(_ANSWER)
    return found[0]
