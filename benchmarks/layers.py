"""Forward and backward time of each layer type on the CPU, beside PyTorch's counterpart in the same run.

    python benchmarks/layers.py                 # all
    python benchmarks/layers.py ReLU Pooling    # some

Without PyTorch only our times are printed. PyTorch's backward is its autograd's, forward excluded.
A ratio is our time over PyTorch's.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from caffe_lite import prototxt, registry
from caffe_lite.blob import Blob
from caffe_lite.device import CPU
from caffe_lite.proto import caffe_pb2

try:
    import torch
    from torch.nn import functional as F
except ImportError:
    torch = F = None  # type: ignore[assignment]

MAP = (16, 64, 56, 56)
SCORES = (256, 1000)
ONE_BOTTOM = {
    "AbsVal": ("", MAP, lambda x: x.abs()),
    "ArgMax": ("argmax_param { axis: 1 }", MAP, lambda x: x.argmax(1)),
    "BatchNorm": ("", MAP, lambda x: F.batch_norm(x, None, None, training=True)),
    "BNLL": ("", MAP, lambda x: F.softplus(x)),
    "Clip": ("clip_param { min: -1 max: 1 }", MAP, lambda x: x.clamp(-1, 1)),
    "Convolution": (
        "convolution_param { num_output: 64 kernel_size: 3 pad: 1 }",
        MAP,
        lambda x, w, b: F.conv2d(x, w, b, padding=1),
    ),
    "Deconvolution": (
        "convolution_param { num_output: 64 kernel_size: 4 stride: 2 pad: 1 }",
        (4, 64, 56, 56),
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, padding=1),
    ),
    "Dropout": ("", MAP, lambda x: F.dropout(x, 0.5)),
    "ELU": ("", MAP, lambda x: F.elu(x)),
    "Exp": ("", MAP, lambda x: x.exp()),
    "Flatten": ("", MAP, lambda x: x.flatten(1)),
    "Im2col": ("convolution_param { kernel_size: 3 pad: 1 }", (4, 64, 56, 56), lambda x: F.unfold(x, 3, padding=1)),
    "InnerProduct": ("inner_product_param { num_output: 4096 }", (128, 4096), lambda x, w, b: F.linear(x, w, b)),
    "LRN": ("lrn_param { alpha: 0.0001 }", MAP, lambda x: F.local_response_norm(x, 5)),
    "Log": ("log_param { shift: 10 }", MAP, lambda x: (x + 10).log()),
    "MVN": ("", MAP, lambda x: F.instance_norm(x)),
    "Pooling": ("pooling_param { kernel_size: 2 stride: 2 }", MAP, lambda x: F.max_pool2d(x, 2)),
    "Power": ("power_param { power: 2 scale: 0.5 shift: 3 }", MAP, lambda x: (3 + 0.5 * x) ** 2),
    "PReLU": ("", MAP, lambda x, w: F.prelu(x, w)),
    "Reduction": ("reduction_param { axis: 1 }", MAP, lambda x: x.flatten(1).sum(1)),
    "ReLU": ("", MAP, lambda x: F.relu(x)),
    "Reshape": ("reshape_param { shape { dim: 0 dim: -1 } }", MAP, lambda x: x.flatten(1)),
    "Scale": (
        "scale_param { bias_term: true }",
        MAP,
        lambda x, w, b: x * w[:, None, None] + b[:, None, None],
    ),
    "Bias": ("", MAP, lambda x, b: x + b[:, None, None]),
    "Sigmoid": ("", MAP, lambda x: x.sigmoid()),
    "Softmax": ("", SCORES, lambda x: x.softmax(1)),
    "Swish": ("", MAP, lambda x: F.silu(x)),
    "TanH": ("", MAP, lambda x: x.tanh()),
    "Threshold": ("", MAP, lambda x: (x > 0).float()),
    "Tile": ("tile_param { axis: 1 tiles: 3 }", (16, 64, 28, 28), lambda x: x.repeat(1, 3, 1, 1)),
}
TWO_BOTTOMS = {
    "Concat": ("", MAP, MAP, lambda a, b: torch.cat([a, b], 1)),
    "Eltwise": ("", MAP, MAP, lambda a, b: a + b),
    "EuclideanLoss": ("", SCORES, SCORES, lambda a, b: F.mse_loss(a, b)),
    "SigmoidCrossEntropyLoss": ("", SCORES, SCORES, lambda a, b: F.binary_cross_entropy_with_logits(a, b)),
    "SmoothL1Loss": ("", (2000, 84), (2000, 84), lambda a, b: F.smooth_l1_loss(a, b)),
}
LABELLED = {
    "SoftmaxWithLoss": lambda x, y: F.cross_entropy(x, y),
    "HingeLoss": lambda x, y: F.multi_margin_loss(x, y),
    "Accuracy": lambda x, y: (x.argmax(1) == y).float().mean(),
}


def median_ms(work: Callable[[], Any], repeat: int = 9) -> float:
    work()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def ours(kind: str, text: str, bottoms: list[np.ndarray], gradients: list[bool]) -> tuple[float, float | None, list]:
    """(forward ms, backward ms, parameters) of a layer."""
    param = caffe_pb2.LayerParameter()
    prototxt.parse(f'name: "x" type: "{kind}" top: "y" {text}', param)
    layer = registry.layers.get(kind).create(param, 0, CPU, "float32", "")
    blobs = [Blob(b.shape) for b in bottoms]
    for blob, values in zip(blobs, bottoms, strict=True):
        blob.data[...] = values
    tops = [Blob()]
    layer.set_up(blobs, tops)
    rng = np.random.default_rng(1)
    for blob in layer.blobs:
        blob.data[...] = rng.normal(size=blob.shape) * 0.05
    layer.param_propagate_down = [True] * len(layer.blobs)
    forward = median_ms(lambda: layer.forward(blobs, tops))
    if not any(gradients):
        return forward, None, layer.blobs
    tops[0].diff[...] = 1
    return forward, median_ms(lambda: layer.backward(tops, gradients, blobs)), layer.blobs


def theirs(
    function: Callable[..., Any], bottoms: list[np.ndarray], gradients: list[bool], parameters: list
) -> tuple[float, float | None]:
    """(forward ms, backward ms) in PyTorch."""
    inputs = [
        torch.from_numpy(b).requires_grad_(g) if g else torch.from_numpy(b)
        for b, g in zip(bottoms, gradients, strict=True)
    ]
    inputs += [torch.from_numpy(p.data.copy()).requires_grad_(True) for p in parameters]
    with torch.no_grad():
        forward = median_ms(lambda: function(*inputs))
    if not any(gradients):
        return forward, None
    y = function(*inputs)
    dy = torch.ones_like(y)
    wanted = [i for i in inputs if i.requires_grad]
    return forward, median_ms(lambda: torch.autograd.grad(y, wanted, dy, retain_graph=True))


def cases() -> dict[str, tuple[str, list[np.ndarray], list[bool], Callable[..., Any]]]:
    rng = np.random.default_rng(0)

    def normal(shape: tuple[int, ...]) -> np.ndarray:
        return rng.normal(size=shape).astype("float32")

    without = {"ArgMax", "Threshold"}
    found = {k: (t, [normal(s)], [k not in without], f) for k, (t, s, f) in ONE_BOTTOM.items()}
    for kind, (text, a, b, function) in TWO_BOTTOMS.items():
        found[kind] = (text, [normal(a), normal(b)], [True, kind in ("Concat", "Eltwise")], function)
    for kind, function in LABELLED.items():
        labels = rng.integers(0, SCORES[1], SCORES[0])
        found[kind] = ("", [normal(SCORES), labels], [kind != "Accuracy", False], function)
    return dict(sorted(found.items()))


def main() -> None:
    wanted = set(sys.argv[1:])
    print(f"{'layer':<24}{'forward ms':>11}{'PyTorch':>9}{'ratio':>7}   {'backward ms':>11}{'PyTorch':>9}{'ratio':>7}")
    for kind, (text, bottoms, gradients, function) in cases().items():
        if wanted and kind not in wanted:
            continue
        forward, backward, parameters = ours(kind, text, bottoms, gradients)
        other: tuple[float | None, float | None] = (None, None)
        if torch is not None:
            learned = [] if kind == "BatchNorm" else parameters
            other = theirs(function, bottoms, gradients, learned)
        columns = []
        for mine, his in ((forward, other[0]), (backward, other[1])):
            columns.append(f"{mine:>11.2f}" if mine is not None else f"{'-':>11}")
            columns.append(f"{his:>9.2f}" if his is not None else f"{'-':>9}")
            columns.append(f"{mine / his:>7.2f}" if mine is not None and his else f"{'-':>7}")
        print(f"{kind:<24}{''.join(columns[:3])}   {''.join(columns[3:])}", flush=True)


if __name__ == "__main__":
    main()
