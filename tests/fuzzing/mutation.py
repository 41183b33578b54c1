"""Random changes of files: bytes, words, numbers, pieces moved, doubled or taken from another file."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Iterator

WORDS = (b"data_", b"\ndata_particles\n", b"\nloop_\n", b"_rlnImageName ", b"_rlnOpticsGroup #1", b'"', b"'", b"#", b"nan", b"inf", b"-1", b"0",
         b"1e999", b"99999999999999999999", b"1e-320", b"../../x@../../etc/passwd", b"000000@", b"1@/dev/zero", b"\0", b"\r\n", b"\r", b"\xff\xfe",
         b"\xc2\xb2@a", b"[1,2", b"2147483648", b"-9223372036854775809", b"true", b"None", b"0x10", b"1_0", b" \n", b"\x1c", b"\x0b")  # fmt: skip
INTEGERS = (0, 1, -1, 2, 3, 6, 12, 64, 127, 255, 1023, 1024, 65535, 2**24 - 1, 2**24, 2**31 - 1, -(2**31))


VALUES = (b"nan", b"inf", b"-inf", b"-1", b"0", b"1e999", b"1e-320", b"1e308", b"-1e308", b"1e18", b"65536", b"2147483648", b"1000000000000",
          b"4611686018427387904", b"9223372036854775807", b"-9223372036854775808", b"99999999999999999999", b"", b'""', b"a", b"..", b"../../x",
          b"/dev/zero", b"[1,2", b"[]", b"[nan]", b"[1e308,1e308,1e308,1e308]")  # fmt: skip


def every_value(data: bytes) -> Iterator[bytes]:
    """The text with each of its words replaced by each hostile value, one at a time."""
    for word in re.finditer(rb"\S+", data):
        for value in VALUES:
            yield data[: word.start()] + value + data[word.end() :]


def mutate(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """One to four random changes: bytes, words, numbers, pieces moved, doubled or taken from another file."""
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place, size = rng.randrange(len(result) + 1), rng.choice((1, 1, 4, 16, 200))
        how = rng.randrange(8)
        if how == 0 and result:
            result[place % len(result)] = rng.randrange(256)
        elif how == 1:
            result[place : place + rng.choice((0, size))] = rng.choice(WORDS)
        elif how == 2:
            del result[place : place + size]
        elif how == 3:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            result[place:place] = other[start : start + size]
        elif how == 4:
            result[place : place + 4] = struct.pack("<i", rng.choice(INTEGERS))
        elif how == 5 and len(result) >= 1024:
            result[4 * (place % 56) : 4 * (place % 56) + 4] = struct.pack(rng.choice("<>") + "i", rng.choice(INTEGERS))  # words of an MRC header
        elif how == 6:
            words = bytes(result).split(b" ")
            words[rng.randrange(len(words))] = rng.choice(WORDS)
            result = bytearray(b" ".join(words))
        else:
            del result[rng.randrange(len(result) + 1) :]
    return bytes(result[:100_000])
