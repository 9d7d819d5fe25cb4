"""Summaries: published costs, hand-counted small nets, shapes that are given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import caffe_lite
from caffe_lite import models, summary
from caffe_lite.cli import main

NET = """
name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 4 dim: 5 dim: 6 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 6 kernel_size: 3 group: 2 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "up" type: "Deconvolution" bottom: "conv" top: "up"
        convolution_param { num_output: 3 kernel_size: 2 stride: 2 bias_term: false } }
layer { name: "a" type: "InnerProduct" bottom: "up" top: "a" inner_product_param { num_output: 7 } param { name: "w" } }
layer { name: "b" type: "InnerProduct" bottom: "up" top: "b" inner_product_param { num_output: 7 } param { name: "w" } }
"""


def build(tmp_path: Path, text: str = NET) -> caffe_lite.Net:
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    return caffe_lite.Net(path, caffe_lite.TEST)


def test_a_net_counted_by_hand(tmp_path: Path) -> None:
    net = build(tmp_path)
    rows = {row.name: (row.type, row.tops, row.parameters, row.multiply_adds) for row in summary.rows(net)}
    assert rows == {
        "data": ("Input", [(2, 4, 5, 6)], 0, 0),
        "conv": ("Convolution", [(2, 6, 3, 4)], 6 * 2 * 9 + 6, 2 * 6 * 3 * 4 * (2 * 9)),
        "relu": ("ReLU", [(2, 6, 3, 4)], 0, 0),
        "up": ("Deconvolution", [(2, 3, 6, 8)], 6 * 3 * 4, 2 * 6 * 3 * 4 * (3 * 4)),
        "a": ("InnerProduct", [(2, 7)], 144 * 7 + 7, 2 * 144 * 7),
        "b": ("InnerProduct", [(2, 7)], 7, 2 * 144 * 7),  # its weights are counted with a's
    }
    parameters = 114 + 72 + 1015 + 7
    blobs = 240 + 144 + 288 + 14 + 14  # relu is in place, the split of "up" shares its memory
    gradients = 144 + 288 * 3 + 14 + 14  # of "up" and of both its copies; the image needs none
    assert summary.memory(net) == summary.Memory(
        4 * (parameters + blobs), 4 * (3 * parameters + blobs + gradients), 4 * parameters
    )


@pytest.mark.parametrize(
    ("name", "parameters", "giga"), [("ResNet-50", 25.61, 3.86), ("GoogLeNet", 7.00, 1.58), ("VGG16", 138.36, 15.47)]
)
def test_published_costs_of_one_image(name: str, parameters: float, giga: float) -> None:
    net = caffe_lite.Net(models.path(f"classification/{name}/deploy.prototxt"), caffe_lite.TEST)
    net.blobs["data"].reshape(1, 3, 224, 224)
    net.reshape()
    rows = summary.rows(net)
    assert sum(row.parameters for row in rows) / 1e6 == pytest.approx(parameters, abs=0.005)
    assert sum(row.multiply_adds for row in rows) / 1e9 == pytest.approx(giga, abs=0.005)


def test_recurrent_products() -> None:
    """An LSTM of D units over T steps of N streams: 4 D (I + D) products for each step and stream, 4 D S once."""
    shapes = "shape { dim: 5 dim: 2 dim: 3 } shape { dim: 5 dim: 2 } shape { dim: 2 dim: 6 }"
    from google.protobuf import text_format

    from caffe_lite.proto import caffe_pb2

    text = (
        f'layer {{ name: "in" type: "Input" top: "x" top: "cont" top: "s" input_param {{ {shapes} }} }}'
        'layer { name: "lstm" type: "LSTM" bottom: "x" bottom: "cont" bottom: "s" top: "h" recurrent_param { num_output: 4 } }'
    )
    net = caffe_lite.Net.from_param(text_format.Parse(text, caffe_pb2.NetParameter()))
    assert summary.rows(net)[-1].multiply_adds == 5 * 2 * 16 * (3 + 4) + 2 * 16 * 6


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(tmp_path)
    path = str(tmp_path / "net.prototxt")
    assert main(["summary", path]) == 0
    text = capsys.readouterr().out
    assert "1,015" in text and "2x6x3x4" in text and "up_up_0_split" not in text
    columns = {len(line) for line in text.splitlines() if line.startswith("---")}
    assert len(columns) == 1 and all(len(line) <= columns.copy().pop() for line in text.splitlines())
    assert main(["summarize", path, "--json", "--shape", "data=4,4,5,6"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["net"] == "small" and found["layers"][1]["tops"] == [[4, 6, 3, 4]]
    assert main(["summary", path, "--shape", "date=1,4,5,6"]) == 1
    assert "did you mean 'data'" in capsys.readouterr().err
