"""MultinomialLogisticLoss: the mean of -log(probability of the true class), of probabilities given as such.

Behaves as Caffe's MultinomialLogisticLossLayer; SoftmaxWithLoss, which starts from scores, is more accurate.
N items, C classes:
    bottom[0]  probabilities  (N, ...), C values for each item
    bottom[1]  labels         N values in [0, C), in any shape; fractions are cut off
    top[0]     loss           ()  sum of -log(max(p, 1e-20)) / N
The gradient goes to the probabilities: -loss_weight / (N max(p, 1e-20)) for the true class, 0 for others. Labels
have none. loss_param is not consulted.

Differs from Caffe: there is a GPU half; the loss is summed in double; an empty batch has loss 0. A label out of
range is a DataError on the CPU; on a GPU it puts a NaN into the loss and into the item's gradient.
"""

from __future__ import annotations

import numpy as np

from caffe_lite.labels import read_numbers
from caffe_lite.layer import Array, Blobs, Flags, LossLayer
from caffe_lite.registry import register_layer

SMALLEST = 1e-20


@register_layer("MultinomialLogisticLoss")
class MultinomialLogisticLoss(LossLayer):
    def example(self, bottom_index: int, bottom: Blobs, rng: np.random.Generator) -> np.ndarray | None:
        if bottom_index == 0:
            return rng.uniform(0.1, 1, bottom[0].shape)
        return rng.integers(0, bottom[0].shape[1], bottom[1].shape)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        probabilities, labels = bottom
        shape = probabilities.shape
        self.check_shape(
            shape and probabilities.count_of(1) > 0, f"probabilities must have shape (N, C), C > 0, got {shape}"
        )
        self.check_shape(
            labels.count == shape[0], f"probabilities of shape {shape} need {shape[0]} labels, got shape {labels.shape}"
        )
        self.rows = shape[0], probabilities.count_of(1)
        top[0].reshape(())

    def _true(self, bottom: Blobs) -> tuple[tuple[Array, Array], Array]:
        """(index of the true classes, their probabilities: NaN for a label out of range)."""
        xp = self.xp
        labels = read_numbers(self, bottom[1].data.reshape(-1), self.rows[1], "label of row")
        true = xp.arange(self.rows[0]), xp.maximum(labels, 0)
        p = xp.maximum(bottom[0].data.reshape(self.rows)[true], SMALLEST)
        return true, xp.where(labels < 0, xp.nan, p)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        _, p = self._true(bottom)
        top[0].data[...] = -self.xp.log(p).sum(dtype="float64") / max(self.rows[0], 1)

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        self.check(
            not propagate_down[1],
            "labels (bottom 1) have no gradient: write propagate_down: true propagate_down: false",
        )
        if not propagate_down[0]:
            return
        dx = bottom[0].diff.reshape(self.rows)
        true, p = self._true(bottom)
        dx[...] = 0
        dx[true] = top[0].diff / -max(self.rows[0], 1) / p
