"""How far tf32 and bf16 round a GPU's 3 x 3 convolutions, by the way that they are computed: the table of docs/gpu.md.

    python benchmarks/rounding.py [--gpu N] [--layers]

Without --gpu the kernels run on the host and NumPy multiplies, its factors rounded to nearest as the mode has it: a
device's errors but for the order of its sums, if it rounds so too. Inputs are rectified normal numbers, weights He's,
gradients zero where a ReLU would have stopped them; the layers have the channels of VGG16's and fewer pixels. An
error is the largest one against float64, as a part of the largest value; of all layers the table has the largest.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import caffe_lite  # noqa: E402
from caffe_lite import device as devices  # noqa: E402
from caffe_lite.device import COMPUTE, Device  # noqa: E402
from caffe_lite.gpu_columns import GpuColumns  # noqa: E402
from caffe_lite.gpu_tiles import GpuTiles  # noqa: E402
from caffe_lite.gpu_winograd import GpuWinograd  # noqa: E402
from caffe_lite.im2col import Geometry  # noqa: E402
from tests import convolution_reference as reference  # noqa: E402
from tests.cuda_on_host import emulated_device  # noqa: E402

LAYERS = {  # C, K, H, W
    "conv1_2": (64, 64, 40, 50),
    "conv2_2": (128, 128, 30, 40),
    "conv3_2": (256, 256, 22, 31),
    "conv5_1": (512, 512, 19, 26),
}
WAYS = {
    "implicit": lambda g, c, k, device: GpuTiles(g, c, k, device, "float32"),
    "im2col": lambda g, c, k, device: GpuColumns(g, device, "float32"),
    "F(2x2, 3x3)": lambda g, c, k, device: GpuWinograd(g, 2, device, "float32"),
    "F(4x4, 3x3)": lambda g, c, k, device: GpuWinograd(g, 4, device, "float32"),
}
PRODUCTS = ("forward", "to data", "to weights")


class Case:
    """One layer's data, and its products in float64."""

    def __init__(self, c: int, k: int, height: int, width: int) -> None:
        rng = np.random.default_rng(c)
        self.geometry = Geometry((height, width), (3, 3), (1, 1), (1, 1), (1, 1))
        self.x = np.maximum(rng.standard_normal((1, c, height, width), np.float32), 0)
        self.w = (rng.normal(size=(k, c, 3, 3)) * np.sqrt(2 / (9 * c))).astype(np.float32)
        y = reference.convolve(self.x, self.w, (1, 1), (1, 1), (1, 1))
        self.dy = (rng.normal(size=y.shape) * (y > 0)).astype(np.float32)
        dx, dw = reference.gradients(self.x, self.w, self.dy, (1, 1), (1, 1), (1, 1))
        self.exact = y, dx, dw.reshape(k, -1)

    def errors(self, way: str, compute: str, device: Device) -> tuple[float, ...]:
        """Those of the three products, each as a part of its largest value."""
        k, c = self.w.shape[:2]
        products = WAYS[way](self.geometry, c, k, device)
        x, w, dy = map(device.xp.asarray, (self.x, self.w.reshape(k, -1), self.dy))
        y, dx, dw = (device.xp.zeros(like.shape, "float32") for like in (self.dy, self.x, self.exact[2]))
        before, device.compute = device.compute, compute
        try:
            products.forward(x, 0, w, None, y, 0, False)
            products.data_gradient(dy, 0, w, dx, 0)
            products.weight_gradient(x, 0, dy, 0, dw)
        finally:
            device.compute = before
        pairs = zip(map(device.to_host, (y, dx, dw)), self.exact, strict=True)
        return tuple(float(np.abs(got - want).max() / np.abs(want).max()) for got, want in pairs)


@contextlib.contextmanager
def device_of(index: int | None) -> Any:
    """GPU ``index``, or the host in its place."""
    if index is None:
        with emulated_device() as device:
            yield device
    else:
        caffe_lite.set_device(index)
        caffe_lite.set_mode_gpu()
        yield devices.current()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", type=int, metavar="N", help="measure on GPU N")
    parser.add_argument("--layers", action="store_true", help="a table for each layer, too")
    options = parser.parse_args()
    worst: dict[tuple[str, str], np.ndarray] = {}
    with device_of(options.gpu) as device:
        for name, sizes in LAYERS.items():
            case = Case(*sizes)
            found = {
                (way, compute): np.array(case.errors(way, compute, device))
                for way in WAYS
                for compute in (COMPUTE if way != "implicit" else COMPUTE[:1])
            }
            worst = {key: np.maximum(errors, worst.get(key, 0)) for key, errors in found.items()}
            if options.layers:
                print(f"{name}\n\n{table(found)}\n")
    print(table(worst))


def table(found: dict[tuple[str, str], np.ndarray]) -> str:
    """Markdown: a row for each way and mode."""
    lines = [f"| way | compute | {' | '.join(PRODUCTS)} |", "|---|---|---:|---:|---:|"]
    for (way, compute), errors in found.items():
        lines.append(f"| {way} | {compute} | {' | '.join(f'{error:.1e}' for error in errors)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
