"""Vectors of 16 numbers, and a register-blocked matrix product, for numba kernels.

numba leaves it to LLVM to turn loops into vector instructions, which it does for simple loops and
gives up on for others. The kernels of convolution are written with explicit vectors instead: a
``Vector`` is 16 float32 (or float64), which LLVM maps to what the processor has (one AVX-512
register, two of AVX, four of NEON). ``gemm_tile`` is the inner loop of a matrix product with its
operands laid out so that it runs near the peak of the processor from any cache-sized block, with no
BLAS call, no thread of its own and no packing.

Everything here works on flat element offsets into C-contiguous arrays and checks no bounds: the
callers own that. Products and sums may be fused into one rounding (``contract``); nothing is ever
reordered, so a lane's result depends only on that lane's numbers.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import llvmlite.binding  # type: ignore[import-untyped]
from llvmlite import ir
from numba import config, types
from numba.extending import intrinsic as numba_intrinsic
from numba.extending import lower_builtin, models, register_model, type_callable

LANES = 16  # numbers in a Vector
intrinsic: Callable[..., Callable[..., Any]] = numba_intrinsic  # in numba's types callers owe ``typing``, too


def _tile() -> tuple[int, int]:
    """Rows, and Vectors in a row, of the largest tile of sums that stays in registers (float32)."""
    asked_for = config.CPU_FEATURES  # type: ignore[attr-defined]  # NUMBA_CPU_FEATURES
    if asked_for is not None:
        has_512_bits = "+avx512f" in asked_for
    else:
        try:
            has_512_bits = llvmlite.binding.get_host_cpu_features().get("avx512f", False)
        except RuntimeError:  # LLVM cannot tell on this processor
            has_512_bits = False
    return (8, 2) if has_512_bits else (6, 1)


ROWS, WIDTH = _tile()
PANEL = WIDTH * LANES  # columns of a full tile


class Vector(types.Type):
    """The numba type of ``LANES`` numbers of type ``scalar`` (numba's float32 or float64)."""

    def __init__(self, scalar: Any) -> None:
        self.scalar = scalar
        super().__init__(name=f"Vector({scalar})")


def _llvm_type(scalar: Any) -> ir.VectorType:
    return ir.VectorType(ir.FloatType() if scalar == types.float32 else ir.DoubleType(), LANES)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Vector) -> None:
        super().__init__(manager, numba_type, _llvm_type(numba_type.scalar))


# ---- memory


def _address(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [offset])


def _load(builder: Any, vector: ir.VectorType, address: Any, step: int = 0) -> Any:
    """The vector ``step`` elements after ``address``, which need not be aligned."""
    if step:
        address = builder.gep(address, [_int(step)])
    loaded = builder.load(builder.bitcast(address, vector.as_pointer()))
    loaded.align = _bytes(vector)
    return loaded


def _store(builder: Any, vector: ir.VectorType, value: Any, address: Any, step: int = 0) -> None:
    if step:
        address = builder.gep(address, [_int(step)])
    builder.store(value, builder.bitcast(address, vector.as_pointer())).align = _bytes(vector)


def _bytes(vector: ir.VectorType) -> int:
    return 4 if vector.element == ir.FloatType() else 8


def _int(value: int) -> ir.Constant:
    return ir.Constant(ir.IntType(64), value)


def _shuffle(builder: Any, a: Any, b: Any, picks: list[int]) -> Any:
    """The numbers of ``a`` followed by ``b`` at the positions ``picks``."""
    i32 = ir.IntType(32)
    mask = ir.Constant(ir.VectorType(i32, len(picks)), [ir.Constant(i32, p) for p in picks])
    return builder.shuffle_vector(a, b, mask)


@intrinsic
def load(typing: Any, array: Any, offset: Any) -> Any:
    """``load(array, offset)``: the Vector ``array.ravel()[offset : offset + LANES]``."""
    vector = Vector(array.dtype)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _load(builder, _llvm_type(vector.scalar), _address(context, builder, array, args[0], args[1]))

    return vector(array, types.intp), generate


@intrinsic
def zeros(typing: Any, array: Any) -> Any:
    """``zeros(array)``: a Vector of zeros of its dtype."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = _llvm_type(array.dtype)
        return ir.Constant(kind, [ir.Constant(kind.element, 0.0)] * LANES)

    return Vector(array.dtype)(array), generate


@intrinsic
def store(typing: Any, array: Any, offset: Any, value: Any) -> Any:
    """``store(array, offset, vector)``: write it to ``array.ravel()[offset : offset + LANES]``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = _address(context, builder, array, args[0], args[1])
        _store(builder, _llvm_type(array.dtype), args[2], address)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@intrinsic
def load_every_4th(typing: Any, array: Any, offset: Any) -> Any:
    """``load_every_4th(array, offset)``: four Vectors, the k-th of them elements offset + 4 i + k."""
    vector = Vector(array.dtype)
    result = types.UniTuple(vector, 4)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = _llvm_type(vector.scalar)
        address = _address(context, builder, array, args[0], args[1])
        a, b, c, d = (_load(builder, kind, address, LANES * i) for i in range(4))
        half = LANES // 4
        quarters = []
        for k in range(4):
            picks = [4 * i + k for i in range(2 * half)]
            low, high = _shuffle(builder, a, b, picks), _shuffle(builder, c, d, picks)
            quarters.append(_shuffle(builder, low, high, list(range(LANES))))
        return context.make_tuple(builder, result, quarters)

    return result(array, types.intp), generate


@intrinsic
def load_every_2nd(typing: Any, array: Any, offset: Any) -> Any:
    """``load_every_2nd(array, offset)``: the Vector of elements offset + 2 i."""
    vector = Vector(array.dtype)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = _llvm_type(vector.scalar)
        address = _address(context, builder, array, args[0], args[1])
        low, high = _load(builder, kind, address), _load(builder, kind, address, LANES)
        return _shuffle(builder, low, high, [2 * i for i in range(LANES)])

    return vector(array, types.intp), generate


@intrinsic
def store_every_4th(typing: Any, array: Any, offset: Any, v0: Any, v1: Any, v2: Any, v3: Any) -> Any:
    """Write four Vectors so that element offset + 4 i + k is number i of Vector k."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = _llvm_type(array.dtype)
        address = _address(context, builder, array, args[0], args[1])
        pairs = [p for i in range(LANES) for p in (i, LANES + i)]
        even = _shuffle(builder, args[2], args[4], pairs)  # v0 and v2, alternating
        odd = _shuffle(builder, args[3], args[5], pairs)
        for part in range(4):
            first = part * LANES // 2
            picks = [p for i in range(first, first + LANES // 2) for p in (i, 2 * LANES + i)]
            _store(builder, kind, _shuffle(builder, even, odd, picks), address, part * LANES)
        return context.get_dummy_value()

    return types.void(array, types.intp, v0, v1, v2, v3), generate


@intrinsic
def transpose_tile(typing: Any, source: Any, first: Any, step: Any, target: Any, start: Any, stride: Any) -> Any:
    """Transpose LANES x LANES numbers: element (i, j) is ``source[first + i * step + j]`` and goes to
    ``target[start + j * stride + i]`` (flat offsets)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = _llvm_type(source.dtype)
        where = _address(context, builder, source, args[0], args[1])
        to = _address(context, builder, target, args[3], args[4])
        rows = [_load(builder, kind, builder.gep(where, [builder.mul(args[2], _int(i))])) for i in range(LANES)]
        half = LANES // 2
        low = [p for i in range(half) for p in (i, LANES + i)]
        high = [p + half for p in low]
        for _ in range(LANES.bit_length() - 1):  # each round interleaves row i with row i + half
            rows = [_shuffle(builder, rows[i], rows[i + half], picks) for i in range(half) for picks in (low, high)]
        for j, row in enumerate(rows):
            _store(builder, kind, row, builder.gep(to, [builder.mul(args[5], _int(j))]))
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, target, types.intp, types.intp), generate


# ---- arithmetic: Vector + Vector, Vector - Vector, number * Vector, Vector + number


def _splat(builder: Any, kind: ir.VectorType, number: Any) -> Any:
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    return _shuffle(builder, one, one, [0] * LANES)


def _arithmetic(symbol: Any, instruction: str) -> None:
    @type_callable(symbol)
    def type_of(context: Any) -> Any:
        def typer(a: Any, b: Any) -> Any:
            if isinstance(a, Vector) and (a == b or isinstance(b, types.Number)):
                return a
            return b if isinstance(b, Vector) and isinstance(a, types.Number) else None

        return typer

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = signature.return_type
        kind = _llvm_type(vector.scalar)
        operands = []
        for value, given in zip(args, signature.args, strict=True):
            if not isinstance(given, Vector):
                value = _splat(builder, kind, context.cast(builder, value, given, vector.scalar))
            operands.append(value)
        return getattr(builder, instruction)(*operands, flags=("contract",))

    for kinds in (Vector, Vector), (Vector, types.Number), (types.Number, Vector):
        lower_builtin(symbol, *kinds)(generate)


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")


@intrinsic
def relu(typing: Any, value: Any) -> Any:
    """0 where the Vector is below 0, else its number: a NaN stays one, as in Caffe."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = _llvm_type(value.scalar)
        zero = ir.Constant(kind, [ir.Constant(kind.element, 0.0)] * LANES)
        return builder.select(builder.fcmp_ordered("<", args[0], zero), zero, args[0])

    return value(value), generate


@intrinsic
def larger(typing: Any, value: Any, best: Any, number: Any, which: Any) -> Any:
    """``larger(value, best, number, which)``: Vectors (best, which), but (value, number) where value > best."""
    result = types.UniTuple(value, 2)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = _llvm_type(value.scalar)
        greater = builder.fcmp_ordered(">", args[0], args[1])
        here = _splat(builder, kind, context.cast(builder, args[2], number, value.scalar))
        chosen = builder.select(greater, args[0], args[1]), builder.select(greater, here, args[3])
        return context.make_tuple(builder, result, chosen)

    return result(value, best, number, which), generate


@intrinsic
def store_places(typing: Any, places: Any, offset: Any, which: Any, start: Any, step: Any) -> Any:
    """``places[offset + i] = start + i * step + which[i]`` (int32) for the lanes i, -1 where which[i] < 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        i32 = ir.IntType(32)
        lanes = ir.VectorType(i32, LANES)
        kind = _llvm_type(which.scalar)
        start_at, step_by = (_splat(builder, lanes, builder.trunc(args[i], i32)) for i in (3, 4))
        number = ir.Constant(lanes, [ir.Constant(i32, i) for i in range(LANES)])
        place = builder.add(start_at, builder.mul(step_by, number))
        place = builder.add(place, builder.fptosi(args[2], lanes))
        zero = ir.Constant(kind, [ir.Constant(kind.element, 0.0)] * LANES)
        none = ir.Constant(lanes, [ir.Constant(i32, -1)] * LANES)
        place = builder.select(builder.fcmp_ordered("<", args[2], zero), none, place)
        address = _address(context, builder, places, args[0], args[1])
        builder.store(place, builder.bitcast(address, lanes.as_pointer())).align = 4
        return context.get_dummy_value()

    return types.void(places, types.intp, which, types.intp, types.intp), generate


@intrinsic
def keep(typing: Any, value: Any, low: Any, high: Any) -> Any:
    """Numbers low <= i < high of the Vector, 0 elsewhere."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = _llvm_type(value.scalar)
        lanes = ir.VectorType(ir.IntType(64), LANES)
        number = ir.Constant(lanes, [_int(i) for i in range(LANES)])
        from_low = builder.icmp_signed(">=", number, _splat(builder, lanes, args[1]))
        below_high = builder.icmp_signed("<", number, _splat(builder, lanes, args[2]))
        zero = ir.Constant(kind, [ir.Constant(kind.element, 0.0)] * LANES)
        return builder.select(builder.and_(from_low, below_high), args[0], zero)

    return value(value, types.intp, types.intp), generate


# ---- the matrix product


def _make_gemm_tile(rows: int, width: int) -> Any:
    @intrinsic
    def gemm_tile(
        typing: Any, a: Any, a0: Any, a_step: Any, b: Any, b0: Any, b_step: Any, c: Any, c0: Any, c_step: Any,
        n: Any, add: Any,
    ) -> Any:  # fmt: skip
        """c[c0 + i * c_step + j] (+)= sum over k < n of a[a0 + k * a_step + i] * b[b0 + k * b_step + j]

        for ``rows`` rows i and ``width * LANES`` columns j; the sum runs over k in order. ``n >= 1``;
        ``add``: add to c instead of overwriting it.
        """

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = _llvm_type(a.dtype)
            a_at = _address(context, builder, a, args[0], args[1])
            b_at = _address(context, builder, b, args[3], args[4])
            c_at = _address(context, builder, c, args[6], args[7])
            sums = _sum_loop(builder, kind, rows, width, a_at, args[2], b_at, args[5], args[9])
            with builder.if_else(args[10]) as (adding, writing):
                for block, also in (adding, True), (writing, False):
                    with block:
                        for i in range(rows):
                            row = builder.gep(c_at, [builder.mul(args[8], _int(i))])
                            for j in range(width):
                                total = sums[i * width + j]
                                if also:
                                    total = builder.fadd(_load(builder, kind, row, j * LANES), total)
                                _store(builder, kind, total, row, j * LANES)
            return context.get_dummy_value()

        number = types.intp
        arguments = (a, number, number, b, number, number, c, number, number, number, types.boolean)
        return types.void(*arguments), generate

    return gemm_tile


def _sum_loop(
    builder: Any, kind: Any, rows: int, width: int, a_at: Any, a_step: Any, b_at: Any, b_step: Any, n: Any
) -> list[Any]:
    """The loop over k with all sums in registers; leaves the builder behind it."""
    before = builder.block
    loop, after = builder.append_basic_block("sum"), builder.append_basic_block("summed")
    builder.branch(loop)
    builder.position_at_end(loop)
    k = builder.phi(ir.IntType(64))
    k.add_incoming(_int(0), before)
    zero = ir.Constant(kind, [ir.Constant(kind.element, 0.0)] * LANES)
    sums = [builder.phi(kind) for _ in range(rows * width)]
    a_row, b_row = builder.gep(a_at, [builder.mul(k, a_step)]), builder.gep(b_at, [builder.mul(k, b_step)])
    columns = [_load(builder, kind, b_row, j * LANES) for j in range(width)]
    totals = []
    for i in range(rows):
        factor = _splat(builder, kind, builder.load(builder.gep(a_row, [_int(i)])))
        for j in range(width):
            product = builder.fmul(factor, columns[j], flags=("contract",))
            totals.append(builder.fadd(product, sums[i * width + j], flags=("contract",)))
    following = builder.add(k, _int(1))
    k.add_incoming(following, loop)
    for old, new in zip(sums, totals, strict=True):
        old.add_incoming(zero, before)
        old.add_incoming(new, loop)
    builder.cbranch(builder.icmp_signed("<", following, n), loop, after)
    builder.position_at_end(after)
    return totals


gemm_tile = _make_gemm_tile(ROWS, WIDTH)  # ROWS x PANEL
gemm_edge = gemm_tile if WIDTH == 1 else _make_gemm_tile(ROWS, 1)  # ROWS x LANES
