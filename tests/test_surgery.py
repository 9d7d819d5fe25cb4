"""Surgery: the published Fast R-CNN nets come out of the classification nets, and what comes out trains and detects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import caffe_lite
from caffe_lite import caffemodel, models, prototxt, surgery, upgrade
from caffe_lite.cli import main
from caffe_lite.data.config import preserved_cfg
from caffe_lite.errors import NetError, WeightsError
from caffe_lite.fast_rcnn import cli as fast_rcnn

TINY = ["--set", "TRAIN.SCALES", "(64,)", "TEST.SCALES", "(64,)", "TRAIN.BATCH_SIZE", "16"]
SMALL = """
name: "small net"
layer { name: "image" type: "Data" top: "image" top: "label" include { phase: TRAIN } transform_param { crop_size: 33 } }
layer { name: "image" type: "Data" top: "image" top: "label" include { phase: TEST } transform_param { crop_size: 33 } }
layer { name: "conv1" type: "Convolution" bottom: "image" top: "conv1"
        convolution_param { num_output: 4 kernel_size: 5 stride: 2 weight_filler { type: "gaussian" std: 0.003 } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2"
        convolution_param { num_output: 6 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "pool2" type: "Pooling" bottom: "conv2" top: "pool2" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "fc3" type: "InnerProduct" bottom: "pool2" top: "fc3"
        inner_product_param { num_output: 8 weight_filler { type: "xavier" } } }
layer { name: "relu3" type: "ReLU" bottom: "fc3" top: "fc3" }
layer { name: "fc4" type: "InnerProduct" bottom: "fc3" top: "fc4"
        inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "fc4" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc4" bottom: "label" top: "loss" }
"""  # conv1 33 -> 15, pool1 -> 8, pool2 -> 4: RoI pooling 4 x 4 at stride 4
DEPLOY = """
input: "image" input_shape { dim: 1 dim: 3 dim: 33 dim: 33 }
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    Path("train_val.prototxt").write_text(SMALL)
    with preserved_cfg():
        yield tmp_path


def upgraded(name: str) -> Any:
    param, _ = prototxt.read_net(models.path(name))
    upgrade.upgrade_net(param)
    return param


@pytest.mark.parametrize(
    ("source", "published"),
    [("VGG16", "VGG16"), ("VGG_CNN_M_1024", "VGG_CNN_M_1024"), ("CaffeNet", "CaffeNet")],
)
def test_the_published_nets_come_out(source: str, published: str) -> None:
    """Layer for layer and field for field; CaffeNet's is the one with padding that the classifier has not."""
    path = models.path(f"classification/{source}/deploy.prototxt")
    made = surgery.operate(path, 20, same_padding=published == "CaffeNet")
    for found, part in ((made.train, "train"), (made.test, "test")):
        upgrade.upgrade_net(found)
        expected = upgraded(f"{published}/{part}.prototxt")
        assert [layer.name for layer in found.layer] == [layer.name for layer in expected.layer]
        for mine, theirs in zip(found.layer, expected.layer, strict=True):
            assert normal(mine) == normal(theirs), mine.name
    solver, _ = prototxt.read_solver(models.path(f"{published}/solver.prototxt"))
    surgery.write(made, "out")
    mine, _ = prototxt.read_solver("out/solver.prototxt")
    for name in ("train_net", "snapshot_prefix"):
        solver.ClearField(name)
        mine.ClearField(name)
    assert mine == solver


def normal(layer: Any) -> Any:
    """``layer`` without what has no effect: a field that is its default, fillers of a net that is only tested."""
    copy = caffe_lite.proto.caffe_pb2.LayerParameter()
    copy.CopyFrom(layer)
    copy.ClearField("input_param")
    for param in (copy.lrn_param, copy.pooling_param, copy.convolution_param, copy.dropout_param, copy.python_param):
        for field, value in param.ListFields():
            if not hasattr(value, "append") and value == field.default_value:
                param.ClearField(field.name)
    if copy.type == "InnerProduct" and not copy.param:
        copy.inner_product_param.ClearField("weight_filler")
        copy.inner_product_param.ClearField("bias_filler")
    return prototxt.write(copy)


@pytest.mark.parametrize(
    ("name", "pooled", "stride", "frozen"),
    [
        ("AlexNet", 6, 16, ["conv1"]),
        ("VGG_CNN_F", 6, 16, ["conv1"]),
        ("VGG_CNN_M", 6, 16, ["conv1"]),
        ("VGG_CNN_M_2048", 6, 16, ["conv1"]),
        ("VGG_CNN_S", 6, 12, ["conv1"]),
        ("VGG19", 7, 16, ["conv1_1", "conv1_2", "conv2_1", "conv2_2"]),
    ],
)
def test_other_nets(name: str, pooled: int, stride: int, frozen: list[str]) -> None:
    """Their strides multiplied by hand: VGG_CNN_S has 2, 3 and 2 before the last pooling."""
    made = surgery.operate(models.path(f"classification/{name}/deploy.prototxt"), 3)
    assert (made.pooled, made.stride, made.frozen) == ((pooled, pooled), stride, frozen)
    layers = {layer.name: layer for layer in made.train.layer}
    assert layers["roi_pool5"].roi_pooling_param.spatial_scale == pytest.approx(1 / stride)
    assert layers["cls_score"].inner_product_param.num_output == 4
    assert layers["bbox_pred"].inner_product_param.num_output == 16


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("GoogLeNet", "follows the AVE pooling 'pool5/7x7_s1', not a MAX one"),
        ("ResNet-50", "follows the AVE pooling 'pool5', not a MAX one"),
        ("NIN", "no fully connected layer"),
        ("SqueezeNet_1.1", "no fully connected layer"),
        ("LeNet", "have 1 channel"),
    ],
)
def test_nets_that_are_refused(name: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["surgery", f"models/classification/{name}/deploy.prototxt", "--classes", "20", "-o", "out"]
    assert main(command) == 1
    assert reason in capsys.readouterr().err and not Path("out").exists()


def rates(operation: surgery.Operation) -> dict[str, list[tuple[float, float]]]:
    return {
        layer.name: [(p.lr_mult, p.decay_mult) for p in layer.param] for layer in operation.train.layer if layer.param
    }


def test_learning_rates() -> None:
    trained, frozen = [(1, 1), (2, 0)], [(0, 0), (0, 0)]
    assert rates(surgery.operate("train_val.prototxt", 6)) == {
        "conv1": frozen, "conv2": trained, "fc3": trained, "cls_score": trained, "bbox_pred": trained,
    }  # fmt: skip
    assert rates(surgery.operate("train_val.prototxt", 6, "conv1"))["conv1"] == trained
    only_heads = surgery.operate("train_val.prototxt", 6, "relu3")
    assert only_heads.frozen == ["conv1", "conv2", "fc3"] and rates(only_heads)["fc3"] == frozen
    with pytest.raises(NetError, match="no layer 'conv9'.*conv1, relu1"):
        surgery.operate("train_val.prototxt", 6, "conv9")


def classifier_weights(path: str) -> dict[str, Any]:
    """Random weights of the classification net, without its data layers; its parameters."""
    body = SMALL.split("include { phase: TEST } transform_param { crop_size: 33 } }\n")[1].split(
        'layer { name: "accuracy"'
    )[0]
    Path("deploy.prototxt").write_text(DEPLOY + body)
    net = caffe_lite.Net("deploy.prototxt", caffe_lite.TEST)
    net.save(path)
    return {name: [blob.data.copy() for blob in blobs] for name, blobs in net.params.items()}


def test_it_trains_and_detects(devkit: str, capsys: pytest.CaptureFixture[str]) -> None:
    """From train_val and weights to detections, as a user types it."""
    weights = classifier_weights("small.caffemodel")
    assert main(["surgery", "train_val.prototxt", "small.caffemodel", "--classes", "6", "-o", "made"]) == 0
    text = capsys.readouterr().out
    assert "'pool2' -> RoI pooling 4 x 4, spatial_scale 1/4" in text and "left behind: fc4" in text
    stored = caffemodel.read_net("made/initial.caffemodel")
    assert [layer.name for layer in stored.layer if layer.blobs] == ["conv1", "conv2", "fc3"]

    command = ["train-net", "--solver", "made/solver.prototxt", "--weights", "made/initial.caffemodel"]
    assert (
        fast_rcnn.main(
            [*command, "--data", devkit, "--imdb", "synthetic_trainval", "--iters", "2", "--out", "trained", *TINY]
        )
        == 0
    )
    trained = Path("trained/small_net_fast_rcnn_iter_2.caffemodel")
    net = caffe_lite.Net("made/test.prototxt", caffe_lite.TEST, weights=trained)
    np.testing.assert_array_equal(net.params["conv1"][0].data, weights["conv1"][0])
    assert (net.params["fc3"][0].data != weights["fc3"][0]).any()

    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    cv2.imwrite("photo.png", image)
    np.savez("boxes.npz", boxes=np.array([[0, 0, 40, 40], [10, 5, 79, 59]], np.uint16))
    command = ["detect", "--def", "made/test.prototxt", "--net", str(trained), "--image", "photo.png"]
    assert fast_rcnn.main([*command, "--boxes", "boxes.npz", "--conf", "0", *TINY]) == 0
    assert "2 regions" in capsys.readouterr().out


def test_weights_that_do_not_fit_write_nothing() -> None:
    classifier_weights("small.caffemodel")
    Path("other.prototxt").write_text(SMALL.replace("num_output: 6 kernel_size: 3", "num_output: 5 kernel_size: 3"))
    with pytest.raises(WeightsError, match="conv2"):
        surgery.write(surgery.operate("other.prototxt", 6), "made", "small.caffemodel")
    assert not Path("made").exists()


def test_a_net_without_a_size_of_images() -> None:
    Path("train_val.prototxt").write_text(SMALL.replace("crop_size: 33", ""))
    with pytest.raises(NetError, match="--size"):
        surgery.operate("train_val.prototxt", 6)
    assert surgery.operate("train_val.prototxt", 6, size=33).pooled == (4, 4)


def test_a_detector_is_refused() -> None:
    with pytest.raises(NetError, match="no Fast R-CNN can be made"):
        surgery.operate(models.path("CaffeNet/test.prototxt"), 20)
