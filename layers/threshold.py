"""Threshold: y = 1 where x > threshold, else 0 (a NaN is not greater).

Behaves as Caffe's ThresholdLayer; may run in place.
    bottom[0], top[0]  any shape, the same
There is no gradient, and asking for one is an error. Differs from Caffe: force_backward passes it by.
"""

from __future__ import annotations

from caffe_lite.layer import Blobs, Flags
from caffe_lite.neuron import NeuronLayer
from caffe_lite.registry import register_layer


@register_layer("Threshold")
class Threshold(NeuronLayer):
    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.threshold = self.dtype.type(self.param.threshold_param.threshold)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.xp.greater(bottom[0].data, self.threshold, out=top[0].data)

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        self.check(not propagate_down[0], "has no gradient: write propagate_down: false for its bottom")

    def allow_force_backward(self, bottom_index: int) -> bool:
        return False
