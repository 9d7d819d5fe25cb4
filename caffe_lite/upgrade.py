"""Bring nets and solvers of older Caffe versions to the schema of today, in Caffe's order.

    V0 (2013)       layers { layer { ... } }      not read yet: a clear error
    V1 (2014)       layers { type: CONVOLUTION }  -> layer { type: "Convolution" }
    inputs          input, input_shape, input_dim -> a layer of type Input, first in the net
    BatchNorm       three param                   -> their multipliers are 0
    solver_type     the enum                      -> the string field type

What came from a file without these things is left as it is.
"""

from __future__ import annotations

from typing import Any

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


def upgrade_net(param: Any, positions: Positions | None = None) -> Positions | None:
    """Bring the NetParameter ``param`` up to date in place.

    Returns ``positions`` for the upgraded message (``positions`` itself is not changed): layers
    keep the place where they stand in the file, an added Input layer has that of the first input.

    Raises:
        NetError: a V0 net, ``layer`` beside ``layers``, or inputs without matching shapes.
    """
    if param.layers:
        positions = _upgrade_v1(param, positions)
    if param.input:
        positions = _upgrade_inputs(param, positions)
    for layer in param.layer:
        if layer.type == "BatchNorm" and len(layer.param) == 3:  # statistics, which no gradient may touch
            for spec in layer.param:
                spec.lr_mult = spec.decay_mult = 0
    return positions


def upgrade_solver(param: Any, positions: Positions | None = None) -> Any:
    """Bring the SolverParameter ``param`` up to date in place, and return it.

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
    return param


def _where(positions: Positions | None, path: FieldPath) -> str:
    return f"{positions.at(path)}: " if positions else ""


# ---- V1: layers { type: ENUM }


def _upgrade_v1(param: Any, positions: Positions | None) -> Positions | None:
    for i, old in enumerate(param.layers):
        if old.HasField("layer"):
            raise NetError(
                f"{_where(positions, ('layers', i))}layer {old.layer.name!r} is in the V0 form (layers {{ layer }}): "
                "V0 nets (2013) are not read yet; Caffe's tool upgrade_net_proto converts them"
            )
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
    type_name = old.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_number[old.type].name
    if type_name in _TRANSFORMED and old.HasField(_TRANSFORMED[type_name]):
        _move_transform(getattr(old, _TRANSFORMED[type_name]), old.transform_param)
    for field, value in old.ListFields():
        if field.name == "type":
            new.type = V1_TYPES[type_name]
        elif field.name in _PARAM_FIELDS:
            while len(new.param) < len(value):
                new.param.add()
            for spec, entry in zip(new.param, value, strict=False):
                setattr(spec, _PARAM_FIELDS[field.name], entry)
        elif isinstance(value, str):
            setattr(new, field.name, value)
        elif field.message_type is not None and hasattr(value, "CopyFrom"):
            getattr(new, field.name).CopyFrom(value)
        else:
            getattr(new, field.name).extend(value)


def _move_transform(data: Any, transform: Any) -> None:
    for name in _TRANSFORM_FIELDS:
        if data.HasField(name):
            setattr(transform, name, getattr(data, name))
            data.ClearField(name)


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
    for field in ("input", "input_shape", "input_dim"):  # without dims: an old trained net, whose inputs do not matter
        param.ClearField(field)
    return positions


def _after_input(positions: Positions | None) -> Positions | None:
    """The positions when a layer made of the inputs stands before all others."""
    if positions is None:
        return None

    def rule(path: FieldPath) -> FieldPath:
        if path[0] == "layer" and len(path) > 1:
            return ("layer", path[1] + 1, *path[2:])
        return ("layer", 0) if path == ("input", 0) else path

    return positions.moved(rule)
