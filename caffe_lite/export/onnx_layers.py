"""How each layer type is written in ONNX: one function a type.

A converter gets the graph, the layer as the net built it, the names of its bottoms' tensors, and their
shapes; it returns the names of its tops' tensors. A bottom's name as it came means that nothing is
computed. Sizes that may change from run to run are taken from the tensors, not from the shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from caffe_lite.export.converters import Converters, NotExportable, Shapes, parameter_values
from caffe_lite.export.onnx_graph import INT_MAX, Graph

converters: Converters[Callable[[Graph, Any, list[str], Shapes], list[str]]] = Converters()
converts = converters.of


# ---- matrix products


@converts("Convolution", "Deconvolution")
def convolution(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    p = layer.param.convolution_param
    if len(shapes[0]) != layer.axes + 2:
        raise NotExportable(f"axis {p.axis} of a bottom of {len(shapes[0])} axes: ONNX has channels on axis 1")
    kernel, stride, pad, dilation = (list(size) for size in layer.sizes)
    weights = g.parameters(layer)
    op = "ConvTranspose" if layer.type == "Deconvolution" else "Conv"
    sizes: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": stride,
        "pads": pad + pad,
        "dilations": dilation,
        "group": p.group,
    }
    return [g.add(op, bottom, *weights, name=layer.name, **sizes) for bottom in x]


@converts("InnerProduct")
def inner_product(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    p = layer.param.inner_product_param
    axis = p.axis % len(shapes[0])
    weights = g.parameters(layer)
    rows = x[0]
    if len(shapes[0]) != 2 or axis != 1:
        rows = g.add("Flatten", rows, axis=axis)
    y = g.add("Gemm", rows, *weights, name=layer.name, transB=int(not p.transpose))
    return [y if axis == 1 else g.reshape(y, g.dims(x[0], 0, axis), [p.num_output])]


@converts("Im2col")
def im2col(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    """A convolution whose kernels each pick one pixel."""
    kernel, stride, pad, dilation = (list(size) for size in layer.sizes)
    taps = int(np.prod(kernel))
    picks = np.tile(np.eye(taps, dtype=np.float32).reshape(taps, 1, *kernel), (shapes[0][1], *[1] * (len(kernel) + 1)))
    sizes: dict[str, Any] = {"kernel_shape": kernel, "strides": stride, "pads": pad + pad, "dilations": dilation}
    return [g.add("Conv", x[0], g.constant(picks), name=layer.name, group=shapes[0][1], **sizes)]


@converts("Embed")
def embed(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    table, *bias = g.parameters(layer)
    y = g.add("Gather", table, g.integers(x[0]), name=layer.name, axis=0)
    return [g.add("Add", y, *bias) if bias else y]


# ---- pooling and normalisation


@converts("Pooling")
def pooling(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    p = layer.param.pooling_param
    if layer.stochastic:
        raise NotExportable("ONNX has no pool: STOCHASTIC")
    with_mask = len(layer.param.top) > 1
    if p.global_pooling and not with_mask:
        return [g.add("GlobalMaxPool" if p.pool == p.MAX else "GlobalAveragePool", x[0], name=layer.name)]
    if p.global_pooling:
        raise NotExportable("the mask of a global pooling")
    sizes: dict[str, Any] = {"kernel_shape": list(layer.kernel), "strides": list(layer.stride)}
    sizes |= {"pads": 2 * list(layer.pad), "ceil_mode": int(p.round_mode == p.CEIL)}
    if any(s > k for s, k in zip(layer.stride, layer.kernel, strict=True)) and p.round_mode == p.CEIL:
        raise NotExportable(f"stride {layer.stride} is larger than the kernel {layer.kernel}: windows may be empty")
    if p.pool == p.AVE:
        return [_average(g, layer, x[0], sizes)]
    if not with_mask:
        return [_without_late_windows(g, layer, x[0], g.add("MaxPool", x[0], name=layer.name, **sizes))]
    y, places = g.add("MaxPool", x[0], outputs=2, name=layer.name, **sizes)
    plane = g.reduce("ReduceProd", g.sizes(x[0], 2, 4), [0])  # ONNX counts through the whole tensor
    tops = y, g.floats(g.add("Mod", places, plane))
    return [_without_late_windows(g, layer, x[0], top) for top in tops]


def _average(g: Graph, layer: Any, x: str, sizes: dict[str, Any]) -> str:
    """Padding counts in the divisor, what hangs over beyond it does not.

    Runtimes differ in whether count_include_pad means the overhang, too, so the zeros are put around
    the image first.
    """
    image = x
    if any(layer.pad):
        image = g.add("Pad", x, g.constant(2 * [0, 0, *layer.pad]))
    pooled = g.add("AveragePool", image, name=layer.name, **(sizes | {"pads": [0] * 4}))
    return _without_late_windows(g, layer, x, pooled)


def _without_late_windows(g: Graph, layer: Any, x: str, pooled: str) -> str:
    """``pooled`` without windows that begin in the padding behind the image: some runtimes have them.

    Those before are ceil((size + pad) / stride).
    """
    if all(p == 0 or s <= k - p for s, k, p in zip(layer.stride, layer.kernel, layer.pad, strict=True)):
        return pooled
    more = g.constant([p + s - 1 for s, p in zip(layer.stride, layer.pad, strict=True)])
    ends = g.add("Div", g.add("Add", g.sizes(x, 2, 4), more), g.constant(list(layer.stride)))
    return str(g.add("Slice", pooled, g.constant([0, 0]), ends, g.constant([2, 3]), name=layer.name))


@converts("ROIPooling")
def roi_pooling(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    p = layer.param.roi_pooling_param
    rois = x[1] if len(shapes[1]) == 2 else g.reshape(x[1], [-1, 5])
    size = [p.pooled_h, p.pooled_w]
    return [g.add("MaxRoiPool", x[0], rois, name=layer.name, pooled_shape=size, spatial_scale=p.spatial_scale)]


@converts("SPP")
def spp(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    pooled = [pooling(g, level, x, shapes)[0] for level in layer.levels]
    if len(pooled) == 1:
        return pooled
    return [g.add("Concat", *(g.add("Flatten", y, axis=1) for y in pooled), name=layer.name, axis=1)]


@converts("LRN")
def lrn(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    p = layer.param.lrn_param
    if p.norm_region == p.ACROSS_CHANNELS:
        return [g.add("LRN", x[0], name=layer.name, size=p.local_size, alpha=p.alpha, beta=p.beta, bias=p.k)]
    half = p.local_size // 2
    square = g.add("Mul", x[0], x[0])
    sizes: dict[str, Any] = {"kernel_shape": 2 * [p.local_size], "strides": [1, 1], "pads": 4 * [half]}
    mean = g.add("AveragePool", square, count_include_pad=1, **sizes)
    scale = g.shifted(g.scaled(mean, p.alpha), 1.0)
    return [g.add("Mul", x[0], g.add("Pow", scale, g.constant(-p.beta)), name=layer.name)]


@converts("BatchNorm")
def batch_norm(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    if not layer.global_stats:
        raise NotExportable("it uses the statistics of the batch; export the TEST phase")
    mean, variance = (g.constant(v) for v in batch_norm_statistics(layer))
    ones, zeros = (g.constant(np.full(layer.channels, v, np.float32)) for v in (1, 0))
    eps = layer.param.batch_norm_param.eps
    return [g.add("BatchNormalization", x[0], ones, zeros, mean, variance, name=layer.name, epsilon=eps)]


def batch_norm_statistics(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """(mean, variance) that a BatchNorm layer uses at test time."""
    mean, variance, total = parameter_values(layer)
    factor = np.float32(0 if total[0] == 0 else 1 / total[0])
    return mean * factor, variance * factor


@converts("MVN")
def mvn(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    p = layer.param.mvn_param
    axes = list(range(1 if p.across_channels else 2, len(shapes[0])))
    if not axes:
        raise NotExportable(f"a bottom of {len(shapes[0])} axes has one value a channel")
    centred = g.add("Sub", x[0], g.reduce("ReduceMean", x[0], axes), name=layer.name)
    if not p.normalize_variance:
        return [centred]
    variance = g.reduce("ReduceMean", g.add("Mul", centred, centred), axes)
    return [g.add("Div", centred, g.shifted(g.add("Sqrt", variance), p.eps), name=layer.name)]


# ---- one value at a time

_PLAIN = {"AbsVal": "Abs", "BNLL": "Softplus", "Sigmoid": "Sigmoid", "TanH": "Tanh"}


@converts(*_PLAIN)
def plain(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    return [g.add(_PLAIN[layer.type], x[0], name=layer.name)]


@converts("ReLU")
def relu(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    slope = layer.param.relu_param.negative_slope
    return [g.add("LeakyRelu", x[0], name=layer.name, alpha=slope) if slope else g.add("Relu", x[0], name=layer.name)]


@converts("PReLU")
def prelu(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    slope = parameter_values(layer)[0]
    slope = slope.reshape(-1, *[1] * (len(shapes[0]) - 2)) if slope.ndim else slope.reshape(1)
    return [g.add("PRelu", x[0], g.constant(slope, f"{layer.name}.0"), name=layer.name)]


@converts("ELU")
def elu(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    return [g.add("Elu", x[0], name=layer.name, alpha=layer.param.elu_param.alpha)]


@converts("Swish")
def swish(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    gate = g.add("Sigmoid", g.scaled(x[0], layer.param.swish_param.beta))
    return [g.add("Mul", x[0], gate, name=layer.name)]


@converts("Clip")
def clip(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    p = layer.param.clip_param
    return [g.add("Clip", x[0], g.constant(p.min), g.constant(p.max), name=layer.name)]


@converts("Threshold")
def threshold(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    return [g.floats(g.add("Greater", x[0], g.constant(layer.param.threshold_param.threshold), name=layer.name))]


@converts("Exp")
def exp(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    return [g.scaled(g.add("Exp", g.scaled(x[0], layer.inner), name=layer.name), layer.outer)]


@converts("Log")
def log(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    inside = g.shifted(g.scaled(x[0], layer.scale), layer.shift)
    return [g.scaled(g.add("Log", inside, name=layer.name), 1 / layer.log_base)]


@converts("Power")
def power(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    if layer.slope == 0:
        value = g.onnx.numpy_helper.from_array(np.full(1, layer.constant, np.float32))
        return [g.add("ConstantOfShape", g.add("Shape", x[0]), name=layer.name, value=value)]
    inside = g.shifted(g.scaled(x[0], layer.scale), layer.shift)
    return [inside if layer.power == 1 else g.add("Pow", inside, g.constant(float(layer.power)), name=layer.name)]


@converts("Dropout")
def dropout(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    p = layer.param.dropout_param
    if layer.phase == 0:
        raise NotExportable("it draws random numbers; export the TEST phase")
    return [g.scaled(x[0], 1.0 if p.scale_train else 1 - p.dropout_ratio)]


@converts("Softmax")
def softmax(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    axis = layer.param.softmax_param.axis % len(shapes[0])
    return [g.add("Softmax", x[0], name=layer.name, axis=axis)]


# ---- several blobs


@converts("Eltwise")
def eltwise(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    p = layer.param.eltwise_param
    if p.operation == p.MAX:
        return [g.add("Max", *x, name=layer.name)]
    if p.operation == p.PROD:
        terms, op = list(x), "Mul"
    else:
        terms, op = [g.scaled(name, coeff) for name, coeff in zip(x, layer.coeffs, strict=True)], "Add"
    total = terms[0]
    for term in terms[1:]:
        total = g.add(op, total, term, name=layer.name)
    return [total]


@converts("Scale", "Bias")
def scale_and_bias(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    """The second bottom or the parameters, with axes of size 1 for those that they do not cover."""
    p = layer.param.scale_param if layer.type == "Scale" else layer.param.bias_param
    axis = p.axis % len(shapes[0]) if shapes[0] else 0
    ops = ["Mul", "Add"] if layer.type == "Scale" else ["Add"]
    y = x[0]

    def ones(shape: tuple[int, ...]) -> int:
        return len(shapes[0]) - axis - len(shape) if shape else 0

    if len(x) == 2:
        after = range(len(shapes[1]), len(shapes[1]) + ones(shapes[1]))
        y = g.add(ops.pop(0), y, g.unsqueeze(x[1], after), name=layer.name)
    for i, (op, values) in enumerate(zip(ops, parameter_values(layer), strict=False)):
        operand = values.reshape((*values.shape, *[1] * ones(values.shape)))
        y = g.add(op, y, g.constant(operand, f"{layer.name}.{i}"), name=layer.name)
    return [y]


@converts("Concat")
def concat(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    p = layer.param.concat_param
    axis = p.concat_dim if p.HasField("concat_dim") else p.axis
    return x if len(x) == 1 else [g.add("Concat", *x, name=layer.name, axis=axis % len(shapes[0]))]


@converts("Slice")
def slice_(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    p = layer.param.slice_param
    axis = (p.slice_dim if p.HasField("slice_dim") else p.axis) % len(shapes[0])
    points = list(p.slice_point)
    ends = [*points, INT_MAX]
    if not points:
        return g.split(x[0], axis, len(layer.param.top))
    return [g.slice(x[0], axis, start, end) for start, end in zip([0, *points], ends, strict=True)]


@converts("Split")
def split(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    return x * len(layer.param.top)


@converts("Silence")
def silence(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    return []


@converts("Parameter")
def parameter(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    return [g.add("Identity", *g.parameters(layer), name=layer.name)]
