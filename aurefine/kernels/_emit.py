"""Vector code for Numba kernels that its own vectoriser does not find: a thin layer over llvmlite in which arithmetic reads like arithmetic.

Arrays are flat, contiguous and seen as pointers; offsets count elements. Nothing checks bounds: callers pad their arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

FLOAT, INT, LONG = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_FAST = ("fast",)


class Value:
    """A number or vector of the code being written; operators write instructions (floats: fused and reordered as the compiler likes)."""

    def __init__(self, code: Code, value: ir.Value) -> None:
        self.code, self.value = code, value

    def _apply(self, name: str, other: Value | float) -> Value:
        right = other if isinstance(other, Value) else self.code.constant(other, self.value.type)
        builder = self.code.builder
        if self.is_float:
            return Value(self.code, getattr(builder, "f" + name)(self.value, right.value, flags=_FAST))
        return Value(self.code, getattr(builder, name)(self.value, right.value))

    @property
    def is_float(self) -> bool:
        """Whether it holds floats."""
        return getattr(self.value.type, "element", self.value.type) == FLOAT

    def __add__(self, other: Value | float) -> Value:
        return self._apply("add", other)

    def __sub__(self, other: Value | float) -> Value:
        return self._apply("sub", other)

    def __mul__(self, other: Value | float) -> Value:
        return self._apply("mul", other)

    def compare(self, relation: str, other: Value | float) -> Value:
        """Lane by lane truth of, say, value <= other (floats, ordered)."""
        right = other if isinstance(other, Value) else self.code.constant(other, self.value.type)
        return Value(self.code, self.code.builder.fcmp_ordered(relation, self.value, right.value))

    def choose(self, yes: Value, no: Value) -> Value:
        """yes where this truth holds, else no."""
        return Value(self.code, self.code.builder.select(self.value, yes.value, no.value))

    def floor(self) -> Value:
        """The largest whole numbers not above."""
        return Value(self.code, self.code.builder.call(self.code.intrinsic("llvm.floor", self.value.type), [self.value]))

    def as_int(self) -> Value:
        """Whole floats as 32-bit integers."""
        return Value(self.code, self.code.builder.fptosi(self.value, ir.VectorType(INT, self.value.type.count)))

    def shuffle(self, lanes: Sequence[int], other: Value | None = None) -> Value:
        """The named lanes; those of `other` follow this vector's own."""
        second = ir.Constant(self.value.type, ir.Undefined) if other is None else other.value
        mask = ir.Constant(ir.VectorType(INT, len(lanes)), list(lanes))
        return Value(self.code, self.code.builder.shuffle_vector(self.value, second, mask))

    def repeated(self, count: int) -> Value:
        """A vector whose every lane is this number."""
        vector = ir.Constant(ir.VectorType(self.value.type, 1), ir.Undefined)
        one = self.code.builder.insert_element(vector, self.value, ir.Constant(INT, 0))
        return Value(self.code, one).shuffle([0] * count)

    def total(self) -> Value:
        """The sum over the lanes, a number."""
        vector, width = self, self.value.type.count
        while width > 1:
            width //= 2
            vector = vector.shuffle(range(width)) + vector.shuffle(range(width, 2 * width))
        return Value(self.code, self.code.builder.extract_element(vector.value, ir.Constant(INT, 0)))


class Array:
    """A flat array, from some element on."""

    def __init__(self, code: Code, pointer: ir.Value) -> None:
        self.code, self.pointer = code, pointer

    def at(self, offset: Value | int) -> Array:
        """The same array from `offset` on."""
        start = offset if isinstance(offset, Value) else self.code.long(offset)
        return Array(self.code, self.code.builder.gep(self.pointer, [start.value]))

    def load(self, width: int = 0) -> Value:
        """The next `width` elements as a vector; a number for 0."""
        if not width:
            return Value(self.code, self.code.builder.load(self.pointer))
        value = self.code.builder.load(self._vector(width))
        value.align = 4
        return Value(self.code, value)

    def store(self, value: Value) -> None:
        """Write a vector, or a number."""
        kind = value.value.type
        pointer = self._vector(kind.count) if isinstance(kind, ir.VectorType) else self.pointer
        self.code.builder.store(value.value, pointer).align = 4

    def add(self, value: Value) -> None:
        """Add a vector, or a number, to what is there."""
        kind = value.value.type
        self.store(self.load(kind.count if isinstance(kind, ir.VectorType) else 0) + value)

    def prefetch(self) -> None:
        """Ask for the cache line of the first element, which will be written: into the second-level cache."""
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, INT, INT, INT])
        function = cgutils.get_or_insert_function(self.code.builder.module, kind, "llvm.prefetch.p0")
        place = self.code.builder.bitcast(self.pointer, byte)
        write, locality, data = 1, 2, 1
        self.code.builder.call(function, [place, *(ir.Constant(INT, number) for number in (write, locality, data))])

    def spread(self, width: int) -> Value:
        """A vector whose every lane is the first element."""
        return self.load().repeated(width)

    def _vector(self, width: int) -> ir.Value:
        return self.code.builder.bitcast(self.pointer, ir.VectorType(self.pointer.type.pointee, width).as_pointer())


class Sum:
    """A vector that is added to in a loop; the compiler keeps it in a register."""

    def __init__(self, code: Code, width: int) -> None:
        self.code = code
        kind = ir.VectorType(FLOAT, width)
        self._slot = cgutils.alloca_once(code.builder, kind)
        code.builder.store(ir.Constant(kind, [0.0] * width), self._slot)

    def add(self, value: Value) -> None:
        """Add a vector."""
        self.code.builder.store((self.value + value).value, self._slot)

    @property
    def value(self) -> Value:
        """What has come together so far."""
        return Value(self.code, self.code.builder.load(self._slot))


class Code:
    """The body of an intrinsic while it is being written."""

    def __init__(self, context: Any, builder: ir.IRBuilder) -> None:
        self.context, self.builder = context, builder

    def long(self, number: int) -> Value:
        """An offset."""
        return Value(self, ir.Constant(LONG, number))

    def constant(self, number: float, kind: ir.Type) -> Value:
        """A number, in every lane where `kind` is a vector."""
        if isinstance(kind, ir.VectorType):
            return Value(self, ir.Constant(kind, [number if kind.element == FLOAT else int(number)] * kind.count))
        return Value(self, ir.Constant(kind, number if kind == FLOAT else int(number)))

    def intrinsic(self, name: str, kind: ir.Type) -> ir.Function:
        """LLVM's own function of that name for vectors of floats."""
        return cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(kind, [kind]), f"{name}.v{kind.count}f32")

    @contextmanager
    def loop(self, count: Value, step: int = 1) -> Iterator[Value]:
        """for q in range(0, count, step): the block, with q."""
        ends = Value(self, self.builder.udiv((count + (step - 1)).value, ir.Constant(LONG, step))) if step > 1 else count
        with cgutils.for_range(self.builder, ends.value) as loop:
            yield Value(self, loop.index) * step

    def argument(self, kind: types.Type, value: ir.Value) -> Array | Value:
        """A Numba argument as this layer sees it: arrays as pointers, whole numbers as offsets."""
        if isinstance(kind, types.Array):
            return Array(self, self.context.make_array(kind)(self.context, self.builder, value).data)
        if isinstance(kind, types.Integer):
            widened = self.builder.sext(value, LONG) if value.type.width < 64 else value
            return Value(self, widened)
        return Value(self, value)


def written(kinds: tuple[types.Type, ...], write: Callable[..., Value | None]) -> tuple[Any, Callable[..., ir.Value]]:
    """What an @intrinsic returns: its signature and its code, `write(code, *arguments)`, which returns a float or nothing."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Sequence[ir.Value]) -> ir.Value:
        code = Code(context, builder)
        found = write(code, *(code.argument(kind, value) for kind, value in zip(signature.args, arguments, strict=True)))
        return context.get_dummy_value() if found is None else found.value

    returns = types.float32 if getattr(write, "returns_float", False) else types.void
    return returns(*kinds), generate


def returns_float(write: Callable[..., Value]) -> Callable[..., Value]:
    """Mark code whose result is a float32."""
    write.returns_float = True  # type: ignore[attr-defined]
    return write
