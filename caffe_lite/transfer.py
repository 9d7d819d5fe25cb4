"""Trained parameters from net to net and to files: copied or shared by layer name, as Caffe does.

Layers of the source that the net does not have are passed over (and reported); a layer that both
have must have as many parameter blobs of the same shapes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from caffe_lite import weights
from caffe_lite.errors import WeightsError
from caffe_lite.proto import caffe_pb2

if TYPE_CHECKING:
    from caffe_lite.net import Net


@dataclass
class CopyReport:
    """What a copy did: layer names of the source, in its order, and layers of the net left as they were."""

    copied: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)  # in the source only
    untouched: list[str] = field(default_factory=list)  # in the net only, with parameters


def copy_trained_layers(net: Net, source: Any, origin: str) -> CopyReport:
    """Copy the blobs of NetParameter ``source``, read from ``origin``, into ``net``.

    Every shape is checked before anything is written.

    Raises:
        WeightsError: a layer's number of blobs or a shape differs; nothing was copied.
    """
    report = CopyReport()
    pairs: list[tuple[Any, Any, str, int]] = []
    for layer_param in source.layer:
        name = layer_param.name
        if name not in net.layer_dict:
            if layer_param.blobs:
                report.ignored.append(name)
            continue
        targets = net.layer_dict[name].blobs
        if not layer_param.blobs and not targets:
            continue
        if len(targets) != len(layer_param.blobs):
            raise WeightsError(
                f"{origin}: layer {name!r} has {len(layer_param.blobs)} parameter blob(s) in the file, "
                f"{len(targets)} in the net; if the net's layer is a different one, give it another name"
            )
        for index, (proto, blob) in enumerate(zip(layer_param.blobs, targets, strict=True)):
            _check_shape(proto, blob.shape, name, index, origin)
            pairs.append((proto, blob, name, index))
        if targets:
            report.copied.append(name)
    for proto, blob, name, index in pairs:
        try:
            values = weights.blob_to_array(proto).reshape(blob.shape)
        except WeightsError as error:
            raise WeightsError(f"{origin}: layer {name!r}, parameter {index}: {error}") from error
        _write(blob, values)
    done = set(report.copied)
    report.untouched = [name for name, blobs in net.params.items() if blobs and name not in done]
    return report


def _check_shape(proto: Any, expected: tuple[int, ...], name: str, index: int, origin: str) -> None:
    """Shapes must be equal; a legacy 4-D one is compared from the right, its leading axes being 1."""
    found = weights.blob_shape(proto)
    legacy = any(proto.HasField(axis) for axis in ("num", "channels", "height", "width"))
    if legacy and len(expected) <= 4:
        fits = found == (1,) * (4 - len(expected)) + tuple(expected)
    else:
        fits = found == tuple(expected)
    if not fits:
        raise WeightsError(
            f"{origin}: layer {name!r}, parameter {index}: shape {found} in the file, {tuple(expected)} in the net; "
            "rename the layer in the prototxt to train it anew, or use the prototxt that the file was made with"
        )


def _write(blob: Any, values: np.ndarray) -> None:
    target = blob.data
    if hasattr(target, "set"):  # CuPy
        target.set(np.ascontiguousarray(values, dtype=blob.dtype))
    else:
        target[...] = values


def share_trained_layers(net: Net, other: Net) -> None:
    """Let ``net`` use the memory of ``other``'s parameters wherever layer names agree."""
    for name, layer in other.layer_dict.items():
        if name not in net.layer_dict:
            continue
        targets = net.layer_dict[name].blobs
        if len(targets) != len(layer.blobs):
            raise WeightsError(
                f"cannot share layer {name!r}: {len(layer.blobs)} parameter blob(s) there, {len(targets)} here"
            )
        for index, (blob, source) in enumerate(zip(targets, layer.blobs, strict=True)):
            if blob.shape != source.shape:
                raise WeightsError(
                    f"cannot share layer {name!r}, parameter {index}: shape {source.shape} there, {blob.shape} here"
                )
            blob.on_device.share_data(source.on_device)


def net_to_proto(net: Net, write_diff: bool = False) -> Any:
    """``net`` as a NetParameter: its layers, Splits included, with their parameters."""
    param = caffe_pb2.NetParameter(name=net.name)
    for layer in net.layers:
        layer_param = param.layer.add()
        layer_param.CopyFrom(layer.param)
        del layer_param.blobs[:]
        for blob in layer.blobs:
            diff = net.device.to_host(blob.diff) if write_diff else None
            weights.array_to_blob(net.device.to_host(blob.data), layer_param.blobs.add(), diff)
    return param
