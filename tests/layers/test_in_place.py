"""Which layer types may write their top over their bottom, and that the others refuse with a reason.

That those which may give the same values and gradients in place is ``LayerCase.test_in_place`` of each.
"""

import pytest

import caffe_lite
from caffe_lite import registry
from caffe_lite.blob import Blob
from caffe_lite.errors import NetError
from caffe_lite.proto import caffe_pb2

# Elementwise ones, and those that keep what their backward needs. Python: the user's code decides.
ALLOWED = {
    "BNLL", "BatchNorm", "Bias", "Clip", "Dropout", "ELU", "Exp", "Log", "PReLU", "Power", "Python", "ReLU", "Scale",
    "Sigmoid", "Softmax", "Swish", "TanH", "Threshold",
}  # fmt: skip
SOURCES = {
    "Data", "DummyData", "HDF5Data", "ImageData", "Input", "MemoryData", "Parameter", "WindowData",
}  # fmt: skip
SINKS = {"HDF5Output", "Silence"}


@pytest.mark.parametrize("name", sorted(set(caffe_lite.layer_type_list()) - ALLOWED - SOURCES - SINKS))
def test_refused(name):
    layer_class = registry.layers.get(name)
    bottoms = layer_class.exact_bottoms or layer_class.min_bottoms or 1
    tops = layer_class.exact_tops or layer_class.min_tops or 1
    param = caffe_pb2.LayerParameter(name="x", type=name)
    blobs = [Blob((2, 3, 4, 4)) for _ in range(bottoms)]
    layer = layer_class.create(param, caffe_lite.TRAIN, caffe_lite.device.CPU, "float32", "")
    with pytest.raises(NetError, match=rf"layer 'x' \({name}\): cannot run in place: give the top"):
        layer.set_up(blobs, [blobs[0], *(Blob() for _ in range(tops - 1))])


@pytest.mark.parametrize("name", sorted(ALLOWED - {"Python"}))
def test_allowed(name):
    assert registry.layers.get(name).in_place
