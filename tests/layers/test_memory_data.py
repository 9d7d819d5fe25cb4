import logging

import numpy as np
import pytest

import caffe_lite
from caffe_lite.errors import DataError, NetError, ShapeError

SIZES = "batch_size: 2 channels: 3 height: 1 width: 4"
DATA = np.arange(6 * 12.0).reshape(6, 3, 1, 4)
LABELS = np.arange(6.0)


@pytest.fixture
def build(device, tmp_path):
    """A net on each device of one MemoryData layer."""

    def make(sizes=SIZES, more="", tops='top: "data" top: "label"'):
        path = tmp_path / "net.prototxt"
        path.write_text(f'layer {{ name: "in" type: "MemoryData" {tops} memory_data_param {{ {sizes} }} {more} }}')
        return caffe_lite.Net(path, caffe_lite.TEST)

    return make


def labels_of(net):
    return net.forward()["label"].reshape(-1).tolist()


def test_batches_come_in_order_and_start_over(build):
    net = build()
    net.layers[0].reset(DATA, LABELS)
    for start in (0, 2, 4, 0):
        out = net.forward()
        np.testing.assert_array_equal(out["data"], DATA[start : start + 2])
        np.testing.assert_array_equal(out["label"].reshape(-1), LABELS[start : start + 2])


def test_the_labels_change_their_shape(build):
    net = build()
    assert net.blobs["data"].shape == (2, 3, 1, 4) and net.blobs["label"].shape == (2,)
    net.layers[0].reset(DATA, LABELS)
    net.forward()
    assert net.blobs["data"].shape == (2, 3, 1, 4) and net.blobs["label"].shape == (2, 1, 1, 1)


def test_reset_starts_anew_and_keeps_the_arrays(build):
    net = build()
    labels = LABELS.copy()
    net.layers[0].reset(DATA, labels.reshape(6, 1, 1, 1))
    assert labels_of(net) == [0, 1]
    labels[2] = 9
    assert labels_of(net) == [9, 3]
    net.layers[0].reset(DATA[:2], LABELS[4:])
    assert labels_of(net) == labels_of(net) == [4, 5]


def test_any_numbers_and_strides(build):
    net = build()
    net.layers[0].reset(DATA.astype("uint8")[::-1], [5, 4, 3, 2, 1, 0])
    assert labels_of(net) == [5, 4]
    np.testing.assert_array_equal(net.blobs["data"].data, DATA[:3:-1])


def test_transform_param_is_not_applied_and_that_is_said(build, caplog):
    net = build(more="transform_param { scale: 2 }")
    with caplog.at_level(logging.WARNING, logger="caffe_lite"):
        net.layers[0].reset(DATA, LABELS)
    assert "layer 'in' (MemoryData): arrays are served as they are" in caplog.text
    np.testing.assert_array_equal(net.forward()["data"], DATA[:2])


def test_forward_needs_arrays(build):
    with pytest.raises(DataError, match=r"layer 'in' \(MemoryData\): has no data yet: call net.set_input_arrays"):
        build().forward()


@pytest.mark.parametrize(
    ("data", "labels", "message"),
    [
        (DATA[:5], LABELS[:5], "a multiple of batch_size 2 items, got 5"),
        (DATA[:0], LABELS[:0], "a multiple of batch_size 2 items, got 0"),
        (DATA, LABELS[:4], r"6 items need 6 labels, got shape \(4,\)"),
        (DATA[:, :2], LABELS, r"data must have shape \(n, 3, 1, 4\), got \(6, 2, 1, 4\)"),
        (DATA[..., 0], LABELS, r"data must have shape \(n, 3, 1, 4\), got \(6, 3, 1\)"),
        (np.float32(1), LABELS, r"data must have shape .* got \(\)"),
    ],
)
def test_shapes_are_checked_and_the_old_arrays_stay(build, data, labels, message):
    net = build()
    net.layers[0].reset(DATA, LABELS)
    with pytest.raises(ShapeError, match=r"layer 'in' \(MemoryData\): .*" + message):
        net.layers[0].reset(data, labels)
    assert labels_of(net) == [0, 1]


def test_numbers_are_wanted(build):
    with pytest.raises(DataError, match="labels must be numbers, got an array of <U1"):
        build().layers[0].reset(DATA, list("abcdef"))


def test_parameters_are_checked(build):
    with pytest.raises(NetError, match=r"layer 'in' \(MemoryData\): batch_size, .* must be > 0, got 2, 3, 0, 4"):
        build("batch_size: 2 channels: 3 width: 4")
    with pytest.raises(NetError, match=r"needs 2 top blob\(s\), got 1"):
        build(tops='top: "data"')
