"""What gpu.py measures: the device's rates, our layers and PyTorch's, and how far we are from the CPU."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

import caffe_lite
from benchmarks.engines import load_inputs
from benchmarks.gpu_table import Machine
from benchmarks.machine import measure
from caffe_lite import device as devices
from caffe_lite import gpu_gemm
from caffe_lite.device import CPU, Device

Seconds = dict[str, tuple[float, float]]  # layer: (forward, backward)
SMALL_IMAGE, SMALL_ROIS = (192, 256), 8


def median(run: Callable[[], Any], synchronize: Callable[[], Any], repeat: int) -> float:
    """Seconds of one call until the device has done it: two calls to warm up, then the median of ``repeat``."""

    def whole() -> None:
        run()
        synchronize()

    return statistics.median(measure(whole, repeat, warm_up=2))


def machine(device: Device, repeat: int, megabytes: int = 1024, size: int = 8192) -> Machine:
    """The rates of a GPU: a copy of ``megabytes``, square products of ``size``."""
    xp, synchronize = device.xp, device.synchronize
    source = xp.ones(megabytes << 18, dtype="float32")
    target = xp.empty_like(source)
    copy = 2 * source.nbytes / median(lambda: xp.copyto(target, source), synchronize, repeat) / 1e9
    a = xp.asarray(np.random.default_rng(0).standard_normal((size, size), dtype=np.float32))
    out = xp.empty_like(a)
    rates, before = {}, device.compute
    for compute in computes(device):
        device.compute = compute
        seconds = median(lambda: gpu_gemm.multiply(device, a, a, out), synchronize, repeat)
        rates[compute] = 2 * size**3 / seconds / 1e9
    device.compute = before
    name = devices.gpu_properties(device.index)["name"].decode()
    return Machine(name, copy, rates)


def computes(device: Device) -> tuple[str, ...]:
    """Those of ``device.COMPUTE`` that this GPU can."""
    return devices.COMPUTE if devices.gpu_properties(device.index)["major"] >= 8 else ("float32",)


def versions(device: Device) -> str:
    """What computes, and when."""
    runtime = device.xp.cuda.runtime
    cuda, driver = (f"{v // 1000}.{v % 1000 // 10}" for v in (runtime.runtimeGetVersion(), runtime.driverGetVersion()))
    today = time.strftime("%d %B %Y")
    ours = f"caffe_lite {caffe_lite.__version__}, CuPy {device.xp.__version__}"
    return f"{ours}, CUDA {cuda} (the driver's: {driver}); {today}"


# ---- ours


def build(folder: Path, train: bool, device: Device, arrays: dict[str, np.ndarray]) -> Any:
    """The net of the case in ``folder`` on ``device``, with these inputs."""
    phase = caffe_lite.TRAIN if train else caffe_lite.TEST
    net = caffe_lite.Net(folder / "net.prototxt", phase, weights=folder / "weights.caffemodel", device=device)
    for name in net.inputs:
        net.blobs[name].reshape(*arrays[name].shape)
        net.blobs[name].data[...] = arrays[name]
    return net


def layer_seconds(net: Any, backward: bool, repeat: int) -> Seconds:
    """Medians of each layer, taken apart: no ReLU is fused into the layer before it. ``backward`` 0.0 if not asked."""
    synchronize = net.device.synchronize
    times: dict[str, list[list[float]]] = {"forward": [[] for _ in net.nodes], "backward": [[] for _ in net.nodes]}
    began = 0.0

    def start(_: int) -> None:
        nonlocal began
        synchronize()
        began = time.perf_counter()

    def stop(direction: str) -> Callable[[int], None]:
        def note(index: int) -> None:
            synchronize()
            times[direction][index].append(time.perf_counter() - began)

        return note

    for direction in times:
        net.callbacks[f"before_{direction}"].append(start)
        net.callbacks[f"after_{direction}"].append(stop(direction))
    for _ in range(repeat + 1):  # the first compiles
        net.run_forward()
        if backward:
            net._backward(len(net.nodes) - 1, 0)
    return {
        node.layer.name: (
            statistics.median(times["forward"][i][1:]),
            statistics.median(times["backward"][i][1:]) if backward else 0.0,
        )
        for i, node in enumerate(net.nodes)
    }


def small_inputs(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A corner of each picture and a few RoIs that lie in it: what a CPU checks in seconds."""
    height, width = SMALL_IMAGE
    found = {name: values[:SMALL_ROIS] for name, values in arrays.items()}
    shape = arrays["data"].shape
    found["data"] = arrays["data"][..., :height, :width]
    if "rois" in found:
        scale = [width / shape[3], height / shape[2]]
        found["rois"] = found["rois"] * np.array([1, *scale, *scale], np.float32)
    return {name: np.ascontiguousarray(values, dtype=np.float32) for name, values in found.items()}


def differences(folder: Path, train: bool, device: Device, chosen: Iterable[str]) -> dict[str, float]:
    """For each way of computing, how far outputs (and gradients) on ``device`` are from the CPU's.

    The largest difference over the largest value; of all arrays the worst.
    """
    arrays = small_inputs(load_inputs(folder))
    wanted = outcome(build(folder, train, CPU, arrays), train)
    net, found = build(folder, train, device, arrays), {}
    for compute in chosen:
        device.compute = compute
        found[compute] = max(map(distance, wanted, outcome(net, train)))
    return found


def distance(wanted: np.ndarray, found: np.ndarray) -> float:
    """The largest difference over the largest value."""
    return float(np.abs(wanted - found).max() / max(np.abs(wanted).max(), np.finfo(wanted.dtype).tiny))


def outcome(net: Any, train: bool) -> list[np.ndarray]:
    """Copies of the outputs and, if ``train``, of the parameters' gradients; the dropout is the same in every call."""
    caffe_lite.set_random_seed(1)
    net.run_forward()
    values = [np.array(net.blobs[name].data) for name in net.outputs]
    if train:
        net.clear_param_diffs()
        net._backward(len(net.nodes) - 1, 0)
        values += [net.device.to_host(blob.diff).copy() for blob in net.learnable_params if blob.diff_in_use]
    return values


# ---- PyTorch's


def torch_synchronize(device: str) -> Callable[[], Any]:
    """A call that waits for PyTorch's ``device``."""
    import torch

    return torch.cuda.synchronize if device == "cuda" else lambda: None


def torch_net(folder: Path, train: bool, device: str) -> Any:
    """PyTorch's net of the case in ``folder``."""
    from benchmarks.torch_net import TorchNet

    return TorchNet(folder).to(device).train(train)


def torch_layer_seconds(net: Any, folder: Path, train: bool, device: str, repeat: int) -> Seconds:
    """The same of PyTorch: backward is autograd's of one layer, its forward excluded; 0.0 if it has none."""
    import torch

    synchronize = torch_synchronize(device)
    blobs = {name: torch.from_numpy(values).to(device) for name, values in load_inputs(folder).items()}
    found, needed = {}, set()  # needed: blobs whose gradient is computed
    for layer in net.layers:
        bottoms = [blobs[name] for name in layer.bottom]
        wanted = [weight for weight in net.weights_of(layer) if train and weight.requires_grad]
        first = bottoms[0].detach()
        if layer.bottom[0] in needed:
            first = first.clone().requires_grad_()
            wanted.append(first)
        y = net.run_layer(layer, first.clone() if layer.type == "ReLU" else first, *bottoms[1:])  # ReLU is in place
        with torch.no_grad():
            forward = median(functools.partial(net.run_layer, layer, *bottoms), synchronize, repeat)
        backward = 0.0
        if wanted:
            needed.update(layer.top)
            gradient = functools.partial(torch.autograd.grad, y, wanted, torch.ones_like(y), retain_graph=True)
            backward = median(gradient, synchronize, repeat)
        found[layer.name] = forward, backward
        blobs[layer.top[0]] = y.detach()
    return found
