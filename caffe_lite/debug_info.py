"""Caffe's debug_info: mean absolute values of blobs and parameters as a net runs, one log line each."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

from caffe_lite.blob import Blob

if TYPE_CHECKING:
    from caffe_lite.net import Net

log = logging.getLogger("caffe_lite")


def log_forward(net: Net, index: int) -> None:
    """The values of the tops and the parameters of layer ``index``, after its forward."""
    node = net.nodes[index]
    for name, blob in zip(node.top_names, node.tops, strict=True):
        log.info("    [Forward] Layer %s, top blob %s data: %.6g", node.layer.name, name, _mean(blob.data))
    for i, blob in enumerate(node.layer.blobs):
        name = _param_name(node.layer.layer_param.param, i)
        value = _mean(blob.on_device.data)
        log.info("    [Forward] Layer %s, param blob %s data: %.6g", node.layer.name, name, value)


def log_backward(net: Net, index: int) -> None:
    """The gradients that layer ``index`` made, after its backward."""
    node = net.nodes[index]
    for name, blob, wanted in zip(node.bottom_names, node.bottoms, node.propagate_down, strict=True):
        if wanted:
            log.info("    [Backward] Layer %s, bottom blob %s diff: %.6g", node.layer.name, name, _mean(blob.diff))
    for i, (blob, wanted) in enumerate(zip(node.layer.blobs, node.layer.param_propagate_down, strict=True)):
        if wanted:
            value = _mean(blob.on_device.diff)
            log.info("    [Backward] Layer %s, param blob %d diff: %.6g", node.layer.name, i, value)


def log_norms(net: Net) -> None:
    """L1 and L2 norm of all parameters and all gradients, after a whole backward; an ERROR line, as in Caffe."""
    data = [blob.data for blob in net.learnable_params]
    diff = [blob.diff for blob in net.learnable_params if blob.diff_in_use]
    log.error(
        "    [Backward] All net params (data, diff): L1 norm = (%.6g, %.6g); L2 norm = (%.6g, %.6g)",
        *(sum(map(_l1, arrays)) for arrays in (data, diff)),
        *(math.sqrt(sum(map(_squares, arrays))) for arrays in (data, diff)),
    )


def log_update(net: Net, number: int) -> None:
    """Learnable parameter ``number`` before its update, and the update, which its diff holds."""
    blob = net.learnable_params[number]
    layer, index = _place(net, blob)
    name = _param_name(layer.layer_param.param, index)
    data, diff = _mean(blob.data), _mean(blob.diff)
    log.info("    [Update] Layer %s, param %s data: %.6g; diff: %.6g", layer.name, name, data, diff)


def _param_name(specs: Any, index: int) -> str:
    """What Caffe displays: the name of the ParamSpec, or the number."""
    return specs[index].name if index < len(specs) and specs[index].name else str(index)


def _place(net: Net, wanted: Blob) -> tuple[Any, int]:
    return next((layer, i) for layer in net.layers for i, b in enumerate(layer.blobs) if b.on_device is wanted)


def _mean(array: Any) -> float:
    return _l1(array) / array.size if array.size else math.nan


def _l1(array: Any) -> float:
    return float(abs(array).sum(dtype="float64"))


def _squares(array: Any) -> float:
    return float((array.astype("float64") ** 2).sum())
