"""Each layer type in ONNX: onnxruntime computes what the net computes, at sizes other than those of the export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caffe_lite.errors import NetError
from caffe_lite.export import onnx as exporter
from caffe_lite.export.onnx_layers import converters
from tests.export.layer_cases import CASES, MAP, fill, names, one_layer_net, type_of

pytest.importorskip("onnxruntime", reason="needs the extra onnx")


@pytest.mark.parametrize(("layer", "shapes", "tops"), CASES, ids=names(CASES))
def test_layer(tmp_path: Path, layer: str, shapes: list[tuple[int, ...]], tops: int) -> None:
    net = one_layer_net(layer, shapes, tops)
    kind = net.layers[1].type
    path = tmp_path / "layer.onnx"
    opset = exporter.OPSETS[(len(layer) + tops) % len(exporter.OPSETS)]  # all of them are met
    exporter.export_onnx(net, path, opset, dynamic=kind != "SPP")
    for larger in (0, 1):
        if larger and exporter.find_open_axes(net)["x0"] & {0} and kind not in ("SPP", "LSTMUnit"):
            n = net.blobs["x0"].shape[0]
            for name in net.inputs:  # one image more
                if net.blobs[name].shape[0] == n:
                    net.blobs[name].reshape(n + 1, *net.blobs[name].shape[1:])
        fill(net)
        for recurrent in net.layers:
            recurrent.forget()
        expected = {name: values.copy() for name, values in net.forward().items()}
        found = exporter.run_onnx(path, {name: net.blobs[name].data.copy() for name in net.inputs})
        assert list(found) == list(expected)
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=2e-5, atol=2e-6)
            assert found[name].shape == values.shape


def test_every_converter_is_tried() -> None:
    tried = {type_of(case) for case in CASES}
    assert set(converters) - tried == {"Silence", "Parameter"}  # in test_onnx_nets


def test_every_opset_is_tried() -> None:
    assert {(len(c[0]) + c[2]) % len(exporter.OPSETS) for c in CASES} == set(range(len(exporter.OPSETS)))


@pytest.mark.parametrize(
    ("layer", "shapes", "reason"),
    [
        ('type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }', MAP, "no pool: STOCHASTIC"),
        ('type: "Pooling" pooling_param { kernel_size: 1 stride: 2 }', MAP, "windows may be empty"),
        ('type: "BatchNorm" batch_norm_param { use_global_stats: false }', MAP, "statistics of the batch"),
        ('type: "SPP" spp_param { pyramid_height: 2 }', MAP, "--fixed"),
        ('type: "HingeLoss"', [(3, 4), (3,)], "ONNX has no counterpart"),
    ],
)
def test_what_cannot_be_exported(tmp_path: Path, layer: str, shapes: list[tuple[int, ...]], reason: str) -> None:
    with pytest.raises(NetError, match=rf"'layer' \(\w+\): .*{reason}"):
        exporter.export_onnx(one_layer_net(layer, shapes, 1), tmp_path / "layer.onnx")
    assert not list(tmp_path.iterdir())
