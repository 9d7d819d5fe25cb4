"""HingeLoss: one-versus-all, every score wants to be beyond its margin: the true class's > 1, the others' < -1.

Behaves as Caffe's HingeLossLayer. N items, C classes:
    bottom[0]  scores  (N, ...), C values for each item
    bottom[1]  labels  N values in [0, C), in any shape; fractions are cut off
    top[0]     loss    ()  sum of the margins m (norm: L1, the default) or of m^2 (L2) / N
    m = max(0, 1 - x) for the true class, max(0, 1 + x) for any other
The gradient goes to the scores: with s = -1 for the true class and 1 for others, loss_weight / N times s sign(m),
or 2 s m with L2. Labels have none.

Differs from Caffe: there is a GPU half; bottom[0].diff is written by backward only; a NaN score makes a NaN loss
(Caffe counts its margin as 0); the loss is summed in double; an empty batch has loss 0. A label out of range is a
DataError on the CPU; on a GPU it puts a NaN into the loss and into the item's gradient.
"""

from __future__ import annotations

import numpy as np

from caffe_lite.labels import read_numbers
from caffe_lite.layer import Array, Blobs, Flags, LossLayer
from caffe_lite.neuron import sign
from caffe_lite.registry import register_layer


@register_layer("HingeLoss")
class HingeLoss(LossLayer):
    def example(self, bottom_index: int, bottom: Blobs, rng: np.random.Generator) -> np.ndarray | None:
        return rng.integers(0, bottom[0].shape[1], bottom[1].shape) if bottom_index == 1 else None

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        scores, labels = bottom
        shape = scores.shape
        self.check_shape(shape and scores.count_of(1) > 0, f"scores must have shape (N, C), C > 0, got {shape}")
        self.check_shape(
            labels.count == shape[0], f"scores of shape {shape} need {shape[0]} labels, got shape {labels.shape}"
        )
        self.rows = shape[0], scores.count_of(1)
        top[0].reshape(())

    def _margins(self, bottom: Blobs, margins: Array) -> tuple[Array, Array]:
        """Fill ``margins``, (N, C); returns the index of those of the true classes."""
        xp = self.xp
        x = bottom[0].data.reshape(self.rows)
        labels = read_numbers(self, bottom[1].data.reshape(-1), self.rows[1], "label of row")
        true = xp.arange(self.rows[0]), xp.maximum(labels, 0)
        xp.add(x, 1, out=margins)
        margins[true] = xp.where(labels < 0, xp.nan, 1 - x[true])
        xp.maximum(margins, 0, out=margins)
        return true

    def _is_l2(self) -> bool:
        return self.param.hinge_loss_param.norm == self.param.hinge_loss_param.L2

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        margins = self.device.workspace("hinge_loss", self.rows, self.dtype)
        self._margins(bottom, margins)
        if self._is_l2():
            margins *= margins
        top[0].data[...] = margins.sum(dtype="float64") / max(self.rows[0], 1)

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        self.check(
            not propagate_down[1],
            "labels (bottom 1) have no gradient: write propagate_down: true propagate_down: false",
        )
        if not propagate_down[0]:
            return
        dx = bottom[0].diff.reshape(self.rows)
        true = self._margins(bottom, dx)
        if not self._is_l2():
            sign(self.xp, dx, dx)
        dx[true] *= -1
        dx *= top[0].diff * ((2 if self._is_l2() else 1) / max(self.rows[0], 1))
