"""Net: what is built, what runs, what needs a gradient; pycaffe's members."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import caffe_lite as caffe
from caffe_lite.device import Device
from caffe_lite.errors import CaffeError, NetError, PrototxtError, ShapeError, WeightsError
from tests.small_net import MLP, feed


@pytest.fixture
def build(tmp_path: Path, device: Device):
    """Write a prototxt and build it on each device."""

    def make(text: str, phase: int = caffe.TRAIN, **options: object) -> caffe.Net:
        path = tmp_path / "net.prototxt"
        path.write_text(text)
        caffe.set_random_seed(1)
        return caffe.Net(path, phase, **options)

    return make


def test_members(build) -> None:
    net = build(MLP, caffe.TEST)
    assert net.name == "mlp" and net.inputs == ["data", "label"] and net.outputs == ["accuracy", "loss"]
    splits = ["ip2_ip2_0_split", "label_data_1_split"]
    assert net._layer_names == ["data", splits[1], "ip1", "relu1", "ip2", splits[0], "accuracy", "loss"]
    assert list(net.blobs) == [
        "data", "label", "label_data_1_split_0", "label_data_1_split_1", "ip1", "ip2",
        "ip2_ip2_0_split_0", "ip2_ip2_0_split_1", "accuracy", "loss",
    ]  # fmt: skip
    assert [(name, [b.shape for b in blobs]) for name, blobs in net.params.items()] == [
        ("ip1", [(5, 6), (5,)]),
        ("ip2", [(3, 5), (3,)]),
    ]
    assert net.bottom_names["loss"] == ["ip2_ip2_0_split_1", "label_data_1_split_1"]
    assert net.blob_loss_weights["loss"] == 1 and net.blob_loss_weights["accuracy"] == 0
    net.anything = "users may hang their own attributes on a net"


def test_forward_backward_match_the_mathematics(build) -> None:
    net = build(MLP)
    feed(net)
    loss = float(net.forward()["loss"])
    net.backward()
    x, y = net.blobs["data"].data, net.blobs["label"].data.astype(int)
    (w1, b1), (w2, b2) = ([p.data for p in net.params[name]] for name in ("ip1", "ip2"))
    h = np.maximum(x @ w1.T + b1, 0)
    scores = h @ w2.T + b2
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(loss, -np.log(p[np.arange(4), y]).mean(), rtol=1e-5)
    d_scores = (p - np.eye(3)[y]) / 4
    d_h = d_scores @ w2 * (h > 0)
    np.testing.assert_allclose(net.params["ip2"][0].diff, d_scores.T @ h, atol=1e-6)
    np.testing.assert_allclose(net.params["ip1"][0].diff, d_h.T @ x, atol=1e-6)
    np.testing.assert_allclose(net.params["ip1"][1].diff, d_h.sum(axis=0), atol=1e-6)


def test_param_diffs_accumulate_until_cleared_and_bottom_diffs_do_not(build) -> None:
    net = build("force_backward: true" + MLP)
    feed(net)
    net.forward()
    net.backward()
    weight, data = net.params["ip1"][0].diff.copy(), net.blobs["data"].diff.copy()
    assert weight.any() and data.any()
    net.backward()
    np.testing.assert_allclose(net.params["ip1"][0].diff, 2 * weight, rtol=1e-6)
    np.testing.assert_array_equal(net.blobs["data"].diff, data)
    net.clear_param_diffs()
    assert not net.params["ip1"][0].diff.any()


def test_parts_of_a_net_run_alone_and_a_fused_relu_stays_out_of_sight(build) -> None:
    net = build(MLP)
    feed(net)
    whole = net.forward()["loss"].copy()
    before_relu = net.forward(end="ip1")["ip1"].copy()
    assert (before_relu < 0).any(), "the ReLU is not part of this range"
    net.forward(start="relu1", end="relu1")
    np.testing.assert_array_equal(net.blobs["ip1"].data, np.maximum(before_relu, 0))
    np.testing.assert_array_equal(net.forward(start="ip2")["loss"], whole)


def test_inputs_by_keyword_and_reshape(build) -> None:
    net = build(MLP, caffe.TEST)
    data, label = np.ones((2, 6)), np.zeros(2)
    with pytest.raises(ShapeError, match="2 items given, the blob holds 4"):
        net.forward(data=data, label=label)
    net.blobs["data"].reshape(2, 6)
    net.blobs["label"].reshape(2)
    out = net.forward(blobs=["ip1"], data=data, label=label)
    assert set(out) == {"accuracy", "loss", "ip1"} and out["ip1"].shape == (2, 5)
    with pytest.raises(NetError, match=r"input blobs are \['data', 'label'\]"):
        net.forward(data=data)


def test_only_what_reaches_a_loss_and_is_wanted_runs_backward(build) -> None:
    frozen = MLP.replace(
        'bottom: "data" top: "ip1"', 'bottom: "data" top: "ip1" param { lr_mult: 0 } param { lr_mult: 0 }'
    )
    net = build(frozen)
    needs = {node.layer.name: node.needs_backward for node in net.nodes}
    assert needs == {"data": False, "ip1": False, "relu1": False, "ip2": True, "loss": True}
    stopped = MLP.replace(
        'type: "InnerProduct" bottom: "ip1"', 'type: "InnerProduct" bottom: "ip1" propagate_down: false'
    )
    needs = {node.layer.name: node.needs_backward for node in build(stopped).nodes}
    assert needs == {"data": False, "ip1": False, "relu1": False, "ip2": True, "loss": True}


def test_shared_parameters_are_one_and_their_gradients_add(build) -> None:
    text = """
      layer { name: "data" type: "Input" top: "a" top: "b" top: "label"
              input_param { shape { dim: 2 dim: 3 } shape { dim: 2 dim: 3 } shape { dim: 2 } } }
      layer { name: "left" type: "InnerProduct" bottom: "a" top: "left" param { name: "w" }
              inner_product_param { num_output: 3 bias_term: false weight_filler { type: "xavier" } } }
      layer { name: "right" type: "InnerProduct" bottom: "b" top: "right" param { name: "w" lr_mult: 3 }
              inner_product_param { num_output: 3 bias_term: false } }
      layer { name: "l1" type: "SoftmaxWithLoss" bottom: "left" bottom: "label" top: "l1" }
      layer { name: "l2" type: "SoftmaxWithLoss" bottom: "right" bottom: "label" top: "l2" }"""
    net = build(text)
    assert len(net.learnable_params) == 1 and net.learnable_specs[0].lr_mult == 3
    np.testing.assert_array_equal(net.params["left"][0].data, net.params["right"][0].data)
    values = np.random.default_rng(0).normal(size=(2, 3))
    net.blobs["a"].data[...] = net.blobs["b"].data[...] = values
    net.forward()
    net.backward()
    both = net.params["left"][0].diff.copy()
    net.clear_param_diffs()
    net.forward()
    net.backward(start="l1", end="l1")
    net.backward(start="left", end="left")
    np.testing.assert_allclose(both, 2 * net.params["left"][0].diff, rtol=1e-5)

    wrong = text.replace("num_output: 3 bias_term: false }", "num_output: 2 bias_term: false }")
    with pytest.raises(ShapeError, match="parameter 0 shares 'w' with layer 'left', but has shape"):
        build(wrong)
    with pytest.raises(NetError, match="lr_mult 3.0 here and 2.0 in layer 'left': they must agree"):
        build(text.replace('param { name: "w" }', 'param { name: "w" lr_mult: 2 }'))


def test_saved_weights_come_back(build, tmp_path: Path) -> None:
    net = build(MLP)
    net.save(tmp_path / "w.caffemodel")
    again = build(MLP, caffe.TEST)
    for blobs in again.params.values():
        for blob in blobs:
            blob.data[...] = 0
    report = again.copy_from(tmp_path / "w.caffemodel")
    assert report.copied == ["ip1", "ip2"] and report.untouched == []
    for name in net.params:
        for a, b in zip(net.params[name], again.params[name], strict=True):
            np.testing.assert_array_equal(a.data, b.data)


def test_weights_that_do_not_fit_change_nothing(build, tmp_path: Path) -> None:
    build(MLP).save(tmp_path / "w.caffemodel")
    other = build(MLP.replace("num_output: 3", "num_output: 4"))
    before = other.params["ip1"][0].data.copy() + 1
    other.params["ip1"][0].data[...] = before
    message = (
        r"w.caffemodel: layer 'ip2', parameter 0: shape \(3, 5\) in the file, \(4, 5\) in the net; rename the layer"
    )
    with pytest.raises(WeightsError, match=message):
        other.copy_from(tmp_path / "w.caffemodel")
    np.testing.assert_array_equal(other.params["ip1"][0].data, before)


def test_share_with_uses_one_memory(build) -> None:
    net, test_net = build(MLP), build(MLP, caffe.TEST)
    test_net.share_with(net)
    net.params["ip1"][0].data[...] = 9
    _ = net.layer_dict["ip1"].blobs[0].data  # a use on the device
    assert (test_net.params["ip1"][0].data == 9).all()


def test_float64(build) -> None:
    net = build(MLP, dtype="float64")
    feed(net)
    assert net.forward()["loss"].dtype == "float64"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ('type: "ReLU"', 'type: "Relu"'),
            r"net.prototxt:\d+:1: layer 'relu1': unknown layer type 'Relu'; did you mean 'ReLU'",
        ),
        (('bottom: "ip1" top: "ip2"', 'bottom: "ip" top: "ip2"'), "layer 'ip2' .* bottom 'ip' .*did you mean 'ip1'"),
        (('bottom: "ip1" top: "ip1"', 'bottom: "ip1" top: "data"'), "layer 'relu1' .* top 'data' is already made"),
        (('name: "relu1"', 'name: "ip1"'), "two layers have this name"),
        (('name: "ip1" type', 'name: "ip1" param {} param {} param {} type'), "3 param {} entries for 2 parameter"),
        (
            ('name: "ip1" type', 'name: "ip1" propagate_down: true propagate_down: true type'),
            "2 propagate_down for 1 bottom",
        ),
        (('name: "loss" type', 'name: "loss" loss_weight: 1 loss_weight: 1 type'), r"2 loss_weight\(s\) for 1 top"),
    ],
)
def test_nets_that_cannot_be_built_say_where_and_why(build, change: tuple[str, str], message: str) -> None:
    assert change[0] in MLP
    with pytest.raises(NetError, match=message):
        build(MLP.replace(*change))


def test_a_missing_file_is_a_runtime_error_as_in_pycaffe() -> None:
    with pytest.raises(RuntimeError, match="nowhere.prototxt"):
        caffe.Net("nowhere.prototxt", caffe.TEST)
    with pytest.raises(PrototxtError):
        caffe.Net("nowhere.prototxt", caffe.TEST)


def test_a_gpu_that_is_not_there_is_a_clear_error() -> None:
    try:
        import cupy  # noqa: F401

        pytest.skip("CuPy is installed")
    except ImportError:
        pass
    with pytest.raises(caffe.DeviceError, match=r"needs CuPy.*caffe-lite\[cuda12\]"):
        caffe.set_mode_gpu()
    assert issubclass(caffe.DeviceError, CaffeError)


class Scaled(caffe.Layer):
    """y = w x with a learned w, written with NumPy alone as a user would."""

    def setup(self, bottom, top) -> None:
        self.blobs.add_blob(1)
        self.blobs[0].data[...] = 3

    def reshape(self, bottom, top) -> None:
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top) -> None:
        assert all(isinstance(a, np.ndarray) for a in (bottom[0].data, top[0].data, self.blobs[0].data))
        top[0].data[...] = self.blobs[0].data * bottom[0].data

    def backward(self, top, propagate_down, bottom) -> None:
        self.blobs[0].diff[...] += (top[0].diff * bottom[0].data).sum()
        bottom[0].diff[...] = self.blobs[0].data * top[0].diff


def test_a_python_layer_with_parameters_trains_on_every_device(build) -> None:
    net = build(f"""
      force_backward: true
      layer {{ name: "data" type: "Input" top: "x" input_param {{ shape {{ dim: 2 dim: 3 }} }} }}
      layer {{ name: "s" type: "Python" bottom: "x" top: "y" loss_weight: 2
              python_param {{ module: "{__name__}" layer: "Scaled" }} }}""")
    x = np.arange(6.0).reshape(2, 3)
    net.blobs["x"].data[...] = x
    assert net._forward(0, 1) == 2 * 3 * x.sum()
    net.backward()
    np.testing.assert_allclose(net.params["s"][0].diff, [2 * x.sum()])
    np.testing.assert_allclose(net.blobs["x"].diff, np.full((2, 3), 6))
    assert net.layers[1].__class__.__name__ == "Scaled"
