import tracemalloc

import numpy as np
import pytest

import caffe_lite
from caffe_lite.errors import NetError, ShapeError
from tests.layers.layer_case import LayerCase


class TestInnerProduct(LayerCase):
    layer = {
        "plain": 'type: "InnerProduct" inner_product_param { num_output: 4 }',
        "without bias": 'type: "InnerProduct" inner_product_param { num_output: 4 bias_term: false }',
        "transpose": 'type: "InnerProduct" inner_product_param { num_output: 4 transpose: true }',
        "axis 2": 'type: "InnerProduct" inner_product_param { num_output: 4 axis: 2 }',
        "last axis, transpose": 'type: "InnerProduct" inner_product_param { num_output: 4 axis: -1 transpose: true }',
        "one output": 'type: "InnerProduct" inner_product_param { num_output: 1 }',
    }
    golden = ["ip", "ip_transpose_axis2"]

    def bottoms(self, rng):
        return {
            "maps": [rng.normal(size=(3, 2, 4, 5))],
            "one image": [rng.normal(size=(1, 2, 3))],
            "one value each": [rng.normal(size=(3, 1, 1))],
            "no images": [np.zeros((0, 2, 3))],
            "no values": [np.zeros((3, 2, 0))],
        }

    def expected(self, x):
        p = self.param.inner_product_param
        kept = x.shape[: p.axis] if p.axis >= 0 else x.shape[:-1]
        w = self.weights[0].T if p.transpose else self.weights[0]
        y = np.zeros((*kept, p.num_output))
        for position in np.ndindex(kept):
            for n in range(p.num_output):
                y[position][n] = (x[position].reshape(-1) * w[n]).sum() + (self.weights[1][n] if p.bias_term else 0)
        return y

    def test_axis_0_gives_one_vector(self, device):
        self.layer = 'type: "InnerProduct" inner_product_param { num_output: 4 axis: 0 }'
        layer, bottoms, tops = self.build(device, [np.ones((2, 3))])
        layer.forward(bottoms, tops)
        assert tops[0].shape == (4,)
        self.assert_close(device.to_host(tops[0].data), self.weights[0].sum(axis=1) + self.weights[1], "top")

    @pytest.mark.parametrize("which", ["plain", "without bias"])
    def test_fused_relu(self, device, which):
        layer, bottoms, tops = self.build(device, self._cases()["maps"], which)
        layer.fused_relu = True
        layer.forward(bottoms, tops)
        want = self.expected(device.to_host(bottoms[0].data))
        assert (want < 0).any() and (want > 0).any()
        self.assert_close(device.to_host(tops[0].data), np.maximum(want, 0), "top")

    @pytest.mark.parametrize("frozen", [0, 1])
    def test_a_frozen_parameter_gets_no_gradient(self, device, frozen):
        layer, bottoms, tops = self.build(device, self._cases()["maps"], "plain")
        layer.param_propagate_down[frozen] = False
        layer.forward(bottoms, tops)
        tops[0].diff[...] = 1
        layer.backward(tops, [True], bottoms)
        assert [blob.diff_in_use for blob in layer.blobs] == [frozen != 0, frozen != 1]

    @pytest.mark.parametrize("which", ["plain", "transpose"])
    def test_backward_needs_no_second_array_of_the_size_of_the_weights(self, device, which):
        if device.xp is not np:
            pytest.skip("tracemalloc sees host memory only")
        self.layer = {which: self.layer[which].replace("4", "400")}
        layer, bottoms, tops = self.build(device, [np.ones((8, 3000))], which, "float32")
        tops[0].diff[...] = 1
        layer.blobs[0].diff[...] = bottoms[0].diff[...] = 0
        layer.forward(bottoms, tops)
        layer.backward(tops, [True], bottoms)
        tracemalloc.start()
        layer.backward(tops, [True], bottoms)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < layer.blobs[0].diff.nbytes / 8
        np.testing.assert_array_equal(device.to_host(layer.blobs[0].diff), np.full(layer.blobs[0].shape, 16.0))

    def test_parameters_and_shapes_are_checked(self, device):
        layer, bottoms, tops = self.build(device, [np.zeros((2, 3))], "plain")
        bottoms[0].reshape(2, 4)
        with pytest.raises(ShapeError, match=r"bottom has shape \(2, 4\): 4 values from axis 1 on, not 3"):
            layer.reshape(bottoms, tops)
        with pytest.raises(ShapeError, match="axis 2 is outside"):
            self.build(device, [np.zeros((2, 3))], "axis 2")
        self.layer = 'type: "InnerProduct"'
        with pytest.raises(NetError, match="num_output must be > 0"):
            self.build(device, [np.zeros((2, 3))])

    def test_fillers(self, device):
        self.layer = """type: "InnerProduct" inner_product_param { num_output: 2
            weight_filler { type: "constant" value: 3 } bias_filler { type: "constant" value: 5 } }"""
        self.fill_params = lambda blobs, rng: None
        layer, _, _ = self.build(device, [np.zeros((1, 3))])
        np.testing.assert_array_equal(device.to_host(layer.blobs[0].data), np.full((2, 3), 3.0))
        np.testing.assert_array_equal(device.to_host(layer.blobs[1].data), np.full(2, 5.0))


def test_a_net_fuses_the_relu_that_comes_next(device, tmp_path):
    text = """force_backward: true
        layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ dim: 5 dim: 6 }} }} }}
        layer {{ name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
                inner_product_param {{ num_output: 7 weight_filler {{ type: "xavier" }} }} }}
        layer {{ name: "relu" type: "ReLU" bottom: "ip" top: "{top}" }}"""
    results = []
    for top in ("ip", "relu"):
        path = tmp_path / "net.prototxt"
        path.write_text(text.format(top=top))
        caffe_lite.set_random_seed(3)
        net = caffe_lite.Net(path, caffe_lite.TRAIN, dtype="float64")
        rng = np.random.default_rng(4)
        net.blobs["x"].data[...] = rng.normal(size=(5, 6))
        net.forward()
        net.blobs[top].diff[...] = rng.normal(size=(5, 7))
        y = net.blobs[top].data.copy()
        net.backward()
        results.append([y, net.blobs["x"].diff, net.params["ip"][0].diff])
        assert bool(net._fused) == (top == "ip")
    assert (results[0][0] == 0).any()
    for fused, apart in zip(*results, strict=True):
        np.testing.assert_allclose(fused, apart, rtol=1e-12, atol=1e-15)
