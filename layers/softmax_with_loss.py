"""SoftmaxWithLoss: the softmax of the scores, and the mean of -log(probability of the true class).

Behaves as Caffe's SoftmaxWithLossLayer. C classes along softmax_param.axis (1); rows = outer x inner positions:
    bottom[0]  scores  (outer axes, C, inner axes)
    bottom[1]  labels  rows values in [0, C), in any shape; fractions are cut off
    top[0]     loss    ()  sum over the rows of -log(max(p, FLT_MIN)) / normaliser
    top[1]     the probabilities, as the scores; optional
Rows labelled loss_param.ignore_label count for nothing. loss_param.normalization gives the normaliser, at
least 1: VALID (the default) the rows that count, FULL all rows, BATCH_SIZE the outer positions, NONE 1; where
it is absent the older ``normalize`` is asked: true is VALID, false BATCH_SIZE.
The gradient goes to the scores: loss_weight (p - [c is the label]) / normaliser; none comes from top[1].

Differs from Caffe: the loss is summed in double. A label that is neither in [0, C) nor ignored is a DataError
on the CPU; on a GPU, which is not asked for its verdict, loss and gradient of that row become NaN. In TRAIN
Caffe 1.0 aborts if both tops have a loss_weight.
"""

from __future__ import annotations

import numba
import numpy as np

from caffe_lite import normalization
from caffe_lite.blob import Blob
from caffe_lite.cuda import Kernels
from caffe_lite.errors import DataError
from caffe_lite.layer import LossLayer
from caffe_lite.layers.softmax import softmax
from caffe_lite.registry import register_layer

kernels = Kernels(__file__)
SMALLEST = float(np.finfo(np.float32).tiny)  # FLT_MIN, in float64 nets too, as in Caffe
NOBODY = np.iinfo(np.int32).min  # an ignore_label that no row has


@register_layer("SoftmaxWithLoss")
class SoftmaxWithLoss(LossLayer):
    min_tops, max_tops = 1, 2

    def setup(self, bottom, top):
        p = self.param.loss_param
        ignored = normalization.ignored_label(p)
        self.ignore = NOBODY if ignored is None else ignored
        self.normalization = normalization.normalization(p, p.VALID)
        self.prob = top[1] if len(top) == 2 else Blob((), self.dtype, self.device)
        self.normalizer = self.xp.ones((), self.dtype)  # on the device: forward saves it for backward

    def example(self, bottom_index, bottom, rng):
        return (
            rng.integers(0, bottom[0].shape[self.param.softmax_param.axis], bottom[1].shape)
            if bottom_index == 1
            else None
        )

    def gradient_caveat(self, bottom):
        if not bool((self.prob.data < SMALLEST).any()):
            return ""
        return "where a probability is below FLT_MIN the loss is clamped, and its gradient is not"

    def reshape(self, bottom, top):
        axis = self.canonical_axis(bottom[0], self.param.softmax_param.axis)
        shape = bottom[0].shape
        self.check_shape(shape[axis] > 0, f"axis {axis} must have at least one class, got shape {shape}")
        outer, inner = bottom[0].count_of(0, axis), bottom[0].count_of(axis + 1)
        self.check_shape(
            bottom[1].count == outer * inner,
            f"scores of shape {shape} with the classes along axis {axis} need {outer * inner} labels, "
            f"got shape {bottom[1].shape}",
        )
        self.rows = outer, shape[axis], inner
        self.prob.reshape(shape)
        top[0].reshape(())

    def _normalize(self, valid_rows):
        """Set the normaliser; ``valid_rows`` is a number, or a device array on a GPU."""
        outer, _, inner = self.rows
        self.normalizer[...] = normalization.normalizer(
            self.xp, self.param.loss_param, self.normalization, outer, inner, valid_rows
        )

    def _probabilities(self, bottom):
        prob = self.prob.data.reshape(self.rows)
        softmax(self.xp, bottom[0].data.reshape(self.rows), prob)
        return prob

    def forward_cpu(self, bottom, top):
        prob, labels = self._probabilities(bottom), bottom[1].data.reshape(-1)
        loss, valid, bad = _forward(prob, labels, self.ignore, self.dtype.type(SMALLEST))
        if bad >= 0:
            wanted = f"[0, {self.rows[1]})" + (f" or ignore_label {self.ignore}" if self.ignore != NOBODY else "")
            raise DataError(self.explain(f"label of row {bad} must be in {wanted}, got {labels[bad]:g}"))
        self._normalize(valid)
        top[0].data[...] = loss / self.normalizer

    def forward_gpu(self, bottom, top):
        prob = self._probabilities(bottom)
        outer, classes, inner = self.rows
        losses, valid = self.device.workspace("softmax_with_loss", (2, outer * inner), self.dtype)
        kernels(
            "softmax_loss_forward", outer * inner, prob, bottom[1].data, classes, inner, self.ignore,
            float(SMALLEST), losses, valid, dtype=self.dtype,
        )  # fmt: skip
        self._normalize(valid.sum(dtype="float64"))
        top[0].data[...] = losses.sum(dtype="float64") / self.normalizer

    def backward_cpu(self, top, propagate_down, bottom):
        if self._has_work(propagate_down):
            prob, labels, dx = self.prob.data.reshape(self.rows), bottom[1].data.reshape(-1), bottom[0].diff
            scale = self.dtype.type(top[0].diff.reshape(-1)[0] / self.normalizer)
            _backward(prob, labels, self.ignore, scale, dx.reshape(self.rows))

    def backward_gpu(self, top, propagate_down, bottom):
        if self._has_work(propagate_down):
            kernels(
                "softmax_loss_backward", self.prob.count, self.prob.data, bottom[1].data, *self.rows[1:], self.ignore,
                top[0].diff, self.normalizer, bottom[0].diff, dtype=self.dtype,
            )  # fmt: skip

    def _has_work(self, propagate_down):
        self.check(
            not propagate_down[1],
            "labels (bottom 1) have no gradient: write propagate_down: true propagate_down: false",
        )
        return propagate_down[0]


@numba.njit(cache=True)
def _forward(prob, labels, ignore, smallest):
    """(sum of the losses, rows that count, first row with a bad label or -1)."""
    outer, classes, inner = prob.shape
    loss, valid = 0.0, 0
    for row in range(outer * inner):
        label = np.int64(labels[row])
        if label == ignore:
            continue
        # A NaN is no label, whatever integer the processor makes of it.
        if labels[row] != labels[row] or label < 0 or label >= classes:
            return loss, valid, row
        p = prob[row // inner, label, row % inner]
        loss -= np.log(smallest if p < smallest else p)  # a NaN stays
        valid += 1
    return loss, valid, -1


@numba.njit(cache=True)
def _backward(prob, labels, ignore, scale, dx):
    outer, classes, inner = prob.shape
    for i in range(outer):
        for c in range(classes):
            for j in range(inner):
                label = np.int64(labels[i * inner + j])
                if label == ignore:
                    dx[i, c, j] = 0
                else:
                    dx[i, c, j] = scale * (prob[i, c, j] - (label == c))
