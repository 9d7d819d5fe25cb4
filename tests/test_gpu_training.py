"""A whole net in GPU mode: the same losses as on the CPU, the same bits in every run, nothing read back on the way."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import caffe_lite
from caffe_lite import device as devices
from caffe_lite import gpu_update, models, registry
from caffe_lite.data.factory import get_imdb
from caffe_lite.device import CPU, Device
from caffe_lite.fast_rcnn.train import SolverWrapper, get_training_roidb
from caffe_lite.proto import caffe_pb2
from tests import strict_device

ITERATIONS = 3  # a change of 1e-7 in the weights grows to 6e-6 of the loss in three, on the CPU alone too


pytestmark = pytest.mark.usefixtures("mini_settings")


def train(devkit: str, folder: Path, device: Device, prepare: Callable[[Any], None] = lambda net: None) -> Any:
    """The wrapper of a training of models/mini on made-up pictures, after ITERATIONS iterations."""
    np.random.seed(3)
    caffe_lite.set_random_seed(3)
    before = devices.current()
    devices.use(device)
    try:
        roidb = get_training_roidb(get_imdb("synthetic_trainval", data=devkit))
        wrapper = SolverWrapper(models.path("mini/solver.prototxt"), roidb, folder)
        prepare(wrapper.solver.net)
        wrapper.solver.step(ITERATIONS)
    finally:
        devices.use(before)
    return wrapper


def test_losses_are_those_of_the_cpu(gpu: Device, devkit: str, tmp_path: Path) -> None:
    on_cpu = train(devkit, tmp_path / "cpu", CPU)
    on_gpu = train(devkit, tmp_path / "gpu", gpu)
    assert on_gpu.solver.net.device is gpu and on_cpu.losses.keys() == on_gpu.losses.keys()
    for name, losses in on_cpu.losses.items():
        assert len(losses) == ITERATIONS
        np.testing.assert_allclose(on_gpu.losses[name], losses, rtol=1e-5, err_msg=name)
    layers = {layer.type: getattr(layer, "path", "") for layer in on_gpu.solver.net.layers}
    assert layers["Convolution"] in ("winograd", "implicit")


def test_two_runs_give_the_same_bits(gpu: Device, devkit: str, tmp_path: Path) -> None:
    first, second = (train(devkit, tmp_path / name, gpu) for name in "ab")
    assert first.losses == second.losses
    for a, b in zip(first.solver.net.learnable_params, second.solver.net.learnable_params, strict=True):
        assert gpu.to_host(a.data).tobytes() == gpu.to_host(b.data).tobytes()


# ---- nothing goes back to the host between the data layer and the loss


def watch(net: Any) -> list[str]:
    """Forbid waiting for the device while any layer but the data layer runs; the types of the layers that ran."""
    ran: list[str] = []

    def guard(layer: Any, method: str) -> None:
        original = getattr(layer, method)

        def guarded(*args: Any) -> None:
            ran.append(f"{layer.type}.{method}")
            with strict_device.closed():
                original(*args)

        setattr(layer, method, guarded)

    for layer in net.layers[1:]:
        guard(layer, "forward")
        guard(layer, "backward")
    return ran


def test_no_copy_to_the_host_between_data_layer_and_loss(devkit: str, tmp_path: Path, emulated: Device) -> None:
    ran: list[list[str]] = []
    train(devkit, tmp_path, emulated, lambda net: ran.append(watch(net)))
    for half in ("Convolution.forward", "ROIPooling.backward", "SmoothL1Loss.forward", "SoftmaxWithLoss.backward"):
        assert half in ran[0]


def test_a_net_runs_on_its_own_gpu(emulated: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever is current, as GPU 0 is in a new thread."""
    used: list[int] = []
    chosen = lambda index: types.SimpleNamespace(use=lambda: used.append(index))  # noqa: E731
    monkeypatch.setattr(emulated.xp.cuda, "Device", chosen)
    emulated.index = 1
    net = small_solver("momentum: 0.9", emulated).net
    used.clear()
    net.run_forward()
    assert used == [1]
    net._backward(len(net.nodes) - 1, 0)
    assert used == [1, 1]


# ---- the update


@pytest.mark.parametrize(
    "options",
    [
        "momentum: 0.9 weight_decay: 0.01",
        'momentum: 0.9 weight_decay: 0.01 regularization_type: "L1"',
        "momentum: 0.5 iter_size: 3 clip_gradients: 0.25",
        "debug_info: true momentum: 0.9",
    ],
)
def test_the_fused_update_is_the_update(gpu: Device, options: str) -> None:
    """To the bit when run on the host; a GPU may round a multiplication and the addition after it as one."""
    results = []
    for device in (CPU, gpu):
        solver = small_solver(options, device)
        solver.step(3)
        params = [device.to_host(b.data).copy() for b in solver.net.learnable_params]
        results.append(params + [device.to_host(h).copy() for h in solver.history])
    for on_cpu, on_gpu in zip(*results, strict=True):
        np.testing.assert_allclose(on_gpu, on_cpu, rtol=2e-6, atol=1e-7)


def small_solver(options: str, device: Device) -> Any:
    from google.protobuf import text_format

    param = text_format.Parse(
        f'type: "SGD" base_lr: 0.1 lr_policy: "fixed" display: 1 {options}', caffe_pb2.SolverParameter()
    )
    text_format.Parse(
        """
        layer { name: "x" type: "DummyData" top: "x" top: "y" dummy_data_param {
                shape { dim: 4 dim: 5 } shape { dim: 4 dim: 3 } data_filler { type: "gaussian" } } }
        layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
                inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
        layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
        """,
        param.net_param,
    )
    caffe_lite.set_random_seed(4)
    before = devices.current()
    devices.use(device)
    try:
        return registry.solvers.get("SGD").from_param(param, "small")
    finally:
        devices.use(before)


def test_a_solver_of_ones_own_keeps_its_update(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """A subclass of SGD whose update is another is not sent past it."""
    sgd = registry.solvers.get("SGD")

    class Still(sgd):  # type: ignore[misc, valid-type]
        def update(self, gradient: Any, rate: float, history: Any) -> None:
            gradient[...] = 0

    monkeypatch.setattr(gpu_update, "sgd", None)
    solver = small_solver("momentum: 0.9", gpu)
    before = gpu.to_host(solver.net.learnable_params[0].data).copy()
    solver.__class__ = Still
    solver.step(1)
    np.testing.assert_array_equal(gpu.to_host(solver.net.learnable_params[0].data), before)
