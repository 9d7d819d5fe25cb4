"""Drawings of nets: what is in them, and that nothing covers anything else."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_lite import draw, prototxt
from caffe_lite.errors import CaffeError
from caffe_lite.graph_layout import Layout
from caffe_lite.graph_render import Picture
from caffe_lite.proto import caffe_pb2

MODELS = Path(__file__).resolve().parents[2] / "models"
NET = """
name: "a <net>"
layer { name: "train" type: "Data" top: "data" top: "label" data_param { batch_size: 64 } include { phase: TRAIN } }
layer { name: "test" type: "Data" top: "data" top: "label" data_param { batch_size: 10 } include { phase: TEST } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 3 }
        convolution_param { num_output: 20 kernel_h: 1 kernel_w: 5 stride: 2 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "drop" type: "Dropout" bottom: "conv" top: "conv" exclude { phase: TEST } }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: AVE kernel_size: 3 } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip" inner_product_param { num_output: 7 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def net_of(text: str):
    message = caffe_pb2.NetParameter()
    prototxt.parse(text, message)
    return message


def labels(svg: bytes) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_a_drawing_shows_each_layer_and_blob_once() -> None:
    shown = labels(draw.draw_net(net_of(NET), "LR", ext="svg"))
    for text in ("conv", "(Convolution)", "kernel size: 1x5", "stride: 2", "(AVE Pooling)", "kernel size: 3"):
        assert text in shown
    assert [shown.count(name) for name in ("data", "label", "pool", "ip", "loss")] == [1, 1, 2, 2, 2]
    assert {"Batch 64", "Batch 10", "20", "7"} <= set(shown), "labels of arrows"


@pytest.mark.parametrize(("phase", "gone"), [(caffe_pb2.TRAIN, {"test"}), (caffe_pb2.TEST, {"train", "drop"})])
def test_a_phase_leaves_layers_out(phase: int, gone: set[str]) -> None:
    shown = labels(draw.draw_net(net_of(NET), "LR", ext="svg", phase=phase))
    assert {"train", "test", "drop"} - set(shown) == gone


def test_labels_stand_in_one_line_where_ranks_run_down() -> None:
    conv = net_of(NET).layer[2]
    assert draw.get_layer_label(conv, "TB") == "conv (Convolution) kernel size: 1x5 stride: 2 pad: 0"
    assert draw.get_layer_label(conv, "LR", display_lrm=True).endswith("pad: 0\nlr mult: 3")
    assert draw.get_layer_lr_mult(conv) == 3 and draw.get_layer_lr_mult(net_of(NET).layer[6]) == 1
    assert [draw.get_edge_label(layer) for layer in net_of(NET).layer[1:4]] == ["Batch 10", "20", ""]
    assert draw.get_pooling_types_dict() == {0: "MAX", 1: "AVE", 2: "STOCHASTIC"}
    colors = [draw.choose_color_by_layertype(name) for name in ("Convolution", "Deconvolution", "Pooling", "LRN")]
    assert colors[0] == colors[1] and len(set(colors)) == 3


def test_old_and_empty_nets_can_be_drawn() -> None:
    old = 'input: "data" input_dim: [1, 3, 4, 4] layers { name: "r" type: RELU bottom: "data" top: "r" }'
    assert {"input (Input)", "r (ReLU)"} <= set(labels(draw.draw_net(net_of(old), "TB", ext="svg")))
    assert labels(draw.draw_net(net_of(""), "LR", ext="svg")) == []


@pytest.mark.parametrize("rankdir", ["TB", "BT", "LR", "RL"])
@pytest.mark.parametrize("model", ["mini/train.prototxt", "classification/SqueezeNet_1.1/deploy.prototxt"])
def test_no_box_covers_another_and_arrows_run_along(model: str, rankdir: str) -> None:
    net, _ = prototxt.read_net(MODELS / model)
    picture = Picture(draw.get_pydot_graph(net, rankdir))
    boxes = list(picture.boxes.values())
    x, y, w, h = (np.array([getattr(box, name) for box in boxes]) for name in ("x", "y", "width", "height"))
    apart = (abs(x[:, None] - x) >= (w[:, None] + w) / 2) | (abs(y[:, None] - y) >= (h[:, None] + h) / 2)
    assert (apart | np.eye(len(boxes), dtype=bool)).all()
    assert (x - w / 2 >= 0).all() and (x + w / 2 <= picture.width).all()
    assert (y - h / 2 >= 0).all() and (y + h / 2 <= picture.height).all()
    axis, sign = (1 if rankdir in ("TB", "BT") else 0), (1 if rankdir in ("TB", "LR") else -1)
    for arrow in picture.arrows:
        if not arrow.both:
            assert sign * (arrow.points[-1][axis] - arrow.points[0][axis]) > 0


@pytest.mark.parametrize("name", ["net.svg", "net.png", "net.pdf", "net.jpg", "net.dot"])
def test_files_of_each_kind(tmp_path: Path, name: str) -> None:
    draw.draw_net_to_file(net_of(NET), str(tmp_path / name), "TB")
    content = (tmp_path / name).read_bytes()
    start = {"svg": b"<svg", "png": b"\x89PNG", "pdf": b"%PDF", "jpg": b"\xff\xd8", "dot": b"digraph"}[name[4:]]
    assert content.startswith(start)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_png_is_a_picture_of_the_svgs_proportions() -> None:
    pixels = matplotlib.image.imread(io.BytesIO(draw.draw_net(net_of(NET), "LR")))
    root = ElementTree.fromstring(draw.draw_net(net_of(NET), "LR", ext="svg"))
    width, height = (float(value) for value in root.attrib["viewBox"].split()[2:])
    np.testing.assert_allclose(pixels.shape[1] / pixels.shape[0], width / height, rtol=0.02)
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 6, "white, black, and the fills"


def test_dot_text() -> None:
    text = draw.get_pydot_graph(net_of(NET), "BT").to_string()
    assert text.startswith('digraph "a <net>" {\nrankdir=BT;') and '"layer 3" [label="relu (ReLU)", shape=box' in text
    assert '"blob conv" -> "layer 3" [label="", dir=both' in text and text.count("->") == 15


def test_what_cannot_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(CaffeError, match="cannot draw a net as 'gif': choose one of svg, png"):
        draw.draw_net_to_file(net_of(NET), str(tmp_path / "net.gif"))
    with pytest.raises(CaffeError, match="rankdir must be one of TB, BT, LR, RL, got 'XY'"):
        draw.draw_net(net_of(NET), "XY")
    both = 'layer { name: "x" type: "ReLU" include { phase: TRAIN } exclude { phase: TEST } }'
    with pytest.raises(ValueError, match="layer 'x' has both include and exclude"):
        draw.draw_net(net_of(both), "LR", phase=caffe_pb2.TRAIN)
    assert not list(tmp_path.iterdir())


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12).flatmap(
        lambda n: st.tuples(
            st.lists(st.tuples(st.integers(1, 80), st.integers(1, 80), st.integers(5, 40)), min_size=n, max_size=n),
            st.lists(
                st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda e: e[0] != e[1]), max_size=20
            ),
        )
    )
)
def test_any_graph_is_laid_out_without_overlap(case) -> None:
    sizes, edges = case
    layout = Layout(sizes, edges)
    left, right, height = np.array(sizes, float).T
    x, y = layout.centers.T
    assert np.isfinite(layout.centers).all() and (x - left >= -1e-6).all()
    apart_x = (x - left >= (x + right)[:, None] - 1e-6) | ((x + right) <= (x - left)[:, None] + 1e-6)
    apart_y = abs(y - y[:, None]) >= (height + height[:, None]) / 2
    assert (apart_x | apart_y | np.eye(len(sizes), dtype=bool)).all()
    for (a, b), route in zip(edges, layout.routes, strict=True):
        np.testing.assert_allclose(route[[0, -1], 0], [x[a], x[b]], atol=1e-6)
        assert y[a] != y[b]
