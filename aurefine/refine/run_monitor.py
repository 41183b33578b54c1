"""Watches over a run from a thread of its own: keeps `status.json` true, passes on the request to stop, ends a run that hangs."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import aurefine
from aurefine import job_control
from aurefine.errors import InputError
from aurefine.job_control import JobAborted, JobControl
from aurefine.process_record import ProcessRecord
from aurefine.refine import resume, run_status
from aurefine.refine.options import RefineOptions
from aurefine.refine.run_status import RunStatus

INTERVAL = 5.0  # seconds between two heartbeats
_LOOK = 1.0  # seconds between two looks for the request to stop
_GRACE = 15.0  # seconds that a run has to leave by itself when it is to stop
_GONE = 60.0  # seconds after which a missing output folder is believed to be gone: network file systems have lapses


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
        self._writing, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="monitor", daemon=True)

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
        self._phase = name
        self._iteration = self._iteration if iteration is None else iteration
        self._done, self._skipped, self._total, self._phase_began, self._idle = 0, 0, particles, time.monotonic(), 0.0
        self._write(run_status.RUNNING)

    def advance(self, count: int = 0, skipped: bool = False) -> None:
        """So many more particles are done; `skipped`: an earlier run did them. From any thread; cheap."""
        with self._writing:
            self._done += count
            self._skipped += count if skipped else 0
            self._idle = 0.0

    # ------------------------------------------------------------------ beginning and end
    def __enter__(self) -> RunMonitor:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join(_LOOK)  # not longer: it may be writing to a disk that does not answer
        if error is None:
            self._phase = "done"
            self._write(run_status.FINISHED)
        elif isinstance(error, JobAborted):
            self._write(run_status.ABORTED, run_status.ABORT_MESSAGE)
        elif isinstance(error, KeyboardInterrupt):
            self._write(run_status.INTERRUPTED, run_status.SIGNAL_MESSAGE)
        else:
            self._write(run_status.FAILED, str(error) or type(error).__name__)

    # ------------------------------------------------------------------ the thread
    def _watch(self) -> None:
        try:
            self._look_until_end()
        except Exception as error:  # a watch that fails is the run's to tell
            self._interrupt(error)

    def _look_until_end(self) -> None:
        last = beat = time.monotonic()
        while not self._ended.wait(_LOOK):
            now = time.monotonic()
            self._idle += min(now - last, 3 * _LOOK)  # a longer gap: this process, too, was stopped
            last = now
            self._look_for_requests()
            job_control.wake_main()
            self._leave_when_overdue(now)
            patience = 60 * self.options.watchdog_minutes
            if 0 < patience < self._idle and job_control.stopping() is None:  # what is asked to stop ends as what it was asked for
                self._end_hanging_run()
            if now - beat >= INTERVAL:
                beat = now
                self._write(run_status.RUNNING)
                self._look_for_folder(now)

    def _look_for_requests(self) -> None:
        try:
            self.control.check()
        except JobAborted as error:
            self._interrupt(error)

    def _look_for_folder(self, now: float) -> None:
        if self.path is None or not self._opened or self.path.parent.is_dir():
            self._seen_folder = now
        elif now - self._seen_folder > _GONE and not self._lost:
            self._lost = True
            self._interrupt(InputError(f"{self.path.parent}: the output folder has vanished: what was written is gone, and the run ends"))

    def _interrupt(self, error: Exception) -> None:
        if not job_control.interrupt_main(error):
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
        self._leave(state, f"{why} {resume.advice(self.options.output)}", asked.code)

    def _end_hanging_run(self) -> None:
        minutes = self.options.watchdog_minutes
        where = f"{self._phase} of iteration {self._iteration}" if self._iteration else self._phase
        message = f"no progress for {minutes:g} minutes (--watchdog) in this phase: {where}. The run is ended. {resume.advice(self.options.output)}"
        print(f"aurefine: {message}\nThis is what each thread was doing:", file=sys.stderr, flush=True)
        with suppress(OSError, ValueError, AttributeError):  # a stream that is no file cannot take them
            faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        self._leave(run_status.FAILED, message, 1, told=True)

    def _leave(self, state: str, message: str, code: int, told: bool = False) -> None:
        """End the process from here."""
        if not told:
            print(f"aurefine: {message}", file=sys.stderr, flush=True)
        self._write(state, message)
        if self.options.pipeline_control:
            job_control.leave_failure(self.options.pipeline_control, state in (run_status.ABORTED, run_status.INTERRUPTED))
        os._exit(code)

    # ------------------------------------------------------------------ the file
    def status(self, state: str, message: str = "") -> RunStatus:
        """Where the run stands now."""
        elapsed, done = time.monotonic() - self._phase_began, self._done - self._skipped
        rate = done / elapsed if done > 0 and elapsed > 0 and state == run_status.RUNNING else 0.0
        left = (self._total - self._done) / rate if rate > 0 and self._total else -1.0
        memory, peak = run_status.memory_in_use()
        return RunStatus(
            state, self._phase, self._iteration, self.options.output, self._done, self._total, round(rate, 3), round(left, 1), memory >> 20,
            peak >> 20, self._started, time.time(), INTERVAL, message, aurefine.__version__, self._process, self._nothing_written,
        )  # fmt: skip

    def _write(self, state: str, message: str = "") -> None:
        """Replace the file; where it cannot be written (a full disk) the run goes on, and its own files will tell."""
        if self.path is None or not self._opened:
            return
        with self._writing:
            if state == run_status.RUNNING and self._ended.is_set():
                return
            if state != run_status.RUNNING:
                run_status.write_last_status(self.path, self.status(state, message))
                return
            with suppress(InputError):
                run_status.write_status(self.path, self.status(state, message))
