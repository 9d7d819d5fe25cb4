"""The floor under a case: the products that are left after Winograd, at the machine's best rate of products, and the
bytes that every layer must read and write, at its copy bandwidth.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import caffe_lite

WINOGRAD = 36 / (16 * 9)  # products of F(4x4, 3x3) for each of the definition


def work(folder: Path, train: bool) -> tuple[float, float]:
    """(floating point operations, bytes) of one run of the case in ``folder``."""
    net = caffe_lite.Net(folder / "net.prototxt", caffe_lite.TRAIN if train else caffe_lite.TEST)
    operations = size = 0.0
    for node in net.nodes:
        passes = 1
        if train:
            passes += any(node.propagate_down) + any(node.layer.param_propagate_down)
        operations += passes * products(node)
        size += passes * 4 * traffic(node)
    return operations, size


def products(node: Any) -> float:
    """Operations of the matrix products of one pass through a layer."""
    if node.layer.type == "InnerProduct":
        return 2.0 * node.bottoms[0].count * node.tops[0].shape[1]
    if node.layer.type != "Convolution":
        return 0.0
    conv = node.layer.param.convolution_param
    weight = node.layer.blobs[0]
    plain = 2.0 * math.prod(weight.shape[1:]) * node.tops[0].count
    stride = conv.stride[0] if conv.stride else 1
    return plain * (WINOGRAD if weight.shape[2:] == (3, 3) and stride == 1 else 1.0)


def traffic(node: Any) -> int:
    """Values that one pass reads and writes; a layer in place costs nothing, its neighbour does it."""
    if node.layer.type in ("Input", "Split", "Dropout") or (node.bottoms and node.tops[:1] == node.bottoms[:1]):
        return 0
    return sum(blob.count for blob in (*node.bottoms, *node.tops, *(b.on_device for b in node.layer.blobs)))


def seconds(folder: Path, train: bool, rate: float, bandwidth: float) -> float:
    """The floor at ``rate`` GFLOP/s and ``bandwidth`` GB/s."""
    operations, size = work(folder, train)
    return operations / (rate * 1e9) + size / (bandwidth * 1e9)
