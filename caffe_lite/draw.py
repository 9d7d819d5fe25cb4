"""Drawings of nets, as pycaffe's draw: layers as boxes, blobs as octagons, an arrow from what is read.

``draw_net_to_file(net, "net.svg")`` writes .svg, .png, .pdf, or .dot for GraphViz, by the file's name.
The layout is our own (:mod:`caffe_lite.graph_layout`): neither pydot nor GraphViz is needed. Layers
that work in place stand beside their blob, joined to it by an arrow with two heads.

Differs from pycaffe: :func:`get_pydot_graph` gives a :class:`NetGraph`, with the methods of a pydot
graph that draw; texts of labels come without quotation marks.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf import text_format  # noqa: F401 - pycaffe's scripts expect it to be imported with this

from caffe_lite.atomic import atomic_write
from caffe_lite.errors import CaffeError, NetError
from caffe_lite.graph import rule_met
from caffe_lite.graph_render import render_dot, render_matplotlib, render_svg
from caffe_lite.proto import caffe_pb2
from caffe_lite.upgrade import upgrade_net

VERTICAL = ("TB", "BT")
DIRECTIONS = (*VERTICAL, "LR", "RL")
LAYER_STYLE_DEFAULT = {"shape": "record", "fillcolor": "#6495ED", "style": "filled"}
NEURON_LAYER_STYLE = {"shape": "record", "fillcolor": "#90EE90", "style": "filled"}
BLOB_STYLE = {"shape": "octagon", "fillcolor": "#E0E0E0", "style": "filled"}
_COLORS = {"Convolution": "#FF5050", "Deconvolution": "#FF5050", "Pooling": "#FF9900", "InnerProduct": "#CC33FF"}


def get_pooling_types_dict() -> dict[int, str]:
    """The number of each pooling method -> its name."""
    return {number: name for name, number in caffe_pb2.PoolingParameter.PoolMethod.items()}


def get_edge_label(layer: Any) -> str:
    """What to write at the arrows out of a layer: its batch size or its number of outputs, if it has one."""
    if layer.type == "Data":
        return f"Batch {layer.data_param.batch_size}"
    if layer.type in ("Convolution", "Deconvolution"):
        return str(layer.convolution_param.num_output)
    if layer.type == "InnerProduct":
        return str(layer.inner_product_param.num_output)
    return ""


def get_layer_lr_mult(layer: Any) -> float:
    """The lr_mult of a layer's first parameter; 1 if it states none."""
    learns = layer.type in ("Convolution", "Deconvolution", "InnerProduct")
    return layer.param[0].lr_mult if learns and layer.param else 1.0


def get_layer_label(layer: Any, rankdir: str, display_lrm: bool = False) -> str:
    """Name, type and, of a layer with a sliding window, its sizes: in one line if ranks run down, else in several."""
    parts = [layer.name]
    if layer.type == "Pooling":
        parts.append(f"({get_pooling_types_dict()[layer.pooling_param.pool]} {layer.type})")
    else:
        parts.append(f"({layer.type})")
    if layer.type in ("Convolution", "Deconvolution"):
        p = layer.convolution_param
        parts.append(f"kernel size: {_sizes(p, 'kernel', p.kernel_size, 1)}")
        parts.append(f"stride: {_sizes(p, 'stride', p.stride, 1)}")
        parts.append(f"pad: {_sizes(p, 'pad', p.pad, 0)}")
        if any(d != 1 for d in p.dilation):
            parts.append(f"dilation: {'x'.join(map(str, p.dilation))}")
    elif layer.type == "Pooling" and not layer.pooling_param.global_pooling:
        p = layer.pooling_param
        parts.append(f"kernel size: {_sizes(p, 'kernel', [p.kernel_size], 1)}")
        parts.append(f"stride: {_sizes(p, 'stride', [p.stride], 1)}")
        parts.append(f"pad: {_sizes(p, 'pad', [p.pad], 0)}")
    if display_lrm:
        parts.append(f"lr mult: {get_layer_lr_mult(layer):g}")
    return (" " if rankdir in VERTICAL else "\n").join(parts)


def _sizes(param: Any, name: str, values: Any, default: int) -> str:
    if param.HasField(f"{name}_h") or param.HasField(f"{name}_w"):
        return f"{getattr(param, f'{name}_h')}x{getattr(param, f'{name}_w')}"
    return "x".join(map(str, values)) or str(default)


def choose_color_by_layertype(layertype: str) -> str:
    """The fill of a layer's box."""
    return _COLORS.get(layertype, LAYER_STYLE_DEFAULT["fillcolor"])


@dataclass
class NodeSpec:
    """A node: its text, "record" (a box) or "octagon", and its fill."""

    label: str
    shape: str
    fill: str


@dataclass
class EdgeSpec:
    """An arrow from node to node, by key; ``both``: with two heads, to a layer that works in place."""

    source: str
    target: str
    label: str = ""
    both: bool = False


class NetGraph:
    """A net as a graph: ``nodes`` by key and ``edges``; drawn by ``create``, ``write`` and ``to_string``."""

    def __init__(self, name: str, rankdir: str) -> None:
        if rankdir not in DIRECTIONS:
            raise CaffeError(f"rankdir must be one of {', '.join(DIRECTIONS)}, got {rankdir!r}")
        self.name = name
        self.rankdir = rankdir
        self.nodes: dict[str, NodeSpec] = {}
        self.edges: list[EdgeSpec] = []

    def to_string(self) -> str:
        """The graph in GraphViz's language."""
        return render_dot(self)

    def create(self, format: str = "png") -> bytes:
        """The drawing as the content of a file: svg, png, pdf, jpg or dot.

        Raises:
            CaffeError: another format.
        """
        if format not in _FORMATS:
            raise CaffeError(f"cannot draw a net as {format!r}: choose one of {', '.join(_FORMATS)}")
        return _FORMATS[format](self)

    def write(self, path: str | os.PathLike[str], format: str = "dot") -> None:
        """Write the drawing, whole or not at all."""
        content = self.create(format)
        with atomic_write(path) as stream:
            stream.write(content)


_FORMATS: dict[str, Callable[[NetGraph], bytes]] = {
    "svg": lambda graph: render_svg(graph).encode(),
    "png": lambda graph: render_matplotlib(graph, "png"),
    "pdf": lambda graph: render_matplotlib(graph, "pdf"),
    "jpg": lambda graph: render_matplotlib(graph, "jpg"),
    "dot": lambda graph: render_dot(graph).encode(),
    "gv": lambda graph: render_dot(graph).encode(),
}


def get_pydot_graph(
    caffe_net: Any, rankdir: str, label_edges: bool = True, phase: int | None = None, display_lrm: bool = False
) -> NetGraph:
    """The graph of a NetParameter, of any age.

    rankdir: LR, RL, TB or BT, the direction of the arrows. phase: only layers of TRAIN or TEST; None: all.

    Raises:
        CaffeError: another rankdir.
        NetError: the net cannot be brought to today's schema.
        ValueError: a layer has both include and exclude rules (a NetError).
    """
    net = caffe_pb2.NetParameter()
    net.CopyFrom(caffe_net)
    upgrade_net(net)
    graph = NetGraph(net.name or "Net", rankdir)
    for number, layer in enumerate(net.layer):
        if phase is None or _in_phase(layer, phase):
            _add_layer(graph, f"layer {number}", layer, rankdir, label_edges, display_lrm)
    return graph


def _in_phase(layer: Any, phase: int) -> bool:
    """Do the layer's rules allow ``phase``? Their levels and stages are not looked at, as by pycaffe."""
    if layer.include and layer.exclude:
        raise NetError(f"layer {layer.name!r} has both include and exclude specified")

    def met(rule: Any) -> bool:
        only_phase = caffe_pb2.NetStateRule(phase=rule.phase) if rule.HasField("phase") else caffe_pb2.NetStateRule()
        return rule_met(only_phase, caffe_pb2.NetState(phase=phase))

    if layer.include:
        return any(met(rule) for rule in layer.include)
    return not any(rule.HasField("phase") and met(rule) for rule in layer.exclude)


def _add_layer(graph: NetGraph, key: str, layer: Any, rankdir: str, label_edges: bool, display_lrm: bool) -> None:
    in_place = bool(layer.bottom) and list(layer.bottom) == list(layer.top)
    fill = NEURON_LAYER_STYLE["fillcolor"] if in_place else choose_color_by_layertype(layer.type)
    graph.nodes[key] = NodeSpec(get_layer_label(layer, rankdir, display_lrm), "record", fill)
    for blob in [*layer.bottom, *layer.top]:
        graph.nodes.setdefault(f"blob {blob}", NodeSpec(blob, BLOB_STYLE["shape"], BLOB_STYLE["fillcolor"]))
    label = get_edge_label(layer) if label_edges else ""
    if in_place:
        graph.edges.extend(EdgeSpec(f"blob {blob}", key, both=True) for blob in layer.top)
        return
    graph.edges.extend(EdgeSpec(f"blob {blob}", key) for blob in layer.bottom)
    graph.edges.extend(EdgeSpec(key, f"blob {blob}", label) for blob in layer.top)


def draw_net(
    caffe_net: Any, rankdir: str, ext: str = "png", phase: int | None = None, display_lrm: bool = False
) -> bytes:
    """The drawing of a NetParameter as the content of a file of type ``ext`` (see the module)."""
    return get_pydot_graph(caffe_net, rankdir, phase=phase, display_lrm=display_lrm).create(format=ext)


def draw_net_to_file(
    caffe_net: Any,
    filename: str | os.PathLike[str],
    rankdir: str = "LR",
    phase: int | None = None,
    display_lrm: bool = False,
) -> None:
    """Draw a NetParameter to a file, whole or not at all; the ending of its name says how.

    Raises:
        CaffeError: the ending is none of svg, png, pdf, jpg, dot.
    """
    extension = os.path.splitext(os.fspath(filename))[1][1:].lower()
    get_pydot_graph(caffe_net, rankdir, phase=phase, display_lrm=display_lrm).write(filename, extension)
