"""The gradient check passes right gradients, and catches wrong ones."""

from __future__ import annotations

import numpy as np
import pytest

import caffe_lite
from caffe_lite.blob import Blob
from caffe_lite.gradient_check import TOLERANCE, Row, check_layer, check_net
from caffe_lite.layer import Layer
from caffe_lite.proto import caffe_pb2


class Square(Layer):
    """y = w x^2 with one parameter w; ``fault`` says what backward gets wrong."""

    exact_bottoms = exact_tops = 1
    fault = ""

    def setup(self, bottom, top):
        self.add_param((1,))
        self.blobs[0].data[...] = 1.5

    def reshape(self, bottom, top):
        top[0].reshape(bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.blobs[0].data * bottom[0].data ** 2

    def backward(self, top, propagate_down, bottom):
        if self.param_propagate_down[0] and self.fault != "no parameter gradient":
            self.blobs[0].diff[...] += (top[0].diff * bottom[0].data ** 2).sum()
            if self.fault == "overwritten":  # right the first time, wrong with iter_size or shared weights
                self.blobs[0].diff[...] = (top[0].diff * bottom[0].data ** 2).sum()
        if propagate_down[0]:
            bottom[0].diff[...] = 2 * self.blobs[0].data * bottom[0].data * top[0].diff
            if self.fault == "scaled":
                bottom[0].diff[...] *= 1.00001
            elif self.fault == "one element":
                bottom[0].diff[1, 2] *= 1.001


class Noisy(Square):
    """y = x times a random number, drawn anew in every forward."""

    def forward(self, bottom, top):
        self.draw = self.device.rng.uniform(1, 2, bottom[0].shape)
        self.blobs[0].data[...] = 1
        top[0].data[...] = self.draw * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = self.draw * top[0].diff


class Hinge(Square):
    """y = max(x, 0), whose derivative at 0 is taken as 0."""

    def setup(self, bottom, top):
        pass

    def forward(self, bottom, top):
        top[0].data[...] = np.maximum(bottom[0].data, 0)

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = (bottom[0].data > 0) * top[0].diff


def build(layer_class, values=None, dtype="float64", fault=""):
    bottom, top = Blob((3, 4), dtype), Blob((), dtype)
    bottom.data[...] = np.random.default_rng(0).normal(size=(3, 4)) if values is None else values
    layer = layer_class(caffe_pb2.LayerParameter(name="l", type="Test"), dtype=dtype)
    layer.fault = fault
    layer.set_up([bottom], [top])
    return layer, [bottom], [top]


@pytest.mark.parametrize("exhaustive", [False, True])
def test_right_gradients_pass(exhaustive):
    layer, bottoms, tops = build(Square)
    before = bottoms[0].data.copy()
    rows = check_layer(layer, bottoms, tops, exhaustive=exhaustive)
    assert len(rows) == (12 + 1 if exhaustive else 2 + 2)
    assert {row.blob.split(" at ")[0] for row in rows} == {"bottom 0", "param 0"}
    assert max(row.error for row in rows) < TOLERANCE
    assert not any(row.kink for row in rows)
    np.testing.assert_array_equal(bottoms[0].data, before)
    np.testing.assert_array_equal(layer.blobs[0].data, 1.5)
    np.testing.assert_array_equal(tops[0].data, 1.5 * before**2)


@pytest.mark.parametrize(
    "fault, blob",
    [
        ("scaled", "bottom 0"),
        ("one element", "bottom 0"),
        ("no parameter gradient", "param 0"),
        ("overwritten", "param 0"),
    ],
)
def test_wrong_gradients_are_caught(fault, blob):
    rows = check_layer(*build(Square, fault=fault))
    assert {row.blob for row in rows if row.error > TOLERANCE} == {blob}
    assert not any(row.kink for row in rows)


def test_exhaustive_names_the_element():
    rows = check_layer(*build(Square, fault="one element"), exhaustive=True)
    wrong = [row for row in rows if row.error > TOLERANCE]
    assert [row.blob for row in wrong] == ["bottom 0 at (1, 2)"]
    assert str(wrong[0]).startswith("layer 'l', bottom 0 at (1, 2): analytic ")


def test_json_has_no_nan():
    row = Row("l", "bottom 0", float("nan"), float("inf"), float("nan"), kink=False)
    assert row.as_dict() | {"verdict": "WRONG", "analytic": None, "numeric": None, "error": None} == row.as_dict()


def test_only_what_is_asked_for():
    layer, bottoms, tops = build(Square)
    layer.param_propagate_down = [False]
    assert check_layer(layer, bottoms, tops, propagate_down=[False]) == []


def test_random_layers_draw_the_same_numbers():
    rows = check_layer(*build(Noisy), propagate_down=[True])
    assert max(row.error for row in rows if row.blob == "bottom 0") < TOLERANCE


def test_kinks_are_reported_and_near_ones_avoided():
    tied = np.ones((3, 4))
    tied[0, 0] = 0
    rows = check_layer(*build(Hinge, tied))
    assert all(row.error > TOLERANCE and row.kink and "a kink" in str(row) for row in rows)
    near = np.ones((3, 4))
    near[0, 0] = 4e-6  # the longer step crosses 0, the shorter one does not
    rows = check_layer(*build(Hinge, near))
    assert all(row.error < TOLERANCE and not row.kink for row in rows)


def test_float32_is_refused():
    with pytest.raises(ValueError, match="layer 'l': build it in float64"):
        check_layer(*build(Square, dtype="float32"))


def test_every_layer_of_a_net(tmp_path):
    """The zeros that ReLU leaves are tied in Pooling: the check moves them apart."""
    path = tmp_path / "net.prototxt"
    path.write_text(
        """
        force_backward: true
        layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 9 dim: 9 } } }
        layer { name: "relu" type: "ReLU" bottom: "data" top: "data" }
        layer { name: "pool" type: "Pooling" bottom: "data" top: "pool" pooling_param { kernel_size: 3 stride: 2 } }
        layer { name: "norm" type: "LRN" bottom: "pool" top: "norm" }
        layer { name: "fc" type: "InnerProduct" bottom: "norm" top: "fc"
                inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
        """
    )
    net = caffe_lite.Net(str(path), caffe_lite.TRAIN, dtype="float64")
    net.blobs["data"].data[...] = np.random.default_rng(0).normal(size=(2, 3, 9, 9))
    rows = check_net(net)
    assert {(row.layer, row.blob) for row in rows} == {
        ("relu", "bottom 0"),
        ("pool", "bottom 0"),
        ("norm", "bottom 0"),
        ("fc", "bottom 0"),
        ("fc", "param 0"),
        ("fc", "param 1"),
    }
    assert max(row.error for row in rows) < TOLERANCE, "\n".join(map(str, rows))
