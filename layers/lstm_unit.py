"""LSTMUnit: one time step of a long short-term memory, from the sums that enter its gates.

Hochreiter and Schmidhuber (1997); behaves as Caffe's LSTMUnitLayer. N streams, D = num_output of the LSTM:
    bottom[0]  c_prev  (1, N, D)   memory after the step before
    bottom[1]  gates   (1, N, 4 D) what enters i, f, o and g, in this order
    bottom[2]  cont    (1, N)      0 where a sequence begins (c_prev is forgotten), 1 where one goes on
    top[0]     c       (1, N, D)   cont f c_prev + i g        with i, f, o = sigmoid, g = tanh of what enters
    top[1]     h       (1, N, D)   o tanh(c)
Gradients go to c_prev and gates; cont has none. The functions below do the same for the LSTM layer.

Differs from Caffe: for a cont other than 0 and 1 the gradient of f is the derivative (on the CPU Caffe's is not).
"""

from __future__ import annotations

import numpy as np

from caffe_lite.blob import Blob
from caffe_lite.cuda import Kernels
from caffe_lite.layer import Array, Blobs, Flags, Layer
from caffe_lite.registry import register_layer

kernels = Kernels(__file__)


@register_layer("LSTMUnit")
class LSTMUnit(Layer):
    exact_bottoms, exact_tops = 3, 2

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.activations = Blob((), self.dtype, self.device)  # of the gates: forward saves them for backward

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index != 2

    def example(self, bottom_index: int, bottom: Blobs, rng: np.random.Generator) -> np.ndarray | None:
        return rng.integers(0, 2, bottom[2].shape) if bottom_index == 2 else None

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape = bottom[0].shape
        self.check_shape(len(shape) == 3 and shape[0] == 1, f"c_prev (bottom 0) must have shape (1, N, D), got {shape}")
        _, n, d = shape
        for i, name, wanted in (1, "gates", (1, n, 4 * d)), (2, "cont", (1, n)):
            fits = f"{name} (bottom {i}) must have shape {wanted} beside c_prev {shape}, got {bottom[i].shape}"
            self.check_shape(bottom[i].shape == wanted, fits)
        for blob in top:
            blob.reshape(shape)
        self.activations.reshape(1, n, 4 * d)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        c_prev, gates, cont = (b.data[0] for b in bottom)
        forward_step(self, c_prev, gates, cont, self.activations.data[0], top[0].data[0], top[1].data[0])

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        self.check(not propagate_down[2], "cont (bottom 2) has no gradient: write propagate_down: false")
        if not any(propagate_down):
            return
        diffs = [
            b.diff[0] if wanted else self.device.workspace(f"lstm_unit_{i}", b.shape[1:], self.dtype)
            for i, (b, wanted) in enumerate(zip(bottom[:2], propagate_down[:2], strict=True))
        ]
        saved = bottom[0].data[0], self.activations.data[0], bottom[2].data[0], top[0].data[0]
        backward_step(self, *saved, top[0].diff[0], top[1].diff[0], *diffs)


def forward_step(layer: Layer, c_prev: Array, gates: Array, cont: Array, act: Array, c: Array, h: Array) -> None:
    """Write act, c and h. c_prev, c, h (N, D); gates and act (N, 4 D), which may be the same array; cont (N,)."""
    d = c.shape[1]
    if layer.device.is_gpu:
        kernels("lstm_unit_forward", c.size, d, c_prev, gates, cont, act, c, h, dtype=layer.dtype)
        return
    # sigmoid(x) = tanh(x / 2) / 2 + 1 / 2, which cannot overflow, and one call of tanh does all four
    sigmoids = act[:, : 3 * d]
    if act is not gates:
        act[...] = gates
    sigmoids *= 0.5
    np.tanh(act, out=act)
    sigmoids *= 0.5
    sigmoids += 0.5
    i, f, o, g = _parts(act, d)
    np.multiply(f, c_prev, out=c)
    c *= cont[:, None]
    np.multiply(i, g, out=h)
    c += h
    np.tanh(c, out=h)
    h *= o


def backward_step(
    layer: Layer, c_prev: Array, act: Array, cont: Array, c: Array, dc: Array, dh: Array, dc_prev: Array, dgates: Array
) -> None:
    """Write dc_prev, which may be dc, and dgates, from what ``forward_step`` left and the gradients dc and dh."""
    n, d = c.shape
    if layer.device.is_gpu:
        arrays = c_prev, act, cont, c, dc, dh, dc_prev, dgates
        kernels("lstm_unit_backward", c.size, d, *arrays, dtype=layer.dtype)
        return
    scratch = layer.device.workspace("lstm_unit", (5, n, d), layer.dtype)
    tanh_c, total, rest = scratch[0], scratch[1], scratch[2:].reshape(n, 3 * d)
    i, f, _, g = _parts(act, d)
    di, df, do, dg = _parts(dgates, d)
    np.tanh(c, out=tanh_c)
    np.multiply(dh, act[:, 2 * d : 3 * d], out=total)
    np.multiply(dh, tanh_c, out=do)
    tanh_c *= tanh_c
    np.subtract(1, tanh_c, out=tanh_c)
    total *= tanh_c
    total += dc  # the whole gradient of c
    np.multiply(total, g, out=di)
    np.multiply(total, i, out=dg)
    np.multiply(total, c_prev, out=df)
    df *= cont[:, None]
    np.multiply(total, f, out=dc_prev)
    dc_prev *= cont[:, None]
    # and through the gates' own functions
    sigmoids, slopes = act[:, : 3 * d], dgates[:, : 3 * d]
    slopes *= sigmoids
    np.subtract(1, sigmoids, out=rest)
    slopes *= rest
    np.multiply(g, g, out=total)
    np.subtract(1, total, out=total)
    dg *= total


def _parts(gates: Array, d: int) -> tuple[Array, ...]:
    """Views of i, f, o, g."""
    return tuple(gates[:, k * d : (k + 1) * d] for k in range(4))
