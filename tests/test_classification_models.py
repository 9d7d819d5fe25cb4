"""The classification nets that ship: published numbers of parameters, shapes, and a run on random weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import caffe_lite
from caffe_lite import models, prototxt
from caffe_lite.proto import caffe_pb2

FOLDER = models.path("classification/LeNet/deploy.prototxt").parents[1]

# name: (parameters, shapes after each stage). BatchNorm's statistics are not counted: they are not trained.
# Published: AlexNet 60,965,224; VGG16 138,357,544; VGG19 143,667,240; SqueezeNet 1.1 1,235,496; ResNet-50
# 25,557,032 and ResNet-101 44,549,160, without the 64 biases that conv1 of ResNet-50 has in Caffe's file.
NETS: dict[str, tuple[int, dict[str, tuple[int, ...]]]] = {
    "LeNet": (431_080, {"pool2": (50, 4, 4), "prob": (10,)}),
    "CIFAR10_quick": (145_578, {"pool3": (64, 4, 4), "prob": (10,)}),
    "CIFAR10_full": (89_578, {"pool3": (64, 4, 4), "prob": (10,)}),
    "AlexNet": (60_965_224, {"conv1": (96, 55, 55), "pool5": (256, 6, 6), "prob": (1000,)}),
    "CaffeNet": (60_965_224, {"pool1": (96, 27, 27), "pool5": (256, 6, 6), "prob": (1000,)}),
    "VGG_CNN_F": (60_834_536, {"conv1": (64, 54, 54), "pool5": (256, 6, 6), "prob": (1000,)}),
    "VGG_CNN_M": (102_908_520, {"conv1": (96, 109, 109), "pool5": (512, 6, 6), "prob": (1000,)}),
    "VGG_CNN_M_2048": (92_469_864, {"fc7": (2048,), "prob": (1000,)}),
    "VGG_CNN_M_1024": (87_250_536, {"fc7": (1024,), "prob": (1000,)}),
    "VGG_CNN_S": (102_908_520, {"pool1": (96, 37, 37), "pool5": (512, 6, 6), "prob": (1000,)}),
    "VGG16": (138_357_544, {"pool5": (512, 7, 7), "prob": (1000,)}),
    "VGG19": (143_667_240, {"pool5": (512, 7, 7), "prob": (1000,)}),
    "NIN": (7_595_176, {"pool3": (384, 6, 6), "pool4": (1000, 1, 1), "prob": (1000, 1, 1)}),
    "GoogLeNet": (6_998_552, {"inception_3a/output": (256, 28, 28), "pool5/7x7_s1": (1024, 1, 1), "prob": (1000,)}),
    "SqueezeNet_1.1": (1_235_496, {"fire9/concat": (512, 14, 14), "prob": (1000, 1, 1)}),
    "ResNet-50": (25_557_096, {"pool1": (64, 56, 56), "res5c": (2048, 7, 7), "prob": (1000,)}),
    "ResNet-101": (44_549_160, {"res4b22": (1024, 14, 14), "res5c": (2048, 7, 7), "prob": (1000,)}),
}
TRAINED = ("LeNet", "CIFAR10_quick", "CIFAR10_full", "AlexNet", "CaffeNet", "NIN", "GoogLeNet", "SqueezeNet_1.1")


def test_every_folder_is_in_the_table() -> None:
    assert {p.name for p in FOLDER.iterdir() if p.is_dir()} == set(NETS)
    assert {p.parent.name for p in FOLDER.glob("*/train_val.prototxt")} == set(TRAINED)


@pytest.mark.parametrize("name", NETS)
def test_parameters_shapes_and_a_run(name: str) -> None:
    """One image forward and backward: probabilities that sum to one, and a gradient that reaches the image."""
    count, shapes = NETS[name]
    net = one_image_net(name)
    assert trained_count(net) == count
    assert {blob: net.blobs[blob].shape[1:] for blob in shapes} == shapes
    randomise(net)
    probabilities = net.forward()["prob"].reshape(-1)
    assert probabilities.sum() == pytest.approx(1, abs=1e-4)
    net.blobs["prob"].diff[...] = 0
    net.blobs["prob"].diff.reshape(-1)[int(probabilities.argmin())] = 1
    gradient = net.backward()["data"]
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def one_image_net(name: str) -> Any:
    param, positions = prototxt.read_net(str(FOLDER / name / "deploy.prototxt"))
    param.force_backward = True
    net = caffe_lite.Net.from_param(param, positions)
    net.blobs["data"].reshape(1, *net.blobs["data"].shape[1:])
    net.reshape()
    return net


def trained_count(net: Any) -> int:
    return sum(
        math.prod(blob.shape)
        for name, blobs in net.params.items()
        if net.layer_dict[name].type != "BatchNorm"
        for blob in blobs
    )


def randomise(net: Any) -> None:
    """Weights that keep the size of what passes through them; statistics of mean 0 and variance 1."""
    rng = np.random.default_rng(0)
    for name, blobs in net.params.items():
        if net.layer_dict[name].type == "BatchNorm":
            blobs[1].data[...] = blobs[2].data[...] = 1
            continue
        weight = blobs[0].data
        fan_in = math.prod(weight.shape[1:])
        if net.layer_dict[name].type == "Scale":
            weight[...] = 0.5
        else:
            rng.random(dtype="float32", out=weight)  # uniform, of variance 2 / fan_in
            weight -= 0.5
            weight *= (24 / fan_in) ** 0.5
    data = net.blobs["data"].data
    data[...] = rng.standard_normal(data.shape)


@pytest.mark.parametrize("name", TRAINED)
def test_train_val_has_the_trunk_of_deploy(name: str) -> None:
    """Trained weights pass to deploy by layer name: every layer with parameters has the same ones in both."""
    trained, deployed = (
        {
            layer.name: (layer.type, list(layer.bottom), layer.convolution_param.num_output, *kernel(layer))
            for layer in prototxt.read_net(str(FOLDER / name / f"{part}.prototxt"))[0].layer
            if layer.type in ("Convolution", "InnerProduct")
        }
        for part in ("train_val", "deploy")
    )
    auxiliary = {n for n in trained if n.startswith(("loss1/", "loss2/"))}
    assert {n: v for n, v in trained.items() if n not in auxiliary} == deployed
    assert bool(auxiliary) == (name == "GoogLeNet")


def kernel(layer: Any) -> tuple[Any, ...]:
    conv = layer.convolution_param
    return list(conv.kernel_size), list(conv.stride), list(conv.pad), conv.group, layer.inner_product_param.num_output


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*/*solver*.prototxt")), ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_solvers_name_a_shipped_net(path: Path) -> None:
    param, _ = prototxt.read_solver(str(path))
    net = models.resolve(param.net)
    assert net.is_file() and net.resolve().parent == path.resolve().parent
    assert len(param.test_iter) == 1 and param.test_interval > 0 and param.max_iter > 0
    assert param.snapshot_prefix and param.weight_decay > 0


@pytest.mark.parametrize("name", TRAINED)
def test_train_val_trains(name: str) -> None:
    """With random data in place of the database: the loss of random guessing, and gradients everywhere."""
    param, positions = prototxt.read_net(str(FOLDER / name / "train_val.prototxt"))
    source = next(layer for layer in param.layer if layer.type == "Data")
    size = source.transform_param.crop_size or {"LeNet": 28}.get(name, 32)
    channels = 1 if name == "LeNet" else 3
    classes = 10 if size < 100 else 1000
    for layer in [layer for layer in param.layer if layer.type == "Data"][1:]:
        param.layer.remove(layer)
    replace_by_random(source, (1, channels, size, size))
    param.state.phase = caffe_pb2.TRAIN
    net = caffe_lite.Net.from_param(param, positions)
    net.forward()
    losses = {n: float(net.blobs[n].data) for n, weight in net.blob_loss_weights.items() if weight}
    assert losses and all(abs(loss - math.log(classes)) < 2.5 for loss in losses.values())
    net.backward()
    assert all(np.isfinite(blob.diff).all() for blob in net.learnable_params)


def replace_by_random(layer: Any, shape: tuple[int, ...]) -> None:
    layer.type = "DummyData"
    layer.ClearField("data_param")
    layer.ClearField("transform_param")
    for dims, filler in ((shape, caffe_pb2.FillerParameter(type="gaussian", std=1)), ((shape[0],), None)):
        layer.dummy_data_param.shape.add().dim.extend(dims)
        layer.dummy_data_param.data_filler.add().CopyFrom(filler or caffe_pb2.FillerParameter(type="constant"))
