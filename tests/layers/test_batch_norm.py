"""BatchNorm against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import caffe_lite
from caffe_lite import gradient_check
from caffe_lite.device import CPU
from caffe_lite.errors import NetError, ShapeError
from tests.layers.layer_case import LayerCase


def by_channel(v, x):
    """(C,) as something that broadcasts over ``x``."""
    return v.reshape(-1, *[1] * max(x.ndim - 2, 0))


def batch_statistics(x):
    axes = tuple(i for i in range(x.ndim) if i != 1)
    return x.mean(axis=axes), x.var(axis=axes)


class TestByTheBatch(LayerCase):
    layer = {
        "default": 'type: "BatchNorm"',
        "large eps": 'type: "BatchNorm" batch_norm_param { eps: 0.5 }',
        "asked for": 'type: "BatchNorm" batch_norm_param { use_global_stats: false }',
    }
    golden = ["batchnorm_train"]

    def bottoms(self, rng):
        return {
            "images": [rng.normal(2, 3, (3, 4, 5, 6))],
            "vectors": [rng.normal(2, 3, (6, 3))],
            "one axis": [rng.normal(2, 3, 7)],
            "two pixels": [rng.normal(2, 3, (4, 3, 2, 1))],
            "one value a channel": [rng.normal(size=(1, 3))],
        }

    def expected(self, x):
        mean, variance = batch_statistics(x)
        return (x - by_channel(mean, x)) / np.sqrt(by_channel(variance, x) + self.param.batch_norm_param.eps)


class TestByRunningAverages(LayerCase):
    layer = 'type: "BatchNorm"'
    phase = caffe_lite.TEST

    def bottoms(self, rng):
        return {
            "images": [rng.normal(2, 3, (3, 4, 5, 6))],
            "vectors": [rng.normal(2, 3, (6, 3))],
            "no images": [np.zeros((0, 3, 4, 4))],
        }

    def fill_params(self, blobs, rng):
        channels = blobs[0].shape
        for blob, values in zip(blobs, (rng.normal(size=channels), rng.uniform(1, 2, channels), 3.5), strict=True):
            blob.data[...] = blob.device.xp.asarray(values)

    def build(self, *args, **kwargs):
        layer, bottoms, tops = super().build(*args, **kwargs)
        layer.param_propagate_down = [False] * 3  # as the net sets it: the blobs have no gradient
        return layer, bottoms, tops

    def expected(self, x):
        sums, squares, total = self.weights
        mean, variance = by_channel(sums / total, x), by_channel(squares / total, x)
        return (x - mean) / np.sqrt(variance + self.param.batch_norm_param.eps)

    def test_averages_of_nothing_count_as_zero(self, device):
        layer, bottoms, tops = self.build(device, [np.array([[1.0, -2.0]])])
        layer.blobs[2].data[...] = 0
        layer.forward(bottoms, tops)
        np.testing.assert_allclose(device.to_host(tops[0].data), np.array([[1.0, -2.0]]) / np.sqrt(1e-5), rtol=1e-6)


@pytest.mark.parametrize("shape", [(4, 3, 2, 5), (1, 3)])
def test_running_averages(device, shape):
    case = LayerCase()
    case.layer = 'type: "BatchNorm" batch_norm_param { moving_average_fraction: 0.75 }'
    case.fill_params = lambda blobs, rng: None
    layer, bottoms, tops = case.build(device, [np.zeros(shape)])
    rng = np.random.default_rng(0)
    mean, variance, total = np.zeros(3), np.zeros(3), 0.0
    for _ in range(3):
        x = rng.normal(1, 2, shape)
        bottoms[0].data[...] = device.xp.asarray(x)
        layer.forward(bottoms, tops)
        m = x.size // 3
        mean = 0.75 * mean + batch_statistics(x)[0]
        variance = 0.75 * variance + batch_statistics(x)[1] * (m / (m - 1) if m > 1 else 1)
        total = 0.75 * total + 1
    for blob, want in zip(layer.blobs, (mean, variance, [total]), strict=True):
        np.testing.assert_allclose(device.to_host(blob.data), want, rtol=1e-12, atol=1e-12)
    layer.global_stats = True
    layer.forward(bottoms, tops)
    for blob, want in zip(layer.blobs, (mean, variance, [total]), strict=True):
        np.testing.assert_allclose(device.to_host(blob.data), want, rtol=1e-12, atol=1e-12)


@given(st.integers(1, 5), st.integers(1, 4), st.lists(st.integers(1, 4), max_size=3))
@settings(max_examples=25, deadline=None)
def test_gradient_of_any_shape(images, channels, rest):
    case = LayerCase()
    case.layer = 'type: "BatchNorm" batch_norm_param { eps: 0.1 }'
    x = np.random.default_rng(0).normal(size=(images, channels, *rest))
    layer, bottoms, tops = case.build(CPU, [x])
    for row in gradient_check.check_layer(layer, bottoms, tops):
        assert row.error <= gradient_check.TOLERANCE, str(row)


def chain(in_place):
    blobs = ["x", "x", "x", "x"] if in_place else ["x", "n", "s", "r"]
    types = zip(("BatchNorm", "Scale", "ReLU"), blobs[:-1], blobs[1:], strict=True)
    layers = [f'layer {{ name: "{t}" type: "{t}" bottom: "{b}" top: "{u}" }}' for t, b, u in types]
    start = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 dim: 2 dim: 2 } } }'
    return "force_backward: true " + start + "".join(layers)


def test_what_overwrites_the_top_in_place_does_no_harm(device, tmp_path):
    results = []
    for in_place in (False, True):
        path = tmp_path / "net.prototxt"
        path.write_text(chain(in_place))
        net = caffe_lite.Net(str(path), caffe_lite.TRAIN, dtype="float64")
        rng = np.random.default_rng(0)
        net.params["Scale"][0].data[...] = rng.normal(size=3)
        y = net.forward(x=rng.normal(size=(4, 3, 2, 2)))
        net.backward(**{next(iter(y)): rng.normal(size=(4, 3, 2, 2))})
        results.append((*y.values(), net.blobs["x"].diff, net.params["Scale"][0].diff))
    for apart, together in zip(*results, strict=True):
        np.testing.assert_allclose(together, apart, rtol=1e-9, atol=1e-12)


def test_the_solver_leaves_the_statistics_alone(device, tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(chain(True))
    net = caffe_lite.Net(str(path), caffe_lite.TRAIN)
    assert [spec.lr_mult for spec in net.learnable_specs] == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("given", "blob", "rate"), [("param { lr_mult: 2 }", 0, 2), ("param { lr_mult: 0 } param {}", 1, 1)]
)
def test_statistics_are_not_learned(device, given, blob, rate):
    case = LayerCase()
    case.layer = f'type: "BatchNorm" {given}'
    with pytest.raises(NetError, match=rf"layer 'layer' \(BatchNorm\): blob {blob} .*lr_mult must be 0, got {rate}"):
        case.build(device, [np.zeros((2, 3))])


def test_wrong_shapes(device):
    case = LayerCase()
    case.layer = 'type: "BatchNorm"'
    with pytest.raises(ShapeError, match=r"at least one axis, got shape \(\)"):
        case.build(device, [np.zeros(())])
    layer, bottoms, tops = case.build(device, [np.zeros((2, 3, 4))])
    bottoms[0].reshape(0, 3, 4)
    layer.reshape(bottoms, tops)
    with pytest.raises(ShapeError, match=r"no values to take statistics of.*\(0, 3, 4\)"):
        layer.forward(bottoms, tops)
    bottoms[0].reshape(2, 5, 4)
    with pytest.raises(ShapeError, match=r"5 channels \(axis 1\), not 3: shape \(2, 5, 4\)"):
        layer.reshape(bottoms, tops)
