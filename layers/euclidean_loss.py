"""EuclideanLoss: half the squared distance, the loss of a regression.

Behaves as Caffe's EuclideanLossLayer:
    bottom[0]  predictions  (N, ...)
    bottom[1]  targets      (N, ...), as many values; the axes after the first may be cut differently
    top[0]     loss         ()  sum of (prediction - target)^2 / (2 N)
Gradients go to predictions, loss_weight (prediction - target) / N, and, negated, to targets.

Differs from Caffe: an empty batch has loss 0.
"""

from __future__ import annotations

from caffe_lite.layer import Blobs, Flags, LossLayer
from caffe_lite.registry import register_layer


@register_layer("EuclideanLoss")
class EuclideanLoss(LossLayer):
    def allow_force_backward(self, bottom_index: int) -> bool:
        return True

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        a, b = bottom
        self.check_shape(
            a.shape[:1] and a.shape[:1] == b.shape[:1] and a.count == b.count,
            f"predictions and targets must have the same first axis and as many values, got {a.shape} and {b.shape}",
        )
        self.items = max(a.shape[0], 1)
        top[0].reshape(())

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        a, b = (blob.data.reshape(-1) for blob in bottom)
        difference = self.device.workspace("euclidean_loss", a.shape, self.dtype)
        self.xp.subtract(a, b, out=difference)
        difference *= difference  # and a sum by halves: BLAS's dot loses a digit per power of ten
        top[0].data[...] = difference.sum() / (2 * self.items)

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        a, b = (blob.data.reshape(-1) for blob in bottom)
        for blob, wanted, left, right in zip(bottom, propagate_down, (a, b), (b, a), strict=True):
            if wanted:
                dx = blob.diff.reshape(-1)
                self.xp.subtract(left, right, out=dx)
                dx *= top[0].diff / self.items
