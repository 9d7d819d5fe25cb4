"""Bring nets and solvers of older Caffe versions to the schema of today, in Caffe's order.

    V0 (2013)       layers { layer { type: "conv" } } -> V1, padding layers folded (see upgrade_v0)
    transform       scale, mean_file, crop_size and
                    mirror of V1's data layers        -> transform_param
    V1 (2014)       layers { type: CONVOLUTION }      -> layer { type: "Convolution" }
    inputs          input, input_shape, input_dim     -> a layer of type Input, first in the net
    BatchNorm       three param                       -> their multipliers are 0
    solver_type     the enum                          -> the string field type

What came from a file without these things is left as it is. As in Caffe, old forms are logged: as
a warning those of whole files (V0, V1, transform, solver_type) and whatever had to be left out, as
information the inputs, which Fast R-CNN's own nets have, and BatchNorm.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from caffe_lite import upgrade_v0
from caffe_lite.errors import NetError, SolverError
from caffe_lite.prototxt import FieldPath, Positions

V1_TYPES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "ELTWISE": "Eltwise",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "TANH": "TanH",
    "THRESHOLD": "Threshold",
    "WINDOW_DATA": "WindowData",
}
SOLVER_TYPES = {
    "SGD": "SGD",
    "NESTEROV": "Nesterov",
    "ADAGRAD": "AdaGrad",
    "RMSPROP": "RMSProp",
    "ADADELTA": "AdaDelta",
    "ADAM": "Adam",
}
# Fields that stood in these messages before there was a transform_param.
_TRANSFORMED = {"DATA": "data_param", "IMAGE_DATA": "image_data_param", "WINDOW_DATA": "window_data_param"}
_TRANSFORM_FIELDS = ("scale", "mean_file", "crop_size", "mirror")
# V1's lists with one entry for each parameter blob -> the field of ParamSpec that replaced them.
_PARAM_FIELDS = {"param": "name", "blob_share_mode": "share_mode", "blobs_lr": "lr_mult", "weight_decay": "decay_mult"}

log = logging.getLogger("caffe_lite")


@dataclass
class UpgradeReport:
    """What an upgrade did, in words."""

    done: list[str] = field(default_factory=list)  # a line for each old form that was found
    lost: list[str] = field(default_factory=list)  # a line, with its place, for each field that was left out

    def log(self, origin: str) -> None:
        """Tell the log what was done to the file ``origin`` (see the module)."""
        for line in self.done:
            level = logging.INFO if line in (_INPUTS, _BATCH_NORM) else logging.WARNING
            log.log(level, "%s: upgraded %s; 'caffe-lite upgrade' writes the file anew", origin or "net", line)
        for line in self.lost:
            log.warning("%s", line)


_V0 = "layers of 2013 (layers { layer { } }) to those of 2014"
_TRANSFORM = "scale, mean_file, crop_size or mirror of data layers to transform_param"
_V1 = 'layers of 2014 (layers { type: ENUM }) to layer { type: "..." }'
_INPUTS = "input fields to an Input layer"
_BATCH_NORM = "BatchNorm: multipliers of its statistics are 0"
_SOLVER_TYPE = "solver_type to type"


def upgrade_net(
    param: Any, positions: Positions | None = None, report: UpgradeReport | None = None, origin: str = ""
) -> Positions | None:
    """Bring the NetParameter ``param`` up to date in place.

    Returns ``positions`` for the upgraded message (``positions`` itself is not changed): layers
    keep the place where they stand in the file, an added Input layer has that of the first input.
    What was done is added to ``report`` if one is given, else logged, as of the file ``origin``.

    Raises:
        NetError: a V0 net that cannot be upgraded, ``layer`` beside ``layers``, or inputs without matching shapes.
    """
    notes = UpgradeReport() if report is None else report
    if upgrade_v0.needs_upgrade(param):
        positions, lost = upgrade_v0.upgrade(param, positions, lambda path: _where(positions, path))
        notes.done.append(_V0)
        notes.lost += lost
    if param.layers:
        if any([_move_transform_of(layer) for layer in param.layers]):
            notes.done.append(_TRANSFORM)
        positions = _upgrade_v1(param, positions)
        notes.done.append(_V1)
    if param.input:
        positions = _upgrade_inputs(param, positions)
        notes.done.append(_INPUTS)
    if any([_upgrade_batch_norm(layer) for layer in param.layer]):
        notes.done.append(_BATCH_NORM)
    if report is None:
        notes.log(origin or (positions.filename if positions else ""))
    return positions


def upgrade_solver(
    param: Any, positions: Positions | None = None, report: UpgradeReport | None = None, origin: str = ""
) -> Any:
    """Bring the SolverParameter ``param`` up to date in place, and return it; ``report`` as in :func:`upgrade_net`.

    Raises:
        SolverError: both ``solver_type`` (the old enum) and ``type`` (the string) are given.
    """
    if param.HasField("solver_type"):
        enum = param.DESCRIPTOR.fields_by_name["solver_type"].enum_type
        old = enum.values_by_number[param.solver_type].name
        if param.HasField("type"):
            raise SolverError(
                f"{_where(positions, ('solver_type',))}solver_type: {old} and type: {param.type!r} are both given; "
                "keep type, solver_type is its old form"
            )
        param.type = SOLVER_TYPES[old]
        param.ClearField("solver_type")
        notes = UpgradeReport() if report is None else report
        notes.done.append(_SOLVER_TYPE)
        if report is None:
            notes.log(origin or (positions.filename if positions else ""))
    return param


def _where(positions: Positions | None, path: FieldPath) -> str:
    return f"{positions.at(path)}: " if positions else ""


# ---- V1: layers { type: ENUM }


def _upgrade_v1(param: Any, positions: Positions | None) -> Positions | None:
    if param.layer:
        raise NetError(
            f"{_where(positions, ('layer', 0))}layer {param.layer[0].name!r} is written 'layer', others of this net "
            "'layers' (the form of 2014): write all of them in the same form"
        )
    for old in param.layers:
        _upgrade_v1_layer(old, param.layer.add())
    del param.layers[:]
    if positions is None:
        return None
    return positions.moved(lambda path: ("layer", *path[1:]) if path[0] == "layers" else path)


def _upgrade_v1_layer(old: Any, new: Any) -> None:
    for part, value in old.ListFields():
        if part.name == "type":
            new.type = V1_TYPES[_v1_type(old)]
        elif part.name in _PARAM_FIELDS:
            while len(new.param) < len(value):
                new.param.add()
            for spec, entry in zip(new.param, value, strict=False):
                setattr(spec, _PARAM_FIELDS[part.name], entry)
        elif isinstance(value, str):
            setattr(new, part.name, value)
        elif part.message_type is not None and hasattr(value, "CopyFrom"):
            getattr(new, part.name).CopyFrom(value)
        else:
            getattr(new, part.name).extend(value)


def _v1_type(layer: Any) -> str:
    return layer.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_number[layer.type].name


def _move_transform_of(layer: Any) -> bool:
    """Move what V1's data layers did to an image to ``transform_param``; was there anything?"""
    name = _TRANSFORMED.get(_v1_type(layer))
    if name is None or not layer.HasField(name):
        return False
    data = getattr(layer, name)
    given = [part for part in _TRANSFORM_FIELDS if data.HasField(part)]
    for part in given:
        setattr(layer.transform_param, part, getattr(data, part))
        data.ClearField(part)
    return bool(given)


# ---- input, input_shape, input_dim


def _upgrade_inputs(param: Any, positions: Positions | None) -> Positions | None:
    names, shapes, dims = list(param.input), list(param.input_shape), list(param.input_dim)
    if shapes and len(shapes) != len(names):
        raise NetError(
            f"{_where(positions, ('input_shape', 0))}{len(names)} input and {len(shapes)} input_shape: "
            "give one input_shape for each input"
        )
    if dims and not shapes and len(dims) != 4 * len(names):
        raise NetError(
            f"{_where(positions, ('input_dim',))}{len(names)} input and {len(dims)} input_dim: "
            "give four input_dim (num, channels, height, width) for each input"
        )
    if shapes or dims:
        layer = param.layer.add(name="input", type="Input", top=names)
        for i in range(len(names)):
            layer.input_param.shape.add(dim=shapes[i].dim if shapes else dims[4 * i : 4 * i + 4])
        param.layer.insert(0, param.layer.pop())
        positions = _after_input(positions)
    for part in ("input", "input_shape", "input_dim"):  # without dims: an old trained net, whose inputs do not matter
        param.ClearField(part)
    return positions


def _upgrade_batch_norm(layer: Any) -> bool:
    """No gradient may touch BatchNorm's statistics; did this layer's ``param`` say otherwise?"""
    if layer.type != "BatchNorm" or len(layer.param) != 3:
        return False
    wrong = [spec for spec in layer.param if spec.lr_mult or spec.decay_mult]
    for spec in wrong:
        spec.lr_mult = spec.decay_mult = 0
    return bool(wrong)


def _after_input(positions: Positions | None) -> Positions | None:
    """The positions when a layer made of the inputs stands before all others."""
    if positions is None:
        return None

    def rule(path: FieldPath) -> FieldPath:
        if path[0] == "layer" and len(path) > 1:
            return ("layer", path[1] + 1, *path[2:])
        return ("layer", 0) if path == ("input", 0) else path

    return positions.moved(rule)
