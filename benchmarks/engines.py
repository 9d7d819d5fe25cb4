"""What runs a case: caffe_lite, PyTorch and OpenCV. Each function makes a callable that does it once.

OpenCV's may run under another interpreter (the Caffe importer is gone from OpenCV 5), so this module
imports nothing but NumPy at its top.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BASE_LR, MOMENTUM, WEIGHT_DECAY = 1e-9, 0.9, 0.0005  # the weights are random: at a usual rate the loss overflows


def load_inputs(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "inputs.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def caffe_lite(folder: Path, train: bool) -> Callable[[], Any]:
    import caffe_lite as caffe
    from caffe_lite import registry
    from caffe_lite.proto import caffe_pb2

    arrays = load_inputs(folder)
    if not train:
        net = caffe.Net(folder / "net.prototxt", caffe.TEST, weights=folder / "weights.caffemodel")
        for name, values in arrays.items():
            net.blobs[name].data[...] = values
        return net.run_forward
    param = caffe_pb2.SolverParameter(
        train_net=str(folder / "net.prototxt"), base_lr=BASE_LR, lr_policy="fixed", momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY, display=0, snapshot_after_train=False,
    )  # fmt: skip
    solver = registry.solvers.get("SGD").from_param(param, str(folder / "solver"))
    solver.net.copy_from(folder / "weights.caffemodel")
    for name, values in arrays.items():
        solver.net.blobs[name].data[...] = values
    return lambda: solver.step(1)


def pytorch(folder: Path, train: bool, device: str = "cpu", channels_last: bool = True) -> Callable[[], Any]:
    import torch

    from benchmarks.torch_net import TorchNet

    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    net = TorchNet(folder).to(device, memory_format=memory_format)
    arrays = {name: torch.from_numpy(values).to(device) for name, values in load_inputs(folder).items()}
    if arrays["data"].shape[1] > 1:
        arrays["data"] = arrays["data"].contiguous(memory_format=memory_format)
    net.train(train)
    if not train:

        def forward() -> None:
            with torch.inference_mode():
                net(arrays)

        return forward
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=BASE_LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)

    def step() -> None:
        optimizer.zero_grad()
        net(arrays).backward()
        optimizer.step()

    return step


def opencv(folder: Path, train: bool) -> Callable[[], Any]:
    import cv2

    if train:
        raise NotImplementedError("OpenCV does not train")
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        raise NotImplementedError(f"OpenCV {cv2.__version__} reads no Caffe files; give a Python that has OpenCV 4")
    net = cv2.dnn.readNetFromCaffe(str(folder / "net.prototxt"), str(folder / "weights.caffemodel"))
    for name, values in load_inputs(folder).items():
        net.setInput(values, name)
    return net.forward


ENGINES = {"caffe_lite": caffe_lite, "PyTorch": pytorch, "OpenCV": opencv}
