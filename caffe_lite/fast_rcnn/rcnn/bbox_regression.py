"""Bounding-box regression of R-CNN: from pooled features to a better box, a ridge regression for each class.

Girshick et al. (2014), appendix C, and R-CNN's released code. For class k the examples are the regions that
overlap an object of the class by IOU or more, the objects themselves among them; their targets
t = (dx, dy, dw, dh) (:func:`caffe_lite.data.boxes.bbox_transform`) are centred and whitened to unit covariance, y,
and

    W = argmin |X W - y|^2 + LAMBDA |W|^2

where X are features, scaled to a mean norm of 20 and with a constant 1 as the last column, which is penalised like
the others, as in the release. Scale, whitening and mean are folded into the weights, so that deltas are one product:

    deltas (R, 4K) = features (R, P) @ weights.T (P, 4K) + bias (4K,)

class-major, zero for the background and for classes without examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from caffe_lite.data.boxes import Float64, bbox_overlaps, bbox_transform
from caffe_lite.data.image_blob import Float32
from caffe_lite.fast_rcnn.rcnn.feature_cache import FeatureCache
from caffe_lite.fast_rcnn.svm import TARGET_NORM
from caffe_lite.progress import progress_bar

IOU = 0.6  # regions that overlap an object by this much learn to become it
LAMBDA = 1000.0
BLOCK = 4096  # examples in memory at a time


class BoxRegressors(NamedTuple):
    """``weights`` (4K, P) and ``bias`` (4K,) of all classes, float32."""

    weights: Float32
    bias: Float32

    def deltas(self, features: Float32) -> Float32:
        """(R, 4K), for :func:`caffe_lite.data.boxes.bbox_transform_inv`, of features (R, P)."""
        return features @ self.weights.T + self.bias


class Whitening(NamedTuple):
    """y = (t - mean) @ whiten has mean 0 and covariance 1; t = y @ colour + mean."""

    mean: Float64
    whiten: Float64
    colour: Float64


def whitening(targets: Float64) -> Whitening:
    """Of targets (n, 4): the symmetric roots of the inverse covariance and of the covariance.

    A direction in which the targets do not vary keeps its size.
    """
    mean = targets.mean(axis=0)
    centred = targets - mean
    values, vectors = np.linalg.eigh(centred.T @ centred / len(targets))
    roots = np.sqrt(np.where(values > 1e-12, values, 1.0))
    return Whitening(mean, (vectors / roots) @ vectors.T, (vectors * roots) @ vectors.T)


class ScaledRows:
    """(n, P + 1): ``rows`` of the cache times ``scale`` and a constant 1, made a slice at a time."""

    def __init__(self, features: Float32, rows: NDArray[np.int64], scale: float) -> None:
        self.features, self.rows, self.scale = features, rows, scale
        self.shape = (len(rows), features.shape[1] + 1)

    def __getitem__(self, part: slice) -> Float64:
        rows = self.rows[part]
        made = np.ones((len(rows), self.shape[1]))
        np.multiply(self.features[rows], self.scale, out=made[:, :-1])
        return made


def ridge_regression(features: Any, targets: Float64, penalty: float) -> Float64:
    """W (P, C) = argmin |X W - Y|^2 + penalty |W|^2 for X (n, P) and Y (n, C), penalty > 0.

    By Cholesky, of the smaller of X'X + penalty (P x P) and XX' + penalty (n x n): W is
    (X'X + penalty)^-1 X'Y = X' (XX' + penalty)^-1 Y. Of X only ``shape`` and slices of rows are used,
    BLOCK rows at a time where there are more of them than columns.
    """
    import scipy.linalg

    count, dim = features.shape
    if dim > count:
        x = features[:]
        gram = x @ x.T
        gram[np.diag_indices(count)] += penalty
        return np.asarray(x.T @ scipy.linalg.solve(gram, targets, assume_a="pos"))
    gram, right = penalty * np.eye(dim), np.zeros((dim, targets.shape[1]))
    for at in range(0, count, BLOCK):
        x = features[at : at + BLOCK]
        gram += x.T @ x
        right += x.T @ targets[at : at + BLOCK]
    return np.asarray(scipy.linalg.solve(gram, right, assume_a="pos", overwrite_a=True))


def train_regressors(
    pooled: FeatureCache, roidb: Sequence[Any], num_classes: int, progress: bool = True
) -> BoxRegressors:
    """The regressors of K classes on the pooled features of ``roidb``'s regions."""
    labels, rows, targets = box_examples(roidb, pooled.starts)
    dim = pooled.all.shape[1]
    weights, bias = np.zeros((4 * num_classes, dim), np.float32), np.zeros(4 * num_classes, np.float32)
    if not len(rows):
        return BoxRegressors(weights, bias)
    scale = TARGET_NORM / mean_norm(pooled, rows)
    for k in progress_bar(range(1, num_classes), desc="box regressors", unit="class", disable=not progress):
        own = labels == k
        if not own.any():
            continue
        x = ScaledRows(pooled.all, rows[own], scale)
        white = whitening(targets[own])
        w = ridge_regression(x, (targets[own] - white.mean) @ white.whiten, LAMBDA) @ white.colour
        weights[4 * k : 4 * k + 4] = scale * w[:-1].T
        bias[4 * k : 4 * k + 4] = w[-1] + white.mean
    return BoxRegressors(weights, bias)


def box_examples(
    roidb: Sequence[Any], starts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], Float64]:
    """Of all examples of all classes: classes (n,), rows in the cache (n,), targets (n, 4).

    A region belongs to the class of the object that it overlaps most; ``starts``: row of each image's first region.
    """
    labels, rows, targets = [], [], []
    for start, entry in zip(starts, roidb, strict=False):
        objects = np.flatnonzero(entry["gt_classes"] > 0)
        if not len(objects):
            continue
        iou = bbox_overlaps(entry["boxes"], entry["boxes"][objects])
        near = np.flatnonzero(iou.max(axis=1) >= IOU)
        best = objects[iou[near].argmax(axis=1)]
        labels.append(entry["gt_classes"][best].astype(np.int64))
        rows.append(start + near)
        targets.append(bbox_transform(entry["boxes"][near], entry["boxes"][best]))
    if not labels:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4))
    return np.concatenate(labels), np.concatenate(rows), np.concatenate(targets)


def mean_norm(pooled: FeatureCache, rows: NDArray[np.int64]) -> float:
    """Mean L2 norm of these rows' features; 1 if all are zero."""
    blocks = np.array_split(rows, 1 + len(rows) // BLOCK)
    total = sum(float(np.linalg.norm(pooled.all[block], axis=1).sum()) for block in blocks)
    return total / len(rows) or 1.0
