"""LSTM: long short-term memory over T steps.

Hochreiter and Schmidhuber (1997), as Donahue et al. (2015) have it; behaves as Caffe's LSTMLayer. Bottoms, tops,
states and differences from Caffe: caffe_lite.layers.recurrent; one step: caffe_lite.layers.lstm_unit.
    states    h, c  (expose_hidden: bottoms h_0, c_0 after the others, tops h_T, c_T after the first)
    top[0]    h_1 ... h_T
    blobs     W_xc (4 D, I), b_c (4 D,), [W_xc_static (4 D, S)], W_hc (4 D, D); rows: gates i, f, o, g
"""

from __future__ import annotations

from caffe_lite.layer import Array
from caffe_lite.layers.lstm_unit import backward_step, forward_step
from caffe_lite.layers.recurrent import Recurrent
from caffe_lite.registry import register_layer


@register_layer("LSTM")
class LSTM(Recurrent):
    state_names = ("h", "c")
    gates = 4

    def step(self, t: int, z: Array, cont: Array, states: list[Array]) -> None:
        h, c = states
        forward_step(self, c[t], z, cont, z, c[t + 1], h[t + 1])

    def step_backward(
        self, t: int, z: Array, cont: Array, states: list[Array], d_states: list[Array], dz: Array
    ) -> None:
        c = states[1]
        dh, dc = d_states
        backward_step(self, c[t], z, cont, c[t + 1], dc, dh, dc, dz)
