"""Time and peak memory of a Fast R-CNN test net on the CPU, beside the machine's own sgemm rate.

    python benchmarks/test_net.py                       # VGG16, one 600x1000 image, 2,000 RoIs
    python benchmarks/test_net.py --net CaffeNet --rois 300 --repeat 5

The net gets random weights and random RoIs. Caffe's figures beside which to read the result were
taken on 2 cores at about 200 GFLOP/s of sgemm: VGG16 7.1 s and 5.6 GB, VGG_CNN_M_1024 3.5 s and
1.35 GB, CaffeNet 1.93 s and 0.85 GB. ``scaled`` is Caffe's time at the sgemm rate measured here.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time

import numpy as np

import caffe_lite as caffe
from caffe_lite import models

CAFFE = {"VGG16": (7.1, 5.6), "VGG_CNN_M_1024": (3.5, 1.35), "CaffeNet": (1.93, 0.85)}
CAFFE_SGEMM = 200.0


def sgemm_rate() -> float:
    """GFLOP/s of a large single-precision product, best of five."""
    a = np.random.default_rng(0).normal(size=(3000, 3000)).astype("float32")
    times = []
    for _ in range(6):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2 * 3000**3 / min(times[1:]) / 1e9


def random_rois(count: int, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    x, y = (np.sort(rng.uniform(0, size - 1, (count, 2)), axis=1) for size in (width, height))
    return np.column_stack([np.zeros(count), x[:, 0], y[:, 0], x[:, 1], y[:, 1]]).astype("float32")


def build(name: str, height: int, width: int, rois: int) -> caffe.Net:
    net = caffe.Net(models.path(f"{name}/test.prototxt"), caffe.TEST)
    rng = np.random.default_rng(1)
    for blobs in net.params.values():
        weight = blobs[0].data
        weight[...] = rng.standard_normal(weight.shape, dtype="float32") * np.sqrt(2 / (weight.size / weight.shape[0]))
    net.blobs["data"].reshape(1, 3, height, width)
    net.blobs["data"].data[...] = rng.standard_normal((1, 3, height, width), dtype="float32") * 50
    net.blobs["rois"].reshape(rois, 5)
    net.blobs["rois"].data[...] = random_rois(rois, height, width)
    return net


def layer_times(net: caffe.Net) -> list[tuple[float, str, str]]:
    """Seconds of each layer, alone (so without the fusion of ReLUs)."""
    result = []
    for layer in net.layers:
        start = time.perf_counter()
        net.forward(start=layer.name, end=layer.name)
        result.append((time.perf_counter() - start, layer.name, layer.type))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", default="VGG16", choices=sorted(CAFFE))
    parser.add_argument("--size", type=int, nargs=2, default=(600, 1000), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rois", type=int, default=2000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--layers", action="store_true", help="also time each layer alone")
    args = parser.parse_args()

    net = build(args.net, *args.size, args.rois)
    start = time.perf_counter()
    net.run_forward()
    first = time.perf_counter() - start
    times = []
    for _ in range(args.repeat):
        start = time.perf_counter()
        net.run_forward()
        times.append(time.perf_counter() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    rate = sgemm_rate()
    median = statistics.median(times)
    seconds, gigabytes = CAFFE[args.net]
    scaled = seconds * CAFFE_SGEMM / rate
    print(f"{args.net}, {args.size[0]}x{args.size[1]}, {args.rois} RoIs; sgemm {rate:.0f} GFLOP/s")
    print(f"caffe_lite  median {median:6.2f} s  (min {min(times):.2f}, max {max(times):.2f}, first {first:.2f})  "
          f"peak {memory:.2f} GB")  # fmt: skip
    print(
        f"Caffe 1.0          {seconds:6.2f} s  (scaled {scaled:.2f} s: {scaled / median:.2f}x)  peak {gigabytes:.2f} GB"
    )
    if args.layers:
        for spent, name, kind in sorted(layer_times(net), reverse=True)[:20]:
            print(f"  {spent * 1e3:9.1f} ms  {name:<12} {kind}")


if __name__ == "__main__":
    main()
