"""Training a whole net goes the same way on every device, dropout included."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import caffe_lite as caffe
from caffe_lite import device as devices
from caffe_lite.device import CPU, Device

TRAINING = """
layer { name: "data" type: "Input" top: "data" top: "label"
        input_param { shape { dim: 6 dim: 3 dim: 12 dim: 11 } shape { dim: 6 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 5 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "norm1" type: "LRN" bottom: "conv1" top: "norm1" lrn_param { local_size: 3 alpha: 0.1 } }
layer { name: "pool1" type: "Pooling" bottom: "norm1" top: "pool1" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "ip1" type: "InnerProduct" bottom: "pool1" top: "ip1"
        inner_product_param { num_output: 16 weight_filler { type: "xavier" } } }
layer { name: "drop1" type: "Dropout" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
        inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""
SOLVER = 'net: "net.prototxt" base_lr: 0.05 momentum: 0.9 weight_decay: 0.001 lr_policy: "fixed" random_seed: 5'


def losses(device: Device, steps: int = 8) -> list[float]:
    devices.use(device)
    solver = caffe.get_solver("solver.prototxt")
    rng = np.random.default_rng(0)
    result = []
    for _ in range(steps):
        solver.net.blobs["data"].data[...] = rng.normal(size=(6, 3, 12, 11))
        solver.net.blobs["label"].data[...] = rng.integers(0, 4, 6)
        solver.step(1)
        result.append(solver.smoothed_loss)
    return result


def test_training_with_dropout_goes_the_same_way_on_every_device(device: Device, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(TRAINING)
    Path("solver.prototxt").write_text(SOLVER)
    on_device = losses(device)
    assert on_device == losses(device), "the same seed must give the same bits"
    np.testing.assert_allclose(on_device, losses(CPU), rtol=2e-4)
