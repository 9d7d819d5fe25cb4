"""Every layer type that can be exported, with the parameters that are easy to get wrong: what each exporter must pass."""

from __future__ import annotations

from typing import Any

import numpy as np
from google.protobuf import text_format

import caffe_lite
from caffe_lite.proto import caffe_pb2

Case = tuple[str, list[tuple[int, ...]], int]  # type and parameters, shapes of the bottoms, number of tops

GAUSS = 'weight_filler { type: "gaussian" std: 0.4 } bias_filler { type: "gaussian" std: 0.4 }'
MAP = [(2, 4, 7, 9)]
ONE_BOTTOM = {  # type and parameters: shapes of the bottoms
    f'type: "Convolution" convolution_param {{ num_output: 6 kernel_size: 3 stride: 2 pad: 1 group: 2 {GAUSS} }}': MAP,
    f'type: "Convolution" convolution_param {{ num_output: 3 kernel_h: 1 kernel_w: 3 dilation: 2 bias_term: false {GAUSS} }}': MAP,
    f'type: "Convolution" convolution_param {{ num_output: 3 kernel_size: 2 {GAUSS} }}': [(2, 3, 4, 5, 6)],
    f'type: "Deconvolution" convolution_param {{ num_output: 6 kernel_size: 4 stride: 2 pad: 1 group: 2 {GAUSS} }}': MAP,
    f'type: "InnerProduct" inner_product_param {{ num_output: 5 {GAUSS} }}': [(3, 4)],
    f'type: "InnerProduct" inner_product_param {{ num_output: 5 transpose: true bias_term: false {GAUSS} }}': [(3, 4)],
    f'type: "InnerProduct" inner_product_param {{ num_output: 5 axis: 2 {GAUSS} }}': [(2, 3, 4)],
    f'type: "InnerProduct" inner_product_param {{ num_output: 5 axis: -1 {GAUSS} }}': [(2, 3, 2, 4)],
    'type: "Im2col" convolution_param { kernel_size: 3 stride: 2 pad: 1 }': MAP,
    'type: "Pooling" pooling_param { kernel_size: 3 stride: 2 }': MAP,
    'type: "Pooling" pooling_param { kernel_size: 3 stride: 2 pad: 1 }': MAP,
    'type: "Pooling" pooling_param { kernel_size: 2 stride: 2 pad: 1 }': [(1, 2, 7, 8)],
    'type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride: 3 pad: 2 }': [(1, 2, 9, 7)],
    'type: "Pooling" pooling_param { kernel_h: 3 kernel_w: 2 stride: 2 round_mode: FLOOR }': MAP,
    'type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride: 2 }': MAP,
    'type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }': MAP,
    'type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride: 1 pad: 1 }': MAP,
    'type: "Pooling" pooling_param { pool: AVE global_pooling: true }': MAP,
    'type: "Pooling" pooling_param { global_pooling: true }': MAP,
    'type: "LRN" lrn_param { local_size: 3 alpha: 2 beta: 0.6 k: 1.5 }': MAP,
    'type: "LRN" lrn_param { local_size: 3 alpha: 2 beta: 0.6 norm_region: WITHIN_CHANNEL }': MAP,
    'type: "MVN"': MAP,
    'type: "MVN" mvn_param { across_channels: true normalize_variance: false }': MAP,
    'type: "BatchNorm"': MAP,
    'type: "AbsVal"': MAP,
    'type: "BNLL"': MAP,
    'type: "Sigmoid"': MAP,
    'type: "TanH"': MAP,
    'type: "ReLU"': MAP,
    'type: "ReLU" relu_param { negative_slope: 0.2 }': MAP,
    'type: "PReLU" prelu_param { filler { type: "gaussian" } }': MAP,
    'type: "PReLU" prelu_param { channel_shared: true }': [(3, 4)],
    'type: "ELU" elu_param { alpha: 0.7 }': MAP,
    'type: "Swish" swish_param { beta: 1.7 }': MAP,
    'type: "Clip" clip_param { min: -0.5 max: 0.25 }': MAP,
    'type: "Threshold" threshold_param { threshold: 0.1 }': MAP,
    'type: "Exp" exp_param { base: 2 scale: 0.5 shift: 1 }': MAP,
    'type: "Log" log_param { base: 2 scale: 0.1 shift: 3 }': MAP,
    'type: "Power" power_param { power: 2 scale: 0.5 shift: 1 }': MAP,
    'type: "Power" power_param { power: 3 scale: 0 shift: 2 }': MAP,
    'type: "Dropout"': MAP,
    'type: "Dropout" dropout_param { scale_train: false dropout_ratio: 0.3 }': MAP,
    'type: "Softmax"': MAP,
    'type: "Softmax" softmax_param { axis: -1 }': MAP,
    'type: "Scale" scale_param { bias_term: true filler { type: "gaussian" } bias_filler { type: "gaussian" } }': MAP,
    'type: "Scale" scale_param { axis: 2 num_axes: 2 filler { type: "gaussian" } }': [(2, 3, 4, 5)],
    'type: "Bias" bias_param { num_axes: 0 filler { type: "gaussian" } }': MAP,
    'type: "Flatten"': MAP,
    'type: "Flatten" flatten_param { axis: 1 end_axis: 2 }': MAP,
    'type: "Reshape" reshape_param { shape { dim: 0 dim: -1 } }': MAP,
    'type: "Reshape" reshape_param { shape { dim: 2 dim: -1 } axis: 1 num_axes: 1 }': MAP,
    'type: "Reshape" reshape_param { shape { dim: 1 dim: 1 } axis: -1 num_axes: 0 }': [(2, 3)],
    'type: "Tile" tile_param { axis: 2 tiles: 3 }': MAP,
    'type: "ArgMax" argmax_param { top_k: 3 out_max_val: true }': MAP,
    'type: "ArgMax" argmax_param { top_k: 2 axis: 1 }': MAP,
    'type: "ArgMax"': [(3, 5)],
    'type: "Reduction" reduction_param { operation: ASUM axis: 1 coeff: 0.5 }': MAP,
    'type: "Reduction" reduction_param { operation: SUMSQ axis: -1 }': MAP,
    'type: "Reduction" reduction_param { operation: MEAN }': MAP,
    'type: "Reduction" reduction_param { operation: SUM axis: 2 }': MAP,
}  # fmt: skip
BOXES = [(3, 2, 7, 9), (5, 5)]
SEVERAL = {
    'type: "ROIPooling" roi_pooling_param { pooled_h: 3 pooled_w: 2 spatial_scale: 0.25 }': BOXES,
    'type: "Eltwise" eltwise_param { coeff: 2 coeff: -1 coeff: 0.5 }': 3 * MAP,
    'type: "Eltwise" eltwise_param { operation: PROD }': 2 * MAP,
    'type: "Eltwise" eltwise_param { operation: MAX }': 3 * MAP,
    'type: "Concat"': [(2, 3, 4), (2, 1, 4)],
    'type: "Concat" concat_param { axis: -1 }': [(2, 3, 4), (2, 3, 2)],
    'type: "Scale" scale_param { axis: 0 }': [(2, 3, 4), (2, 3)],
    'type: "Bias"': [(2, 3, 4, 5), (3,)],
    'type: "Crop" crop_param { axis: 2 offset: 1 offset: 2 }': [(2, 3, 6, 7), (2, 3, 4, 5)],
    'type: "LSTM" recurrent_param { num_output: 3 weight_filler { type: "uniform" min: -1 } bias_filler { type: "uniform" } }': [(4, 2, 5), (4, 2)],
    'type: "LSTM" recurrent_param { num_output: 3 weight_filler { type: "uniform" min: -1 } }': [(4, 2, 5), (4, 2), (2, 6)],
    'type: "RNN" recurrent_param { num_output: 3 weight_filler { type: "uniform" min: -1 } bias_filler { type: "uniform" } }': [(4, 2, 5), (4, 2)],
    'type: "EuclideanLoss"': 2 * [(3, 4)],
}  # fmt: skip
CASES: list[Case] = [(layer, shapes, 1) for layer, shapes in (*ONE_BOTTOM.items(), *SEVERAL.items())]
CASES += [
    ('type: "Pooling" pooling_param { kernel_size: 3 stride: 2 }', MAP, 2),
    ('type: "Slice" slice_param { slice_point: 1 slice_point: 3 }', MAP, 3),
    ('type: "Slice"', MAP, 2),
    ('type: "Split"', MAP, 2),
    ('type: "LSTMUnit"', [(1, 2, 3), (1, 2, 12), (1, 2)], 2),
    ('type: "LSTM" recurrent_param { num_output: 3 expose_hidden: true weight_filler { type: "uniform" min: -1 } }', [(4, 2, 5), (4, 2), (1, 2, 3), (1, 2, 3)], 3),
    ('type: "SoftmaxWithLoss" loss_param { ignore_label: 2 }', [(4, 3, 2), (4, 1, 2)], 2),
    ('type: "SoftmaxWithLoss" loss_param { normalization: BATCH_SIZE }', [(4, 3), (4,)], 1),
    ('type: "SoftmaxWithLoss" loss_param { normalization: NONE }', [(4, 3), (4,)], 1),
    ('type: "Embed" embed_param { input_dim: 7 num_output: 3 weight_filler { type: "uniform" } bias_filler { type: "uniform" } }', [(2, 3)], 1),
    ('type: "BatchReindex"', [(4, 3), (6,)], 1),
    ('type: "Filter"', [(5, 3), (5, 2), (5,)], 2),
    ('type: "SPP" spp_param { pyramid_height: 3 }', [(2, 3, 9, 7)], 1),
]  # fmt: skip


def type_of(case: Case) -> str:
    return case[0].split('"')[1]


def names(cases: list[Case]) -> list[str]:
    """One for each case, by its place and layer type."""
    return [f"{i}-{type_of(case)}" for i, case in enumerate(cases)]


def one_layer_net(layer: str, shapes: list[tuple[int, ...]], tops: int) -> Any:
    """A net of an Input layer of these shapes and ``layer``, which takes all of them; BatchNorm gets its statistics."""
    names = [f"x{i}" for i in range(len(shapes))]
    dims = " ".join("shape { " + " ".join(f"dim: {d}" for d in shape) + " }" for shape in shapes)
    text = f'layer {{ name: "in" type: "Input" {" ".join(f"top: {n!r}" for n in names)} input_param {{ {dims} }} }}\n'
    text += f'layer {{ name: "layer" {layer} {" ".join(f"bottom: {n!r}" for n in names)} '
    text += " ".join(f'top: "y{i}"' for i in range(tops)) + " }"
    caffe_lite.set_random_seed(3)
    param = text_format.Parse(text, caffe_pb2.NetParameter())
    net = caffe_lite.Net.from_param(param)
    if net.layers[1].type == "BatchNorm":
        rng = np.random.default_rng(0)
        for blob, values in zip(net.params["layer"], (rng.normal(size=4), rng.uniform(1, 2, 4), [2]), strict=True):
            blob.data[...] = values
    return net


def fill(net: Any) -> None:
    """Normal numbers into the inputs, and what the layer expects where those would not do: labels, indices, regions."""
    kind = net.layers[1].type
    rng = np.random.default_rng(net.blobs["x0"].count)
    for name in net.inputs:
        net.blobs[name].data[...] = rng.normal(size=net.blobs[name].shape)
    if kind in ("Embed", "BatchReindex", "Filter", "SoftmaxWithLoss"):
        last = net.blobs[net.inputs[-1]].data
        high = {"Embed": 7, "BatchReindex": 4, "Filter": 2, "SoftmaxWithLoss": 3}[kind]
        last[...] = rng.integers(0, high, last.shape)
        last.reshape(-1)[0] = 1
    if kind in ("LSTM", "RNN", "LSTMUnit"):
        cont = net.blobs["x2" if kind == "LSTMUnit" else "x1"].data
        cont[...] = rng.integers(0, 2, cont.shape)
    if kind == "ROIPooling":
        corners = np.sort(rng.uniform(0, 30, (net.blobs["x1"].shape[0], 2, 2)), axis=1).reshape(-1, 4)
        net.blobs["x1"].data[...] = np.column_stack([rng.integers(0, 3, len(corners)), corners])
    if kind == "ArgMax":  # ties are what is easy to get wrong
        net.blobs["x0"].data[...] = rng.integers(0, 3, net.blobs["x0"].shape)
