"""The gradient to the data of a strided convolution in two dimensions, on the CPU: a deconvolution's forward.

Pixel o of the larger side meets, along one axis, the taps k with (o + pad - dilation k) divisible by the
stride: those of its phase o mod stride. So the pixels of one phase are an ordinary convolution of the smaller side,
at stride 1, with every so-manieth tap of the kernel, turned round; ``caffe_lite.direct`` computes it. The phases
are interleaved as they are written out. Nothing is folded (col2im), and no zeros are multiplied.

    dy  (N, K_all, OH, OW)  of which channels [k0, k0 + K) are read
    dx  (N, C_all, H, W)    of which channels [c0, c0 + C) are written
    w   (K, C, kernel height, kernel width)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit, prange

from caffe_lite import direct
from caffe_lite.device import Device
from caffe_lite.im2col import Geometry
from caffe_lite.simd import ROWS


class Phase(NamedTuple):
    """What pixels first, first + stride, ... of one axis meet: taps at stride 1."""

    taps: list[int]  # of the kernel, rising
    pad: int  # of the convolution with these taps, turned round; negative to crop
    dilation: int


def phase(first: int, kernel: int, stride: int, pad: int, dilation: int) -> Phase:
    """That of pixel ``first``, in [0, stride), of an axis; it may have no taps at all."""
    taps = [k for k in range(kernel) if (first + pad - dilation * k) % stride == 0]
    start = (first + pad - dilation * taps[-1]) // stride if taps else 0
    return Phase(taps, -start, dilation // math.gcd(stride, dilation))


def data_gradient(
    dy: np.ndarray, k0: int, w: np.ndarray, dx: np.ndarray, c0: int, geometry: Geometry, device: Device
) -> None:
    """Overwrite channels [c0, c0 + C) of dx."""
    kernels, channels = w.shape[:2]
    (height, width), (down, across) = dx.shape[2:], geometry.stride
    sides = [
        [phase(first, *sizes) for first in range(sizes[1])]
        for sizes in zip(geometry.kernel, geometry.stride, geometry.pad, geometry.dilation, strict=True)
    ]
    for row, y in enumerate(sides[0][:height]):
        shape = across, len(dx), channels, -(-(height - row) // down), -(-width // across)
        parts = device.workspace("phases", shape, dx.dtype)
        for part, x in zip(parts, sides[1], strict=True):
            if y.taps and x.taps:
                packed = _pack_turned(w, y.taps, x.taps, device)
                sizes = (len(y.taps), len(x.taps)), (1, 1), (y.pad, x.pad), (y.dilation, x.dilation)
                direct.convolve(dy, k0, kernels, packed, None, part, 0, channels, *sizes, device)
            else:
                part[...] = 0
        _interleave(parts, dx, c0, row, down)


def _pack_turned(w: np.ndarray, y_taps: list[int], x_taps: list[int], device: Device) -> np.ndarray:
    """These taps of w as ``direct.pack_weights(direct.turn_weights(...))`` lays them out, in scratch memory."""
    kernels, channels = w.shape[:2]
    shape = -(-channels // ROWS), kernels, len(y_taps), len(x_taps), ROWS
    packed = device.workspace("phase_weights", shape, w.dtype)
    _pack(w, np.array(y_taps[::-1]), np.array(x_taps[::-1]), packed)
    return packed.reshape(-1)


@njit(cache=True, parallel=True)
def _pack(w, y_taps, x_taps, packed):
    channels = w.shape[1]
    for panel in prange(len(packed)):
        for k in range(len(w)):
            for i in range(y_taps.size):
                for j in range(x_taps.size):
                    for c in range(ROWS):
                        at = panel * ROWS + c
                        packed[panel, k, i, j, c] = w[k, at, y_taps[i], x_taps[j]] if at < channels else 0


@njit(cache=True, parallel=True)
def _interleave(parts, dx, c0, first, down):
    """dx[n, c0 + c, first + down i, across j + b] = parts[b, n, c, i, j]"""
    across, images, channels, height, _ = parts.shape
    width = dx.shape[3]
    for plane in prange(images * channels):
        n, c = plane // channels, plane % channels
        for i in range(height):
            row = dx[n, c0 + c, first + down * i]
            for b in range(across):
                part = parts[b, n, c, i]
                for j in range((width - b + across - 1) // across):
                    row[across * j + b] = part[j]
