"""BatchReindex: the items of a batch in another order, some several times, some not at all.

Behaves as Caffe's BatchReindexLayer:
    bottom[0]  data   (N, ...)
    bottom[1]  index  (M,)  values in [0, N); fractions are cut off
    top[0]            (M, ...)  top[0][i] = data[index[i]]
The gradient goes to data: the sum over the places to which an item went, 0 for one that went nowhere. The index
has none.

Differs from Caffe: force_backward passes the index by (Caffe aborts). An index out of range is a DataError on the
CPU; on a GPU, which is not asked for its verdict, it makes its item of the top NaN.
"""

from __future__ import annotations

import numba
import numpy as np

from caffe_lite.blob import Blob
from caffe_lite.cuda import Kernels
from caffe_lite.labels import read_numbers
from caffe_lite.layer import Array, Blobs, Flags, Layer
from caffe_lite.registry import register_layer

kernels = Kernels(__file__)


@register_layer("BatchReindex")
class BatchReindex(Layer):
    exact_bottoms, exact_tops = 2, 1

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index == 0

    def example(self, bottom_index: int, bottom: Blobs, rng: np.random.Generator) -> np.ndarray | None:
        return rng.integers(0, bottom[0].shape[0], bottom[1].shape) if bottom_index == 1 else None

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        data, index = bottom
        self.check_shape(data.shape, "data (bottom 0) must have at least one axis, got shape ()")
        self.check_shape(len(index.shape) == 1, f"index (bottom 1) must have shape (M,), got {index.shape}")
        top[0].reshape(index.shape + data.shape[1:])

    @staticmethod
    def _rows(blob: Blob, part: str) -> Array:
        return getattr(blob, part).reshape(blob.shape[0], blob.count_of(1))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        gather_rows(self, self._rows(bottom[0], "data"), bottom[1].data, self._rows(top[0], "data"))

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        self.check(
            not propagate_down[1],
            "the index (bottom 1) has no gradient: write propagate_down: true propagate_down: false",
        )
        if propagate_down[0]:
            dx = self._rows(bottom[0], "diff")
            dx[...] = 0
            add_rows(self, self._rows(top[0], "diff"), bottom[1].data, dx)


def gather_rows(layer: Layer, x: Array, index: Array, y: Array, bias: Array | None = None) -> None:
    """y[i] = x[index[i]] + bias for ``x`` (R, K), ``y`` (M, K), ``bias`` (K,) or None, M floats ``index``.

    Raises:
        DataError: on the CPU, an index is not in [0, R); on a GPU its row of ``y`` becomes NaN.
    """
    if layer.device.is_gpu:
        shift = y if bias is None else bias  # y is not read
        kernels("gather_rows", y.size, x, index, x.shape[0], x.shape[1], shift, bias is not None, y, dtype=layer.dtype)
        return
    numbers = read_numbers(layer, index.reshape(-1), x.shape[0], "index of row")
    if numbers.size:  # NumPy takes nothing from an empty x, not even nothing
        np.take(x, numbers, axis=0, out=y, mode="clip")  # "raise" would take a detour through a copy
    if bias is not None:
        y += bias


def add_rows(layer: Layer, dy: Array, index: Array, dx: Array) -> None:
    """dx[index[i]] += dy[i], in the order of i on every device; ``dx`` (R, K), ``dy`` (M, K), M floats ``index``.

    Raises:
        DataError: on the CPU, an index is not in [0, R); on a GPU it is passed by.
    """
    xp, count = layer.xp, dx.shape[0]
    index = index.reshape(-1)
    if not layer.device.is_gpu:
        _add_rows(dy, read_numbers(layer, index, count, "index of row"), dx)
        return
    if index.size == 0:
        return
    # Each element of dx gathers: the rows that go to it stand side by side once they are sorted by index.
    numbers = xp.where((index > -1) & (index < count), index, count).astype("int32")
    order = xp.argsort(numbers, kind="stable")
    starts = xp.searchsorted(numbers[order], xp.arange(count + 1, dtype="int32"))
    kernels("add_rows", dx.size, dy, order.astype("int32"), starts.astype("int32"), dx.shape[1], dx, dtype=layer.dtype)


@numba.njit(cache=True)
def _add_rows(dy: np.ndarray, numbers: np.ndarray, dx: np.ndarray) -> None:
    for i in range(numbers.size):
        for j in range(dx.shape[1]):
            dx[numbers[i], j] += dy[i, j]
