"""Which way a GPU computes a convolution in two dimensions: the one of least work, by count.

Everything is counted in bytes that a device moves in the same time. For N images of P positions, C channels, K kernels:

    implicit  C K taps N P multiplications in float32 (or float64), one launch; where it has fewer blocks than a device
              runs side by side, the others' share is lost; caffe_lite.gpu_tiles
    im2col    as many multiplications, by cuBLAS; the patches, C taps N P numbers, written and read again; two launches
              for each image and one for the bias; caffe_lite.gpu_columns
    winograd  3 x 3, stride 1, dilation 1: F C K multiplications for each of T tiles, by cuBLAS; u, v and m (F times
              C K, C T and K T numbers) written and read again; four launches; F = 36 for tiles of 4 x 4 outputs, 16
              for 2 x 2; caffe_lite.gpu_winograd

x, w and y are moved by each way; both gradients count like the product forward. No choice was timed on a device yet.

Rounding is the other half of the rule. By benchmarks/rounding.py F(2x2, 3x3) in tf32 or bf16 errs 1.2 to 1.7 times as
much as im2col, F(4x4, 3x3) 5 to 9 times: in tf32 as much as im2col in bf16, which is faster. So tiles of 4 x 4 are for
float32, where their largest error is 4e-6 of the largest value, and for float64.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from caffe_lite.gpu_tiles import TILE_K, TILE_P
from caffe_lite.im2col import Geometry

# Multiplications in the time of a byte, of a launch and of blocks: from the data sheets of A100 and H200.
PRODUCTS_PER_BYTE = {"float64": 4, "float32": 8, "tf32": 50, "bf16": 100}
LAUNCH = 10e6  # 3 to 5 microseconds at 2 to 5 TB/s
BLOCKS = 128  # one for each multiprocessor, of which there are 108 or 132
TILES = {"float64": (2, 4), "float32": (2, 4), "tf32": (2,), "bf16": (2,)}  # sides of Winograd's tiles that are allowed


class Way(NamedTuple):
    """How a convolution is computed: ``path`` and ``reason`` as a layer has them; side of Winograd's tiles, or 0."""

    path: str
    reason: str
    tile: int = 0


def choose(geometry: Geometry, images: int, channels: int, kernels: int, mode: str) -> Way:
    """The way of least work, for one group; of equal ones the first of the module's list.

    ``mode``: "float64", or how float32 numbers are multiplied, one of ``caffe_lite.device.COMPUTE``.
    """
    g = geometry
    shape = f"kernel {g.kernel}, stride {g.stride}, dilation {g.dilation}, {channels} channels"
    rounded = f"compute: {mode}, " if mode in ("tf32", "bf16") else ""
    costs = {
        Way("implicit", shape): implicit(g, images, channels, kernels, mode),
        Way("im2col", rounded + shape): im2col(g, images, channels, kernels, mode),
    }
    plain = min(costs, key=costs.__getitem__)
    if (g.kernel, g.stride, g.dilation) == ((3, 3), (1, 1), (1, 1)):
        for tile in TILES[mode]:
            tiles = images * math.prod(-(-n // tile) for n in g.out)
            cost = winograd(tile, tiles, channels, kernels, mode)
            share = f"{cost / costs[plain]:.2f} of the work of {plain.path}"
            costs[Way("winograd", f"{rounded}{tiles} tiles of {tile} x {tile} pixels, {share}", tile)] = cost
    return min(costs, key=costs.__getitem__)


def implicit(geometry: Geometry, images: int, channels: int, kernels: int, mode: str) -> float:
    """Its work in bytes; float32 whatever ``mode`` says of float32."""
    positions = images * math.prod(geometry.out)
    blocks = -(-kernels // TILE_K) * -(-positions // TILE_P)
    products = kernels * channels * geometry.taps * positions
    exact = "float64" if mode == "float64" else "float32"
    return LAUNCH + products / PRODUCTS_PER_BYTE[exact] * max(1, BLOCKS / max(blocks, 1))


def im2col(geometry: Geometry, images: int, channels: int, kernels: int, mode: str) -> float:
    """Its work in bytes."""
    patches = channels * geometry.taps * images * math.prod(geometry.out)
    return _work(patches * kernels, patches, 2 * images + 1, mode)


def winograd(tile: int, tiles: int, channels: int, kernels: int, mode: str) -> float:
    """Its work in bytes."""
    frequencies = (tile + 2) ** 2
    scratch = frequencies * (channels * kernels + (channels + kernels) * tiles)
    return _work(frequencies * channels * kernels * tiles, scratch, 4, mode)


def _work(products: int, scratch: int, launches: int, mode: str) -> float:
    """``scratch``: numbers that are written and read again."""
    return products / PRODUCTS_PER_BYTE[mode] + 2 * scratch * (8 if mode == "float64" else 4) + launches * LAUNCH
