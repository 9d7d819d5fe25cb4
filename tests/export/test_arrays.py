"""Parameters as named arrays: names by one rule, values and shapes those of the net, shared ones once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

import caffe_lite
from caffe_lite.cli import main
from caffe_lite.export import arrays
from caffe_lite.proto import caffe_pb2

GAUSS = 'weight_filler { type: "gaussian" } bias_filler { type: "gaussian" }'
NET = f"""
name: "small"
layer {{ name: "in" type: "Input" top: "x" top: "cont"
         input_param {{ shape {{ dim: 2 dim: 3 dim: 4 }} shape {{ dim: 2 dim: 3 }} }} }}
layer {{ name: "lstm/1" type: "LSTM" bottom: "x" bottom: "cont" top: "h"
         recurrent_param {{ num_output: 5 weight_filler {{ type: "gaussian" }} }} }}
layer {{ name: "norm" type: "BatchNorm" bottom: "h" top: "n" }}
layer {{ name: "scale" type: "Scale" bottom: "n" top: "n" scale_param {{ bias_term: true }} }}
layer {{ name: "prelu" type: "PReLU" bottom: "n" top: "n" }}
layer {{ name: "bias" type: "Bias" bottom: "n" top: "n" bias_param {{ filler {{ type: "gaussian" }} }} }}
layer {{ name: "a" type: "InnerProduct" bottom: "n" top: "a" param {{ name: "w" }}
         inner_product_param {{ num_output: 7 {GAUSS} }} }}
layer {{ name: "b" type: "InnerProduct" bottom: "n" top: "b" param {{ name: "w" }}
         inner_product_param {{ num_output: 7 {GAUSS} }} }}
layer {{ name: "p" type: "Parameter" top: "p" parameter_param {{ shape {{ dim: 2 }} }} }}
"""
SHAPES = {
    "lstm/1.input_weight": (20, 4), "lstm/1.bias": (20,), "lstm/1.hidden_weight": (20, 5),
    "norm.mean": (3,), "norm.variance": (3,), "norm.scale_factor": (1,),
    "scale.weight": (3,), "scale.bias": (3,), "prelu.weight": (3,), "bias.bias": (3,),
    "a.weight": (7, 15), "a.bias": (7,), "b.bias": (7,), "p.0": (2,),
}  # fmt: skip


@pytest.fixture
def net() -> Any:
    return caffe_lite.Net.from_param(text_format.Parse(NET, caffe_pb2.NetParameter()))


def test_names_and_shapes(net: Any) -> None:
    found = arrays.named_arrays(net)
    assert {name: array.shape for name, array in found.items()} == SHAPES
    assert found["b.bias"] is not found["a.bias"]
    np.testing.assert_array_equal(found["lstm/1.hidden_weight"], net.params["lstm/1"][2].data)


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_a_file_gives_back_the_net(net: Any, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"small.{ending}"
    if ending == "npz":
        arrays.export_npz(net, path)
        with np.load(path, allow_pickle=False) as stored:
            found = dict(stored)
    else:
        package = pytest.importorskip("safetensors.numpy", reason="needs the extra safetensors")
        arrays.export_safetensors(net, path)
        found = package.load_file(path)
    assert set(found) == set(SHAPES)
    for layer, i, name in arrays.parameter_owners(net):
        np.testing.assert_array_equal(found[name], net.params[layer.name][i].data)
        assert found[name].dtype == np.float32


def test_command(net: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prototxt, weights, out = (str(tmp_path / name) for name in ("net.prototxt", "net.caffemodel", "net.npz"))
    Path(prototxt).write_text(NET)
    net.save(weights)
    assert main(["export", prototxt, weights, "-o", out]) == 0
    numbers = sum(int(np.prod(shape)) for shape in SHAPES.values())
    assert f"14 arrays, {numbers} numbers" in capsys.readouterr().out
    assert main(["export", prototxt, weights, "-o", out, "--fold"]) == 1
    assert "--fold is for .onnx files" in capsys.readouterr().err
    assert main(["export", prototxt, weights, "-o", out, "--check"]) == 1
    assert "no layers to run" in capsys.readouterr().err


def test_without_the_package(net: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "safetensors.numpy", None)
    with pytest.raises(caffe_lite.CaffeError, match=r"caffe-lite\[safetensors\]"):
        arrays.export_safetensors(net, tmp_path / "net.safetensors")
    assert not list(tmp_path.iterdir())
