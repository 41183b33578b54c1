"""128- and 256-bit loads and stores for the trilinear kernels, which Numba's own vectoriser does not find.

Neighbours along x lie side by side in memory: one 128-bit load fetches both complex voxels of a projection, one 256-bit update writes
both (re, im, weight, -) voxels of a back-projection.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types
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


def _loop(builder, count, body):
    """for q in range(count): body(q)."""
    with cgutils.for_range(builder, count) as loop:
        body(loop.index)


def _vector_sum(builder, width):
    slot = cgutils.alloca_once(builder, ir.VectorType(_F32, width))
    builder.store(ir.Constant(ir.VectorType(_F32, width), [0.0] * width), slot)
    return slot


def _add_product(builder, slot, left, right):
    builder.store(builder.fadd(builder.load(slot), builder.fmul(left, right, flags=_FAST), flags=_FAST), slot)


def _add_to(context, builder, array_type, array, offset, slot, width):
    """array[offset : offset + width] += the sum."""
    pointer = _pointer(context, builder, array_type, array, offset, width)
    old = builder.load(pointer)
    old.align = 4
    stored = builder.store(builder.fadd(old, builder.load(slot), flags=_FAST), pointer)
    stored.align = 4


def _shuffle(builder, value, mask):
    undefined = ir.Constant(value.type, ir.Undefined)
    return builder.shuffle_vector(value, undefined, ir.Constant(ir.VectorType(_I32, len(mask)), mask))


def _at(builder, index, stride, offset=None):
    place = builder.mul(index, ir.Constant(index.type, stride))
    return place if offset is None else builder.add(place, offset)


@intrinsic
def children_dot(typingctx, re, im, first, xr, xi, start, count, out, place):
    """out[place + 8 j + k] += sum over q of re[first + 8 q + k] xr[start + 4 q + j] + im[...] xi[...]: 8 rotations k by 4 shifts j.

    All arrays are flat float32; one pass keeps the 32 sums in two 512-bit registers.
    """
    signature = types.void(re, im, first, xr, xi, start, count, out, place)

    def codegen(context, builder, signature, args):
        kinds = signature.args
        sums = [_vector_sum(builder, 16) for _ in range(4)]

        def body(q):
            rotations = [_load(context, builder, kinds[n], args[n], _at(builder, q, 8, args[2]), 8) for n in (0, 1)]
            shifts = [_load(context, builder, kinds[n], args[n], _at(builder, q, 4, args[5]), 4) for n in (3, 4)]
            for part in (0, 1):
                wide = _shuffle(builder, rotations[part], list(range(8)) * 2)
                for pair in (0, 1):
                    factors = _shuffle(builder, shifts[part], [2 * pair] * 8 + [2 * pair + 1] * 8)
                    _add_product(builder, sums[2 * part + pair], wide, factors)

        _loop(builder, args[6], body)
        for pair in (0, 1):
            _add_product(builder, sums[pair], builder.load(sums[2 + pair]), _splat(builder, ir.Constant(_F32, 1.0), 16))
            offset = builder.add(args[8], ir.Constant(args[8].type, 16 * pair))
            _add_to(context, builder, kinds[7], args[7], offset, sums[pair], 16)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def weighted_sum8(typingctx, values, weights, start, count, out, place):
    """out[place + k] += sum over q of weights[start + q] values[8 q + k]; flat float32 arrays."""
    signature = types.void(values, weights, start, count, out, place)

    def codegen(context, builder, signature, args):
        kinds = signature.args
        total = _vector_sum(builder, 8)

        def body(q):
            value = _load(context, builder, kinds[0], args[0], _at(builder, q, 8), 8)
            weight = _load(context, builder, kinds[1], args[1], builder.add(q, args[2]), 1)
            _add_product(builder, total, value, _shuffle(builder, weight, [0] * 8))

        _loop(builder, args[3], body)
        _add_to(context, builder, kinds[4], args[4], args[5], total, 8)
        return context.get_dummy_value()

    return signature, codegen


def _pair_dot(blocks):
    """An intrinsic: sums over pixels of two rotations' projections times a particle's shifted images, for 16 `blocks` shifts."""

    def pair_dot(typingctx, work, tile, xr, xi, width, column, count, out, place):
        """out[place + k width + t] += sum over q of re_k[q] xr[q width + column + t] + im_k[q] xi[...] for rotations k = 0, 1.

        All arrays flat float32; re_0, im_0, re_1, im_1 are rows of `tile` floats of `work`. The 4 to 8 sums stay in registers, and both
        rotations share the loads of the images.
        """
        signature = types.void(work, tile, xr, xi, width, column, count, out, place)

        def codegen(context, builder, signature, args):
            kinds = signature.args
            slots = [(k, part, block) for k in (0, 1) for part in (0, 1) for block in range(blocks)]
            sums = {slot: _vector_sum(builder, 16) for slot in slots}
            rows = [builder.mul(args[1], ir.Constant(args[1].type, n)) for n in range(4)]
            extra = [ir.Constant(args[4].type, 16 * block) for block in range(blocks)]

            def body(q):
                start = builder.add(builder.mul(q, args[4]), args[5])
                for part in (0, 1):
                    images = [_load(context, builder, kinds[2 + part], args[2 + part], builder.add(start, offset), 16) for offset in extra]
                    for k in (0, 1):
                        one = _load(context, builder, kinds[0], args[0], builder.add(q, rows[2 * k + part]), 1)
                        wide = _shuffle(builder, one, [0] * 16)
                        for block in range(blocks):
                            _add_product(builder, sums[k, part, block], wide, images[block])

            _loop(builder, args[6], body)
            for k in (0, 1):
                line = args[8] if k == 0 else builder.add(args[8], args[4])
                for block in range(blocks):
                    _add_product(builder, sums[k, 0, block], builder.load(sums[k, 1, block]), _splat(builder, ir.Constant(_F32, 1.0), 16))
                    _add_to(context, builder, kinds[7], args[7], builder.add(line, extra[block]), sums[k, 0, block], 16)
            return context.get_dummy_value()

        return signature, codegen

    return intrinsic(pair_dot)


pair_dot16, pair_dot32 = _pair_dot(1), _pair_dot(2)


@intrinsic
def add_phases(typingctx, table_re, table_im, start, weight, count16, work, re_row, im_row):
    """work[re_row + p] += weight table_re[start + p], likewise im, for 16 count16 pixels p; flat float32 arrays."""
    signature = types.void(table_re, table_im, start, weight, count16, work, re_row, im_row)

    def codegen(context, builder, signature, args):
        kinds = signature.args
        weight = _splat(builder, args[3], 16)

        def body(q):
            here = _at(builder, q, 16)
            for part, row in ((0, args[6]), (1, args[7])):
                value = _load(context, builder, kinds[part], args[part], builder.add(here, args[2]), 16)
                pointer = _pointer(context, builder, kinds[5], args[5], builder.add(here, row), 16)
                _store(builder, builder.fadd(_load_at(builder, pointer), builder.fmul(weight, value, flags=_FAST), flags=_FAST), pointer)

        _loop(builder, args[4], body)
        return context.get_dummy_value()

    return signature, codegen


def _horizontal(builder, slot, width):
    """The sum over a vector's lanes, as a vector of one."""
    value = builder.load(slot)
    while width > 1:
        width //= 2
        low, high = list(range(width)), list(range(width, 2 * width))
        value = builder.fadd(_shuffle(builder, value, low), _shuffle(builder, value, high), flags=_FAST)
    total = cgutils.alloca_once(builder, value.type)
    builder.store(value, total)
    return total


def _load_at(builder, pointer):
    value = builder.load(pointer)
    value.align = 4
    return value


def _store(builder, value, pointer):
    builder.store(value, pointer).align = 4


# Rows of the scratch array of `accumulate_tile`, each as long as a tile.
PROJECTION_RE, PROJECTION_IM, SLICE_RE, SLICE_IM, SLICE_WEIGHT, CROSS, POWER, PHASE_RE, PHASE_IM = range(9)


@intrinsic
def accumulate_tile(typingctx, unmasked, masked, model, image_re, image_im, image_model, inverse, strong, begin, total, count16, work, tile, sums,
                    premultiplied):  # fmt: skip
    """One particle's share in a slice's tile: all arrays flat float32, 16 count16 pixels, work the scratch rows of `tile` floats each.

    With phases p, gain = inverse * model (inverse alone if premultiplied): slice += gain X p, weight += total gain model; with the masked
    image, cross = model Re(conj(A) X p) and power = total model^2 |A|^2 are added to their rows, and summed to sums[0] and sums[1] (where
    flagged strong, to sums[2] and sums[3]).
    """
    signature = types.void(unmasked, masked, model, image_re, image_im, image_model, inverse, strong, begin, total, count16, work, tile, sums,
                           premultiplied)  # fmt: skip

    def codegen(context, builder, signature, args):
        kinds = signature.args
        total = _splat(builder, args[9], 16)
        lanes = [_vector_sum(builder, 16) for _ in range(4)]
        add = lambda x, y: builder.fadd(x, y, flags=_FAST)  # noqa: E731
        sub = lambda x, y: builder.fsub(x, y, flags=_FAST)  # noqa: E731
        mul = lambda x, y: builder.fmul(x, y, flags=_FAST)  # noqa: E731

        def body(q):
            here = _at(builder, q, 16)
            load = lambda n, offset: _load(context, builder, kinds[n], args[n], builder.add(here, offset), 16)  # noqa: E731

            def row(n):
                offset = builder.add(here, builder.mul(args[12], ir.Constant(args[12].type, n)))
                return _pointer(context, builder, kinds[11], args[11], offset, 16)

            def increase(n, value):
                pointer = row(n)
                _store(builder, add(_load_at(builder, pointer), value), pointer)

            phase_re, phase_im = _load_at(builder, row(PHASE_RE)), _load_at(builder, row(PHASE_IM))
            m, inverse = load(2, args[5]), load(6, args[8])
            gain = builder.select(args[14], inverse, mul(inverse, m))
            a, b = load(0, args[3]), load(0, args[4])
            increase(SLICE_RE, mul(gain, sub(mul(a, phase_re), mul(b, phase_im))))
            increase(SLICE_IM, mul(gain, add(mul(a, phase_im), mul(b, phase_re))))
            increase(SLICE_WEIGHT, mul(total, mul(gain, m)))
            c, d = load(1, args[3]), load(1, args[4])
            p_re, p_im = _load_at(builder, row(PROJECTION_RE)), _load_at(builder, row(PROJECTION_IM))
            along = mul(p_re, sub(mul(c, phase_re), mul(d, phase_im)))
            cross = mul(m, add(along, mul(p_im, add(mul(c, phase_im), mul(d, phase_re)))))
            power = mul(total, mul(mul(m, m), add(mul(p_re, p_re), mul(p_im, p_im))))
            flag = load(7, args[8])
            for n, (r, value) in enumerate(((CROSS, cross), (POWER, power))):
                increase(r, value)
                builder.store(add(builder.load(lanes[n]), value), lanes[n])
                builder.store(add(builder.load(lanes[2 + n]), mul(flag, value)), lanes[2 + n])

        _loop(builder, args[10], body)
        for n in range(4):
            _add_to(context, builder, kinds[13], args[13], ir.Constant(ir.IntType(64), n), _horizontal(builder, lanes[n], 16), 1)
        return context.get_dummy_value()

    return signature, codegen
