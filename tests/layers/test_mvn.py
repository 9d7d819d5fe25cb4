"""MVN against its definition, row by row."""

from __future__ import annotations

import numpy as np
import pytest

import caffe_lite
from caffe_lite.errors import ShapeError
from tests.layers.layer_case import LayerCase


class TestMVN(LayerCase):
    layer = {
        "channels": 'type: "MVN"',
        "images": 'type: "MVN" mvn_param { across_channels: true }',
        "mean only": 'type: "MVN" mvn_param { normalize_variance: false }',
        "mean of images": 'type: "MVN" mvn_param { normalize_variance: false across_channels: true }',
    }
    golden = ["mvn"]
    no_gradient = ("single values", "constant")  # the deviation is 0 there

    def bottoms(self, rng):
        return {
            "random": [rng.normal(1, 2, (2, 3, 4, 5))],
            "three axes": [rng.normal(size=(2, 3, 4))],
            "single values": [rng.normal(size=(2, 3))],
            "constant": [np.full((2, 3, 2, 2), 4.0)],
            "no images": [np.zeros((0, 3, 4, 4))],
            "no pixels": [np.zeros((2, 3, 0, 4))],
        }

    def expected(self, x):
        p = self.param.mvn_param
        y = np.empty_like(x)
        for row in np.ndindex(*x.shape[: 1 if p.across_channels else 2]):
            centred = x[row] - x[row].mean() if x[row].size else x[row]
            deviation = np.sqrt((centred**2).mean()) if x[row].size else 1
            y[row] = centred / (deviation + p.eps) if p.normalize_variance else centred
        return y


def test_eps_is_added_to_the_deviation(device):
    case = LayerCase()
    case.layer = 'type: "MVN" mvn_param { eps: 1 }'
    layer, bottoms, tops = case.build(device, [np.array([-3.0, 3.0]).reshape(1, 1, 2)])
    layer.forward(bottoms, tops)
    np.testing.assert_allclose(device.to_host(tops[0].data).ravel(), [-0.75, 0.75])


def test_what_overwrites_the_top_in_place_does_no_harm(device, tmp_path):
    diffs = []
    for top in ("y", "r"):
        path = tmp_path / "net.prototxt"
        path.write_text(f"""force_backward: true
            layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ dim: 2 dim: 1 dim: 6 }} }} }}
            layer {{ name: "mvn" type: "MVN" bottom: "x" top: "y" }}
            layer {{ name: "relu" type: "ReLU" bottom: "y" top: "{top}" }}""")
        net = caffe_lite.Net(str(path), caffe_lite.TRAIN)
        rng = np.random.default_rng(0)
        net.forward(x=rng.normal(size=(2, 1, 6)))
        net.backward(**{top: rng.normal(size=(2, 1, 6))})
        diffs.append(net.blobs["x"].diff.copy())
    np.testing.assert_allclose(diffs[0], diffs[1], rtol=1e-6)


def test_wrong_shapes(device):
    case = LayerCase()
    case.layer = 'type: "MVN"'
    with pytest.raises(ShapeError, match=r"layer 'layer' \(MVN\): .*at most 4 axes, got shape \(1, 2, 3, 4, 5\)"):
        case.build(device, [np.zeros((1, 2, 3, 4, 5))])
