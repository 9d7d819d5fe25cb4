"""The 13 convolutions of VGG16 on a 600 x 1000 image: time, rate and rounding, beside the machine and PyTorch.

    python benchmarks/convolution.py [--repeat 5] [--threads N] [--gradients] [--rounding] [--engine CAFFE]

Forward includes bias and ReLU. ``GF/s`` counts the products of the definition, 18 * C * K * H * W, which is why a
Winograd convolution can be "faster" than a product of matrices. The floor is the work that Winograd leaves, at the best
rate of products measured here.
Times are medians, all layers interleaved with the peer in one run; the spread is (max - min) / median.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import measure, product_rate  # noqa: E402
from caffe_lite import prototxt, registry, threads  # noqa: E402
from caffe_lite.blob import Blob
from caffe_lite.device import CPU
from caffe_lite.proto import caffe_pb2

LAYERS = (  # name, C, K, H, W, how many of it
    ("conv1_1", 3, 64, 600, 1000, 1),
    ("conv1_2", 64, 64, 600, 1000, 1),
    ("conv2_1", 64, 128, 300, 500, 1),
    ("conv2_2", 128, 128, 300, 500, 1),
    ("conv3_1", 128, 256, 150, 250, 1),
    ("conv3_2", 256, 256, 150, 250, 2),
    ("conv4_1", 256, 512, 75, 125, 1),
    ("conv4_2", 512, 512, 75, 125, 2),
    ("conv5_1", 512, 512, 38, 63, 3),
)


def timed(run: Callable[[], Any], repeat: int) -> tuple[float, float]:
    """(median seconds, spread) after one warm-up."""
    seconds = measure(run, repeat)
    median = float(np.median(seconds))
    return median, (max(seconds) - min(seconds)) / median


class Convolution:
    """One 3 x 3 layer of a net in training, with the data and weights of a VGG-like net."""

    def __init__(self, c: int, k: int, height: int, width: int, dtype: str, engine: str = "DEFAULT") -> None:
        param = caffe_pb2.LayerParameter()
        sizes = f"num_output: {k} kernel_size: 3 pad: 1 engine: {engine}"
        prototxt.parse(f'name: "conv" type: "Convolution" convolution_param {{ {sizes} }}', param)
        self.bottom, self.top = Blob((1, c, height, width), dtype), Blob((), dtype)
        self.layer = registry.layers.get("Convolution").create(param, 0, CPU, dtype, "")
        self.layer.set_up([self.bottom], [self.top])
        self.layer.fused_relu = True
        self.layer.param_propagate_down = [True, True]
        rng = np.random.default_rng(c)
        self.bottom.data[...] = np.maximum(rng.standard_normal(self.bottom.shape, np.float32), 0)
        self.layer.blobs[0].data[...] = rng.normal(size=(k, c, 3, 3)) * np.sqrt(2 / (9 * c))

    def forward(self) -> None:
        self.layer.forward([self.bottom], [self.top])

    def backward(self, data: bool, weights: bool) -> None:
        self.layer.param_propagate_down = [weights, weights]
        self.layer.backward([self.top], [data], [self.bottom])


def torch_convolution(conv: Convolution) -> Callable[[], Any] | None:
    """The same in PyTorch, channels last; None if it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(threads.get_num_threads())
    last = torch.channels_last
    x = torch.from_numpy(conv.bottom.data).to(memory_format=last)
    w = torch.from_numpy(conv.layer.blobs[0].data).to(memory_format=last)
    b = torch.from_numpy(conv.layer.blobs[1].data)

    def run() -> None:
        with torch.inference_mode():
            torch.relu_(torch.conv2d(x, w, b, padding=1))

    return run


def rounding(c: int, k: int) -> float:
    """Largest error against float64, as a part of the largest value."""
    fast, exact = Convolution(c, k, 40, 64, "float32"), Convolution(c, k, 40, 64, "float64", "CAFFE")
    exact.bottom.data[...] = fast.bottom.data
    exact.layer.blobs[0].data[...] = fast.layer.blobs[0].data
    fast.forward()
    exact.forward()
    return float(np.abs(fast.top.data - exact.top.data).max() / np.abs(exact.top.data).max())


def row(name: str, sizes: tuple[int, ...], rate: float, options: argparse.Namespace) -> dict[str, float]:
    """Measure one layer, print its line, return its milliseconds by column."""
    c, k, height, width = sizes
    work = 18 * c * k * height * width / 1e9
    conv = Convolution(c, k, height, width, "float32", options.engine)
    ms, spread = {}, {}

    def add(column: str, run: Callable[[], Any]) -> None:
        seconds, spread[column] = timed(run, options.repeat)
        ms[column] = seconds * 1e3

    add("forward", conv.forward)
    if options.gradients:
        conv.top.diff[...] = conv.top.data
        add("to data", lambda: conv.backward(True, False))
        add("to weights", lambda: conv.backward(False, True))
    peer = torch_convolution(conv)
    if peer is not None:
        add("PyTorch", peer)
    ms["floor"] = work / 4 / rate * 1e3
    text = "  ".join(f"{column} {t:7.1f} ms" for column, t in ms.items())
    error = f"  error {rounding(c, k):.1e}" if options.rounding else ""
    speed = work / ms["forward"] * 1e3
    print(f"{name}  {conv.layer.path:8s} {speed:5.0f} GF/s  {text}  spread {spread['forward']:.0%}{error}", flush=True)
    return ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--gradients", action="store_true", help="time both gradients, too")
    parser.add_argument("--rounding", action="store_true", help="compare with float64")
    parser.add_argument("--engine", default="DEFAULT", choices=["DEFAULT", "CAFFE"])
    options = parser.parse_args()
    if options.threads:
        threads.set_num_threads(options.threads)
    rate = product_rate(options.repeat)
    print(f"{threads.get_num_threads()} threads, products at {rate:.0f} GF/s")
    total: dict[str, float] = {}
    for name, *sizes, count in LAYERS:
        for column, ms in row(name, tuple(sizes), rate, options).items():
            total[column] = total.get(column, 0) + count * ms
    print("13 convolutions:  " + "  ".join(f"{column} {ms:.0f} ms" for column, ms in total.items()))
    print(f"products afterwards at {product_rate(options.repeat):.0f} GF/s")


if __name__ == "__main__":
    main()
