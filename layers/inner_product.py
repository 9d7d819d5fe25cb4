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

import numba
import numpy as np

from caffe_lite.cuda import Kernels
from caffe_lite.device import Device
from caffe_lite.gpu_gemm import multiply
from caffe_lite.layer import Layer
from caffe_lite.registry import register_layer

kernels = Kernels(__file__)


@register_layer("InnerProduct")
class InnerProduct(Layer):
    exact_bottoms, exact_tops = 1, 1
    can_fuse_relu = True

    def setup(self, bottom, top):
        p = self.param.inner_product_param
        self.check(p.num_output > 0, f"num_output must be > 0, got {p.num_output}")
        self.n = p.num_output
        self.k = bottom[0].count_of(self.canonical_axis(bottom[0], p.axis))
        self.add_param((self.k, self.n) if p.transpose else (self.n, self.k), _filler(p, "weight_filler"))
        if p.bias_term:
            self.add_param((self.n,), _filler(p, "bias_filler"))

    def reshape(self, bottom, top):
        axis = self.canonical_axis(bottom[0], self.param.inner_product_param.axis)
        k = bottom[0].count_of(axis)
        self.check_shape(
            k == self.k, f"bottom has shape {bottom[0].shape}: {k} values from axis {axis} on, not {self.k}"
        )
        self.m = bottom[0].count_of(0, axis)
        top[0].reshape(*bottom[0].shape[:axis], self.n)

    def multiply_adds(self, bottom, top):
        return self.m * self.k * self.n

    def _matrices(self, bottom, top, part):
        """(M, K) and (M, N) views of ``data`` or ``diff``."""
        return getattr(bottom[0], part).reshape(self.m, self.k), getattr(top[0], part).reshape(self.m, self.n)

    def _product(self, bottom, top):
        x, y = self._matrices(bottom, top, "data")
        w = self.blobs[0].data
        _multiply(self.device, x, w if self.param.inner_product_param.transpose else w.T, y)
        return y, self.blobs[1].data if len(self.blobs) == 2 else y[:0].reshape(-1)

    def forward_cpu(self, bottom, top):
        y, bias = self._product(bottom, top)
        if bias.size or self.fused_relu:
            _epilogue(y, bias, self.fused_relu, self.dtype.type(0))

    def forward_gpu(self, bottom, top):
        y, bias = self._product(bottom, top)
        if bias.size or self.fused_relu:
            kernels("inner_product_epilogue", y.size, self.n, bias, bias.size, self.fused_relu, y, dtype=self.dtype)

    def backward(self, top, propagate_down, bottom):
        transpose = self.param.inner_product_param.transpose
        x = bottom[0].data.reshape(self.m, self.k)
        dy = top[0].diff.reshape(self.m, self.n)
        if self.param_propagate_down[0] and dy.size and x.size:
            dw = self.blobs[0].diff
            _add_product(self.device, *((x.T, dy) if transpose else (dy.T, x)), dw)
        if len(self.blobs) == 2 and self.param_propagate_down[1]:
            db = self.blobs[1].diff
            db += dy.sum(axis=0)
        if propagate_down[0]:
            w = self.blobs[0].data
            _multiply(self.device, dy, w.T if transpose else w, bottom[0].diff.reshape(self.m, self.k))


def _filler(p: Any, name: str) -> Any:
    """None, which leaves zeros, for a filler that is not given: Caffe's default is the constant 0."""
    return getattr(p, name) if p.HasField(name) else None


def _multiply(device: Device, a: Any, b: Any, out: Any) -> None:
    """out = a @ b."""
    if device.is_gpu:
        multiply(device, a, b, out)
    else:
        np.dot(a, b, out=out)


def _add_product(device: Device, a: Any, b: Any, out: Any) -> None:
    """out += a @ b without a temporary of the size of ``out`` (VGG16's fc6: 411 MB).

    ``a`` or ``b`` may be the transpose of a C-contiguous array; ``out`` is C-contiguous.
    """
    if device.is_gpu:
        multiply(device, a, b, out, add=True)
        return
    from scipy.linalg import blas

    def column_major(m: np.ndarray) -> tuple[np.ndarray, bool]:
        return (m, False) if m.flags.f_contiguous else (m.T, True)

    # BLAS counts in columns: out^T += b^T a^T.
    left, trans_left = column_major(b.T)
    right, trans_right = column_major(a.T)
    gemm = blas.sgemm if out.dtype == np.float32 else blas.dgemm
    total = gemm(1.0, left, right, 1.0, out.T, trans_a=trans_left, trans_b=trans_right, overwrite_c=True)
    if not np.shares_memory(total, out):  # overwrite_c is a permission, not a promise
        out[...] = total.T


@numba.njit(cache=True)
def _epilogue(y, bias, relu, zero):
    """y + bias (unless it is empty), then max(., 0) if ``relu``, in place and in one pass."""
    for i in range(y.shape[0]):
        row = y[i]
        if bias.size:
            for j in range(row.size):
                row[j] += bias[j]
        if relu:
            for j in range(row.size):
                row[j] = zero if row[j] <= zero else row[j]  # a NaN stays
