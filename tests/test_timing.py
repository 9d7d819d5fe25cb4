"""``caffe-lite time``: Caffe's lines, a time for each layer, and how convolutions are computed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import caffe_lite
from caffe_lite import timing
from caffe_lite.cli import main

NET = """
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
        shape { dim: 2 dim: 8 dim: 24 dim: 24 } shape { dim: 2 } data_filler { type: "gaussian" } data_filler { } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 8 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


@pytest.fixture
def prototxt(tmp_path: Path) -> str:
    path = tmp_path / "net.prototxt"
    path.write_text(NET)
    return str(path)


def test_lines(prototxt: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["time", "-model", prototxt, "--iterations=3", "--explain"]) == 0
    out, err = capsys.readouterr()
    lines = [line.partition("] ")[2] for line in err.splitlines()]
    assert lines[lines.index("*** Benchmark begins ***") + 1] == "Testing for 3 iterations."
    assert [bool(re.fullmatch(r"Iteration: \d forward-backward time: [\d.e-]+ ms.", line)) for line in lines].count(
        True
    ) == 3
    for name in ("data", "conv", "relu", "ip", "loss"):
        for direction in ("forward", "backward"):
            assert any(re.fullmatch(rf" *{name}\t{direction}: [\d.e-]+ ms\.", line) for line in lines)
    forward, backward, both = (
        float(next(re.findall(r"[\d.]+", line)[0] for line in lines if line.startswith(f"Average {what}")))
        for what in ("Forward pass", "Backward pass", "Forward-Backward")
    )
    assert forward > 0 and backward > 0 and both == pytest.approx(forward + backward, rel=1e-4)
    assert lines[-1] == "*** Benchmark ends ***"
    assert out == "conv  winograd  3 x 3, 72 tiles of 4 x 4 pixels\nrelu is done by conv as it writes\n"


def test_the_net_is_as_before(prototxt: str) -> None:
    net = caffe_lite.Net(prototxt, caffe_lite.TRAIN)
    found = timing.measure(net, 2)
    assert list(found.layers) == ["data", "conv", "relu", "ip", "loss"]
    assert not any(net.callbacks.values())
    assert found.layers["conv"][0] > 0 and found.layers["conv"][1] > 0
