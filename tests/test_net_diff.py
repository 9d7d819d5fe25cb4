"""diff: what is only here, only there, and changed."""

from __future__ import annotations

from pathlib import Path

import pytest

import caffe_lite
from caffe_lite import models, net_diff
from caffe_lite.cli import main

NET = """
name: "net"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 dim: 4 dim: 4 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 3 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 2 } }
"""


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_equal_nets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = write(tmp_path / "a", NET), write(tmp_path / "b", "# comments do not count\n" + NET)
    assert main(["diff", a, b]) == 0
    assert capsys.readouterr().out == "no difference\n"


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("num_output: 3", "num_output: 4", "~ conv: convolution_param.num_output: 3 -> 4"),
        ("pad: 1", "", "~ conv: convolution_param.pad: [1] -> []"),
        ('"xavier"', '"msra"', "~ conv: convolution_param.weight_filler.type: 'xavier' -> 'msra'"),
        ("kernel_size: 2 }", "kernel_size: 2 pool: AVE }", "~ pool: pooling_param.pool: MAX -> AVE"),
        ('name: "net"', 'name: "ten"', "~ name: 'net' -> 'ten'"),
        ('name: "relu"', 'name: "relu1"', "+ relu1 (ReLU): conv -> conv"),
    ],
)
def test_one_change(tmp_path: Path, old: str, new: str, line: str) -> None:
    a, b = write(tmp_path / "a", NET), write(tmp_path / "b", NET.replace(old, new, 1))
    found = net_diff.definitions(a, b)
    assert found == (["- relu (ReLU): conv -> conv", line] if "relu1" in line else [line])


def test_train_val_and_deploy_of_a_shipped_net() -> None:
    folder = models.path("classification/LeNet/deploy.prototxt").parent
    found = net_diff.definitions(folder / "train_val.prototxt", folder / "deploy.prototxt")
    assert [line for line in found if line[0] == "+"] == ["+ data (Input): data", "+ prob (Softmax): ip2 -> prob"]
    assert sum(line.startswith("- mnist (Data)") for line in found) == 2, "one for each phase"


def test_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prototxt = write(tmp_path / "net.prototxt", NET)
    net = caffe_lite.Net(prototxt, caffe_lite.TEST)
    a, b = str(tmp_path / "a.caffemodel"), str(tmp_path / "b.caffemodel")
    net.save(a)
    net.save(b)
    assert main(["diff", a, b]) == 0
    net.params["conv"][0].data[0, 0, 0, :2] += 0.5
    net.save(b)
    capsys.readouterr()
    assert main(["diff", a, b]) == 1
    assert capsys.readouterr().out == "~ conv[0]: 2 of 54 values, by at most 0.5\n"
