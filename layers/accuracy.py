"""Accuracy: the share of rows whose true class is among the ``top_k`` best scores.

Behaves as Caffe's AccuracyLayer. C classes along ``axis`` (1); rows = outer x inner positions:
    bottom[0]  scores  (outer axes, C, inner axes)
    bottom[1]  labels  rows values in [0, C), in any shape; fractions are cut off
    top[0]     ()      right rows / rows that count; 0 if none does
    top[1]     (C,)    the same for the rows of each class; optional
Rows labelled ``ignore_label`` do not count. A row is right if fewer than top_k other classes score at least as
high as the true one: a tie counts against it. There is no gradient, and asking for one is an error.

Differs from Caffe: a true class whose score is NaN is never right (there always); force_backward passes this
layer by. A label that is neither in [0, C) nor ignored is a DataError on the CPU; on a GPU, which is not asked
for its verdict, it makes top[0] a NaN.
"""

from __future__ import annotations

import numba
import numpy as np

from caffe_lite.cuda import Kernels
from caffe_lite.labels import BAD, IGNORED, read_numbers
from caffe_lite.layer import Array, Blobs, Flags, Layer
from caffe_lite.registry import register_layer

kernels = Kernels(__file__)
RIGHT, WRONG = 1, 0  # the verdict on a row, beside IGNORED and BAD
NOBODY = np.iinfo(np.int32).min  # an ignore_label that no row has, for the kernels of a GPU


@register_layer("Accuracy")
class Accuracy(Layer):
    exact_bottoms = 2
    min_tops, max_tops = 1, 2

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.accuracy_param
        self.check(p.top_k > 0, f"top_k must be > 0, got {p.top_k}")
        self.top_k = p.top_k
        self.ignore = p.ignore_label if p.HasField("ignore_label") else None

    def example(self, bottom_index: int, bottom: Blobs, rng: np.random.Generator) -> np.ndarray | None:
        return (
            rng.integers(0, bottom[0].shape[self.param.accuracy_param.axis], bottom[1].shape)
            if bottom_index == 1
            else None
        )

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        axis = self.canonical_axis(bottom[0], self.param.accuracy_param.axis)
        shape = bottom[0].shape
        self.check_shape(
            self.top_k <= shape[axis], f"top_k {self.top_k} is more than the {shape[axis]} classes of {shape}"
        )
        outer, inner = bottom[0].count_of(0, axis), bottom[0].count_of(axis + 1)
        self.check_shape(
            bottom[1].count == outer * inner,
            f"scores of shape {shape} with the classes along axis {axis} need {outer * inner} labels, "
            f"got shape {bottom[1].shape}",
        )
        self.rows = outer, shape[axis], inner
        top[0].reshape(())
        if len(top) == 2:
            top[1].reshape(shape[axis])

    def forward_cpu(self, bottom: Blobs, top: Blobs) -> None:
        labels = read_numbers(self, bottom[1].data.reshape(-1), self.rows[1], "label of row", self.ignore)
        verdicts = self.device.workspace("accuracy", labels.shape, "int32")
        _judge(bottom[0].data.reshape(self.rows), labels, self.top_k, verdicts)
        self._mean(verdicts, top)
        if len(top) == 2:
            counts = verdicts != IGNORED
            classes, right = labels[counts], verdicts[counts]
            rows = np.bincount(classes, minlength=self.rows[1])
            top[1].data[...] = np.bincount(classes, right, minlength=self.rows[1]) / np.maximum(rows, 1)

    def forward_gpu(self, bottom: Blobs, top: Blobs) -> None:
        outer, classes, inner = self.rows
        verdicts = self.device.workspace("accuracy", (outer * inner,), "int32")
        ignored = NOBODY if self.ignore is None else self.ignore
        kernels(
            "accuracy_judge", verdicts.size, bottom[0].data, bottom[1].data, classes, inner, self.top_k, ignored,
            verdicts, dtype=self.dtype,
        )  # fmt: skip
        self._mean(verdicts, top)
        if len(top) == 2:
            kernels(
                "accuracy_per_class", classes, verdicts, verdicts.size, bottom[1].data, top[1].data, dtype=self.dtype
            )

    def _mean(self, verdicts: Array, top: Blobs) -> None:
        right, counts = (verdicts == RIGHT).sum(), (verdicts != IGNORED).sum()
        top[0].data[...] = right / self.xp.maximum(counts, 1)
        if self.device.is_gpu:
            top[0].data[...] += self.xp.where((verdicts == BAD).any(), np.nan, 0)

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        self.check(not any(propagate_down), "has no gradient: write propagate_down: false for its bottoms")

    def allow_force_backward(self, bottom_index: int) -> bool:
        return False


@numba.njit(cache=True)
def _judge(scores: np.ndarray, labels: np.ndarray, top_k: int, verdicts: np.ndarray) -> None:
    _, classes, inner = scores.shape
    for row in range(labels.size):
        label = labels[row]
        if label == IGNORED:
            verdicts[row] = IGNORED
            continue
        i, j = row // inner, row % inner
        true = scores[i, label, j]
        others = -1  # the true class scores as high as itself
        for c in range(classes):
            others += scores[i, c, j] >= true
        verdicts[row] = RIGHT if others < top_k and true == true else WRONG
