"""Hostile files: what each reader is fed, from which seeds. Used by test_fuzz.py and benchmarks/fuzz.py.

A target reads bytes as one kind of file. It may refuse them with InputError; anything else that it raises is a finding.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from aurefine.errors import InputError
from fuzzing import image_readers, project_readers, star_readers
from fuzzing.mutation import WORDS, every_value, mutate
from fuzzing.place import Workplace, strays, temporary, watched

__all__ = ["TARGETS", "WORDS", "Workplace", "every_value", "mutate", "run", "seeds", "strays", "temporary", "watched"]

_ROOMS = (star_readers, image_readers, project_readers)
TARGETS: dict[str, Callable[[Workplace, bytes], None]] = {name: target for room in _ROOMS for name, target in room.TARGETS.items()}


def run(name: str, place: Workplace, data: bytes) -> bool:
    """Feed one file to a target; whether it was accepted. Raises what the target raises beyond InputError."""
    try:
        TARGETS[name](place, data)
    except InputError as error:
        if not str(error):
            raise AssertionError("an InputError without a message") from error
        return False
    return True


def seeds(name: str, place: Workplace, shared: Path | None = None) -> list[bytes]:
    """Files that the target accepts (and two that it refuses), to start from."""
    room = next(room for room in _ROOMS if name in room.TARGETS)
    every = room.seeds(name, place, shared)
    accepted = [data for data in every if run(name, place, data)]
    return accepted + [data for data in every if data not in accepted][:2]
