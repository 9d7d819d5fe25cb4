"""ReLU: y = x for x > 0, negative_slope * x for the rest.

Behaves as Caffe's ReLULayer; may run in place.
    bottom[0], top[0]  any shape, the same
The gradient is dy where x > 0, negative_slope * dy where x <= 0 (at 0 too). In place x is gone, and the
sign of y stands for it: the same as long as negative_slope >= 0. A NaN stays a NaN.

Differs from Caffe: with negative_slope 0, -inf gives 0 (on its CPU 0 + 0 * -inf, a NaN); a negative
negative_slope in place, where Caffe computes a wrong gradient, is refused by backward.
"""

from __future__ import annotations

import numba
import numpy as np

from caffe_lite.cuda import Kernels
from caffe_lite.layer import Blobs, Flags, Layer
from caffe_lite.parallel import elementwise
from caffe_lite.registry import register_layer

kernels = Kernels(__file__)


@register_layer("ReLU")
class ReLU(Layer):
    exact_bottoms, exact_tops = 1, 1
    in_place = True

    @property
    def is_relu(self) -> bool:  # type: ignore[override]
        """A layer with an epilogue can do max(x, 0), not a slope."""
        return self.param.relu_param.negative_slope == 0

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.slope = self.dtype.type(self.param.relu_param.negative_slope)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape(bottom[0].shape)

    def forward_cpu(self, bottom: Blobs, top: Blobs) -> None:
        elementwise(_forward, bottom[0].data, self.slope, top[0].data)

    def forward_gpu(self, bottom: Blobs, top: Blobs) -> None:
        kernels("relu_forward", top[0].count, bottom[0].data, self.slope, top[0].data, dtype=self.dtype)

    def backward_cpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if self._has_work(top, propagate_down, bottom):
            x, dy, dx = bottom[0].data, top[0].diff, bottom[0].diff
            elementwise(_backward, x, dy, self.slope, self.dtype.type(1), dx)

    def backward_gpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if self._has_work(top, propagate_down, bottom):
            x, dy, dx = bottom[0].data, top[0].diff, bottom[0].diff
            kernels("relu_backward", bottom[0].count, x, dy, self.slope, dx, dtype=self.dtype)

    def _has_work(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> bool:
        if not propagate_down[0]:
            return False
        known = self.slope >= 0 or top[0] is not bottom[0]
        self.check(
            known, f"negative_slope {self.slope} in place leaves no trace of the sign of x: give the top its own name"
        )
        return True


@numba.njit(cache=True, nogil=True)
def _forward(x: np.ndarray, slope: float, y: np.ndarray) -> None:
    if slope == 0:
        zero = slope
        for i in range(x.size):
            y[i] = zero if x[i] <= zero else x[i]
    else:
        for i in range(x.size):
            y[i] = x[i] if x[i] > 0 else slope * x[i]


@numba.njit(cache=True, nogil=True)
def _backward(x: np.ndarray, dy: np.ndarray, slope: float, one: float, dx: np.ndarray) -> None:
    # A product, not a choice between dy and 0: a NaN in dy shows even where x <= 0, as in Caffe.
    for i in range(x.size):
        dx[i] = dy[i] * (one if x[i] > 0 else slope)
