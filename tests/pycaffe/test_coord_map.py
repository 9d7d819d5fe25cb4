"""coord_map against the definition: where the centre of an output pixel lies in the input."""

from __future__ import annotations

import numpy as np
import pytest

import caffe_lite as caffe
from caffe_lite import layers as L
from caffe_lite import params as P
from caffe_lite.coord_map import (
    AxisMismatchException,
    UndefinedMapException,
    compose,
    coord_map,
    coord_map_from_to,
    crop,
    inverse,
)


def spec(ks=3, stride=1, pad=0, pool=2, dstride=2, dpad=0) -> caffe.NetSpec:
    """Convolution, pooling, and a deconvolution that brings the resolution back."""
    n = caffe.NetSpec()
    n.data = L.Input(shape=dict(dim=[2, 1, 100, 100]))
    n.conv = L.Convolution(n.data, num_output=10, kernel_size=ks, stride=stride, pad=pad)
    n.pool = L.Pooling(n.conv, pool=P.Pooling.MAX, kernel_size=pool, stride=pool, pad=0)
    dks = 2 * dstride if np.isscalar(dstride) else [2 * s for s in dstride]
    n.deconv = L.Deconvolution(n.pool, num_output=10, kernel_size=dks, stride=dstride, pad=dpad)
    return n


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (dict(kernel_size=3), (1, -1)),  # input pixel x is the centre of output pixel x - 1
        (dict(kernel_size=3, pad=1), (1, 0)),
        (dict(kernel_size=3, dilation=2), (1, -2)),
        (dict(kernel_size=5, stride=2, pad=3), (0.5, 0.5)),
    ],
)
def test_a_convolution(fields: dict, expected: tuple[float, float]) -> None:
    for type_name in (L.Convolution, L.Im2col):
        axis, scale, shift = coord_map(type_name(L.Input(), **fields).fn)
        assert (axis, scale.item(), shift.item()) == (1, *expected)
    inside = L.Convolution(L.Input(), convolution_param=fields)
    assert coord_map(inside.fn) == coord_map(L.Convolution(L.Input(), **fields).fn)


def test_a_deconvolution_is_the_inverse_of_the_convolution_of_its_size() -> None:
    fields = dict(kernel_size=5, stride=2, pad=1)
    convolution, deconvolution = (coord_map(t(L.Input(), **fields).fn) for t in (L.Convolution, L.Deconvolution))
    assert compose(convolution, deconvolution)[1:] == (1, 0)
    assert inverse(convolution) == deconvolution


def test_the_pixel_that_a_convolution_copies_is_the_one_that_the_map_names(tmp_path) -> None:
    """A kernel with a 1 in its centre copies input pixel i to output pixel o; the map from conv to data says i."""
    n = caffe.NetSpec()
    n.data = L.Input(shape=dict(dim=[1, 1, 1, 21]))
    n.conv = L.Convolution(n.data, num_output=1, kernel_size=[1, 5], stride=[1, 2], pad=[0, 1], bias_term=False)
    path = tmp_path / "net.prototxt"
    path.write_text(str(n.to_proto()))
    net = caffe.Net(str(path), caffe.TEST)
    net.params["conv"][0].data[0, 0, 0, 2] = 1
    net.blobs["data"].data[...] = np.arange(21)
    copied_from = net.forward()["conv"].ravel()
    _, scale, shift = coord_map_from_to(n.conv, n.data)
    np.testing.assert_allclose(copied_from, scale[1] * np.arange(len(copied_from)) + shift[1])


def test_padding_shifts() -> None:
    axis, scale, shift = _map(spec())
    for pad in (1, 4):
        assert _map(spec(pad=pad)) == (axis, scale, shift - pad)
        assert _map(spec(dpad=pad)) == (axis, scale, shift + pad)
        assert _map(spec(pad=pad, dpad=pad)) == (axis, scale, shift)


def _map(n: caffe.NetSpec):
    axis, scale, shift = coord_map_from_to(n.deconv, n.data)
    return axis, scale.item(), shift.item()


def test_layers_that_keep_every_pixel_in_place() -> None:
    n = spec()
    n.relu = L.ReLU(n.deconv)
    n.conv1x1 = L.Convolution(n.relu, num_output=10, kernel_size=1)
    expected = coord_map_from_to(n.deconv, n.data)
    assert coord_map_from_to(n.relu, n.data) == coord_map_from_to(n.conv1x1, n.data) == expected


def test_all_tops_of_a_layer_have_its_map() -> None:
    n = spec()
    n.aux = L.Input(shape=dict(dim=[2, 1, 20, 20]))
    n.a, n.b = L.Convolution(n.data, n.aux, ntop=2, num_output=10, kernel_size=5, stride=2)
    assert coord_map_from_to(n.a, n.data) == coord_map_from_to(n.b, n.aux)


def test_each_axis_has_its_own_map() -> None:
    n = spec(ks=[3, 5], stride=[1, 2], pad=[0, 10])
    both = coord_map_from_to(n.deconv, n.data)
    alone = [_map(spec()), _map(spec(ks=5, stride=2, pad=10))]
    assert [(both[0], both[1][i], both[2][i]) for i in range(2)] == alone


def test_three_dimensions() -> None:
    n = caffe.NetSpec()
    n.data = L.Input(shape=dict(dim=[2, 3, 50, 50, 50]))
    n.conv = L.Convolution(n.data, num_output=10, kernel_size=[3, 3, 3], stride=[1, 1, 1], pad=[0, 1, 2])
    axis, scale, shift = coord_map_from_to(n.conv, n.data)
    assert axis == 1 and list(scale) == [1, 1, 1] and list(shift) == [1, 0, -1]


def test_a_crop_shifts_by_its_offset() -> None:
    n = spec()
    before = _map(n)
    n.crop = L.Crop(n.deconv, n.data, axis=2, offset=7)
    axis, scale, shift = coord_map_from_to(n.crop, n.data)
    assert (axis, scale.item(), shift.item()) == (before[0], before[1], before[2] + 7)


def test_crop_makes_the_layer_that_aligns() -> None:
    n = spec(pad=50)
    n.score = crop(n.deconv, n.data)
    layer = n.score.fn.to_layer(["deconv", "data"], ["score"], "score")
    assert layer.type == "Crop" and layer.crop_param.axis == 2 and list(layer.crop_param.offset) == [50]


def test_blobs_side_by_side_meet_where_both_come_from() -> None:
    data = L.Input()
    half, same = L.Convolution(data, kernel_size=3, stride=2), L.Convolution(data, kernel_size=5)
    axis, scale, shift = coord_map_from_to(half, same)  # pixel x of half is 2 x + 1 of data, which is 2 x - 1 of same
    assert (axis, scale.item(), shift.item()) == (1, 2, -1)


def test_many_ways_to_the_same_blob() -> None:
    top = data = L.Input()
    for _ in range(64):
        top = L.Eltwise(top, L.ReLU(top))
    assert coord_map_from_to(top, data) == (None, 1, 0)


def test_what_cannot_be_mapped() -> None:
    n = spec()
    n.ip = L.InnerProduct(n.deconv, num_output=10)
    with pytest.raises(UndefinedMapException):
        coord_map(n.ip.fn)
    with pytest.raises(RuntimeError, match="Could not compute map between tops"):
        coord_map_from_to(n.ip, n.data)
    with pytest.raises(RuntimeError):
        coord_map_from_to(n.deconv, L.Input())
    with pytest.raises(AxisMismatchException):
        compose((1, 1, 0), (2, 1, 0))
    with pytest.raises(AssertionError, match="kernel_h cannot be mapped"):
        coord_map(L.Convolution(n.data, kernel_size=3, kernel_h=3).fn)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(pool=3, dstride=2), "scale mismatch"),
        (dict(dpad=10), "negative offset"),
        (dict(ks=4, pad=2), "noninteger offset"),
    ],
)
def test_what_cannot_be_cropped(fields: dict, message: str) -> None:
    n = spec(**fields)
    with pytest.raises(AssertionError, match=message):
        crop(n.deconv, n.data)
