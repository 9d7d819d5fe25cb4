"""DummyData: tops that fillers fill, for tests and for parts of a net that want some input.

Behaves as Caffe's DummyDataLayer:
    top[i]  dummy_data_param.shape[i], or num, channels, height and width [i]; one serves all tops
filled by data_filler[i]; one serves all tops, none leaves zeros. A top with a constant filler is filled when the net
is built and never again: what is written into it stays. Others are filled anew by every forward, from the process's
random stream, on one thread: the numbers must not depend on how many there are. There is no gradient.

Differs from Caffe: the first filling of every top is when the net is built, so that a filler that cannot fill it is
an error there; a top may be empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from caffe_lite import filler
from caffe_lite.layer import Blobs, Flags, Layer
from caffe_lite.proto import caffe_pb2
from caffe_lite.registry import register_layer

AXES = "num", "channels", "height", "width"


@register_layer("DummyData")
class DummyData(Layer):
    exact_bottoms, min_tops = 0, 1

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        fillers = list(self.param.dummy_data_param.data_filler) or [caffe_pb2.FillerParameter()]
        self.fillers = self._for_each(top, "data_filler", fillers)
        for blob, shape in zip(top, self._shapes(top), strict=True):
            blob.reshape(shape)
        self._fill(top, self.fillers)

    def _for_each(self, top: Blobs, name: str, values: Sequence[Any]) -> list[Any]:
        count = len(top)
        self.check(len(values) in (1, count), f"needs {name} once, or once for each of {count} tops; got {len(values)}")
        return list(values) * (count if len(values) == 1 else 1)

    def _shapes(self, top: Blobs) -> list[tuple[int, ...]]:
        p = self.param.dummy_data_param
        if not any(getattr(p, axis) for axis in AXES):
            return [tuple(shape.dim) for shape in self._for_each(top, "shape", p.shape)]
        self.check(not p.shape, "gives both shape and the older num, channels, height and width: remove the latter")
        return list(zip(*(self._for_each(top, axis, getattr(p, axis)) for axis in AXES), strict=True))

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        pass  # a size that the user gave at run time stays

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self._fill(top, [None if f.type == "constant" else f for f in self.fillers])

    def _fill(self, top: Blobs, fillers: Sequence[Any]) -> None:
        for i, (blob, param) in enumerate(zip(top, fillers, strict=True)):
            if param is not None and blob.count:
                filler.fill(blob.data, param, self.device.rng, self.explain(f"top {i}"))

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        pass
