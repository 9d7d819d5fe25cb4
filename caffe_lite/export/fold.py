"""BatchNorm, and the Scale after it, put into the weights of the convolution or inner product before.

    s ((W x + b - mean) / sqrt(variance + eps)) + t  =  (k W) x + (k (b - mean) + t),  k = s / sqrt(variance + eps)

Computed in float64; the result differs from that of the separate layers by float32 rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from caffe_lite.export.converters import parameter_values
from caffe_lite.export.onnx_layers import batch_norm_statistics


def fold_batch_norms(net: Any) -> tuple[dict[str, list[np.ndarray]], set[str]]:
    """({layer: its weights and bias with the batch norm in them}, names of the layers that then do nothing).

    Folded is a BatchNorm with stored statistics that reads the top of a Convolution or InnerProduct,
    together with a Scale by learned numbers for the channels that reads its top.
    """
    changed: dict[str, list[np.ndarray]] = {}
    passed_by: set[str] = set()
    for i, node in enumerate(net.nodes):
        if not _has_channel_rows(node.layer) or len(node.tops) != 1:
            continue
        norm = _reader(net, i)
        if norm is None or net.nodes[norm].layer.type != "BatchNorm" or not net.nodes[norm].layer.global_stats:
            continue
        after = _reader(net, norm)
        scale = net.nodes[after].layer if after is not None and _is_channel_scale(net.nodes[after].layer) else None
        norm_layer = net.nodes[norm].layer
        changed[node.layer.name] = _fold(node.layer, norm_layer, scale)
        passed_by.update(layer.name for layer in (norm_layer, scale) if layer is not None)
    return changed, passed_by


def _has_channel_rows(layer: Any) -> bool:
    """Is row k of the layer's weights what makes channel k of its top?"""
    if layer.type == "InnerProduct":
        return not layer.param.inner_product_param.transpose and layer.param.inner_product_param.axis == 1
    return bool(layer.type == "Convolution" and layer.param.convolution_param.axis == 1)


def _reader(net: Any, index: int) -> int | None:
    """The layer that reads the top of layer ``index``; the net puts a Split where there are several."""
    name = net.nodes[index].top_names[0]
    return next((j for j in range(index + 1, len(net.nodes)) if name in net.nodes[j].bottom_names), None)


def _is_channel_scale(layer: Any) -> bool:
    one_bottom = layer.type == "Scale" and len(layer.param.bottom) == 1
    return one_bottom and layer.param.scale_param.axis == 1 and all(len(blob.shape) == 1 for blob in layer.blobs)


def _fold(target: Any, norm: Any, scale: Any | None) -> list[np.ndarray]:
    mean, variance = (values.astype(np.float64) for values in batch_norm_statistics(norm))
    factor = 1 / np.sqrt(variance + norm.param.batch_norm_param.eps)
    shift = np.zeros_like(mean)
    if scale is not None:
        values = parameter_values(scale)
        factor = factor * values[0]
        shift = values[1] if len(values) > 1 else shift
    weights, *bias = parameter_values(target)
    rows = weights * factor.reshape(-1, *[1] * (weights.ndim - 1))
    offset = factor * ((bias[0] if bias else 0) - mean) + shift
    return [rows.astype(np.float32), offset.astype(np.float32)]
