"""Python objects between processes: pickled, the large arrays in them sent as they are, without a copy."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from aurefine.refine.shortage import is_shortage

_LARGE = 1 << 16  # bytes: smaller arrays travel with the object
_AT_ONCE = 1 << 28  # bytes of one message
_HEADER = 64  # numbers


class Lost(Exception):
    """Another process is gone: what went wrong is told by whoever noticed it first. `detail`: the first line of what the library said."""

    def __init__(self, said: str) -> None:
        super().__init__("another process of this run is gone, or cannot be reached any more: standard error (run.err) says why")
        self.detail = (said.splitlines() or [""])[0]


class _Pickler(pickle.Pickler):
    """Tensors as the numpy arrays of their memory."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return torch.from_numpy, (value.cpu().contiguous().numpy(),)
        return NotImplemented


def pack(value: Any) -> list[np.ndarray]:
    """Bytes of the object, uint8: first the pickled one, then each large array."""
    large: list[np.ndarray] = []

    def aside(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < _LARGE or len(large) >= _HEADER - 2:
            return True
        large.append(np.frombuffer(raw, np.uint8))
        return False

    stream = io.BytesIO()
    _Pickler(stream, protocol=5, buffer_callback=aside).dump(value)
    return [np.frombuffer(stream.getbuffer(), np.uint8), *large]


def unpack(parts: list[np.ndarray]) -> Any:
    """The object of `pack`."""
    return pickle.loads(parts[0].tobytes(), buffers=parts[1:])


def broadcast(value: Any, source: int, group: dist.ProcessGroup | None = None) -> Any:
    """The object of rank `source`, in every process (of the group)."""
    mine = dist.get_rank() == source
    return _exchange(value if mine else None, mine, lambda tensor: dist.broadcast(tensor, source, group))


def send(value: Any, target: int) -> None:
    """Send an object to a rank that calls `receive`."""
    _exchange(value, True, lambda tensor: dist.send(tensor, target))


def receive(source: int) -> Any:
    """The object that a rank sends."""
    return _exchange(None, False, lambda tensor: dist.recv(tensor, source))


def _exchange(value: Any, sends: bool, transfer: Any) -> Any:
    parts = pack(value) if sends else []
    header = torch.zeros(_HEADER, dtype=torch.int64)
    header[: len(parts)] = torch.tensor([part.nbytes for part in parts], dtype=torch.int64)
    guarded(transfer, header)
    if not sends:
        parts = [np.empty(size, np.uint8) for size in header.tolist() if size]
    for part in parts:
        if not part.flags.writeable:  # torch warns of arrays that are not, although here it only reads them
            part = part.copy()
        for start in range(0, part.nbytes, _AT_ONCE):
            guarded(transfer, torch.from_numpy(part[start : start + _AT_ONCE]))
    return value if sends else unpack(parts)


def guarded(action: Any, *arguments: Any) -> Any:
    """Call something of torch.distributed; raises Lost where the others cannot be reached any more. Memory that is short stays what it is."""
    try:
        return action(*arguments)
    except RuntimeError as error:  # gloo, NCCL and the store have no error of their own for it
        if is_shortage(error):
            raise
        raise Lost(str(error)) from error
