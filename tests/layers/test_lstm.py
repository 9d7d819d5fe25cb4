"""LSTM step by step, from its definition."""

from __future__ import annotations

import numpy as np

from tests.layers.recurrent_case import D, ExposedCase, PlainCase, RecurrentCase


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


class LSTMCase(RecurrentCase):
    def expected(self, *bottoms):
        x, cont, static, states = self.split(bottoms)
        w_xc, b_c, *rest = self.weights
        w_static, w_hc = rest if self.has_static else (None, *rest)
        h, c = states or [np.zeros((x.shape[1], D))] * 2
        tops = []
        for t in range(x.shape[0]):
            gates = x[t] @ w_xc.T + b_c + (cont[t] * h) @ w_hc.T
            if self.has_static:
                gates = gates + static @ w_static.T
            i, f, o, g = np.split(gates, 4, axis=1)
            c = cont[t] * sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            tops.append(h)
        return (np.stack(tops), h[None], c[None]) if self.exposed else np.stack(tops)


class TestLSTM(LSTMCase, PlainCase):
    layer = 'type: "LSTM" recurrent_param { num_output: 3 }'
    golden = ["lstm"]

    def test_parameters(self, device):
        layer, _, _ = self.build(device, self._cases()["sequences"])
        assert [b.shape for b in layer.blobs] == [(12, 4), (12,), (12, 3)]

    def test_fillers(self, device):
        self.layer = """type: "LSTM" recurrent_param { num_output: 3
            weight_filler { type: "constant" value: 2 } bias_filler { type: "constant" value: 5 } }"""
        self.fill_params = lambda blobs, rng: None
        layer, _, _ = self.build(device, self._cases()["sequences"])
        assert [set(device.to_host(b.data).ravel()) for b in layer.blobs] == [{2.0}, {5.0}, {2.0}]


class TestStatic(LSTMCase):
    layer = 'type: "LSTM" recurrent_param { num_output: 3 }'
    has_static = True

    def test_parameters(self, device):
        layer, _, _ = self.build(device, self._cases()["sequences"])
        assert [b.shape for b in layer.blobs] == [(12, 4), (12,), (12, 4), (12, 3)]


class TestExposed(LSTMCase, ExposedCase):
    layer = 'type: "LSTM" recurrent_param { num_output: 3 expose_hidden: true }'
    exposed, tops = 2, 3


class TestStaticAndExposed(LSTMCase, ExposedCase):
    layer = 'type: "LSTM" recurrent_param { num_output: 3 expose_hidden: true debug_info: true }'
    has_static, exposed, tops = True, 2, 3
