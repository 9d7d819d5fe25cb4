"""SigmoidCrossEntropyLoss: independent yes-or-no predictions; sigmoid of the scores and cross entropy in one.

Behaves as Caffe's SigmoidCrossEntropyLossLayer. N items:
    bottom[0]  scores x   (N, ...)
    bottom[1]  targets t  (N, ...), as many values, usually in [0, 1]; the axes after the first may be cut differently
    top[0]     loss       ()  sum of -(t log(s) + (1 - t) log(1 - s)) / normaliser, s = 1 / (1 + exp(-x))
Targets whose integer part is loss_param.ignore_label count for nothing. loss_param.normalization gives the
normaliser, at least 1: BATCH_SIZE (the default here) N, VALID the targets that count, FULL all of them, NONE 1;
where it is absent the older ``normalize`` is asked: true is VALID, false BATCH_SIZE.
The gradient goes to the scores: loss_weight (s - t) / normaliser. Targets have none.

Differs from Caffe: the loss is summed in double.
"""

from __future__ import annotations

from caffe_lite.layer import Array, Blobs, Flags, LossLayer
from caffe_lite.normalization import ignored_label, normalization, normalizer
from caffe_lite.registry import register_layer


@register_layer("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLoss(LossLayer):
    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.loss_param
        self.ignore = ignored_label(p)
        self.normalization = normalization(p, p.BATCH_SIZE)
        self.normalizer = self.xp.ones((), self.dtype)  # on the device: forward saves it for backward

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x, t = bottom
        self.check_shape(
            x.shape[:1] and x.shape[:1] == t.shape[:1] and x.count == t.count,
            f"scores and targets must have the same first axis and as many values, got {x.shape} and {t.shape}",
        )
        top[0].reshape(())

    def _ignored(self, targets: Array) -> Array | None:
        """Which targets do not count; None if all do."""
        return None if self.ignore is None else self.xp.trunc(targets) == self.ignore

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        xp = self.xp
        x, t = (blob.data.reshape(-1) for blob in bottom)
        losses, slope = self.device.workspace("sigmoid_cross_entropy_loss", (2, x.size), self.dtype)
        # log(1 + exp(-|x|)) - x (t - [x >= 0]): no exponential overflows, and x >> 0 with t = 1 loses no digits.
        xp.abs(x, out=losses)
        xp.negative(losses, out=losses)
        xp.exp(losses, out=losses)
        losses += 1
        xp.log(losses, out=losses)
        xp.greater_equal(x, 0, out=slope)
        slope -= t
        slope *= x
        losses += slope
        ignored = self._ignored(t)
        valid = x.size
        if ignored is not None:
            xp.copyto(losses, 0, where=ignored)
            valid = valid - ignored.sum()
        items = max(bottom[0].shape[0], 1)
        p = self.param.loss_param
        self.normalizer[...] = normalizer(xp, p, self.normalization, items, x.size // items, valid)
        top[0].data[...] = losses.sum(dtype="float64") / self.normalizer

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        self.check(
            not propagate_down[1],
            "targets (bottom 1) have no gradient: write propagate_down: true propagate_down: false",
        )
        if not propagate_down[0]:
            return
        xp = self.xp
        x, t, dx = bottom[0].data.reshape(-1), bottom[1].data.reshape(-1), bottom[0].diff.reshape(-1)
        xp.multiply(x, 0.5, out=dx)
        xp.tanh(dx, out=dx)
        dx *= 0.5
        dx += 0.5  # the sigmoid
        dx -= t
        ignored = self._ignored(t)
        if ignored is not None:
            xp.copyto(dx, 0, where=ignored)
        dx *= top[0].diff / self.normalizer
