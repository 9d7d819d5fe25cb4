"""MemoryData: batches out of arrays that a program hands over (``net.set_input_arrays``).

Behaves as Caffe's MemoryDataLayer, with batch_size N, channels C, height H, width W of memory_data_param:
    top[0]  data    (N, C, H, W)
    top[1]  labels  (N,) when the net is built, (N, 1, 1, 1) from the first forward on
:meth:`MemoryData.reset` takes the arrays; each forward serves the next N items and starts over at the end. There is
no gradient. Arrays are served as they are: transform_param is for images, and a warning is logged if there is one.

Differs from Caffe: arrays may be of any numeric type and need not be contiguous. AddDatumVector and AddMatVector, which
only C++ programs could call, are not here.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from caffe_lite.errors import DataError
from caffe_lite.layer import Blobs, Flags, Layer
from caffe_lite.registry import register_layer

log = logging.getLogger("caffe_lite")


@register_layer("MemoryData")
class MemoryData(Layer):
    exact_bottoms, exact_tops = 0, 2

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.memory_data_param
        sizes = p.batch_size, p.channels, p.height, p.width
        self.check(all(sizes), f"batch_size, channels, height and width must be > 0, got {', '.join(map(str, sizes))}")
        self.batch_size, self.item = p.batch_size, (p.channels, p.height, p.width)
        self.data = None
        self.labels = None
        self.position = self.resume_at = 0
        top[0].reshape(self.batch_size, *self.item)
        top[1].reshape(self.batch_size)

    def reset(self, data: Any, labels: Any) -> None:
        """Serve ``data`` (n, C, H, W) and ``labels`` (n values in any shape) from the next forward on.

        The arrays are kept, not copied: what is written into them later is served too. n is a multiple of batch_size.

        Raises:
            ShapeError: the shapes are not those.
            DataError: the arrays do not hold numbers.
        """
        data, labels = np.asarray(data), np.asarray(labels)
        for name, array in (("data", data), ("labels", labels)):
            if array.dtype.kind not in "fiub":
                raise DataError(self.explain(f"{name} must be numbers, got an array of {array.dtype}"))
        wanted = ", ".join(map(str, self.item))
        self.check_shape(data.shape[1:] == self.item, f"data must have shape (n, {wanted}), got {data.shape}")
        n, size = data.shape[0], self.batch_size
        self.check_shape(n and n % size == 0, f"needs a multiple of batch_size {size} items, got {n}")
        self.check_shape(labels.size == n, f"{n} items need {n} labels, got shape {labels.shape}")
        if self.param.HasField("transform_param"):
            log.warning(self.explain("arrays are served as they are, transform_param is not applied"))
        self.data, self.labels = data, labels
        self.position, self.resume_at = self.resume_at % n, 0

    def state(self) -> dict[str, Any]:
        """Where in the arrays the next forward begins: the arrays themselves are the program's to give again."""
        return {"position": self.position}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to ``state()``; if there are no arrays yet, in those that come first."""
        position = state["position"]
        if self.data is None:
            self.resume_at = position
        elif position < len(self.data):
            self.position = position
        else:
            held = f"it is at item {position}, the arrays have {len(self.data)}"
            raise DataError(self.explain(f"the saved state cannot be used: {held}"))

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        pass

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        if self.data is None or self.labels is None:
            raise DataError(self.explain("has no data yet: call net.set_input_arrays(data, labels) first"))
        batch = slice(self.position, self.position + self.batch_size)
        top[0].reshape(self.batch_size, *self.item)
        top[1].reshape(self.batch_size, 1, 1, 1)
        for blob, array in zip(top, (self.data[batch], self.labels.reshape(-1)[batch]), strict=True):
            blob.data[...] = self.xp.asarray(array, dtype=self.dtype).reshape(blob.shape)
        self.position = batch.stop % len(self.data)

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        pass
