"""ContrastiveLoss: pairs that are alike are drawn together, others are pushed a margin apart.

Hadsell, Chopra, LeCun, Dimensionality Reduction by Learning an Invariant Mapping (2006); behaves as Caffe's
ContrastiveLossLayer. N pairs of C features, d = |a - b| (Euclidean), m = contrastive_loss_param.margin (1):
    bottom[0]  a        (N, C), axes of size 1 may follow
    bottom[1]  b        the same
    bottom[2]  similar  N values, not 0 (after its fraction is cut off): the pair is alike
    top[0]     loss     ()  sum of the pairs' losses / (2 N)
    d^2 for a pair that is alike, max(m - d, 0)^2 for another, max(m - d^2, 0) with legacy_version
Gradients go to a and, negated, to b. For unlike pairs within the margin that is -(m - d) / (d + 1e-4) (a - b) / N:
because of the 1e-4, which keeps it finite at d = 0, it is not quite the derivative. ``similar`` gets none: zero
where one is asked for.

Differs from Caffe: the number of pairs is checked; the loss is summed in double; an empty batch has loss 0.
"""

from __future__ import annotations

import numpy as np

from caffe_lite.layer import Array, Blobs, Flags, LossLayer
from caffe_lite.registry import register_layer

EPSILON = 1e-4


@register_layer("ContrastiveLoss")
class ContrastiveLoss(LossLayer):
    exact_bottoms = 3

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index != 2

    def example(self, bottom_index: int, bottom: Blobs, rng: np.random.Generator) -> np.ndarray | None:
        return rng.integers(0, 2, bottom[2].shape) if bottom_index == 2 else None

    def gradient_caveat(self, bottom: Blobs) -> str:
        return "the rule divides by d + 1e-4, not by d, where a dissimilar pair lies within the margin"

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        a, b, similar = bottom
        for i, blob in enumerate((a, b)):
            flat = len(blob.shape) in (1, 2, 3, 4) and all(size == 1 for size in blob.shape[2:])
            self.check_shape(flat, f"bottom {i} must have shape (N, C) or (N, C, 1, 1), got {blob.shape}")
        self.pairs = a.num, a.channels
        same = (b.num, b.channels) == self.pairs
        self.check_shape(same, f"bottoms 0 and 1 must have the same shape, got {a.shape} and {b.shape}")
        self.check_shape(
            similar.count == a.num, f"bottom 2 must have one value for each of {a.num} pairs, got {similar.shape}"
        )
        top[0].reshape(())

    def _pairs(self, bottom: Blobs) -> tuple[Array, Array, Array]:
        """a and b, (N, C), and which pairs are alike, (N,)."""
        a, b, similar = (blob.data for blob in bottom)
        return a.reshape(self.pairs), b.reshape(self.pairs), self.xp.trunc(similar.reshape(-1)) != 0

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        xp, p = self.xp, self.param.contrastive_loss_param
        a, b, similar = self._pairs(bottom)
        difference = self.device.workspace("contrastive_loss", self.pairs, self.dtype)
        xp.subtract(a, b, out=difference)
        self.squared = xp.einsum("nc,nc->n", difference, difference)  # for backward
        if p.legacy_version:
            apart = xp.maximum(p.margin - self.squared, 0)
        else:
            apart = xp.maximum(p.margin - xp.sqrt(self.squared), 0) ** 2
        losses = xp.where(similar, self.squared, apart)
        top[0].data[...] = losses.sum(dtype="float64") / (2 * max(self.pairs[0], 1))

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        xp, p = self.xp, self.param.contrastive_loss_param
        a, b, similar = self._pairs(bottom)
        if propagate_down[2]:
            bottom[2].diff[...] = 0
        if p.legacy_version:
            room, push = p.margin - self.squared, -1
        else:
            distance = xp.sqrt(self.squared)
            room = p.margin - distance
            push = -room / (distance + EPSILON)
        factor = xp.where(similar, 1, xp.where(room > 0, push, 0))  # of the difference
        factor = factor * (top[0].diff / max(self.pairs[0], 1))
        for i, (left, right) in enumerate(((a, b), (b, a))):
            if propagate_down[i]:
                dx = bottom[i].diff.reshape(self.pairs)
                xp.subtract(left, right, out=dx)
                dx *= factor[:, None]
