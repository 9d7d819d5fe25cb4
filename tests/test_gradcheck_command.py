"""``caffe-lite gradcheck``: what it finds, what it says, its exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from caffe_lite.cli import main

NET = """
layer { name: "data" type: "Input" top: "data" top: "label" top: "weights"
        input_param { shape { dim: 4 dim: 6 } shape { dim: 4 } shape { dim: 4 dim: 3 } } }
layer { name: "square" type: "Python" bottom: "data" top: "square" python_param { module: "MODULE" layer: "LAYER" } }
layer { name: "ip" type: "InnerProduct" bottom: "square" top: "ip" inner_product_param { num_output: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "box" type: "SmoothL1Loss" bottom: "ip" bottom: "weights" bottom: "weights" top: "box" loss_weight: 1 }
"""
LAYERS = """
import caffe_lite

class Square(caffe_lite.Layer):
    factor = 2

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data ** 2

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = self.factor * bottom[0].data * top[0].diff

class Wrong(Square):
    factor = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A folder with the net and, in a module of its own name, the user's layers; it is the working directory."""
    monkeypatch.chdir(tmp_path)
    module = f"layers_of_{abs(hash(request.node.name))}"
    Path(f"{module}.py").write_text(LAYERS)
    return module


def write(module: str, layer: str) -> None:
    Path("net.prototxt").write_text(NET.replace("MODULE", module).replace("LAYER", layer))


def test_right_gradients_pass_and_a_faithful_rule_that_is_none_is_named(folder: str, capsys) -> None:
    write(folder, "Square")
    assert main(["gradcheck", "net.prototxt"]) == 0
    out = capsys.readouterr().out
    assert "0 wrong" in out and "by rule: layer 'box': with three bottoms the weights are not in the gradient" in out
    assert {line.split()[0] for line in out.splitlines()} >= {"square", "ip", "loss", "box"}


def test_a_wrong_gradient_of_a_users_layer_fails(folder: str, capsys) -> None:
    write(folder, "Wrong")
    assert main(["gradcheck", "net.prototxt", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    wrong = {row["layer"] for row in report["rows"] if row["verdict"] == "WRONG"}
    assert not report["ok"] and wrong == {"square"}
    row = next(row for row in report["rows"] if row["layer"] == "square")
    assert row["analytic"] / row["numeric"] == pytest.approx(1.5, rel=1e-6)


def test_one_layer_element_by_element(folder: str, capsys) -> None:
    write(folder, "Wrong")
    assert main(["gradcheck", "net.prototxt", "--layer", "ip", "--exhaustive", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["layer"] for row in rows} == {"ip"} and len(rows) == 4 * 6 + 3 * 6 + 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["net.prototxt", "--layer", "ipp"], "no layer 'ipp'; did you mean 'ip'?"),
        (["nowhere.prototxt"], "nowhere.prototxt"),
        (["net.prototxt", "--weights", "no.caffemodel"], "no.caffemodel"),
    ],
)
def test_mistakes_are_one_line_and_exit_status_1(folder: str, capsys, arguments: list[str], message: str) -> None:
    write(folder, "Square")
    assert main(["gradcheck", *arguments]) == 1
    err = capsys.readouterr().err
    assert err.startswith("caffe-lite: error: ") and message in err and err.count("\n") == 1
