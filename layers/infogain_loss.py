"""InfogainLoss: softmax and cross entropy, with a matrix that says what each confusion of classes costs.

Behaves as the InfogainLossLayer of BVLC Caffe 1.0, which takes scores (those of 2015 take probabilities).
C classes along infogain_loss_param.axis (1); rows = outer x inner positions:
    bottom[0]  scores  (outer axes, C, inner axes); p is their softmax
    bottom[1]  labels  rows values in [0, C), in any shape; fractions are cut off
    bottom[2]  H       C x C values in any shape, row: label; if absent, infogain_loss_param.source, a .binaryproto
    top[0]     loss    ()  sum over the rows, label y, of -(sum over c of H[y, c] log(max(p_c, 1e-20))) / normaliser
    top[1]     the probabilities, as the scores; optional
With H the identity that is SoftmaxWithLoss. Rows labelled loss_param.ignore_label count for nothing;
loss_param.normalization gives the normaliser, at least 1: VALID (the default) the rows that count, FULL all rows,
BATCH_SIZE the outer positions, NONE 1. The older ``normalize`` is refused.
The gradient goes to the scores: loss_weight (p_c (sum of H[y]) - H[y, c]) / normaliser; none comes from top[1].

Differs from Caffe: there is a GPU half; the loss is summed in double; force_backward passes H by (Caffe aborts). A
label that is neither in [0, C) nor ignored is a DataError on the CPU; on a GPU it makes loss and gradient of that
row NaN.

On the CPU it takes some two and a half times PyTorch's time: several NumPy expressions, one after the other on one
thread.
"""

from __future__ import annotations

import math

import numpy as np

from caffe_lite import weights
from caffe_lite.blob import Blob
from caffe_lite.labels import BAD, IGNORED, read_numbers
from caffe_lite.layer import Array, Blobs, Flags, LossLayer
from caffe_lite.layers.softmax import softmax
from caffe_lite.normalization import ignored_label, normalization, normalizer
from caffe_lite.registry import register_layer

SMALLEST = 1e-20


@register_layer("InfogainLoss")
class InfogainLoss(LossLayer):
    exact_bottoms = None
    min_bottoms, max_bottoms = 2, 3
    min_tops, max_tops = 1, 2

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.loss_param
        self.check(not p.HasField("normalize"), "loss_param.normalize is not known here: write normalization")
        self.ignore = ignored_label(p)
        self.normalization = normalization(p, p.VALID)
        self.prob = top[1] if len(top) == 2 else Blob((), self.dtype, self.device)
        self.normalizer = self.xp.ones((), self.dtype)  # on the device: forward saves it for backward
        self.matrix = None
        if len(bottom) == 2:
            source = self.param.infogain_loss_param.source
            self.check(source, "needs the matrix H: a third bottom, or infogain_loss_param.source, a .binaryproto")
            self.matrix = self.xp.asarray(weights.read_mean(source), dtype=self.dtype)

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index == 0

    def example(self, bottom_index: int, bottom: Blobs, rng: np.random.Generator) -> np.ndarray | None:
        return (
            rng.integers(0, bottom[0].shape[self.param.infogain_loss_param.axis], bottom[1].shape)
            if bottom_index == 1
            else None
        )

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        axis = self.canonical_axis(bottom[0], self.param.infogain_loss_param.axis)
        shape = bottom[0].shape
        classes = shape[axis]
        self.check_shape(classes > 0, f"axis {axis} must have at least one class, got shape {shape}")
        outer, inner = bottom[0].count_of(0, axis), bottom[0].count_of(axis + 1)
        self.check_shape(
            bottom[1].count == outer * inner,
            f"scores of shape {shape} with the classes along axis {axis} need {outer * inner} labels, "
            f"got shape {bottom[1].shape}",
        )
        found = bottom[2].shape if self.matrix is None else self.matrix.shape
        fits = math.prod(found) == classes**2
        self.check_shape(fits, f"{classes} classes need an H of {classes} x {classes} values, got shape {found}")
        self.rows = outer, classes, inner
        self.prob.reshape(shape)
        top[0].reshape(())

    def _rows_of_h(self, bottom: Blobs) -> tuple[Array, Array, Array]:
        """(outer, inner) labels, their rows of H (outer, C, inner), the sums of those (outer, 1, inner)."""
        outer, classes, inner = self.rows
        labels = read_numbers(self, bottom[1].data.reshape(outer, inner), classes, "label of row", self.ignore)
        table = self.xp.zeros((classes + 2, classes), self.dtype)  # two more rows, which negative labels reach
        table[:classes] = (bottom[2].data if self.matrix is None else self.matrix).reshape(classes, classes)
        table[IGNORED], table[BAD] = 0, np.nan
        return labels, table[labels].transpose(0, 2, 1), table.sum(axis=1)[labels][:, None]

    def _clear_ignored(self, array: Array, labels: Array) -> None:
        if self.ignore is not None:  # 0 times the log of a NaN is not 0
            self.xp.copyto(array, 0, where=(labels == IGNORED)[:, None])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        xp = self.xp
        prob = self.prob.data.reshape(self.rows)
        softmax(self.device, bottom[0].data.reshape(self.rows), prob)
        labels, h, _ = self._rows_of_h(bottom)
        gains = self.device.workspace("infogain_loss", self.rows, self.dtype)
        xp.maximum(prob, SMALLEST, out=gains)
        xp.log(gains, out=gains)
        gains *= h
        self._clear_ignored(gains, labels)
        outer, _, inner = self.rows
        valid = outer * inner if self.ignore is None else (labels != IGNORED).sum()
        self.normalizer[...] = normalizer(xp, self.param.loss_param, self.normalization, outer, inner, valid)
        top[0].data[...] = -gains.sum(dtype="float64") / self.normalizer

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        for i, name in enumerate(("labels", "H")[: len(bottom) - 1], start=1):
            self.check(
                not propagate_down[i], f"{name} (bottom {i}) has no gradient: write propagate_down: false for it"
            )
        if not propagate_down[0]:
            return
        labels, h, sums = self._rows_of_h(bottom)
        dx = bottom[0].diff.reshape(self.rows)
        self.xp.multiply(self.prob.data.reshape(self.rows), sums, out=dx)
        dx -= h
        self._clear_ignored(dx, labels)
        dx *= top[0].diff / self.normalizer
