"""Large arrays of zeros."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from aurefine import large_arrays


@pytest.mark.parametrize("shape", [(3, 4), (64, 64, 64, 8)])
def test_zeros_are_zero_writable_and_of_the_shape(shape: tuple[int, ...]) -> None:
    array = large_arrays.zeros(shape)
    assert array.shape == shape and array.dtype == np.float32 and not array.any()
    array += 1
    assert array.sum() == array.size


def test_zeros_in_a_file_leave_nothing_behind_and_a_full_disk_is_a_memory_error(tmp_path, monkeypatch) -> None:
    array = large_arrays.zeros_on(str(tmp_path), (300, 300, 30))
    assert array.shape == (300, 300, 30) and array.dtype == np.float32 and not array.any() and not list(tmp_path.iterdir())
    array += 1
    assert array.sum() == array.size
    assert large_arrays.zeros_on("", (2, 3)).shape == (2, 3)

    def full(*given: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(large_arrays.os, "posix_fallocate", full)
    with pytest.raises(MemoryError, match="no room for sums of .* in .*: No space left"):
        large_arrays.zeros_on(str(tmp_path), (300, 300, 30))


def test_no_room_is_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        large_arrays.zeros((1 << 50,))


HOLES = """
import resource, sys
import numpy as np
from aurefine import large_arrays
if sys.argv[1] == "bounded":
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
large_arrays.keep_freed()
blocks = [np.ones(1 << 20) for _ in range(40)]
size = lambda: int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
before = size()
del blocks[:-1]
print((before - size()) >> 20)
"""


@pytest.mark.skipif(large_arrays.glibc() is None, reason="only glibc is told what to keep")
def test_freed_blocks_are_kept_but_where_address_space_is_bounded() -> None:
    given_back = [int(subprocess.check_output([sys.executable, "-c", HOLES, each])) for each in ("free", "bounded")]
    assert given_back[0] < 32 and given_back[1] > 300  # MB of 312
