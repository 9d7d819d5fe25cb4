import numpy as np
import pytest

import caffe_lite
from caffe_lite.errors import NetError, ShapeError

LAYER = 'layer { name: "w" type: "Parameter" top: "w" PARAM parameter_param { shape { dim: 2 dim: 3 } } }'
NET = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
    LAYERS
    layer { name: "loss" type: "EuclideanLoss" bottom: "w" bottom: "x" top: "loss" }
"""
X = np.array([[1.0, 2, 3], [4, 5, 6]])


@pytest.fixture
def build(device, tmp_path):
    """A net on each device that draws a Parameter towards an input."""

    def make(param="", more="", layer=LAYER):
        path = tmp_path / "net.prototxt"
        path.write_text(NET.replace("LAYERS", layer.replace("PARAM", param) + more))
        net = caffe_lite.Net(path, caffe_lite.TRAIN)
        net.blobs["x"].data[...] = X
        return net

    return make


def test_it_starts_at_zero_and_shares_data_with_its_top(build, device):
    net = build()
    assert net.params["w"][0].shape == (2, 3) and not net.blobs["w"].data.any()
    net.params["w"][0].data[...] = 1 + X
    assert net.forward()["loss"] == pytest.approx(6 / 4)
    np.testing.assert_array_equal(net.blobs["w"].data, 1 + X)
    if not device.is_gpu:
        assert np.shares_memory(net.blobs["w"].data, net.params["w"][0].data)


def test_its_gradient_is_what_the_layer_above_writes(build):
    net = build()
    for value in (3.0, 5.0):  # overwritten, not added to
        net.params["w"][0].data[...] = value
        net.forward()
        net.backward()
        np.testing.assert_allclose(net.params["w"][0].diff, (value - X) / 2)


def test_a_gradient_for_two_uses_is_their_sum(build):
    net = build(more='layer { name: "also" type: "EuclideanLoss" bottom: "w" bottom: "x" top: "also" }')
    net.params["w"][0].data[...] = 3
    net.forward()
    net.backward()
    np.testing.assert_allclose(net.params["w"][0].diff, 3 - X)


def test_a_frozen_one_gets_no_gradient(build):
    net = build("param { lr_mult: 0 }")
    net.params["w"][0].diff[...] = 7
    net.forward()
    net.backward()
    assert (net.params["w"][0].diff == 7).all()


def test_a_named_one_shares_with_its_namesake(build):
    other = LAYER.replace('"w"', '"v"').replace("PARAM", 'param { name: "same" }')
    net = build('param { name: "same" }', other + ' layer { name: "s" type: "Silence" bottom: "v" }')
    net.params["w"][0].data[...] = X
    net.forward()
    np.testing.assert_array_equal(net.blobs["v"].data, X)


def test_it_is_saved_loaded_and_shared_between_nets(build, tmp_path):
    net, copy, sharer = build(), build(), build()
    net.params["w"][0].data[...] = X
    net.save(tmp_path / "w.caffemodel")
    copy.copy_from(tmp_path / "w.caffemodel")
    sharer.share_with(net)
    for other in (copy, sharer):
        other.forward()
        np.testing.assert_array_equal(other.blobs["w"].data, X)


def test_wrong_parameters(build):
    with pytest.raises(NetError, match=r"layer 'w' \(Parameter\): needs parameter_param { shape"):
        build(layer='layer { name: "w" type: "Parameter" top: "w" }')
    with pytest.raises(NetError, match=r"layer 'w' \(Parameter\): takes no loss_weight"):
        build(
            more='layer { name: "w" type: "Parameter" top: "v" loss_weight: 1 parameter_param { shape { dim: 2 } } }',
            layer=LAYER.replace('name: "w"', 'name: "v"'),
        )
    with pytest.raises(ShapeError, match="layer 'w'"):
        build(layer=LAYER.replace("dim: 3", "dim: -3"))
    with pytest.raises(NetError, match=r"needs 1 top blob\(s\), got 2"):
        build(layer=LAYER.replace("PARAM", 'top: "v"'))
