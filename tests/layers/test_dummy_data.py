import numpy as np
import pytest

import caffe_lite
from caffe_lite.errors import NetError, UnknownTypeError


@pytest.fixture
def build(device, tmp_path):
    """A net on each device of one DummyData layer."""

    def make(param, tops="ab"):
        path = tmp_path / "net.prototxt"
        names = " ".join(f'top: "{top}"' for top in tops)
        path.write_text(f'layer {{ name: "in" type: "DummyData" {names} dummy_data_param {{ {param} }} }}')
        return caffe_lite.Net(path, caffe_lite.TEST)

    return make


SHAPE = "shape { dim: 2 dim: 3 }"
GAUSSIAN = 'data_filler { type: "gaussian" std: 1 }'
ONE = "data_filler { value: 1 }"


@pytest.mark.parametrize(
    ("param", "shapes"),
    [
        (SHAPE, [(2, 3), (2, 3)]),
        (f"{SHAPE} shape {{ dim: 5 }}", [(2, 3), (5,)]),
        ("shape { }", [(), ()]),
        ("num: 1 channels: 2 height: 3 width: 4", [(1, 2, 3, 4), (1, 2, 3, 4)]),
        ("num: 5 num: 6 channels: 2 height: 3 width: 4 width: 7", [(5, 2, 3, 4), (6, 2, 3, 7)]),
        ("shape { dim: 0 dim: 3 }", [(0, 3), (0, 3)]),
    ],
)
def test_shapes(build, param, shapes):
    net = build(param)
    for _ in range(2):
        assert [net.blobs[top].shape for top in "ab"] == shapes
        net.forward()


def test_constants_are_filled_once_others_by_every_forward(build):
    net = build(f"{SHAPE} {ONE} {GAUSSIAN}")
    np.testing.assert_array_equal(net.blobs["a"].data, np.ones((2, 3)))
    net.blobs["a"].data[0, 0] = 5
    seen = []
    for _ in range(2):
        net.forward()
        np.testing.assert_array_equal(net.blobs["a"].data, [[5, 1, 1], [1, 1, 1]])
        seen.append(net.blobs["b"].data.copy())
    assert not (seen[0] == seen[1]).any() and all(np.isfinite(values).all() for values in seen)


def test_without_a_filler_tops_are_zero_and_stay(build):
    net = build(SHAPE)
    assert not net.blobs["a"].data.any()
    net.blobs["b"].data[...] = 3
    net.forward()
    assert (net.blobs["b"].data == 3).all()


def test_one_filler_serves_all_tops(build):
    net = build(f"{SHAPE} {GAUSSIAN}")
    net.forward()
    assert np.unique(np.stack([net.blobs[top].data for top in "ab"])).size == 12


def test_the_seed_decides(build):
    def run():
        caffe_lite.set_random_seed(3)
        net = build(f"{SHAPE} {GAUSSIAN}")
        net.forward()
        return net.blobs["b"].data.copy()

    np.testing.assert_array_equal(run(), run())


def test_a_shape_given_at_run_time_stays(build):
    net = build(f"{SHAPE} {GAUSSIAN}", "a")
    net.blobs["a"].reshape(7)
    net.forward()
    assert net.blobs["a"].data.shape == (7,) and net.blobs["a"].data.all()


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("", "needs shape once, or once for each of 3 tops; got 0"),
        (f"{SHAPE} {SHAPE}", "needs shape once, or once for each of 3 tops; got 2"),
        (f"{SHAPE} {ONE} {ONE}", "needs data_filler once, or once for each of 3 tops; got 2"),
        (f"{SHAPE} num: 1 channels: 1 height: 1 width: 1", "both shape and the older num"),
        ("num: 1 channels: 1 height: 1", "needs width once, or once for each of 3 tops; got 0"),
        ("num: 1 num: 2 channels: 1 height: 1 width: 1", "needs num once"),
        (f"{SHAPE} data_filler {{ type: 'gaussian' std: 0 }}", "top 0: filler 'gaussian': std must be > 0"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(build, param, message):
    with pytest.raises(NetError, match=rf"net.prototxt:1:1: layer 'in' \(DummyData\): .*{message}"):
        build(param, "abc")


def test_a_misspelt_filler_is_refused_when_the_net_is_built(build):
    with pytest.raises(UnknownTypeError, match=r"layer 'in' .* 'gausian'; did you mean 'gaussian'"):
        build(f"{SHAPE} data_filler {{ type: 'gausian' }}")
