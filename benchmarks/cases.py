"""The nets that benchmarks run: shipped prototxts on inputs of a stated size, with random weights.

A case lies in a folder of its own, which every engine reads: net.prototxt, weights.caffemodel and
inputs.npz with one array for each input of the net.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format

import caffe_lite
from caffe_lite import models, prototxt, upgrade
from caffe_lite.proto import caffe_pb2

IMAGE = (600, 1000)
TEST_ROIS, TRAIN_ROIS = 2000, 128
CLASSES = 21


@dataclass(frozen=True)
class Case:
    """``train``: forward, backward and update. ``caffe``: (seconds, GB) of Caffe 1.0 at 200 GFLOP/s of sgemm."""

    name: str
    model: str
    train: bool = False
    until: str = ""  # the last layer, if not the net's
    caffe: tuple[float, float] | None = None


CASES = (
    Case("VGG16 backbone 600x1000", "VGG16/test.prototxt", until="relu5_3", caffe=(3.3, math.nan)),
    Case("S test, 2000 RoIs", "CaffeNet/test.prototxt", caffe=(1.93, 0.85)),
    Case("S test, SVD", "CaffeNet/compressed/test.prototxt"),
    Case("M test, 2000 RoIs", "VGG_CNN_M_1024/test.prototxt", caffe=(3.5, 1.35)),
    Case("M test, SVD", "VGG_CNN_M_1024/compressed/test.prototxt"),
    Case("L test, 2000 RoIs", "VGG16/test.prototxt", caffe=(7.1, 5.6)),
    Case("L test, SVD", "VGG16/compressed/test.prototxt"),
    Case("S training step", "CaffeNet/train.prototxt", train=True, caffe=(1.17, 1.23)),
    Case("M training step", "VGG_CNN_M_1024/train.prototxt", train=True, caffe=(2.43, 2.03)),
    Case("L training step, conv3_1 up", "VGG16/train.prototxt", train=True),
    Case("LeNet batch 64 step", "classification/LeNet/train_val.prototxt", train=True, caffe=(0.020, 0.14)),
)
GPU_CASES = (  # names of those that gpu.py runs
    "S test, 2000 RoIs",
    "M test, 2000 RoIs",
    "L test, 2000 RoIs",
    "S training step",
    "M training step",
    "L training step, conv3_1 up",
)


def net_param(case: Case) -> Any:
    """The case's NetParameter, its data layers replaced by inputs."""
    param, positions = prototxt.read_net(str(models.path(case.model)))
    upgrade.upgrade_net(param, positions)
    sources = [p for p in param.layer if p.type in ("Python", "Data", "Input")]
    tops = list(dict.fromkeys(top for p in sources for top in p.top))
    kept = [p for p in param.layer if p not in sources and not any(r.phase == caffe_pb2.TEST for r in p.include)]
    if case.until:
        kept = kept[: next(i for i, p in enumerate(kept) if p.name == case.until) + 1]
        tops = [top for top in tops if any(top in p.bottom for p in kept)]
    result = caffe_pb2.NetParameter(name=param.name)
    shapes = {name: values.shape for name, values in inputs(case, tops).items()}
    source = result.layer.add(name="data", type="Input")
    for top in tops:
        source.top.append(top)
        source.input_param.shape.add().dim.extend(shapes[top])
    result.layer.extend(kept)
    return result


def inputs(case: Case, names: list[str]) -> dict[str, np.ndarray]:
    """Random float32 arrays for these inputs."""
    rng = np.random.default_rng(0)
    lenet = "LeNet" in case.model
    images, rois = (2, TRAIN_ROIS) if case.train else (1, TEST_ROIS)
    makers: dict[str, Callable[[], np.ndarray]] = {
        "data": lambda: rng.standard_normal((64, 1, 28, 28) if lenet else (images, 3, *IMAGE)) * (1 if lenet else 50),
        "label": lambda: rng.integers(0, 10, 64),
        "rois": lambda: random_rois(rng, rois, images),
        "labels": lambda: np.where(np.arange(rois) % 4 == 0, rng.integers(1, CLASSES, rois), 0),
        "bbox_targets": lambda: rng.standard_normal((rois, 4 * CLASSES)),
        "bbox_loss_weights": lambda: rng.integers(0, 2, (rois, 4 * CLASSES)),
    }
    return {name: makers[name]().astype(np.float32) for name in names}


def random_rois(rng: np.random.Generator, count: int, images: int) -> np.ndarray:
    y, x = (np.sort(rng.uniform(0, size - 1, (count, 2)), axis=1) for size in IMAGE)
    return np.column_stack([np.arange(count) % images, x[:, 0], y[:, 0], x[:, 1], y[:, 1]])


def write(case: Case, folder: Path) -> None:
    """Put the case's three files into ``folder``."""
    param = net_param(case)
    (folder / "net.prototxt").write_text(text_format.MessageToString(param))
    param.state.phase = caffe_pb2.TRAIN if case.train else caffe_pb2.TEST
    net = caffe_lite.Net.from_param(param)
    rng = np.random.default_rng(1)
    for blobs in net.params.values():
        weight = blobs[0].data
        rng.standard_normal(dtype=np.float32, out=weight)
        weight *= math.sqrt(2 / math.prod(weight.shape[1:]))
    net.save(folder / "weights.caffemodel")
    np.savez(folder / "inputs.npz", **inputs(case, list(net.inputs)))
