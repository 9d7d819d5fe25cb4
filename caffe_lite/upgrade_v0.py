"""V0 (2013) to V1 (2014): ``layers { layer { type: "conv" ... } }`` becomes ``layers { type: CONVOLUTION ... }``.

A V0 layer held every parameter itself; V1 has a message for each type. Padding was a layer of its
own; it becomes the ``pad`` of the convolution or pooling after it. As in Caffe's upgrade_proto, but
for one thing: a net that mixes the two forms is refused, where Caffe drops what is in the other form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from caffe_lite.errors import NetError, did_you_mean
from caffe_lite.prototxt import FieldPath, Positions


class _Type(NamedTuple):
    v1: str  # the value of V1LayerParameter.LayerType
    message: str = ""  # the message of V1LayerParameter that holds the type's parameters


V0_TYPES = {
    "accuracy": _Type("ACCURACY"),
    "bnll": _Type("BNLL"),
    "concat": _Type("CONCAT", "concat_param"),
    "conv": _Type("CONVOLUTION", "convolution_param"),
    "data": _Type("DATA", "data_param"),
    "dropout": _Type("DROPOUT", "dropout_param"),
    "euclidean_loss": _Type("EUCLIDEAN_LOSS"),
    "flatten": _Type("FLATTEN"),
    "hdf5_data": _Type("HDF5_DATA", "hdf5_data_param"),
    "hdf5_output": _Type("HDF5_OUTPUT", "hdf5_output_param"),
    "im2col": _Type("IM2COL"),
    "images": _Type("IMAGE_DATA", "image_data_param"),
    "infogain_loss": _Type("INFOGAIN_LOSS", "infogain_loss_param"),
    "innerproduct": _Type("INNER_PRODUCT", "inner_product_param"),
    "lrn": _Type("LRN", "lrn_param"),
    "multinomial_logistic_loss": _Type("MULTINOMIAL_LOGISTIC_LOSS"),
    "pool": _Type("POOLING", "pooling_param"),
    "relu": _Type("RELU"),
    "sigmoid": _Type("SIGMOID"),
    "softmax": _Type("SOFTMAX"),
    "softmax_loss": _Type("SOFTMAX_LOSS"),
    "split": _Type("SPLIT"),
    "tanh": _Type("TANH"),
    "window_data": _Type("WINDOW_DATA", "window_data_param"),
}
_PADDING = "padding"

_LEARNING = ("conv", "innerproduct")
_READERS = ("data", "hdf5_data", "images", "window_data")
# Field of V0LayerParameter -> its name in the message of the type, and the types that have it.
_FIELDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "num_output": ("num_output", _LEARNING),
    "biasterm": ("bias_term", _LEARNING),
    "weight_filler": ("weight_filler", _LEARNING),
    "bias_filler": ("bias_filler", _LEARNING),
    "pad": ("pad", ("conv", "pool")),
    "kernelsize": ("kernel_size", ("conv", "pool")),
    "group": ("group", ("conv",)),
    "stride": ("stride", ("conv", "pool")),
    "pool": ("pool", ("pool",)),
    "dropout_ratio": ("dropout_ratio", ("dropout",)),
    "local_size": ("local_size", ("lrn",)),
    "alpha": ("alpha", ("lrn",)),
    "beta": ("beta", ("lrn",)),
    "k": ("k", ("lrn",)),
    "source": ("source", (*_READERS, "infogain_loss")),
    "batchsize": ("batch_size", _READERS),
    "rand_skip": ("rand_skip", ("data", "images")),
    "shuffle_images": ("shuffle", ("images",)),
    "new_height": ("new_height", ("images",)),
    "new_width": ("new_width", ("images",)),
    "concat_dim": ("concat_dim", ("concat",)),
    "det_fg_threshold": ("fg_threshold", ("window_data",)),
    "det_bg_threshold": ("bg_threshold", ("window_data",)),
    "det_fg_fraction": ("fg_fraction", ("window_data",)),
    "det_context_pad": ("context_pad", ("window_data",)),
    "det_crop_mode": ("crop_mode", ("window_data",)),
    "new_num": ("new_num", ()),  # of a reshaping layer that no released Caffe had
    "new_channels": ("new_channels", ()),
}
_TRANSFORM_FIELDS = {"scale": "scale", "meanfile": "mean_file", "cropsize": "crop_size", "mirror": "mirror"}
_KEPT = ("blobs", "blobs_lr", "weight_decay")  # the same in V1

Locate = Callable[[FieldPath], str]  # path of a field -> "file:line:column: ", or "" where that is not known


def needs_upgrade(param: Any) -> bool:
    """Does any layer of NetParameter ``param`` have the V0 form?"""
    return any(layer.HasField("layer") for layer in param.layers)


def upgrade(param: Any, positions: Positions | None, locate: Locate) -> tuple[Positions | None, list[str]]:
    """Turn the V0 layers of ``param`` into V1 layers, in place.

    Returns the positions for the changed message, and a line for each field that its layer's type
    does not have and that is therefore left out.

    Raises:
        NetError: an unknown type or bottom, padding before a layer that cannot pad, or both forms in one net.
    """
    _refuse_mixed(param, locate)
    kept = _fold_padding(param, locate)
    lost: list[str] = []
    layers = [_layer(param.layers[i], ("layers", i), locate, lost) for i in kept]
    del param.layers[:]
    param.layers.extend(layers)
    if positions is None:
        return None, lost
    new_index = {old: new for new, old in enumerate(kept)}

    def rule(path: FieldPath) -> FieldPath | None:
        if path[0] != "layers" or len(path) < 2:
            return path
        return ("layers", new_index[path[1]], *path[2:]) if path[1] in new_index else None

    return positions.moved(rule), lost


def _refuse_mixed(param: Any, locate: Locate) -> None:
    for i, layer in enumerate(param.layers):
        others = [field.name for field, _ in layer.ListFields() if field.name not in ("layer", "bottom", "top")]
        if not layer.HasField("layer") or others:
            name = layer.layer.name or layer.name
            found = f"has {' and '.join(others)}" if others else "has no layer { }"
            raise NetError(
                f"{locate(('layers', i))}layer {name!r} {found} in a net of 2013, whose layers are written "
                "layers { bottom top layer { } }: write all of them in the same form"
            )


# ---- padding


def _fold_padding(param: Any, locate: Locate) -> list[int]:
    """Give what padding layers add to the layers after them; the indices of all layers but the padding ones."""
    maker: dict[str, int | None] = dict.fromkeys(param.input)  # blob -> the last layer that makes it
    for i, layer in enumerate(param.layers):
        for j, name in enumerate(layer.bottom):
            if name not in maker:
                raise NetError(
                    f"{locate(('layers', i, 'bottom', j))}layer {layer.layer.name!r}: unknown bottom {name!r}"
                    f"{did_you_mean(name, maker)}"
                )
            source = maker[name]
            if source is not None and param.layers[source].layer.type == _PADDING:
                _take_padding(layer, param.layers[source], locate(("layers", i)))
        for name in layer.top:
            maker[name] = i
    return [i for i, layer in enumerate(param.layers) if not _is_padding(layer, locate(("layers", i)))]


def _is_padding(layer: Any, where: str) -> bool:
    if layer.layer.type != _PADDING:
        return False
    if layer.layer.blobs:
        raise NetError(f"{where}padding layer {layer.layer.name!r} has parameter blobs, which padding cannot have")
    return True


def _take_padding(layer: Any, padding: Any, where: str) -> None:
    name, type_name = layer.layer.name, layer.layer.type
    if type_name not in ("conv", "pool"):
        raise NetError(
            f"{where}layer {name!r} ({type_name}) reads padding layer {padding.layer.name!r}: "
            "only conv and pool layers can pad"
        )
    for part, kind, which in ((layer, "bottom", name), (padding, "bottom", None), (padding, "top", None)):
        count = len(getattr(part, kind))
        if count != 1:
            of = f"padding layer {padding.layer.name!r}" if which is None else f"layer {which!r}, which is padded,"
            raise NetError(f"{where}{of} must have one {kind}, got {count}")
    layer.layer.pad = padding.layer.pad
    layer.bottom[0] = padding.bottom[0]


# ---- one layer


def _layer(outer: Any, path: FieldPath, locate: Locate, lost: list[str]) -> Any:
    """The V1LayerParameter of a V0 layer; what has no place in it is described in ``lost``."""
    old = outer.layer
    new = type(outer)(bottom=outer.bottom, top=outer.top)
    if old.HasField("name"):
        new.name = old.name
    if old.HasField("type"):
        if old.type not in V0_TYPES:
            near = did_you_mean(old.type, [*V0_TYPES, _PADDING])
            raise NetError(f"{locate((*path, 'layer', 'type'))}layer {old.name!r}: unknown V0 type {old.type!r}{near}")
        new.type = new.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_name[V0_TYPES[old.type].v1].number
    for field, value in old.ListFields():
        if field.name in ("name", "type"):
            continue
        if field.name in _KEPT:
            getattr(new, field.name).extend(value)
        elif field.name in _TRANSFORM_FIELDS:
            setattr(new.transform_param, _TRANSFORM_FIELDS[field.name], value)
        elif not _move_parameter(field.name, value, old.type, new):
            where = locate((*path, "layer", field.name))
            lost.append(f"{where}layer {old.name!r} ({old.type}): this type has no {field.name}; left out")
    return new


def _move_parameter(name: str, value: Any, type_name: str, new: Any) -> bool:
    """Put a V0 field into the message of its layer's type; False if that type does not have it."""
    if name == "hdf5_output_param":
        if type_name != "hdf5_output":
            return False
        new.hdf5_output_param.CopyFrom(value)
        return True
    new_name, types = _FIELDS[name]
    if type_name not in types:
        return False
    message = getattr(new, V0_TYPES[type_name].message)
    if hasattr(value, "CopyFrom"):
        getattr(message, new_name).CopyFrom(value)
    elif hasattr(getattr(message, new_name), "append"):  # one for each axis since V1
        getattr(message, new_name).append(value)
    else:
        setattr(message, new_name, value)
    return True
