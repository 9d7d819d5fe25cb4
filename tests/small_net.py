"""A small net that most tests of the engine are made of, its inputs, and its parameters."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import caffe_lite as caffe

MLP = """
name: "mlp"
layer { name: "data" type: "Input" top: "data" top: "label"
        input_param { shape { dim: 4 dim: 6 } shape { dim: 4 } } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
        inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""


def feed(net: caffe.Net, seed: int = 0) -> None:
    """Normal numbers into ``data``, and into ``label``, if there is one, labels of 3 classes."""
    rng = np.random.default_rng(seed)
    net.blobs["data"].data[...] = rng.normal(size=net.blobs["data"].shape)
    if "label" in net.blobs:
        net.blobs["label"].data[...] = rng.integers(0, 3, net.blobs["label"].shape)


def net_of(folder: Path, text: str, seed: int = 1) -> caffe.Net:
    """The train net of this prototxt, filled from this seed."""
    (folder / "net.prototxt").write_text(text)
    caffe.set_random_seed(seed)
    return caffe.Net(folder / "net.prototxt", caffe.TRAIN)


def parameters(net: caffe.Net) -> dict[str, list[np.ndarray]]:
    """Layer -> copies of its parameters, on the host."""
    return {name: [np.array(blob.data) for blob in blobs] for name, blobs in net.params.items()}


def assert_same(a: dict[str, list[np.ndarray]], b: dict[str, list[np.ndarray]]) -> None:
    """The same layers with the same parameters, to the bit (but for the sign of zero)."""
    assert a.keys() == b.keys()
    for name in a:
        for x, y in zip(a[name], b[name], strict=True):
            np.testing.assert_array_equal(x, y, err_msg=name)
