"""What layers that apply one function to every element have in common.

``NeuronLayer`` is their base class; ``InputCopy`` lets those whose gradient needs x run in place;
``in_pieces`` is for expressions of several steps. ``exp`` and ``log1p`` are for numba kernels: plain
arithmetic in float32, which LLVM turns into vector instructions, where ``math.exp`` would be a call for
each element (10 to 15 times slower). A kernel that divides needs ``error_model="numpy"``, or the
check for a zero divisor undoes the gain.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.extending import overload

from caffe_lite.blob import Blob
from caffe_lite.device import Device
from caffe_lite.layer import Array, Blobs, Layer
from caffe_lite.parallel import elementwise


class NeuronLayer(Layer):
    """One bottom, one top of the same shape, which may be the bottom itself.

    On the CPU large arrays are cut into a stretch for each thread: ``caffe_lite.parallel``.
    """

    exact_bottoms, exact_tops = 1, 1
    in_place = True

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape(bottom[0].shape)


class InputCopy:
    """x for the backward pass, also where forward writes y over it: then, and only then, a copy."""

    def __init__(self, layer: Layer) -> None:
        self._copy = Blob((), layer.dtype, layer.device)

    def keep(self, bottom: Blobs, top: Blobs) -> None:
        """To be called by forward before it writes."""
        if top[0] is bottom[0]:
            self._copy.reshape(bottom[0].shape)
            self._copy.data[...] = bottom[0].data

    def of(self, bottom: Blobs, top: Blobs) -> Array:
        """The array that the last forward read."""
        return self._copy.data if top[0] is bottom[0] else bottom[0].data


PIECE = 1 << 18  # bytes: a few of them fit the second-level cache of a CPU core


def in_pieces(device: Device, expression: Callable[..., Any], *arrays: Array) -> None:
    """``expression`` of equally large arrays, called with flat views that are all cut at the same places.

    On the CPU they are so short that whatever an expression leaves between its steps stays in the
    cache, and needs no memory of the size of a blob; all threads take part. On a GPU there is one piece.
    Divisions by zero and overflows pass silently, as in C.
    """
    step = max(arrays[0].size, 1) if device.is_gpu else PIECE // arrays[0].itemsize

    def stretch(*flat: Array) -> None:
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):  # a setting of each thread's own
            for start in range(0, flat[0].size, step):
                expression(*(array[start : start + step] for array in flat))

    if device.is_gpu:
        stretch(*(array.reshape(-1) for array in arrays))
    else:
        elementwise(stretch, *arrays)


def affine(x: Array, scale: Any, shift: Any) -> Array:
    """scale x + shift, a new array; ``x`` itself where that changes nothing."""
    if scale != 1:
        x = x * scale
    return x if shift == 0 else x + shift


def sign(xp: Any, x: Array, out: Array) -> None:
    """out = -1, 0 or 1, and a NaN for a NaN, where CuPy 13 has 0; ``out`` may be ``x``."""
    unknown = xp.isnan(x)
    xp.sign(x, out=out)
    xp.copyto(out, math.nan, where=unknown)


# ---- for numba kernels. A float32 constant keeps float32 arithmetic float32, and is exact in float64.


def exp(x: float) -> float:
    """e^x, off by less than one unit in the last place in float32; 0, inf and NaN as ``math.exp``."""
    return math.exp(x)


def log1p(x: float) -> float:
    """log(1 + x) for x in [0, 1], off by at most two units in the last place in float32."""
    return math.log1p(x)


LOWEST, HIGHEST = np.float32(-110), np.float32(90)  # below e^x is 0, above it is inf
LOG2_E = np.float32(1.44269504)
# log(2) in two parts: whole multiples of the first, up to 8 bits, are exact.
LOG_2_HIGH, LOG_2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
# Adding it rounds a small float32 to an integer, which is then found in the low bits.
ROUNDER = np.float32(1.5 * 2**23)
ROUNDER_BITS = np.int32(ROUNDER.view(np.int32))
ONE, TWO = np.float32(1), np.float32(2)
# e^r = 1 + r + r^2 (EXP_2 + EXP_3 r + ...) for |r| <= log(2) / 2: expf of Moshier's Cephes library.
EXP_2, EXP_3, EXP_4 = np.float32(5.0000001201e-1), np.float32(1.6666665459e-1), np.float32(4.1665795894e-2)
EXP_5, EXP_6, EXP_7 = np.float32(8.3334519073e-3), np.float32(1.3981999507e-3), np.float32(1.9875691500e-4)
ODD = tuple(np.float32(1 / k) for k in range(17, 0, -2))


@overload(exp)
def _exp(x: Any) -> Callable[[Any], Any]:  # numba wants x annotated here as in what is returned
    def exp64(x: Any) -> Any:
        return math.exp(x)

    def exp32(x: Any) -> Any:
        # e^x = 2^n e^r with n = round(x / log 2); 2^n in two factors, as it may itself be too large or small.
        clipped = x if x > LOWEST else LOWEST
        clipped = clipped if clipped < HIGHEST else HIGHEST
        rounded = clipped * LOG2_E + ROUNDER
        n = rounded - ROUNDER
        power = np.float32(rounded).view(np.int32) - ROUNDER_BITS
        r = (clipped - n * LOG_2_HIGH) - n * LOG_2_LOW
        p = ((((EXP_7 * r + EXP_6) * r + EXP_5) * r + EXP_4) * r + EXP_3) * r + EXP_2
        half = power >> np.int32(1)
        scale = np.int32((half + np.int32(127)) << np.int32(23)).view(np.float32)
        rest = np.int32((power - half + np.int32(127)) << np.int32(23)).view(np.float32)
        result = ((p * (r * r) + r) + ONE) * scale * rest
        return result if x == x else x

    return exp32 if x == numba.float32 else exp64


@overload(log1p)
def _log1p(x: Any) -> Callable[[Any], Any]:
    def log1p64(x: Any) -> Any:
        return math.log1p(x)

    def log1p32(x: Any) -> Any:
        # log(1 + x) = 2 artanh(s) = 2 (s + s^3 / 3 + ... + s^17 / 17), s = x / (2 + x) <= 1/3
        s = x / (TWO + x)
        square = s * s
        total = ODD[0]
        for coefficient in ODD[1:]:
            total = total * square + coefficient
        return TWO * s * total

    return log1p32 if x == numba.float32 else log1p64
