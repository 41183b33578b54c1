"""The inner loops of the CPU kernels, written as vector code.

Eight lanes at a time suit processors with and without AVX-512. Neighbours along x lie side by side in memory: one 128-bit load fetches both
complex voxels of a projection, one 256-bit update writes both (re, im, weight, -) voxels of a back-projection.
"""

from __future__ import annotations

from numba.extending import intrinsic

from aurefine.kernels._emit import FLOAT, Array, Code, Sum, Value, returns_float, written

LANES = 8
# Rows of the table that `locate` fills: fractions of a voxel along x, y, z, and the Friedel sign (0 outside the sphere).
FRACTION_X, FRACTION_Y, FRACTION_Z, SIGN, LOCATED_ROWS = range(5)


def _strides(half: Value) -> tuple[Value, Value]:
    """Floats from a voxel to its neighbours along y and z, two a voxel."""
    along_y = (half + 1) * 2
    return along_y, along_y * (half * 2 + 1)


# ---------------------------------------------------------------------- projection
@intrinsic
def locate(typingctx, slices, row, x, y, begin, count, limit, half, index, located, tile):
    """Where `count` pixels from `begin` on of a slice lie: index int32 (floats from the volume's start) and the rows of `located`.

    slices flat [n, 3, 2]; x, y float32 frequencies; limit: squared radius in voxels; tile: length of a row. Whole vectors are read and written.
    """
    return written((slices, row, x, y, begin, count, limit, half, index, located, tile), _locate)


def _locate(code: Code, slices, row, x, y, begin, count, limit, half, index, located, tile) -> None:
    matrix = [slices.at(row * 6 + k).spread(LANES) for k in range(6)]
    along_y, along_z = _strides(half)
    narrow = lambda offset: Value(code, code.builder.trunc(offset.value, index.pointer.type.pointee)).repeated(LANES)  # noqa: E731
    step_y, step_z, centre = narrow(along_y), narrow(along_z), narrow(half * (along_y + along_z))
    radius = limit.repeated(LANES)
    with code.loop(count, LANES) as q:
        u, v = x.at(begin + q).load(LANES), y.at(begin + q).load(LANES)
        place = [matrix[2 * axis] * u + matrix[2 * axis + 1] * v for axis in range(3)]
        one, zero = code.constant(1.0, u.value.type), code.constant(0.0, u.value.type)
        inside = (place[0] * place[0] + place[1] * place[1] + place[2] * place[2]).compare("<=", radius)
        sign = inside.choose(place[0].compare(">=", 0.0).choose(one, zero - one), zero)
        place = [inside.choose(along * sign, zero) for along in place]
        low = [along.floor() for along in place]
        whole = [along.as_int() for along in low]
        index.at(q).store(whole[2] * step_z + whole[1] * step_y + whole[0] * 2 + centre)
        for axis in range(3):
            located.at(tile * axis + q).store(place[axis] - low[axis])
        located.at(tile * SIGN + q).store(sign)


@intrinsic
def gather(typingctx, volume, half, count, index, located, tile, out, real, imaginary):
    """Interpolate located pixels: out[real + q], out[imaginary + q]. volume flat float32; whole vectors are written."""
    return written((volume, half, count, index, located, tile, out, real, imaginary), _gather)


def _gather(code: Code, volume, half, count, index, located, tile, out, real, imaginary) -> None:
    along_y, along_z = _strides(half)
    corners = [volume, volume.at(along_y), volume.at(along_z), volume.at(along_y + along_z)]
    with code.loop(count, 4) as q:
        pixels = [_one_pixel(code, corners, index, located, tile, q + k) for k in range(4)]
        pairs = [pixels[0].shuffle([0, 4, 1, 5], pixels[1]), pixels[2].shuffle([0, 4, 1, 5], pixels[3])]
        re, im = pairs[0].shuffle([0, 1, 4, 5], pairs[1]), pairs[0].shuffle([2, 3, 6, 7], pairs[1])
        sign = located.at(tile * SIGN + q).load(4)
        out.at(real + q).store(re * (sign * sign))
        out.at(imaginary + q).store(im * sign)


def _one_pixel(code: Code, corners: list[Array], index: Array, located: Array, tile: Value, q: Value) -> Value:
    """Four lanes, of which the first two are (re, im)."""
    place = Value(code, code.builder.sext(index.at(q).load().value, q.value.type))
    v = [corner.at(place).load(4) for corner in corners]
    along_x, along_y, along_z = (located.at(tile * axis + q).spread(4) for axis in range(3))
    near, far = v[0] + along_y * (v[1] - v[0]), v[2] + along_y * (v[3] - v[2])
    value = near + along_z * (far - near)
    return value + along_x * (value.shuffle([2, 3, 2, 3]) - value)


@intrinsic
def weighted_power(typingctx, work, real, imaginary, weights, start, count):
    """The sum of weights[start + q] (re^2 + im^2) over q, of parts at work[real + q] and work[imaginary + q]."""
    return written((work, real, imaginary, weights, start, count), _weighted_power)


@returns_float
def _weighted_power(code: Code, work, real, imaginary, weights, start, count) -> Value:
    total = Sum(code, LANES)
    with code.loop(count, LANES) as q:
        re, im = work.at(real + q).load(LANES), work.at(imaginary + q).load(LANES)
        total.add(weights.at(start + q).load(LANES) * (re * re + im * im))
    return total.value.total()


# ---------------------------------------------------------------------- scores
ROTATIONS = 4  # rotations whose sums are kept in registers together


def _dot(blocks: int):
    """An intrinsic: products of ROTATIONS projections with a particle's shifted images, for LANES * `blocks` shifts."""

    def write(code: Code, work, tile, xr, xi, width, column, count, out, place) -> None:
        sums = [[Sum(code, LANES) for _ in range(blocks)] for _ in range(ROTATIONS)]
        with code.loop(count) as q:
            for part, images in enumerate((xr, xi)):
                shifted = [images.at(q * width + column + LANES * b).load(LANES) for b in range(blocks)]
                for k, row in enumerate(sums):
                    projection = work.at(tile * (2 * k + part) + q).spread(LANES)
                    for total, values in zip(row, shifted, strict=True):
                        total.add(projection * values)
        for k, row in enumerate(sums):
            for b, total in enumerate(row):
                out.at(place + width * k + LANES * b).add(total.value)

    def dot(typingctx, work, tile, xr, xi, width, column, count, out, place):
        """out[place + k width + t] += sum over q of re_k[q] xr[q width + column + t] + im_k[q] xi[...] for each rotation k.

        re_0, im_0, re_1, ... are rows of `tile` floats of `work`.
        """
        return written((work, tile, xr, xi, width, column, count, out, place), write)

    return intrinsic(dot)


dot8, dot16, dot24 = _dot(1), _dot(2), _dot(3)


@intrinsic
def interleave8(typingctx, work, tile, count, out_re, out_im, out_square):
    """out_re[8 q + k] = re_k[q], likewise im, and re^2 + im^2, of eight projections re_0, im_0, re_1, ..., rows of `tile` floats of `work`."""
    return written((work, tile, count, out_re, out_im, out_square), _interleave8)


def _interleave8(code: Code, work, tile, count, out_re, out_im, out_square) -> None:
    with code.loop(count, LANES) as q:
        parts = [_transposed([work.at(tile * (2 * k + part) + q).load(LANES) for k in range(8)]) for part in (0, 1)]
        for line, (re, im) in enumerate(zip(*parts, strict=True)):
            place = (q + line) * 8
            out_re.at(place).store(re)
            out_im.at(place).store(im)
            out_square.at(place).store(re * re + im * im)


def _transposed(rows: list[Value]) -> list[Value]:
    """Eight vectors of eight lanes, lanes and vectors exchanged: neighbours one, two and four apart change places in turn."""
    for step in (1, 2, 4):
        low = [lane if not lane & step else lane - step + 8 for lane in range(8)]
        high = [lane + step if not lane & step else lane + 8 for lane in range(8)]
        pairs = {k: (rows[k].shuffle(low, rows[k + step]), rows[k].shuffle(high, rows[k + step])) for k in range(8) if not k & step}
        rows = [pairs[k][0] if not k & step else pairs[k - step][1] for k in range(8)]
    return rows


@intrinsic
def shift_tile(typingctx, images, real, imaginary, table_re, table_im, start, count, out_re, out_im, place):
    """out[place + q] = (images[real + q] + i images[imaginary + q]) table[start + q]: an image, moved."""
    return written((images, real, imaginary, table_re, table_im, start, count, out_re, out_im, place), _shift_tile)


def _shift_tile(code: Code, images, real, imaginary, table_re, table_im, start, count, out_re, out_im, place) -> None:
    with code.loop(count, LANES) as q:
        re, im = images.at(real + q).load(LANES), images.at(imaginary + q).load(LANES)
        cosine, sine = table_re.at(start + q).load(LANES), table_im.at(start + q).load(LANES)
        out_re.at(place + q).store(re * cosine - im * sine)
        out_im.at(place + q).store(re * sine + im * cosine)


@intrinsic
def children_dot(typingctx, re, im, xr, xi, tile, count, out, place):
    """out[place + 8 j + k] += sum over q of re[8 q + k] xr[j tile + q] + im[...] xi[...]: 8 rotations k by 4 shifts j."""
    return written((re, im, xr, xi, tile, count, out, place), _children_dot)


def _children_dot(code: Code, re, im, xr, xi, tile, count, out, place) -> None:
    sums = [[Sum(code, 8) for _ in range(4)] for _ in range(2)]
    rows = [(row, rotations, [shifts.at(tile * j) for j in range(4)]) for row, rotations, shifts in ((sums[0], re, xr), (sums[1], im, xi))]
    with code.loop(count) as q:
        for row, rotations, shifts in rows:
            projections = rotations.at(q * 8).load(8)
            for total, values in zip(row, shifts, strict=True):
                total.add(projections * values.at(q).spread(8))
    for j in range(4):
        out.at(place + 8 * j).add(sums[0][j].value + sums[1][j].value)


@intrinsic
def weighted_sum8(typingctx, values, weights, start, count, out, place):
    """out[place + k] += sum over q of weights[start + q] values[8 q + k]."""
    return written((values, weights, start, count, out, place), _weighted_sum8)


def _weighted_sum8(code: Code, values, weights, start, count, out, place) -> None:
    sums = [Sum(code, 8) for _ in range(4)]  # as many as hide the latency of an addition; what is left over goes to the first
    whole = Value(code, code.builder.udiv(count.value, code.long(4).value))
    with code.loop(whole) as block:
        for k, total in enumerate(sums):
            q = block * 4 + k
            total.add(values.at(q * 8).load(8) * weights.at(start + q).spread(8))
    with code.loop(count - whole * 4) as rest:
        q = whole * 4 + rest
        sums[0].add(values.at(q * 8).load(8) * weights.at(start + q).spread(8))
    out.at(place).add(sums[0].value + sums[1].value + (sums[2].value + sums[3].value))


# ---------------------------------------------------------------------- sums
# Rows of the scratch table of the sums, each as long as a tile.
PROJECTION_RE, PROJECTION_IM, SLICE_RE, SLICE_IM, SLICE_WEIGHT, CROSS, POWER, PHASE_RE, PHASE_IM, SUM_ROWS = range(10)


@intrinsic
def add_phases(typingctx, table_re, table_im, start, weight, count, work, tile, first):
    """The phase rows of `work` += weight table[start + q] (= instead of += if `first`)."""
    return written((table_re, table_im, start, weight, count, work, tile, first), _add_phases)


def _add_phases(code: Code, table_re, table_im, start, weight, count, work, tile, first) -> None:
    factor = weight.repeated(LANES)
    keep = Value(code, code.builder.select(first.value, code.constant(0.0, FLOAT).value, code.constant(1.0, FLOAT).value)).repeated(LANES)
    with code.loop(count, LANES) as q:
        for table, row in ((table_re, PHASE_RE), (table_im, PHASE_IM)):
            target = work.at(tile * row + q)
            target.store(target.load(LANES) * keep + factor * table.at(start + q).load(LANES))


@intrinsic
def accumulate_tile(typingctx, unmasked, masked, model, image_re, image_im, image_model, inverse, strong, begin, total, count, work, tile, sums,
                    premultiplied):  # fmt: skip
    """One particle's share in a slice's tile of `count` pixels.

    With phases p, gain = inverse * model (inverse alone if premultiplied): slice += gain X p, weight += total gain model; with the masked
    image, cross = model Re(conj(A) X p) and power = total model^2 |A|^2 are added to their rows, and summed to sums[0] and sums[1] (where
    flagged strong, to sums[2] and sums[3]).
    """
    kinds = (unmasked, masked, model, image_re, image_im, image_model, inverse, strong, begin, total, count, work, tile, sums, premultiplied)
    return written(kinds, _accumulate_tile)


def _accumulate_tile(code: Code, unmasked, masked, model, image_re, image_im, image_model, inverse, strong, begin, total, count, work, tile, sums,
                     premultiplied) -> None:  # fmt: skip
    lanes = [Sum(code, LANES) for _ in range(4)]
    mass = total.repeated(LANES)
    with code.loop(count, LANES) as q:
        row = lambda n, q=q: work.at(tile * n + q)  # noqa: E731
        phase_re, phase_im = row(PHASE_RE).load(LANES), row(PHASE_IM).load(LANES)
        factor, noise = model.at(image_model + q).load(LANES), inverse.at(begin + q).load(LANES)
        gain = Value(code, code.builder.select(premultiplied.value, noise.value, (noise * factor).value))
        re, im = unmasked.at(image_re + q).load(LANES), unmasked.at(image_im + q).load(LANES)
        row(SLICE_RE).add(gain * (re * phase_re - im * phase_im))
        row(SLICE_IM).add(gain * (re * phase_im + im * phase_re))
        row(SLICE_WEIGHT).add(mass * gain * factor)
        re, im = masked.at(image_re + q).load(LANES), masked.at(image_im + q).load(LANES)
        a, b = row(PROJECTION_RE).load(LANES), row(PROJECTION_IM).load(LANES)
        cross = factor * (a * (re * phase_re - im * phase_im) + b * (re * phase_im + im * phase_re))
        power = mass * (factor * factor) * (a * a + b * b)
        flag = strong.at(begin + q).load(LANES)
        for n, value in ((0, cross), (1, power)):
            row(CROSS + n).add(value)
            lanes[n].add(value)
            lanes[2 + n].add(flag * value)
    for n, lane in enumerate(lanes):
        sums.at(n).add(lane.value.total())


@intrinsic
def fetch(typingctx, out, half, count, index):
    """Have the voxels of located pixels brought near before `insert` meets them: they come from the memory while the pixels are summed."""
    return written((out, half, count, index), _fetch)


def _fetch(code: Code, out, half, count, index) -> None:
    along_y, along_z = (stride * 2 for stride in _strides(half))
    with code.loop(count) as q:
        place = out.at(Value(code, code.builder.sext(index.at(q).load().value, q.value.type)) * 2)
        for target in (place, place.at(along_y), place.at(along_z), place.at(along_y + along_z)):
            target.prefetch()


@intrinsic
def insert(typingctx, out, half, begin, count, step, index, located, tile, work):
    """Add located pixels begin, begin + step, ... of a slice (its rows of `work`) to an accumulator, flat float32 with four numbers a voxel.

    Neighbouring pixels share voxels; `step` keeps an update from waiting for the one just before it. Pixels of weight 0 must have sign 0.
    """
    return written((out, half, begin, count, step, index, located, tile, work), _insert)


def _insert(code: Code, out, half, begin, count, step, index, located, tile, work) -> None:
    along_y, along_z = (stride * 2 for stride in _strides(half))
    builder = code.builder
    with code.loop(Value(code, builder.udiv((count - begin + (step - 1)).value, step.value))) as n:
        q = begin + n * step
        weight, sign = work.at(tile * SLICE_WEIGHT + q).load(), located.at(tile * SIGN + q).load()
        used = builder.and_(weight.compare(">", 0.0).value, sign.compare("!=", 0.0).value)
        with builder.if_then(used):
            place = Value(code, builder.sext(index.at(q).load().value, q.value.type)) * 2
            x, y, z = (located.at(tile * axis + q).load() for axis in range(3))
            one = code.constant(1.0, FLOAT)
            value = code.constant(0.0, FLOAT).repeated(4)
            for lane, part in enumerate((work.at(tile * SLICE_RE + q).load(), work.at(tile * SLICE_IM + q).load() * sign, weight)):
                value = Value(code, builder.insert_element(value.value, part.value, code.constant(lane, index.pointer.type.pointee).value))
            twice = value.shuffle([0, 1, 2, 3] * 2) * (one - x).repeated(4).shuffle(range(8), x.repeated(4))
            for corner in range(4):
                share = (y if corner & 1 else one - y) * (z if corner & 2 else one - z)
                target = out.at(place)
                target = target.at(along_y) if corner & 1 else target
                target = target.at(along_z) if corner & 2 else target
                target.add(twice * share.repeated(8))
