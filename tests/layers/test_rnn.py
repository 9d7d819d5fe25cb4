"""RNN step by step, from its definition."""

from __future__ import annotations

import numpy as np

from tests.layers.recurrent_case import D, ExposedCase, PlainCase, RecurrentCase


class RNNCase(RecurrentCase):
    def expected(self, *bottoms):
        x, cont, static, states = self.split(bottoms)
        w_xh, b_h, *rest = self.weights
        w_static = rest.pop(0) if self.has_static else None
        w_hh, w_ho, b_o = rest
        h = states[0] if states else np.zeros((x.shape[1], D))
        tops = []
        for t in range(x.shape[0]):
            z = x[t] @ w_xh.T + b_h + (cont[t] * h) @ w_hh.T
            h = np.tanh(z + static @ w_static.T if self.has_static else z)
            tops.append(np.tanh(h @ w_ho.T + b_o))
        return (np.stack(tops), h[None]) if self.exposed else np.stack(tops)


class TestRNN(RNNCase, PlainCase):
    layer = 'type: "RNN" recurrent_param { num_output: 3 }'

    def test_parameters(self, device):
        layer, _, _ = self.build(device, self._cases()["sequences"])
        assert [b.shape for b in layer.blobs] == [(3, 4), (3,), (3, 3), (3, 3), (3,)]


class TestStatic(RNNCase):
    layer = 'type: "RNN" recurrent_param { num_output: 3 }'
    has_static = True

    def test_parameters(self, device):
        layer, _, _ = self.build(device, self._cases()["sequences"])
        assert [b.shape for b in layer.blobs] == [(3, 4), (3,), (3, 4), (3, 3), (3, 3), (3,)]


class TestExposed(RNNCase, ExposedCase):
    layer = 'type: "RNN" recurrent_param { num_output: 3 expose_hidden: true }'
    exposed, tops = 1, 2


class TestStaticAndExposed(RNNCase, ExposedCase):
    layer = 'type: "RNN" recurrent_param { num_output: 3 expose_hidden: true }'
    has_static, exposed, tops = True, 1, 2
