"""From a net that classifies images to a Fast R-CNN: the three changes of the paper (section 2.3).

1. The last max pooling becomes RoI pooling, at the size that the first fully connected layer needs.
2. The classifier becomes two sibling layers: cls_score for K classes and the background, bbox_pred with
   four numbers for each of them.
3. The net takes two inputs: images, and regions of interest in them.

``spatial_scale`` is 1 over the product of the strides up to the RoI pooling. Learning rates are those of
the published nets: lr_mult 1 and decay_mult 1 for weights, 2 and 0 for biases, 0 and 0 for frozen layers.
Frozen are, unless ``freeze_below`` says otherwise, the layers whose input has a stride of less than 4:
conv1 of the nets of 2012 to 2014, conv1 and conv2 of VGG16, as in the paper. Batch norms stay frozen,
statistics included.

The published CaffeNet of Fast R-CNN also pads conv1, pool1 and pool2 by (kernel - 1) / 2, so that a
cell of the map lies where its stride says; ``same_padding`` does that to every convolution and pooling.

A net is refused, with the reason, if there is no max pooling between its convolutions and its fully
connected layers (NIN, GoogLeNet, SqueezeNet, ResNet: they average), since there nothing says which
layers are to be run once for each region.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from caffe_lite import atomic, caffemodel, graph, prototxt, upgrade
from caffe_lite.errors import NetError, WeightsError
from caffe_lite.net import Net
from caffe_lite.proto import caffe_pb2

FROZEN_STRIDE = 4  # layers whose input has a smaller stride are frozen
_AFTER_POOLING = ("ReLU", "PReLU", "ELU", "Sigmoid", "TanH", "Dropout", "LRN", "Flatten", "BatchNorm", "Scale")
_STATISTICS = ("BatchNorm",)
_HEADS = ("cls_score", "bbox_pred")


@dataclass
class Operation:
    """What the surgery found and made."""

    name: str
    pool: str  # the layer that RoI pooling takes the place of
    classifier: str  # the layer that the siblings take the place of
    pooled: tuple[int, int]  # height, width
    stride: int  # of the map that is pooled
    frozen: list[str]
    train: Any = field(repr=False)  # NetParameter
    test: Any = field(repr=False)
    copied: list[str] = field(default_factory=list)  # layers whose weights were taken over
    ignored: list[str] = field(default_factory=list)  # layers of the weights that the net does not have


def operate(
    path: str | os.PathLike[str],
    classes: int,
    freeze_below: str | None = None,
    same_padding: bool = False,
    size: int | None = None,
) -> Operation:
    """The Fast R-CNN nets for ``classes`` object classes, from a deploy or train_val prototxt of any age.

    freeze_below: the first layer that is trained. size: of the images of the classification net, where its
    prototxt does not say (no input shape and no crop_size).

    Raises:
        NetError: the net cannot be operated on; PrototxtError: the file is none.
    """
    if classes < 1:
        raise NetError(f"classes are counted without the background and must be 1 or more, got {classes}")
    body = _Body(path, size)
    pool, stride = body.pool, body.strides[body.pool.bottom[0]]
    frozen = body.frozen(freeze_below)
    name = re.sub(r"[^\w.-]", "_", body.param.name or Path(path).stem)
    header = caffe_pb2.NetParameter(name=name)
    train, test = caffe_pb2.NetParameter(), caffe_pb2.NetParameter()
    train.CopyFrom(header)
    test.CopyFrom(header)
    train.layer.append(_data_layer(classes + 1))
    test.input.extend(["data", "rois"])
    test.input_shape.add().dim.extend([1, 3, *body.image])
    test.input_shape.add().dim.extend([1, 5])
    for layer in body.layers:
        changed = _roi_pooling(layer, body.pooled, stride) if layer is pool else _copy(layer)
        if same_padding:
            _pad_same(changed)
        test.layer.append(_without_training(changed))
        _set_rates(changed, layer.name in frozen)
        train.layer.append(changed)
    _add_heads(train, test, body.classifier.bottom[0], classes + 1)
    listed = [layer.name for layer in body.layers if layer.name in frozen and _learns(layer)]
    return Operation(name, pool.name, body.classifier.name, body.pooled, stride, listed, train, test)


def write(operation: Operation, folder: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None) -> None:
    """Write train.prototxt, test.prototxt, solver.prototxt and, given ``weights``, initial.caffemodel.

    The last holds the layers of ``weights`` that the net has, by name; the two siblings start from
    their fillers. The solver's paths are ``folder`` as it is given.

    Raises:
        WeightsError: a layer of the weights differs; nothing was written.
    """
    folder = Path(folder)
    net = Net.from_param(operation.test)
    if weights is not None:
        _copy_weights(operation, net, os.fspath(weights))
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "train": f"# Training: {operation.train.layer[-3].inner_product_param.num_output // 4} classes, "
        f"the background included.\n{prototxt.write(operation.train)}",
        "test": f"# Testing: an image blob and one row (image, x1, y1, x2, y2) a region; both are reshaped at run "
        f"time.\n{prototxt.write(operation.test)}",
        "solver": _solver(operation.name, folder / "train.prototxt"),
    }
    with atomic.atomic_files() as files:
        if weights is not None:
            kept = [layer for layer in net.layers if layer.name in operation.copied]
            stored = ((layer.layer_param, ((b.data, None) for b in layer.blobs)) for layer in kept)
            stream = files.open(folder / "initial.caffemodel")
            for part in caffemodel.encoded_layers(folder / "initial.caffemodel", operation.name, stored):
                stream.write(part)
        for stem, text in texts.items():
            files.open(folder / f"{stem}.prototxt", "w").write(text)


def _copy_weights(operation: Operation, net: Any, weights: str) -> None:
    report = net.copy_from(weights)
    operation.copied, operation.ignored = report.copied, report.ignored
    wrong = [name for name in _HEADS if name in report.copied]
    if wrong:
        raise WeightsError(f"{weights}: has a layer {wrong[0]!r}, so these are the weights of a detector already")


# ---- the classification net


class _Body:
    """The layers of a classification net from the image to before the classifier, and what is known of them."""

    def __init__(self, path: str | os.PathLike[str], size: int | None) -> None:
        self.path = os.fspath(path)
        self.param, positions = prototxt.read_net(path)
        upgrade.upgrade_net(self.param, positions)
        specs = [graph.LayerSpec(layer, "") for layer in self.param.layer]
        layers = [spec.param for spec in graph.filter_layers(specs, caffe_pb2.NetState(phase=caffe_pb2.TRAIN))]
        sources = [layer for layer in layers if not layer.bottom]
        if not sources or not sources[0].top:
            self.refuse("it has no input")
        self.image = self._image_size(sources[0], size)
        _rename(layers, sources[0].top[0], "data")
        connected = [layer for layer in layers if layer.type == "InnerProduct"]
        if not connected:
            self.refuse("it has no fully connected layer (InnerProduct): nothing says what is run for each region")
        self.classifier = connected[-1]
        self.layers = _needed([layer for layer in layers if layer.bottom], self.classifier.bottom[0])
        for name in ("rois", *_HEADS):
            if any(name in (layer.name, *layer.top) for layer in self.layers):
                self.refuse(f"it has a layer or a blob {name!r}, a name that Fast R-CNN needs")
        self.pool = self._find_pool()
        self.strides = self._strides()
        self.pooled = self._pooled_size()

    def refuse(self, why: str) -> Any:
        raise NetError(f"{self.path}: no Fast R-CNN can be made of net {self.param.name!r}: {why}")

    def _image_size(self, source: Any, size: int | None) -> tuple[int, int]:
        shapes = source.input_param.shape
        if shapes and len(shapes[0].dim) == 4:
            _, channels, height, width = shapes[0].dim
            if channels != 3:
                self.refuse(f"its images have {channels} channel(s), those of Fast R-CNN have 3")
            return height, width
        size = size or source.transform_param.crop_size
        if not size:
            self.refuse(f"layer {source.name!r} does not say how large images are; give their size (--size)")
        return size, size

    def _find_pool(self) -> Any:
        """The max pooling whose top reaches the first fully connected layer."""
        first = next((layer for layer in self.layers if layer.type == "InnerProduct"), self.classifier)
        blob = first.bottom[0]
        before = self.layers[: self.layers.index(first)] if first in self.layers else self.layers
        for layer in reversed(before):
            if blob not in layer.top:
                continue
            if layer.type == "Pooling":
                p = layer.pooling_param
                if p.pool != p.MAX or p.global_pooling:
                    kind = p.PoolMethod.Name(p.pool) + (" global" if p.global_pooling else "")
                    self.refuse(f"{first.name!r} follows the {kind} pooling {layer.name!r}, not a MAX one")
                return layer
            if layer.type not in _AFTER_POOLING or len(layer.bottom) != 1:
                self.refuse(f"{first.name!r} follows {layer.name!r} ({layer.type}), not a MAX pooling")
            blob = layer.bottom[0]
        return self.refuse(f"there is no pooling before {first.name!r}")

    def _strides(self) -> dict[str, int]:
        """{blob: image pixels from cell to cell}, up to the RoI pooling."""
        strides = {"data": 1}
        for layer in self.layers[: self.layers.index(self.pool)]:
            if layer.type == "Deconvolution":
                self.refuse(f"{layer.name!r} is a Deconvolution, which makes strides smaller")
            reached = max(strides[name] for name in layer.bottom) * self._stride(layer)
            strides.update((name, reached) for name in layer.top)
        return strides

    def _stride(self, layer: Any) -> int:
        if layer.type not in ("Convolution", "Pooling"):
            return 1
        p = layer.convolution_param if layer.type == "Convolution" else layer.pooling_param
        given = [p.stride_h, p.stride_w] if p.HasField("stride_h") else _listed(p.stride) or [1]
        if len(set(given)) > 1:
            self.refuse(f"{layer.name!r} has strides {given}; spatial_scale is one number")
        return int(given[0])

    def _pooled_size(self) -> tuple[int, int]:
        """What the pooling gives for an image of the classification net: the size that the next layer was made for."""
        param = caffe_pb2.NetParameter(input=["data"])
        param.input_shape.add().dim.extend([1, 3, *self.image])
        for layer in self.layers[: self.layers.index(self.pool) + 1]:
            param.layer.append(_without_training(layer))
        param.state.phase = caffe_pb2.TEST
        net = Net.from_param(param)
        height, width = net.blobs[self.pool.top[0]].shape[2:]
        return height, width

    def frozen(self, freeze_below: str | None) -> set[str]:
        """The names of the layers that keep their weights."""
        names = [layer.name for layer in self.layers]
        if freeze_below is not None:
            if freeze_below not in names:
                raise NetError(f"{self.path}: no layer {freeze_below!r} to freeze below; there are: {', '.join(names)}")
            return set(names[: names.index(freeze_below)])
        before = self.layers[: self.layers.index(self.pool)]
        return {layer.name for layer in before if self._input_stride(layer) < FROZEN_STRIDE and _learns(layer)}

    def _input_stride(self, layer: Any) -> int:
        return self.strides[layer.top[0]] // self._stride(layer)


def _needed(layers: Sequence[Any], blob: str) -> list[Any]:
    """The layers that ``blob``, the classifier's bottom, is computed by, in-place ones included, in their order."""
    wanted, kept = {blob}, []
    for layer in reversed(layers):
        if wanted.intersection(layer.top):
            kept.append(layer)
            wanted.update(layer.bottom)
    return kept[::-1]


def _rename(layers: Sequence[Any], old: str, new: str) -> None:
    for layer in layers:
        for names in (layer.bottom, layer.top):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new


def _listed(values: Any) -> list[int]:
    return [values] if isinstance(values, int) else list(values)


def _learns(layer: Any) -> bool:
    return layer.type in ("Convolution", "InnerProduct", "Scale", "Bias", "PReLU", *_STATISTICS)


# ---- the layers of the detector


def _copy(layer: Any) -> Any:
    copy = caffe_pb2.LayerParameter()
    copy.CopyFrom(layer)
    for name in ("include", "exclude", "phase", "blobs"):
        copy.ClearField(name)
    return copy


def _without_training(layer: Any) -> Any:
    """``layer`` as a test.prototxt has it: no learning rates, no fillers."""
    copy = _copy(layer)
    if not any(spec.name for spec in copy.param):
        copy.ClearField("param")
    for name in ("convolution_param", "inner_product_param"):
        if copy.HasField(name):
            getattr(copy, name).ClearField("weight_filler")
            getattr(copy, name).ClearField("bias_filler")
    return copy


def _pad_same(layer: Any) -> None:
    """Padding that puts the middle of the first window on the first pixel, for odd kernels."""
    if layer.type not in ("Convolution", "Pooling"):
        return
    p = layer.convolution_param if layer.type == "Convolution" else layer.pooling_param
    if p.HasField("kernel_h"):
        p.ClearField("pad")
        p.pad_h, p.pad_w = (p.kernel_h - 1) // 2, (p.kernel_w - 1) // 2
        return
    dilation = _listed(p.dilation) if layer.type == "Convolution" else []
    pads = [(k - 1) * (dilation[0] if dilation else 1) // 2 for k in _listed(p.kernel_size)]
    p.ClearField("pad")
    if not any(pads):
        return
    if layer.type == "Convolution":
        p.pad.extend(pads)
    else:
        p.pad = pads[0]


def _set_rates(layer: Any, frozen: bool) -> None:
    """The learning rates of the published nets: one entry for each parameter blob, names kept."""
    if not _learns(layer):
        return
    count = 3 if layer.type in _STATISTICS else 1 if layer.type in ("PReLU", "Bias") else 1 + _has_bias(layer)
    while len(layer.param) < count:
        layer.param.add()
    for i, spec in enumerate(layer.param):
        fixed = frozen or layer.type in _STATISTICS
        spec.lr_mult, spec.decay_mult = (0, 0) if fixed else (2, 0) if i else (1, 1)


def _has_bias(layer: Any) -> bool:
    param = {"Convolution": "convolution_param", "InnerProduct": "inner_product_param", "Scale": "scale_param"}
    return bool(getattr(layer, param[layer.type]).bias_term)


def _roi_pooling(pool: Any, pooled: tuple[int, int], stride: int) -> Any:
    layer = caffe_pb2.LayerParameter(name=f"roi_{pool.name}", type="ROIPooling", bottom=[pool.bottom[0], "rois"])
    layer.top.append(pool.top[0])
    p = layer.roi_pooling_param
    p.pooled_h, p.pooled_w, p.spatial_scale = *pooled, 1 / stride
    return layer


def _data_layer(classes: int) -> Any:
    layer = caffe_pb2.LayerParameter(name="data", type="Python")
    layer.top.extend(["data", "rois", "labels", "bbox_targets", "bbox_loss_weights"])
    p = layer.python_param
    p.module, p.layer, p.param_str = "roi_data_layer.layer", "RoIDataLayer", f"'num_classes': {classes}"
    return layer


def _add_heads(train: Any, test: Any, bottom: str, classes: int) -> None:
    """cls_score and bbox_pred, with Fast R-CNN's fillers; losses in ``train``, probabilities in ``test``."""
    for name, outputs, std in ("cls_score", classes, 0.01), ("bbox_pred", 4 * classes, 0.001):
        layer = caffe_pb2.LayerParameter(name=name, type="InnerProduct", bottom=[bottom], top=[name])
        p = layer.inner_product_param
        p.num_output = outputs
        p.weight_filler.type, p.weight_filler.std = "gaussian", std
        p.bias_filler.type, p.bias_filler.value = "constant", 0
        test.layer.append(layer)
        _set_rates(layer, frozen=False)
        train.layer.append(layer)
    test.layer.add(name="cls_prob", type="Softmax", bottom=["cls_score"], top=["cls_prob"])
    for name, kind, bottoms in (
        ("loss_cls", "SoftmaxWithLoss", ["cls_score", "labels"]),
        ("loss_bbox", "SmoothL1Loss", ["bbox_pred", "bbox_targets", "bbox_loss_weights"]),
    ):
        train.layer.add(name=name, type=kind, bottom=bottoms, top=[name], loss_weight=[1])


def _solver(name: str, train: Path) -> str:
    param = caffe_pb2.SolverParameter(train_net=train.as_posix(), base_lr=0.001, lr_policy="step", gamma=0.1)
    param.stepsize, param.display, param.average_loss = 30000, 20, 100
    param.momentum, param.weight_decay = 0.9, 0.0005
    param.snapshot, param.snapshot_prefix = 0, f"{name.lower()}_fast_rcnn"
    note = "# snapshot 0: fast-rcnn writes the snapshots itself, with the box targets' normalisation in bbox_pred.\n"
    return note + prototxt.write(param)
