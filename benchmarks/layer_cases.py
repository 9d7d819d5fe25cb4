"""What ``benchmarks/layers.py`` times: each layer type at a realistic size, and PyTorch's counterpart."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caffe_lite.layer import Layer

try:
    import torch
    from torch.nn import functional as F
except ImportError:
    torch = F = None  # type: ignore[assignment]

MAP = (16, 64, 56, 56)
SMALL_MAP = (4, 64, 56, 56)
SCORES = (256, 1000)
BOXES = (2000, 84)
STEPS, STREAMS, INPUTS, HIDDEN = 20, 32, 256, 256


@dataclass
class Case:
    """A layer, what goes into it, and its counterpart.

    Args:
        gradients: a bool for each bottom.
        peer: of tensors (bottoms, then parameters if ``learned``); or why there is none.
        module: makes a PyTorch module with parameters of its own, which becomes the first argument of ``peer``.
    """

    text: str
    bottoms: list[np.ndarray]
    gradients: list[bool]
    peer: Callable[..., Any] | str
    tops: int = 1
    learned: bool = True
    module: Callable[[], Any] | None = None
    prepare: Callable[[Any], None] | None = None  # of the layer, once it is set up


RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype("float32")


def one(peer: Callable[..., Any] | str, text: str = "", shape: tuple[int, ...] = MAP, **more: Any) -> Case:
    return Case(text, [normal(*shape)], [True], peer, **more)


def two(peer: Callable[..., Any] | str, shape: tuple[int, ...], both: bool = True, **more: Any) -> Case:
    return Case(more.pop("text", ""), [normal(*shape), normal(*shape)], [True, both], peer, **more)


def labelled(peer: Callable[..., Any] | str, gradient: bool = True, text: str = "") -> Case:
    return Case(text, [normal(*SCORES), RNG.integers(0, SCORES[1], SCORES[0])], [gradient, False], peer)


def elementwise() -> dict[str, Case]:
    flat = "flatten_param { axis: 1 }"
    return {
        "AbsVal": one(lambda x: x.abs()),
        "BNLL": one(lambda x: F.softplus(x)),
        "Bias": one(lambda x, b: x + b[:, None, None]),
        "Clip": one(lambda x: x.clamp(-1, 1), "clip_param { min: -1 max: 1 }"),
        "Dropout": one(lambda x: F.dropout(x, 0.5)),
        "ELU": one(lambda x: F.elu(x)),
        "Eltwise": two(lambda a, b: a + b, MAP),
        "Exp": one(lambda x: x.exp()),
        "Flatten": one(lambda x: x.flatten(1), flat),
        "Log": one(lambda x: (x + 10).log(), "log_param { shift: 10 }"),
        "PReLU": one(lambda x, w: F.prelu(x, w)),
        "Power": one(lambda x: (3 + 0.5 * x) ** 2, "power_param { power: 2 scale: 0.5 shift: 3 }"),
        "ReLU": one(lambda x: F.relu(x)),
        "Reshape": one(lambda x: x.flatten(1), "reshape_param { shape { dim: 0 dim: -1 } }"),
        "Scale": one(lambda x, w, b: x * w[:, None, None] + b[:, None, None], "scale_param { bias_term: true }"),
        "Sigmoid": one(lambda x: x.sigmoid()),
        "Swish": one(lambda x: F.silu(x)),
        "TanH": one(lambda x: x.tanh()),
        "Threshold": Case("", [normal(*MAP)], [False], lambda x: (x > 0).float()),
    }


def maps() -> dict[str, Case]:
    rois = np.array([[i % 2, 16 * (i % 5), 16 * (i % 7), 400, 500] for i in range(128)], dtype="float32")
    deconvolution = "convolution_param { num_output: 64 kernel_size: 4 stride: 2 pad: 1 }"
    return {
        "ArgMax": Case("argmax_param { axis: 1 }", [normal(*MAP)], [False], lambda x: x.argmax(1)),
        "BatchNorm": one(lambda x: F.batch_norm(x, None, None, training=True), learned=False),
        "Convolution": one(
            lambda x, w, b: F.conv2d(x, w, b, padding=1), "convolution_param { num_output: 64 kernel_size: 3 pad: 1 }"
        ),
        "Deconvolution": one(
            lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, padding=1), deconvolution, SMALL_MAP
        ),
        "Im2col": one(lambda x: F.unfold(x, 3, padding=1), "convolution_param { kernel_size: 3 pad: 1 }", SMALL_MAP),
        "InnerProduct": one(lambda x, w, b: F.linear(x, w, b), "inner_product_param { num_output: 4096 }", (128, 4096)),
        "LRN": one(lambda x: F.local_response_norm(x, 5), "lrn_param { alpha: 0.0001 }"),
        "MVN": one(lambda x: F.instance_norm(x)),
        "Pooling": one(lambda x: F.max_pool2d(x, 2), "pooling_param { kernel_size: 2 stride: 2 }"),
        "ROIPooling": Case(
            "roi_pooling_param { pooled_h: 7 pooled_w: 7 spatial_scale: 0.0625 }",
            [normal(2, 512, 38, 63), rois],
            [True, False],
            "in torchvision, not in PyTorch",
        ),
        "Reduction": one(lambda x: x.flatten(1).sum(1), "reduction_param { axis: 1 }"),
        "SPP": one(
            lambda x: torch.cat([F.adaptive_max_pool2d(x, n).flatten(1) for n in (1, 2, 4)], 1),
            "spp_param { pyramid_height: 3 }",
        ),
        "Softmax": one(lambda x: x.softmax(1), shape=SCORES),
    }


def moved() -> dict[str, Case]:
    index = RNG.integers(0, 16, 32)
    words = RNG.integers(0, 10000, (STEPS, STREAMS))
    half = (RNG.random(16) < 0.5).astype("float32")
    return {
        "BatchReindex": Case("", [normal(*MAP), index], [True, False], lambda x, i: torch.index_select(x, 0, i)),
        "Concat": two(lambda a, b: torch.cat([a, b], 1), MAP),
        "Crop": Case(
            "crop_param { offset: 4 }",
            [normal(*MAP), normal(16, 64, 48, 48)],
            [True, False],
            lambda x, y: x[:, :, 4:52, 4:52].contiguous(),
        ),
        "Embed": Case(
            "embed_param { input_dim: 10000 num_output: 256 }",
            [words],
            [False],
            lambda i, w, b: F.embedding(i, w) + b,
        ),
        "Filter": Case("", [normal(*MAP), half], [True, False], lambda x, s: x[s != 0]),
        "Silence": one("computes nothing", tops=0),
        "Slice": one(lambda x: tuple(p.contiguous() for p in x.chunk(2, 1)), tops=2),
        "Split": one(lambda x: (x.view_as(x), x.view_as(x)), tops=2),
        "Tile": one(lambda x: x.repeat(1, 3, 1, 1), "tile_param { axis: 1 tiles: 3 }", (16, 64, 28, 28)),
    }


def losses() -> dict[str, Case]:
    similar = RNG.integers(0, 2, SCORES[0])
    probabilities = RNG.dirichlet(np.ones(SCORES[1]), SCORES[0]).astype("float32")
    labels = RNG.integers(0, SCORES[1], SCORES[0])

    def contrastive(a: Any, b: Any, same: Any) -> Any:
        d = (a - b).norm(dim=1)
        return torch.where(same != 0, d * d, (1 - d).clamp(min=0) ** 2).sum() / (2 * len(a))

    return {
        "Accuracy": labelled(lambda x, y: (x.argmax(1) == y).float().mean(), gradient=False),
        "ContrastiveLoss": Case("", [normal(*SCORES), normal(*SCORES), similar], [True, True, False], contrastive),
        "EuclideanLoss": two(lambda a, b: F.mse_loss(a, b), SCORES, both=False),
        "HingeLoss": labelled(lambda x, y: F.multi_margin_loss(x, y)),
        "InfogainLoss": Case(
            "",
            [normal(*SCORES), labels, np.eye(SCORES[1], dtype="float32")],
            [True, False, False],
            lambda x, y, h: -(h[y] * x.log_softmax(1)).sum() / len(x),
        ),
        "MultinomialLogisticLoss": Case(
            "", [probabilities, labels], [True, False], lambda p, y: F.nll_loss(p.clamp(min=1e-20).log(), y)
        ),
        "SigmoidCrossEntropyLoss": two(lambda a, b: F.binary_cross_entropy_with_logits(a, b), SCORES, both=False),
        "SmoothL1Loss": two(lambda a, b: F.smooth_l1_loss(a, b), BOXES, both=False),
        "SoftmaxWithLoss": labelled(lambda x, y: F.cross_entropy(x, y)),
    }


def recurrent() -> dict[str, Case]:
    text = f"recurrent_param {{ num_output: {HIDDEN} }}"
    x, cont = normal(STEPS, STREAMS, INPUTS), np.ones((STEPS, STREAMS), dtype="float32")

    def unit(c: Any, gates: Any, cont: Any) -> Any:
        i, f, o = gates[..., : 3 * HIDDEN].sigmoid().chunk(3, -1)
        c = cont[..., None] * f * c + i * gates[..., 3 * HIDDEN :].tanh()
        return c, o * c.tanh()

    def rnn(module: Any, x: Any, cont: Any) -> Any:
        return module[1](module[0](x)[0]).tanh()

    def layers() -> Any:
        return torch.nn.ModuleList([torch.nn.RNN(INPUTS, HIDDEN), torch.nn.Linear(HIDDEN, HIDDEN)])

    return {
        "LSTM": Case(
            text,
            [x, cont],
            [True, False],
            lambda module, x, cont: module(x)[0],
            learned=False,
            module=lambda: torch.nn.LSTM(INPUTS, HIDDEN),
        ),
        "LSTMUnit": Case(
            "",
            [normal(1, STREAMS, HIDDEN), normal(1, STREAMS, 4 * HIDDEN), np.ones((1, STREAMS), dtype="float32")],
            [True, True, False],
            unit,
            tops=2,
        ),
        "RNN": Case(text, [x, cont], [True, False], rnn, learned=False, module=layers),
    }


def sources(folder: Path) -> dict[str, Case]:
    """Data layers, with files in ``folder``; without read-ahead, so that the reading itself is timed."""
    import cv2
    import h5py
    import lmdb

    from caffe_lite.proto import caffe_pb2

    n = 32
    images = RNG.integers(0, 256, (n, 256, 256, 3), dtype=np.uint8)
    for i, image in enumerate(images):
        cv2.imwrite(str(folder / f"{i}.jpg"), image)
    (folder / "list.txt").write_text("".join(f"{folder / f'{i}.jpg'} {i}\n" for i in range(n)))
    windows = (
        f"# {i}\n{folder / f'{i}.jpg'}\n3\n256\n256\n2\n1 0.9 10 10 99 99\n0 0 50 50 150 150\n" for i in range(n)
    )
    (folder / "windows.txt").write_text("".join(windows))
    values = images.transpose(0, 3, 1, 2).astype("float32")
    with h5py.File(folder / "data.h5", "w") as file:
        file["t0"] = values
    (folder / "h5.txt").write_text(f"{folder / 'data.h5'}\n")
    environment = lmdb.open(str(folder / "lmdb"), map_size=1 << 28)
    with environment.begin(write=True) as transaction:
        for i, image in enumerate(images):
            datum = caffe_pb2.Datum(channels=3, height=256, width=256, label=i, data=image.transpose(2, 0, 1).tobytes())
            transaction.put(b"%08d" % i, datum.SerializeToString())
    environment.close()
    shutil.copytree(folder / "lmdb", folder / "copy")  # a process may open an environment only once
    opened = lmdb.open(str(folder / "copy"), readonly=True, lock=False)
    batch = np.empty((n, 3, 256, 256), dtype="float32")

    def read_images() -> None:
        for i in range(n):
            batch[i] = cv2.imread(str(folder / f"{i}.jpg")).transpose(2, 0, 1)

    def read_lmdb() -> None:
        with opened.begin() as transaction:
            for i, (_, value) in enumerate(transaction.cursor()):
                datum = caffe_pb2.Datum.FromString(value)
                batch[i] = np.frombuffer(datum.data, dtype=np.uint8).reshape(3, 256, 256)

    def read_hdf5() -> None:
        with h5py.File(folder / "data.h5") as file:
            file["t0"].read_direct(batch)

    def read_windows() -> None:
        for i in range(n):
            image = cv2.imread(str(folder / f"{i}.jpg"))
            batch[i, :, :227, :227] = cv2.resize(image[10:100, 10:100], (227, 227)).transpose(2, 0, 1)

    none = "data_param { prefetch: 0 }"
    size = f"batch_size: {n}"
    dims = "shape { dim: 16 dim: 64 dim: 56 dim: 56 }"
    return {
        "Data": Case(
            f'data_param {{ source: "{folder / "lmdb"}" backend: LMDB {size} prefetch: 0 }}', [], [], read_lmdb
        ),
        "DummyData": Case(
            f'dummy_data_param {{ {dims} data_filler {{ type: "gaussian" }} }}', [], [], lambda: torch.randn(MAP)
        ),
        "HDF5Data": Case(
            f'hdf5_data_param {{ source: "{folder / "h5.txt"}" {size} }}',
            [],
            [],
            lambda: np.copyto(batch, values),
        ),
        "HDF5Output": Case(
            f'hdf5_output_param {{ file_name: "{folder / "out.h5"}" }}',
            [normal(*SCORES), RNG.integers(0, 9, SCORES[0])],
            [False, False],
            "writes a file that grows",
            tops=0,
        ),
        "ImageData": Case(
            f'image_data_param {{ source: "{folder / "list.txt"}" {size} }} {none}', [], [], read_images, tops=2
        ),
        "Input": Case(f"input_param {{ {dims} }}", [], [], "computes nothing"),
        "MemoryData": Case(
            f"memory_data_param {{ {size} channels: 3 height: 256 width: 256 }}",
            [],
            [],
            lambda: np.copyto(batch, values),
            tops=2,
            prepare=lambda layer: layer.reset(values, np.zeros(n, dtype="float32")),
        ),
        "Parameter": Case(f"parameter_param {{ {dims} }}", [], [], "computes nothing"),
        "Python": Case(
            'python_param { module: "layer_cases" layer: "Doubled" }', [normal(*MAP)], [True], lambda x: x * 2
        ),
        "WindowData": Case(
            f'window_data_param {{ source: "{folder / "windows.txt"}" {size} }} '
            f"transform_param {{ crop_size: 227 }} {none}",
            [],
            [],
            read_windows,
            tops=2,
        ),
    }


class Doubled(Layer):
    """The Python layer: y = 2 x."""

    def reshape(self, bottom, top):
        top[0].reshape(bottom[0].shape)

    def forward(self, bottom, top):
        np.multiply(bottom[0].data, 2, out=top[0].data)

    def backward(self, top, propagate_down, bottom):
        np.multiply(top[0].diff, 2, out=bottom[0].diff)


def all_cases(folder: Path) -> dict[str, Case]:
    """By layer type; files that some read lie in ``folder``."""
    return elementwise() | maps() | moved() | losses() | recurrent() | sources(folder)
