"""The source of the PyTorch module, without PyTorch: what it says, that it compiles, that names stay names."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

import caffe_lite
from caffe_lite import models
from caffe_lite.errors import NetError
from caffe_lite.export import pytorch
from caffe_lite.export.torch_source import Identifiers, number
from caffe_lite.proto import caffe_pb2
from tests.export.nets import CONV, EVIL, LARGE, SMALL, chain


def build(text: str) -> Any:
    return caffe_lite.Net.from_param(text_format.Parse(text, caffe_pb2.NetParameter()))


def test_lenet_line_by_line() -> None:
    net = caffe_lite.Net(models.path("classification/LeNet/deploy.prototxt"), caffe_lite.TEST)
    text, arrays, aliases = pytorch.build_module(net, "lenet")
    body = text.split("class LeNet(nn.Module):\n")[1]
    assert body == (
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv1 = nn.Conv2d(1, 20, kernel_size=5)\n"
        "        self.conv2 = nn.Conv2d(20, 50, kernel_size=5)\n"
        "        self.ip1 = nn.Linear(800, 500)\n"
        "        self.ip2 = nn.Linear(500, 10)\n"
        "\n"
        "    def forward(self, data):\n"
        "        conv1 = self.conv1(data)\n"
        "        pool1 = F.max_pool2d(conv1, 2, stride=2, ceil_mode=True)\n"
        "        conv2 = self.conv2(pool1)\n"
        "        pool2 = F.max_pool2d(conv2, 2, stride=2, ceil_mode=True)\n"
        "        ip1 = self.ip1(pool2.flatten(1))\n"
        "        ip1 = F.relu(ip1)  # relu1\n"
        "        ip2 = self.ip2(ip1)\n"
        "        prob = F.softmax(ip2, dim=1)\n"
        "        return prob\n"
    )
    assert [name for name, a in arrays.items()] == [
        f"{name}.{what}" for name in ("conv1", "conv2", "ip1", "ip2") for what in ("weight", "bias")
    ]
    assert aliases == {}
    assert 'torch.load("lenet.pt", weights_only=True)' in text and "torchvision" not in text


@pytest.mark.parametrize("name", ["mini/test.prototxt", "CaffeNet/test.prototxt", "classification/GoogLeNet/deploy.prototxt"])  # fmt: skip
def test_shipped_nets_compile(name: str) -> None:
    net = caffe_lite.Net(models.path(name), caffe_lite.TEST)
    text, arrays, _ = pytorch.build_module(net)
    compile(text, name, "exec")
    assert ("torchvision.ops.roi_pool(" in text) == ("GoogLeNet" not in name)
    assert sum(a.size for a in arrays.values()) == sum(b.count for blobs in net.params.values() for b in blobs)


@pytest.mark.parametrize("names", [(EVIL, EVIL + "'"), ("class", "train"), ("1x1", "1_1"), ("a/b", "a.b"), ("é", "self"), ("_", "__class__")])  # fmt: skip
def test_names_from_files_are_never_run(names: tuple[str, str]) -> None:
    net = chain(names[0], (names[0], CONV), (names[1], CONV))
    text, arrays, _ = pytorch.build_module(net)
    tree = ast.parse(text)
    modules = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert modules == {"torch"}
    called = {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    own = {key.split(".")[0] for key in arrays}
    assert called == {"super", "super().__init__", "nn.Conv2d", *(f"self.{name}" for name in own)}
    assert len(own) == 2 and not own & {"train", "class", "forward"}


@given(st.lists(st.text(), min_size=2, max_size=5, unique=True))
def test_identifiers_differ_and_are_identifiers(texts: list[str]) -> None:
    make = Identifiers(frozenset(["forward", "class"]))
    made = [make(text) for text in texts]
    assert len(set(made)) == len(texts) and all(name.isidentifier() and name.isascii() for name in made)
    assert not {"forward", "class"} & set(made)
    assert [make(text) for text in texts] == made


@pytest.mark.parametrize(("value", "text"), [(0.1, "0.1"), (1, "1.0"), (1 / 3, "0.33333334"), (float("inf"), 'float("inf")')])  # fmt: skip
def test_numbers_are_float32(value: float, text: str) -> None:
    assert number(value) == text


def test_shared_parameters_and_splits() -> None:
    text, arrays, aliases = pytorch.build_module(
        build("""
        input: "x" input_shape { dim: 2 dim: 3 }
        layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" param { name: "w" }
                inner_product_param { num_output: 3 bias_term: false } }
        layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" param { name: "w" }
                inner_product_param { num_output: 3 bias_term: false } }
        layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" eltwise_param { coeff: 1 coeff: -2 } }
        """)
    )
    assert list(arrays) == ["a.weight"] and aliases == {"b.weight": "a.weight"}
    assert "self.b.weight = self.a.weight  # shared" in text and "sum_ = a + -2.0 * b" in text


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        ('Pooling" pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }', "no pool: STOCHASTIC"),
        ('Pooling" pooling_param { kernel_size: 1 stride: 2 }', "windows may be empty"),
        ('Pooling" pooling_param { kernel_size: 3 pad: 2 }', "more than half of the kernel"),
        ('BatchNorm" batch_norm_param { use_global_stats: false }', "statistics of the batch"),
        ('ArgMax" argmax_param { axis: 1 }', "no PyTorch form"),
    ],
)
def test_what_cannot_be_exported(layer: str, reason: str) -> None:
    net = chain("net", ("fine", CONV), ("first", layer), ("second", layer))
    with pytest.raises(NetError, match=reason) as caught:
        pytorch.build_module(net)
    assert "'first' (" in str(caught.value) and "'second' (" in str(caught.value) and "'fine'" not in str(caught.value)


def test_nothing_is_written_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(caffe_lite.CaffeError, match="pip install torch"):
        pytorch.export_torch(chain("net", ("a", CONV)), tmp_path / "net.pt")
    assert not list(tmp_path.iterdir())


def test_only_the_test_phase() -> None:
    param = text_format.Parse('state { phase: TRAIN } input: "x" input_shape { dim: 1 }', caffe_pb2.NetParameter())
    with pytest.raises(NetError, match="built for TRAIN"):
        pytorch.build_module(caffe_lite.Net.from_param(param))


@pytest.mark.parametrize(("pt", "py"), [("vgg16.pt", "vgg16.py"), ("my-net.v2.pt", "my_net_v2.py"), ("2x.pt", "_2x.py")])  # fmt: skip
def test_the_module_can_be_imported(pt: str, py: str) -> None:
    assert pytorch.source_path(Path("folder") / pt) == Path("folder") / py


def test_every_classifier_is_tried() -> None:
    folder = models.path("classification/LeNet/deploy.prototxt").parents[1]
    shipped = {path.parent.name for path in folder.glob("*/deploy.prototxt")}
    assert shipped == {*SMALL, *LARGE}
