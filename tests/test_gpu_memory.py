"""A GPU that is too small: refused before the first run, or by the layer that asked for too much."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import caffe_lite
from caffe_lite import device_memory, prototxt
from caffe_lite.blob import Storage
from caffe_lite.device import Device
from caffe_lite.errors import DeviceError
from caffe_lite.proto import caffe_pb2

NET = """
name: "small"
layer { name: "in" type: "Input" top: "x" top: "y" input_param {
        shape { dim: 2 dim: 3 dim: 4 dim: 5 } shape { dim: 2 dim: 7 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
        inner_product_param { num_output: 7 weight_filler { type: "xavier" } bias_filler { type: "constant" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
"""
PARAMETERS = 7 * 60 + 7
FORWARD = 4 * (2 * 60 + 2 * 7 + PARAMETERS + 2 * 7 + 1)  # x, y, parameters, ip, loss
BACKWARD = 4 * (PARAMETERS + 2 * 7 + 1)  # their gradients; none is needed for x and y
KNOBS = "TRAIN.SCALES.*TRAIN.BATCH_SIZE"


class OutOfMemoryError(MemoryError):
    """CuPy's."""


@pytest.fixture
def build(emulated: Device, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``build(size)``: the net on a GPU whose blobs must do with ``size`` bytes.

    ``estimate`` False lets that GPU say that it has more than enough.
    """
    left = 0
    reserve = Storage.reserve

    def reserve_counted(self: Storage, count: int) -> None:
        nonlocal left
        held = 0 if self.flat is None else self.flat.nbytes
        wanted = 4 * max(count, 1)
        if wanted <= held:
            return
        if wanted > left + held:
            raise OutOfMemoryError(f"Out of memory allocating {wanted:,} bytes")
        left += held - wanted
        reserve(self, count)

    def make(size: int, phase: int = caffe_lite.TRAIN, estimate: bool = True) -> Any:
        nonlocal left
        left = size
        monkeypatch.setattr(Storage, "reserve", reserve_counted)
        if estimate:
            monkeypatch.setattr(emulated, "free_memory", lambda: left)
        param = caffe_pb2.NetParameter()
        prototxt.parse(NET, param)
        param.state.phase = phase
        return caffe_lite.Net.from_param(param, device=emulated)

    return make


def test_what_just_fits_runs(build: Callable[..., Any]) -> None:
    net = build(FORWARD + BACKWARD)
    net.forward()
    net._backward(len(net.nodes) - 1, 0)
    assert net.device.free_memory() == 0


def test_a_forward_that_does_not_fit_is_refused_before_it_begins(build: Callable[..., Any]) -> None:
    net = build(FORWARD - 1 + 4)  # 4: the loss's weight, which lies in its diff
    left = net.device.free_memory()
    with pytest.raises(DeviceError, match=f"net 'small' needs .* MB more to run forward, .*'in' .Input.: .*{KNOBS}"):
        net.forward()
    assert net.device.free_memory() == left


def test_a_backward_that_does_not_fit_is_refused_before_it_begins(build: Callable[..., Any]) -> None:
    net = build(FORWARD + BACKWARD - 1)
    net.forward()
    left = net.device.free_memory()
    with pytest.raises(DeviceError, match=f"to run backward, .*{KNOBS}"):
        net._backward(len(net.nodes) - 1, 0)
    assert net.device.free_memory() == left


def test_a_test_net_may_share_memory(build: Callable[..., Any]) -> None:
    with pytest.raises(DeviceError, match="or share memory between blobs .optimize_memory."):
        build(FORWARD - 1, caffe_lite.TEST).forward()


def test_the_estimate_is_of_the_shapes_at_hand(build: Callable[..., Any]) -> None:
    """Smaller inputs than the prototxt's need less; a refusal leaves a net that runs once it fits."""
    net = build(FORWARD - 1 + 4)
    with pytest.raises(DeviceError, match="needs"):
        net.forward()
    net.blobs["x"].reshape(1, 3, 4, 5)
    net.blobs["y"].reshape(1, 7)
    net.forward()
    assert net.blobs["ip"].shape == (1, 7)


def test_larger_inputs_make_larger_tops(build: Callable[..., Any]) -> None:
    net = build(FORWARD + 4 + 4 * (60 + 7 + 7) - 1)  # one more of x, y and ip, all but one byte
    net.blobs["x"].reshape(3, 3, 4, 5)
    net.blobs["y"].reshape(3, 7)
    with pytest.raises(DeviceError, match="more to run forward"):
        net.forward()


def test_missing_is_what_is_not_held_yet(build: Callable[..., Any]) -> None:
    net = build(1 << 20)
    assert device_memory.missing(net, backward=False) == FORWARD - 4 * PARAMETERS
    net.forward()
    assert device_memory.missing(net, backward=False) == 0
    assert device_memory.missing(net, backward=True) == BACKWARD - 4
    net._backward(len(net.nodes) - 1, 0)
    assert device_memory.missing(net, backward=True) == 0


@pytest.mark.parametrize(
    ("size", "layer"),
    [
        (4 * PARAMETERS - 1, "'ip' .InnerProduct."),
        (FORWARD + 3, "'loss' .EuclideanLoss."),
        (FORWARD + BACKWARD - 1, "'ip' .InnerProduct."),
    ],
    ids=["building", "forward", "backward"],
)
def test_memory_that_runs_out_names_the_layer(build: Callable[..., Any], size: int, layer: str) -> None:
    """As when the estimate was too low: it knows nothing of the kernels' scratch memory."""
    with pytest.raises(DeviceError, match=f"layer {layer}.*: gpu:0 is out of memory .Out of memory alloc.*{KNOBS}"):
        net = build(size, estimate=False)
        for name in net.inputs:
            net.blobs[name].data[...] = 0
        net.forward()
        net._backward(len(net.nodes) - 1, 0)
