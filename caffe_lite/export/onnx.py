"""A net as an ONNX file.

    export_onnx(net, "net.onnx")

Every input and every output keeps its name. A size is left open if the net itself takes another one:
batch sizes, numbers of regions, image sizes of nets without a fixed vector behind the convolutions.
Layers without bottoms (data layers) become inputs. Parameters are written as they are in the net.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from caffe_lite import atomic
from caffe_lite.errors import CaffeError, NetError, WeightsError
from caffe_lite.export import onnx_shape_layers
from caffe_lite.export.converters import NotExportable
from caffe_lite.export.fold import fold_batch_norms
from caffe_lite.export.onnx_graph import Graph
from caffe_lite.export.onnx_layers import converters
from caffe_lite.gradient_check import fill_inputs

assert onnx_shape_layers  # imported for the converters that it registers

OPSETS = range(13, 22)
DEFAULT_OPSET = 17
TOLERANCE = 1e-4  # of the largest value, over a deep net
_LIMIT = (1 << 31) - 1  # bytes of a protobuf file


def export_onnx(
    net: Any, path: str | os.PathLike[str], opset: int = DEFAULT_OPSET, fold: bool = False, dynamic: bool = True
) -> Any:
    """Write ``net``, built for TEST, as an ONNX file; the onnx.ModelProto.

    Args:
        opset: 13 to 21.
        fold: put each BatchNorm, and the Scale after it, into the weights of the convolution before.
        dynamic: leave sizes open; otherwise all are those of the net's blobs now.

    Raises:
        NetError: layers cannot be exported, each named with the reason; nothing was written.
        CaffeError: the package onnx is missing.
    """
    if opset not in OPSETS:
        raise NetError(f"opset must be {OPSETS[0]} to {OPSETS[-1]}, got {opset}")
    model = build_model(net, opset, fold, dynamic)
    size = model.ByteSize()
    if size > _LIMIT:
        raise WeightsError(f"{os.fspath(path)}: not written: {size} bytes are more than the 2 GiB of an ONNX file")
    with atomic.atomic_write(path, "wb") as stream:
        stream.write(model.SerializeToString())
    return model


def build_model(net: Any, opset: int = DEFAULT_OPSET, fold: bool = False, dynamic: bool = True) -> Any:
    """The onnx.ModelProto of ``net``; checked by onnx.checker."""
    changed, passed_by = fold_batch_norms(net) if fold else ({}, set())
    graph = Graph(opset, changed)
    open_axes = find_open_axes(net) if dynamic else {}
    tensors, inputs = _convert(net, graph, open_axes, passed_by)
    outputs = _name_outputs(net, graph, tensors, inputs)
    helper, dtype = graph.onnx.helper, graph.onnx.TensorProto.FLOAT

    def info(name: str) -> Any:
        shape = net.blobs[name].shape
        sizes = [f"{name}_{i}" if i in open_axes.get(name, ()) else size for i, size in enumerate(shape)]
        return helper.make_tensor_value_info(name, dtype, sizes)

    made = helper.make_graph(
        graph.nodes, net.name or "net", [info(n) for n in inputs], [info(n) for n in outputs], graph.initializers
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], producer_name="caffe_lite")
    model.ir_version = min(model.ir_version, 10)  # runtimes of the opsets' time read it
    graph.onnx.checker.check_model(model, full_check=True)
    return model


def _convert(
    net: Any, graph: Graph, open_axes: dict[str, set[int]], passed_by: set[str]
) -> tuple[dict[str, str], list[str]]:
    """({blob: its tensor}, names of the inputs) after writing every layer into ``graph``."""
    tensors: dict[str, str] = {}
    inputs: list[str] = []
    problems: list[str] = []
    for node in net.nodes:
        layer = node.layer
        bottoms = [tensors.get(name, name) for name in node.bottom_names]
        if not node.bottoms and layer.type != "Parameter":
            inputs += node.top_names
            tensors.update((name, graph.fresh(name)) for name in node.top_names)
            continue
        if layer.name in passed_by:
            tensors[node.top_names[0]] = bottoms[0]
            continue
        try:
            if layer.type not in converters:
                raise NotExportable("ONNX has no counterpart")
            _check_fixed(layer, node, open_axes)
            made = converters[layer.type](graph, layer, bottoms, [blob.shape for blob in node.bottoms])
        except NotExportable as reason:
            problems.append(f"{layer.name!r} ({layer.type}): {reason}")
            made = [graph.fresh(name) for name in node.top_names]
        tensors.update(zip(node.top_names, made, strict=False))
    if problems:
        raise NetError(f"net {net.name!r} cannot be exported to ONNX; nothing was written:\n  " + "\n  ".join(problems))
    return tensors, inputs


def _check_fixed(layer: Any, node: Any, open_axes: dict[str, set[int]]) -> None:
    """Refuse a layer that is written for one image size where sizes are open."""
    if layer.type == "SPP" and open_axes.get(node.bottom_names[0], set()) & {2, 3}:
        raise NotExportable("its windows depend on the image's size; export with fixed sizes (--fixed)")


def _name_outputs(net: Any, graph: Graph, tensors: dict[str, str], inputs: Sequence[str]) -> list[str]:
    """Give tensors the names of their blobs; an output that is another blob's tensor becomes a copy of it."""
    named = set(inputs)
    outputs = [name for name in net.outputs if name in tensors and name not in inputs]
    for name in (*outputs, *(n for n in tensors if n not in outputs)):
        tensor = tensors[name]
        made_here = any(tensor in node.output for node in graph.nodes)
        if tensor not in named and made_here:
            new = graph.fresh(name) if name in inputs or _taken(graph, name, tensor) else name
            graph.rename(tensor, new)
            for other, value in tensors.items():
                if value == tensor:
                    tensors[other] = new
            named.add(new)
        elif name in outputs and tensors[name] != name:
            graph.nodes.append(
                graph.onnx.helper.make_node("Identity", [tensors[name]], [name], name=f"{name}:Identity")
            )
    return outputs


def _taken(graph: Graph, name: str, tensor: str) -> bool:
    """Move whatever else has ``name`` out of the way; True if it is a constant, which keeps its name."""
    if name == tensor:
        return False
    if any(name in node.output for node in graph.nodes):
        graph.rename(name, graph.fresh(f"{name}_before"))
    return any(array.name == name for array in graph.initializers)


# ---- which sizes may change


def find_open_axes(net: Any) -> dict[str, set[int]]:
    """{blob: its axes whose size follows an input's}: found by giving the inputs other sizes."""
    sources = [name for node in net.nodes if not node.bottoms for name in node.top_names]
    if set(sources) != set(net.inputs):
        return {}  # a data layer decides on its sizes itself
    before = {name: net.blobs[name].shape for name in net.blobs}
    found: dict[str, set[int]] = {name: set() for name in net.blobs}
    batches = [[(name, 0, 1)] for name in net.inputs if before[name]]
    trials = [sum(batches, [])] + (batches if len(batches) > 1 else [])
    trials += [[(name, 2, 32), (name, 3, 32)] for name in net.inputs if len(before[name]) == 4]
    for trial in trials:
        for name, axis, more in trial:
            shape = list(net.blobs[name].shape)
            shape[axis] += more
            net.blobs[name].reshape(*shape)
        try:
            net.reshape()
            for name, shape in before.items():
                after = net.blobs[name].shape
                found[name].update(i for i, (a, b) in enumerate(zip(shape, after, strict=False)) if a != b)
        except CaffeError:
            pass
        for name in net.inputs:
            net.blobs[name].reshape(*before[name])
        net.reshape()
    return found


def compare(net: Any, path: str | os.PathLike[str], seed: int = 0) -> dict[str, float]:
    """{output: largest difference between the file, run by onnxruntime, and ``net``, over its largest value}.

    The inputs get random values that the layers can take; they and the outputs are overwritten.
    """
    fill_inputs(net, np.random.default_rng(seed))
    inputs = {name: np.array(net.blobs[name].data, dtype=np.float32) for name in net.inputs}
    expected = {name: np.array(values) for name, values in net.forward().items()}
    found = run_onnx(path, inputs)
    return {name: relative_error(found[name], values) for name, values in expected.items()}


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference over the largest expected value; infinite if the shapes differ."""
    if found.shape != expected.shape:
        return float("inf")
    scale = float(np.abs(expected).max(initial=0)) or 1.0
    return float(np.abs(found - expected).max(initial=0)) / scale


def run_onnx(path: str | os.PathLike[str], inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{output: values} of an ONNX file run by onnxruntime on the CPU.

    Raises:
        CaffeError: onnxruntime is missing.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise CaffeError("running ONNX files needs onnxruntime: pip install 'caffe-lite[onnx]'") from error
    session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))
