"""R-CNN's box regressors: whitened targets, ridge regression, and the examples that they learn from."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_lite.data.boxes import bbox_overlaps, bbox_transform, bbox_transform_inv
from caffe_lite.fast_rcnn.rcnn import bbox_regression
from caffe_lite.fast_rcnn.rcnn.bbox_regression import box_examples, ridge_regression, train_regressors, whitening
from tests.fast_rcnn.rcnn_inputs import cache_of, regions


@pytest.mark.parametrize("shape", [(40, 7), (7, 40), (12, 12)])
def test_ridge_regression_is_the_least_squares_solution(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """|X W - Y|^2 + c |W|^2 is the squared error of the rows of X with sqrt(c) I below them."""
    monkeypatch.setattr(bbox_regression, "BLOCK", 16)  # several blocks
    rng = np.random.default_rng(0)
    x, y, penalty = rng.normal(size=shape), rng.normal(size=(shape[0], 4)), 3.0
    below = np.sqrt(penalty) * np.eye(shape[1])
    expected = np.linalg.lstsq(np.vstack((x, below)), np.vstack((y, np.zeros((shape[1], 4)))), rcond=None)[0]
    np.testing.assert_allclose(ridge_regression(x, y, penalty), expected, rtol=1e-9, atol=1e-12)


def test_whitening_and_back() -> None:
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(50, 4)) @ rng.normal(size=(4, 4)) + [1, 2, 3, 4]
    white = whitening(targets)
    y = (targets - white.mean) @ white.whiten
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(y.T @ y / 50, np.eye(4), atol=1e-10)
    np.testing.assert_allclose(y @ white.colour + white.mean, targets, atol=1e-10)


def test_whitening_of_targets_that_do_not_vary() -> None:
    targets = np.tile([0.1, 0.2, 0.3, 0.4], (5, 1))
    white = whitening(targets)
    np.testing.assert_allclose((targets - white.mean) @ white.whiten, 0, atol=1e-12)


def test_regressors_are_ridge_regressions_on_scaled_features() -> None:
    """Each class by itself, by the definition, with the whitened targets and the constant feature."""
    roidb, dim = regions(3), 11
    pooled = cache_of(roidb, dim)
    examples: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {1: [], 2: []}
    for i, entry in enumerate(roidb):
        objects = [r for r in range(22) if entry["gt_classes"][r]]
        for r in range(22):
            iou = [float(bbox_overlaps(entry["boxes"][[r]], entry["boxes"][[g]])[0, 0]) for g in objects]
            if iou and max(iou) >= 0.6:
                g = objects[iou.index(max(iou))]
                target = bbox_transform(entry["boxes"][[r]], entry["boxes"][[g]])[0]
                examples[entry["gt_classes"][g]].append((pooled.of(i)[r], target))
    all_rows = np.array([f for rows in examples.values() for f, _ in rows], np.float64)
    scale = 20 / np.mean([np.linalg.norm(row) for row in all_rows])
    found = train_regressors(pooled, roidb, 3, progress=False)
    probe = np.random.default_rng(9).normal(1, 2, (5, dim)).astype(np.float32)
    deltas = found.deltas(probe)
    assert (deltas[:, :4] == 0).all() and deltas.shape == (5, 12)
    for k, rows in examples.items():
        x = np.array([[*(f.astype(np.float64) * scale), 1.0] for f, _ in rows])
        t = np.array([t for _, t in rows])
        values, vectors = np.linalg.eigh(np.cov(t.T, bias=True))
        root = vectors @ np.diag(values**-0.5) @ vectors.T
        y = (t - t.mean(axis=0)) @ root
        w = np.linalg.solve(x.T @ x + 1000 * np.eye(dim + 1), x.T @ y)
        ones = np.ones((5, 1))
        expected = np.hstack((probe * scale, ones)) @ w @ np.linalg.inv(root) + t.mean(axis=0)
        np.testing.assert_allclose(deltas[:, 4 * k : 4 * k + 4], expected, rtol=1e-4, atol=1e-6)


def test_examples_and_their_targets_lead_to_the_object() -> None:
    roidb = regions(4)
    labels, rows, targets = box_examples(roidb, cache_of(roidb, 2).starts)
    boxes = np.concatenate([e["boxes"] for e in roidb])[rows]
    image_of = np.repeat(np.arange(len(roidb)), 22)[rows]
    moved = bbox_transform_inv(boxes, targets)
    assert len(rows) > 20 and not (image_of == len(roidb) - 1).any()
    for i, label, box in zip(image_of, labels, moved, strict=True):
        objects = roidb[i]["boxes"][roidb[i]["gt_classes"] == label]
        assert np.abs(objects - box).max(axis=1).min() < 1e-6


def test_no_objects_no_regression() -> None:
    roidb = regions(5, images=1)
    found = train_regressors(cache_of(roidb, 3), roidb, 3, progress=False)
    assert not found.weights.any() and not found.bias.any()
