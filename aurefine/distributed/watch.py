"""Notices when one of the processes has failed, is gone or says nothing any more, and ends the run: one message, no hang.

Every process has a thread that writes a sign of life into the common store. Rank 0 looks at all of them and at the errors that the others have
left there; the others look for the end that rank 0 has declared, and for rank 0's own sign of life.
"""

from __future__ import annotations

import math
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import torch.distributed as dist

from aurefine.distributed.place import QUIET, Place, machine_name
from aurefine.errors import InputError

SILENCE = "AUREFINE_SILENCE_SECONDS"  # so long may a process say nothing
_SILENCE_SECONDS = 30.0
_BEATS = 20  # signs of life in that time, at most one a second
_BEATS_OF_THE_LIVING = 2.5  # in which whoever lives gives a sign
_SILENCE_OF_THE_LOST = 5.0  # seconds; where a connection broke already
_PATIENCE_SECONDS = 2.0  # in which whoever started the processes may end them, or the first process meets the same error


class Watch:
    """The watching thread of one process; `connect` makes a connection to the store that is used by nobody else.

    on_failure: called with the reason when this process has told it and is about to end (job files that say so).
    """

    def __init__(self, place: Place, connect: Callable[[], dist.Store], on_failure: Callable[[str], None]) -> None:
        self._place, self._connect, self._on_failure = place, connect, on_failure
        self._limit = _longest_silence()
        self._beat = min(1.0, self._limit / _BEATS)
        self._stopped, self._own_end = threading.Event(), threading.Event()
        self._answered = time.monotonic()  # when the store did last
        self._store = connect()
        self._store.set_timeout(timedelta(seconds=10 * self._limit))
        self._store.set(_sign(place.rank), "0")
        self._store.set(_who(place.rank), f"process {os.getpid()} on {machine_name()}")

    def start(self) -> None:
        """Begin, once every process is there."""
        for work in (self._live, self._guard):
            threading.Thread(target=work, daemon=True, name="watch").start()

    def report(self, message: str, code: int, wait: bool) -> None:
        """Of a process that is not the first: leave an error for the first to tell, and `wait` for the end. Returns where none comes."""
        store = self._connect()
        store.compare_set("error", "", f"{self._place.rank}\n{code}\n{message}")
        if wait:
            time.sleep(self._limit)
        else:
            store.set(_gone(self._place.rank), "1")

    def lost(self) -> str:
        """Of the first process, told to stop by a signal: why, if that was because another one has died (srun ends all then), else ""."""
        self._own_end.set()  # what the others leave because of the same signal is no news
        store, ranks = self._connect(), range(1, self._place.size)
        before = store.multi_get([_sign(rank) for rank in ranks])
        self._stopped.wait(_BEATS_OF_THE_LIVING * self._beat)
        after = store.multi_get([_sign(rank) for rank in ranks])
        for rank, one, other in zip(ranks, before, after, strict=True):
            if one == other and not store.check([_gone(rank)]):
                return f"rank {rank} ({store.get(_who(rank)).decode()}) is gone: it was killed, or has died. The run ends."
        return ""

    def ending(self, code: int) -> None:
        """Of the first process: it is about to end because of an error that it tells itself; the others leave without a word."""
        self._own_end.set()
        store = self._connect()
        store.set("end", str(code))
        self._wait_for_others(store)

    def wait_for_verdict(self) -> None:
        """Others cannot be reached any more: wait until it is known who, which ends this process. Returns where nobody says."""
        self._limit = min(self._limit, _SILENCE_OF_THE_LOST)
        time.sleep(self._limit + 4 * _PATIENCE_SECONDS)

    def leave(self) -> None:
        """The end of a run that went well: the first process waits for the others, for it keeps the store."""
        store = self._connect()
        store.set(_gone(self._place.rank), "1")
        self._stopped.set()
        if self._place.leads:
            self._wait_for_others(store)

    def _wait_for_others(self, store: dist.Store) -> None:
        end = time.monotonic() + _PATIENCE_SECONDS
        others = [_gone(rank) for rank in range(1, self._place.size)]
        while time.monotonic() < end and not store.check(others):
            time.sleep(0.01)

    # ------------------------------------------------------------------ the thread
    def _live(self) -> None:
        """Give signs of life and look for those of others, until the run ends."""
        try:
            self._exchange_signs()
        except RuntimeError:
            self._lost_the_store()

    def _exchange_signs(self) -> None:
        ranks = range(1, self._place.size) if self._place.leads else range(1)
        seen: dict[int, tuple[bytes, float]] = {}
        number, last = 0, time.monotonic()
        while not self._stopped.wait(self._beat):
            number += 1
            self._store.set(_sign(self._place.rank), str(number))
            signs = self._store.multi_get([_sign(rank) for rank in ranks])
            self._look_for_errors()
            now = self._answered = time.monotonic()
            late, last = now - last > self._limit / 2, now
            for rank, sign in zip(ranks, signs):
                if rank not in seen or sign != seen[rank][0] or late:  # late: this process was stopped itself, perhaps with all others
                    seen[rank] = (sign, now)
                elif now - seen[rank][1] > self._limit and not self._store.check([_gone(rank)]):
                    self._tell(f"{self._name(rank)} has said nothing for {self._limit:.0f} seconds: it was stopped, or has died. The run ends.")

    def _look_for_errors(self) -> None:
        if not self._place.leads:
            if self._store.check(["end"]):
                self._store.set(_gone(self._place.rank), "1")
                _leave(QUIET)
        elif self._store.check(["error"]):
            rank, code, message = self._store.get("error").decode().split("\n", 2)
            time.sleep(_PATIENCE_SECONDS)  # wrong input is wrong here, too: then the main thread tells it
            if not self._own_end.is_set():
                self._tell(f"{message} (found by {self._name(int(rank))})", int(code))

    def _guard(self) -> None:
        """Watches the thread above: it stands still when the first process, which keeps the store, is stopped. Also ends with our starter."""
        while not self._stopped.is_set():
            self._wait_a_beat()
            if time.monotonic() - self._answered > self._limit + 2 * self._beat and not self._place.leads:
                before = self._answered
                self._stopped.wait(3 * self._place.rank * self._beat)  # one of those left tells it, not all; and if we were stopped, hear first
                if self._answered == before and not self._stopped.is_set():
                    self._tell(f"rank 0 has said nothing for {self._limit:.0f} seconds: it was stopped, or has died. The run ends.")

    def _wait_a_beat(self) -> None:
        lifeline = [self._place.lifeline] if self._place.launched else []
        if lifeline and select.select(lifeline, [], [], self._beat)[0]:
            _leave(QUIET)  # the process that started us is gone
        elif not lifeline:
            self._stopped.wait(self._beat)

    def _lost_the_store(self) -> None:
        """Whoever keeps the store is gone: the first process, or torchrun."""
        elsewhere = self._place.store_elsewhere or self._place.leads
        who = "the program that keeps the store of the processes (torchrun)" if elsewhere else "rank 0"
        if not self._stopped.wait(_PATIENCE_SECONDS * self._place.rank):
            self._tell(f"{who} is gone: it was killed, or has died. The run ends.")

    def _name(self, rank: int) -> str:
        return f"rank {rank} ({self._store.get(_who(rank)).decode()})"

    def _tell(self, message: str, code: int = 1) -> None:
        """Say why, and end this process and all others."""
        if self._stopped.is_set() or self._own_end.is_set():
            return
        print(f"aurefine: {message}", file=sys.stderr, flush=True)
        if self._place.leads:
            with suppress(RuntimeError):  # the store may be what is gone: the others notice that, too
                self._store.set("end", str(code))
                self._wait_for_others(self._store)
        self._on_failure(message)
        _leave(code)


def _longest_silence() -> float:
    text = os.environ.get(SILENCE, "")
    try:
        seconds = float(text) if text else _SILENCE_SECONDS
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise InputError(f"{SILENCE}={text}: seconds, more than 0, were expected in this variable of the environment")
    return seconds


def _sign(rank: int) -> str:
    return f"sign/{rank}"


def _who(rank: int) -> str:
    return f"who/{rank}"


def _gone(rank: int) -> str:
    return f"gone/{rank}"


def _leave(code: int) -> None:
    """End this process now: its main thread may be waiting for one that never answers."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
