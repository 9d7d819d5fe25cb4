"""How the layer types that choose, move and add up values are written in ONNX (see onnx_layers)."""

from __future__ import annotations

from typing import Any

import numpy as np

from caffe_lite.export.converters import NotExportable, Shapes
from caffe_lite.export.onnx_graph import Graph
from caffe_lite.export.onnx_layers import converts

_LOWEST = np.iinfo(np.int64).min


@converts("Flatten")
def flatten(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    p, rank = layer.param.flatten_param, len(shapes[0])
    axis, end = p.axis % rank, p.end_axis % rank
    if end == rank - 1 and axis == 1:
        return [g.add("Flatten", x[0], name=layer.name, axis=1)]
    return [g.reshape(x[0], g.dims(x[0], 0, axis), [-1], g.dims(x[0], end + 1, rank))]


@converts("Reshape")
def reshape(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    p, rank = layer.param.reshape_param, len(shapes[0])
    start = p.axis if p.axis >= 0 else rank + p.axis + 1
    end = rank if p.num_axes == -1 else start + p.num_axes
    dims = list(p.shape.dim)
    if start == 0 and end == rank:
        return [g.reshape(x[0], dims)]  # 0 and -1 mean the same in ONNX
    middle = [g.dims(x[0], start + i, start + i + 1) if dim == 0 else [dim] for i, dim in enumerate(dims)]
    return [g.reshape(x[0], g.dims(x[0], 0, start), *middle, g.dims(x[0], end, rank))]


@converts("Crop")
def crop(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    p, rank = layer.param.crop_param, len(shapes[0])
    axes = list(range(p.axis % rank, rank))
    offsets = list(p.offset) or [0]
    offsets = offsets * len(axes) if len(offsets) == 1 else offsets
    starts = g.constant(offsets)
    ends = g.add("Add", starts, g.sizes(x[1], axes[0], rank))
    return [g.add("Slice", x[0], starts, ends, g.constant(axes), name=layer.name)]


@converts("Tile")
def tile(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    p, rank = layer.param.tile_param, len(shapes[0])
    repeats = [1] * rank
    repeats[p.axis % rank] = p.tiles
    return [g.add("Tile", x[0], g.constant(repeats), name=layer.name)]


@converts("BatchReindex")
def batch_reindex(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    return [g.add("Gather", x[0], g.integers(x[1]), name=layer.name, axis=0)]


@converts("Filter")
def filter_(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    chosen = g.add("Cast", g.reshape(x[-1], [-1]), to=g.onnx.TensorProto.BOOL)
    return [g.add("Compress", bottom, chosen, name=layer.name, axis=0) for bottom in x[:-1]]


@converts("ArgMax")
def arg_max(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    """Of equal values Caffe takes the last and TopK the first, so it looks from behind."""
    p, rank = layer.param.argmax_param, len(shapes[0])
    axis = p.axis % rank if p.HasField("axis") else 1
    rows = x[0] if p.HasField("axis") else g.add("Flatten", x[0], axis=1)
    backwards = g.slice(rows, axis, -1, _LOWEST, -1)
    values, places = g.add("TopK", backwards, g.constant([p.top_k]), outputs=2, axis=axis)
    last = g.add("Sub", g.sizes(rows, axis, axis + 1), g.constant([1]))
    indices = g.floats(g.add("Sub", last, places))
    if p.HasField("axis"):
        return [values if p.out_max_val else indices]
    found = g.unsqueeze(indices, [1])
    if p.out_max_val:
        found = g.add("Concat", found, g.unsqueeze(values, [1]), axis=1)
    return [g.unsqueeze(found, range(3, max(rank, 3)))]


_REDUCTIONS = {"SUM": "ReduceSum", "ASUM": "ReduceL1", "SUMSQ": "ReduceSumSquare", "MEAN": "ReduceMean"}


@converts("Reduction")
def reduction(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    p, rank = layer.param.reduction_param, len(shapes[0])
    op = _REDUCTIONS[p.ReductionOp.Name(p.operation)]
    return [g.scaled(g.reduce(op, x[0], range(p.axis % rank, rank), keepdims=False), p.coeff)]


# ---- losses


@converts("EuclideanLoss")
def euclidean_loss(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    total = g.reduce("ReduceSumSquare", g.add("Sub", *x), range(len(shapes[0])), keepdims=False)
    images = g.add("Squeeze", g.floats(g.sizes(x[0], 0, 1)))
    return [g.add("Div", total, g.scaled(images, 2.0), name=layer.name)]


@converts("SoftmaxWithLoss")
def softmax_with_loss(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    p, loss = layer.param.softmax_param, layer.param.loss_param
    if p.axis % len(shapes[0]) != 1:
        raise NotExportable(f"classes on axis {p.axis}; in ONNX they are on axis 1")
    mode = loss.normalization
    if not loss.HasField("normalization") and loss.HasField("normalize"):
        mode = loss.VALID if loss.normalize else loss.BATCH_SIZE
    labels = g.integers(g.reshape(x[1], g.dims(x[0], 0, 1), g.dims(x[0], 2, len(shapes[0]))))
    ignore = {"ignore_index": loss.ignore_label} if loss.HasField("ignore_label") else {}
    total = g.add("SoftmaxCrossEntropyLoss", x[0], labels, name=layer.name, reduction="sum", **ignore)
    if mode != loss.NONE:
        total = g.add("Div", total, g.add("Max", _normalizer(g, mode, loss, labels), g.constant(1.0)), name=layer.name)
    return [total, g.add("Softmax", x[0], axis=1)][: max(1, len(layer.param.top))]


def _normalizer(g: Graph, mode: int, loss: Any, labels: str) -> str:
    """What the sum of the losses is divided by, a number."""
    if mode == loss.BATCH_SIZE:
        count = g.sizes(labels, 0, 1)
    elif mode == loss.VALID and loss.HasField("ignore_label"):
        ignored = g.add("Equal", labels, g.constant([loss.ignore_label]))
        flat = g.reshape(g.add("Cast", g.add("Not", ignored), to=g.onnx.TensorProto.INT64), [-1])
        count = g.reduce("ReduceSum", flat, [0])
    else:
        count = g.reduce("ReduceProd", g.add("Shape", labels), [0])
    return str(g.add("Squeeze", g.floats(count)))


# ---- recurrent layers, step by step


@converts("LSTM", "RNN")
def recurrent(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    """T steps written out. States that the layer would carry over from run to run begin as zeros."""
    count = len(layer.state_names)
    steps, dim, exposed = layer.steps, layer.dim, layer.first_state is not None
    w_x, bias, *others = g.parameters(layer)
    w_static = others.pop(0) if layer.has_static else ""
    w_h, *output = others
    rows = layer.gates * dim
    flat = g.add("Flatten", x[0], axis=2)  # (T N, I)
    z = g.reshape(g.add("Gemm", flat, w_x, bias, transB=1), [steps, -1, rows])
    if w_static:
        z = g.add("Add", z, g.add("Gemm", g.add("Flatten", x[2], axis=1), w_static, transB=1))
    zs = [g.reshape(part, [-1, rows]) for part in g.split(z, 0, steps)]
    conts = [g.reshape(part, [-1, 1]) for part in g.split(x[1], 0, steps)]
    if exposed:
        states = [g.reshape(name, [-1, dim]) for name in x[layer.first_state :]]
    else:
        nothing = g.add("Mul", g.slice(zs[0], 1, 0, dim), g.constant(0.0))
        states = [nothing] * count
    hs = []
    for z_t, cont in zip(zs, conts, strict=True):
        h = g.add("Mul", states[0], cont)
        gates = g.add("Add", z_t, g.add("Gemm", h, w_h, transB=1))
        states = _lstm_step(g, gates, cont, states[1]) if count == 2 else [g.add("Tanh", gates)]
        hs.append(g.unsqueeze(states[0], [0]))
    y = g.add("Concat", *hs, name=layer.name, axis=0)
    if layer.type == "RNN":
        o = g.add("Tanh", g.add("Gemm", g.reshape(y, [-1, dim]), *output, transB=1))
        y = g.reshape(o, [steps, -1, dim])
    return [y, *(g.unsqueeze(state, [0]) for state in states)] if exposed else [y]


@converts("LSTMUnit")
def lstm_unit(g: Graph, layer: Any, x: list[str], shapes: Shapes) -> list[str]:
    """Bottoms c (1, N, D), gates (1, N, 4 D), cont (1, N); tops c, h (1, N, D)."""
    dim = shapes[0][-1]
    c, gates, cont = g.reshape(x[0], [-1, dim]), g.reshape(x[1], [-1, 4 * dim]), g.reshape(x[2], [-1, 1])
    h, c = _lstm_step(g, gates, cont, c)
    return [g.unsqueeze(c, [0]), g.unsqueeze(h, [0])]


def _lstm_step(g: Graph, gates: str, cont: str, c: str) -> list[str]:
    """[h, c] after a step; the gates are i, f, o, g before their squashing."""
    i, f, o, new = g.split(gates, 1, 4)
    i, f, o = (g.add("Sigmoid", gate) for gate in (i, f, o))
    kept = g.add("Mul", g.add("Mul", cont, f), c)
    c = g.add("Add", kept, g.add("Mul", i, g.add("Tanh", new)))
    return [g.add("Mul", o, g.add("Tanh", c)), c]
