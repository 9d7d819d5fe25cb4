"""Tiles of filters and activations."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import caffe_lite
from caffe_lite import visualize
from caffe_lite.cli import main
from caffe_lite.errors import NetError

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 12 dim: 12 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 5 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "ip" type: "InnerProduct" bottom: "conv1" top: "ip" inner_product_param { num_output: 4 } }
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    prototxt, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    prototxt.write_text(NET)
    caffe_lite.Net(prototxt, caffe_lite.TEST).save(weights)
    return str(prototxt), str(weights)


def test_tiles_lie_row_by_row_between_white_gaps() -> None:
    images = np.arange(5)[:, None, None] * np.ones((5, 2, 3))
    picture = visualize.tiles(images)
    assert picture.shape == (2 * 3 - 1, 3 * 4 - 1)
    assert picture[0, 0] == 0 and picture[0, 4] == 0.25 and picture[3, 4] == 1.0, "images 0, 1 and 4"
    assert (picture[2] == 1).all() and (picture[:, 3] == 1).all() and picture[4, 10] == 1, "gaps and the empty place"
    assert (visualize.tiles(np.full((2, 3, 3), 7.0))[:, :3] == 0).all(), "a constant is no division by zero"


def test_filters_of_three_channels_are_in_colour(files: tuple[str, str]) -> None:
    net = caffe_lite.Net(files[0], caffe_lite.TEST, weights=files[1])
    weights = net.params["conv1"][0].data
    weights[...] = 0
    weights[0, 2] = 1  # red comes last in B, G, R
    picture = visualize.filters(net, "conv1")
    np.testing.assert_array_equal(picture[0, 0], [1, 0, 0])
    with pytest.raises(NetError, match=r"'ip' has no filters: .* \(4, 500\); layers with filters: conv1"):
        visualize.filters(net, "ip")
    with pytest.raises(NetError, match="no layer 'conv2'; did you mean 'conv1'"):
        visualize.filters(net, "conv2")
    with pytest.raises(NetError, match="item 2"):
        visualize.activations(net, "conv1", item=2)


def test_command(files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = str(tmp_path / "image.png")
    cv2.imwrite(image, np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8))
    for flags in (["--filters", "conv1"], ["--activations", "conv1", "--image", image]):
        out = tmp_path / f"{flags[0][2:]}.png"
        assert main(["visualize", *files, *flags, "-o", str(out)]) == 0
        assert cv2.imread(str(out)) is not None
    assert main(["visualize", *files, "--activations", "conv9", "-o", str(out)]) == 1
    assert "did you mean 'conv1'" in capsys.readouterr().err
