"""pool: STOCHASTIC, window by window from its definition."""

from __future__ import annotations

import numpy as np

import caffe_lite
from caffe_lite.device import CPU
from tests.layers.layer_case import LayerCase
from tests.layers.test_dropout import slow_philox
from tests.layers.test_pooling import shape, windows


class StochasticCase(LayerCase):
    layer = {
        name: f'type: "Pooling" pooling_param {{ pool: STOCHASTIC {sizes} }}'
        for name, sizes in {
            "2x2": "kernel_size: 2 stride: 2",
            "3x3 overlapping": "kernel_size: 3 stride: 2",
            "oblong": "kernel_h: 2 kernel_w: 3 stride_h: 3 stride_w: 1",
            "last window empty": "kernel_size: 1 stride: 5",
            "global": "global_pooling: true",
        }.items()
    }
    no_gradient = ("zeros", "negative and nan")

    def bottoms(self, rng):
        broken = rng.normal(size=(1, 2, 7, 9))
        broken[0, 1] = -1
        broken[0, 0, 3, 4] = np.nan
        return {
            "random": [rng.uniform(0.1, 3, (2, 3, 7, 9))],
            "one column": [rng.uniform(0.1, 3, (1, 2, 6, 3))],
            "zeros": [np.maximum(rng.normal(size=(2, 2, 7, 8)) - 0.5, 0)],
            "negative and nan": [broken],
            "no images": [np.zeros((0, 2, 7, 9))],
        }


class TestTraining(StochasticCase):
    exact = True

    def expected(self, x):
        key = int(np.random.default_rng(self.rng_seed + 2).integers(0, 2**64, dtype=np.uint64))
        y = np.zeros(shape(x, self.param.pooling_param))
        for index, (at, rows, columns, _) in enumerate(windows(x, self.param.pooling_param)):
            word = slow_philox((index // 4, 0, 0, 0), (key % 2**32, key >> 32))[index % 4]
            u = (word // 256 + 1) / 2**24
            values = x[at[0], at[1], rows.start : rows.stop, columns.start : columns.stop].ravel()
            running = values.cumsum()
            if values.size and np.isnan(running[-1]):
                y[at] = np.nan
            for value, so_far in zip(values, running, strict=True):
                if so_far >= u * running[-1]:
                    y[at] = value
                    break
        return y

    def test_draws_in_proportion_to_the_values(self, device):
        values = np.array([1.0, 0, 2, 5])
        x = np.broadcast_to(values.reshape(2, 2), (1, 8000, 2, 2))
        layer, bottoms, tops = self.build(device, [x], "2x2")
        y = self._run(layer, bottoms, tops)[0].ravel()
        for value in values:
            share = value / values.sum()
            assert abs((y == value).mean() - share) <= 4 * np.sqrt(share * (1 - share) / y.size)

    def test_the_seed_decides_and_every_forward_draws_anew(self, device):
        layer, bottoms, tops = self.build(device, [np.random.default_rng(0).uniform(1, 2, (1, 1, 40, 40))], "2x2")
        draws = []
        for _ in range(2):
            caffe_lite.set_random_seed(3)
            for _ in range(2):
                layer.forward(bottoms, tops)
                draws.append(device.to_host(tops[0].data).copy())
        np.testing.assert_array_equal(draws[:2], draws[2:])
        assert (draws[0] != draws[1]).mean() > 0.5

    def test_the_gradient_goes_to_what_was_drawn(self, device):
        layer, bottoms, tops = self.build(device, [np.random.default_rng(0).uniform(1, 2, (1, 2, 4, 6))], "2x2")
        y = self._run(layer, bottoms, tops)[0]
        tops[0].diff[...] = tops[0].data
        layer.backward(tops, [True], bottoms)
        dx = device.to_host(bottoms[0].diff)
        assert sorted(dx[dx != 0]) == sorted(y.ravel())
        np.testing.assert_array_equal(dx[dx != 0], device.to_host(bottoms[0].data)[dx != 0])

    def test_of_a_window_of_zeros_the_first_is_drawn(self, device):
        layer, bottoms, tops = self.build(device, [np.zeros((1, 1, 4, 4))], "2x2")
        self._run(layer, bottoms, tops)
        tops[0].diff[...] = 3
        layer.backward(tops, [True], bottoms)
        want = np.zeros((4, 4))
        want[::2, ::2] = 3
        np.testing.assert_array_equal(device.to_host(bottoms[0].diff)[0, 0], want)


class TestTesting(StochasticCase):
    phase = caffe_lite.TEST

    def expected(self, x):
        y = np.zeros(shape(x, self.param.pooling_param))
        for at, rows, columns, _ in windows(x, self.param.pooling_param):
            values = x[at[0], at[1], rows.start : rows.stop, columns.start : columns.stop]
            if values.sum() > 0:
                y[at] = (values**2).sum() / values.sum()
        return y

    def test_is_the_mean_of_training(self):
        x = [np.random.default_rng(0).uniform(0, 2, (1, 1, 3, 3))]
        layer, bottoms, tops = self.build(CPU, x, "global")
        mean = float(self._run(layer, bottoms, tops)[0].item())
        case = TestTraining()
        layer, bottoms, tops = case.build(CPU, [np.broadcast_to(x[0], (1, 5000, 3, 3))], "global")
        drawn = case._run(layer, bottoms, tops)[0]
        assert abs(drawn.mean() - mean) <= 4 * drawn.std() / np.sqrt(drawn.size)

    def test_draws_nothing(self, device):
        layer, bottoms, tops = self.build(device, [np.ones((1, 1, 4, 4))], "2x2")
        before = device.rng.bit_generator.state
        layer.forward(bottoms, tops)
        assert device.rng.bit_generator.state == before
