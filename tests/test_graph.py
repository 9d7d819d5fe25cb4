"""Filtering by state and insertion of Splits: rules and names as Caffe's."""

from __future__ import annotations

import pytest

from caffe_lite import graph, prototxt
from caffe_lite.errors import NetError
from caffe_lite.graph import LayerSpec
from caffe_lite.proto import caffe_pb2


def specs(text: str) -> list[LayerSpec]:
    net = caffe_pb2.NetParameter()
    prototxt.parse(text, net)
    return [LayerSpec(layer, "net.prototxt:1:1") for layer in net.layer]


def names(rule: str, **state: object) -> bool:
    net_state = caffe_pb2.NetState(**state)
    return bool(graph.filter_layers(specs(f'layer {{ name: "x" type: "ReLU" {rule} }}'), net_state))


@pytest.mark.parametrize(
    ("rule", "state", "kept"),
    [
        ("", {}, True),
        ("include { phase: TRAIN }", {"phase": 0}, True),
        ("include { phase: TRAIN }", {"phase": 1}, False),
        ("exclude { phase: TEST }", {"phase": 1}, False),
        ("exclude { phase: TEST }", {"phase": 0}, True),
        ("include { phase: TEST } include { min_level: 2 }", {"phase": 0, "level": 2}, True),
        ("include { min_level: 1 max_level: 3 }", {"level": 0}, False),
        ("include { min_level: 1 max_level: 3 }", {"level": 3}, True),
        ("include { max_level: 3 }", {"level": 4}, False),
        ('include { stage: "a" stage: "b" }', {"stage": ["a"]}, False),
        ('include { stage: "a" stage: "b" }', {"stage": ["b", "c", "a"]}, True),
        ('include { not_stage: "a" }', {"stage": ["a"]}, False),
        ('exclude { stage: "a" not_stage: "b" }', {"stage": ["a"]}, False),
        ('exclude { stage: "a" not_stage: "b" }', {"stage": ["a", "b"]}, True),
    ],
)
def test_rules(rule: str, state: dict, kept: bool) -> None:
    assert names(rule, **state) is kept


def test_include_and_exclude_together_are_refused() -> None:
    with pytest.raises(NetError, match=r"net.prototxt:1:1: layer 'x' \(ReLU\): has both include and exclude"):
        names("include { phase: TEST } exclude { phase: TRAIN }")


def listing(text: str) -> list[str]:
    return [
        f"{s.param.name}: {' '.join(s.param.bottom)} -> {' '.join(s.param.top)}"
        for s in graph.insert_splits(specs(text))
    ]


def test_a_blob_with_one_consumer_is_not_split() -> None:
    text = 'layer { name: "d" top: "d" } layer { name: "a" bottom: "d" top: "a" }'
    assert listing(text) == ["d:  -> d", "a: d -> a"]


def test_a_blob_with_two_consumers_is_split_behind_its_last_writer() -> None:
    text = """
      layer { name: "d" top: "x" top: "d" }
      layer { name: "relu" bottom: "d" top: "d" }
      layer { name: "a" bottom: "d" top: "a" }
      layer { name: "b" bottom: "x" bottom: "d" bottom: "d" top: "b" }"""
    assert listing(text) == [
        "d:  -> x d",
        "relu: d -> d",
        "d_relu_0_split: d -> d_relu_0_split_0 d_relu_0_split_1 d_relu_0_split_2",
        "a: d_relu_0_split_0 -> a",
        "b: x d_relu_0_split_1 d_relu_0_split_2 -> b",
    ]


def test_a_loss_weight_counts_as_a_consumer_and_moves_to_the_first_split() -> None:
    text = """
      layer { name: "d" top: "x" top: "d" loss_weight: 0 loss_weight: 2 }
      layer { name: "a" bottom: "d" bottom: "x" top: "a" }"""
    result = graph.insert_splits(specs(text))
    assert [s.param.name for s in result] == ["d", "d_d_1_split", "a"]
    assert list(result[0].param.loss_weight) == []
    assert list(result[1].param.loss_weight) == [2, 0]
    assert list(result[2].param.bottom) == ["d_d_1_split_1", "x"]


def test_an_unknown_bottom_names_the_nearest() -> None:
    with pytest.raises(NetError, match="bottom 'conv11' .* made by no layer before it; did you mean 'conv1'"):
        listing('layer { name: "c" top: "conv1" } layer { name: "r" bottom: "conv11" top: "r" }')
