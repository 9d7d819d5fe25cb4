"""RNN: a plain recurrent net over T steps, with a layer on top of its hidden state.

Behaves as Caffe's RNNLayer. Bottoms, tops, states and differences from Caffe: caffe_lite.layers.recurrent.
    state     h_t = tanh(W_hh (cont_t h_(t-1)) + W_xh x_t + b_h + W_xh_static x_static)
              (expose_hidden: bottom h_0 after the others, top h_T after the first)
    top[0]    o_t = tanh(W_ho h_t + b_o)
    blobs     W_xh (D, I), b_h (D,), [W_xh_static (D, S)], W_hh (D, D), W_ho (D, D), b_o (D,)
"""

from __future__ import annotations

from caffe_lite.gemm import multiply
from caffe_lite.layer import Array
from caffe_lite.layers.recurrent import Recurrent
from caffe_lite.registry import register_layer


@register_layer("RNN")
class RNN(Recurrent):
    def add_output_params(self) -> None:
        p = self.param.recurrent_param
        self.add_param((self.dim, self.dim), p.weight_filler)
        self.add_param((self.dim,), p.bias_filler)

    def step(self, t: int, z: Array, cont: Array, states: list[Array]) -> None:
        self.xp.tanh(z, out=states[0][t + 1])

    def step_backward(
        self, t: int, z: Array, cont: Array, states: list[Array], d_states: list[Array], dz: Array
    ) -> None:
        self._tanh_gradient(d_states[0], states[0][t + 1], dz)

    def output(self, h: Array, y: Array) -> None:
        flat = y.reshape(-1, self.dim)
        multiply(self.device, h.reshape(-1, self.dim), self.blobs[-2].data.T, flat)
        flat += self.blobs[-1].data
        self.xp.tanh(flat, out=flat)

    def output_backward(self, dy: Array, y: Array, h: Array) -> Array:
        before = self.device.workspace("recurrent_output", (2, *y.shape), self.dtype)
        self._tanh_gradient(dy, y, before[0])
        flat = before[0].reshape(-1, self.dim)
        self.add_gradient(self.w_h + 1, flat, h.reshape(-1, self.dim))
        self.add_gradient(self.w_h + 2, flat)
        multiply(self.device, flat, self.blobs[-2].data, before[1].reshape(-1, self.dim))
        return before[1]

    def _tanh_gradient(self, dy: Array, y: Array, out: Array) -> None:
        """out = dy (1 - y y)."""
        self.xp.multiply(y, y, out=out)
        self.xp.subtract(1, out, out=out)
        out *= dy
