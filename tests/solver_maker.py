"""Small solvers for tests, written into the working directory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import caffe_lite as caffe
from caffe_lite.solver import Solver
from tests.small_net import MLP, feed

BATCH_NORM = """
name: "bn"
layer { name: "data" type: "Input" top: "data" top: "label"
        input_param { shape { dim: 4 dim: 6 } shape { dim: 4 } } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
        inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "bn1" type: "BatchNorm" bottom: "ip1" top: "bn1" }
layer { name: "ip2" type: "InnerProduct" bottom: "bn1" top: "ip2"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""


def make_solver(text: str = "", layers: str = MLP, **replace: str) -> Solver:
    """A solver of ``layers`` with constant inputs; ``text`` is added to its prototxt, ``replace`` changes fields of it."""
    Path("net.prototxt").write_text(layers)
    defaults = {"net": '"net.prototxt"', "base_lr": "0.1", "lr_policy": '"fixed"', "random_seed": "3"}
    fields = "\n".join(f"{name}: {value}" for name, value in {**defaults, **replace}.items() if value)
    Path("solver.prototxt").write_text(f"{fields}\n{text}")
    made = caffe.get_solver("solver.prototxt")
    feed(made.net)
    for test_net in made.test_nets:
        feed(test_net)
    return made


def values(solver: Solver) -> list[np.ndarray]:
    """Copies of all parameters, on the host."""
    return [np.array(b.data) for blobs in solver.net.params.values() for b in blobs]


def history(solver: Solver) -> list[np.ndarray]:
    """Copies of all slots, on the host."""
    return [np.array(solver.net.device.to_host(array)) for array in solver.history]


def gradients(solver: Solver) -> list[np.ndarray]:
    """What one forward-backward puts into the parameters' diffs, on the host."""
    solver.net.clear_param_diffs()
    solver.net.forward()
    solver.net.backward()
    return [np.array(b.diff) for blobs in solver.net.params.values() for b in blobs]


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    """Are the arrays equal to the bit?"""
    return all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))
