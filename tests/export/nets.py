"""Whole nets for the exporters: shipped ones with random weights, and chains of layers under any names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

import caffe_lite
from caffe_lite import models
from caffe_lite.proto import caffe_pb2

SMALL = ("LeNet", "CIFAR10_quick", "CIFAR10_full", "NIN", "GoogLeNet", "SqueezeNet_1.1", "ResNet-50")
LARGE = ("AlexNet", "CaffeNet", "VGG_CNN_F", "VGG_CNN_M", "VGG_CNN_M_2048", "VGG_CNN_M_1024", "VGG_CNN_S", "VGG16", "VGG19", "ResNet-101")  # fmt: skip
DEPLOY_NETS = [*SMALL, *(pytest.param(name, marks=pytest.mark.soak) for name in LARGE)]
CONV = 'Convolution" convolution_param { num_output: 3 kernel_size: 1 }'
EVIL = '"""\nimport os\nos.system("true")  # \\'


def random_net(name: str) -> Any:
    """The shipped net ``name`` with weights that keep what passes through it in size."""
    net = caffe_lite.Net(models.path(name), caffe_lite.TEST)
    rng = np.random.default_rng(0)
    for layer, blobs in net.params.items():
        kind = net.layer_dict[layer].type
        for i, blob in enumerate(blobs):
            fan_in = max(1, blob.count // blob.shape[0])
            noise = rng.random(blob.shape, dtype=np.float32) - 0.5
            if kind == "BatchNorm":
                blob.data[...] = [noise, 1 + noise, 1][i]
            elif kind == "Scale":
                blob.data[...] = [0.7 + noise / 4, noise / 4][i]
            else:
                blob.data[...] = noise * (24 / fan_in) ** 0.5 if i == 0 else noise / 5
    last = next(blobs for layer, blobs in reversed(net.params.items()) if net.layer_dict[layer].type != "Scale")
    last[0].data[...] *= 0.1  # probabilities that are neither 0 nor 1
    return net


def chain(name: str, *layers: tuple[str, str], shape: tuple[int, ...] = (1, 3, 8, 8)) -> Any:
    """A net of layers (name, type and parameters), one after the other, each top named after its layer."""
    param = caffe_pb2.NetParameter(name=name, input=["data"])
    param.input_shape.add().dim.extend(shape)
    last = "data"
    for layer_name, text in layers:
        layer = text_format.Parse(f'type: "{text}', param.layer.add())
        layer.name = layer_name
        layer.bottom.append(last)
        layer.top.append(layer_name)
        last = layer_name
    return caffe_lite.Net.from_param(param)
