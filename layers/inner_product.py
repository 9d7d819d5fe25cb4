"""InnerProduct: y = x W^T + b, every bottom flattened from ``axis`` on.

Behaves as Caffe's InnerProductLayer. M: product of the axes before ``axis``, K: of the rest, N = num_output:
    bottom[0]  (..., K axes ...)   seen as (M, K)
    top[0]     (axes before axis, N)   seen as (M, N)
    blobs[0]   W, (N, K), or (K, N) with transpose: true
    blobs[1]   b, (N,), unless bias_term: false
K is fixed by setup; M may change. Gradients go to the bottom, W and b; the last two are added to.

Differs from Caffe: W preloaded from the prototxt must have the right shape; an in-place ReLU that comes
next is done here, as y is written.
"""

from __future__ import annotations

from typing import Any

from caffe_lite.cuda import Kernels
from caffe_lite.gemm import affine, multiply
from caffe_lite.layer import Array, Blobs, Flags, Layer
from caffe_lite.registry import register_layer

kernels = Kernels(__file__)


@register_layer("InnerProduct")
class InnerProduct(Layer):
    exact_bottoms, exact_tops = 1, 1
    can_fuse_relu = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.inner_product_param
        self.check(p.num_output > 0, f"num_output must be > 0, got {p.num_output}")
        self.n = p.num_output
        self.k = bottom[0].count_of(self.canonical_axis(bottom[0], p.axis))
        self.add_param((self.k, self.n) if p.transpose else (self.n, self.k), _filler(p, "weight_filler"))
        if p.bias_term:
            self.add_param((self.n,), _filler(p, "bias_filler"))

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        axis = self.canonical_axis(bottom[0], self.param.inner_product_param.axis)
        k = bottom[0].count_of(axis)
        self.check_shape(
            k == self.k, f"bottom has shape {bottom[0].shape}: {k} values from axis {axis} on, not {self.k}"
        )
        self.m = bottom[0].count_of(0, axis)
        top[0].reshape(*bottom[0].shape[:axis], self.n)

    def multiply_adds(self, bottom: Blobs, top: Blobs) -> int:
        return self.m * self.k * self.n

    def _operands(self, bottom: Blobs, top: Blobs) -> tuple[Array, Array, Array, Array]:
        """x (M, K), W^T (K, N), b (N,) or empty, y (M, N)."""
        y = top[0].data.reshape(self.m, self.n)
        w = self.blobs[0].data
        bias = self.blobs[1].data if len(self.blobs) == 2 else y[:0].reshape(-1)
        x = bottom[0].data.reshape(self.m, self.k)
        return x, w if self.param.inner_product_param.transpose else w.T, bias, y

    def forward_cpu(self, bottom: Blobs, top: Blobs) -> None:
        affine(self.device, *self._operands(bottom, top), self.fused_relu)

    def forward_gpu(self, bottom: Blobs, top: Blobs) -> None:
        x, w, bias, y = self._operands(bottom, top)
        multiply(self.device, x, w, y)
        if bias.size or self.fused_relu:
            kernels("inner_product_epilogue", y.size, self.n, bias, bias.size, self.fused_relu, y, dtype=self.dtype)

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        transpose = self.param.inner_product_param.transpose
        x = bottom[0].data.reshape(self.m, self.k)
        dy = top[0].diff.reshape(self.m, self.n)
        if self.param_propagate_down[0] and dy.size and x.size:
            dw = self.blobs[0].diff
            multiply(self.device, *((x.T, dy) if transpose else (dy.T, x)), dw, add=True)
        if len(self.blobs) == 2 and self.param_propagate_down[1]:
            db = self.blobs[1].diff
            db += dy.sum(axis=0)
        if propagate_down[0]:
            w = self.blobs[0].data
            multiply(self.device, dy, w.T if transpose else w, bottom[0].diff.reshape(self.m, self.k))


def _filler(p: Any, name: str) -> Any:
    """None, which leaves zeros, for a filler that is not given: Caffe's default is the constant 0."""
    return getattr(p, name) if p.HasField(name) else None
