import numpy as np
import pytest

import caffe_lite
from caffe_lite.errors import NetError
from tests.layers.layer_case import LayerCase


class TestSilence(LayerCase):
    layer = 'type: "Silence"'
    tops = 0
    no_gradient = ("two", "no elements")  # nothing to take a derivative of

    def bottoms(self, rng):
        return {"two": [rng.normal(size=(2, 3)), rng.normal(size=4)], "no elements": [np.zeros((0, 3))]}

    def expected(self, *bottoms):
        return ()

    def test_gradient_is_zero(self, device):
        layer, bottoms, tops = self.build(device, self._cases()["two"])
        for blob in bottoms:
            blob.diff[...] = 5
        layer.backward(tops, [True, False], bottoms)
        assert [float(blob.diff.max()) for blob in bottoms] == [0.0, 5.0]

    def test_takes_the_blob_from_the_outputs(self, device, tmp_path):
        path = tmp_path / "net.prototxt"
        path.write_text("""
            layer { name: "data" type: "Input" top: "a" top: "b" input_param { shape { dim: 2 } } }
            layer { name: "quiet" type: "Silence" bottom: "a" }
        """)
        assert caffe_lite.Net(path, caffe_lite.TEST).outputs == ["b"]

    def test_needs_a_bottom(self, device):
        with pytest.raises(NetError, match="at least 1 bottom"):
            self.build(device, [])
