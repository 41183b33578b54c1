"""128- and 256-bit loads and stores for the trilinear kernels, which Numba's own vectoriser does not find.

Neighbours along x lie side by side in memory: one 128-bit load fetches both complex voxels of a projection, one 256-bit update writes
both (re, im, weight, -) voxels of a back-projection.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

_F32 = ir.FloatType()
_I32 = ir.IntType(32)
_FAST = ("fast",)


def _pointer(context, builder, array_type, array, offset, width):
    base = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(base, [offset]), ir.VectorType(_F32, width).as_pointer())


def _load(context, builder, array_type, array, offset, width):
    value = builder.load(_pointer(context, builder, array_type, array, offset, width))
    value.align = 4
    return value


def _splat(builder, scalar, width):
    undefined = ir.Constant(ir.VectorType(_F32, width), ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(_I32, width), [0] * width))


def _lerp(builder, low, high, fraction):
    return builder.fadd(low, builder.fmul(fraction, builder.fsub(high, low, flags=_FAST), flags=_FAST), flags=_FAST)


@intrinsic
def interpolate(typingctx, volume, i00, i01, i10, i11, fx, fy, fz):
    """(re, im) interpolated between 8 voxels; volume is a flat float32 array, i?? the offsets of the four (z, y) corners, f? the fractions."""
    signature = types.UniTuple(types.float32, 2)(volume, i00, i01, i10, i11, fx, fy, fz)

    def codegen(context, builder, signature, args):
        corners = [_load(context, builder, signature.args[0], args[0], offset, 4) for offset in args[1:5]]
        along_y = _splat(builder, args[6], 4)
        low, high = _lerp(builder, corners[0], corners[1], along_y), _lerp(builder, corners[2], corners[3], along_y)
        both = _lerp(builder, low, high, _splat(builder, args[7], 4))
        undefined = ir.Constant(ir.VectorType(_F32, 4), ir.Undefined)
        pair = ir.VectorType(_I32, 2)
        left = builder.shuffle_vector(both, undefined, ir.Constant(pair, [0, 1]))
        right = builder.shuffle_vector(both, undefined, ir.Constant(pair, [2, 3]))
        value = _lerp(builder, left, right, _splat(builder, args[5], 2))
        parts = [builder.extract_element(value, ir.Constant(_I32, k)) for k in (0, 1)]
        return context.make_tuple(builder, signature.return_type, parts)

    return signature, codegen


@intrinsic
def add_pair(typingctx, volume, offset, re, im, weight, w_left, w_right):
    """volume[offset : offset + 8] += [w_left * (re, im, weight, 0), w_right * (re, im, weight, 0)]; volume is a flat float32 array."""
    signature = types.void(volume, offset, re, im, weight, w_left, w_right)

    def codegen(context, builder, signature, args):
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1], 8)
        old = builder.load(pointer)
        old.align = 4
        value = ir.Constant(ir.VectorType(_F32, 4), [0.0, 0.0, 0.0, 0.0])
        for k, part in enumerate(args[2:5]):
            value = builder.insert_element(value, part, ir.Constant(_I32, k))
        eight = ir.VectorType(_I32, 8)
        undefined = ir.Constant(ir.VectorType(_F32, 4), ir.Undefined)
        twice = builder.shuffle_vector(value, undefined, ir.Constant(eight, [0, 1, 2, 3] * 2))
        left, right = _splat(builder, args[5], 4), _splat(builder, args[6], 4)
        factors = builder.shuffle_vector(left, right, ir.Constant(eight, [0, 1, 2, 3, 4, 5, 6, 7]))
        stored = builder.store(builder.fadd(old, builder.fmul(twice, factors, flags=_FAST), flags=_FAST), pointer)
        stored.align = 4
        return context.get_dummy_value()

    return signature, codegen
