"""How each layer type is written in PyTorch: one function a type.

A converter gets the module's source, the layer as the net built it, the variables of its bottoms and
their shapes; it returns the expression that is assigned to the layer's tops.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from caffe_lite.export.converters import Converters, NotExportable, Shapes, parameter_values
from caffe_lite.export.onnx_layers import batch_norm_statistics
from caffe_lite.export.torch_source import Source, number, pair

converters: Converters[Callable[[Source, Any, list[str], Shapes], str]] = Converters()
converts = converters.of


# ---- matrix products


@converts("Convolution", "Deconvolution")
def convolution(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    p, axes = layer.param.convolution_param, layer.axes
    if len(shapes[0]) != axes + 2 or axes not in (1, 2, 3):
        raise NotExportable(f"axis {p.axis} of a bottom of {len(shapes[0])} axes; PyTorch has (N, C, 1 to 3 axes)")
    kernel, stride, pad, dilation = layer.sizes
    given = [("stride", stride, 1), ("padding", pad, 0), ("dilation", dilation, 1)]
    sizes = [f"kernel_size={pair(kernel)}"]
    sizes += [f"{name}={pair(size)}" for name, size, usual in given if any(s != usual for s in size)]
    sizes += [f"groups={p.group}"] if p.group > 1 else []
    sizes += [] if p.bias_term else ["bias=False"]
    kind = "ConvTranspose" if layer.type == "Deconvolution" else "Conv"
    call = m.module(layer, f"nn.{kind}{axes}d({shapes[0][1]}, {p.num_output}, {', '.join(sizes)})", "weight", "bias")
    return ", ".join(f"{call}({bottom})" for bottom in x)


@converts("InnerProduct")
def inner_product(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    p = layer.param.inner_product_param
    axis, values = p.axis % len(shapes[0]), parameter_values(layer)
    bias = "" if p.bias_term else ", bias=False"
    constructor = f"nn.Linear({math.prod(shapes[0][axis:])}, {p.num_output}{bias})"
    if p.transpose:
        call = m.module(layer, constructor, "weight", "bias", values=[values[0].T, *values[1:]])
    else:
        call = m.module(layer, constructor, "weight", "bias")
    return f"{call}({x[0]})" if axis == len(shapes[0]) - 1 else f"{call}({x[0]}.flatten({axis}))"


@converts("Embed")
def embed(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    p = layer.param.embed_param
    call = m.module(layer, f"nn.Embedding({p.input_dim}, {p.num_output})", "weight")
    bias = f" + {m.parameter(layer, 1, 'bias')}" if p.bias_term else ""
    return f"{call}({x[0]}.long()){bias}"


# ---- pooling and normalisation


@converts("Pooling")
def pooling(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    """PyTorch's ceil_mode leaves out windows that begin behind the image, as Caffe does where there is padding;
    its average counts the padding and not what hangs over beyond it, as Caffe's."""
    p = layer.param.pooling_param
    with_mask = len(layer.param.top) > 1
    if layer.stochastic:
        raise NotExportable("PyTorch has no pool: STOCHASTIC")
    if p.global_pooling and with_mask:
        raise NotExportable("the mask of a global pooling")
    if p.global_pooling:
        return f"{x[0]}.{'amax' if p.pool == p.MAX else 'mean'}((2, 3), keepdim=True)"
    kernel, stride, pad = layer.kernel, layer.stride, layer.pad
    ceil = p.round_mode == p.CEIL
    if ceil and any(s > k for s, k in zip(stride, kernel, strict=True)):
        raise NotExportable(f"stride {stride} is larger than the kernel {kernel}: windows may be empty")
    if any(2 * a > k for a, k in zip(pad, kernel, strict=True)):
        raise NotExportable(f"pad {pad} is more than half of the kernel {kernel}")
    sizes = f"{x[0]}, {pair(kernel)}, stride={pair(stride)}"
    sizes += f", padding={pair(pad)}" if any(pad) else ""
    sizes += ", ceil_mode=True" if ceil else ""
    if with_mask:
        return f"F.max_pool2d({sizes}, return_indices=True)"
    return f"F.{'max' if p.pool == p.MAX else 'avg'}_pool2d({sizes})"


@converts("ROIPooling")
def roi_pooling(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    m.helpers.add("torchvision")
    p = layer.param.roi_pooling_param
    rois = x[1] if len(shapes[1]) == 2 else f"{x[1]}.flatten(1)"
    return f"torchvision.ops.roi_pool({x[0]}, {rois}, ({p.pooled_h}, {p.pooled_w}), {number(p.spatial_scale)})"


@converts("LRN")
def lrn(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    p = layer.param.lrn_param
    if p.norm_region == p.WITHIN_CHANNEL:
        m.helpers.add("lrn_within_channel")
        return f"lrn_within_channel({x[0]}, {p.local_size}, {number(p.alpha)}, {number(p.beta)})"
    numbers = f"alpha={number(p.alpha)}, beta={number(p.beta)}, k={number(p.k)}"
    return f"F.local_response_norm({x[0]}, {p.local_size}, {numbers})"


@converts("BatchNorm")
def batch_norm(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    """Its running averages are Caffe's sums divided by the scale factor."""
    axes = len(shapes[0]) - 2
    if not layer.global_stats:
        raise NotExportable("it normalises by the statistics of the batch (use_global_stats: false)")
    if axes not in (0, 1, 2, 3):
        raise NotExportable(f"a bottom of {len(shapes[0])} axes; PyTorch has (N, C) and up to 3 more")
    mean, variance = batch_norm_statistics(layer)
    eps = number(layer.param.batch_norm_param.eps)
    constructor = f"nn.BatchNorm{max(axes, 1)}d({len(mean)}, eps={eps}, affine=False)"
    return f"{m.module(layer, constructor, 'running_mean', 'running_var', values=[mean, variance])}({x[0]})"


@converts("MVN")
def mvn(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    p = layer.param.mvn_param
    first = 1 if p.across_channels else 2
    if len(shapes[0]) <= first:
        raise NotExportable(f"a bottom of {len(shapes[0])} axes has one value to normalise")
    m.helpers.add("mvn")
    return f"mvn({x[0]}, {first}{f', {number(p.eps)}' if p.normalize_variance else ''})"


@converts("Scale", "Bias")
def scale_and_bias(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    m.helpers.add("Scale")
    is_scale, two = layer.type == "Scale", len(x) == 2
    p = layer.param.scale_param if is_scale else layer.param.bias_param
    axis = p.axis % len(shapes[0]) if shapes[0] else 0
    if two and not (is_scale and p.bias_term):
        after = (len(shapes[0]) - axis - len(shapes[1])) if shapes[1] else 0
        other = f"{x[1]}.reshape({x[1]}.shape + {(1,) * after})" if after else x[1]
        return f"{x[0]} {'*' if is_scale else '+'} {other}"
    names = [*(["weight"] if is_scale and not two else []), *(["bias"] if not is_scale or p.bias_term else [])]
    options = [f"{name}=False" for name in ("weight", "bias") if name not in names]
    options = [str(tuple(layer.blobs[0].shape)), *([f"axis={axis}"] if axis != 1 else []), *options]
    call = m.module(layer, f"Scale({', '.join(options)})", *names)
    return f"{call}({', '.join(x)})"


# ---- one value at a time

_PLAIN = {"AbsVal": "torch.abs", "BNLL": "F.softplus", "Sigmoid": "torch.sigmoid", "TanH": "torch.tanh"}


@converts(*_PLAIN)
def plain(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    return f"{_PLAIN[layer.type]}({x[0]})"


@converts("ReLU")
def relu(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    slope = layer.param.relu_param.negative_slope
    return f"F.leaky_relu({x[0]}, {number(slope)})" if slope else f"F.relu({x[0]})"


@converts("PReLU")
def prelu(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    values = parameter_values(layer)[0]
    if values.ndim:
        return f"{m.module(layer, f'nn.PReLU({len(values)})', 'weight')}({x[0]})"
    return f"{m.module(layer, 'nn.PReLU()', 'weight', values=[values.reshape(1)])}({x[0]})"


@converts("ELU")
def elu(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    return f"F.elu({x[0]}, {number(layer.param.elu_param.alpha)})"


@converts("Swish")
def swish(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    beta = layer.param.swish_param.beta
    return f"F.silu({x[0]})" if beta == 1 else f"{x[0]} * torch.sigmoid({number(beta)} * {x[0]})"


@converts("Clip")
def clip(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    p = layer.param.clip_param
    return f"{x[0]}.clamp({number(p.min)}, {number(p.max)})"


@converts("Threshold")
def threshold(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    return f"({x[0]} > {number(layer.param.threshold_param.threshold)}).to({x[0]}.dtype)"


@converts("Exp")
def exp(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    return _times(layer.outer, f"torch.exp({_times(layer.inner, x[0])})")


@converts("Log")
def log(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    return _times(1 / layer.log_base, f"torch.log({_affine(layer, x[0])})")


@converts("Power")
def power(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    if layer.slope == 0:
        return f"torch.full_like({x[0]}, {number(layer.constant)})"
    inside = _affine(layer, x[0])
    return inside if layer.power == 1 else f"({inside}) ** {number(layer.power)}"


def _times(factor: float, x: str) -> str:
    return x if factor == 1 else f"{number(factor)} * {x}"


def _affine(layer: Any, x: str) -> str:
    """shift + scale x."""
    return _times(layer.scale, x) + (f" + {number(layer.shift)}" if layer.shift else "")


@converts("Dropout")
def dropout(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    p = layer.param.dropout_param
    if not p.scale_train:
        return f"{number(1 - p.dropout_ratio)} * {x[0]}"
    return f"F.dropout({x[0]}, {number(p.dropout_ratio)}, self.training)"


@converts("Softmax")
def softmax(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    return f"F.softmax({x[0]}, dim={layer.param.softmax_param.axis % len(shapes[0])})"


# ---- several blobs, and shapes


@converts("Eltwise")
def eltwise(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    p = layer.param.eltwise_param
    if p.operation == p.MAX:
        result = x[0]
        for other in x[1:]:
            result = f"torch.maximum({result}, {other})"
        return result
    if p.operation == p.PROD:
        return " * ".join(x)
    return " + ".join(_times(coeff, name) for name, coeff in zip(x, layer.coeffs, strict=True))


@converts("Concat")
def concat(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    p = layer.param.concat_param
    axis = (p.concat_dim if p.HasField("concat_dim") else p.axis) % len(shapes[0])
    return f"torch.cat([{', '.join(x)}], dim={axis})"


@converts("Slice")
def slice_(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    p = layer.param.slice_param
    axis = (p.slice_dim if p.HasField("slice_dim") else p.axis) % len(shapes[0])
    count = len(layer.param.top)
    parts = str(tuple(p.slice_point)) if p.slice_point else str(count)
    return x[0] if count == 1 else f"torch.tensor_split({x[0]}, {parts}, dim={axis})"


@converts("Flatten")
def flatten(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    p, rank = layer.param.flatten_param, len(shapes[0])
    axis, end = p.axis % rank, p.end_axis % rank
    return f"{x[0]}.flatten({axis}{'' if end == rank - 1 else f', {end}'})"


@converts("Reshape")
def reshape(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    p, rank = layer.param.reshape_param, len(shapes[0])
    start = p.axis if p.axis >= 0 else rank + p.axis + 1
    end = rank if p.num_axes == -1 else start + p.num_axes
    dims = [*range(start), *(start + i if d == 0 else None for i, d in enumerate(p.shape.dim)), *range(end, rank)]
    numbers = [0] * start + list(p.shape.dim) + [0] * (rank - end)
    sizes = (str(n) if axis is None else f"{x[0]}.shape[{axis}]" for axis, n in zip(dims, numbers, strict=True))
    return f"{x[0]}.reshape({', '.join(sizes)})"


@converts("Crop")
def crop(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    p, rank = layer.param.crop_param, len(shapes[0])
    axes = range(p.axis % rank, rank)
    offsets = list(p.offset) or [0]
    offsets = offsets * len(axes) if len(offsets) == 1 else offsets
    ranges = (f"{o}:{o} + {x[1]}.shape[{axis}]" for o, axis in zip(offsets, axes, strict=True))
    return f"{x[0]}[{', '.join([*[':'] * axes[0], *ranges])}]"


@converts("Tile")
def tile(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    repeats = np.ones(len(shapes[0]), int)
    repeats[layer.param.tile_param.axis] = layer.param.tile_param.tiles
    return f"{x[0]}.repeat({', '.join(map(str, repeats))})"


@converts("BatchReindex")
def batch_reindex(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    return f"{x[0]}[{x[1]}.long()]"


_REDUCTIONS = {"SUM": "{}.sum(-1)", "ASUM": "{}.abs().sum(-1)", "SUMSQ": "{}.square().sum(-1)", "MEAN": "{}.mean(-1)"}


@converts("Reduction")
def reduction(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    p = layer.param.reduction_param
    rows = f"{x[0]}.flatten({p.axis % len(shapes[0])})"
    return _times(p.coeff, _REDUCTIONS[p.ReductionOp.Name(p.operation)].format(rows))


@converts("Parameter")
def parameter(m: Source, layer: Any, x: list[str], shapes: Shapes) -> str:
    return m.parameter(layer, 0, "value")
