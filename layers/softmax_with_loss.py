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

from typing import Any

import numba
import numpy as np

from caffe_lite import normalization
from caffe_lite.blob import Blob
from caffe_lite.cuda import Kernels
from caffe_lite.labels import IGNORED, read_numbers
from caffe_lite.layer import Array, Blobs, Flags, LossLayer
from caffe_lite.layers.softmax import softmax
from caffe_lite.parallel import split
from caffe_lite.registry import register_layer

kernels = Kernels(__file__)
SMALLEST = float(np.finfo(np.float32).tiny)  # FLT_MIN, in float64 nets too, as in Caffe
NOBODY = np.iinfo(np.int32).min  # an ignore_label that no row has, for the kernels of a GPU


@register_layer("SoftmaxWithLoss")
class SoftmaxWithLoss(LossLayer):
    min_tops, max_tops = 1, 2

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.loss_param
        self.ignore = normalization.ignored_label(p)
        self.normalization = normalization.normalization(p, p.VALID)
        self.prob = top[1] if len(top) == 2 else Blob((), self.dtype, self.device)
        self.normalizer = self.xp.ones((), self.dtype)  # on the device: forward saves it for backward

    def example(self, bottom_index: int, bottom: Blobs, rng: np.random.Generator) -> np.ndarray | None:
        return (
            rng.integers(0, bottom[0].shape[self.param.softmax_param.axis], bottom[1].shape)
            if bottom_index == 1
            else None
        )

    def gradient_caveat(self, bottom: Blobs) -> str:
        if not bool((self.prob.data < SMALLEST).any()):
            return ""
        return "where a probability is below FLT_MIN the loss is clamped, and its gradient is not"

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
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

    def _normalize(self, valid_rows: Any) -> None:
        """Set the normaliser; ``valid_rows`` is a number, or a device array on a GPU."""
        outer, _, inner = self.rows
        self.normalizer[...] = normalization.normalizer(
            self.xp, self.param.loss_param, self.normalization, outer, inner, valid_rows
        )

    def _probabilities(self, bottom: Blobs) -> Array:
        prob = self.prob.data.reshape(self.rows)
        softmax(self.device, bottom[0].data.reshape(self.rows), prob)
        return prob

    def _labels(self, bottom: Blobs) -> Array:
        return read_numbers(self, bottom[1].data.reshape(-1), self.rows[1], "label of row", self.ignore)

    def _ignored(self) -> int:
        return NOBODY if self.ignore is None else self.ignore

    def forward_cpu(self, bottom: Blobs, top: Blobs) -> None:
        loss, valid = _forward(self._probabilities(bottom), self._labels(bottom), self.dtype.type(SMALLEST))
        self._normalize(valid)
        top[0].data[...] = loss / self.normalizer

    def forward_gpu(self, bottom: Blobs, top: Blobs) -> None:
        prob = self._probabilities(bottom)
        outer, classes, inner = self.rows
        losses, valid = self.device.workspace("softmax_with_loss", (2, outer * inner), self.dtype)
        kernels(
            "softmax_loss_forward", outer * inner, prob, bottom[1].data, classes, inner, self._ignored(),
            float(SMALLEST), losses, valid, dtype=self.dtype,
        )  # fmt: skip
        self._normalize(valid.sum(dtype="float64"))
        top[0].data[...] = losses.sum(dtype="float64") / self.normalizer

    def backward_cpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if self._has_work(propagate_down):
            outer, classes, inner = self.rows
            kernel = _rows_backward if inner == 1 else _columns_backward
            shape = (outer, classes) if inner == 1 else self.rows
            rows = outer if inner == 1 else outer * classes
            prob, dx, labels = self.prob.data.reshape(shape), bottom[0].diff.reshape(shape), self._labels(bottom)
            scale = self.dtype.type(top[0].diff.reshape(-1)[0] / self.normalizer)
            split(lambda first, last: kernel(prob, labels, scale, dx, first, last), rows, dx.size)

    def backward_gpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if self._has_work(propagate_down):
            kernels(
                "softmax_loss_backward", self.prob.count, self.prob.data, bottom[1].data, *self.rows[1:],
                self._ignored(), top[0].diff, self.normalizer, bottom[0].diff, dtype=self.dtype,
            )  # fmt: skip

    def _has_work(self, propagate_down: Flags) -> bool:
        self.check(
            not propagate_down[1],
            "labels (bottom 1) have no gradient: write propagate_down: true propagate_down: false",
        )
        return propagate_down[0]


@numba.njit(cache=True)
def _forward(prob: np.ndarray, labels: np.ndarray, smallest: float) -> tuple[float, int]:
    """(sum of the losses, rows that count)."""
    inner = prob.shape[2]
    loss, valid = 0.0, 0
    for row in range(labels.size):
        if labels[row] == IGNORED:
            continue
        p = prob[row // inner, labels[row], row % inner]
        loss -= np.log(smallest if p < smallest else p)  # a NaN stays
        valid += 1
    return loss, valid


@numba.njit(cache=True, nogil=True)
def _rows_backward(prob: np.ndarray, labels: np.ndarray, scale: float, dx: np.ndarray, first: int, last: int) -> None:
    """Rows [first, last) of ``prob`` (rows, C)."""
    for row in range(first, last):
        if labels[row] == IGNORED:
            dx[row] = 0
            continue
        for c in range(prob.shape[1]):
            dx[row, c] = scale * prob[row, c]
        dx[row, labels[row]] = scale * (prob[row, labels[row]] - 1)


@numba.njit(cache=True, nogil=True)
def _columns_backward(
    prob: np.ndarray, labels: np.ndarray, scale: float, dx: np.ndarray, first: int, last: int
) -> None:
    """Rows [first, last) of outer x C, one image and class each, of ``prob`` (outer, C, inner)."""
    classes, inner = prob.shape[1:]
    for row in range(first, last):
        n, c = row // classes, row % classes
        for j in range(inner):
            label = labels[n * inner + j]
            slope = scale * (prob[n, c, j] - (label == c))
            dx[n, c, j] = 0 if label == IGNORED else slope
