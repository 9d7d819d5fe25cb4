"""Whole nets in ONNX: equal in onnxruntime and in OpenCV, names kept, sizes left open, batch norms folded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from google.protobuf import text_format

import caffe_lite
from caffe_lite import models
from caffe_lite.cli import main
from caffe_lite.export import onnx as exporter
from caffe_lite.proto import caffe_pb2
from tests.export.nets import DEPLOY_NETS, random_net

pytest.importorskip("onnxruntime", reason="needs the extra onnx")

OPENCV = int(cv2.__version__.split(".")[0])


def images(net: Any, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    shape = (count, *net.blobs["data"].shape[1:])
    net.blobs["data"].reshape(*shape)
    return {"data": np.random.default_rng(seed).standard_normal(shape).astype(np.float32)}


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float = 2e-5) -> None:
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].shape == values.shape
        np.testing.assert_allclose(found[name], values, rtol=0, atol=tolerance * np.abs(values).max())


def run_opencv(path: Path, inputs: dict[str, np.ndarray], outputs: list[str]) -> dict[str, np.ndarray]:
    net = cv2.dnn.readNetFromONNX(str(path))
    for name, values in inputs.items():
        net.setInput(values, name)
    return dict(zip(outputs, net.forward(outputs), strict=True))


@pytest.mark.parametrize("name", DEPLOY_NETS)
def test_deploy_nets(tmp_path: Path, name: str) -> None:
    net, path = random_net(f"classification/{name}/deploy.prototxt"), tmp_path / "net.onnx"
    exporter.export_onnx(net, path)
    for count in (1, 2):  # the file was written for another number
        inputs = images(net, count)
        expected = {n: v.copy() for n, v in net.forward(**inputs).items()}
        assert_equal(exporter.run_onnx(path, inputs), expected)
        if OPENCV >= 5:
            assert_equal(run_opencv(path, inputs, list(expected)), expected)


@pytest.mark.parametrize(
    "name", ["mini", *(pytest.param(n, marks=pytest.mark.soak) for n in ("CaffeNet", "VGG_CNN_M_1024", "VGG16"))]
)
def test_fast_rcnn_nets(tmp_path: Path, name: str) -> None:
    """Images of two sizes, other numbers of regions. (OpenCV 5.0 has no MaxRoiPool.)"""
    net, path = random_net(f"{name}/test.prototxt"), tmp_path / "net.onnx"
    model = exporter.export_onnx(net, path)
    assert "MaxRoiPool" in {node.op_type for node in model.graph.node}
    for height, width, regions in ((160, 203, 5), (231, 150, 9)):
        rng = np.random.default_rng(height)
        corners = np.sort(rng.uniform(0, (width - 1, height - 1), (regions, 2, 2)), axis=1).reshape(-1, 4)
        inputs = {
            "data": rng.standard_normal((1, 3, height, width)).astype(np.float32),
            "rois": np.column_stack([np.zeros(regions), corners]).astype(np.float32),
        }
        for key, values in inputs.items():
            net.blobs[key].reshape(*values.shape)
        expected = {n: v.copy() for n, v in net.forward(**inputs).items()}
        assert_equal(exporter.run_onnx(path, inputs), expected)


def test_folded_batch_norms(tmp_path: Path) -> None:
    net = random_net("classification/ResNet-50/deploy.prototxt")
    inputs = images(net, 1)
    expected = {n: v.copy() for n, v in net.forward(**inputs).items()}
    plain = exporter.build_model(net)
    weights = net.params["conv1"][0].data.copy()
    model = exporter.export_onnx(net, tmp_path / "folded.onnx", fold=True)
    operators = [node.op_type for node in model.graph.node]
    assert "BatchNormalization" not in operators and operators.count("Conv") == 53
    assert len(plain.graph.node) - len(model.graph.node) == 53 * 3, "BatchNormalization, Mul and Add of each"
    assert_equal(exporter.run_onnx(tmp_path / "folded.onnx", inputs), expected)
    np.testing.assert_array_equal(net.params["conv1"][0].data, weights)


NET = """
layer { name: "in" type: "Input" top: "data" top: "unused" input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }
layer { name: "p" type: "Parameter" top: "p" parameter_param { shape { dim: 2 dim: 3 } } }
layer { name: "relu" type: "ReLU" bottom: "data" top: "data" }
layer { name: "drop" type: "Dropout" bottom: "data" top: "dropped" }
layer { name: "sum" type: "Eltwise" bottom: "dropped" bottom: "p" top: "sum" }
layer { name: "exp" type: "Exp" bottom: "sum" top: "sum" }
layer { name: "twice" type: "Power" bottom: "sum" top: "sum" power_param { scale: 2 } }
layer { name: "copy" type: "Reshape" bottom: "dropped" top: "copy" reshape_param { shape { dim: 0 dim: 0 } } }
layer { name: "quiet" type: "Silence" bottom: "unused" }
"""


def test_in_place_layers_aliases_and_unused_inputs(tmp_path: Path) -> None:
    net = caffe_lite.Net.from_param(text_format.Parse(NET, caffe_pb2.NetParameter()))
    net.params["p"][0].data[...] = np.arange(6).reshape(2, 3)
    model = exporter.export_onnx(net, tmp_path / "net.onnx", dynamic=False)
    assert [v.name for v in model.graph.input] == ["data", "unused"]
    assert [v.name for v in model.graph.output] == net.outputs == ["copy", "sum"]
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    found = exporter.run_onnx(tmp_path / "net.onnx", {"data": x, "unused": np.zeros(2, np.float32)})
    rectified = np.maximum(x, 0)
    np.testing.assert_allclose(found["sum"], 2 * np.exp(rectified + np.arange(6).reshape(2, 3)), rtol=1e-6)
    np.testing.assert_array_equal(found["copy"], rectified)


def open_sizes(model: Any) -> dict[str, list[Any]]:
    return {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*model.graph.input, *model.graph.output)
    }


def test_open_sizes() -> None:
    detector = exporter.build_model(caffe_lite.Net(models.path("mini/test.prototxt"), caffe_lite.TEST))
    sizes = open_sizes(detector)
    assert sizes["data"] == ["data_0", 3, "data_2", "data_3"] and sizes["rois"] == ["rois_0", 5]
    assert sizes["cls_prob"] == ["cls_prob_0", 7]
    lenet = caffe_lite.Net(models.path("classification/LeNet/deploy.prototxt"), caffe_lite.TEST)
    assert open_sizes(exporter.build_model(lenet))["data"] == ["data_0", 1, 28, 28], "ip1 needs this size"
    assert open_sizes(exporter.build_model(lenet, dynamic=False))["data"] == [64, 1, 28, 28]
    assert lenet.blobs["data"].shape == (64, 1, 28, 28), "the net is as it was"


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = random_net("classification/LeNet/deploy.prototxt")
    weights, out = str(tmp_path / "lenet.caffemodel"), str(tmp_path / "lenet.onnx")
    net.save(weights)
    prototxt = "models/classification/LeNet/deploy.prototxt"
    assert main(["export", prototxt, weights, "-o", out, "--check"]) == 0
    text = capsys.readouterr().out
    assert "input  data: data_0, 1, 28, 28" in text and "differs from caffe_lite by" in text
    assert main(["export", prototxt, weights, "-o", out, "--opset", "12"]) == 1
    assert "opset must be 13 to 21, got 12" in capsys.readouterr().err
    assert main(["export", prototxt, weights, "-o", str(tmp_path / "lenet.tflite")]) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lenet.caffemodel", "lenet.onnx"]


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    net = caffe_lite.Net(models.path("classification/LeNet/deploy.prototxt"), caffe_lite.TEST)
    with pytest.raises(caffe_lite.CaffeError, match=r"caffe-lite\[onnx\]"):
        exporter.export_onnx(net, tmp_path / "net.onnx")


def test_check_leaves_the_parameters_alone(tmp_path: Path) -> None:
    """Biases of zero, as many nets have them, are what was exported, and what the file is compared with."""
    net = random_net("classification/LeNet/deploy.prototxt")
    net.params["conv1"][1].data[...] = 0
    exporter.export_onnx(net, tmp_path / "net.onnx")
    assert exporter.compare(net, tmp_path / "net.onnx")["prob"] < 1e-5
    assert not net.params["conv1"][1].data.any()
