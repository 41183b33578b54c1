"""Large arrays of zeros."""

from __future__ import annotations

import numpy as np
import pytest

from aurefine import large_arrays


@pytest.mark.parametrize("shape", [(3, 4), (64, 64, 64, 8)])
def test_zeros_are_zero_writable_and_of_the_shape(shape: tuple[int, ...]) -> None:
    array = large_arrays.zeros(shape)
    assert array.shape == shape and array.dtype == np.float32 and not array.any()
    array += 1
    assert array.sum() == array.size


def test_no_room_is_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        large_arrays.zeros((1 << 50,))
